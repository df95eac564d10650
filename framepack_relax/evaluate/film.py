"""A film on disk as frames to be judged.

N frames, H and W height and width
"""

from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av import FFmpegError
from numpy.typing import NDArray

from ..errors import EvaluationError

SIDE = 256  # px of the short side: larger frames are made as small when they are read


@dataclass(frozen=True, kw_only=True)
class Film:
    """`frames` uint8 RGB [N, H, W, 3]."""

    path: Path
    frames: NDArray[np.uint8]
    fps: float

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.fps


def read_film(path: Path) -> Film:
    """Any video that FFmpeg reads. Raises EvaluationError."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise EvaluationError(f"{path}: holds no video")
            rate = container.streams.video[0].average_rate
            frames = [_small(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    except (OSError, FFmpegError) as error:
        raise EvaluationError(f"{path}: cannot be read as a film ({error.strerror or error})") from error
    if not frames or not rate:
        raise EvaluationError(f"{path}: holds no frames; render it again")
    return Film(path=path, frames=np.stack(frames), fps=float(rate))


def _small(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = SIDE / min(frame.shape[:2])
    if scale >= 1:
        return frame
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
