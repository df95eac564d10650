"""Whose film a folder holds: the mark that renders leave in it, and what is refused because it is somebody else's."""

import os
import re
from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import RenderError
from ..files import read_file
from ..storyboard import Storyboard
from ..storyboard.messages import printable
from .stored import read_tags

MARK, STORY, PLAN, FILM, REPORT = "framepack-relax.json", "story.yaml", "plan.json", "video.mp4", "report.json"
FACTS_TAG = "framepack_relax"  # of an mp4: what made it
SECTION_FILE = "shots/{:02d}/{:03d}.safetensors"  # of a shot, and a place in it
START_FILE = "shots/{:02d}/start.safetensors"


class Mark(BaseModel):
    """`board` is the storyboard's file relative to the folder, empty for one from Python; `files` are those that
    renders have written here; of the newest plan the key of each section by its index, and the film's."""

    model_config = ConfigDict(strict=True, frozen=True)

    board: str
    title: str
    files: tuple[str, ...] = ()
    sections: Mapping[str, str] = {}
    film: str = ""


def read_mark(folder: Path) -> Mark | None:
    """None if there is none, or if it is damaged. Raises RenderError where it cannot be read."""
    try:
        return Mark.model_validate_json(read_file(folder / MARK))
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    except OSError as error:
        raise unreadable(folder / MARK, error) from error


def mark_of(folder: Path, story: Storyboard, made_from: Path | None = None) -> Mark:
    """The mark of a film that is to be rendered into a folder; `made_from` is a file that stands for the storyboard.

    A storyboard without a file is known by its title, or by its first scene.
    """
    file = made_from or story.file
    return Mark(board=_relative(file, folder), title=story.title) if file else Mark(board="", title=name_of(story))


def name_of(story: Storyboard) -> str:
    """What a storyboard without a file is called."""
    return story.title or story.scenes[0].id


def default_out(story: Storyboard) -> Path:
    """Where a film goes unless it is said: out/<stem of the file>, from Python out/<slug of the title>."""
    slug = re.sub(r"[^\w.-]+", "-", name_of(story)).strip("-.").lower()
    return Path("out") / (story.file.stem if story.file else slug[:60] or "film")


def settle_owner(folder: Path, mine: Mark, keys: Collection[str] = ()) -> Mark:
    """The mark that a render of `mine` goes on from: of its own folder, or of an empty one.

    A folder whose mark is lost is its own if a section bears one of its `keys`. Raises RenderError for all others.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return mine
    except OSError as error:
        raise unreadable(folder, error) from error
    mark = read_mark(folder)
    if mark is None and any(read_tags(file).get("key") in keys for file in folder.glob("shots/*/*.safetensors")):
        return mine.model_copy(update={"files": _all_files(folder)})
    cure = f"it is left as it is; choose another folder, for instance {free_name(folder)}"
    if mark is not None:
        gone = mark.board != "" and not os.path.exists(folder / mark.board)
        if not _same_board(folder, mark, mine) and not (gone and set(keys) & set(mark.sections.values())):
            of = f"{printable(mark.title)} ({printable(mark.board) if mark.board else 'from Python'})"
            raise RenderError(f"{folder}: holds the film of another storyboard, {of}; {cure}")
        return mark.model_copy(update={"title": mine.title, **({} if mine.board == STORY else {"board": mine.board})})
    if PLAN in names and (folder / "shots/wanted.json").exists():
        raise RenderError(
            f"{folder}: holds a render of framepack-relax 0.1, which this version cannot go on with; {cure}"
        )
    if names:
        shown = ", ".join(printable(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        raise RenderError(f"{folder}: holds files that no render wrote ({shown}); {cure}")
    return mine


def free_name(folder: Path) -> Path:
    """A folder beside this one that is not there."""
    folder = folder.resolve() if folder.name in ("", "..") else folder
    return next(place for n in count(2) if not (place := folder.parent / f"{folder.name or 'film'}-{n}").exists())


def unreadable(file: Path, error: OSError) -> RenderError:
    """What cannot be read may be whole: it is neither called damaged nor written over."""
    return RenderError(
        f"{file}: cannot be read ({error.strerror or error}) and is left as it is; mend that, or remove it, and run "
        "the same command again"
    )


def _same_board(folder: Path, mark: Mark, mine: Mark) -> bool:
    """By its file, or the folder's own storyboard; one that was moved is known by its title, as one from Python is."""
    moved = mark.board != "" and not os.path.exists(folder / mark.board)
    by_title = mark.title == mine.title != "" and (moved if mine.board else mark.board == "")
    return mine.board == STORY or mine.board == mark.board != "" or by_title


def _relative(file: Path, folder: Path) -> str:
    try:
        path = Path(os.path.relpath(os.path.realpath(file), os.path.realpath(folder))).as_posix()
        return path.encode("utf8", "backslashreplace").decode("utf8")  # names that are not UTF-8
    except ValueError:  # another drive of Windows
        return str(file)


def _all_files(folder: Path) -> tuple[str, ...]:
    return tuple(file.relative_to(folder).as_posix() for file in folder.rglob("*"))
