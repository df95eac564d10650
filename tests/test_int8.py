"""Weights that lie in torchao's int8: another film, with a key of its own, and the same bits wherever they lie."""

from importlib.util import find_spec

import pytest
import torch
from faults import here
from test_backend import same
from test_fp8 import latents
from test_memory import loras

from framepack_relax.families.loader import load
from framepack_relax.families.sketch import sketch

pytestmark = pytest.mark.usefixtures("one_thread")
there = find_spec("torchao") is not None
needs = pytest.mark.skipif(not there, reason="torchao is not installed: pip install 'framepack-relax[quant]'")


@pytest.fixture(scope="module", params=["framepack", "hunyuanvideo", "wan", "wan experts", "helios"])
def folder(request, folder_of):
    return folder_of(request.param)


@pytest.fixture
def small(folder):
    return load(folder, device="cpu", dtype="int8")


def apart(one, other):
    return max(float((one[n] - other[n]).norm() / other[n].norm()) for n in one)


@needs
def test_a_film_is_near_and_the_same_wherever_the_weights_lie(folder, small, tmp_path):
    made = latents(small, tmp_path)
    whole = latents(load(folder, device="cpu"), tmp_path)
    half = latents(load(folder, device="cpu", dtype="bfloat16"), tmp_path)
    assert not same(made, half) and apart(made, whole) < apart(half, whole) + 0.1
    for preset in ("offload", 0, 1, "full"):
        small.preset = preset
        small.place()
        assert same(made, latents(small, tmp_path)), preset
    assert small.identity == small.weights and small.precision == "int8" and small.dtype == torch.bfloat16


@needs
def test_bytes_are_counted_as_they_lie(folder, small):
    drawn, half = sketch(folder, "int8").model, sketch(folder, "bfloat16").model
    for placement in ("full", "offload", 0, 1):
        assert small.weight_bytes(placement) == drawn.weight_bytes(placement)
    assert small.weight_bytes("full") < half.weight_bytes("full")


@needs
def test_a_lora_acts_on_them_and_leaves_no_trace(folder, small, tmp_path):
    plain = latents(small, tmp_path)
    small.adapters = loras(folder, tmp_path)
    small.place()
    made, half = latents(small, tmp_path), load(folder, device="cpu", dtype="bfloat16")
    before = latents(half, tmp_path)
    half.adapters = small.adapters
    half.place()
    after = latents(half, tmp_path)
    assert all(not torch.equal(made[n], plain[n]) for n in plain)
    effects = [(made[n] - plain[n], after[n] - before[n]) for n in plain]
    assert all((one - other).norm() < other.norm() for one, other in effects), "much the same as in bfloat16"
    small.adapters = ()
    small.place()
    assert same(latents(small, tmp_path), plain)


@pytest.mark.skipif(there, reason="torchao is installed")
@pytest.mark.parametrize("command", ["render", "plan", "batch"])
def test_the_missing_package_is_named_with_the_cure(board, tmp_path, command):
    story = board("  - {id: a, prompt: x, seconds: 1.2}")
    said = here(command, story, "--out", tmp_path / "out", "--dtype", "int8")
    assert said.stderr.count("torchao") == 1, said.stderr
    assert said.returncode == 2 and not (tmp_path / "out").exists()
    assert "dtype=int8: torchao is not installed; pip install 'framepack-relax[quant]'" in said.stderr
