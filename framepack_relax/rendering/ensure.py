"""The closed loop: a section is looked at, and what stands still is sampled again with more letting go.

What is decided follows from the tries so far and their figures alone, so that every worker decides alike.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import RenderError
from ..planning.renderplan import Ensured, Rung, SectionPlan
from ..storyboard.messages import printable
from ..video.motion import MotionMeter

WILD = 0.12  # mean change of all pixels from frame to frame, luma 0..1: it falls apart; noise has 0.2 to 0.3
SHOWN = 12  # labels, of those that a judge has
SEEN = 0.5  # probability of an action from which on it is seen


class Judge(Protocol):
    """Says which action frames show; `weights` are a hash of it."""

    weights: str
    labels: tuple[str, ...]

    def score(self, frames: NDArray[np.uint8], fps: float) -> Mapping[str, NDArray[np.float32]]:
        """By label its probability in each window of frames [N, H, W, 3]."""
        ...


def wanted(section: SectionPlan, judge: Judge) -> tuple[str, ...]:
    """The judge's labels of which one must be seen; none where any motion will do. Raises RenderError."""
    asked = section.ensure.action if section.ensure else False
    if asked is False:
        return ()
    place, known = f"scene {section.scene}: ensure.action", f"the action judge has {', '.join(judge.labels[:SHOWN])}"
    spelt = {label.casefold(): label for label in judge.labels}
    if asked is True:
        found = tuple(
            label for name, label in spelt.items() if re.search(rf"\b{re.escape(name)}", section.prompt.casefold())
        )
        if not found:
            raise RenderError(f"{place}: the prompt names no action that is known; write one as `action:`; {known}")
        return found
    if odd := [label for label in asked if label.casefold() not in spelt]:
        raise RenderError(f"{place}: {', '.join(map(printable, odd))} is not known; {known}")
    return tuple(spelt[label.casefold()] for label in asked)


@dataclass(frozen=True, kw_only=True)
class Try:
    """A section sampled with a rung, by number; its figures as of MotionMeter; `forwards` by kind."""

    rung: int
    relaxed: str  # in words
    motion: float
    change: float
    found: Literal["moves", "other", "static", "broken"]  # other: it moves, and the action is not seen
    forwards: Mapping[str, int]
    action: float | None = None  # probability of what was asked for, where it was

    def in_words(self) -> str:
        seen = "" if self.action is None else f", action {self.action:.2f}"
        return f"{self.relaxed}: {self.found}, motion {self.motion:.3g}{seen}"


def judged(
    number: int,
    rung: Rung,
    frames: NDArray[np.uint8],
    least: float,
    forwards: Mapping[str, int],
    action: float | None = None,
) -> Try:
    """What frames [N, H, W, 3] show, the first being the one that the section follows on."""
    meter = MotionMeter()
    meter.add(frames)
    motion, change = float(np.mean(meter.changes)), float(np.mean(meter.overall))
    tests = {"broken": change > WILD, "static": motion < least, "other": action is not None and action <= SEEN}
    found: Any = next((name for name, true in tests.items() if true), "moves")
    return Try(
        rung=number, relaxed=rung.in_words(), motion=motion, change=change, found=found, forwards=dict(forwards),
        action=action,
    )  # fmt: skip


def next_rung(ensure: Ensured, tries: Sequence[Try]) -> int | None:
    """The number of the rung to try; None where one moves, or none is left.

    The first is the lowest, the last of all tries the highest that may do: in between those above what stands still and
    below what is broken are spread evenly. A single try is the scene's own settings.
    """
    left = ensure.tries - len(tries)
    low = max((each.rung for each in tries if each.found in ("static", "other")), default=-1)
    high = min((each.rung for each in tries if each.found == "broken"), default=len(ensure.rungs))
    between = high - low - 1
    if not left or not between or any(each.found == "moves" for each in tries):
        return None
    return low + (1 if not tries and left > 1 else math.ceil(between / left))


def best(tries: Sequence[Try]) -> int:
    """The place of the one that is kept: what moves, else the likeliest action, else of what stands still what moves
    most, else the calmest."""
    worth = {"moves": 3, "other": 2, "static": 1, "broken": 0}

    def value(place: int) -> tuple[int, float, float]:
        each = tries[place]
        return worth[each.found], each.action or 0.0, -each.motion if each.found == "broken" else each.motion

    return max(range(len(tries)), key=value)


def tried(tries: Sequence[Try]) -> list[dict[str, Any]]:
    """As a section's file and report.json have them; one is `kept`."""
    return [{**asdict(each), "kept": n == best(tries)} for n, each in enumerate(tries)]


def kept(section: SectionPlan, tries: Sequence[Mapping[str, Any]]) -> SectionPlan:
    """A section with the settings that it was sampled with."""
    chosen = [section.ensure.rungs[each["rung"]] for each in tries if each["kept"]] if section.ensure else []
    return section.at(chosen[0]) if chosen else section
