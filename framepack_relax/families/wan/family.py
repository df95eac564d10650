"""Wan without torch: words to one clip of 4k + 1 frames, of one transformer or of two experts; clips that go on.

2.2 5B goes on from its last latent frames, the image models of two experts (I2V-A14B) from the last frame of a clip, or
as Stable Video Infinity's LoRA have learned it: from the shot's start image, the *anchor*, and the end of the clip
before, the *motion*. Sources of that: vita-epfl/Stable-Video-Infinity, branch svi_wan22 of 2025-12-27 (docs/svi,
inference_svi_2.0.py, inference_svi_2.0_pro.py); kijai/ComfyUI-KJNodes 3f20054 (WanImageToVideoSVIPro).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field

from ...errors import ModelError, Problem
from ...relax.effects import ANYWHERE, EFFECTS
from ...storyboard import Storyboard
from ...storyboard.fields import Past
from ...storyboard.schema import WanBlock
from ..base import CONTEXT, TEXT, Context, Family, GuidanceTerm, Image, Role, SimpleContext, Size, TimeGrid
from ..configs import Config, PartKinds, Sidecar, UMT5Fields, WanVae, read_config
from ..flow import FlowShift, Levels, UniPC, unipc_table
from .configs import Inputs, PipelineIndex, WanI2VTransformer, WanTransformer

UNIT = 4  # frames a latent frame gives, but the first
LONGEST = 20  # of these a clip of 81 frames has
MOST_SEEN = 33  # frames of a film that a clip goes on from are encoded, though its last few alone are seen
CARRIED: Mapping[Past, int] = {"frame": 0, "svi": 0, "svi-pro": 1}  # latent frames that a clip is given of the last one
ANCHOR = GuidanceTerm(name="anchor", base=1.0, floor=0.0, grip=True)
MOTION = replace(ANCHOR, name="motion", of_past=True)
GRIPS: Mapping[Past, tuple[GuidanceTerm, ...]] = {
    "frame": (CONTEXT,),
    "svi": (ANCHOR, MOTION),
    "svi-pro": (ANCHOR, MOTION),
}
ORIGINAL = {  # the first program's names of layers
    ("blocks.#.", "blocks.#."): {
        **{f"self_attn.{x}": f"attn1.to_{x}" for x in "qkv"},
        **{f"cross_attn.{x}": f"attn2.to_{x}" for x in "qkv"},
        "self_attn.o": "attn1.to_out.0",
        "cross_attn.o": "attn2.to_out.0",
        "ffn.0": "ffn.net.0.proj",
        "ffn.2": "ffn.net.2",
    },
    ("", "condition_embedder."): {
        "text_embedding.0": "text_embedder.linear_1",
        "text_embedding.2": "text_embedder.linear_2",
        "time_embedding.0": "time_embedder.linear_1",
        "time_embedding.2": "time_embedder.linear_2",
        "time_projection.1": "time_proj",
    },
    ("head.", ""): {"head": "proj_out"},
}


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
    carry: int = 0  # latent frames of the section before that the next one is given

    kind = "wan"
    grid: ClassVar[TimeGrid] = TimeGrid(unit_frames=UNIT, unit_latents=1, most_units=LONGEST, past=False)
    effects: ClassVar[frozenset[str]] = frozenset(ANYWHERE)
    samplers = ("unipc", "euler")
    image: ClassVar[Image] = "refused"
    renderer = "wan.backend:WanBackend"
    original = ORIGINAL
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

    def notes(self, story: Storyboard, shots: Sequence[tuple[float, int]]) -> Iterator[tuple[str, str]]:
        yield from super().notes(story, shots)
        if self.carry > 1:
            yield "", f"wan.carry {self.carry}: {self.name} was trained to go on from 1 latent frame"

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

    @property
    def past_frames(self) -> Sequence[int]:
        return range(MOST_SEEN, UNIT * self.carry, -UNIT)

    def context(self, place: int, sections: int, *, film: bool = False) -> Context:
        return SimpleContext(initial=place == 0 and not film, needs=(place - 1,) if place else ())


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
    """Wan 2.2 I2V-A14B: an image to a clip; each clip goes on from the one before, and `past` says how.

    `frame`: from its last frame, as the stock pipeline does. `svi`: from that too, and the anchor stands in the place
    of all frames that are not seen (SVI 2.0). `svi-pro`: the anchor, then the last `carry` latent frames, are given as
    latents, the rest as zeros (SVI 2.0 Pro). A section samples anew what it is given first, which is not shown twice:
    one latent frame, and those carried; of the Pro 5 frames, as in the makers' command (their script's default is 4).
    Otherwise it is sampled as the model is: SVI's scripts change experts at 0.875 and solve with Euler.
    """

    text: float = 3.5
    text_low: float = 3.5
    boundary: float = 0.9
    past: Past = "frame"

    effects = frozenset({"kv_blur", "free_init", "low_pass", "motion_amplitude"})
    image = "required"
    renderer = "wan.channels:WanI2VBackend"
    assumed = 5.0
    parts: ClassVar[PartKinds] = {
        **Wan.parts,
        "transformer": WanI2VTransformer,
        "transformer_2": WanI2VTransformer,
    }

    @property
    def grid(self) -> TimeGrid:  # type: ignore[override]
        """Of at most 21 latent frames, those sampled again among them."""
        again = 1 + self.carry
        return TimeGrid(unit_frames=UNIT, unit_latents=1, most_units=LONGEST + 1 - again, again_latents=again)

    @property
    def takes(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"past", "carry"} if CARRIED[self.past] else {"past"})

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        return *super().terms, *GRIPS[self.past]

    @property
    def options(self) -> Mapping[str, Any]:
        own = {name: getattr(self, name) for name in sorted(self.takes)} if self.past != "frame" else {}
        return {**own, **super().options}

    def configured(self, story: Storyboard) -> Self:
        """A LoRA that it comes with is for its own kind of past alone."""
        block = story.wan or WanBlock()
        past = block.past or self.past
        own = self.lora if past == self.past else ()
        return replace(self, past=past, carry=block.carry or CARRIED[past], lora=own)

    def notes(self, story: Storyboard, shots: Sequence[tuple[float, int]]) -> Iterator[tuple[str, str]]:
        yield from super().notes(story, shots)
        if self.past != "frame" and not self.lora and not story.lora:
            cure = f"name them under lora:, or write model: wan2.2-{self.past}"
            yield "", f"wan.past {self.past}: only SVI's LoRA have learned it, and none is on; {cure}"
        for scene in story.scenes if self.past == "frame" else ():
            if scene.keyframes:
                yield f"scene {scene.id}", f"{self.name} was not trained with key frames, but for a clip's first image"

    @property
    def anchors(self) -> frozenset[Role]:
        """SVI's LoRA have learned none."""
        return frozenset({"end", "key"} if self.past == "frame" else ())

    @property
    def past_frames(self) -> Sequence[int]:
        return range(MOST_SEEN, UNIT * max(1, self.carry), -UNIT)

    def context(self, place: int, sections: int, *, film: bool = False) -> Context:
        """A film's end is the start image of the first clip."""
        return SimpleContext(initial=place == 0, needs=(place - 1,) if place else ())
