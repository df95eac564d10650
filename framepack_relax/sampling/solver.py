"""diffusers' flow schedulers on FramePack's sigmas."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor


@dataclass(frozen=True)
class Solver:
    """One section's solver; it keeps the steps before in its scheduler, so it serves a single section."""

    scheduler: FlowMatchEulerDiscreteScheduler | UniPCMultistepScheduler

    def step(self, index: int, velocity: Tensor, x: Tensor) -> Tensor:
        """x [1, C, T, h, w] at sigma number `index` -> x at the next; both float32."""
        return self.scheduler.step(velocity, self.scheduler.timesteps[index], x, return_dict=False)[0]


def make_solver(name: str, sigmas: Sequence[float]) -> Solver:
    """`unipc` (order 3, FramePack's choice) or `euler`, given the shifted table [steps], which already holds the shift.

    UniPC must get the table as an array and must be told to predict flow; built from the Euler config it drops that.
    """
    scheduler = (
        FlowMatchEulerDiscreteScheduler(shift=1.0)
        if name == "euler"
        else UniPCMultistepScheduler(
            solver_order=3, solver_type="bh2", prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0
        )
    )
    scheduler.set_timesteps(sigmas=np.array(sigmas, dtype=np.float32))
    scheduler.set_begin_index(0)
    return Solver(scheduler)
