"""Wan: off means off, to the bit, beside diffusers' own pipelines; sections that go on; what a board may ask of it."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.wan import pipeline_wan, pipeline_wan_i2v
from faults import here
from PIL import Image
from shots import sample_shot
from wan_folders import wan_folder

import framepack_relax.families.attention as attention
from framepack_relax.errors import ModelError, StoryboardError
from framepack_relax.families.attention import AttentionEdit, ByLength, processors
from framepack_relax.families.backend import PRESETS, Given
from framepack_relax.families.catalog import find_family
from framepack_relax.families.flow import unipc_table
from framepack_relax.families.loader import load
from framepack_relax.families.wan.attention import EditedProcessor
from framepack_relax.planning.planner import make_plan
from framepack_relax.relax.effects import KVBlur
from framepack_relax.relax.guidance import Branch, without
from framepack_relax.storyboard import Scene, read_storyboard, storyboard_from_scenes

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, STEPS = (64, 32), 4
PROMPTS = ("a red  figure\twaves &amp; jumps", "the figure")  # white space and HTML, which the pipelines clean
FIVE, ONE = find_family("wan2.2-5b"), find_family("wan2.1-1.3b")


@pytest.fixture(scope="module", params=[True, False], ids=["2.2", "2.1"])
def pair(request, tmp_path_factory):
    """A folder, and it loaded."""
    folder = wan_folder(tmp_path_factory.mktemp("models") / "wan", expand=request.param)
    return folder, load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    folder = wan_folder(tmp_path_factory.mktemp("models") / "wan", expand=True)
    return folder, load(str(folder), device="cpu")


def planned(model, seconds, *, scale=5.0, scene=None, **fields):
    made = Scene(id="a", prompt=PROMPTS[0], negative_prompt=PROMPTS[1], seconds=seconds, **(scene or {}))
    story = storyboard_from_scenes([made], **{"size": SIZE, "steps": STEPS, "guidance": {"text": scale}, **fields})
    return make_plan(story, model.family)


def sampled(model, plan, image=None):
    """Sections by place, and the noise of each."""
    texts, noise = model.encode_prompts(PROMPTS), {}

    def draw(section):
        noise[section.place] = model.noise(section.latents, plan.size, section.seed)
        return noise[section.place]

    start = model.encode_starts({0: (image, 1)})[0] if image else None
    made = sample_shot(model, plan, start=start, prompt=texts[PROMPTS[0]], negative=texts[PROMPTS[1]], noise=draw)
    return made, noise


def stock(kind, folder, output="latent", scale=5.0, **given):
    pipe = kind.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    words = {"prompt": PROMPTS[0], "negative_prompt": PROMPTS[1], "width": SIZE[0], "height": SIZE[1]}
    with pytest.MonkeyPatch.context() as patch:  # the image pipeline's own fails without ftfy
        patch.setattr(pipeline_wan_i2v, "prompt_clean", pipeline_wan.prompt_clean)
        return pipe(**words, num_inference_steps=STEPS, guidance_scale=scale, output_type=output, **given).frames


@pytest.mark.parametrize("steps", [1, 2, 7, 25, 50, 333])
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 12.0])
def test_noise_levels_are_the_schedulers(steps, shift):
    theirs = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    theirs.set_timesteps(steps)
    sigmas, timesteps = zip(*unipc_table(steps, shift), strict=True)
    assert theirs.sigmas[:-1].tolist() == list(sigmas) and theirs.timesteps.tolist() == list(timesteps)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_words_to_a_clip_at_rest_are_the_pipelines_bits(pair, scale):
    folder, model = pair
    plan = planned(model, 1.0, scale=scale)
    made, noise = sampled(model, plan)
    frames = plan.frames
    wanted = stock(WanPipeline, folder, scale=scale, num_frames=frames, latents=noise[0])
    assert wanted.shape == noise[0].shape and torch.equal(made[0].latents, wanted)
    assert made[0].forwards["uncond"] == (STEPS if scale > 1 else 0)
    floats = stock(WanPipeline, folder, "np", scale=scale, num_frames=frames, latents=noise[0])[0]
    pixels = model.decoder("stream", None, 1, plan.options).push(made[0].latents)
    assert pixels.shape == floats.shape and np.abs(pixels - floats * 255).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_an_image_to_a_clip_at_rest_is_the_pipelines_bits(five, hero, scale):
    folder, model = five
    plan = planned(model, 1.0, scale=scale, image=hero.filename)
    made, noise = sampled(model, plan, hero)
    given = {"image": hero, "num_frames": plan.frames, "latents": noise[0], "scale": scale}
    wanted = stock(WanImageToVideoPipeline, folder, **given)
    assert torch.equal(made[0].latents, wanted)
    assert not torch.equal(sampled(model, plan)[0][0].latents, wanted), "the image matters"


@pytest.mark.parametrize("carry", [1, 3])
def test_a_section_that_goes_on_is_the_pipelines_given_the_same_clean_frames(five, hero, carry):
    """WanImageToVideoPipeline has no sections: it is given the latents of the one before where it encodes an image."""
    folder, model = five
    plan = planned(model, 6.0, image=hero.filename, wan={"carry": carry})
    made, noise = sampled(model, plan, hero)
    assert len(made) == 2 and [s.latents for s in plan.sections] == [19, 18]
    past = made[0].latents[:, :, -carry:]
    blank = torch.zeros_like(noise[1])

    class Chained(WanImageToVideoPipeline):
        def prepare_latents(self, *args, **kwargs):
            whole, condition = torch.cat([torch.zeros_like(past), noise[1]], 2), torch.cat([past, blank], 2)
            mask = torch.ones_like(whole[:, :1])
            mask[:, :, :carry] = 0
            return whole, condition, mask

    wanted = stock(Chained, folder, image=hero, num_frames=4 * (noise[1].shape[2] + carry) - 3)
    assert torch.equal(wanted[:, :, :carry], past) and torch.equal(wanted[:, :, carry:], made[1].latents)
    decoder = model.decoder("stream", None, 2, plan.options)
    assert sum(len(decoder.push(made[place].latents)) for place in (0, 1)) == plan.frames == 145


def test_the_branch_without_a_past_is_the_models_own_mode_for_words(five):
    _, model = five
    plan = planned(model, 6.0)
    section, texts = plan.sections[1], model.encode_prompts(PROMPTS)
    x, step = model.noise(section.latents, SIZE, 1), section.steps[1]
    given = Given(
        noise=x, context=section.context, steps=section.steps, past={0: x}, start=None, prompt=texts[PROMPTS[0]],
        negative=texts[PROMPTS[1]], options=plan.options,
    )  # fmt: skip
    free = model.predict(x, step, without("context"), model.begin(given))
    with torch.no_grad():
        words = model.transformer(x, torch.tensor([step.timestep]), texts[PROMPTS[0]], return_dict=False)[0]
    assert free.shape == x.shape and (free - words).abs().max() < 1e-5 * words.abs().max()


def attended(model, edits, x, text):
    """What a pass gives, and the keys and values that each of its attentions sees."""
    seen, dispatch = [], attention.dispatch_attention_fn

    def look(query, key, value, **options):
        seen.append((key, value))
        return dispatch(query, key, value, **options)

    attentions = [block.attn1 for block in model.transformer.blocks]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(attention, "dispatch_attention_fn", look)
        with processors(attentions, (lambda old: ByLength(EditedProcessor, edits, old)) if edits else None):
            made = model.transformer(x, torch.tensor([500.0]), text, return_dict=False)[0]
    return made, seen


def test_an_edit_of_nothing_gives_the_stock_processors_bits(five):
    _, model = five
    x, text = model.noise(5, SIZE, 1), model.encode_prompts(PROMPTS)[PROMPTS[0]]
    plain, none = attended(model, {}, x, text)
    edited, seen = attended(model, {5 * 2 * 1: AttentionEdit()}, x, text)
    assert torch.equal(plain, edited) and not none and len(seen) == 2


@pytest.mark.parametrize("space", ["post_rope", "pre_rope"])
def test_blur_leaves_the_clean_frames_keys_and_values(five, space):
    _, model = five
    plan, texts = planned(model, 6.0), model.encode_prompts(PROMPTS)
    section, x = plan.sections[1], model.noise(18, SIZE, 1)
    given = Given(
        noise=x, context=section.context, steps=section.steps, past={0: x + 1}, start=None, prompt=texts[PROMPTS[0]],
        negative=texts[PROMPTS[1]], options=plan.options,
    )  # fmt: skip
    inputs = model.begin(given)
    seen = []
    for sigma in (1e-9, 0.6):  # the first changes nothing
        with pytest.MonkeyPatch.context() as patch:
            rows = []
            dispatch = attention.dispatch_attention_fn
            patch.setattr(
                attention, "dispatch_attention_fn",
                lambda q, k, v, rows=rows, dispatch=dispatch, **o: rows.append((k, v)) or dispatch(q, k, v, **o),
            )  # fmt: skip
            with model.acting((KVBlur(sigma=sigma, space=space),), inputs):
                model.predict(x, section.steps[0], Branch(name="cond"), inputs)
        seen.append(rows[0])
    for plain, blurred in zip(*seen, strict=True):
        assert torch.equal(plain[:, :2], blurred[:, :2]) and not torch.equal(plain[:, 2:], blurred[:, 2:])


def test_sections_are_equal_and_no_longer_than_a_clip():
    def frames(seconds, family=FIVE, **fields):
        story = storyboard_from_scenes([Scene(id="a", prompt="x", seconds=seconds)], **fields)
        plan = make_plan(story, family)
        assert any("was trained to go on from 1" in warning for warning in plan.warnings) == bool(fields)
        return [s.frames[1] - s.frames[0] for s in plan.sections], [s.latents for s in plan.sections]

    assert frames(10.0) == ([121, 120], [31, 30])
    assert frames(5.04) == ([121], [31])
    assert frames(11.0)[0] == [89, 88, 88]
    assert frames(10.0, wan={"carry": 4})[1] == [21, 20, 20]
    assert frames(5.0, ONE) == ([81], [21]) and Fraction(ONE.fps) == 16


def test_what_wan_cannot_do_is_told_at_its_place(tmp_path):
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    (tmp_path / "story.yaml").write_text(
        "size: [848, 480]\nwan: {carry: 2}\nimage: a.png\nscenes:\n  - {id: a, prompt: x, seconds: 9}\n"
        "  - {id: b, prompt: x, seconds: 2}\n"
    )
    story = read_storyboard(tmp_path / "story.yaml")
    for family, told in (
        (FIVE, ["1:7: size: wan2.2-5b takes multiples of 32 alone; write ["]),
        (ONE, ["wan.carry: wan2.1-1.3b has no such setting", "takes no image", "longer than the 5.062 s",
               "write `transition: cut`"]),
    ):  # fmt: skip
        with pytest.raises(StoryboardError) as caught:
            make_plan(story, family)
        lines = str(caught.value).splitlines()
        assert len(lines) == len(told) and all(any(fact in line for line in lines) for fact in told), lines


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("model_index.json", {"boundary_ratio": 0.9}, "no Wan has both expand_timesteps and a boundary_ratio"),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": False}, "use_flow_sigmas: "),
        ("transformer/config.json", {"in_channels": 36}, "an image enters by channels"),
        ("vae/config.json", {"z_dim": 7}, "latents_mean must hold z_dim 7 numbers"),
        ("text_encoder/config.json", {"num_layers": 3}, "num_layers: is 3, and the weights hold 2"),
        ("text_encoder/config.json", {"d_model": 24}, "text_dim: is 16, and d_model in "),
    ],
)
def test_folders_of_other_models_are_refused(tmp_path, file, change, told):
    folder = wan_folder(tmp_path / "wan", expand=True)
    said = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(said | change))
    with pytest.raises(ModelError) as caught:
        load(str(folder), device="cpu").encode_prompts(["x"])
    assert told in str(caught.value) and file.split("/")[0] in str(caught.value).replace(str(folder), file)


def test_a_folder_needs_no_sidecar_and_its_scheduler_is_read(tmp_path):
    folder = wan_folder(tmp_path / "wan", expand=True, shift=2.5)
    (folder / "framepack_relax.json").unlink()
    family = find_family(str(folder))
    assert (family.kind, family.size, family.fps, family.schedule.flow_shift) == ("wan", (1280, 704), 24, 2.5)
    assert family.levels(10, SIZE, "unipc") == unipc_table(10, 2.5) != FIVE.levels(10, SIZE, "unipc")


def test_weights_in_shards_are_one_model_and_a_shard_that_is_missing_is_named(tmp_path):
    folder = wan_folder(tmp_path / "wan", expand=True)
    whole, part = load(str(folder), device="cpu").transformer, folder / "transformer"
    (part / "diffusion_pytorch_model.safetensors").unlink()
    whole.save_pretrained(part, max_shard_size="20KB")
    shards = sorted(part.glob("*.safetensors"))
    made = load(str(folder), device="cpu").transformer
    assert len(shards) > 2
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), made.parameters(), strict=True))
    shards[1].unlink()
    with pytest.raises(ModelError, match=r"the transformer cannot be loaded.*download it again"):
        load(str(folder), device="cpu")


def test_the_terms_and_the_facts_of_the_catalogue():
    assert [(term.name, term.base) for term in FIVE.terms] == [("text", 5.0), ("context", 1.0)]
    assert [term.name for term in ONE.terms] == ["text"] and (FIVE.size, ONE.size) == ((1280, 704), (832, 480))


def test_the_storyboard_that_ships_is_planned_for_the_real_model(pytestconfig):
    plan = make_plan(read_storyboard(pytestconfig.rootpath / "storyboards/rooftop-wan.yaml"), FIVE)
    assert (plan.kind, plan.size, plan.fps, plan.sampler) == ("wan", (1280, 704), 24, "unipc")
    lengths = [section.frames[1] - section.frames[0] for section in plan.sections]
    assert max(lengths) <= 121 and len(plan.sections) > len(plan.scenes) and len(plan.shots) == 1
    assert any("context" in s.relaxation.target and s.steps[0].scales["context"] < 0.5 for s in plan.sections)
    assert all(s.steps[0].timestep == 999 for s in plan.sections)


def test_the_storyboard_that_ships_is_rendered(pytestconfig, tmp_path):
    folder = wan_folder(tmp_path / "wan", expand=True)
    board = pytestconfig.rootpath / "storyboards/rooftop-wan.yaml"
    done = here("render", board, "--model", folder, "--out", tmp_path / "out")
    assert done.returncode == 0 and (tmp_path / "out/video.mp4").exists(), done.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["totals"]["frames"] == json.loads((tmp_path / "out/plan.json").read_text())["frames"]
    free = [section["forwards"]["free"] for section in report["sections"]]
    assert any(free) and not free[0]


def test_weights_that_come_for_their_turn_give_the_same_latents(five):
    folder, model = five
    plan = planned(model, 6.0, scene={"relax": {"blur": 0.6, "target": ["context"], "beta": 0.75}})
    whole = sampled(model, plan)[0]
    other = load(str(folder), device="cpu", memory="offload")
    other.preset = "offload"
    other.encode_prompts(PROMPTS)
    other.place()
    assert all(torch.equal(made.latents, whole[place].latents) for place, made in sampled(other, plan)[0].items())
    assert whole[1].forwards["free"] > 0


def test_the_memory_estimates_are_counts(five):
    """Live tensors of the real 5B counted on the meta device at 1280x704: 6.2 GB in a pass, 19.6 in a decode."""
    with torch.device("meta"):
        transformer = WanTransformer3DModel(
            num_attention_heads=24, in_channels=48, out_channels=48, ffn_dim=14_336, num_layers=30
        ).to(torch.bfloat16)
        vae = AutoencoderKLWan(
            base_dim=160, decoder_base_dim=256, z_dim=48, is_residual=True, patch_size=2, in_channels=12,
            out_channels=12, scale_factor_spatial=16,
        )  # fmt: skip
    big = replace(five[1], transformer=transformer, vae=vae, dtype=torch.bfloat16)
    at = {preset: big.need(FIVE.context(1, 2), 30, FIVE.size, preset).total / 1e9 for preset in PRESETS}
    assert at["full"] == pytest.approx(10.0 + 2.8 + 19.6, rel=0.04)
    assert at["tiled"] == pytest.approx(10.0 + 2.8 + 6.2, rel=0.04) and at["offload"] < 10
    assert (
        big.tokens(FIVE.context(1, 2), 30, FIVE.size) == 27_280
        and big.pass_flops(FIVE.context(0, 1), 31, FIVE.size) > 2e14
    )
