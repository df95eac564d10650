"""The plan that every later room works from: frozen, comparable, and written out as plan.json."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..relax.profile import Relaxation
from .history import HistorySlots, Order
from .schedule import ScaleTable


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
    frames: tuple[int, int]  # first, end; film-wide
    intensity: float
    relaxation: Relaxation
    sigmas: tuple[float, ...]  # per step, 1 first; after the last comes 0
    scales: ScaleTable
    history: HistorySlots

    def to_json(self) -> dict[str, Any]:
        relax = self.relaxation
        return {
            "index": self.index,
            "shot": self.shot,
            "scene": self.scene,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "frames": list(self.frames),
            "intensity": self.intensity,
            **asdict(relax),
            "target": list(relax.target),
            "at_rest": relax.at_rest,
            "sigmas": list(self.sigmas),
            "scales": {key: list(values) for key, values in asdict(self.scales).items()},
        }


@dataclass(frozen=True, kw_only=True)
class ShotPlan:
    """A run of scenes up to a hard cut; `seed` draws its start latent."""

    index: int
    image: str | None  # start image, relative to the storyboard's folder
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
    order: Order
    decode: Literal["stream", "blend"]
    adain: float  # strength of the correction of drift, 0..1
    fps: int
    size: tuple[int, int]  # width, height px
    sampler: str
    profile: str
    shots: tuple[ShotPlan, ...]
    scenes: tuple[SceneTiming, ...]
    sections: tuple[SectionPlan, ...]
    warnings: tuple[str, ...]

    @property
    def frames(self) -> int:
        return self.shots[-1].frames[1]

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def steps(self) -> int:
        return sum(len(section.sigmas) for section in self.sections)

    def to_json(self) -> dict[str, Any]:
        """The contents of plan.json."""
        return {
            "title": self.title,
            "model": self.model,
            "fps": self.fps,
            "size": list(self.size),
            "order": self.order,
            "decode": self.decode,
            "adain": self.adain,
            "sampler": self.sampler,
            "profile": self.profile,
            "frames": self.frames,
            "shots": [asdict(shot) for shot in self.shots],
            "scenes": [asdict(scene) for scene in self.scenes],
            "sections": [section.to_json() for section in self.sections],
            "warnings": list(self.warnings),
        }
