"""A film on disk as frames to be judged.

N frames, H and W height and width
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError
from ..video.writer import decoded, opened
from .mistakes import try_all

TAG = "framepack_relax"  # of the mp4
SIDE = 256  # px of the short side: larger frames are made as small when they are read


@dataclass(frozen=True, kw_only=True)
class FilmScene:
    """A stretch of a film: frames[0] up to but not with frames[1]; `follows`: without a cut before it."""

    id: str
    prompt: str
    frames: tuple[int, int]
    follows: bool = False


@dataclass(frozen=True, kw_only=True)
class Film:
    """`frames` uint8 RGB [N, H, W, 3]; `model` and `scenes` are what framepack-relax wrote into the file, if it did."""

    path: Path
    frames: NDArray[np.uint8]
    fps: float
    model: str | None = None
    scenes: tuple[FilmScene, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.fps

    def cut(self, scene: FilmScene) -> "Film":
        """One scene as a film of its own, from the frame that it follows on: the change at its border is its own."""
        first, end = scene.frames
        return replace(self, frames=self.frames[first - scene.follows : end], scenes=(scene,))

    def shot_until(self, scene: FilmScene) -> NDArray[np.uint8]:
        """Frames from the beginning of the scene's shot to its end."""
        begins = [other.frames[0] for other in self.scenes if not other.follows and other.frames[0] <= scene.frames[0]]
        return self.frames[max(begins, default=0) : scene.frames[1]]


def read_film(path: Path) -> Film:
    """Any video that FFmpeg reads. Raises EvaluationError."""
    try:
        with opened(path) as container:
            if not container.streams.video:
                raise EvaluationError(f"{path}: holds no video")
            tags = dict(container.metadata)
            rate = container.streams.video[0].average_rate
            frames = [_small(frame) for frame in decoded(container)]
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read as a film ({error.strerror or error})") from error
    if not frames or not rate:
        raise EvaluationError(f"{path}: holds no frames; render it again")
    model, scenes = _own_tags(tags.get(TAG, "{}"))
    scenes = tuple(s for s in scenes if 0 <= s.frames[0] < s.frames[1] <= len(frames))  # others are not there yet
    return Film(path=path, frames=np.stack(frames), fps=float(rate), model=model, scenes=scenes)


def read_films(paths: Sequence[Path]) -> list[Film]:
    """Raises EvaluationError with every film that cannot be read."""
    return try_all(read_film, paths)


def _own_tags(text: str) -> tuple[str | None, tuple[FilmScene, ...]]:
    """Model and scenes; nothing where somebody else wrote the tag."""
    try:
        facts = json.loads(text)
        scenes = []
        for row in facts.get("scenes", []):
            first, end = (int(frame) for frame in row["frames"])
            follows = first > 0 and bool(row.get("follows", False))
            scenes.append(FilmScene(id=str(row["id"]), prompt=str(row["prompt"]), frames=(first, end), follows=follows))
        return facts.get("model"), tuple(scenes)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, ()


def bring_to(frame: NDArray[np.uint8], side: int, *, larger: int = cv2.INTER_AREA) -> NDArray[np.uint8]:
    """A frame with a short side of `side` px; `larger` is how it is interpolated where it must grow."""
    scale = side / min(frame.shape[:2])
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    way = cv2.INTER_AREA if scale < 1 else larger
    return np.asarray(cv2.resize(frame, size, interpolation=way), dtype=np.uint8)


def _small(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return bring_to(frame, SIDE) if min(frame.shape[:2]) > SIDE else frame
