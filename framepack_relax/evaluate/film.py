"""A film on disk as frames to be judged, and what it says of its scenes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..families.catalog import CATALOG, find_family
from ..storyboard.messages import printable
from ..video.reader import read_header
from .frames import Clip, Frames, Kept, Source
from .mistakes import try_all

TAG = "framepack_relax"  # of the mp4
MOST_SCENES = 3000  # as of a storyboard
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class FilmScene:
    """A stretch of a film: frames[0] up to but not with frames[1], of a shot that begins with frame `begin`."""

    id: str
    prompt: str
    frames: tuple[int, int]
    begin: int


@dataclass(frozen=True, kw_only=True)
class Film:
    """`frames` uint8 RGB [N, H, W, 3]; `judges` and `scenes` are by what framepack-relax wrote into the file."""

    path: Path
    frames: Clip
    fps: float
    judges: str | None = None
    scenes: tuple[FilmScene, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.fps

    def cut(self, scene: FilmScene) -> "Film":
        """One scene as a film of its own, from the frame that it follows on: the change at its border is its own."""
        first, end = scene.frames
        return replace(self, frames=self.frames[max(scene.begin, first - 1) : end], scenes=(scene,))


def read_film(path: Path, kept: Kept | None = None) -> Film:
    """Any film that video/reader.py reads; its frames are decoded once, to see that all can be. Raises FilmError."""
    tags, rate = read_header(path)
    source = Source(path, kept or Kept())
    judges, scenes = _own_tags(tags.get(TAG, "{}"), source.count)
    return Film(path=path, frames=Frames(source, range(source.count)), fps=rate, judges=judges, scenes=scenes)


def read_films(films: Sequence[T], path_of: Callable[[T], Path]) -> list[Film]:
    """Raises EvaluationError with every film that cannot be read."""
    kept = Kept()
    return try_all(lambda film: read_film(path_of(film), kept), films)


def _own_tags(text: str, count: int) -> tuple[str | None, tuple[FilmScene, ...]]:
    """Its model's judges, and the scenes that a film of `count` frames has; nothing where another wrote the tag."""
    scenes, begin = list[FilmScene](), 0
    try:
        facts = json.loads(text)
        judges, model = facts.get("judges"), facts.get("model")
        if judges is None and model in CATALOG:
            judges = find_family(model).judges
        for row in facts.get("scenes", [])[:MOST_SCENES]:
            first, end = (int(frame) for frame in row["frames"])
            if (scenes[-1].frames[1] if scenes else 0) <= first < end <= count:
                prompt = str(row["prompt"]).encode("utf8", "replace").decode("utf8")
                if not row.get("follows", False):
                    begin = first
                scenes.append(FilmScene(id=printable(str(row["id"])), prompt=prompt, frames=(first, end), begin=begin))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None, ()
    return judges if isinstance(judges, str) else None, tuple(scenes)
