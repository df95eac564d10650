"""Wan without torch: text to one clip of 4k + 1 frames; 2.2 5B goes on from its last latent frames, or from an image.

Its second expert (A14B) will be another transformer, chosen by a step's timestep, with a guidance term `text_low`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from ...errors import ModelError, Problem
from ...relax.effects import EFFECTS
from ...storyboard import Storyboard
from ...storyboard.schema import WanBlock
from ..base import Context, Family, GuidanceTerm, Image, SimpleContext, Size, TimeGrid
from ..configs import Config, PartKinds, PipelineIndex, Sidecar, UMT5Fields, WanTransformer, WanVae, read_config
from ..flow import FlowShift, Levels, UniPC, unipc_table

UNIT = 4  # frames a latent frame gives, but the first
UNREAD = "its scheduler/scheduler_config.json is not on this machine: its flow_shift is taken to be"


class WanSchedule(UniPC):
    """UniPCMultistepScheduler's config, as Wan's have it."""

    flow_shift: Annotated[float, Field(gt=0, le=100)] = 1.0
    use_dynamic_shifting: Literal[False] = False
    use_karras_sigmas: Literal[False] = False
    use_exponential_sigmas: Literal[False] = False
    use_beta_sigmas: Literal[False] = False
    final_sigmas_type: Literal["zero"] = "zero"


@dataclass(frozen=True, kw_only=True)
class Wan(Family):
    """Text to one clip a scene, as Wan 2.1: of at most 81 frames."""

    size: Size | None = (832, 480)
    fps: float = 16
    text: float = 5.0

    kind = "wan"
    grid: ClassVar[TimeGrid] = TimeGrid(unit_frames=UNIT, unit_latents=1, most_units=20, past=False)
    effects: ClassVar[frozenset[str]] = frozenset(EFFECTS[:1])
    samplers = ("unipc", "euler")
    image: ClassVar[Image] = "refused"
    renderer = "wan.backend:WanBackend"
    scheduler = WanSchedule
    assumed: ClassVar[float] = 3.0  # its flow_shift, as long as its scheduler's config is not here
    parts: ClassVar[PartKinds] = {
        "transformer": WanTransformer,
        "vae": WanVae,
        "text_encoder": UMT5Fields,
        "tokenizer": Config,
    }

    @classmethod
    def read(cls, name: str, said: Sidecar, shift: FlowShift) -> "Wan":
        """As its pipeline's index says, which of the two it is. Raises ModelError."""
        index = read_config(PipelineIndex, Path(name))
        if index.boundary_ratio is not None:
            raise ModelError(
                f"{name}: is of two transformers (boundary_ratio), and only models of one are rendered yet"
            )
        return super(Wan, WanTI2V if index.expand_timesteps else Wan).read(name, said, shift)

    @property
    def schedule(self) -> WanSchedule:
        return self.shift if isinstance(self.shift, WanSchedule) else WanSchedule(flow_shift=self.assumed)

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        return (GuidanceTerm(name="text", base=self.text, floor=1.0, lowest=1.0),)

    @property
    def options(self) -> Mapping[str, Any]:
        return self.schedule.solver

    def notes(self, story: Storyboard, shots: Sequence[tuple[float, int]]) -> Iterator[tuple[str, str]]:
        if self.shift is None:
            yield "", f"{self.name}: {UNREAD} {self.assumed:g}"

    def problems(self, story: Storyboard) -> Iterator[Problem]:
        if story.wan is not None:
            yield Problem(path="wan.carry", message=f"{self.name} makes each scene on its own; remove the line")

    def levels(self, steps: int, size: Size, sampler: str) -> Levels:
        """UniPC's, for Euler too."""
        return unipc_table(steps, self.schedule.flow_shift)


@dataclass(frozen=True, kw_only=True)
class WanTI2V(Wan):
    """Wan 2.2 5B: clips of at most 121 frames that may begin with an image, or with the last frames of the one before.

    `carry` latent frames of the section before begin the next one, clean; it was trained for one.
    """

    size: Size | None = (1280, 704)
    fps: float = 24
    carry: int = 1

    spatial = 16
    effects = frozenset(EFFECTS)
    assumed = 5.0
    scopes = ("section", "history", "reference", "all")
    image = "optional"

    @property
    def grid(self) -> TimeGrid:  # type: ignore[override]
        """Of at most 31 latent frames, those carried among them."""
        return TimeGrid(unit_frames=UNIT, unit_latents=1, most_units=31 - self.carry)

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        return *super().terms, GuidanceTerm(name="context", base=1.0, floor=0.0, settable=False)

    @property
    def options(self) -> Mapping[str, Any]:
        return {"carry": self.carry, **super().options}

    def configured(self, story: Storyboard) -> Self:
        return replace(self, carry=(story.wan or WanBlock()).carry)

    def problems(self, story: Storyboard) -> Iterator[Problem]:
        yield from ()

    def notes(self, story: Storyboard, shots: Sequence[tuple[float, int]]) -> Iterator[tuple[str, str]]:
        yield from super().notes(story, shots)
        if self.carry > 1:
            yield "", f"wan.carry {self.carry}: {self.name} was trained to go on from 1 latent frame"

    def context(self, place: int, sections: int) -> Context:
        return SimpleContext(initial=place == 0, needs=(place - 1,) if place else ())
