"""Writes fields into a storyboard's file as a person would: comments, order and every other byte stay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import Problem, StoryboardError
from ..files import read_file, write_file
from .patch import Value, set_fields, written
from .reader import parse_storyboard, read_text
from .schema import Storyboard

BOM = b"\xef\xbb\xbf"


def write_fields(file: Path, story: Storyboard, values: Mapping[tuple[int, str], Any]) -> None:
    """Writes values, by their scenes' places on the board and their fields, into the `file` that `story` was read from.

    A field that a scene has gets the value; one that it has not is put where the schema has it. Raises StoryboardError
    where more than that would change, and OSError; the file is then as it was.
    """
    text, folder = read_text(file), file.resolve().parent
    if not _reads_as(text, story, folder):
        raise StoryboardError([Problem(file=str(file), message="has changed meanwhile; run the same command again")])
    scenes, paths = list(story.scenes), {f"scenes[{index}].{field}": value for (index, field), value in values.items()}
    for (index, field), value in values.items():
        scenes[index] = scenes[index].model_copy(update={field: value})
    try:
        edited = set_fields(text, paths)
    except StoryboardError:
        edited = ""
    if not _reads_as(edited, story.changed(scenes=tuple(scenes)), folder):
        raise StoryboardError([_by_hand(story, path, value) for path, value in paths.items()])
    rewrite(file, edited)


def rewrite(file: Path, text: str) -> None:
    """Gives a storyboard's file another text; mode, BOM and what a link leads to stay. Raises OSError."""
    with file.open("r+b"):  # a file that may not be written is not replaced either
        mode = file.stat().st_mode
    write_file(file.resolve(), BOM * read_file(file).startswith(BOM) + text.encode("utf8"))
    file.chmod(mode)


def _reads_as(text: str, story: Storyboard, folder: Path) -> bool:
    try:
        return parse_storyboard(text, folder=folder) == story
    except StoryboardError:
        return False


def _by_hand(story: Storyboard, path: str, value: Value) -> Problem:
    field = f"{path.rpartition('.')[2]}: {written(value)}"
    message = f"cannot be written into this file as it is; nothing was written: write `{field}` yourself"
    return story.located(Problem(path=path, message=message))
