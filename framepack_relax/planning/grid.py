"""Where scenes end on a model's time grid."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from ..families.base import TimeGrid

MOST_SECTIONS = 3000


def snap(shots: Sequence[Sequence[float]], fps: Fraction, grid: TimeGrid, *, film: bool = False) -> list[list[int]]:
    """Units of each scene, shot by shot, from the seconds that the scenes ask for; exact, half up.

    Where the first shot goes on from a `film`, the frames that lead it are the last ones of that.

    Every scene's last frame is the one nearest to the scene's end in the film that the grid of its shot reaches.
    Rounding is carried across scenes and cuts, so the end of a scene is never more than half a unit off, unless a
    scene before it gets none.
    """
    return [[count for count, _ in scenes] for scenes in _walk(shots, fps, grid, lengthen=False, film=film)]


def fitting_seconds(
    shots: Sequence[Sequence[float]], fps: Fraction, grid: TimeGrid, *, film: bool = False
) -> list[list[float]]:
    """The seconds of every scene, those lengthened that would get no unit; up to a hundredth of a second."""
    return [[float(seconds) for _, seconds in scenes] for scenes in _walk(shots, fps, grid, lengthen=True, film=film)]


def _walk(
    shots: Sequence[Sequence[float]], fps: Fraction, grid: TimeGrid, *, lengthen: bool, film: bool
) -> Iterator[list[tuple[int, Fraction]]]:
    """(units, seconds) of the scenes of each shot, whose first frame counts for none of them."""
    asked = Fraction(0)  # seconds of film at which the shot begins, and its first frame
    first = -grid.lead_frames if film else 0
    for shot in shots:
        scenes, before = [], 0
        for written in shot:
            seconds = Fraction(repr(written))
            if lengthen:  # until its end is half a unit behind the last frame that there is
                needed = (first + (before + Fraction(1, 2)) * grid.unit_frames) / fps - asked
                seconds = seconds if seconds >= needed else Fraction(math.ceil(needed * 100), 100)
            asked += seconds
            end = max(before, math.floor((asked * fps - first) / grid.unit_frames + Fraction(1, 2)))
            scenes.append((end - before, seconds))
            before = end
        first += grid.unit_frames * before + grid.lead_frames
        yield scenes


def split(units: int, most: int) -> tuple[int, ...]:
    """As few sections as there can be, as equal as there can be, the longer ones first."""
    sections = -(-units // most)
    return tuple(units // sections + (nth < units % sections) for nth in range(sections))
