"""How much moves, by dense optical flow with the camera's own motion removed.

DIS flow (Kroeger et al., arXiv 1603.03590; OpenCV); the figure per pair of frames and the verdict are those of VBench's
dynamic degree (arXiv 2311.17982), which takes RAFT's flow: the mean of the fastest 5 % of pixels, about 8 times a
second.

N frames, P pairs of frames, H and W height and width; frames are uint8 RGB [N, H, W, 3]
"""

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..video.motion import busiest
from .frames import Clip, bring_to

SIDE = 256  # px that the short side is brought to
RATE = 8  # pairs a second
AT_ONCE = 1.2  # seconds in which an action should have started
FASTEST = 0.05  # share of the pixels that counts
MOVING = 6 / SIDE * RATE  # short sides a second, from which on VBench calls a pair moving
VISIBLE = 4  # levels by which a place must change for its flow to count: flat surfaces have any flow (LOG.md)
CORNERS = 400  # points with texture that the camera's motion is fitted to
OFF = 1.0  # px by which a point may miss that motion and still belong to the background
OUTSIDE = 0.05  # share of a pair's motion that lies left of the region that moves, right of it, above and below
SMALLEST = SIDE // 2  # px: its sides, at least; in smaller ones a figure that sways would count as moving
CELLS = 4  # the picture in 4 x 4: half of them must hold such points, else the camera is taken to stand


def measure_motion(frames: Clip, fps: float) -> dict[str, Any]:
    """Short sides a second, by the flow of frames about an eighth of a second apart; a film of one frame has no pairs.

    `series` [P], its mean and that of its beginning (`at_once`), the mean with the camera's motion left in, and `near`,
    the mean in the region that moves, in that region's short sides, which are at least half of the picture's: a small
    figure counts for more there. `dynamic` is VBench's verdict there: a quarter of the pairs moves.
    """
    every = max(1, round(fps / RATE))
    rate = fps / every
    series, raw, near = [], [], []
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for before, after in pairwise(map(_grey, frames[::every])):
        flow = np.asarray(dis.calc(before, after, np.zeros((*before.shape, 2), np.float32)), dtype=np.float32)
        seen = _visible(before, after)[..., None]
        raw.append(_fastest(flow * seen) * rate / SIDE)
        own = (flow - camera_flow(before, flow)) * seen
        series.append(_fastest(own) * rate / SIDE)
        there = moving_region(np.hypot(own[..., 0], own[..., 1]))
        near.append(_fastest(own[there]) * rate / min(own[there].shape[:2]))
    return {
        "mean": float(np.mean(series or [0])),
        "at_once": float(np.mean(series[: max(1, round(AT_ONCE * rate))] or [0])),
        "near": float(np.mean(near or [0])),
        "dynamic": sum(speed > MOVING for speed in near) >= max(1, round(len(near) / 4)),
        "camera_and_all": float(np.mean(raw or [0])),
        "series": [round(speed, 4) for speed in series],
    }


def camera_flow(frame: NDArray[np.uint8], flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """[H, W, 2]: the affine motion that most textured points of `frame` [H, W] agree on; zero where they do not."""
    still = np.zeros_like(flow)
    corners = cv2.goodFeaturesToTrack(frame, CORNERS, 0.01, 4)
    if corners is None or len(corners) < 8:
        return still
    points = corners[:, 0]
    there = points + flow[points[:, 1].astype(int), points[:, 0].astype(int)]
    affine, belong = cv2.estimateAffine2D(points, there, method=cv2.RANSAC, ransacReprojThreshold=OFF)
    height, width = frame.shape
    if affine is None:
        return still
    cells = (points[belong.ravel() == 1] * CELLS / (width, height)).astype(int)
    if len(np.unique(cells, axis=0)) < CELLS**2 / 2:  # one moving thing on a plain ground is not the ground
        return still
    y, x = np.mgrid[:height, :width].astype(np.float32)
    moved = np.stack([x, y, np.ones_like(x)], axis=-1) @ affine.T.astype(np.float32)
    return np.asarray(moved - np.stack([x, y], axis=-1), dtype=np.float32)


def moving_region(speed: NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns that hold most of the motion in `speed` [H, W]; all of them where nothing moves."""
    sides = []
    for axis, length in ((1, speed.shape[0]), (0, speed.shape[1])):
        sums = speed.sum(axis).cumsum()
        first, last = np.searchsorted(sums, (OUTSIDE * sums[-1], (1 - OUTSIDE) * sums[-1]))
        missing = max(0, SMALLEST - int(last - first + 1)) if sums[-1] else length
        begin = max(0, int(first) - -(-missing // 2))
        sides.append(slice(begin, max(int(last) + 1 + missing // 2, begin + SMALLEST)))
    return sides[0], sides[1]


def _visible(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W]: 1 where something changes, and a little around it."""
    change = cv2.GaussianBlur(cv2.absdiff(before, after), (5, 5), 0)
    return np.asarray(cv2.dilate((change > VISIBLE).astype(np.uint8), np.ones((9, 9), np.uint8)), dtype=np.uint8)


def _fastest(flow: NDArray[np.float32]) -> float:
    """Mean length of the fastest vectors, px."""
    return busiest(np.hypot(flow[..., 0], flow[..., 1]), FASTEST)


def _grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(bring_to(frame, SIDE, larger=cv2.INTER_CUBIC), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
