"""Transformers from one file: the same bits as from diffusers' own; GGUF as near as its numbers are; what is told."""

import shutil

import gguf
import numpy as np
import pytest
import torch
from faults import here
from safetensors.torch import load_file, save_file
from test_backend import Shots, board
from test_lora import adapter, lora_file
from test_wan import SIZE, planned, sampled
from wan_folders import wan_folder

import framepack_relax as fr
from framepack_relax.errors import ModelError
from framepack_relax.families.backend import PRESETS
from framepack_relax.families.catalog import find
from framepack_relax.families.layers import layers_in
from framepack_relax.families.loader import load
from framepack_relax.families.sketch import sketch
from framepack_relax.families.wan.family import Wan

pytestmark = pytest.mark.usefixtures("one_thread")
OWN = "diffusion_pytorch_model.safetensors"
FIRST = (  # Wan's first program's names, from diffusers'
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("proj_out", "head.head"),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
    ("attn1", "self_attn"),
    ("attn2", "cross_attn"),
    ("to_out.0", "o"),
    ("to_", ""),
    ("norm2", "norm?"),
    ("norm3", "norm2"),
    ("norm?", "norm3"),
)
KINDS = {"F16": 2e-3, "Q8_0": 2e-2}  # how far latents may be, of the largest


def first(name):
    for ours, theirs in FIRST:
        name = name.replace(ours, theirs)
    table = {"scale_shift_table": "head.modulation"}
    return table.get(name) or name.replace("scale_shift_table", "modulation")


def copied(folder, place, change):
    """The folder, whose transformer's one file `change` writes anew, given its tensors and its folder."""
    shutil.copytree(folder, place)
    tensors = load_file(place / "transformer" / OWN)
    (place / "transformer" / OWN).unlink()
    change(tensors, place / "transformer")
    return place


def packed(kind):
    """Writes a GGUF: matrices in this type where their rows are whole blocks, all else in float32."""
    of = gguf.GGMLQuantizationType[kind]

    def write(tensors, folder):
        writer = gguf.GGUFWriter(folder / "model.gguf", "wan")
        for name, x in tensors.items():
            fits = x.ndim == 2 and x.shape[1] % 32 == 0
            data = gguf.quants.quantize(x.numpy(), of) if fits else x.numpy().astype(np.float32)
            writer.add_tensor(first(name), data, raw_dtype=of if fits else None)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    return write


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder, the model of it, a plan, and its latents."""
    folder = wan_folder(tmp_path_factory.mktemp("models") / "wan", expand=False)
    model = load(str(folder), device="cpu")
    plan = planned(model, 1.0)
    return folder, model, plan, sampled(model, plan)[0][0].latents


@pytest.fixture(scope="module")
def q8(plain, tmp_path_factory):
    return copied(plain[0], tmp_path_factory.mktemp("models") / "q8", packed("Q8_0"))


def latents(model, plan):
    return sampled(model, plan)[0][0].latents


@pytest.mark.parametrize("names", [first, lambda name: "model.diffusion_model." + first(name), lambda name: name])
def test_one_safetensors_file_gives_the_bits_of_diffusers_own(plain, tmp_path, names):
    def write(tensors, folder):
        save_file({names(name): x for name, x in tensors.items()}, folder / "wan_t2v.safetensors")

    folder, _, plan, _ = plain
    made = [load(str(place), device="cpu") for place in (folder, copied(folder, tmp_path / "wan", write))]
    for model in made:  # where weights begin in a file moves the last bit of MKL's sums
        for parameter in model.transformer.parameters():
            parameter.data = parameter.data.clone()
    assert torch.equal(*(latents(model, plan) for model in made))


def test_hunyuanvideos_file_is_read_too(hunyuan, tmp_path):
    def write(tensors, folder):
        save_file(tensors, folder / "hunyuan_video.safetensors")

    made = load(str(copied(hunyuan, tmp_path / "model", write)), device="cpu").transformer.state_dict()
    wanted = load(str(hunyuan), device="cpu").transformer.state_dict()
    assert made.keys() == wanted.keys() and all(torch.equal(made[name], wanted[name]) for name in made)


@pytest.mark.parametrize("kind", KINDS)
def test_gguf_is_as_near_as_its_numbers(plain, tmp_path, kind):
    folder, _, plan, wanted = plain
    model = load(str(copied(folder, tmp_path / "wan", packed(kind))), device="cpu")
    far = float((latents(model, plan) - wanted).abs().max() / wanted.abs().max())
    assert 0 < far < KINDS[kind]


def test_gguf_computes_with_what_its_blocks_say(plain, q8):
    """Beside the same network with those very weights; diffusers unpacks them in half precision."""
    _, _, plan, _ = plain
    said = {tensor.name: tensor for tensor in gguf.GGUFReader(q8 / "transformer" / "model.gguf").tensors}
    exact = load(str(plain[0]), device="cpu")
    with torch.no_grad():
        for name, parameter in exact.transformer.named_parameters():
            tensor = said[first(name)]
            parameter.copy_(torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).view_as(parameter))
    made, wanted = latents(load(str(q8), device="cpu"), plan), latents(exact, plan)
    assert float((made - wanted).abs().max() / wanted.abs().max()) < 1e-3


@pytest.mark.parametrize("preset", [*PRESETS[1:], 1])
def test_where_packed_weights_lie_changes_no_bit(q8, tmp_path, preset):
    made = []
    for memory in ("full", preset):
        model = load(str(q8), device="cpu")
        model.preset = memory
        shots = Shots(model, board(tmp_path, model, 1))
        model.place()
        made.append(shots.latents()[0])
    assert torch.equal(*made)


def test_packed_weights_take_what_they_take(plain, q8):
    model, whole = load(str(q8), device="cpu"), plain[1]
    ratio = model.weight_bytes("full") / whole.weight_bytes("full")
    vae = sum(p.numel() * p.element_size() for p in model.vae.parameters())
    stored = (q8 / "transformer" / "model.gguf").stat().st_size
    layers = [m for m in model.transformer.modules() if hasattr(m, "compute_dtype")]
    at_work = 4 * max(m.out_features * m.in_features for m in layers)
    assert ratio < 0.9 and 0.8 < (model.weight_bytes("full") - vae - at_work) / stored < 1.1
    needs = [one.need(plain[2].sections[0].context, 5, SIZE, "full") for one in (model, whole)]
    assert [need.weights for need in needs] == [one.weight_bytes("full") for one in (model, whole)]
    assert needs[0].forward == needs[1].forward and needs[0].decode == needs[1].decode


def test_a_sketch_weighs_what_is_loaded(q8):
    drawn, made = sketch(str(q8), "float32").model, load(str(q8), device="cpu")
    assert [drawn.weight_bytes(preset) for preset in PRESETS] == [made.weight_bytes(preset) for preset in PRESETS]


def test_a_sketch_of_a_file_that_is_cut_off_says_so(q8, tmp_path):
    other = shutil.copytree(q8, tmp_path / "other")
    file = other / "transformer" / "model.gguf"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ModelError, match="transformer: the transformer cannot be read"):
        sketch(str(other), "float32")


def test_its_bytes_are_the_models_identity(plain, q8, tmp_path):
    other = shutil.copytree(q8, tmp_path / "other")
    assert find(str(other)).fingerprint() == find(str(q8)).fingerprint() != find(str(plain[0])).fingerprint()
    model = load(str(other), device="cpu")
    assert model.identity == model.weights
    file = other / "transformer" / "model.gguf"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert find(str(other)).fingerprint() != find(str(q8)).fingerprint()
    with pytest.raises(ModelError, match="its files have changed since it was loaded"):
        model.source.check()


def test_a_lora_goes_onto_packed_weights_and_off_again(plain, q8, tmp_path):
    _, whole, plan, _ = plain
    file = lora_file(load(str(plain[0]), device="cpu").transformer, tmp_path / "a.safetensors")
    made = []
    for model in (load(str(q8), device="cpu"), whole):
        made.append([])
        for adapters in ((), (adapter(file),), ()):
            model.adapters = adapters
            model.place()
            made[-1].append(latents(model, plan))
    (before, on, after), (_, exact, _) = made
    assert torch.equal(before, after) and not torch.equal(on, before)
    assert float((on - exact).abs().max() / exact.abs().max()) < KINDS["Q8_0"]


def test_a_plan_knows_its_layers(plain, q8):
    assert layers_in(plain[0] / "transformer", {}) == layers_in(q8 / "transformer", Wan.original)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_film_is_rendered_from_it(q8, tmp_path, dtype):
    model = load(str(q8), device="cpu", dtype=dtype)
    board = tmp_path / "story.yaml"
    board.write_text("size: [64, 32]\nsteps: 2\nscenes: [{id: a, prompt: x, seconds: 0.3}]\n")
    first, again = (fr.render(board, model=model, out=tmp_path / "out") for _ in range(2))
    assert first.path.is_file() and again.report["sections"][0]["reused"]


def single(tensors, folder):
    save_file(tensors, folder / "one.safetensors")


@pytest.mark.parametrize("kind", ["framepack", "helios"])
def test_a_class_that_diffusers_cannot_read_so_is_told_with_its_cure(request, tmp_path, kind):
    source = request.getfixturevalue("tiny" if kind == "framepack" else "helios")
    folder = copied(source, tmp_path / "model", single)
    with pytest.raises(ModelError, match=r"one.safetensors: diffusers reads no single file .* call it diff"):
        load(str(folder), device="cpu")
    (folder / "transformer" / "one.safetensors").rename(folder / "transformer" / OWN)
    load(str(folder), device="cpu")


def two(tensors, folder):
    single(tensors, folder)
    save_file(tensors, folder / "two.safetensors")


def both(tensors, folder):
    single(tensors, folder)
    save_file(tensors, folder / OWN)


def fewer(tensors, folder):
    single({name: x for name, x in tensors.items() if "blocks.1.ffn.net.2" not in name}, folder)


def more(tensors, folder):
    single({**tensors, **{name.replace("blocks.1", "blocks.2"): x + 1 for name, x in tensors.items()}}, folder)


def wider(tensors, folder):
    single({name: torch.cat([x, x], -1) if name.endswith("to_q.weight") else x for name, x in tensors.items()}, folder)


def cut(tensors, folder):
    packed("Q8_0")(tensors, folder)
    file = folder / "model.gguf"
    file.write_bytes(file.read_bytes()[:200])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (two, "holds one.safetensors and two.safetensors; keep"),
        (both, "holds one.safetensors and diffusion_pytorch_model.safetensors; keep"),
        (fewer, "2 weights of the transformer are missing or of another shape"),
        (more, "weights of the transformer have no place in the network"),
        (wider, "4 weights of the transformer are missing or of another shape"),
        (cut, "the transformer cannot be loaded"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(plain, tmp_path, change, told):
    folder = copied(plain[0], tmp_path / "wan", change)
    with pytest.raises(ModelError) as caught:
        load(str(folder), device="cpu")
    assert told in str(caught.value) and str(folder / "transformer") in str(caught.value)
    done = here("render", "storyboards/rooftop-wan.yaml", "--model", folder, "--out", tmp_path / "out")
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_packed_layers_do_not_lie_in_fp8(q8):
    with pytest.raises(ModelError, match=r"model.gguf: its layers are packed, and take no other type"):
        load(str(q8), device="cpu", dtype="fp8")


def test_without_its_package_gguf_is_told(q8, monkeypatch):
    monkeypatch.setattr("framepack_relax.families.weights.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'framepack-relax\[gguf\]'"):
        load(str(q8), device="cpu")
