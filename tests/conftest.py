"""A tiny FramePack folder of the real layout, made once a session from the same builders as the puppet."""

import gc
import math
import os
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["FRAMEPACK_RELAX_CACHE"] = tempfile.mkdtemp(prefix="framepack-relax-cache-")

from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from diffusers.hooks import group_offloading as offloading
from PIL import Image
from training.parts import Sizes, build_pipeline, save_folder

torch.set_num_threads(min(2, torch.get_num_threads()))

PROMPTS = ("a red figure stands still on the beach", "a red figure does a backflip on the beach")
FACTS = {
    "order": "forward",
    "fps": 30,
    "size": [32, 32],
    "guidance": {"embedded": 6.0, "text": 1.0},
    "embedded_guidance": True,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cuda", help="where the tests marked gpu run; cpu rehearses them")


def pytest_collection_finish() -> None:
    """What modules hold stays: the collections that free a film's encoders need not look through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """Of the tests marked gpu."""
    name = str(pytestconfig.getoption("device"))
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device here")
    return name


@pytest.fixture(scope="session")
def cut_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the board that the tests of timelines share."""
    import timelines

    import framepack_relax as fr

    folder = tmp_path_factory.mktemp("film")
    (folder / "story.yaml").write_text(timelines.BOARD)
    return fr.render(folder / "story.yaml", out=folder / "out").folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights, strong enough that conditions matter."""
    pipe = build_pipeline(Sizes.tiny(), seed=5)
    with torch.no_grad():
        for parameter in pipe.transformer.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_folder(pipe, folder, FACTS)
    return folder


@pytest.fixture(scope="session")
def hunyuan(tmp_path_factory) -> Path:
    """A tiny HunyuanVideo folder; it needs no sidecar."""
    torch.manual_seed(7)
    sizes, parts = Sizes.tiny(), build_pipeline(Sizes.tiny(), seed=7).components
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=sizes.rope_axes,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
    shared = {name: parts[name] for name in ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae")}
    folder = tmp_path_factory.mktemp("models") / "hunyuan"
    HunyuanVideoPipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0), **shared
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def helios(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny folder as Helios-Base has it; it needs no sidecar."""
    from wan_folders import helios_folder

    return helios_folder(tmp_path_factory.mktemp("models") / "helios")


@pytest.fixture(scope="session")
def folder_of(tiny: Path, hunyuan: Path, helios: Path, tmp_path_factory: pytest.TempPathFactory):
    """A tiny model of each kind of network, by name; its folder."""
    from wan_folders import experts_folder, wan_folder

    made = {"framepack": tiny, "hunyuanvideo": hunyuan, "helios": helios, "fake": "fake"}

    def find(name: str) -> str:
        place = tmp_path_factory.mktemp("models") / "wan"
        if name not in made:
            made[name] = experts_folder(place, image=True) if name == "wan experts" else wan_folder(place, expand=True)
        return str(made[name])

    return find


@pytest.fixture
def hero(tmp_path: Path) -> Image.Image:
    """A start image of 64x32 px, opened from its file."""
    Image.radial_gradient("L").resize((64, 32)).convert("RGB").save(tmp_path / "hero.png")
    return Image.open(tmp_path / "hero.png")


@pytest.fixture(scope="session")
def model(tiny: Path):
    from framepack_relax.families.loader import load

    return load(str(tiny), device="cpu")


@pytest.fixture(scope="module")
def one_thread():
    """A tiny VAE is 30 times slower with two threads on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def board(tmp_path: Path, tiny: Path):
    """Writes a storyboard with its start image; gives its path."""
    Image.radial_gradient("L").resize((40, 32)).convert("RGB").save(tmp_path / "hero.png")

    def write(scenes: str, head: str = "") -> Path:
        file = tmp_path / "story.yaml"
        file.write_text(f"model: {tiny}\nimage: hero.png\nsteps: 2\n{head}\nscenes:\n{scenes}", encoding="utf8")
        return file

    return write


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Path, model) -> Path:
    """A film of two sections, rendered in one go, in a folder that tests copy."""
    from faults import make_film

    scenes = """
  - {id: calm, prompt: a red figure stands still, seconds: 1.2}
  - {id: flip, prompt: a red figure does a backflip, seconds: 1.2, intensity: 0.9, relax: {target: [context]}}
"""
    return make_film(tmp_path_factory.mktemp("whole"), tiny, model, scenes)


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    """A folder with the storyboard, its image, and a finished film under out/."""
    return shutil.copytree(whole, tmp_path / "place")


@pytest.fixture
def away(monkeypatch):
    """Offloaded weights are NaN while they are away: what uses one out of its turn shows, as it would on a GPU.

    Gives what brings all of them back, where hooks are taken off.
    """
    kept = {}

    def tensors(group):
        inside = [t for module in group.modules for t in (*module.parameters(), *module.buffers())]
        return [t for t in (*inside, *group.parameters, *group.buffers) if t.is_floating_point()]

    def leave(group):
        for tensor in tensors(group):
            if id(tensor) not in kept:
                kept[id(tensor)], tensor.data = (tensor, tensor.data), torch.full_like(tensor.data, math.nan)

    def come(group):
        for tensor in tensors(group):
            tensor.data = kept.pop(id(tensor), (tensor, tensor.data))[1]

    def all_back():
        for tensor, data in kept.values():
            tensor.data = data
        kept.clear()

    monkeypatch.setattr(offloading.ModuleGroup, "_offload_to_memory", leave)
    monkeypatch.setattr(offloading.ModuleGroup, "_onload_from_memory", come)
    return all_back


@pytest.fixture
def ahead(away, monkeypatch):
    """`away`, and blocks come as they do on a GPU: each is asked for while the one before it works."""
    from framepack_relax.families import components

    class Stream:
        def synchronize(self):
            pass

    def apply(module, *, use_stream, offload_type, onload_device, **how):
        how = {"non_blocking": False, "record_stream": False, **how}
        kind = offloading.GroupOffloadingType(offload_type)
        config = offloading.GroupOffloadingConfig(
            onload_device=onload_device, offload_type=kind, stream=Stream(), **how
        )
        offloading._apply_group_offloading(module, config)

    monkeypatch.setattr(offloading.ModuleGroup, "_init_cpu_param_dict", lambda group: {})
    monkeypatch.setattr(components, "apply_group_offloading", apply)
    return away
