"""Samplers on problems with known answers."""

import pytest
import torch

from framepack_relax.plan.schedule import FlowShift, sigma_table
from framepack_relax.sampling.section import make_solver


def solve(name, velocity, steps, x):
    sigmas = [float(s) for s in sigma_table(steps, FlowShift(), 320, 320)]
    solver = make_solver(name, sigmas)
    for index, sigma in enumerate(sigmas):
        x = solver(index, velocity(x, sigma), x)
    return x


@pytest.mark.parametrize("name", ["unipc", "euler"])
@pytest.mark.parametrize("steps", [1, 2, 8, 25])
def test_a_straight_flow_is_solved_exactly(name, steps):
    """Velocity noise - data is constant: every step size ends at the data."""
    data, noise = torch.randn(1, 4, 9, 4, 4), torch.randn(1, 4, 9, 4, 4)
    end = solve(name, lambda x, sigma: noise - data, steps, noise)
    assert torch.allclose(end, data, atol=2e-5)


def test_unipc_is_more_exact_than_euler_on_a_curved_flow():
    """Gaussian data of deviation 1/2: dx/dsigma = v(x, sigma), whose end is x(1) / 2."""

    def velocity(x, sigma):
        spread = sigma**2 + (1 - sigma) ** 2 / 4
        return x * (sigma - (1 - sigma) / 4) / spread

    x = torch.randn(1, 4, 9, 4, 4)
    error = {n: (solve(n, velocity, 20, x) - x / 2).abs().mean().item() for n in ("unipc", "euler")}
    assert error["unipc"] < 0.2 * error["euler"] < 0.05
