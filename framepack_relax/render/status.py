"""Who is at work in a run folder, one render at a time, and how far it has come; no torch, no weights."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import RenderError

LOCK, OWNER, STORY, PLAN = ".lock", ".owner.json", "story.yaml", "plan.json"
WANTED = "shots/wanted.json"  # the hash that each section's file must bear, by the section's index
SECTION_FILE = "shots/{:02d}/{:03d}.safetensors"  # of a shot, and a place in it
LOOKING = 1.0  # seconds
NOT_THERE = "it is not there yet"  # why a section is rendered that never was


@dataclass(frozen=True, kw_only=True)
class Status:
    """`scenes` are (scene, sections on disk, sections in all); `at_work` says who renders here now.

    A section counts that is what plan.json asks for; a film is there if it is newer than all of them.
    """

    title: str
    scenes: tuple[tuple[str, int, int], ...]
    film: Path | None
    at_work: str | None
    seconds_per_section: float | None  # median time between the files of neighbouring sections
    newest: float | None  # time of the newest section, seconds since the epoch

    @property
    def done(self) -> int:
        return sum(done for _, done, _ in self.scenes)

    @property
    def total(self) -> int:
        return sum(total for _, _, total in self.scenes)

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the pace so far; None before two sections are on disk."""
        return None if self.seconds_per_section is None else self.seconds_per_section * (self.total - self.done)


def read_status(folder: Path) -> Status:
    """Raises RenderError if `folder` is not the folder of a render."""
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf8"))
        files = {
            index: folder / SECTION_FILE.format(shot["index"], place)
            for shot in plan["shots"]
            for place, index in enumerate(sorted(shot["sections"]))
        }
        wanted = json.loads((folder / WANTED).read_text(encoding="utf8")) if (folder / WANTED).exists() else {}
        done = {i for i, file in files.items() if (bears := _hash_of(file)) and bears == wanted.get(str(i))}
        scenes = tuple(
            (scene["scene"], sum(i in done for i in scene["sections"]), len(scene["sections"]))
            for scene in plan["scenes"]
        )
        title = str(plan["title"])
        times = sorted(files[index].stat().st_mtime for index in done)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise RenderError(
            f"{folder}: is not the folder of a render (no plan.json that can be read); give the --out of one"
        ) from error
    gaps = sorted(after - before for before, after in pairwise(times))
    film = folder / "video.mp4"
    whole = len(done) == len(files) and film.exists() and film.stat().st_mtime >= max(times, default=0)
    return Status(
        title=title,
        scenes=scenes,
        film=film if whole else None,
        at_work=holder(folder),
        seconds_per_section=gaps[len(gaps) // 2] if gaps else None,
        newest=times[-1] if times else None,
    )


def _hash_of(file: Path) -> str | None:
    """What a section's file says it is, if it is as long as it says (safetensors: length, JSON header, data)."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, 1 << 20)))
        end = 8 + length + max(row["data_offsets"][1] for name, row in header.items() if name != "__metadata__")
        return str(header["__metadata__"]["hash"]) if file.stat().st_size == end else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Raises RenderError that names the owner if another process holds the folder.

    The lock goes with the process that holds it, however it ends.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=LOOKING)  # somebody may look whether it is held
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
