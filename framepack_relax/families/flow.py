"""The noise of flow-matching models as diffusers' and FramePack's schedulers tabulate it; numpy, no torch."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from .configs import Config

Levels = tuple[tuple[float, float], ...]


class FlowShift(Config):
    """How a diffusers scheduler config shifts its sigmas: by `shift`, or dynamically by the number of image tokens."""

    use_dynamic_shifting: bool = False
    shift: Annotated[float, Field(gt=0, le=100)] = 1.0
    base_shift: Annotated[float, Field(ge=-10, le=10)] = 0.5
    max_shift: Annotated[float, Field(ge=-10, le=10)] = 1.15
    base_image_seq_len: Annotated[int, Field(ge=0, le=1 << 24)] = 256
    max_image_seq_len: Annotated[int, Field(ge=0, le=1 << 24)] = 4096

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, Mapping) else data

    def mistakes(self) -> Iterator[str]:
        if self.base_image_seq_len >= self.max_image_seq_len:
            yield "base_image_seq_len must be below max_image_seq_len"

    def factor(self, tokens: float, most: float) -> float:
        """`shift`, or exp(mu) up to `most`; mu is linear in the image tokens (calculate_shift of diffusers)."""
        if not self.use_dynamic_shifting:
            return self.shift
        slope = (self.max_shift - self.base_shift) / (self.max_image_seq_len - self.base_image_seq_len)
        mu = tokens * slope + (self.base_shift - slope * self.base_image_seq_len)
        return math.exp(min(mu, math.log(most)))


class UniPC(FlowShift):
    """The config of a scheduler that solves flows by UniPC, as far as it is one that is rendered here."""

    num_train_timesteps: Literal[1000] = 1000
    prediction_type: Literal["flow_prediction"] = "flow_prediction"
    use_flow_sigmas: Literal[True] = True
    predict_x0: Literal[True] = True
    thresholding: Literal[False] = False
    solver_order: Annotated[int, Field(ge=1, le=3)] = 2
    solver_type: Literal["bh1", "bh2"] = "bh2"
    lower_order_final: bool = True
    disable_corrector: tuple[Annotated[int, Field(ge=0, le=1000)], ...] = ()

    @property
    def solver(self) -> dict[str, Any]:
        """Of these fields those that say how a step is made."""
        return self.model_dump(include={"solver_order", "solver_type", "lower_order_final", "disable_corrector"})


def times(steps: int) -> NDArray[np.float32]:
    """Unshifted times 1 .. 1/steps, float32 [steps]."""
    return np.linspace(1.0, 0.0, steps + 1)[:-1].astype(np.float32)


def sigma_table(steps: int, shift: FlowShift, factor: float, *, sampler: str) -> Levels:
    """(shifted sigma, timestep) of each step, the first sigma 1.0, both exact in float32; `factor` is exp(mu) or shift.

    For `euler` they equal those of diffusers' Euler scheduler bit for bit, for `unipc` those of FramePack's programs.
    """
    t = times(steps)
    if sampler == "unipc":
        sigmas = _framepack_sigmas(steps, factor)
    elif shift.use_dynamic_shifting:
        sigmas = np.asarray(factor / (factor + (1 / t - 1) ** 1.0), dtype=np.float32)
    else:
        sigmas = np.asarray(factor * t / (1 + (factor - 1) * t), dtype=np.float32)
    return tuple(zip(sigmas.tolist(), (sigmas * np.float32(1000)).tolist(), strict=True))


def unipc_table(steps: int, shift: float) -> Levels:
    """(sigma, timestep) as UniPCMultistepScheduler (diffusers 0.42.1) tabulates flow sigmas, to the bit."""
    t = np.linspace(1, 1 / 1000, steps + 1)[:-1]
    sigmas = shift * t / (1 + (shift - 1) * t)
    sigmas[0] -= 1e-6  # it keeps away from 1
    timesteps = (sigmas * 1000).astype(np.int64).astype(float)  # whole numbers, rounded down
    return tuple(zip(sigmas.astype(np.float32).tolist(), timesteps.tolist(), strict=True))


def _framepack_sigmas(steps: int, factor: float) -> NDArray[np.float32]:
    """f / (f + (1 / t - 1)) for t of torch.linspace(1, 0, steps + 1), rounded wherever torch rounds in float32.

    torch.linspace counts from both ends with one rounding a value; `f / tensor` is the reciprocal times f.
    """
    number, step = np.arange(steps), float(np.float32(-1 / steps))
    t = np.where(2 * number < steps, 1 + step * number, -step * (steps - number)).astype(np.float32)
    one, f = np.float32(1), np.float32(factor)
    return np.asarray(one / (f + (one / t - one)) * f, dtype=np.float32)
