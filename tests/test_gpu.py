"""What must hold on a GPU; `--device cpu` rehearses it. scripts/gpu/drill.sh runs it where nothing can be installed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_dispatch import attention_backend
from test_solver import FRAMEPACK, solve

import framepack_relax as fr
from framepack_relax.families.backend import PRESETS
from framepack_relax.families.memory import Demand
from framepack_relax.rendering.loop import FinishedSection

pytestmark = pytest.mark.gpu

SCENES = ("a red figure stands still on the beach", "a red figure does a backflip on the beach")
EDITS = {"plain": {}, "blur": {"blur": 3.0}, "bias": {"history_gain": 0.3}}
BF16 = 0.1  # relative rms after three steps
SMALLEST = 512  # bytes that PyTorch allocates at the least


@pytest.fixture(scope="module")
def load(device, tiny):
    """The packaged model; in a rehearsal a tiny one of the same layout, where weights need not be trained."""
    usual = "puppet" if device == "cuda" else str(tiny)

    def load(name: str = usual, *, device: str = device, dtype: str = "float32", memory: str = "full"):
        return fr.load(name, device=device, dtype=dtype, memory=memory)

    return load


@pytest.fixture
def exact(monkeypatch):
    """fp32 products in fp32 instead of TF32, which cuDNN's convolutions take otherwise."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def stream(model, out: Path, **relax: float) -> Iterator[FinishedSection]:
    """Two scenes of one section each, the second relaxed and with the first as its past."""
    scenes = [
        fr.Scene(id="calm", prompt=SCENES[0], seconds=1.2),
        fr.Scene(id="flip", prompt=SCENES[1], seconds=1.2, relax=fr.Relax(**relax)),
    ]
    image = Path(__file__).parents[1] / "storyboards" / "red-beach.png"
    return fr.stream(scenes, image=str(image), model=model, out=out, steps=3)


def latents(model, out: Path, **relax: float) -> torch.Tensor:
    return torch.cat([done.latents for done in stream(model, out, **relax)], dim=2)


def budget_for(model, blocks: int) -> str:
    """Memory in which so many stay, and not one more."""
    demand = Demand(model=model, context=model.family.context(0, 2), latents=9, size=model.family.size)
    return f"{demand.need(blocks).total}B"


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative root mean square of a difference."""
    return float((a - b).norm() / b.norm())


def test_the_gpu_gives_the_cpus_latents(load, tmp_path, exact):
    """In fp32, to a thousandth: sums in another order, over three steps and two sections."""
    here, there = load(), load(device="cpu")
    assert apart(latents(here, tmp_path / "here"), latents(there, tmp_path / "there")) < 1e-3


def test_bf16_is_near_fp32(load, tmp_path):
    """To a tenth: bf16 keeps eight bits. On a CPU .009 was seen with PyTorch 2.13 and .044 with 2.11."""
    half, single = load("puppet", dtype="bfloat16"), load("puppet")
    assert 0 < apart(latents(half, tmp_path / "half"), latents(single, tmp_path / "single")) < BF16


@pytest.mark.parametrize(("velocity", "steps", "end"), FRAMEPACK)
def test_the_solver_gives_framepacks_numbers_there_too(device, velocity, steps, end):
    x = torch.tensor([1.0, -0.5, 2.0], device=device).view(1, 1, 1, 1, 3)
    assert solve("unipc", velocity, steps, x).flatten().tolist() == pytest.approx(end, abs=1e-5)


def test_encoders_that_come_layer_by_layer_give_the_same_bits(load):
    """As those of a second film do where there is no room for them beside the rest."""
    model, small = load(), load(memory="offload")
    small.preset = "offload"
    texts, others = (each.encode_prompts(SCENES) for each in (model, small))
    assert all(torch.equal(x, others[prompt][name]) for prompt, text in texts.items() for name, x in text.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_presets_give_the_same_bits(load, tmp_path, dtype):
    films = {p: list(stream(load(memory=p, dtype=dtype), tmp_path / p, blur=0.6)) for p in PRESETS}
    model = load(dtype=dtype)
    for blocks in range(0, model.blocks - 2, 3):  # with two more all are there
        model.memory = budget_for(model, blocks)
        films[str(blocks)] = list(stream(model, tmp_path / str(blocks), blur=0.6))
        assert model.placed == blocks
    for name in films.keys() - {"full"}:
        for made, whole in zip(films[name], films["full"], strict=True):
            assert torch.equal(made.latents, whole.latents), name
    for offloaded, tiled in zip(films["offload"], films["tiled"], strict=True):
        assert (offloaded.frames == tiled.frames).all()


@contextmanager
def full_gpu() -> Iterator[None]:
    """No byte more for this process: what is reserved is the limit, and what of it is free is taken."""
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    held = []
    try:
        for size in (1 << 21, 1 << 20, 1 << 14, SMALLEST):
            with suppress(torch.OutOfMemoryError):
                while True:
                    held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        yield
    finally:
        held.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_full_gpu_is_one_message_and_what_is_finished_is_kept(device, load, tmp_path):
    if device != "cuda":
        pytest.skip("fills a GPU")
    whole, model = latents(load(), tmp_path / "whole"), load()
    sections = stream(model, tmp_path / "out")
    next(sections)
    with full_gpu(), pytest.raises(fr.RenderError, match=r"scene flip, section 1: the GPU's memory is full .* is kept"):
        next(sections)
    again = list(stream(model, tmp_path / "out"))
    assert [done.report["reused"] for done in again] == [True, False]
    assert torch.equal(torch.cat([done.latents for done in again], dim=2), whole)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("backend", ["_native_cudnn", "xformers", "_native_math"])
def test_attention_backends_agree_with_native(device, load, tmp_path, backend, edit):
    """In bf16 on a GPU, as near as bf16 is to fp32; in a rehearsal in fp32. Other kernels round otherwise."""
    if device == "cpu" and backend != "_native_math":
        pytest.skip("needs a GPU")
    model = load(dtype="bfloat16" if device == "cuda" else "float32")
    with ExitStack() as stack:
        try:
            stack.enter_context(attention_backend(backend))
        except RuntimeError as error:
            pytest.skip(str(error))  # not installed
        other = latents(model, tmp_path / backend, **EDITS[edit])
    assert apart(other, latents(model, tmp_path / "native", **EDITS[edit])) < (BF16 if device == "cuda" else 1e-3)
