"""Helios without torch: Wan's 14B body with FramePack's history; 9 latent frames, a clip of 33 frames, a section."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from ...relax.effects import EFFECTS
from ...storyboard import Storyboard
from ...storyboard.fields import NoPast
from ...storyboard.schema import HeliosBlock
from ..base import CONTEXT, TEXT, Context, Family, GuidanceTerm, Size, TimeGrid
from ..configs import Config, Layers, PartKinds, Positive, Small, UMT5Fields, WanVae, Width
from ..flow import Levels, UniPC
from ..framepack.history import SECTION_LATENTS, HistorySlots, slots
from ..wan.family import ORIGINAL


class HeliosTransformer(Config):
    in_channels: Width = 16
    out_channels: Width = 16
    num_attention_heads: Layers = 40
    attention_head_dim: Width = 128
    num_layers: Layers = 40
    ffn_dim: Width = 13_824
    text_dim: Width = 4096
    freq_dim: Width = 256
    patch_size: tuple[Literal[1], Literal[2], Literal[2]] = (1, 2, 2)
    rope_dim: tuple[Width, Width, Width] = (44, 42, 42)
    rope_theta: Positive = 10_000.0
    eps: Small = 1e-6
    qk_norm: Literal["rms_norm_across_heads"] = "rms_norm_across_heads"
    cross_attn_norm: bool = True
    guidance_cross_attn: bool = True
    zero_history_timestep: bool = True
    has_multi_term_memory_patch: Literal[True] = True
    is_amplify_history: Literal[False] = False  # with it diffusers 0.42.1 raises in bfloat16

    def mistakes(self) -> Iterator[str]:
        axes = self.rope_dim
        if sum(axes) != self.attention_head_dim or any(axis % 2 for axis in axes):
            yield f"rope_dim {list(axes)} must be even and add up to attention_head_dim {self.attention_head_dim}"


class HeliosSchedule(UniPC):
    """HeliosScheduler's config, as far as it is that of Helios-Base: of one stage."""

    stages: Annotated[int, Field(ge=1, le=9)] = 3
    scheduler_type: Literal["unipc"] = "unipc"
    shift: Annotated[float, Field(ge=1, le=1)] = 1.0  # the pipeline's own sigmas are not shifted by it
    time_shift_type: Literal["exponential"] = "exponential"

    def mistakes(self) -> Iterator[str]:
        yield from super().mistakes()
        if self.stages != 1:
            fact = f"stages is {self.stages}, as Helios-Mid and Helios-Distilled have it"
            yield f"{fact}, which are not rendered; take Helios-Base, or a model of one stage"


ASSUMED = HeliosSchedule(stages=1, use_dynamic_shifting=True)


@dataclass(frozen=True, kw_only=True)
class Helios(Family):
    """Helios-Base: words, or an image besides, to film; `no_past` is what stands for h0 where the context is loosened.

    A shot's past is FramePack's in forward order, with the start image, as the last frame of a still clip, at frame 0.
    """

    size: Size | None = (640, 384)
    fps: float = 24
    text: float = 5.0
    no_past: NoPast = "zeros"

    kind = "helios"
    grid = TimeGrid(unit_frames=33, unit_latents=SECTION_LATENTS, lead_frames=0, lead_latents=0)
    effects = frozenset(EFFECTS)
    scopes = ("section", "history", "reference", "all")
    samplers = ("unipc", "euler")
    image = "optional"
    renderer = "helios.backend:HeliosBackend"
    original = ORIGINAL  # its body is Wan's
    scheduler = HeliosSchedule
    parts: ClassVar[PartKinds] = {
        "transformer": HeliosTransformer,
        "vae": WanVae,
        "text_encoder": UMT5Fields,
        "tokenizer": Config,
    }

    @property
    def schedule(self) -> HeliosSchedule:
        return self.shift if isinstance(self.shift, HeliosSchedule) else ASSUMED

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        return replace(TEXT, base=self.text), CONTEXT

    @property
    def options(self) -> Mapping[str, Any]:
        return {"no_past": self.no_past, **self.schedule.solver}

    def configured(self, story: Storyboard) -> Self:
        return replace(self, no_past=(story.helios or HeliosBlock()).no_past or self.no_past)

    @property
    def planned_with(self) -> str:
        return "those of a dynamic shift"

    def levels(self, steps: int, size: Size, sampler: str) -> Levels:
        """HeliosPipeline's and HeliosScheduler's (diffusers 0.42.1) bit for bit, in float64 as they are."""
        sigmas = np.linspace(0.999, 0.0, steps + 1)[:-1]
        if self.schedule.use_dynamic_shifting:
            factor = self.schedule.factor(SECTION_LATENTS * (size[1] // 8) * (size[0] // 8) // 4, math.inf)
            sigmas = 1 / (factor + (1 / sigmas - 1)) * factor
        return tuple(zip(sigmas.tolist(), (sigmas * 1000).tolist(), strict=True))

    @property
    def past_frames(self) -> Sequence[int]:
        """Of whole clips, as many as fill the slots."""
        return [self.grid.unit_frames * clips for clips in (3, 2, 1)]

    def context(self, place: int, sections: int, *, film: bool = False) -> HistorySlots:
        return slots("forward", place, sections, film=film)

    def has_past(self, context: Context, *, image: bool) -> bool:
        """With an image the first section has one, too: the end of a still clip; with a film its end."""
        return image or super().has_past(context, image=image)
