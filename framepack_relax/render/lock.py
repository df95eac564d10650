"""One render at a time in a folder; the lock goes with the process that holds it, however it ends."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import RenderError

LOCK, OWNER = ".lock", ".owner.json"


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Raises RenderError that names the owner if another process holds the folder."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RenderError(
            f"{folder}: another render is at work in this folder ({_owner(folder)}); wait for it, stop it, or choose "
            "another --out"
        ) from None
    except OSError as error:
        raise RenderError(f"{folder}: cannot be locked ({error.strerror}); choose another --out") from error
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
    try:
        try:
            (folder / OWNER).write_text(json.dumps(who), encoding="utf8")
        except OSError as error:
            raise RenderError(
                f"{folder / OWNER}: cannot be written ({error.strerror}); mend that and run the same command again"
            ) from error
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def holder(folder: Path) -> str | None:
    """Who renders in the folder now, in words; None if nobody does."""
    if not (folder / LOCK).exists():
        return None
    try:
        with FileLock(folder / LOCK, timeout=0):
            return None
    except OSError:
        return _owner(folder) if (folder / OWNER).exists() else None


def _owner(folder: Path) -> str:
    try:
        who = json.loads((folder / OWNER).read_text(encoding="utf8"))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(who["since"]))
        return f"process {who['pid']} on {who['host']}, since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "which does not say who it is"
