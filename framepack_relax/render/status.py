"""How far a render has come, from what lies in its folder; no torch, no weights."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..errors import RenderError
from .lock import holder

NOT_THERE = "it is not there yet"  # why a section is rendered that never was


@dataclass(frozen=True, kw_only=True)
class Status:
    """`scenes` are (scene, sections on disk, sections in all); `at_work` says who renders here now."""

    title: str
    scenes: tuple[tuple[str, int, int], ...]
    film: Path | None
    at_work: str | None
    seconds_per_section: float | None  # median time between the files of neighbouring sections
    newest: float | None  # time of the newest section, seconds since the epoch

    @property
    def done(self) -> int:
        return sum(done for _, done, _ in self.scenes)

    @property
    def total(self) -> int:
        return sum(total for _, _, total in self.scenes)

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the pace so far; None before two sections are on disk."""
        return None if self.seconds_per_section is None else self.seconds_per_section * (self.total - self.done)


def read_status(folder: Path) -> Status:
    """Raises RenderError if `folder` is not the folder of a render."""
    try:
        plan = json.loads((folder / "plan.json").read_text(encoding="utf8"))
        files = {
            index: folder / f"shots/{shot['index']:02d}/{place:03d}.safetensors"
            for shot in plan["shots"]
            for place, index in enumerate(sorted(shot["sections"]))
        }
        scenes = tuple(
            (scene["scene"], sum(files[i].exists() for i in scene["sections"]), len(scene["sections"]))
            for scene in plan["scenes"]
        )
        title = str(plan["title"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise RenderError(
            f"{folder}: is not the folder of a render (no plan.json that can be read); give the --out of one"
        ) from error
    times = sorted(file.stat().st_mtime for file in files.values() if file.exists())
    gaps = sorted(after - before for before, after in pairwise(times))
    film = folder / "video.mp4"
    return Status(
        title=title,
        scenes=scenes,
        film=film if film.exists() else None,
        at_work=holder(folder),
        seconds_per_section=gaps[len(gaps) // 2] if gaps else None,
        newest=times[-1] if times else None,
    )
