"""Whose film a folder holds: the mark that renders leave in it, and what is refused because it is somebody else's."""

import os
import re
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import RenderError
from ..files import read_file
from ..planning.renderplan import SectionPlan
from ..storyboard import Storyboard
from ..storyboard.messages import printable
from .keys import hash_of
from .stored import SEALED, read_tags

MARK, STORY, PLAN, FILM, REPORT = "framepack-relax.json", "story.yaml", "plan.json", "video.mp4", "report.json"
PICTURES = ("contact.png", "curves.png")
MADE = (REPORT, FILM, *PICTURES)  # what a whole film comes with
FINISHED = "finish/film.mp4"  # what the maker's commands made of it
PARTS = ("video.part.mp4", "video.part-again.mp4", "video.whole.mp4")  # of the film, while it is written
FACTS_TAG = "framepack_relax"  # of an mp4: what made it
SHOT = "shots/{:02d}"
SECTION_FILE, START_FILE = f"{SHOT}/{{:03d}}.safetensors", f"{SHOT}/start.safetensors"  # by a place in it
CANCELLED = ".cancelled"  # lies in the folder of a film that was called off
Note = Callable[[str], None]  # hears a warning, or what was put aside


class Mark(BaseModel):
    """`board` is the storyboard's file relative to the folder, empty for one from Python; one without a title either
    has in `asked` a hash of what it asks for. `contents` are hashes of what renders have written here, by name: of what
    lies there, and of what takes its place; sections bear their own. Of the newest plan the key of each section by its
    index, and the film's."""

    model_config = ConfigDict(strict=True, frozen=True)

    board: str
    title: str
    asked: str = ""
    contents: Mapping[str, tuple[str, ...]] = {}
    sections: Mapping[str, str] = {}
    film: str = ""


def section_file(section: SectionPlan) -> str:
    """Where a section's latents lie in the run folder."""
    return section.file or SECTION_FILE.format(section.shot, section.place)


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

    A storyboard without a file is known by its title, or by its scenes' names and prompts.
    """
    if file := made_from or story.file:
        return Mark(board=_relative(file, folder), title=story.title)
    asked = "" if story.title else hash_of([(scene.id, scene.prompt) for scene in story.scenes])
    return Mark(board="", title=name_of(story), asked=asked)


def name_of(story: Storyboard) -> str:
    """What a storyboard without a file is called."""
    return story.title or story.scenes[0].id


def default_out(story: Storyboard) -> Path:
    """Where a film goes unless it is said: out/<stem of the file>, from Python out/<slug of the title>."""
    slug = re.sub(r"[^\w.-]+", "-", name_of(story)).strip("-.").lower()
    return Path("out") / (story.file.stem if story.file else slug[:60] or "film")


def settle_owner(folder: Path, mine: Mark) -> Mark:
    """The mark that a render of `mine` goes on from: of its own folder, or of an empty one.

    A folder whose mark is lost is its own if a section bears one of its keys; nothing else in it is then known to be
    of a render. Raises RenderError for all others.
    """
    keys = set(mine.sections.values())
    try:  # another that begins the same film writes its mark first: it is read last
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        mark = read_mark(folder)
        if mark is None and keys & {read_tags(file).get("key") for file in folder.glob(f"shots/*/*{SEALED}")}:
            return mine
    except (FileNotFoundError, NotADirectoryError):
        return mine
    except OSError as error:
        raise unreadable(Path(error.filename or folder), error) from error
    cure = f"it is left as it is; choose another folder, for instance {free_name(folder)}"
    if mark is not None:
        if mine.board != STORY and not _same_board(folder, mark, mine):
            of = (f", {printable(mark.title)}" if mark.title else "") + f" ({printable(mark.board or 'from Python')})"
            cure += ", or give the storyboard a title" if mine.asked else ""
            raise RenderError(f"{folder}: holds the film of another storyboard{of}; {cure}")
        whose = {"title"} if mine.board == STORY else {"title", "board", "asked"}
        return mark.model_copy(update=mine.model_dump(include=whose | ({"sections", "film"} if mine.film else set())))
    if PLAN in names and (folder / "shots/wanted.json").exists():
        raise RenderError(
            f"{folder}: holds a render of framepack-relax 0.1, which this version cannot go on with; {cure}"
        )
    if names:
        shown = ", ".join(printable(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        raise RenderError(f"{folder}: holds files that no render wrote ({shown}); {cure}")
    return mine


def call_off(folder: Path, off: bool = True) -> None:
    """Says that nobody is to go on with the film in a folder, wherever it is rendered; or takes that back.

    Raises RenderError where it cannot be said.
    """
    try:
        (folder / CANCELLED).touch() if off else (folder / CANCELLED).unlink()
    except (FileNotFoundError, NotADirectoryError) as error:
        if off:
            raise RenderError(f"{folder}: is not the folder of a render; give one") from error
    except OSError as error:
        raise unreadable(folder / CANCELLED, error) from error


def free_name(place: Path) -> Path:
    """A name beside this folder, or this file, under which nothing is there: out-2, video-2.mp4."""
    place = place.resolve() if place.name in ("", "..") else place
    stem, suffix = (place.name, "") if place.is_dir() else (place.stem, place.suffix)
    names = (place.parent / f"{stem or 'film'}-{number}{suffix}" for number in count(2))
    return next(name for name in names if not os.path.lexists(name))


def unreadable(file: Path, error: OSError) -> RenderError:
    """What cannot be read may be whole: it is neither called damaged nor written over."""
    return RenderError(
        f"{file}: cannot be read ({error.strerror or error}) and is left as it is; mend that, or remove it, and run "
        "the same command again"
    )


def _same_board(folder: Path, mark: Mark, mine: Mark) -> bool:
    """By its file; one from Python by its title, or what it asks for. One that was moved or has neither is known by a
    section."""
    known = not set(mine.sections.values()).isdisjoint(mark.sections.values())
    if mark.board:
        return mine.board == mark.board or (known and not os.path.exists(folder / mark.board))
    return mine.board == "" and ((mine.title, mine.asked) == (mark.title, mark.asked) or (known and mine.asked != ""))


def _relative(file: Path, folder: Path) -> str:
    try:
        path = Path(os.path.relpath(os.path.realpath(file), os.path.realpath(folder))).as_posix()
        return path.encode("utf8", "backslashreplace").decode("utf8")  # names that are not UTF-8
    except ValueError:  # another drive of Windows
        return str(file)
