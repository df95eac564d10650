"""Which steps of a section a model can spare: measured on films of its own, the best pattern by dynamic programming.

Where steps j+1 .. k-1 reuse the velocity of step j, x goes astray by |sum of (sigma_i+1 - sigma_i)(v_i - v_j)|, v_i
being what the network said along the whole film. The pattern whose gaps have the least sum is taken.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import EvaluationError
from ..families.backend import Backend, Solve
from ..families.base import Step
from ..planning.planner import make_plan
from ..rendering.loop import render
from ..storyboard import Storyboard

Errors = NDArray[np.float64]  # [steps, steps + 1]: of a gap from step j to step k, k = steps being the end


@dataclass(frozen=True, kw_only=True)
class Pace:
    """A pattern, and how far x goes astray with it, as a share of the way from noise to picture."""

    pattern: str
    astray: float
    sections: int  # that it was measured on


def measure_pace(story: Storyboard, backend: Backend, share: float) -> Pace:
    """The pattern that asks the network in `share` (0..1) of the steps and serves the board's calm scenes best.

    Raises EvaluationError where none of them is at rest.
    """
    whole = tuple(scene.model_copy(update={"steps": None, "speed": None}) for scene in story.scenes)
    board = story.changed(speed="full", scenes=whole)
    calm = [section.relaxation.at_rest for section in make_plan(board, backend.family).sections]
    if not any(calm):
        raise EvaluationError("no scene is at rest, and only those are made fast; give a board with calm scenes")
    with TemporaryDirectory() as folder, _errors_of(backend) as found:
        render(board, out=Path(folder, "film"), model=backend)
    errors = np.mean([made for made, rest in zip(found, calm, strict=True) if rest], axis=0)
    count = max(1, round(share * board.steps))
    places, astray = _best(errors, count)
    pattern = "".join("1" if step in places else "0" for step in range(board.steps))
    return Pace(pattern=pattern, astray=astray, sections=sum(calm))


@contextmanager
def _errors_of(backend: Any) -> Iterator[list[Errors]]:
    """Those of every section that the backend samples within the block."""
    made: list[Errors] = []
    solver = backend.solver

    def listening(sampler: str, steps: Sequence[Step]) -> Solve:
        solve, seen = solver(sampler, steps), list[Tensor]()

        def step(index: int, velocity: Tensor, x: Tensor) -> Tensor:
            seen.append(velocity.flatten())
            if len(seen) == len(steps):
                made.append(gap_errors(torch.stack(seen), [row.sigma for row in steps]))
            return solve(index, velocity, x)

        return step

    backend.solver = listening
    try:
        yield made
    finally:
        del backend.solver


def gap_errors(velocities: Tensor, sigmas: Sequence[float]) -> Errors:
    """Of every gap, as shares of the whole way; `velocities` [steps, N] of a section."""
    count = len(sigmas)
    widths = torch.tensor([*sigmas, 0.0], dtype=velocities.dtype, device=velocities.device).diff()
    moves = widths[:, None] * velocities
    ways = torch.cat([torch.zeros_like(moves[:1]), moves.cumsum(0)])
    far = ways[-1].norm()
    errors = np.full((count, count + 1), np.inf)
    for first in range(count):
        for end in range(first + 1, count + 1):
            reused = (widths[first:end].sum() * velocities[first]) - (ways[end] - ways[first])
            errors[first, end] = float(reused.norm() / far)
    return errors


def _best(errors: Errors, count: int) -> tuple[set[int], float]:
    """The places of `count` computed steps, 0 among them, with the least sum of gaps; and that sum."""
    steps = len(errors)
    least = np.full((count + 1, steps + 1), np.inf)  # of so many computed steps, up to a place
    before = np.zeros((count + 1, steps + 1), dtype=int)
    least[0, 0] = 0.0
    for number in range(1, count + 1):
        for end in range(1, steps + 1):
            sums = least[number - 1, :end] + errors[:end, end]
            before[number, end] = int(sums.argmin())
            least[number, end] = sums[before[number, end]]
    places, place = set[int](), steps
    for number in range(count, 0, -1):
        place = int(before[number, place])
        places.add(place)
    return places, float(least[count, steps])
