"""The plan that every later room works from: frozen, comparable, and written out as plan.json."""

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from pydantic_core import to_jsonable_python

from ..relax.profile import Relaxation
from ..storyboard.schema import exact_rate
from .history import HistorySlots, Order
from .schedule import ScaleTable

LONG = ("prompt", "negative_prompt", "sigmas", "scales")  # of a section, which may be very long
MOST, STEP = 1 << 25, 80  # bytes that these may take in plan.json, about; bytes of a step's numbers


@dataclass(frozen=True, kw_only=True)
class SectionPlan:
    """One section: 9 latent frames, 36 new frames, 37 in a shot's first."""

    index: int  # in the film
    shot: int
    place: int  # in the shot
    scene: str
    prompt: str
    negative_prompt: str
    seed: int
    draw: int  # its noise is this draw, from 0, of a generator with that seed
    frames: tuple[int, int]  # first, end; film-wide
    intensity: float
    relaxation: Relaxation
    sigmas: tuple[float, ...]  # per step, 1 first; after the last comes 0
    scales: ScaleTable
    history: HistorySlots

    def to_json(self, without: Collection[str] = ()) -> dict[str, Any]:
        """A row of plan.json, in which the relaxation's settings stand beside the section's own."""
        row: dict[str, Any] = {}
        for name, value in vars(self).items():
            if name == "relaxation":
                row |= {**vars(value), "at_rest": value.at_rest}
            elif name not in ("place", "history", *without):
                row[name] = value
        return to_jsonable_python(row)


@dataclass(frozen=True, kw_only=True)
class ShotPlan:
    """A run of scenes up to a hard cut; `seed` draws its start latent."""

    index: int
    image: str | None  # start image, relative to the storyboard's folder
    image_size: tuple[int, int]  # width, height px, before it is cropped to the film's
    seed: int
    sections: tuple[int, ...]  # film-wide indices in the order in which they are rendered
    frames: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SceneTiming:
    """What a scene asked for and what the grid gives it."""

    scene: str
    shot: int
    asked_seconds: float
    real_seconds: float
    sections: tuple[int, ...]
    frames: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class RenderPlan:
    """A whole film."""

    title: str
    model: str
    fps: float  # as written: 29.97 stands for 30000/1001
    size: tuple[int, int]  # width, height px
    order: Order
    decode: Literal["stream", "blend"]
    adain: float  # strength of the correction of drift, 0..1
    sampler: str
    profile: str
    frames: int
    shots: tuple[ShotPlan, ...]
    scenes: tuple[SceneTiming, ...]
    sections: tuple[SectionPlan, ...]
    warnings: tuple[str, ...]

    @property
    def rate(self) -> Fraction:
        """Frames per second, exactly."""
        return exact_rate(self.fps)

    @property
    def seconds(self) -> float:
        return float(self.frames / self.rate)

    @property
    def steps(self) -> int:
        return sum(len(section.sigmas) for section in self.sections)

    def to_json(self) -> dict[str, Any]:
        """The contents of plan.json; of a very long plan, without what is long in its sections (`left_out`)."""
        texts = sum(len(section.prompt) + len(section.negative_prompt) for section in self.sections)
        left_out = LONG if texts + STEP * self.steps > MOST else ()
        rows = [section.to_json(without=left_out) for section in self.sections]
        return to_jsonable_python({**vars(self), "sections": rows, **({"left_out": left_out} if left_out else {})})
