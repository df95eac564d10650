"""Prompt files of musubi-tuner (`--from_file`), as of 2026-06: a line a video, with options behind the prompt."""

import math
import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from .draft import Draft
from .source import Source

OPTION = re.compile(r"\s--(w|h|f|d|s|g|l|fs|i|n|vs|ei|ci|cim|of|cn|mcrr|mct|mck)(?=\s|$)")
PLACED = re.compile(r"(-?\d+)(?:-(\d+))?\s*:(.*)", re.DOTALL)
SECTION = 1.2  # seconds of a section of 9 latent frames
NUMBERS: dict[str, type[int] | type[float]] = {
    "w": int,
    "h": int,
    "f": float,
    "d": int,
    "s": int,
    "g": float,
    "l": float,
    "vs": int,
}
LONGEST = 20  # characters of a number
ELSEWHERE = ("n", "i", "ei")
MOST = 3000  # sections of a line


def claims(source: Source) -> bool:
    return any(OPTION.search(line) for _, line in _lines(source.text))


def read(draft: Draft) -> None:
    for number, line in _lines(draft.source.text):
        place, (prompt, *rest) = f"line {number}", OPTION.split(line)
        said = dict(zip(rest[::2], map(str.strip, rest[1::2]), strict=True))
        values: dict[str, float] = {}
        for name in filter(NUMBERS.__contains__, said):
            try:
                values[name] = NUMBERS[name](said[name][: LONGEST + 1])
                good = len(said[name]) <= LONGEST and math.isfinite(values[name])
            except ValueError:
                good = False
            if not good:
                draft.source.refuse(f"--{name} {said[name][:40]!r}: write a number", line=number)
        _video(draft, place, prompt.strip(), said, values)
    draft.board.setdefault("model", "framepack")


def _video(draft: Draft, place: str, prompt: str, said: Mapping[str, str], values: Mapping[str, float]) -> None:
    """A line, which is a shot."""
    for name in said:
        if name not in NUMBERS and name not in ELSEWHERE:
            draft.leave(place, f"`--{name}` is not carried over")
    if "w" in values and "h" in values:
        draft.size(place, int(values["w"]), int(values["h"]))
    seconds = values["vs"] * SECTION if "vs" in values else values.get("f")
    scale = values.get("g", values.get("l"))
    fields: dict[str, Any] = {
        "negative_prompt": said.get("n"),
        "seed": None if values.get("d", -1) < 0 else values["d"],
        "steps": values.get("s"),
        "guidance": {"text": scale} if scale else None,
    }
    count = min(max(round((seconds or draft.unsaid) / SECTION), 1), MOST)
    prompts, images = _sections(prompt, count), _sections(said.get("i", ""), count)
    for index in sorted(images.keys() - {0}):
        if images[index] != images.get(index - 1):
            draft.leave(place, f"the image of section {index} is not carried over")
    runs = [(text, len(list(run))) for text, run in groupby(prompts.get(n, prompts[0]) for n in range(count))]
    for turn, (text, length) in enumerate(runs):
        wanted = seconds if len(runs) == 1 else round(length * SECTION, 3)
        draft.scene(place, text, wanted, image=None if turn else images.get(0) or None, cut=not turn, **fields)
    draft.end(said.get("ei"))


def _sections(text: str, count: int) -> dict[int, str]:
    """What is said of each section, `N:text;;;-1:text;;;S-E:text`; 0 is there always."""
    made: dict[int, str] = {}
    for part in text.split(";;;"):
        found = PLACED.fullmatch(part.strip())
        first = int(found[1][:9]) if found and ";;;" in text else 0
        last = int(found[2][:9]) if found and found[2] and ";;;" in text else first
        said = found[3].strip() if found and ";;;" in text else part.strip()
        first, last = (n + count if n < 0 else n for n in (first, last))
        made |= dict.fromkeys(range(max(first, 0), min(last + 1, count)), said)
    return made if 0 in made else {**made, 0: made[min(made)] if made else ""}


def _lines(text: str) -> list[tuple[int, str]]:
    """Those that are a prompt, by their number."""
    numbered = enumerate(map(str.strip, text.splitlines()), 1)
    return [(number, line) for number, line in numbered if line and not line.startswith("#")]
