"""LoRA on every family: a scale of 0 is none, another acts as weights with it merged in, and nothing of it is left."""

from dataclasses import replace

import pytest
from test_backend import EFFECTS, Shots, board, same
from test_lora import adapter, lora_file
from wan_folders import wan_folder

from framepack_relax.families.backend import PRESETS
from framepack_relax.families.loader import load

pytestmark = pytest.mark.usefixtures("one_thread")
CLOSE = 1e-4  # of the largest latent: float32, sums in another order


@pytest.fixture(scope="module", params=["framepack", "hunyuanvideo", "helios", "wan ti2v"])
def case(request, tiny, hunyuan, helios, tmp_path_factory):
    """A folder, the model loaded from it, a LoRA for it."""
    place = tmp_path_factory.mktemp("lora")
    folders = {"framepack": tiny, "hunyuanvideo": hunyuan, "helios": helios}
    folder = folders.get(request.param) or wan_folder(place / "wan", expand=True)
    model = load(str(folder), device="cpu")
    return folder, model, lora_file(model.transformer, place / "a.safetensors")


def worn(file, *scales):
    return tuple(adapter(file, scale) for scale in scales)


def shots_of(model, tmp_path):
    return Shots(model, board(tmp_path, model))


def made(shots, adapters, effects=()):
    model = shots.model
    model.adapters = adapters
    model.place()
    try:
        return shots.latents(lambda section: [replace(step, effects=effects) for step in section.steps])
    finally:
        model.adapters = ()
        model.place()


def far(one, other):
    return max(float((one[n] - other[n]).abs().max() / other[n].abs().max()) for n in one)


def test_a_scale_acts_a_scale_of_0_does_not_and_nothing_is_left(case, tmp_path):
    _, model, file = case
    shots = shots_of(model, tmp_path)
    names = [name for name, _ in model.transformer.named_parameters()]
    plain, none, half, full = (made(shots, adapters) for adapters in ((), *(worn(file, s) for s in (0.0, 0.5, 1.0))))
    assert same(none, plain) and far(half, plain) > 1e-3 and far(full, half) > 1e-3
    assert same(made(shots, ()), plain) and names == [name for name, _ in model.transformer.named_parameters()]


@pytest.mark.parametrize("effects", [(), (EFFECTS["kv_blur"],)], ids=["plain", "blurred"])
def test_it_acts_as_weights_that_it_is_merged_into(case, tmp_path, effects):
    folder, model, file = case
    shots = shots_of(model, tmp_path)
    acted, without = made(shots, worn(file, 0.5), effects), made(shots, (), effects)
    other = load(str(folder), device="cpu")
    other.transformer.load_lora_adapter(str(file), prefix=None, adapter_name="a", use_safetensors=True)
    other.transformer.fuse_lora(lora_scale=0.5, adapter_names=["a"])
    other.transformer.unload_lora()
    assert far(acted, made(shots_of(other, tmp_path), (), effects)) < CLOSE < far(acted, without)
    assert not effects or far(acted, made(shots, worn(file, 0.5))) > CLOSE


@pytest.mark.parametrize("preset", [*PRESETS[1:], 1])
def test_where_weights_lie_changes_no_bit(case, tmp_path, preset):
    """In the last case one block stays, and the others come for their turn."""
    folder, model, file = case
    other = load(str(folder), device="cpu")
    other.preset = preset
    shots = shots_of(other, tmp_path)
    wanted = [made(shots_of(model, tmp_path), adapters) for adapters in (worn(file, 0.5), ())]
    assert all(same(made(shots, a), w) for a, w in zip((worn(file, 0.5), ()), wanted, strict=True))
