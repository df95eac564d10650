"""Writes fields into a storyboard's file as a person would: comments, order and every other byte stay."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import Problem, StoryboardError
from ..files import read_file, write_file
from .reader import parse_storyboard, read_text
from .schema import Storyboard

SCALAR = re.compile(r"""[-+.\w]+|"[^"\n]*"|'[^'\n]*'""")
BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # of lines, as YAML counts them
BOM = b"\xef\xbb\xbf"
Edit = tuple[int, int, str]  # signs of a text, from the first until before the second, and what is written for them


def write_fields(file: Path, story: Storyboard, values: Mapping[tuple[int, str], Any]) -> None:
    """Writes values, by their scenes' places on the board and their fields, into the `file` that `story` was read from.

    A field that a scene has gets the value; one that it has not is put behind its `seconds`. Raises StoryboardError
    where more than that would change, and OSError; the file is then as it was.
    """
    text, folder = read_text(file), file.resolve().parent
    if not _reads_as(text, story, folder):
        raise StoryboardError([Problem(file=str(file), message="has changed meanwhile; run the same command again")])
    lines = [0, *(found.end() for found in BREAK.finditer(text))]

    def spot(path: str) -> tuple[int, int]:
        """Where the value of a field begins, and what stands before it in its line, in signs."""
        at = story.located(Problem(path=path, message=""))
        column = (at.column or 1) - 1
        return lines[(at.line or 1) - 1] + column, column

    edits = {where: _edit(story, text, *where, _written(value), spot) for where, value in values.items()}
    edited = "".join(_applied(text, sorted(filter(None, edits.values()), key=lambda edit: edit[:2])))
    scenes = list(story.scenes)
    for (index, field), value in values.items():
        scenes[index] = scenes[index].model_copy(update={field: value})
    if not _reads_as(edited, story.changed(scenes=tuple(scenes)), folder):
        unable = [where for where, edit in edits.items() if not edit] or [*edits]
        raise StoryboardError([_by_hand(story, *where, _written(values[where])) for where in unable])
    rewrite(file, edited)


def rewrite(file: Path, text: str) -> None:
    """Gives a storyboard's file another text; mode, BOM and what a link leads to stay. Raises OSError."""
    with file.open("r+b"):  # a file that may not be written is not replaced either
        mode = file.stat().st_mode
    write_file(file.resolve(), BOM * read_file(file).startswith(BOM) + text.encode("utf8"))
    file.chmod(mode)


def _written(value: Any) -> str:
    """As YAML has it."""
    return str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else f"{value:g}"


def _edit(
    story: Storyboard, text: str, index: int, field: str, value: str, spot: Callable[[str], tuple[int, int]]
) -> Edit | None:
    """What makes that the value of a scene's field; None where it is not known how."""
    path = f"scenes[{index}]"
    if field in story.scenes[index].model_fields_set:
        found = SCALAR.match(text, spot(f"{path}.{field}")[0])
        return (*found.span(), value) if found else None
    (begins, indent), (seconds, _) = spot(path), spot(f"{path}.seconds")
    if text[begins] == "{":
        quote = '"' if text[:seconds].rstrip(": \t\r\n").endswith('"') else ""
        found = SCALAR.match(text, seconds)
        return (found.end(), found.end(), f", {quote}{field}{quote}: {value}") if found else None
    newline = BREAK.search(text, seconds)
    end, sign = newline.start() if newline else len(text), newline or BREAK.search(text)
    return end, end, f"{sign[0] if sign else ''}{' ' * indent}{field}: {value}"


def _applied(text: str, edits: list[Edit]) -> Iterator[str]:
    end = 0
    for begins, stops, written in edits:
        yield text[end:begins] + written
        end = stops
    yield text[end:]


def _reads_as(text: str, story: Storyboard, folder: Path) -> bool:
    try:
        return parse_storyboard(text, folder=folder) == story
    except StoryboardError:
        return False


def _by_hand(story: Storyboard, index: int, field: str, value: str) -> Problem:
    path = f"scenes[{index}].{field}"
    message = f"cannot be written into this file as it is; nothing was written: write `{field}: {value}` yourself"
    return story.located(Problem(path=path, message=message))
