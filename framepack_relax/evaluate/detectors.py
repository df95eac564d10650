"""What went wrong in a film: static, freeze, snap-back, chaos, over-relaxed, collapse.

The paper names them (sections 3.1, 3.2, 5.5); signals and thresholds are ours, chosen on clips that are drawn with a
failure built in (scripts/failures.py prints precision and recall on others, and on real footage). A film with cuts is
judged by its longest stretch between them. The camera may move, which then counts as motion.

N frames, P pairs of frames (N - 1), D embedding, h and w the small frames' height and width; uint8 RGB levels 0..255
"""

from collections import deque
from collections.abc import Iterable
from itertools import groupby, pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..video.motion import busiest
from .frames import Clip, Pixels, bring_to

SIDE = 96  # px that the short side is brought to
RATE = 30.0  # frames a second that are looked at, at most
BUSIEST = 0.01  # share of the pixels
CELLS = 8  # the picture in 8 x 8
# thresholds; levels are of 0..255 in the channel that changes most, after a blur of one small pixel
SEEN = 30  # levels: a place that differs by more shows something else
STILL = 8  # levels: less in the busiest 1 % of the pixels from frame to frame is stillness
STATIC = 30  # levels: the busiest 1 % to the first frame ...
STATIC_SHARE = 0.95  # ... in this share of the frames
FROZEN_SECONDS = 0.5  # of stillness at the end
SAME_POSE = 0.85  # cosine of embeddings, last frame to first: from here on the pose is the first again
GONE = 0.8  # detail of the last frame over the first's: below, the figure has left, which is no freeze
RETURNED = 0.25  # share of the widest change that is left after coming back
SUDDEN_FRAMES = 4  # of coming back: those before its end
AT_ONCE = 0.75  # share of the widest change that a snap undoes within two frames ...
SUDDEN = 1.3  # ... and more than any two frames before it made, by this factor ...
FADED = 1.4  # ... or what no motion explains is more than ever before, by this factor
UNEXPLAINED = 0.02  # share of the pixels that no motion explains ...
UNEXPLAINED_PART = 0.45  # ... and of those that change: what is hidden and shown by fast motion is less of them ...
UNEXPLAINED_FRAMES = 5  # ... in the mean of so many frames
WILD_SECONDS = 0.8  # of that without a break
LATER = 4  # frames: a film that runs on changes less in one than in so many ...
DISORDER = 0.85  # ... by this factor in the mean ...
ORDERED_RATE = 20  # ... from so many frames a second on
CELL = 6  # levels: a cell's mean change to the first frame
DISSOLVED = 0.45  # share of cells that have changed ...
KEPT = (0.5, 1.7)  # ... with less or more detail than this, over the first frame's; else it is the camera that moves
CUT = 0.4  # share of the pixels that no motion explains ...
CUT_SECONDS = 0.5  # ... and nothing half as much so shortly before or after
LPIPS = 0.5  # of adjacent frames: the paper's bound (section 5.2)
Floats = NDArray[np.float32]


class Signals(NamedTuple):
    """What the detectors look at."""

    fps: float
    to_first: Floats  # [N] levels, busiest 1 %
    area: Floats  # [N] share of the pixels that differ from the first frame
    cells: Floats  # [N] share of cells that differ from the first frame
    detail: Floats  # [N] mean Laplacian over the first frame's
    adjacent: Floats  # [P] levels, busiest 1 % from frame to frame
    longer: Floats  # [P] the same from the frame LATER frames before, or the first one
    changed: Floats  # [P] share of the pixels that differ from frame to frame
    unexplained: Floats  # [P] share of the pixels that optical flow does not bring from one frame to the next


def measure_signals(frames: Iterable[Pixels], fps: float) -> Signals:
    """Of two frames or more, of which no more than LATER + 2 are held at a time."""
    rows, pairs = [], []  # of each frame, and of it and the one before
    first, last = None, deque[Floats](maxlen=LATER)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for frame in frames:
        small = _small(frame)
        first = small if first is None else first
        change = np.abs(small - first).max(axis=-1)
        cells = cv2.resize(change, (CELLS, CELLS), interpolation=cv2.INTER_AREA) > CELL
        detail = np.abs(cv2.Laplacian(small, cv2.CV_32F)).mean()
        rows.append((busiest(change, BUSIEST), (change > SEEN).mean(), cells.mean(), detail))
        if last:
            step, longer = (np.abs(small - other).max(axis=-1) for other in (last[-1], last[0]))
            lost = _unexplained(dis, last[-1], small) > SEEN
            pairs.append((busiest(step, BUSIEST), busiest(longer, BUSIEST), (step > SEEN).mean(), lost.mean()))
        last.append(small)
    to_first, area, cells, detail = np.array(rows, dtype=np.float32).T
    detail = np.asarray(detail / max(detail[0], 1e-6), dtype=np.float32)
    return Signals(fps, to_first, area, cells, detail, *np.array(pairs, dtype=np.float32).T)


def find_failures(
    frames: Clip,
    fps: float,
    *,
    likeness: float | None = None,
    wrong: bool | None = None,
    lpips: float | None = None,
) -> dict[str, bool]:
    """Whether a film of frames [N, H, W, 3], N >= 2, fails, by kind; at most one is true, the first that applies.

    Where it has cuts, its longest stretch between them is judged, and freeze is not.
    `likeness` is the cosine of the embeddings of its first and last frame, `wrong` says that a judge names another
    action than was asked for; without them freeze and over-relaxed are not judged and absent.
    """
    shown = np.arange(0, len(frames), max(1.0, fps / RATE)).astype(int)  # motion per frame must compare
    if len(shown) < 2:
        return {}
    s = measure_signals((frames[number] for number in shown), min(fps, RATE))
    if cuts := find_cuts(s):
        first, end = max(pairwise([0, *cuts, len(shown)]), key=lambda stretch: stretch[1] - stretch[0])
        s = measure_signals((frames[number] for number in shown[first:end]), s.fps)
        likeness = None  # of two shots
    tests: dict[str, bool | None] = {
        "collapse": _dissolves(s) or (lpips or 0.0) >= LPIPS,
        "chaos": _wild(s) or _disordered(s),
        "static": bool(np.quantile(s.to_first, STATIC_SHARE) < STATIC),
        "freeze": None if likeness is None else _freezes(s, likeness),
        "snap-back": _snaps_back(s),
        "over-relaxed": wrong,
    }
    found = next((kind for kind, true in tests.items() if true), None)
    return {kind: kind == found for kind, true in tests.items() if true is not None}


def find_cuts(s: Signals) -> list[int]:
    """The frames that begin another shot: nothing is where it was, which is not so shortly before and after."""
    around, lost, cuts = round(CUT_SECONDS * s.fps), s.unexplained, list[int]()
    for i in np.flatnonzero(lost > CUT):
        near = [*lost[max(0, i - around) : i], *lost[i + 1 : i + 1 + around]]
        if near and 2 * max(near) < lost[i]:
            cuts.append(int(i) + 1)
    return cuts


def _dissolves(s: Signals) -> bool:
    low, high = KEPT
    return _late(s.cells) > DISSOLVED and not low < _late(s.detail) < high


def _wild(s: Signals) -> bool:
    mean = np.ones(UNEXPLAINED_FRAMES) / UNEXPLAINED_FRAMES
    lost, changed = (np.convolve(each, mean, mode="same") for each in (s.unexplained, s.changed))
    wild = (lost > UNEXPLAINED) & (lost > UNEXPLAINED_PART * changed)
    longest = max((len(list(run)) for true, run in groupby(wild) if true), default=0)
    return longest > WILD_SECONDS * s.fps


def _disordered(s: Signals) -> bool:
    """The frames do not run on from one to the next; stillness has no order, and at few frames a second none shows."""
    adjacent, longer = s.adjacent[LATER - 1 :], s.longer[LATER - 1 :]
    if s.fps < ORDERED_RATE or len(longer) < WILD_SECONDS * s.fps:
        return False
    return bool(longer.mean() > STILL and adjacent.mean() > DISORDER * longer.mean())


def _freezes(s: Signals, likeness: float) -> bool:
    """Moves, then stands still to the end in a pose that is not the first, with the figure still there."""
    moving = np.flatnonzero(s.adjacent > STILL)
    if not len(moving) or len(s.adjacent) - 1 - moving[-1] < FROZEN_SECONDS * s.fps:
        return False
    return bool(s.to_first[-1] > STATIC and likeness < SAME_POSE and s.detail[-1] > GONE)


def _snaps_back(s: Signals) -> bool:
    """Is back at the first frame at once: faster than anything moved before, or in a way that nothing moved before.

    What comes down as it went up, or quickly as all that it does, comes back by itself.
    """
    away = np.flatnonzero(s.area > RETURNED * s.area.max())
    if not len(away) or away[-1] == len(s.area) - 1 or len(s.area) < 3:
        return False
    begin, end = max(1, away[-1] - SUDDEN_FRAMES), away[-1] + 2
    steps = s.area[2:] - s.area[:-2]
    coming, going = -steps[begin - 1 : end].min(), steps[:begin].max()
    strange = s.unexplained[begin:end].max() > FADED * max(s.unexplained[:begin].max(), UNEXPLAINED / 4)
    return bool(coming > AT_ONCE * s.area.max() and (coming > SUDDEN * going or strange))


def _late(series: Floats) -> float:
    """What a series comes to in its last third."""
    return float(np.median(series[-max(1, len(series) // 3) :]))


def _small(frame: NDArray[np.uint8]) -> Floats:
    small = bring_to(frame, SIDE).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 1.0), dtype=np.float32)


def _unexplained(dis: cv2.DISOpticalFlow, before: Floats, after: Floats) -> Floats:
    """[h, w] levels: what differs after the frame before was moved along the flow to the one after it."""
    grey, next_grey = (cv2.cvtColor(f.round().astype(np.uint8), cv2.COLOR_RGB2GRAY) for f in (before, after))
    y, x = np.mgrid[: before.shape[0], : before.shape[1]].astype(np.float32)
    flow = dis.calc(next_grey, grey, np.zeros((*grey.shape, 2), np.float32))
    moved = cv2.remap(before, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.abs(moved - after).max(axis=-1), dtype=np.float32)
