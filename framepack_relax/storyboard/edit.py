"""Writes numbers into a storyboard's file as a person would: comments, order and every other byte stay."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..errors import Problem, StoryboardError
from ..files import read_file, write_file
from .reader import parse_storyboard, read_text
from .schema import Storyboard

AUTO = re.compile("auto|\"auto\"|'auto'")
NUMBER = re.compile(r"[-+.\w]+")
BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # of lines, as YAML counts them
BOM = b"\xef\xbb\xbf"
Edit = tuple[int, int, str]  # signs of a text, from the first until before the second, and what is written for them


def write_intensities(file: Path, story: Storyboard, numbers: Mapping[int, float]) -> None:
    """Writes intensities, by their scenes' places on the board, into the `file` that `story` was read from.

    A scene's `auto` becomes its number, a scene without an intensity gets one behind its `seconds`. Raises
    StoryboardError where more than that would change, and OSError; the file is then as it was.
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

    edits = {index: _edit(story, text, index, number, spot) for index, number in numbers.items()}
    edited = "".join(_applied(text, sorted(edit for edit in edits.values() if edit)))
    scenes = [s.model_copy(update={"intensity": numbers.get(i, s.intensity)}) for i, s in enumerate(story.scenes)]
    if not _reads_as(edited, story.changed(scenes=tuple(scenes)), folder):
        unable = [index for index, edit in edits.items() if not edit] or [*edits]
        raise StoryboardError([_by_hand(story, index, numbers[index]) for index in unable])
    rewrite(file, edited)


def rewrite(file: Path, text: str) -> None:
    """Gives a storyboard's file another text; mode, BOM and what a link leads to stay. Raises OSError."""
    with file.open("r+b"):  # a file that may not be written is not replaced either
        mode = file.stat().st_mode
    write_file(file.resolve(), BOM * read_file(file).startswith(BOM) + text.encode("utf8"))
    file.chmod(mode)


def _edit(
    story: Storyboard, text: str, index: int, number: float, spot: Callable[[str], tuple[int, int]]
) -> Edit | None:
    """What makes that the intensity of a scene; None where it is not known how."""
    path = f"scenes[{index}]"
    if story.scenes[index].intensity == "auto":
        found = AUTO.match(text, spot(f"{path}.intensity")[0])
        return (*found.span(), f"{number:g}") if found else None
    (begins, indent), (seconds, _) = spot(path), spot(f"{path}.seconds")
    if text[begins] == "{":
        quote = '"' if text[:seconds].rstrip(": \t\r\n").endswith('"') else ""
        found = NUMBER.match(text, seconds)
        return (found.end(), found.end(), f", {quote}intensity{quote}: {number:g}") if found else None
    newline = BREAK.search(text, seconds)
    end, sign = newline.start() if newline else len(text), newline or BREAK.search(text)
    return end, end, f"{sign[0] if sign else ''}{' ' * indent}intensity: {number:g}"


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


def _by_hand(story: Storyboard, index: int, number: float) -> Problem:
    path = f"scenes[{index}].intensity"
    message = f"cannot be written into this file as it is; nothing was written: write `intensity: {number:g}` yourself"
    return story.located(Problem(path=path, message=message))
