"""Sigmas of a section and the scale of every restraint at each of its steps."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..relax.guidance import StepScales, relaxed_scale, step_weights
from ..relax.profile import Relaxation
from .grid import SECTION_LATENTS

MOST_SHIFT = 7.0  # FramePack caps mu at ln 7


@dataclass(frozen=True, kw_only=True)
class FlowShift:
    """How a scheduler config shifts its sigmas: by `shift`, or `dynamic`ally by the number of image tokens."""

    dynamic: bool = True
    shift: float = 1.0
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096

    def factor(self, width: int, height: int) -> float:
        """exp(mu) for a section of width x height px, mu capped at ln 7 (pipeline_hunyuan_video_framepack.py)."""
        if not self.dynamic:
            return self.shift
        tokens = SECTION_LATENTS * (height // 8) * (width // 8) / 4
        slope = (self.max_shift - self.base_shift) / (self.max_image_seq_len - self.base_image_seq_len)
        mu = tokens * slope + (self.base_shift - slope * self.base_image_seq_len)
        return math.exp(min(mu, math.log(MOST_SHIFT)))


def times(steps: int) -> NDArray[np.float32]:
    """Unshifted times 1 .. 1/steps, float32 [steps]."""
    return np.linspace(1.0, 0.0, steps + 1)[:-1].astype(np.float32)


def sigma_table(steps: int, shift: FlowShift, width: int, height: int, *, sampler: str) -> NDArray[np.float32]:
    """Shifted sigmas [steps], the first 1.0, float32.

    For `euler` they equal those of diffusers' Euler scheduler bit for bit, for `unipc` those of FramePack's programs.
    """
    factor = shift.factor(width, height)
    if sampler == "unipc":
        return _framepack_sigmas(steps, factor)
    t = times(steps)
    if shift.dynamic:
        return np.asarray(factor / (factor + (1 / t - 1) ** 1.0), dtype=np.float32)
    return np.asarray(factor * t / (1 + (factor - 1) * t), dtype=np.float32)


def _framepack_sigmas(steps: int, factor: float) -> NDArray[np.float32]:
    """f / (f + (1 / t - 1)) for t of torch.linspace(1, 0, steps + 1), rounded wherever torch rounds in float32.

    torch.linspace counts from both ends with one rounding a value; `f / tensor` is the reciprocal times f.
    """
    number, step = np.arange(steps), float(np.float32(-1 / steps))
    t = np.where(2 * number < steps, 1 + step * number, -step * (steps - number)).astype(np.float32)
    one, f = np.float32(1), np.float32(factor)
    return np.asarray(one / (f + (one / t - one)) * f, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class ScaleTable:
    """s(sigma) of each restraint, a value per step."""

    embedded: tuple[float, ...]
    text: tuple[float, ...]
    context: tuple[float, ...]

    def step(self, index: int) -> StepScales:
        return StepScales(embedded=self.embedded[index], text=self.text[index], context=self.context[index])


def scale_table(relaxation: Relaxation, sigmas: NDArray[np.float32], *, base: StepScales, fresh: bool) -> ScaleTable:
    """Eq. 2 for the targets, the base scale for the rest; a `fresh` section has no past whose grip could loosen."""
    noise = [float(sigma) for sigma in sigmas]
    at = noise if relaxation.coord == "sigma" else [float(time) for time in times(len(noise))]
    weights = step_weights(relaxation.schedule, at, noise, p=relaxation.p, interval=relaxation.interval)
    targets = () if relaxation.at_rest else relaxation.target

    def curve(name: str, scale: float, minimum: float) -> tuple[float, ...]:
        if name not in targets or (name == "context" and fresh):
            return (scale,) * len(noise)
        low = minimum if relaxation.minimum is None else relaxation.minimum
        return tuple(relaxed_scale(weight, base=scale, minimum=low, beta=relaxation.beta) for weight in weights)

    return ScaleTable(
        embedded=curve("embedded", base.embedded, 1.0),
        text=curve("text", base.text, 1.0),
        context=curve("context", base.context, 0.0),
    )
