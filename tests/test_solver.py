"""Samplers on problems with known answers."""

import pytest
import torch

from framepack_relax.families.flow import FlowShift, sigma_table
from framepack_relax.families.framepack.backend import make_solver

SHIFT_7 = FlowShift(shift=7.0)


def solve(name, velocity, steps, x, dtype=torch.float32):
    sigmas = [sigma for sigma, _ in sigma_table(steps, SHIFT_7, 7.0, sampler=name)]
    solver = make_solver(name, sigmas, dtype)
    for index, sigma in enumerate(sigmas):
        x = solver(index, velocity(x.to(dtype).float(), sigma), x)
    return x


def gaussian(x, sigma):
    """The flow of Gaussian data of deviation 1/2: its end is x(1) / 2."""
    return x * (sigma - (1 - sigma) / 4) / (sigma**2 + (1 - sigma) ** 2 / 4)


def bent(x, sigma):
    return torch.tanh(2 * x) + torch.sin(5 * torch.tensor(sigma)) * x


@pytest.mark.parametrize("name", ["unipc", "euler"])
@pytest.mark.parametrize("steps", [1, 2, 8, 25])
def test_a_straight_flow_is_solved_exactly(name, steps):
    """Velocity noise - data is constant: every step size ends at the data."""
    data, noise = torch.randn(1, 4, 9, 4, 4), torch.randn(1, 4, 9, 4, 4)
    end = solve(name, lambda x, sigma: noise - data, steps, noise)
    assert torch.allclose(end, data, atol=2e-5)


def test_unipc_is_more_exact_than_euler_on_a_curved_flow():
    x = torch.randn(1, 4, 9, 4, 4)
    error = {n: (solve(n, gaussian, 50, x) - x / 2).abs().mean().item() for n in ("unipc", "euler")}
    assert error["unipc"] < 0.5 * error["euler"] < 0.1


# lllyasviel/FramePack at 97fe5db, sample_unipc in float32 from x = 1, -1/2, 2 with sigmas of shift 7
FRAMEPACK = [
    (gaussian, 4, (0.1047690, -0.0523845, 0.2095380)),
    (gaussian, 8, (0.2238649, -0.1119325, 0.4477298)),
    (gaussian, 25, (0.4379484, -0.2189742, 0.8758969)),
    (bent, 1, (0.9948967, -0.2178680, 2.9185193)),
    (bent, 4, (0.5008677, -0.0261521, 2.0405564)),
    (bent, 8, (0.0286808, 0.0551672, 0.7350889)),
    (bent, 25, (0.2186041, -0.0561724, 0.9697837)),
]


@pytest.mark.parametrize(("velocity", "steps", "end"), FRAMEPACK)
def test_unipc_gives_the_numbers_of_framepacks_own_solver(velocity, steps, end):
    made = solve("unipc", velocity, steps, torch.tensor([1.0, -0.5, 2.0]).view(1, 1, 1, 1, 3))
    assert made.flatten().tolist() == pytest.approx(end, abs=5e-7)  # a CPU's last bits


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 15, 25, 50])
def test_the_sigmas_of_unipc_are_those_that_torch_computes_in_float32(steps):
    for factor in (7.0, 3.0, 1.6487212707001282):
        t = torch.linspace(1, 0, steps + 1)
        wanted = (factor / (factor + (1 / t - 1) ** 1.0))[:-1]
        made = sigma_table(steps, FlowShift(shift=factor), factor, sampler="unipc")
        assert [sigma for sigma, _ in made] == wanted.tolist()


def test_x0_is_taken_from_x_as_the_transformer_saw_it():
    """One step gives x0 at once: x rounded to bfloat16, minus the velocity."""
    x, velocity = torch.randn(1, 4, 9, 4, 4), torch.randn(1, 4, 9, 4, 4)
    made = solve("unipc", lambda x, sigma: velocity, 1, x, torch.bfloat16)
    assert torch.equal(made, x.bfloat16().float() - velocity) and not torch.equal(made, x - velocity)
