"""The film that a board goes on from: its last frames, at the new film's size and rate."""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import FilmError, Problem, StoryboardError
from ..families.base import Family
from ..planning.renderplan import RenderPlan
from ..storyboard import Storyboard
from ..storyboard.fields import BROADCAST
from ..storyboard.images import fit_image
from .keys import picture_digest

SAME_RATE = 0.001  # frames a second


@dataclass(frozen=True, kw_only=True)
class Before:
    """`frames` are of the new film's size; `told` is what was changed for that."""

    path: Path
    frames: tuple[Image.Image, ...]
    digest: str
    told: tuple[str, ...]

    @property
    def row(self) -> dict[str, Any]:
        """For report.json."""
        return {"film": str(self.path), "frames": len(self.frames), "digest": self.digest, "changed": self.told}


def read_before(story: Storyboard, plan: RenderPlan, family: Family) -> Before | None:
    """The last frames of the board's film, as many as the family has use for. Raises StoryboardError.

    At another rate each frame is the one that is shown at its time, counted from the film's end.
    """
    if story.before is None:
        return None
    from ..video.reader import read_frames, read_header  # needs PyAV

    path, lengths = story.resolve(story.before), family.configured(story).past_frames
    try:
        rate = _exact(read_header(path)[1])
        step = rate / plan.rate
        shown, size = deque[Image.Image](maxlen=int(max(lengths) * step) + 1), plan.size
        for frame in read_frames(path):
            size = frame.shape[1], frame.shape[0]
            shown.append(fit_image(Image.fromarray(frame), plan.size))
    except FilmError as error:
        raise _mistake(story, str(error)) from error
    count = min(max(lengths), int((len(shown) - 1) / step) + 1)
    wanted = next((length for length in lengths if length <= count), None)
    if wanted is None:
        fact = f"{story.before}: is too short; {family.name} goes on from {min(lengths)} frames at least"
        raise _mistake(story, f"{fact}: {float(min(lengths) / plan.rate):.3g} s")
    frames, told = tuple(shown[len(shown) - 1 - round(nth * step)] for nth in reversed(range(wanted))), []
    if abs(float(rate) - float(plan.rate)) > SAME_RATE:
        told.append(f"it has {float(rate):.5g} frames a second, and is seen at {plan.fps:g}: some twice, or left out")
    if size != plan.size:
        told.append(f"its {size[0]}x{size[1]} px are scaled and cropped to {plan.size[0]}x{plan.size[1]}")
    if told:
        told.append("both films cannot be joined as they are")
    words = tuple(f"from {story.before}: {text}" for text in told)
    return Before(path=path, frames=frames, digest=picture_digest(*frames), told=words)


def _exact(rate: float) -> Fraction:
    """A broadcaster's rate where it is one."""
    rates = chain(BROADCAST.values(), (Fraction(round(rate)),))
    return next((exact for exact in rates if abs(float(exact) - rate) < SAME_RATE), Fraction(rate))


def _mistake(story: Storyboard, message: str) -> StoryboardError:
    return StoryboardError([story.located(Problem(path="from", message=message))])
