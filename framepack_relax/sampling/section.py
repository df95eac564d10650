"""Samples one section, step by step, as its plan's rows say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ..families.backend import Backend
from ..families.base import Step
from ..relax.effects import Effect, Ramp
from ..relax.guidance import KINDS, combine
from ..relax.latents import faded, renewed

OnStep = Callable[[int, Callable[[], Tensor]], None]


@dataclass(frozen=True, kw_only=True)
class SectionResult:
    """`latents` [1, C, T, h, w] float32, and how many forward passes of each kind they took."""

    latents: Tensor
    forwards: Mapping[str, int] = field(default_factory=dict)


class NonFiniteLatents(ArithmeticError):
    """Latents that hold NaN or infinity after `step`."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"the latents are not finite after step {step}")


def _none(number: int) -> Tensor:
    raise ValueError("rows of further passes need `fresh`")


def sample(
    backend: Backend,
    inputs: Any,
    steps: Sequence[Step],
    x: Tensor,
    *,
    sampler: str,
    fresh: Callable[[int], Tensor] = _none,
    on_step: OnStep = lambda step, x0: None,
) -> SectionResult:
    """Latents of the section that `inputs` (of the backend's `begin`) and its rows describe.

    `x` [1, C, T, h, w] float32 is noise, or noised as the first row's sigma says; `on_step` is told each finished step
    and may ask for the x0 that it predicts. `fresh` draws the noise of a further pass by its number. Settings at rest
    and Euler give the bits of the stock pipeline's loop. Raises NonFiniteLatents at the first such step.
    """
    noise = x = x.to(backend.device)
    velocities: dict[str, Tensor] = {}  # of each branch, the newest
    forwards, again = dict.fromkeys(KINDS, 0), -1
    for effects, rows in groupby(steps, key=lambda step: step.effects):
        first, *others = rows
        if first.again > again:
            again = first.again
            solve = backend.solver(sampler, [step for step in steps if step.again == again])
            x = renewed(x, noise, fresh(again).to(x)) if again else x
        fade = _fade(effects, x)
        with backend.acting(effects, inputs):
            for step in (first, *others):
                velocities |= backend.passes(x, step, inputs)
                seen = {branch.name: velocities[branch.name] for branch in step.branches}
                velocity, before = combine(seen, step.scales, fade), x
                x = solve(step.index, velocity, x)
                for branch in step.passes:
                    forwards[branch.kind] += 1
                if not torch.isfinite(x).all():
                    raise NonFiniteLatents(step.index)
                on_step(step.index, partial(_predicted, backend, inputs, before, step.sigma, velocity))
    return SectionResult(latents=backend.finish(x, inputs), forwards=forwards)


def _fade(effects: Sequence[Effect], x: Tensor) -> Tensor | None:
    """How far a section's frames are loosened, where that is not alike."""
    ramps = (effect for effect in effects if isinstance(effect, Ramp))
    return next((faded(x.shape[2], ramp.frames, past_after=ramp.past_after).to(x) for ramp in ramps), None)


def _predicted(backend: Backend, inputs: Any, x: Tensor, sigma: float, velocity: Tensor) -> Tensor:
    """The section, were this the last step."""
    return backend.finish(x - sigma * velocity, inputs)
