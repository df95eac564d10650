"""`relaxed(pipe)` on diffusers' own pipelines: their loop with eq. 2 in the scale's place, and nothing left behind."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    AdaptiveProjectedMixGuidance,
    ClassifierFreeGuidance,
    DiffusionPipeline,
    HeliosPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoPipeline,
    TangentialClassifierFreeGuidance,
    WanPipeline,
)
from diffusers.pipelines.helios import pipeline_helios
from diffusers.utils.torch_utils import randn_tensor
from peft import LoraConfig
from shots import sample_shot
from stock import CASES, PICTURE, STEPS, WORDS, S, eq2, hunyuan, hunyuan15
from wan_folders import wan_folder

from framepack_relax import relaxed
from framepack_relax.errors import ModelError, StoryboardError
from framepack_relax.families.backend import Start
from framepack_relax.families.loader import load
from framepack_relax.families.stock.call import attentions_of
from framepack_relax.planning.planner import make_plan
from framepack_relax.relax.unlearning import mixing_matrix
from framepack_relax.storyboard import Scene, storyboard_from_scenes

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("error:relaxed", "ignore:Initializing zero-element"),
]
CLOSE = 2e-6  # of the norm, float32: u' has one rounding more than u
CONSTANT = {"schedule": "interval", "interval": (0.0, 1e-9)}  # relaxes at every sigma as at 1


@pytest.fixture(scope="module", params=CASES)
def case(request):
    torch.manual_seed(7)
    return CASES[request.param]()


@pytest.fixture(scope="module")
def words():
    torch.manual_seed(7)
    return CASES["HunyuanVideo"]()


@pytest.fixture(scope="module")
def wan():
    torch.manual_seed(7)
    return CASES["Wan"]()


def far(made, wanted):
    """Of the norm."""
    assert made.shape == wanted.shape and torch.isfinite(made).all()
    return ((made - wanted).norm() / wanted.norm()).item()


def state(pipe):
    """What a block could leave changed: classes, hooks, processors, and a guider's scale."""
    networks = [net for net in (pipe.transformer, getattr(pipe, "transformer_2", None)) if net is not None]
    guider = getattr(pipe, "guider", None)
    hooks = [(len(net._forward_hooks), len(net._forward_pre_hooks)) for net in networks]
    attentions = [attention.processor for net in networks for attention in attentions_of(net)]
    return type(pipe), hooks, attentions, type(guider), getattr(guider, "guidance_scale", None)


def test_it_is_the_pipelines_own_loop_with_eq_2_in_the_place_of_its_scale(case):
    for target in case.source:
        others, before = case.only(target), state(case.pipe)
        plain = case(**others)
        with relaxed(case.pipe, target=target, beta=0.75):
            made = case(**others)
        wanted = case.by_hand(target)
        bits = target == "embedded" or not case.scales  # of a network's input and of a guider there is nothing to undo
        assert torch.equal(made, wanted) if bits else far(made, wanted) < CLOSE
        assert far(made, plain) > 0.01
        assert state(case.pipe) == before and torch.equal(case(**others), plain)


def test_relaxed_alike_at_every_sigma_it_is_the_pipeline_called_with_that_scale(case):
    for target in case.source:
        others, argument = case.only(target), case.scales.get(target)
        with relaxed(case.pipe, target=target, beta=0.5, min=2, experimental=CONSTANT):
            made = case(**others)
        if argument is None:
            case.pipe.guider.guidance_scale = 3.5
        wanted = case(**others, **({argument: 3.5} if argument else {}), **second(case, 2.5))
        if argument is None:
            case.pipe.guider.guidance_scale = S
        assert torch.equal(made, wanted) if target == "embedded" or not argument else far(made, wanted) < CLOSE


def second(case, scale):
    return {"guidance_scale_2": scale} if "guidance_scale_2" in case.given else {}


def test_at_rest_it_is_the_pipeline_to_the_bit(case):
    plain = case()
    with relaxed(case.pipe, beta=0, blur=0):
        assert torch.equal(case(), plain)


@pytest.mark.parametrize("name", sorted({*CASES} - {"FramePack F1", "Helios", "SkyReels-V2, long"}))
def test_blurred_values_are_those_of_the_projection_mixed_over_time(name):
    """Values have neither norm nor RoPE, so that a hook on their projection is the same blur; and V is not K.

    FramePack and Helios, whose tokens lie on several grids, are compared with our own loop below.
    """
    torch.manual_seed(7)
    case, made = CASES[name](), {}
    pipe, before = case.pipe, state(case.pipe)
    for of in ("v", "k"):
        with relaxed(pipe, blur=0.6, experimental={"blur_of": of}):
            made[of] = case()
    assert state(pipe) == before
    plain, frames = case(), case().shape[2]
    mixing, clean = mixing_matrix(range(frames), 0.6).float(), name in ("HunyuanVideo image", "Wan TI2V image")
    mixing[:clean] = torch.eye(frames)[:clean]  # the image is no frame of the section

    joint = [block.attn.to_v for block in getattr(pipe.transformer, "single_transformer_blocks", ())]

    def mixed(module, args, x):
        video, text = x.split([x.shape[1] - WORDS, WORDS], dim=1) if module in joint else (x, x[:, :0])
        video = torch.einsum("rf,bfnd->brnd", mixing, video.unflatten(1, (frames, -1))).flatten(1, 2)
        return torch.cat([video, text], dim=1)

    networks = [net for net in (pipe.transformer, getattr(pipe, "transformer_2", None)) if net is not None]
    hooks = [a.to_v.register_forward_hook(mixed) for net in networks for a in attentions_of(net)]
    try:
        wanted = case()
    finally:
        for hook in hooks:
            hook.remove()
    assert far(made["v"], wanted) < CLOSE and far(made["v"], plain) > 1e-3
    assert far(made["k"], plain) > 1e-5 and far(made["k"], wanted) > 1e-4


RELAX = {
    "beta": 0.75,
    "p": 1.0,
    "min": 1.5,
    "blur": 0.6,
    "scope": "all",
    "history_gain": 0.5,
    "history_gain_above": 0.5,
}
PROMPTS = ("a red figure waves on the beach", "the figure")


def planned(model, seconds, relax, size, **fields):
    scene = Scene(id="a", prompt=PROMPTS[0], negative_prompt=PROMPTS[1], seconds=seconds, relax=relax)
    return make_plan(storyboard_from_scenes([scene], size=size, steps=STEPS, **fields), model.family)


def called(pipe, size, frames, **given):
    pipe.set_progress_bar_config(disable=True)
    words = {"prompt": PROMPTS[0], "negative_prompt": PROMPTS[1], "width": size[0], "height": size[1]}
    frames = pipe(**words, num_frames=frames, num_inference_steps=STEPS, output_type="latent", **given).frames
    return frames[-1] if isinstance(frames, list) else frames


def sampled(model, plan, noise, start=None):
    texts = model.encode_prompts(PROMPTS)
    made = sample_shot(model, plan, start=start, prompt=texts[PROMPTS[0]], negative=texts[PROMPTS[1]], noise=noise)
    return torch.cat([made[place].latents for place in range(len(made))], dim=2)


@pytest.mark.parametrize("order", ["forward", "inverted"])
def test_on_framepack_it_is_our_own_loop(tiny, tmp_path, order):
    """Both targets, blur and gain on the past, over two sections."""
    pipe, model = (
        HunyuanVideoFramepackPipeline.from_pretrained(tiny, dtype=torch.float32),
        load(str(tiny), device="cpu"),
    )
    PICTURE.save(tmp_path / "start.png")
    relax, size = {**RELAX, "target": ["embedded", "text"]}, PICTURE.size
    own = {"image": str(tmp_path / "start.png"), "framepack": {"order": order}, "sampler": "euler"}
    plan = planned(model, 2.4, relax, size, guidance={"embedded": 6.0, "text": 4.0}, **own)
    given = {"image": PICTURE, "guidance_scale": 6.0, "true_cfg_scale": 4.0}
    given["sampling_type"] = {"forward": "vanilla", "inverted": "inverted_anti_drifting"}[order]
    plain = called(pipe, size, 66, **given, generator=torch.Generator().manual_seed(3))
    with relaxed(pipe, **relax):
        wanted = called(pipe, size, 66, **given, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    pixels = pipe.video_processor.preprocess(PICTURE, size[1], size[0])
    latent = pipe.prepare_image_latents(pixels, dtype=torch.float32, device="cpu", generator=generator)
    start = Start(latent=latent, embeds=pipe.encode_image(pixels, device="cpu"))
    shape = (1, model.latent_channels, 9, size[1] // 8, size[0] // 8)
    made = sampled(model, plan, lambda section: randn_tensor(shape, generator=generator, dtype=torch.float32), start)
    assert far(made, wanted[:, :, 1:]) < CLOSE and far(made, plain[:, :, 1:]) > 0.02


def test_on_helios_it_is_our_own_loop(helios):
    """A film from words of three sections."""
    pipe, model = HeliosPipeline.from_pretrained(helios, dtype=torch.float32), load(str(helios), device="cpu")
    size = (48, 32)
    plan = planned(model, 4.1, {**RELAX, "target": ["text"]}, size, guidance={"text": 5.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_helios, "ftfy", SimpleNamespace(fix_text=str), raising=False)
        with relaxed(pipe, **RELAX):
            wanted = called(pipe, size, 99, guidance_scale=5.0, generator=torch.Generator().manual_seed(3))
        plain = called(pipe, size, 99, guidance_scale=5.0, generator=torch.Generator().manual_seed(3))
    generator, shape = torch.Generator().manual_seed(3), (1, model.latent_channels, 9, size[1] // 8, size[0] // 8)
    made = sampled(model, plan, lambda section: torch.randn(shape, generator=generator))
    assert far(made, wanted) < CLOSE and far(made, plain) > 0.02


@pytest.mark.parametrize("expand", [True, False], ids=["2.2", "2.1"])
def test_on_wan_it_is_our_own_loop(tmp_path, expand):
    folder = wan_folder(tmp_path / "wan", expand=expand)
    pipe, model, size = WanPipeline.from_pretrained(folder), load(str(folder), device="cpu"), (64, 32)
    relax = {"beta": 0.75, "blur": 0.6, "experimental": {"schedule": "area", "coord": "progress"}}
    plan = planned(model, 1.0, {**relax, "target": ["text"]}, size, guidance={"text": 5.0})
    noise = model.noise(plan.sections[0].latents, size, 3)
    with relaxed(pipe, **relax):
        wanted = called(pipe, size, plan.frames, guidance_scale=5.0, latents=noise)
    plain = called(pipe, size, plan.frames, guidance_scale=5.0, latents=noise)
    assert far(sampled(model, plan, lambda section: noise), wanted) < CLOSE and far(plain, wanted) > 0.02


@pytest.mark.parametrize("guider", [TangentialClassifierFreeGuidance, ClassifierFreeGuidance])
def test_a_guiders_scale_is_relaxed_whatever_it_makes_of_it(guider):
    """Also of the original formulation, where 0 is none; at s 1 the second pass is left out."""
    torch.manual_seed(7)
    case = hunyuan15(HunyuanVideo15Pipeline, guider(guidance_scale=S - 1, use_original_formulation=True))
    passes = []  # the guider's scale in each
    count = case.pipe.transformer.register_forward_hook(lambda *_: passes.append(case.pipe.guider.guidance_scale))
    with relaxed(case.pipe, beta=1.0):
        case()
    count.remove()
    first, *later = [eq2(case.pipe, t, S, beta=1.0) - 1 for t in case.pipe.scheduler.timesteps]
    assert first == 0 and passes == pytest.approx([first, *(scale for scale in later for _ in range(2))], abs=1e-6)
    assert case.pipe.guider.guidance_scale == S - 1


def test_the_embedded_scale_is_rounded_as_the_pipeline_rounds_its_own():
    torch.manual_seed(7)
    case = hunyuan(HunyuanVideoPipeline)
    case.pipe.transformer.to(torch.bfloat16)
    with relaxed(case.pipe, beta=0.47, experimental=CONSTANT):
        made = case(true_cfg_scale=1.0)
    assert torch.equal(made, case(true_cfg_scale=1.0, guidance_scale=1 + 4 * 0.53))


def test_of_nested_blocks_the_inner_one_holds(wan):
    plain = wan()
    with relaxed(wan.pipe, beta=0.75) as pipe:
        outer, held = wan(), state(pipe)
        with relaxed(pipe, beta=-0.5):
            inner = wan()
        assert state(pipe) == held and torch.equal(wan(), outer)
        with relaxed(pipe, intensity=0.2):
            assert torch.equal(wan(), plain)
    with relaxed(wan.pipe, beta=-0.5):
        assert torch.equal(wan(), inner)
    assert torch.equal(wan(), plain) and not torch.equal(inner, outer)


@pytest.mark.parametrize("where", ["in the pipeline", "in the block"])
def test_after_an_error_everything_is_as_before(wan, where):
    before, plain = state(wan.pipe), wan()

    def stop(*given):
        raise ZeroDivisionError

    with warnings.catch_warnings(), pytest.raises(ZeroDivisionError), relaxed(wan.pipe, beta=0.75, blur=0.6):
        warnings.simplefilter("error")
        stop() if where == "in the block" else wan(callback_on_step_end=stop)
    assert state(wan.pipe) == before and torch.equal(wan(), plain)


@pytest.mark.parametrize("name", ["HunyuanVideo", "FramePack F1", "Wan", "Wan TI2V", "Helios"])
def test_it_goes_with_a_lora(name):
    torch.manual_seed(7)
    case = CASES[name]()
    without = case()
    case.pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_v", "to_q"], init_lora_weights=False))
    plain = case()
    with relaxed(case.pipe, target="text", beta=0.75):
        made = case(**case.only("text"))
    assert far(made, case.by_hand("text")) < CLOSE and torch.equal(case(), plain) and far(plain, without) > 1e-3
    with relaxed(case.pipe, blur=0.6):
        blurred = case()
    case.pipe.transformer.disable_adapters()
    assert torch.equal(case(), without) and not torch.equal(blurred, plain)


def test_an_intensity_asks_for_what_the_papers_profile_says(words):
    with relaxed(words.pipe, intensity=1.0):
        made = words()
    with relaxed(words.pipe, target="embedded", beta=0.75, p=0.7, blur=0.6):
        assert torch.equal(words(), made)
    with relaxed(words.pipe, intensity=1.0, blur=0):
        assert not torch.equal(words(), made)


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("Wan", {"target": "embedded"}, r"target\[0\]: WanPipeline has no restraint embedded; known are text"),
        ("HunyuanVideo", {"target": ["context"]}, r"target\[0\]: context needs passes .* `framepack-relax render`"),
        ("Wan", {"experimental": {"lowpass": 0.5}, "scope": "past"}, "lowpass: needs passes(.|\n)*scope: .* no past"),
        ("Wan", {"bta": 1}, "bta: unknown field; did you mean 'beta'"),
        ("Wan", {"beta": 2, "p": -1}, "beta: .*1(.|\n)*p: "),
        ("Wan", {"intensity": 2}, "intensity: is 2; write a number from 0 to 1"),
        ("Wan", {"intensity": "auto"}, "intensity: is auto; write a number from 0 to 1"),
        ("Wan", {"experimental": {"motion_amplitude": 1.3}}, "motion_amplitude: needs passes"),
    ],
)
def test_what_a_pipeline_has_not_is_told_before_anything_runs(name, fields, said):
    with pytest.raises(StoryboardError, match=said), relaxed(CASES[name]().pipe, **fields):
        raise AssertionError("not reached")


def test_a_subclass_may_pass_arguments_on():
    class Passing(WanPipeline):
        def __call__(self, prompt=None, **given):
            return super().__call__(prompt, **given)

    case = CASES["Wan"]()
    with relaxed(case.pipe, beta=0.75):
        made = case()
    case.pipe.__class__ = Passing
    with relaxed(case.pipe, beta=0.75):
        assert torch.equal(case(), made)


def test_a_guider_of_several_scales_is_refused():
    case = hunyuan15(HunyuanVideo15Pipeline, AdaptiveProjectedMixGuidance())
    with pytest.raises(StoryboardError, match="AdaptiveProjectedMixGuidance has not one"), relaxed(case.pipe, beta=0.5):
        raise AssertionError("not reached")


def test_another_pipeline_is_refused():
    class Other(DiffusionPipeline):
        pass

    with pytest.raises(ModelError, match=r"Other cannot be relaxed; known are .*WanPipeline"), relaxed(Other(), beta=1):
        raise AssertionError("not reached")


NO_NEGATIVE = {"negative_prompt_embeds": None}
TEXT = {"beta": 0.75, "target": "text"}


@pytest.mark.parametrize(
    ("name", "fields", "call", "said"),
    [
        ("Wan", {"beta": 0.75}, {"guidance_scale": 1.0}, "target text did nothing: .* needs guidance_scale above 1$"),
        ("HunyuanVideo", TEXT, NO_NEGATIVE, "target text .* needs true_cfg_scale above 1, and a negative prompt"),
        ("HunyuanVideo", {"beta": 0.75}, {"guidance_scale": 1.0}, "embedded did nothing: .* guidance_scale above 1$"),
        ("Wan", {"blur": 0.6, "scope": "history"}, {}, "blur did nothing: no pass had frames of scope history"),
        ("Wan", {"history_gain": 0.5}, {}, "history_gain did nothing: no pass had frames of gain_on history"),
        ("HunyuanVideo-1.5", {"beta": 0.75}, {}, "target text did nothing: .* its guider's guidance_scale above 1"),
        ("Wan", {"beta": 0.75}, None, "the pipeline was not called"),
        ("Wan", {"p": 0.5}, {}, "nothing is asked for; say beta"),
    ],
)
def test_what_did_not_act_is_told(name, fields, call, said):
    torch.manual_seed(7)
    case = CASES[name]()
    if not case.scales:
        case.pipe.guider.disable()
    plain = None if call is None else case(**call)
    with pytest.warns(UserWarning, match=said) as told, relaxed(case.pipe, **fields):
        assert call is None or torch.equal(case(**call), plain)
    assert [warning.filename for warning in told] == [__file__]


def test_a_floor_above_the_scale_of_the_call_is_told(wan):
    before = state(wan.pipe)
    with pytest.raises(StoryboardError, match="min: is 4; for target text it must be between 1 and the scale 3"):
        with relaxed(wan.pipe, beta=0.75, min=4):
            wan(guidance_scale=3.0)
    assert state(wan.pipe) == before
