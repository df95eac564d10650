"""The zip of the program eichi: sections.yaml, and images by the number of their section, as of 1.9.5.

Its sections are numbered as they are rendered, from the film's end.
"""

import re
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field

from .draft import Draft
from .source import Foreign, Source

BOARD = re.compile(r"(.*/)?sections\.ya?ml")
SECTION, SHORT = 1.2, 20 / 30  # seconds that a section gives, of 9 latent frames, and of 5 ("0.5 s")
QUIET = ("video_length", "frame_size", "padding_mode", "padding_value", "resolution")


class Section(Foreign):
    section: int = Field(ge=0, le=999)
    prompt: str = ""


class Settings(Foreign):
    frame_size: str = ""
    expected_sections: int | None = Field(None, ge=1, le=999)


class Board(Foreign):
    section_info: list[Section]
    default_prompt: str = ""
    seed: int = Field(-1, alias="SEED")
    lora_settings: Any = None
    video_settings: Settings = Settings()


def claims(source: Source) -> bool:
    return any(BOARD.fullmatch(name) for name in source.names)


def read(draft: Draft) -> None:
    source = draft.source
    found = [name for name in source.names if BOARD.fullmatch(name)]
    if not found:
        source.refuse("holds no sections.yaml")
    board = source.yaml(Board, found[0])
    images = {PurePosixPath(name).stem.lower(): name for name in source.names if not BOARD.fullmatch(name)}
    prompts = {one.section: one.prompt for one in board.section_info if one.prompt}
    count = board.video_settings.expected_sections or max(prompts, default=0) + 1
    seconds = SHORT if "0.5" in board.video_settings.frame_size else SECTION
    draft.board |= {"model": "framepack"} | ({"seed": board.seed} if board.seed >= 0 else {})
    draft.leave("", f"its sections count from the film's end, each is taken for {seconds:.3g} s")
    if board.lora_settings:
        draft.leave("", "lora_settings are not carried over: put the files on the board as `lora:`")
    draft.rest("", board)
    draft.rest("", board.video_settings, QUIET)
    start, end = (next((images[s] for s in sorted(images) if s.startswith(word)), None) for word in ("start", "end"))
    for stem, name in sorted(images.items()):
        if name not in (start, end):
            draft.leave(
                name, "is no start image and is not carried over" if stem[:3].isdigit() else "is not carried over"
            )
    for number in sorted(set(prompts) - set(range(count))):
        draft.leave(f"section {number}", f"the film has {count}; this one is left out")
    ordered = [(number, prompts.get(number, board.default_prompt)) for number in reversed(range(count))]
    for prompt, run in groupby(ordered, key=lambda one: one[1]):
        numbers = [number for number, _ in run]
        place = f"section {numbers[0]}" + (f" to {numbers[-1]}" if len(numbers) > 1 else "")
        draft.scene(place, prompt, round(seconds * len(numbers), 3), image=None if draft.scenes else start)
    draft.end(end)
