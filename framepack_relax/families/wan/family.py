"""Wan without torch: words to one clip of 4k + 1 frames, of one transformer or of two experts; clips that go on.

2.2 5B goes on from its last latent frames, the image models of two experts (I2V-A14B) from the last frame of a clip.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field

from ...errors import ModelError, Problem
from ...relax.effects import EFFECTS
from ...storyboard import Storyboard
from ...storyboard.schema import WanBlock
from ..base import CONTEXT, TEXT, Context, Family, GuidanceTerm, Image, SimpleContext, Size, TimeGrid
from ..configs import Config, PartKinds, Sidecar, UMT5Fields, WanVae, read_config
from ..flow import FlowShift, Levels, UniPC, unipc_table
from .configs import Inputs, PipelineIndex, WanI2VTransformer, WanTransformer

UNIT = 4  # frames a latent frame gives, but the first
LONGEST = 20  # of these a clip of 81 frames has


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
    grid: ClassVar[TimeGrid] = TimeGrid(unit_frames=UNIT, unit_latents=1, most_units=LONGEST, past=False)
    effects: ClassVar[frozenset[str]] = frozenset(EFFECTS[:1])
    samplers = ("unipc", "euler")
    image: ClassVar[Image] = "refused"
    renderer = "wan.backend:WanBackend"
    scheduler = WanSchedule
    assumed: ClassVar[float] = 3.0  # its flow_shift, as long as its scheduler's config is not here
    takes: ClassVar[frozenset[str]] = frozenset()  # lines of a board's `wan:`
    parts: ClassVar[PartKinds] = {
        "transformer": WanTransformer,
        "vae": WanVae,
        "text_encoder": UMT5Fields,
        "tokenizer": Config,
    }

    @classmethod
    def read(cls, name: str, said: Sidecar, shift: FlowShift) -> "Wan":
        """As its pipeline's index and its transformer say, which one it is. Raises ModelError."""
        folder = Path(name)
        index, inputs = read_config(PipelineIndex, folder), read_config(Inputs, folder / "transformer")
        if index.boundary_ratio is None:
            return super(Wan, WanTI2V if index.expand_timesteps else Wan).read(name, said, shift)
        if index.expand_timesteps:
            raise ModelError(f"{folder / PipelineIndex.file}: no Wan has both expand_timesteps and a boundary_ratio")
        by_channels = inputs.in_channels != (inputs.out_channels or inputs.in_channels)
        made = cast(WanExperts, super(Wan, WanI2V if by_channels else WanExperts).read(name, said, shift))
        return replace(made, boundary=index.boundary_ratio)

    @property
    def schedule(self) -> WanSchedule:
        return self.shift if isinstance(self.shift, WanSchedule) else WanSchedule(flow_shift=self.assumed)

    @property
    def planned_with(self) -> str:
        return f"a flow_shift of {self.assumed:g}"

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        return (replace(TEXT, base=self.text),)

    @property
    def options(self) -> Mapping[str, Any]:
        return self.schedule.solver

    def problems(self, story: Storyboard) -> Iterator[Problem]:
        for name, value in story.wan or ():
            if name not in self.takes and value is not None:
                yield Problem(path=f"wan.{name}", message=f"{self.name} has no such setting; remove the line")

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
    takes = frozenset({"carry"})
    scopes = ("section", "history", "reference", "all")
    image = "optional"

    @property
    def grid(self) -> TimeGrid:  # type: ignore[override]
        """Of at most 31 latent frames, those carried among them."""
        return TimeGrid(unit_frames=UNIT, unit_latents=1, most_units=31 - self.carry)

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        return *super().terms, CONTEXT

    @property
    def options(self) -> Mapping[str, Any]:
        return {"carry": self.carry, **super().options}

    def configured(self, story: Storyboard) -> Self:
        return replace(self, carry=(story.wan or WanBlock()).carry or self.carry)

    def notes(self, story: Storyboard, shots: Sequence[tuple[float, int]]) -> Iterator[tuple[str, str]]:
        yield from super().notes(story, shots)
        if self.carry > 1:
            yield "", f"wan.carry {self.carry}: {self.name} was trained to go on from 1 latent frame"

    def context(self, place: int, sections: int) -> Context:
        return SimpleContext(initial=place == 0, needs=(place - 1,) if place else ())


@dataclass(frozen=True, kw_only=True)
class WanExperts(Wan):
    """Wan 2.2 T2V-A14B: of two transformers, each with a scale of its own.

    `transformer` takes the steps whose timestep is at least `boundary` of 1000, `transformer_2` those below it.
    """

    text: float = 4.0
    text_low: float = 3.0
    boundary: float = 0.875

    assumed = 12.0
    parts: ClassVar[PartKinds] = {**Wan.parts, "transformer_2": WanTransformer}

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        first = self.boundary * 1000
        return (
            replace(TEXT, base=self.text, timesteps=(first, 1001.0)),
            replace(TEXT, name="text_low", base=self.text_low, timesteps=(0.0, first), like="text"),
        )

    @property
    def options(self) -> Mapping[str, Any]:
        return {"boundary": self.boundary, **super().options}


@dataclass(frozen=True, kw_only=True)
class WanI2V(WanExperts):
    """Wan 2.2 I2V-A14B: an image to a clip; each clip goes on from the last frame of the one before.

    That frame stands in two clips and is shown once: a section samples a latent frame for it besides its own.
    """

    text: float = 3.5
    text_low: float = 3.5
    boundary: float = 0.9

    grid = TimeGrid(unit_frames=UNIT, unit_latents=1, most_units=LONGEST, again_latents=1)
    effects = frozenset({"kv_blur", "low_pass", "motion_amplitude"})
    image = "required"
    renderer = "wan.channels:WanI2VBackend"
    assumed = 5.0
    parts: ClassVar[PartKinds] = {
        **Wan.parts,
        "transformer": WanI2VTransformer,
        "transformer_2": WanI2VTransformer,
    }

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        return *super().terms, CONTEXT

    def context(self, place: int, sections: int) -> Context:
        return SimpleContext(initial=place == 0, needs=(place - 1,) if place else ())
