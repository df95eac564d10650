"""Samples one section of 9 latent frames from noise, its past and its prompt.

C latent channels, T latent frames of a shot so far, h and w latent height and width
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from ..families.hunyuan_video.attention import AttentionEdit, edited_attention
from ..families.framepack.layout import packed_segments
from ..families.framepack.backend import History, StartCondition, TextCondition, VideoModel
from ..planning.grid import SECTION_LATENTS
from ..families.framepack.history import HistorySlots, Order
from ..planning.renderplan import SectionPlan
from ..relax.guidance import Branch, branches, guide
from ..relax.latents import low_pass
from ..relax.profile import Relaxation
from ..relax.unlearning import Blur, KeyBias, Segment
from ..families.framepack.solver import make_solver


@dataclass(frozen=True, kw_only=True)
class SectionResult:
    """`latents` [1, C, 9, h, w] float32, and how many forward passes of each kind they took."""

    latents: Tensor
    forwards: Mapping[Branch, int] = field(default_factory=dict)


class NonFiniteLatents(ArithmeticError):
    """Latents that hold NaN or infinity after `step`."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"the latents are not finite after step {step}")


def section_noise(seed: int, channels: int, size: tuple[int, int], *, draw: int = 0) -> Tensor:
    """Noise [1, C, 9, h, w] of a section for size (width, height) px, drawn on the CPU so that devices agree.

    `draw` counts from 0 the draws from a generator with that seed; those before it are made and dropped.
    """
    shape = (1, channels, SECTION_LATENTS, size[1] // 8, size[0] // 8)
    generator = torch.Generator("cpu").manual_seed(seed)
    for _ in range(draw):
        torch.randn(shape, generator=generator)
    return torch.randn(shape, generator=generator)


def gather_history(slots: HistorySlots, latents: Mapping[int, Tensor], start: Tensor) -> History:
    """Fills the slots from a shot's latent frames (position -> [1, C, 1, h, w]); what is not there is zeros."""

    def fill(positions: Sequence[int | None]) -> Tensor:
        return torch.cat([torch.zeros_like(start) if p is None else latents[p] for p in positions], dim=2)

    return History(
        latents_clean=torch.cat([start, fill(slots.near)], dim=2),
        latents_history_2x=fill(slots.mid),
        latents_history_4x=fill(slots.far),
        indices_latents=torch.tensor(slots.section_index),
        indices_latents_clean=torch.tensor([0, *slots.near_index]),
        indices_latents_history_2x=torch.tensor(slots.mid_index),
        indices_latents_history_4x=torch.tensor(slots.far_index),
    )


def fresh_history(slots: HistorySlots, start: Tensor, order: Order) -> History:
    """h0, the history that a shot's first section has: zeros, and in forward order the start image in the 1x slot."""
    near = (0 if order == "forward" else None,)
    empty = replace(slots, near=near, mid=(None,) * len(slots.mid), far=(None,) * len(slots.far))
    return gather_history(empty, {0: start}, start)


def sample_section(
    model: VideoModel,
    plan: SectionPlan,
    *,
    sampler: str,
    order: Order,
    noise: Tensor,
    start: StartCondition,
    text: TextCondition,
    negative: TextCondition,
    history: History,
    on_step: Callable[[int], None] = lambda step: None,
) -> SectionResult:
    """Latents of the section that `plan` describes.

    `noise` is [1, C, 9, h, w] float32; `on_step` is told each finished step. Settings at rest and Euler give the bits
    of HunyuanVideoFramepackPipeline's loop (diffusers 0.42.1). Raises NonFiniteLatents at the first such step.
    """
    solve = make_solver(sampler, plan.sigmas, model.dtype)
    segments = packed_segments(plan.history, noise.shape[3], noise.shape[4])
    free = fresh_history(plan.history, start.latent, order)
    soft = replace(history, latents_clean=low_pass(history.latents_clean, plan.relaxation.lowpass))
    forwards: dict[Branch, int] = dict.fromkeys(get_args(Branch), 0)
    x = noise.to(model.device)

    def predict(x: Tensor, usual: History, sigma: float, scale: float, branch: Branch) -> Tensor:
        said = negative if branch in ("uncond", "sharp") else text
        past = {"free": free, "sharp": history}.get(branch, usual)
        return model.velocity(x, sigma=sigma, embedded_scale=scale, text=said, image_tokens=start.tokens, history=past)

    for step, sigma in enumerate(plan.sigmas):
        scales = plan.scales.step(step)
        low_passed = plan.relaxation.low_passed(sigma)
        usual = soft if low_passed else history
        with edited_attention(model.transformer, attention_edit(plan.relaxation, segments, sigma)):
            velocity = guide(partial(predict, x, usual, sigma, scales.embedded), scales, low_passed=low_passed)
        for branch in branches(scales, low_passed=low_passed):
            forwards[branch] += 1
        x = solve(step, velocity, x)
        if not torch.isfinite(x).all():
            raise NonFiniteLatents(step)
        on_step(step)
    return SectionResult(latents=x, forwards=forwards)


def attention_edit(relaxation: Relaxation, segments: Sequence[Segment], sigma: float) -> AttentionEdit | None:
    """What the scene does to attention at this noise, or None: then the stock processors run."""
    amount = relaxation.blur * (sigma**relaxation.p if relaxation.over_steps == "follow" else 1.0)
    blur = Blur.over(segments, sigma_blur=amount, scope=relaxation.scope) if amount > 0 else None
    biased = relaxation.bias != 1 and sigma > relaxation.bias_above
    bias = KeyBias.over(segments, gamma=relaxation.bias, on=relaxation.bias_on) if biased else None
    if bias is None and (blur is None or not blur.groups):
        return None
    return AttentionEdit(blur=blur, blur_of=relaxation.blur_of, space=relaxation.space, bias=bias)
