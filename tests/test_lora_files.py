"""LoRA files of other tools: diffusers' own converters are the referees where they exist, sums by hand elsewhere."""

import json
import random
import re
import subprocess
import sys

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel, WanTransformer3DModel
from diffusers.loaders import lora_conversion_utils as theirs
from faults import here
from PIL import Image
from safetensors.torch import load_file, save_file
from test_lora import adapter, lora_file
from test_wan import SIZE
from wan_folders import SHAPE, wan_folder

import framepack_relax as fr
from framepack_relax.errors import StoryboardError
from framepack_relax.families.hunyuan_video.family import HunyuanVideo
from framepack_relax.families.layers import layers_in, match
from framepack_relax.families.loader import load
from framepack_relax.families.lora import converted
from framepack_relax.families.wan.family import Wan

pytestmark = pytest.mark.usefixtures("one_thread")
D = 3072  # HunyuanVideo's width, which diffusers' converter takes for granted
TENCENT = {  # rows and columns of layers as its first program has them
    "double_blocks.0.img_attn_qkv": (3 * D, D),
    "double_blocks.0.img_attn_proj": (D, D),
    "double_blocks.0.img_mod.linear": (6 * D, D),
    "double_blocks.0.img_mlp.fc1": (4 * D, D),
    "double_blocks.0.img_mlp.fc2": (D, 4 * D),
    "double_blocks.0.txt_attn_qkv": (3 * D, D),
    "double_blocks.0.txt_attn_proj": (D, D),
    "double_blocks.0.txt_mod.linear": (6 * D, D),
    "double_blocks.0.txt_mlp.fc1": (4 * D, D),
    "double_blocks.0.txt_mlp.fc2": (D, 4 * D),
    **{f"{name}.mlp.0": (D, 256) for name in ("time_in", "guidance_in", "txt_in.t_embedder")},
    **{f"{name}.mlp.2": (D, D) for name in ("time_in", "guidance_in", "txt_in.t_embedder")},
    "vector_in.in_layer": (D, 768),
    "vector_in.out_layer": (D, D),
    "txt_in.c_embedder.linear_1": (D, 4096),
    "txt_in.c_embedder.linear_2": (D, D),
    "txt_in.input_embedder": (D, 4096),
    "final_layer.linear": (64, D),
    "single_blocks.0.linear1": (7 * D, D),
    "single_blocks.0.linear2": (D, 5 * D),
    "single_blocks.0.modulation.linear": (3 * D, D),
}
WAN = {
    **{f"blocks.{n}.{kind}_attn.{x}": (32, 32) for n in (0, 1) for kind in ("self", "cross") for x in "qkvo"},
    **{f"blocks.{n}.ffn.0": (48, 32) for n in (0, 1)},
    **{f"blocks.{n}.ffn.2": (32, 48) for n in (0, 1)},
}


def on_meta(kind, **config):
    """The layers of a network without weights."""
    with torch.device("meta"):
        network = kind(**config)
    return {name: tuple(m.weight.shape) for name, m in network.named_modules() if isinstance(m, torch.nn.Linear)}


HUNYUAN_LAYERS = on_meta(HunyuanVideoTransformer3DModel, num_layers=1, num_single_layers=1, num_refiner_layers=1)
WAN_LAYERS = on_meta(WanTransformer3DModel, **{**SHAPE, "ffn_dim": 48}, attention_head_dim=16)


def lora(names, *, prefix="", between=".", kinds=("lora_A", "lora_B"), alpha=None, rank=2):
    """A file with these layers, {name: (rows, columns)}, as a tool writes it; every second has another alpha."""
    torch.manual_seed(1)
    made = {}
    for n, (name, (rows, columns)) in enumerate(names.items()):
        said = prefix + name.replace(".", between)
        made[f"{said}.{kinds[0]}.weight"] = torch.randn(rank, columns)
        made[f"{said}.{kinds[1]}.weight"] = torch.randn(rows, rank)
        if alpha is not None:
            made[f"{said}.alpha"] = torch.tensor(alpha + n % 2)
    return made


def moved(weights, settings=None):
    """By layer, what its matrices make of a probe, at scale 1, and what they add."""
    made = {}
    for name, down in weights.items():
        layer, found, _ = name.removeprefix("transformer.").partition(".lora_A.")
        if not found:
            continue
        up, bias = weights[name.replace("lora_A", "lora_B")], weights.get(name.replace("lora_A.weight", "lora_B.bias"))
        probe = torch.randn(down.shape[1], 3, generator=torch.Generator().manual_seed(2))
        scale = 1.0
        if settings:
            scale = settings["alpha_pattern"].get(f"^{re.escape(layer)}", settings["lora_alpha"]) / len(down)
        made[layer] = (up @ (down @ probe) + (0 if bias is None else bias[:, None])) * scale
    return made


def ours(tensors, layers, family):
    found = match({name: tuple(x.shape) for name, x in tensors.items()}, layers, family.original)
    assert not found.left
    return moved(*converted(found, tensors, layers))


def alike(made, wanted):
    assert made.keys() == wanted.keys()
    for name, value in made.items():
        assert torch.allclose(value, wanted[name], rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "transformer."])
def test_tencents_names_are_those_of_diffusers_converter(prefix):
    tensors = lora(TENCENT, prefix=prefix)
    wanted = moved(theirs._convert_hunyuan_video_lora_to_diffusers({k: x.clone() for k, x in tensors.items()}))
    assert len(wanted) == 32 and wanted.keys() <= HUNYUAN_LAYERS.keys()
    alike(ours(tensors, HUNYUAN_LAYERS, HunyuanVideo), wanted)


def test_kohyas_names_of_tencents_layers_are_the_same_with_their_alpha():
    kohya = lora(TENCENT, prefix="lora_unet_", between="_", kinds=("lora_down", "lora_up"), alpha=1.0)
    alphas = {n: 1.0 + k % 2 for k, n in enumerate(TENCENT)}
    folded = {k: x * (alphas[k.partition(".lora_")[0]] / 2 if "lora_A" in k else 1) for k, x in lora(TENCENT).items()}
    wanted = moved(theirs._convert_hunyuan_video_lora_to_diffusers(folded))
    alike(ours(kohya, HUNYUAN_LAYERS, HunyuanVideo), wanted)


def test_the_refiners_joined_matrix_is_split_by_rows():
    tensors = lora({"txt_in.individual_token_refiner.blocks.0.self_attn_qkv": (3 * D, D)})
    made = ours(tensors, HUNYUAN_LAYERS, HunyuanVideo)
    down, up = tensors.values()
    for part, rows in zip("qkv", up.split(D), strict=True):
        name = f"context_embedder.token_refiner.refiner_blocks.0.attn.to_{part}"
        alike({name: made[name]}, moved({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": rows}))


@pytest.mark.parametrize("kinds", [("lora_A", "lora_B"), ("lora_down", "lora_up")])
@pytest.mark.parametrize("alpha", [None, 1.0])
def test_wans_names_are_those_of_diffusers_converter(kinds, alpha):
    tensors = lora(WAN, prefix="diffusion_model.", kinds=kinds, alpha=alpha)
    tensors["diffusion_model.blocks.1.ffn.0.diff_b"] = torch.randn(48)
    wanted = moved(theirs._convert_non_diffusers_wan_lora_to_diffusers({k: x.clone() for k, x in tensors.items()}))
    assert len(wanted) == 20 and wanted.keys() <= WAN_LAYERS.keys()
    alike(ours(tensors, WAN_LAYERS, Wan), wanted)


def test_musubis_names_are_those_of_diffusers_converter():
    tensors = lora(WAN, prefix="lora_unet_", between="_", kinds=("lora_down", "lora_up"), alpha=1.0)
    wanted = moved(theirs._convert_musubi_wan_lora_to_diffusers({k: x.clone() for k, x in tensors.items()}))
    alike(ours(tensors, WAN_LAYERS, Wan), wanted)


def test_a_file_of_some_layers_alone_is_read_too():
    """Diffusers' converter for musubi-tuner's files raises KeyError on it."""
    some = {name: shape for name, shape in WAN.items() if name.endswith("self_attn.q")}
    made = ours(lora(some, prefix="lora_unet_", between="_", kinds=("lora_down", "lora_up")), WAN_LAYERS, Wan)
    assert made.keys() == {"blocks.0.attn1.to_q", "blocks.1.attn1.to_q"}


@pytest.fixture(scope="module", params=["framepack", "helios", "wan"])
def case(request, tiny, helios, tmp_path_factory):
    """A folder, a LoRA for it as diffusers writes it, the same as musubi-tuner does, their number of layers."""
    place = tmp_path_factory.mktemp("lora")
    folders = {"framepack": tiny, "helios": helios}
    folder = folders.get(request.param) or wan_folder(place / "wan", expand=False)
    model = load(str(folder), device="cpu")
    file = lora_file(model.transformer, place / "diffusers.safetensors")  # rank 2, alpha 4
    other = {}
    for name, x in load_file(file).items():
        layer, _, kind = name.partition(".lora_")
        said = "lora_unet_" + layer.replace(".", "_")
        other |= {f"{said}.lora_{'down' if kind[0] == 'A' else 'up'}.weight": x, f"{said}.alpha": torch.tensor(4.0)}
    save_file(other, place / "musubi.safetensors")
    return folder, model, file, place / "musubi.safetensors", len(other) // 3


def story(model, tmp_path, scene="", head=""):
    if model.family.image == "required":
        Image.radial_gradient("L").resize(SIZE).convert("RGB").save(tmp_path / "hero.png")
        head += "image: hero.png\n"
    past = model.family.grid.past
    scenes = "".join(
        f"  - {{id: s{n}, prompt: x, seconds: 1.2{'' if past else ', transition: cut'}{more}}}\n"
        for n, more in enumerate(["", scene])
    )
    file = tmp_path / "story.yaml"
    file.write_text(f"model: {model.source.name}\nsize: [64, 32]\nsteps: 2\n{head}scenes:\n{scenes}")
    return file


def latents(film):
    return [load_file(file)["latents"] for file in sorted((film.path.parent / "shots").rglob("0*.safetensors"))]


def test_musubis_file_makes_the_film_of_diffusers_file(case, tmp_path):
    _, model, file, other, count = case
    films = [
        fr.render(story(model, tmp_path, head=f"lora: [{{file: {one}, scale: 0.5}}]\n"), model=model, out=tmp_path / n)
        for n, one in (("a", file), ("b", other))
    ]
    assert all(film.report["lora"][0]["changed"] == count for film in films)
    assert all(torch.equal(a, b) for a, b in zip(*map(latents, films), strict=True))


def altered(file, place, change):
    """The file with other tensors: `change` gives them by name."""
    made = (change(name, name.partition(".lora_")[0], x) for name, x in load_file(file).items())
    save_file({name: x for tensors in made for name, x in tensors.items()}, place)
    return place


def test_a_plan_says_what_acts_without_torch(case, tmp_path):
    _, model, file, other, count = case
    some = altered(other, tmp_path / "some.safetensors", lambda name, layer, x: {name: x, f"lora_te_{name}": x.clone()})
    board = story(model, tmp_path, head=f"lora: [{{file: {file}}}, {{file: {some}}}]\n")
    code = (
        "import sys, json; import framepack_relax as fr; plan = fr.plan(sys.argv[1]); "
        "print(json.dumps([plan.to_json()['lora'], plan.warnings, 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(board)], capture_output=True, text=True, check=True)
    (whole, part), warnings, torch_is_there = json.loads(done.stdout)
    assert {kind.rpartition(".")[2] for kind in whole["kinds"]} == {"to_q", "to_v"}
    assert not any(character.isdigit() for kind in whole["kinds"] for character in kind.split("attn")[0])
    assert not torch_is_there and whole["changed"] == part["changed"] == part["left"] == count and whole["left"] == 0
    assert part["first_left"].startswith("lora_te_lora_unet_") and "there is no such layer" in part["first_left"]
    assert [warning for warning in warnings if "do not act" in warning and "some.safetensors" in warning]
    shown = here("plan", board)
    assert f"changes {count} layers of the transformer" in shown.stdout and "diffusers.safetensors 1" in shown.stdout


def test_a_file_that_changes_nothing_is_a_mistake_with_its_reason(case, tmp_path):
    _, model, file, *_ = case
    for change, told in (
        (lambda name, layer, x: {name: torch.cat([x, x], 1) if "lora_A" in name else x}, "it is for "),
        (lambda name, layer, x: {name: x, f"{layer}.dora_scale": torch.ones(1)}, "dora_scale is not read"),
        (lambda name, layer, x: {f"{layer}.lokr_w1": x}, "lokr_w1 is not read"),
        (lambda name, layer, x: {f"lora_te1_{name}": x}, "there is no such layer"),
    ):
        other = altered(file, tmp_path / "other.safetensors", change)
        with pytest.raises(StoryboardError) as caught:
            fr.plan(story(model, tmp_path, scene=f", lora: [{{file: {other}}}]"))
        said = str(caught.value)
        assert "scenes[1].lora[0].file: " in said and "matches no layer of the transformer (" in said and told in said
        assert "story.yaml:" in said and "take one that was made for this model" in said


def test_what_a_model_that_is_not_here_would_take_is_not_known(tmp_path, case):
    board = tmp_path / "story.yaml"
    board.write_text(f"model: wan2.1-1.3b\nlora: [{{file: {case[2]}}}]\nscenes: [{{id: a, prompt: x, seconds: 2}}]\n")
    plan = fr.plan(board)
    assert plan.lora[0].changed is None and "not known before" in here("plan", board).stdout


def test_weights_headers_name_the_layers_that_the_network_has(case):
    folder = case[0]
    network = load(str(folder), device="cpu").transformer
    linear = {name: tuple(m.weight.shape) for name, m in network.named_modules() if isinstance(m, torch.nn.Linear)}
    assert linear.items() <= layers_in(folder / "transformer", {}).items()


def test_settings_that_diffusers_writes_decide_the_strength_and_nothing_else(case, tmp_path):
    """`pissa` would take the LoRA out of the model's own weights, for good."""
    folder, _, file, *_ = case
    tensors = load_file(file)
    plain = load(str(folder), device="cpu")
    before = {name: x.clone() for name, x in plain.transformer.state_dict().items()}
    scales = {}
    for name, said in (("a", {}), ("b", {"lora_alpha": 6, "r": 2, "init_lora_weights": "pissa", "use_dora": True})):
        metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in said.items()})}
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata=metadata)
        plain.adapters = (adapter(tmp_path / f"{name}.safetensors", digest=name),)
        plain.place()
        layers = [m for m in plain.transformer.modules() if hasattr(m, "lora_A")]
        scales[name] = {m.scaling[name] for m in layers}
    assert scales == {"a": {1.0}, "b": {3.0}}
    plain.adapters = ()
    plain.place()
    assert all(torch.equal(x, before[name]) for name, x in plain.transformer.state_dict().items())


@pytest.mark.parametrize("seed", range(20))
def test_no_file_brings_a_plan_down(case, tmp_path, seed):
    """Tensors of any name and shape are a Fit or a mistake."""
    drawn, (_, model, file, *_) = random.Random(seed), case
    layers = [name.partition(".lora_")[0] for name in load_file(file)][:3]
    names = [*layers, *layers, "x", "alpha", ".alpha", "lora_unet_", "diffusion_model.blocks.0.self_attn.q.lora_A"]
    ends = ["", ".alpha", ".lora_down.weight", ".lora_up.weight", ".diff_b", ".lora_B.bias", ".weight", "."]
    tensors = {
        drawn.choice(names) + drawn.choice(ends): torch.zeros([drawn.randint(0, 3) for _ in range(drawn.randint(0, 4))])
        for _ in range(16)
    }
    save_file(tensors, tmp_path / "odd.safetensors")
    board = story(model, tmp_path, head="lora: [{file: odd.safetensors}]\n")
    try:
        assert fr.plan(board).lora[0].changed > 0
    except StoryboardError as error:
        assert "odd.safetensors: matches no layer" in str(error)


def test_a_network_in_its_first_programs_names_has_diffusers_layers(tmp_path):
    """Of a file whose weights nobody reads: it is all header."""
    at, said = 0, {}
    for name, shape in TENCENT.items():
        end = at + shape[0] * shape[1]
        said[f"{name}.weight"] = {"dtype": "F8_E4M3", "shape": shape, "data_offsets": [at, end]}
        at = end
    head = json.dumps(said).encode()
    with (tmp_path / "hunyuan_video_fp8.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + at)
    found = layers_in(tmp_path, HunyuanVideo.original)
    assert len(found) == 32 and found.items() <= HUNYUAN_LAYERS.items()
