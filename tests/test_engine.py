"""Attention kernels and compilation: what is asked for is what runs, and what does not go together is told before."""

import json
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from diffusers.models import attention_dispatch
from faults import here, sections
from PIL import Image
from safetensors.torch import load_file
from torch._dynamo.utils import counters

import framepack_relax as fr
from framepack_relax.errors import ModelError
from framepack_relax.families import components
from framepack_relax.families.catalog import CATALOG
from framepack_relax.families.engine import ATTENTION, EXCLUSIONS, Kernels, excluded
from framepack_relax.families.loader import Loading
from framepack_relax.rendering.carry import provenance
from framepack_relax.rendering.session import USUAL, settle
from framepack_relax.rendering.stored import read_tags

DYNAMIC = {"target": ["context"], "beta": 0.5, "blur": 0.6}


def scenes(**relax):
    return [
        fr.Scene(id="calm", prompt="a red figure stands still on the beach", seconds=1.2),
        fr.Scene(id="flip", prompt="a red figure does a backflip", seconds=1.2, intensity=0.9, relax=DYNAMIC | relax),
    ]


@pytest.fixture
def film(tmp_path):
    """Renders the two scenes with a model; gives the film and its sections' latents."""
    Image.new("RGB", (32, 32), "navy").save(tmp_path / "a.png")

    def make(name, model, **relax):
        made = fr.render(scenes(**relax), model=model, image=tmp_path / "a.png", out=tmp_path / name, steps=3)
        files = sorted((made.folder / "shots" / "00").glob("0*.safetensors"))
        return made, [load_file(file)["latents"] for file in files]

    return make


def test_diffusers_knows_all_these_kernels():
    names = {name.value for name in attention_dispatch.AttentionBackendName}
    assert set(ATTENTION) <= names and not any(name.endswith("_hub") for name in ATTENTION)


@pytest.mark.parametrize(("name", "tolerance"), [("native", 0.0), ("_native_math", 1e-4), ("_native_flash", 1e-4)])
def test_kernels_that_are_asked_for_run_and_are_told(tiny, model, film, name, tolerance, monkeypatch):
    chosen = fr.load(tiny, device="cpu", attention=name)
    used = []
    for kind, function in list(attention_dispatch._AttentionBackendRegistry._backends.items()):

        def counted(*args, kind=kind, function=function, **given):
            used.append(kind.value)
            return function(*args, **given)

        monkeypatch.setitem(attention_dispatch._AttentionBackendRegistry._backends, kind, counted)
    made, latents = film("own", chosen)
    assert set(used) == {name}
    assert made.report["attention"] == name
    _, plain = film("plain", model)
    assert set(used) == {name, "native"}, "a model's kernels are its own"
    assert max((a - b).abs().max().item() for a, b in zip(latents, plain, strict=True)) <= tolerance


def test_other_kernels_undo_nothing_and_are_told_as_another_device_is(tiny, model, film):
    made, _ = film("out", model)
    before = sections(made.folder)
    other = Loading(name=str(tiny), device="cpu", attention="_native_math")
    session = settle(fr.read(made.folder / "story.yaml"), made.folder, other, USUAL)
    said = session.verdicts(session.folder(print))
    assert all(verdict.why is None and "attention" in verdict.note for verdict in said)
    film("out", other.load())
    assert sections(made.folder) == before


def test_xformers_is_reached_with_the_shapes_that_it_takes(tiny, film, monkeypatch):
    """By a stand-in that computes the same: [B, L, N, H], and a bias whose strides it would take."""
    calls = []

    def attend(query, key, value, attn_bias=None, p=0.0, scale=None, **given):
        calls.append((query.shape, key.shape, value.shape, None if attn_bias is None else attn_bias.shape))
        if attn_bias is not None:
            assert attn_bias.stride(-2) % 8 == 0 and attn_bias.shape[:2] == (1, query.shape[2])
        rows = (x.transpose(1, 2) for x in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(*rows, attn_mask=attn_bias).transpose(1, 2)

    monkeypatch.setitem(ATTENTION, "xformers", Kernels(cpu=("float32",)))
    monkeypatch.setattr(attention_dispatch, "_CAN_USE_XFORMERS_ATTN", True)
    monkeypatch.setattr(
        attention_dispatch, "xops", types.SimpleNamespace(memory_efficient_attention=attend), raising=False
    )
    _, latents = film("xformers", fr.load(tiny, device="cpu", attention="xformers"), history_gain=0.5)
    _, plain = film("plain", fr.load(tiny, device="cpu"), history_gain=0.5)
    assert {len(shape) for call in calls for shape in call[:3]} == {4}
    assert {call[3] is None for call in calls} == {True, False}
    assert max((a - b).abs().max().item() for a, b in zip(latents, plain, strict=True)) <= 1e-4


@pytest.mark.skipif("xformers" in sys.modules, reason="it is installed")
@pytest.mark.parametrize("name", ["xformers", "sage", "flash"])
def test_a_missing_package_is_named_with_the_cure(tiny, name):
    with pytest.raises(ModelError, match=rf"attention={name}.*install"):
        fr.load(tiny, device="cpu", attention=name)


@pytest.mark.skipif("sageattention" in sys.modules, reason="it is installed")
@pytest.mark.parametrize("how", [(), ("--dry-run",)])
def test_a_batch_of_any_size_names_a_missing_package_once_and_begins_nothing(board, tmp_path, how):
    file, out = board("- {id: a, prompt: a, seconds: 1.2}"), tmp_path / "out"
    file.with_name("other.yaml").write_text(file.read_text())
    ran = here("batch", file, file.with_name("other.yaml"), "--out", out, "--attention", "sage", "--workers", "1", *how)
    assert ran.returncode == 2 and ran.stderr.count("attention=sage") == 1 and not out.exists()


@pytest.mark.skipif("sageattention" in sys.modules, reason="it is installed")
def test_commands_for_other_machines_may_ask_for_what_is_not_here(board, tmp_path):
    file = board("- {id: a, prompt: a, seconds: 1.2}")
    ran = here("batch", file, "--out", tmp_path / "out", "--attention", "sage", "--emit", "commands")
    assert ran.returncode == 0 and "--attention sage" in ran.stdout, ran.stderr
    ran = here("batch", file, "--out", tmp_path / "out", "--attention", "saga", "--emit", "commands")
    assert ran.returncode == 2 and "attention=saga: unknown" in ran.stderr


@pytest.mark.parametrize("name", ["_native_cudnn", "_native_efficient", "_native_flash", "_native_math", "native"])
def test_kernels_are_refused_just_where_they_would_not_run(tiny, board, tmp_path, name):
    query = torch.ones(1, 4, 2, 16)
    try:
        with attention_dispatch.attention_backend(name):
            attention_dispatch.dispatch_attention_fn(query, query, query)
        runs = True
    except (RuntimeError, ValueError):
        runs = False
    file, out = board("- {id: a, prompt: a, seconds: 1.2}"), tmp_path / "out"
    loading = Loading(name=str(tiny), device="cpu", attention=name)
    assert bool(list(excluded(loading, ()))) is not runs
    if runs:
        return
    with pytest.raises(ModelError, match=rf"attention={name}.*cpu in float32.*cuda"):
        fr.load(tiny, device="cpu", attention=name)
    for command in (["render"], ["batch", "--workers", "1"]):
        ran = here(*command, file, "--device", "cpu", "--attention", name, "--out", out)
        assert ran.returncode == 2 and f"attention={name} does not go with cpu in float32" in ran.stderr
        assert not list(out.rglob("*.safetensors"))


def test_kernels_of_half_precision_are_refused_in_float32():
    for name, kernels in ATTENTION.items():
        for dtype in ("float32", "bfloat16", "fp8"):
            loading = Loading(name="framepack", device="cuda", dtype=dtype, attention=name, away=True)
            assert bool(list(excluded(loading, ()))) is (dtype not in kernels.cuda)


@pytest.mark.parametrize("asked", [3, ["native"], "", b"native"])
def test_what_is_no_name_of_kernels_is_told(tiny, asked):
    with pytest.raises(ModelError, match=r"attention=.*: unknown; "):
        fr.load(tiny, attention=asked)


def test_a_dry_run_says_what_the_same_render_does(board, tmp_path):
    file, out = board("- {id: a, prompt: a, seconds: 1.2}"), tmp_path / "out"
    command = ("render", file, "--out", out, "--device", "cpu")
    assert here(*command).returncode == 0
    assert "1 of 1 sections are kept" in here(*command, "--strict", "--dry-run").stdout
    said = here(*command, "--strict", "--dry-run", "--attention", "_native_math").stdout
    assert "0 of 1" in said and "attention" in said
    for slip in (("--attention", "xformer"), ("--memory", "20 parsecs"), ("--attention", "_native_cudnn")):
        assert here(*command, "--dry-run", *slip).returncode == 2


def test_a_plan_says_what_does_not_go_together_as_the_render_does(board):
    file = board("- {id: a, prompt: a, seconds: 1.2, intensity: 0.9, relax: {history_gain: 0.5}}")
    for asked in ("_native_flash", "_native_cudnn", "xformer"):
        said = [here(command, file, "--device", "cpu", "--attention", asked) for command in ("plan", "render")]
        assert [ran.returncode for ran in said] == [2, 2] and said[0].stderr == said[1].stderr, asked
    ran = here("plan", file, "--device", "cpu", "--compile", "--dtype", "fp8")
    assert ran.returncode == 0 and "fp8 or int8, or come for their turn, are not compiled" in ran.stderr
    for fine in (["--attention", "native"], ["--compile"]):
        assert "compiled" not in here("plan", file, "--device", "cpu", *fine).stderr


def test_the_docs_say_of_every_kernel_what_it_does_not_go_with():
    """The rows of the table in docs/memory.md."""
    table = Path(__file__).parent.parent.joinpath("docs", "memory.md").read_text(encoding="utf8")
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]

    def named(by):
        return {name for this, what in rows if by in what for name in re.findall(r"`(\w+)`", this) if name in ATTENTION}

    wrong = {
        "history_gain": lambda kernels: not kernels.masks,
        "hunyuanvideo": lambda kernels: not kernels.masks,
        "the CPU": lambda kernels: not kernels.cpu,
        "`float32`": lambda kernels: "float32" not in kernels.cuda,
    }
    for words, rule in wrong.items():
        assert named(words) == {name for name, kernels in ATTENTION.items() if rule(kernels)}, words


def test_unknown_kernels_are_told_wherever_they_are_asked_for(tiny, board):
    with pytest.raises(ModelError, match="xformers"):
        fr.load(tiny, attention="xformer")
    file = board("- {id: a, prompt: a, seconds: 1.2}")
    for command in ("render", "batch"):
        ran = here(command, file, "--device", "cpu", "--attention", "xformer")
        assert ran.returncode == 2 and "xformers" in ran.stderr


def test_what_does_not_go_together_is_told_before_weights_are_read(tiny, tmp_path, film):
    with pytest.raises(ModelError, match="history_gain"):
        film("out", Loading(name=str(tiny), device="cpu", attention="_native_flash"), history_gain=0.5)
    assert not (tmp_path / "out").exists()
    away = {"name": "hunyuanvideo", "device": "cuda", "away": True}
    assert "mask" in str(list(excluded(Loading(**away, attention="sage"), ())))
    assert not list(excluded(Loading(**away, attention="xformers"), ()))
    assert list(excluded(Loading(name="puppet", device="cpu", compile=True, ranks=2), ()))
    for name, entry in CATALOG.items():
        loading = Loading(name=name, device="cpu")
        assert not [rule for rule in EXCLUSIONS if rule.found(loading, ("kv_blur", "key_gain"))], entry


def test_blocks_are_compiled_once_with_effects_and_once_without(tiny, model, film, monkeypatch):
    """By dynamo alone; what its graphs are compiled with is another matter."""
    monkeypatch.setattr(components, "COMPILER", "eager")
    torch._dynamo.reset()
    counters.clear()
    chosen = fr.load(tiny, device="cpu", compile=True)
    made, latents = film("compiled", chosen)
    _, plain = film("plain", model)
    assert all(torch.equal(a, b) for a, b in zip(latents, plain, strict=True))
    assert made.report["compiled"]
    kinds = {type(block) for block in components.blocks_of(chosen.transformer)}
    assert counters["stats"]["unique_graphs"] == 2 * len(kinds)
    for nth, relax in enumerate(({"beta": 0.75}, {"blur": 0.9}, {"p": 2, "experimental": {"over_steps": "follow"}})):
        film(f"other{nth}", chosen, **relax)
    assert counters["stats"]["unique_graphs"] == 2 * len(kinds)
    for nth, gain in enumerate((0.5, 0.3, 2.0)):
        film(f"gain{nth}", chosen, history_gain=gain)
    assert counters["stats"]["unique_graphs"] == 3 * len(kinds)
    assert not counters["graph_break"]


def test_a_film_of_more_kinds_than_pytorch_keeps_graphs_for_is_made_all_the_same(tiny, model, film, monkeypatch):
    monkeypatch.setattr(components, "COMPILER", "eager")
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=1):
        _, latents = film("compiled", fr.load(tiny, device="cpu", compile=True))
    _, plain = film("plain", model)
    assert all(torch.equal(a, b) for a, b in zip(latents, plain, strict=True))


@pytest.mark.parametrize("how", [{"memory": "offload"}, {"dtype": "fp8"}])
def test_nothing_is_compiled_while_weights_come_for_their_turn_or_lie_in_less(tiny, film, monkeypatch, how):
    monkeypatch.setattr(components, "COMPILER", "eager")
    counters.clear()
    made, _ = film("out", fr.load(tiny, device="cpu", compile=True, **how))
    assert not made.report["compiled"] and not counters["stats"]
    for file in (made.folder / "shots").rglob("*.safetensors"):
        assert "compile" not in json.loads(read_tags(file)["made"])
    asked = {"device": "cpu", "model": str(tiny), "out": made.folder, "strict": True, "attention": "native"}
    for compile in (True, False):
        said = fr.preview(made.folder / "story.yaml", compile=compile, **asked, **how)
        assert all(verdict.why is None and not verdict.note for verdict in said)


@pytest.mark.parametrize("compiles", [True, False])
def test_a_film_says_whether_it_was_compiled_where_that_follows_from_the_memory(tiny, film, monkeypatch, compiles):
    monkeypatch.setattr(components, "COMPILER", "eager")
    asked = {"device": "cpu", "memory": "20GiB", "compile": True, "dtype": "float32" if compiles else "fp8"}
    made, _ = film("out", fr.load(tiny, **asked))
    assert made.report["compiled"] is compiles and provenance(made.path).get("compile", False) is compiles


@pytest.mark.soak
def test_inductor_makes_nearly_the_same_film(tiny, model, film):
    torch._dynamo.reset()
    _, latents = film("compiled", fr.load(tiny, device="cpu", compile=True))
    _, plain = film("plain", model)
    assert max((a - b).abs().max().item() for a, b in zip(latents, plain, strict=True)) <= 1e-3
