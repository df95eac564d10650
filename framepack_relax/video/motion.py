"""A small measure of motion for report.json, always beside what it may have cost: the seam and the drift.

N frames, H and W their height and width; uint8 RGB. Luma is BT.601's, 0..1.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BUSIEST = 0.05  # share of the pixels that counts, as in VBench's dynamic degree
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
QUIET = 1 / 255  # one level of 8 bits: what rounding alone can change, nothing that a seam could stand out from


@dataclass(frozen=True, kw_only=True)
class MotionFigures:
    """Of one section."""

    motion: float  # mean change of the busiest 5 % of pixels from frame to frame, luma 0..1
    seam: float  # change at its first frame over the median change in it and the section before; 1: none
    drift: float  # mean absolute RGB difference of its last frame to the shot's first, 0..1
    exposure: float  # its mean luma less that of the shot's first section
    colour: float  # distance of its mean RGB, luma taken off, to that of the shot's first section


def busiest(values: NDArray[np.float32], share: float) -> float:
    """Mean of the largest `share` of the values."""
    count = max(1, int(share * values.size))
    return float(np.partition(values.ravel(), -count)[-count:].mean())


class MotionMeter:
    """Fed with the frames of one shot as they come; keeps a number per frame, not the frames."""

    def __init__(self) -> None:
        self.first: NDArray[np.float32] | None = None
        self.luma: NDArray[np.float32] | None = None  # of the newest frame
        self.changes = array("d")  # of the busiest pixels, from frame i to i + 1
        self.overall = array("d")  # of all pixels
        self.drifts = array("d")  # of frame i
        self.means = array("f")  # RGB of frame i

    def add(self, frames: Iterable[NDArray[np.uint8]]) -> None:
        """Takes the next frames [N, H, W, 3]."""
        for levels in frames:
            pixels = np.asarray(levels.astype(np.float32) / 255, dtype=np.float32)
            self.first = pixels if self.first is None else self.first
            luma = np.asarray(pixels @ LUMA, dtype=np.float32)
            if self.luma is not None:
                change = np.abs(luma - self.luma)
                self.changes.append(busiest(change, BUSIEST))
                self.overall.append(float(change.mean()))
            self.means.extend(pixels.mean((0, 1)))
            self.drifts.append(float(np.abs(pixels - self.first).mean()))
            self.luma = luma

    def seam_to(self, other: "MotionMeter") -> float:
        """As a section's seam, the change from its last frame to the first one of `other`."""
        assert self.luma is not None and other.first is not None
        change = busiest(np.abs(other.first @ LUMA - self.luma), BUSIEST)
        usual = float(np.median([*self.changes, *other.changes]))
        return max(change, QUIET) / max(usual, QUIET)

    def figures(self, spans: Sequence[tuple[int, int]]) -> list[MotionFigures]:
        """One per section, whose frames [first, end) of the shot follow one another; the shot's frame 0 is in none."""
        made, before, opening = [], 0, None
        for first, end in ((max(first, 1), end) for first, end in spans):
            inside, around = self.changes[first - 1 : end - 1], self.changes[before : end - 1]
            usual = max(float(np.median(around)), QUIET)
            seam = max(inside[0], QUIET) / usual if first > 1 else 1.0  # nothing comes before the first section
            means = np.mean(np.reshape(self.means[3 * first : 3 * end], (-1, 3)), 0)
            opening = means if opening is None else opening
            made.append(
                MotionFigures(
                    motion=float(np.mean(inside)),
                    seam=seam,
                    drift=self.drifts[end - 1],
                    exposure=float((means - opening) @ LUMA),
                    colour=float(np.linalg.norm(means - means @ LUMA - (opening - opening @ LUMA))),
                )
            )
            before = first - 1
        return made
