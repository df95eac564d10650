"""The Euler solver of diffusers' flow-matching pipelines, on a table of sigmas that is shifted already."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler

from ..backend import Solve


def euler(sigmas: Sequence[float]) -> Solve:
    """(index of sigma, velocity, x) -> x at the next sigma, all [1, C, T, h, w] float32."""
    return on_table(FlowMatchEulerDiscreteScheduler(shift=1.0), sigmas)


def on_table(scheduler: Any, sigmas: Sequence[float]) -> Solve:
    """Steps of a diffusers scheduler on these very sigmas [steps], to which it does nothing more."""
    table = np.array(sigmas, dtype=np.float32)
    scheduler.set_timesteps(sigmas=table.copy())
    scheduler.sigmas[0] = table[0].item()  # diffusers' UniPC moves a first sigma of 1
    scheduler.set_begin_index(0)
    return lambda index, velocity, x: scheduler.step(velocity, scheduler.timesteps[index], x, return_dict=False)[0]
