"""Weights that lie in fp8: another film, with a key of its own, and the same bits wherever they lie."""

import re

import pytest
import torch
from faults import here
from faults import sections as files_of
from test_backend import Shots, same
from test_backend import board as board_of
from test_lora import adapter, lora_file

from framepack_relax.families.loader import Loading, load
from framepack_relax.planning.planner import make_plan
from framepack_relax.rendering.keys import section_keys

pytestmark = pytest.mark.usefixtures("one_thread")
FLOAT8 = torch.float8_e4m3fn


@pytest.fixture(scope="module", params=["framepack", "hunyuanvideo", "wan", "wan experts", "helios"])
def folder(request, folder_of):
    return folder_of(request.param)


@pytest.fixture
def small(folder):
    return load(folder, device="cpu", dtype="fp8")


@pytest.fixture
def half(folder):
    return load(folder, device="cpu", dtype="bfloat16")


def latents(model, tmp_path):
    return Shots(model, board_of(tmp_path, model)).latents()


def round_weights(small, half):
    """Makes the weights of a model in bfloat16 those that the other one has in fp8."""
    for name, network in small.networks.items():
        whole = dict(half.networks[name].named_parameters())
        for key, weights in network.named_parameters():
            if weights.dtype == FLOAT8:
                whole[key].data = whole[key].data.to(FLOAT8).to(torch.bfloat16)


def test_a_film_is_that_of_the_rounded_weights_wherever_they_lie(small, half, tmp_path):
    made = latents(small, tmp_path)
    assert not same(made, latents(half, tmp_path)), "it is another film"
    round_weights(small, half)
    assert same(made, latents(half, tmp_path)), "and no other rounding is in it"
    for preset in ("offload", 0, 1, "full"):
        small.preset = preset
        small.place()
        assert same(made, latents(small, tmp_path)), preset
    assert small.identity == small.weights


def test_what_is_precise_stays_so(small, half):
    """Embeddings, norms and what modulates them, the last layer; the rest takes half as much."""
    for name, network in small.networks.items():
        whole = dict(half.networks[name].named_parameters())
        lying = [key for key, weights in network.named_parameters() if weights.dtype == FLOAT8]
        kept = {key: weights.dtype for key, weights in network.named_parameters() if weights.dtype != FLOAT8}
        assert lying and all(whole[key].dtype == kind for key, kind in kept.items())
        assert not [key for key in lying if "norm" in key or "embedder" in key or key.startswith("proj_out")]
        rest = [key for key in kept if not re.search("norm|embed|proj_out|scale_shift|rope|patch|history_key", key)]
        assert rest == []
    assert small.weight_bytes("full") < half.weight_bytes("full")


def test_it_is_part_of_every_key(small, half, tmp_path):
    plan = make_plan(board_of(tmp_path, small), small.family)
    pictures = {shot.image: "p" for shot in plan.shots if shot.image}
    one, other = ({k.key for k in section_keys(plan, pictures, "w", m.precision).values()} for m in (small, half))
    assert not one & other and small.precision == "fp8" and small.dtype == half.dtype == torch.bfloat16
    assert Loading(name="puppet", device="cpu", dtype="fp8").precision == "fp8"


def test_a_lora_acts_on_them_and_leaves_no_trace(folder, small, half, tmp_path):
    """To a tenth of what it does on the same weights in bfloat16, for its own sums are rounded otherwise there."""
    round_weights(small, half)
    plain = latents(small, tmp_path)
    worn = (adapter(lora_file(load(folder, device="cpu").transformer, tmp_path / "a.safetensors")),)
    made = []
    for model in (small, half):
        model.adapters = worn
        model.place()
        made.append(latents(model, tmp_path))
    for index, before in plain.items():
        assert (made[0][index] - made[1][index]).norm() < 0.1 * (made[1][index] - before).norm()
    small.adapters = ()
    small.place()
    assert same(latents(small, tmp_path), plain)


def test_a_film_says_it_and_is_rendered_again_as_it_was(board, tmp_path):
    story, out = board("  - {id: a, prompt: a red figure waves, seconds: 1.2}"), tmp_path / "out"
    done = here("render", story, "--out", out, "--device", "cpu", "--dtype", "fp8")
    assert done.returncode == 0, done.stderr
    told = here("plan", story, "--out", out, "--device", "cpu", "--dtype", "bfloat16").stdout
    assert "dtype: fp8 -> torch.bfloat16" in " ".join(told.split())
    again = here("rerun", out / "video.mp4", "--out", tmp_path / "again", "--device", "cpu")
    assert again.returncode == 0 and files_of(tmp_path / "again") == files_of(out), again.stderr
