"""Files over HTTP that others may still write."""

import os
import re
from collections.abc import Iterator, Mapping
from io import BufferedReader

from fastapi import HTTPException
from fastapi.responses import StreamingResponse

SPAN = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")
PIECE = 1 << 16  # bytes read at a time


def sent(
    stream: BufferedReader, kind: str, headers: Mapping[str, str], span: str = "", only: str = ""
) -> StreamingResponse:
    """A file as long as it is now, or a `span` of it: meanwhile it may grow, and get another name. `only` names the
    state of which the span is wanted; of another all is sent, as where several spans are asked for."""
    stat = os.fstat(stream.fileno())
    first, end, tag = 0, stat.st_size, f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
    headers = {**headers, "Accept-Ranges": "bytes", "ETag": tag}
    if found := SPAN.fullmatch(span) if only in ("", tag) else None:
        first = int(found[1]) if found[1] else max(end - int(found[3]), 0)
        end = min(int(found[2]) + 1, end) if found[2] else end
        if first >= end:
            stream.close()
            there = {"Content-Range": f"bytes */{stat.st_size}"}
            raise HTTPException(416, f"{span}: there are {stat.st_size} bytes", there)
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{stat.st_size}"

    def pieces() -> Iterator[bytes]:
        with stream:
            stream.seek(first)
            for at in range(first, end, PIECE):
                yield stream.read(min(PIECE, end - at))

    headers["Content-Length"] = str(end - first)
    return StreamingResponse(pieces(), 206 if found else 200, headers, kind)
