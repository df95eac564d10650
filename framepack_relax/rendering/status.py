"""How far a render has come, and whether its film is there; no torch, no weights."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import RenderError
from ..files import read_file
from ..storyboard.messages import printable
from .films import ODD, is_whole
from .lease import at_work
from .mark import FILM, PLAN, SECTION_FILE, Mark, read_mark, unreadable
from .stored import read_tags
from .takes import takes_told


@dataclass(frozen=True, kw_only=True)
class Status:
    """`scenes` are (scene, sections on disk, sections in all); `at_work` says who renders here now.

    A section counts that is what the newest plan asks for; a film is there if it is the plan's and whole, also where
    sections were removed since.
    """

    title: str
    scenes: tuple[tuple[str, int, int], ...]
    film: Path | None
    at_work: str | None
    seconds_per_section: float | None  # median time between the files of neighbouring sections
    newest: float | None  # time of the newest section, seconds since the epoch
    takes: tuple[str, ...] = ()  # of the film that is there, a line each

    @property
    def done(self) -> int:
        return sum(done for _, done, _ in self.scenes)

    @property
    def total(self) -> int:
        return sum(total for _, _, total in self.scenes)

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the pace so far; None before two sections are on disk, and when the film is there."""
        pace = None if self.film else self.seconds_per_section
        return None if pace is None else pace * (self.total - self.done)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run folder as it is: its newest plan.json, by index the files of that and what they say, and which are done."""

    mark: Mark
    plan: dict[str, Any]
    files: dict[int, Path]
    tags: dict[int, dict[str, str]]
    done: set[int]


def read_begun(folder: Path) -> Begun:
    """Raises RenderError if `folder` is not the folder of a render."""
    mark = read_mark(folder)
    if mark is None:
        raise RenderError(f"{folder}: is not the folder of a render (no mark of one in it); give one")
    try:
        plan = json.loads(read_file(folder / PLAN))
        rows = plan["sections"]
        files = {
            index: folder / (rows[index].get("file") or SECTION_FILE.format(shot["index"], place))
            for shot in plan["shots"]
            for place, index in enumerate(sorted(shot["sections"]))
        }
        tags = {index: read_tags(file) for index, file in files.items()}
        done: set[int] = set()
        for shot in plan["shots"]:
            after = ""
            for index in shot["sections"]:  # in rendering order, up to the first that is to be rendered
                wanted = {"key": mark.sections.get(str(index))}
                wanted |= {} if rows[index].get("lock") else {"after": after}
                if not wanted.items() <= tags[index].items():
                    break
                done.add(index)
                after = tags[index]["digest"]
    except FileNotFoundError as error:
        raise RenderError(f"{folder}: the render has only just begun, or lost its {PLAN}; render again") from error
    except OSError as error:
        raise unreadable(Path(error.filename or folder / PLAN), error) from error
    except ODD as error:
        raise damaged_plan(folder) from error
    return Begun(mark=mark, plan=plan, files=files, tags=tags, done=done)


def damaged_plan(folder: Path) -> RenderError:
    return RenderError(f"{folder / PLAN}: is damaged; render again, which writes it anew")


def read_status(folder: Path) -> Status:
    """Raises RenderError if `folder` is not the folder of a render."""
    begun = read_begun(folder)
    try:
        scenes = tuple(
            (printable(str(scene["scene"])), sum(i in begun.done for i in scene["sections"]), len(scene["sections"]))
            for scene in begun.plan["scenes"]
        )
        title = str(begun.plan["title"]) and printable(str(begun.plan["title"]))
        times, working = sorted(begun.files[index].stat().st_mtime for index in begun.done), at_work(folder)
    except OSError as error:
        raise unreadable(Path(error.filename or folder / PLAN), error) from error
    except ODD as error:
        raise damaged_plan(folder) from error
    gaps = sorted(after - before for before, after in pairwise(times))
    film = folder / FILM
    return Status(
        title=title,
        scenes=scenes,
        film=film if is_whole(film, begun.mark.film) else None,
        at_work=working,
        seconds_per_section=gaps[len(gaps) // 2] if gaps else None,
        newest=times[-1] if times else None,
        takes=tuple(takes_told(folder)),
    )
