"""A film seen through windows of 16 frames, as action recognisers were trained: resampled by time, not by number.

Source: VideoMAE's Kinetics protocol, 16 frames with stride 4 at 30 fps (arXiv 2203.12602); the overlap is ours, so that
an action of less than a second is in the middle of some window.
"""

import numpy as np

FRAMES = 16
SPAN_SECONDS = 64 / 30  # of a window
STEP_SECONDS = 16 / 30  # from window to window


def window_frames(frames: int, fps: float) -> list[list[int]]:
    """Frame numbers of each window; the last one ends with the film, and in a shorter film holds the last frame."""
    span, step = SPAN_SECONDS * fps, STEP_SECONDS * fps
    spare = max(0.0, frames - span)
    offsets = np.linspace(0, span - 1, FRAMES)
    starts = [number * step for number in range(1 + int(spare / step + 1e-9))]
    if spare - starts[-1] >= 0.5:
        starts.append(spare)
    return [[min(frames - 1, round(start + offset)) for offset in offsets] for start in starts]
