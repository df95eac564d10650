"""What the run folders under a folder say: how far each film is, who is at work. No torch, and no film is opened."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import RenderError
from ..files import make_folder, read_file
from ..rendering.folder import writing
from ..rendering.lease import LEASE, at_work
from ..rendering.mark import CANCELLED, FILM, MARK, REPORT, read_mark, unreadable
from ..rendering.stored import SEALED
from .records import read_manifest

HEAD = 100  # bytes in which a report names its film


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A film's folder, named by its path; `done` counts sections on disk, `why` says what stopped its last batch."""

    name: str
    state: Literal["done", "at work", "waiting", "failed", "cancelled", "damaged"]
    done: int
    sections: int
    who: str = ""
    why: str = ""


def read_ledger(out: Path) -> list[Entry]:
    """Every film under a folder. A section counts by its name; `status FOLDER` looks into it. Raises RenderError."""
    try:
        if not out.is_dir():
            raise RenderError(f"{out}: is no folder; give that of a batch")
        said = {row["film"]: row for row in _manifest(out)}
        entries = [_entry(place, files, out, said) for place, files in _folders(str(out))]
        missing = [row for name, row in said.items() if name not in {entry.name for entry in entries}]
        return entries + [_not_begun(row) for row in missing]
    except OSError as error:
        raise unreadable(Path(error.filename or out), error) from error


def read_entry(out: Path, name: str) -> Entry | None:
    """The film in the folder `out`/`name`; None where there is none. Raises RenderError."""
    try:
        names, said = set(os.listdir(out / name)), {row["film"]: row for row in _manifest(out)}
        return _entry(str(out / name), names, out, said) if MARK in names else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(Path(error.filename or out), error) from error


def make_known(place: Path) -> None:
    """Makes the folder of a film that a batch has not begun yet. Raises RenderError for all others."""
    known = any(
        row["film"] == place.absolute().relative_to(above).as_posix()
        for above in place.absolute().parents
        for row in _manifest(above)
    )
    if known and not place.exists():
        with writing(place):
            make_folder(place)
    elif not known and read_mark(place) is None:
        raise RenderError(f"{place}: is not the folder of a film; give one")


def _manifest(out: Path) -> list[dict[str, Any]]:
    with suppress(RenderError):  # run folders are the truth
        return read_manifest(out)
    return []


def _not_begun(row: dict[str, Any]) -> Entry:
    state: Any = "failed" if row.get("state") == "failed" else "waiting"
    return Entry(name=row["film"], state=state, done=0, sections=row["sections"][1], why=str(row.get("why", "")))


def _folders(place: str) -> Iterator[tuple[str, set[str]]]:
    """Each run folder, and the names in it."""
    with os.scandir(place) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    names = {entry.name for entry in entries}
    if MARK in names:
        yield place, names
        return
    for entry in entries:
        if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from _folders(entry.path)


def _entry(place: str, names: set[str], out: Path, said: dict[str, dict[str, Any]]) -> Entry:
    name = Path(os.path.relpath(place, out)).as_posix()
    try:
        mark = json.loads(read_file(Path(place, MARK)))
        sections, film = len(mark["sections"]), str(mark["film"])
    except (ValueError, KeyError, TypeError):
        return Entry(name=name, state="damaged", done=0, sections=0)
    if {FILM, REPORT} <= names and f'"film": "{film}"'.encode() in read_file(Path(place, REPORT), first=HEAD):
        return Entry(name=name, state="done", done=sections, sections=sections)
    done, working = 0, LEASE in names
    for shot in os.listdir(os.path.join(place, "shots")) if "shots" in names else []:
        files = os.listdir(os.path.join(place, "shots", shot))
        done += sum(file.endswith(SEALED) and file[0].isdecimal() for file in files)
        working |= LEASE in files
    who, row = (at_work(Path(place)) or "" if working else ""), said.get(name, {})
    counts: Any = {"done": min(done, sections), "sections": sections}
    if CANCELLED in names:
        return Entry(name=name, state="cancelled", **counts)
    if who:
        return Entry(name=name, state="at work", who=who, **counts)
    failed = row.get("state") == "failed"
    return Entry(name=name, state="failed" if failed else "waiting", why=str(row.get("why", "")), **counts)
