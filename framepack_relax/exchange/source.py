"""A file of another program: text, JSON, or a zip that is read in memory, within limits. All of it is untrusted.

An archive is refused whole for one name that leads out of it, an absolute one, a link, a name twice, an archive in it,
or more than it may unpack to; nothing is ever unpacked to the disk.
"""

import io
import json
import re
import stat
import sys
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from ..errors import Problem, StoryboardError
from ..files import LARGEST, read_file
from ..storyboard.messages import printable, validated
from ..storyboard.paths import expand, leaves, path_cure
from ..storyboard.reader import decoded, parse_as

MOST_FILES, MOST_BYTES, MOST_OF_ONE = 1000, 1 << 28, 1 << 26  # of an archive, unpacked
RATIO, SMALL = 200, 1 << 20  # a file larger than this may not be so many times what it takes packed
ARCHIVES = re.compile(r"\.(zip|tar|t?gz|bz2|xz|7z|rar|zst)$", re.IGNORECASE)
STDIN = "-"

P = TypeVar("P", bound="Foreign")


class Foreign(BaseModel):
    """A mapping of another program's: what is not listed is extra, what is null is absent."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, data: Any) -> Any:
        return {str(k): v for k, v in data.items() if v is not None} if isinstance(data, dict) else data


@dataclass(frozen=True)
class Source:
    """`file` is its name in messages, `folder` where files are that it names; None where they are not looked for."""

    file: str
    data: bytes
    folder: Path | None = None

    def refuse(self, message: str, part: str = "", **place: Any) -> NoReturn:
        """Raises StoryboardError for the file, or for a part of the archive."""
        raise StoryboardError([Problem(message=message, file=self.inside(part), **place)])

    def inside(self, part: str) -> str:
        return f"{self.file}/{printable(part)}" if part else self.file

    @cached_property
    def archive(self) -> zipfile.ZipFile | None:
        """Where it is a zip; every name in it is safe. Raises StoryboardError."""
        if not self.data.startswith(b"PK"):
            return None
        try:
            archive = zipfile.ZipFile(io.BytesIO(self.data))
            infos = archive.infolist()
        except Exception as error:  # zipfile raises what it likes on damaged files
            self.refuse(f"is damaged and cannot be read as a zip ({printable(str(error))}); make it anew")
        for fact in _hostile(infos):
            self.refuse(f"is refused: {fact}; unpack it yourself if you trust it, and import what is in it")
        return archive

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the files in the archive."""
        return tuple(name for name in self.archive.namelist() if not name.endswith("/")) if self.archive else ()

    def read(self, name: str) -> bytes:
        """A file of the archive. Raises StoryboardError."""
        assert self.archive
        try:
            return self.archive.read(name)
        except Exception as error:  # as above: zlib.error, EOFError, RuntimeError, ..
            self.refuse(f"is damaged and cannot be unpacked ({printable(str(error))}); make the zip anew", name)

    def picture(self, name: str) -> bytes | None:
        """The bytes of a file in the archive, or beside the file; None where there is none, or outside of it."""
        if self.archive:
            base = PurePosixPath(name.replace("\\", "/")).name
            found = [there for there in self.names if PurePosixPath(there).name == base]
            return self.read(found[0]) if base and found else None
        if self.folder is None or leaves(name):
            return None
        try:
            place = (self.folder / name).resolve()
            return read_file(place) if place.is_relative_to(self.folder.resolve()) else None
        except (OSError, ValueError):
            return None

    @cached_property
    def text(self) -> str:
        """Raises StoryboardError where it is none."""
        return "" if self.archive else decoded(self.data, self.file, "UTF-8")

    @cached_property
    def json(self) -> Any:
        """What the file, or queue.json in the archive, holds; None where it is no JSON. Raises StoryboardError."""
        if self.archive:
            return self.loads("queue.json") if "queue.json" in self.names else None
        return self.loads() if re.match(r"\s*(\{|\[(?!\d+(?:\.\d+)?s))", self.text) else None

    def loads(self, part: str = "") -> Any:
        """JSON, of the archive's part. Raises StoryboardError with the place of what is wrong."""
        text = decoded(self.read(part), self.inside(part), "UTF-8") if part else self.text
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            self.refuse(f"is not JSON: {error.msg}", part, line=error.lineno, column=error.colno)
        except (ValueError, RecursionError) as error:
            fact = "is nested too deep" if isinstance(error, RecursionError) else "holds a number of too many digits"
            self.refuse(f"{fact}; write it by the program that it is from", part)

    def parsed(self, model: type[P], data: Any, part: str = "", at: str = "") -> P:
        """`data` as the `model` says, from a part of the archive, and there from the field `at`. Raises
        StoryboardError with every mistake in it."""
        if not isinstance(data, dict):
            self.refuse("is no mapping of fields; write it by the program that it is from", part, path=at)
        try:
            return validated(model, data)
        except StoryboardError as error:
            found = [(problem, ".".join(filter(None, (at, problem.path)))) for problem in error.problems]
            told = [Problem(message=one.message, path=path, file=self.inside(part)) for one, path in found]
            raise StoryboardError(told) from None

    def yaml(self, model: type[P], part: str) -> P:
        """A part of the archive that is YAML, read as a storyboard is. Raises StoryboardError."""
        return parse_as(model, decoded(self.read(part), self.inside(part), "UTF-8"), file=self.inside(part))


def open_source(place: Path | str) -> Source:
    """The file, or what comes by standard input where it is called `-`. Raises StoryboardError."""
    if str(place) == STDIN:
        return Source("<stdin>", sys.stdin.buffer.read(LARGEST + 1)[:LARGEST])
    file = expand(place)
    try:
        return Source(str(file), read_file(file), file.resolve().parent)
    except (OSError, ValueError) as error:
        fact = "no such file" + path_cure(str(file), file) if isinstance(error, FileNotFoundError) else ""
        reason = getattr(error, "strerror", None) or str(error)
        message = fact or f"cannot be read ({reason}); name a file"
        raise StoryboardError([Problem(message=message, file=printable(str(file), 200))]) from error


def _hostile(infos: list[zipfile.ZipInfo]) -> Iterator[str]:
    """What is wrong with an archive, by its list of contents."""
    if len(infos) > MOST_FILES:
        yield f"it holds {len(infos)} files, of which at most {MOST_FILES} are read"
    if sum(info.file_size for info in infos) > MOST_BYTES:
        yield f"it unpacks to more than {MOST_BYTES >> 20} MiB"
    seen: set[str] = set()
    for info in infos:
        name, kind = printable(info.filename), stat.S_IFMT(info.external_attr >> 16)
        plain = unicodedata.normalize("NFC", info.filename).casefold()
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if not info.filename or "\\" in info.filename or ".." in parts or leaves(info.filename):
            yield f"the name {name} leads out of it"
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            yield f"{name} is a link or a device"
        if plain in seen:
            yield f"{name} is in it twice"
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            yield f"{name} is encrypted, or packed in a way that is not read"
        if info.file_size > MOST_OF_ONE or info.file_size > max(SMALL, RATIO * info.compress_size):
            yield f"{name} unpacks to {info.file_size} bytes, more than is read of one or than it can hold in earnest"
        if ARCHIVES.search(info.filename):
            yield f"{name} is an archive in the archive"
        seen.add(plain)
