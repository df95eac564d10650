"""What is said of memory before anything is loaded: against what is loaded, and against what lives as it works."""

import json
import shutil
import weakref

import diffusers
import pytest
import torch
from faults import here
from faults import sections as files_of
from PIL import Image
from safetensors.torch import load_file
from test_backend import Shots
from test_backend import board as board_of
from test_lora import adapter, lora_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from wan_folders import experts_folder, wan_folder

import framepack_relax as fr
from framepack_relax.errors import ModelError
from framepack_relax.families.catalog import CATALOG
from framepack_relax.families.components import blocks_of
from framepack_relax.families.loaded import bytes_of
from framepack_relax.families.loader import Loading, load, memory_bytes
from framepack_relax.families.memory import USABLE
from framepack_relax.families.sketch import CARDS, sketch
from framepack_relax.families.wan_vae import going_on
from framepack_relax.planning.planner import make_plan
from framepack_relax.relax.effects import KVBlur
from framepack_relax.rendering.stored import read_tags

REAL = [name for name in CATALOG if CATALOG[name].places]
SPEED = ("full", "tiled", "blocks", "offload", None)


@pytest.fixture(scope="module", params=["framepack", "hunyuanvideo", "wan", "wan experts", "helios", "fake"])
def folder(request, folder_of):
    return folder_of(request.param)


def loras(folder, place):
    """A LoRA of all layers of each transformer's blocks."""
    plain, made = load(folder, device="cpu"), []
    for name, network in plain.networks.items():
        inside = [block for block in network.named_modules() if block[1] in {*blocks_of(network)}]
        layers = [f"{at}.{n}" for at, block in inside for n, x in block.named_modules() if isinstance(x, nn.Linear)]
        file = lora_file(network, place / f"{name}.safetensors", layers=layers, rank=8)
        made.append(adapter(file, network=name, digest=name))
    return tuple(made)


@pytest.mark.parametrize("worn", [False, True], ids=["", "lora"])
@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_what_is_told_beforehand_is_what_the_loaded_model_takes(folder, dtype, worn, tmp_path):
    adapters = loras(folder, tmp_path) if worn and folder != "fake" else ()
    model, drawn = load(folder, device="cpu", dtype=dtype), sketch(folder, dtype, adapters)
    model.adapters = adapters
    model.wear()
    plan = make_plan(board_of(tmp_path, model), model.family)
    asked = plan.largest.context, plan.largest.latents, plan.size
    for placement in ("full", "tiled", "offload", *range(model.blocks)):
        one, other = model.need(*asked, placement), drawn.model.need(*asked, placement)
        assert one.weights == other.weights and one.forward == other.forward
    if model.family.parts:
        parts = [part for part in model.text_parts if part.startswith("text_")]
        assert sum(map(bytes_of, drawn.encoders)) == sum(bytes_of(model._load(part)) for part in parts)
        assert all(weights.is_meta for network in drawn.model.networks.values() for weights in network.parameters())


@pytest.mark.parametrize("name", REAL)
def test_every_card_has_the_fastest_that_fits(name):
    """Of models that are not on this machine, by what is known of them."""
    scene = fr.Scene(id="a", prompt="x", seconds=4.8)
    own = {"image": "storyboards/rooftop.png"} if CATALOG[name].family.image == "required" else {}
    by_dtype = {}
    for choice in fr.memory([scene], model=name, **own):
        by_dtype.setdefault(choice.dtype, []).append(choice)
    assert set(by_dtype) == {"bfloat16", "fp8"}
    for rows in by_dtype.values():
        presets, cards = rows[:3], rows[3:]
        assert [row.memory for row in presets] == ["full", "tiled", "offload"]
        assert [row.card for row in cards] == [*CARDS]
        sums = [row.need.total for row in presets]
        assert sums == sorted(sums, reverse=True)
        kinds = ["blocks" if row.memory and "blocks" in row.memory else row.memory for row in cards]
        assert kinds == sorted(kinds, key=SPEED.index, reverse=True), "a larger card is no slower"
        for row, kind in zip(cards, kinds, strict=True):
            limit = USABLE * row.card * 1e9
            faster = presets[: ("full", "tiled").index(kind)] if kind in ("full", "tiled") else presets[:2]
            assert all(other.need.total > limit for other in faster)
            assert presets[2].need.total > limit if kind is None else row.need.total <= limit
            assert row.streamed == (kind == "offload" or row.encoders > limit)
    assert by_dtype["fp8"][0].need.weights < 0.7 * by_dtype["bfloat16"][0].need.weights


def test_the_real_models_have_the_weights_that_are_published():
    """Billions of the transformers', and of UMT5-XXL's encoder and Llama 3's layers."""
    billions = {
        "framepack-f1": (12.87, 7.6), "hunyuanvideo": (12.82, 7.6), "wan2.2-5b": (5.0, 5.68),
        "wan2.2-a14b": (28.6, 5.68), "wan2.2-svi": (28.6, 5.68), "wan2.1-1.3b": (1.42, 5.68), "helios": (14.3, 5.68),
    }  # fmt: skip
    for name, (own, text) in billions.items():
        drawn = sketch(name, "bfloat16")
        counted = [sum(w.numel() for network in drawn.model.networks.values() for w in network.parameters())]
        counted.append(sum(w.numel() for network in drawn.encoders for w in network.parameters()))
        assert [count / 1e9 for count in counted] == pytest.approx([own, text], rel=0.02), name


def test_a_model_that_nobody_knows_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="hf download nobody/wan"):
        fr.memory([fr.Scene(id="a", prompt="x", seconds=2)], model="nobody/wan")


def test_of_damaged_weights_the_command_names_the_folder(board, tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "damaged")
    for file in (folder / "transformer").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    said = here("plan", board("  - {id: a, prompt: x, seconds: 1.2}"), "--model", folder, "--memory")
    assert said.returncode == 2 and f"{folder / 'transformer'}: the transformer cannot be read" in said.stderr


def test_the_command_tells_it_without_weights(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    story = tmp_path / "a.yaml"
    story.write_text("model: framepack-f1\nimage: a.png\nscenes:\n  - {id: a, prompt: x, seconds: 1.2}\n")
    said = here("plan", story, "--memory")
    assert said.returncode == 0 and "by estimate, in GB" in said.stdout and "of 60 blocks" in said.stdout, said.stderr
    made = json.loads(here("plan", story, "--memory", "--json", "--dtype", "fp8").stdout)
    assert made["sections"] and len(made["memory"]) == 3 + len(CARDS)
    row = made["memory"][0]
    assert row["total"] == row["need"]["weights"] + max(row["need"]["forward"], row["need"]["decode"])


def test_a_boards_lora_are_counted_and_those_that_are_not_here_are_named(tmp_path):
    folder = wan_folder(tmp_path / "wan", expand=False)
    file = lora_file(load(str(folder), device="cpu").transformer, tmp_path / "a.safetensors")
    scene = "scenes: [{id: a, prompt: x, seconds: 1, lora: [{file: a.safetensors}]}]\n"
    (tmp_path / "a.yaml").write_text(f"model: {folder}\nsize: [64, 32]\nlora: [{{file: some/where}}]\n{scene}")
    (tmp_path / "b.yaml").write_text(f"model: {folder}\nsize: [64, 32]\nscenes: [{{id: a, prompt: x, seconds: 1}}]\n")
    rows, plain = (fr.memory(tmp_path / name, dtype="bfloat16") for name in ("a.yaml", "b.yaml"))
    taken = 2 * sum(x.numel() for x in load_file(file).values())
    assert rows[0].need.weights - plain[0].need.weights == taken
    said = here("plan", tmp_path / "a.yaml", "--memory").stdout
    assert "not on this machine are not counted: some/where" in " ".join(said.split())


def test_a_render_keeps_to_the_amount_that_it_is_given(tmp_path):
    """As many blocks stay as that takes, the report says so, and the latents are the same."""
    folder = str(experts_folder(tmp_path / "wan", image=False))
    plain = load(folder, device="cpu")
    story = board_of(tmp_path, plain, 1)
    plan = make_plan(story, plain.family)
    made = {}
    for blocks in (0, 1):
        need = plain.need(plan.largest.context, plan.largest.latents, plan.size, blocks).total
        asked = {"device": "cpu", "memory": f"{need}B", "compile": True}
        made[blocks] = fr.render(story, out=tmp_path / str(blocks), model=load(folder, **asked))
        assert made[blocks].report["memory"] == f"{blocks} of 4 blocks" and not made[blocks].report["compiled"]
        tags = [json.loads(read_tags(file)["made"]) for file in made[blocks].folder.rglob("shots/*/*.safetensors")]
        assert tags and not any("compile" in tag for tag in tags)
        again = fr.preview(story, out=made[blocks].folder, model=folder, strict=True, **asked)
        assert all(verdict.why is None for verdict in again)
    whole = fr.render(story, out=tmp_path / "whole", model=plain)
    assert files_of(whole.folder) == files_of(made[0].folder) == files_of(made[1].folder)


@pytest.mark.parametrize("amount", ["7,5GiB", "3.7.1GiB", "20GiB;", "20 GiB of it", "20-GiB", "-1GiB", "\uff11GiB", ""])
def test_what_only_begins_like_an_amount_is_none(amount):
    with pytest.raises(ModelError, match=r"memory=.*: unknown; use auto,"):
        Loading(name="fake", memory=amount)
    assert [memory_bytes(like) for like in ("7.5GiB", "7.5 gib", "20GB")] == [7.5 * 2**30, 7.5 * 2**30, 20e9]


def test_an_amount_that_is_none_is_refused_before_anything_is_made(board, tmp_path):
    story = board("  - {id: a, prompt: x, seconds: 1.2}")
    for command in (("render", story), ("batch", story)):
        done = here(*command, "--out", tmp_path / "out", "--device", "cpu", "--memory", "20 parsecs")
        assert (done.returncode, done.stdout) == (2, "") and "memory=20 parsecs: unknown; use auto," in done.stderr
    assert not (tmp_path / "out").exists()


# --- against what lives as it works -----------------------------------------------------------------------------------


class Live(TorchDispatchMode):
    """The most bytes that live at a time of tensors that are made within it."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.made, self.before = {}, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for given in self.storages((args, kwargs)):
            if id(given) not in self.made:
                self.before[id(given)] = given
        out = func(*args, **(kwargs or {}))
        for storage in self.storages(out):
            if id(storage) not in self.made and id(storage) not in self.before:
                self.made[id(storage)] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self.gone, id(storage))
        self.most = max(self.most, self.now)
        return out

    @staticmethod
    def storages(tree):
        return [x.untyped_storage() for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]

    def gone(self, key):
        self.now -= self.made.pop(key)


WIDE = {"num_attention_heads": 16, "num_layers": 1}
VAES = {
    "AutoencoderKLHunyuanVideo": {"block_out_channels": [16, 32, 64, 64], "norm_num_groups": 16, "layers_per_block": 2},
    "AutoencoderKLWan": {"base_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2},
}


def widened(folder, place, part):
    """A family's model whose transformers, or whose VAE, are as wide beside what they take as the real ones."""
    if folder == "fake":
        pytest.skip("no networks")
    for file in shutil.copytree(folder, place).glob(f"{part}*/config.json"):
        said = json.loads(file.read_text())
        width = WIDE["num_attention_heads"] * said.get("attention_head_dim", 0)
        said |= VAES.get(said["_class_name"]) or WIDE | ({"ffn_dim": int(2.7 * width)} if "ffn_dim" in said else {})
        getattr(diffusers, said["_class_name"]).from_config(said).save_pretrained(file.parent)
    return load(str(place), device="cpu", dtype="bfloat16")


BLUR = (KVBlur(sigma=0.6),)


@pytest.mark.parametrize(("worn", "effects"), [(False, ()), (True, ()), (False, BLUR)], ids=["", "lora", "blur"])
def test_a_pass_holds_what_is_told(folder, worn, effects, tmp_path, one_thread):
    wide = widened(folder, tmp_path / "wide", "transformer")
    wide.adapters = loras(str(tmp_path / "wide"), tmp_path) if worn else ()
    size = (32 * wide.family.spatial, 16 * wide.family.spatial)
    Image.new("RGB", size, "red").save(tmp_path / "red.png")
    image = {"image": str(tmp_path / "red.png")} if wide.family.image == "required" else {}
    shots = Shots(wide, board_of(tmp_path, wide, size=size, **image))
    section = shots.plan.sections[-1]
    noise = shots.noise(section)
    inputs = shots.begin(section, noise, {place: torch.randn_like(noise) for place in section.context.needs})
    wide.place()
    with wide.acting(effects, inputs), Live() as live:
        wide.predict(noise, section.steps[0], section.steps[0].branches[0], inputs)
    told = wide.need(section.context, section.latents, size, "full").forward
    assert live.most == pytest.approx(told, rel=0.15)


def test_a_decode_holds_what_is_told(folder, tmp_path, one_thread):
    """Of whole pictures, with what it keeps from section to section."""
    wide = widened(folder, tmp_path / "wide", "vae")
    side = wide.family.spatial
    plan = make_plan(board_of(tmp_path, wide, size=(12 * side, 8 * side)), wide.family)
    start = torch.randn(1, wide.latent_channels, 1, 8, 12) if wide.family.kind == "framepack" else None
    decoder = wide.decoder("stream", start, 2, plan.options)
    with Live() as live:
        for _ in range(2):
            decoder.push(torch.randn(1, wide.latent_channels, 3, 8, 12))
    assert live.most == pytest.approx(wide.need(plan.largest.context, 9, plan.size, "full").decode, rel=0.15)


def test_a_decode_in_tiles_holds_what_is_told(tiny, tmp_path, one_thread):
    """Of FramePack's decoder, which keeps the most; what tiles keep that are not at work lies elsewhere on a GPU."""
    wide = widened(tiny, tmp_path / "wide", "vae")
    wide.vae.use_tiling = True
    wide.vae.tile_sample_min_height = wide.vae.tile_sample_min_width = 64
    wide.vae.tile_sample_stride_height = wide.vae.tile_sample_stride_width = 48
    decoder = wide.decoder("stream", torch.randn(1, 4, 1, 12, 16), 2, {})
    with Live() as live:
        for _ in range(2):
            decoder.push(torch.randn(1, 4, 3, 12, 16))
    kept = [x.nbytes for x in tree_leaves([tile.kept for tile in decoder.tiles]) if torch.is_tensor(x)]
    count = len(decoder.tiles)
    held = live.most - sum(kept) * (count - 1) / count
    assert count == 6 and held == pytest.approx(wide.decode_bytes((128, 96), tiled=True), rel=0.15)


def wan_peak(vae, latents):
    """Bytes at the most of two sections' decode, without what tiles keep that are not at work; and how many tiles."""
    tiles = []
    with torch.no_grad(), Live() as live:
        for _ in range(2):
            with going_on(vae, tiles, vae.device) as turn:
                turn(latents)
    kept = [sum(x.nbytes for x in tile if torch.is_tensor(x)) for tile in tiles]
    return live.most - (sum(kept) - max(kept)) * vae.use_tiling, sum(map(bool, kept))


def test_wans_decode_in_tiles_holds_what_is_told(folder_of, tmp_path, one_thread):
    wide = widened(folder_of("helios"), tmp_path / "wide", "vae")
    side, vae = wide.family.spatial, wide.vae
    vae.use_tiling = True
    vae.tile_sample_min_height = vae.tile_sample_min_width = 8 * side
    vae.tile_sample_stride_height = vae.tile_sample_stride_width = 6 * side
    held, count = wan_peak(vae, torch.randn(1, wide.latent_channels, 3, 8, 12, dtype=vae.dtype))
    assert count == 4 and held == pytest.approx(wide.decode_bytes((12 * side, 8 * side), tiled=True), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("name", ["wan2.1-1.3b", "wan2.2-5b"])
def test_the_real_vaes_of_wan_hold_what_is_told(name, tiled):
    """Of their published configs, on the meta device; a video of 640x384."""
    model = sketch(name, "bfloat16").model
    vae, side, size = model.vae, model.family.spatial, (640, 384)
    vae.use_tiling = tiled
    latents = torch.empty(1, model.latent_channels, 3, size[1] // side, size[0] // side, dtype=vae.dtype, device="meta")
    held, _ = wan_peak(vae, latents)
    assert held == pytest.approx(model.decode_bytes(size, tiled=tiled), rel=0.15)


@pytest.mark.parametrize("command", [("render",), ("batch", "--workers", "1")])
def test_an_amount_that_is_too_small_has_the_exit_code_of_a_full_memory(board, tmp_path, command):
    story = board("  - {id: a, prompt: x, seconds: 1.2}")
    done = here(*command, story, "--out", tmp_path / "out", "--device", "cpu", "--memory", "1KiB")
    assert done.returncode == 3 and "memory=1KiB: memory=offload takes about" in done.stdout + done.stderr
