"""What a batch leaves beside its films: a log for every unit, and a manifest of what was made from what."""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..errors import RenderError
from ..files import make_folder, open_file, read_file, write_file
from ..rendering.folder import writing
from ..rendering.mark import FILM, REPORT, Note, unreadable
from .executor import Told

if TYPE_CHECKING:
    from .batch import Progress

LOGS, MANIFEST, BUNDLE = "logs", "manifest.json", "openjd"
RESERVED = (LOGS, MANIFEST, BUNDLE)  # names that no film may have


@dataclass(frozen=True)
class Logs:
    """A file for each unit, in which its events stand with their times, from whichever worker they come."""

    folder: Path

    def __post_init__(self) -> None:
        with writing(self.folder, "cannot be made a folder for the logs", "choose another folder"):
            make_folder(self.folder)

    def hear(self, told: Told) -> None:
        """Steps are left out. A log that takes nothing ends no batch."""
        if told.event.step is not None:
            return
        said = {name: value for name, value in told.event.to_json().items() if name not in ("kind", "text")}
        words = [time.strftime("%Y-%m-%d %H:%M:%S"), told.worker, told.event.kind]
        words += [*(f"{name} {value}" for name, value in said.items()), told.event.text]
        file = self.folder / f"{told.unit.name.replace(', shot ', '-shot-')}.log"
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "a", encoding="utf8", errors="backslashreplace") as log:
                print(*filter(None, words), file=log)


def read_manifest(out: Path) -> list[dict[str, Any]]:
    """Rows that batches have left. Raises RenderError where the file is another program's."""
    try:
        said = json.loads(read_file(out / MANIFEST))
        return [row for row in said["films"] if isinstance(row["film"], str) and isinstance(row["sections"][1], int)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(out / MANIFEST, error) from error
    except (ValueError, LookupError, TypeError) as error:
        raise RenderError(f"{out / MANIFEST}: is not what a batch has written; move it away") from error


def write_manifest(out: Path, films: "Iterable[Progress]") -> Path:
    """What became of each film: state, files with their hashes, seeds, weights, versions; other batches' rows stay.

    Raises RenderError.
    """
    gone = lambda row: row.get("state") == "done" and not (out / row["film"] / FILM).exists()  # noqa: E731
    rows = {row["film"]: row for row in read_manifest(out) if not gone(row)}
    rows |= {progress.film.name: _row(out, progress) for progress in films}
    text = json.dumps({"framepack-relax": __version__, "films": [*rows.values()]}, indent=1)
    with writing(out / MANIFEST):
        write_file(out / MANIFEST, text.encode("utf8"))
    return out / MANIFEST


def tell_manifest(out: Path, films: "Iterable[Progress]", note: Note) -> None:
    """Writes it; where that cannot be done it is told, and ends nothing: the films are there."""
    try:
        write_manifest(out, films)
    except RenderError as error:
        note(str(error))


def _row(out: Path, progress: "Progress") -> dict[str, Any]:
    film = progress.film
    state = "waiting" if progress.state == "at work" else progress.state  # leases say who is at work
    row: dict[str, Any] = {"film": film.name, "state": state, "sections": [progress.done, film.sections]}
    row |= {"storyboard": str(film.story.file), "seed": film.story.seed, "retries": progress.retries}
    if progress.state != "done":
        return {**row, "why": progress.why}
    try:
        with open_file(film.out / FILM) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        report = json.loads(read_file(film.out / REPORT))
    except (OSError, ValueError) as error:
        raise RenderError(f"{film.out}: its film or report cannot be read ({error}); render it again") from error
    path = Path(os.path.relpath(film.out / FILM, out)).as_posix()
    seeds = {section["index"]: section["seed"] for section in report["sections"]}
    facts = {"model": report["model"], "device": report["device"], "versions": report["versions"]}
    return {**row, "path": path, "sha256": digest, "seeds": seeds, **facts, "seconds": report["totals"]["film_seconds"]}
