"""Helios at rest is diffusers' HeliosPipeline bit for bit; its noise levels are read; its past is where it is said."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, HeliosPipeline, HeliosScheduler, HeliosTransformer3DModel
from diffusers.pipelines.helios import pipeline_helios
from PIL import Image
from shots import sample_shot
from wan_folders import CHANNELS, helios_folder

import framepack_relax as fr
from framepack_relax.errors import ModelError
from framepack_relax.families import catalog
from framepack_relax.families.attention import AttentionEdit
from framepack_relax.families.backend import PRESETS, Given
from framepack_relax.families.catalog import find_family
from framepack_relax.families.helios.backend import HeliosProcessor
from framepack_relax.families.helios.family import Helios
from framepack_relax.families.loader import load
from framepack_relax.planning.planner import make_plan
from framepack_relax.relax.effects import KeyGain, KVBlur
from framepack_relax.relax.guidance import Branch, without
from framepack_relax.storyboard import Scene, storyboard_from_scenes
from framepack_relax.storyboard.reader import read_storyboard

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, STEPS, SEED = (48, 32), 3, 3
PROMPT, NEGATIVE = "a red figure waves on the beach", "still picture"


@pytest.fixture(scope="module", params=[True, False], ids=["shifted", "even"])
def folder(request, helios, tmp_path_factory):
    if request.param:
        return helios
    return helios_folder(tmp_path_factory.mktemp("models") / "even", use_dynamic_shifting=False, solver_order=3)


@pytest.fixture
def stock(folder, monkeypatch):
    """The pipeline; words that need no mending are read without ftfy."""
    monkeypatch.setattr(pipeline_helios, "ftfy", SimpleNamespace(fix_text=lambda text: text), raising=False)
    pipe = HeliosPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def model(folder):
    return load(str(folder), device="cpu")


def picture():
    return Image.radial_gradient("L").resize(SIZE).convert("RGB")


def plan_of(model, sections, **fields):
    scenes = [Scene(id=f"s{n}", prompt=PROMPT, seconds=1.375) for n in range(sections)]
    board = {"size": SIZE, "steps": STEPS, "seed": SEED, "noise": "framepack", "negative_prompt": NEGATIVE, **fields}
    return make_plan(storyboard_from_scenes(scenes, **board), model.family)


def theirs(stock, sections, image, text, output):
    return stock(
        prompt=PROMPT, negative_prompt=NEGATIVE, width=SIZE[0], height=SIZE[1], num_frames=33 * sections,
        num_inference_steps=STEPS, guidance_scale=text, image=image, output_type=output,
        generator=torch.Generator().manual_seed(SEED),
    ).frames  # fmt: skip


def ours(model, sections, image, text):
    """Latents by place; one generator stands for the pipeline's: the image's draws come before those of the noise."""
    plan = plan_of(model, sections, guidance={"text": text})
    texts = model.encode_prompts([PROMPT, NEGATIVE])
    start = model.encode_starts({0: (image, SEED)})[0] if image else None
    generator, latent = torch.Generator().manual_seed(SEED), (1, CHANNELS, 1, SIZE[1] // 8, SIZE[0] // 8)
    if image:
        torch.randn(latent, generator=generator)
        torch.randn((1, CHANNELS, 9, *latent[3:]), generator=generator)
        for _ in range(2):
            torch.rand(1, generator=generator)
            torch.randn(latent, generator=generator)
    made = sample_shot(
        model, plan, start=start, prompt=texts[PROMPT], negative=texts[NEGATIVE],
        noise=lambda section: torch.randn((1, CHANNELS, 9, *latent[3:]), generator=generator),
    )  # fmt: skip
    return start, made


@pytest.mark.parametrize("image", [None, picture()], ids=["words", "image"])
@pytest.mark.parametrize(("sections", "text"), [(1, 1.0), (5, 5.0)])
def test_latents_at_rest_are_the_pipelines_bit_for_bit(model, stock, image, sections, text):
    wanted = theirs(stock, sections, image, text, "latent")
    start, made = ours(model, sections, image, text)
    film = torch.cat([*([start.latent[:, :, 1:]] if image else []), *(made[p].latents for p in range(sections))], dim=2)
    assert film.shape == wanted.shape and film.shape[2] == 9 * sections + bool(image)
    assert torch.equal(film, wanted)
    assert made[0].forwards == {"cond": STEPS, "uncond": STEPS if text > 1 else 0, "sharp": 0, "free": 0}


def test_frames_are_the_pipelines_and_each_section_a_clip_of_33(model, stock):
    """uint8 within half a level of the pipeline's floats, which cuts the film to 4k + 1 frames."""
    wanted = theirs(stock, 3, None, 5.0, "np")[0]
    _, made = ours(model, 3, None, 5.0)
    decoder = model.decoder("stream", None, 3, {})
    pushed = [decoder.push(made[place].latents) for place in range(3)]
    frames = np.concatenate(pushed)
    assert [len(chunk) for chunk in pushed] == [33, 33, 33] and len(wanted) == 97
    assert np.abs(frames[:97].astype(float) - wanted * 255).max() <= 0.5 + 1e-3 and wanted.std() > 0.01


def test_a_film_from_words_has_the_pipelines_noise_where_it_is_asked_for(model, folder, stock, tmp_path):
    """`noise: framepack`: end to end, on the command's own ways."""
    board = storyboard_from_scenes(
        [Scene(id="a", prompt=PROMPT, seconds=2.75)], model=str(folder), size=SIZE, steps=STEPS, seed=SEED,
        noise="framepack", negative_prompt=NEGATIVE,
    )  # fmt: skip
    fr.render(board, out=tmp_path / "film", model=model)
    from safetensors.torch import load_file

    made = [load_file(file)["latents"] for file in sorted((tmp_path / "film/shots/00").glob("0*.safetensors"))]
    assert torch.equal(torch.cat(made, dim=2), theirs(stock, 2, None, 5.0, "latent"))


@pytest.mark.parametrize("size", [(640, 384), (48, 32), (1280, 720)])
@pytest.mark.parametrize("steps", [1, 3, 50, 999])
def test_noise_levels_are_the_schedulers_to_the_bit(folder, size, steps):
    scheduler = HeliosScheduler.from_pretrained(folder / "scheduler")
    mu = pipeline_helios.calculate_shift(9 * (size[1] // 8) * (size[0] // 8) // 4)
    scheduler.set_timesteps(steps, sigmas=np.linspace(0.999, 0.0, steps + 1)[:-1], mu=mu)
    levels = find_family(str(folder)).levels(steps, size, "unipc")
    assert [list(column) for column in zip(*levels, strict=True)] == [
        scheduler.sigmas[:-1].tolist(),
        scheduler.timesteps.tolist(),
    ]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"stages": 3}, r"scheduler_config.json: stages is 3, as Helios-Mid and .* are not rendered"),
        ({"scheduler_type": "dmd"}, r"scheduler_config.json: scheduler_type: "),
        ({"time_shift_type": "linear"}, r"scheduler_config.json: time_shift_type: "),
    ],
)
def test_a_scheduler_that_is_not_the_base_models_is_refused_by_field(tmp_path, said, told):
    folder = helios_folder(tmp_path / "other", **said)
    with pytest.raises(ModelError, match=told):
        find_family(str(folder))


def test_a_transformer_that_diffusers_cannot_run_in_half_precision_is_refused(tmp_path):
    config = helios_folder(tmp_path / "other") / "transformer/config.json"
    config.write_text(config.read_text().replace('"is_amplify_history": false', '"is_amplify_history": true'))
    with pytest.raises(ModelError, match=r"transformer/config.json: is_amplify_history: "):
        load(str(tmp_path / "other"), device="cpu")


def test_the_catalogues_model_takes_its_noise_levels_from_its_scheduler_once_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv(catalog.WEIGHTS_VARIABLE, str(tmp_path))
    story = storyboard_from_scenes([Scene(id="a", prompt="b", seconds=2)], model="helios", steps=50)
    assumed = make_plan(story, find_family("helios"))
    assert any("scheduler_config.json is not on this machine" in warning for warning in assumed.warnings)
    assert assumed.sections[0].steps[0].timestep == pytest.approx(999.85, abs=0.01)  # mu 1.919
    helios_folder(tmp_path / "BestWishYsh/Helios-Base", use_dynamic_shifting=False)
    read = make_plan(story, find_family("helios"))
    assert read.warnings == () and read.sections[0].steps[0].timestep == 999.0
    (tmp_path / "BestWishYsh/Helios-Base/scheduler/scheduler_config.json").write_text('{"stages": 3}')
    with pytest.raises(ModelError, match="stages is 3"):
        find_family("helios")


def begun(model, **fields):
    """The second section of a film from words, with a past of its own: its plan, inputs and noise."""
    plan = plan_of(model, 2, **fields)
    section = plan.sections[1]
    noise, past = (torch.randn(1, CHANNELS, 9, 4, 6, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    text = torch.randn(1, 512, 16, generator=torch.Generator().manual_seed(3))
    given = Given(
        noise=noise, context=section.context, steps=section.steps, past={0: past}, start=None, prompt=text,
        negative=text, options=plan.options,
    )  # fmt: skip
    return section, model.begin(given), noise


def tokens(model, inputs, noise, step, context="full"):
    """What the first block is given: [L, D]."""
    seen = []
    hook = model.transformer.blocks[0].register_forward_pre_hook(lambda module, given: seen.append(given[0][0]))
    model.predict(noise, step, Branch(name="cond", context=context), inputs)
    hook.remove()
    return seen[0]


def test_every_token_is_where_the_layout_says(model):
    section, inputs, noise = begun(model)
    step, full = section.steps[0], inputs.contexts["full"]
    plain = tokens(model, inputs, noise, step)
    assert len(plain) == sum(segment.tokens for segment in inputs.segments)
    names = ("latents_history_long", "latents_history_mid", "latents_history_short")
    first = 0
    for segment, name, frames in zip(
        inputs.segments, (*names, ""), ((slice(12, 16),), (slice(0, 2),), (slice(0, 1), slice(1, 2)), ()), strict=True
    ):
        for nth, (part, at) in enumerate(zip(segment.parts[-len(frames) :] if frames else (), frames, strict=True)):
            changed = full[name].clone()
            changed[:, :, at] += 1
            other = replace(inputs, contexts={"full": {**full, name: changed}})
            where = (tokens(model, other, noise, step) != plain).any(dim=1).nonzero().flatten().tolist()
            area = segment.height * segment.width
            begin = first + (len(segment.frames) - len(frames) + nth) * area
            assert where == list(range(begin, begin + area)), name
            assert part == ("reference" if name.endswith("short") and nth == 0 else "history")
        first += segment.tokens
    where = (tokens(model, inputs, noise + 1, step) != plain).any(dim=1).nonzero().flatten().tolist()
    assert where == list(range(first - inputs.segments[-1].tokens, first))


def test_an_edit_of_nothing_is_the_stock_attention(model):
    section, inputs, noise = begun(model)
    seen = {}
    attention = model.transformer.blocks[1].attn1
    hook = attention.register_forward_pre_hook(lambda module, given: seen.update(given=given))
    model.predict(noise, section.steps[0], Branch(name="cond"), inputs)
    hook.remove()
    with torch.no_grad():
        made = HeliosProcessor(AttentionEdit(), attention.processor)(attention, *seen["given"])
        assert torch.equal(made, attention.processor(attention, *seen["given"]))


@pytest.mark.parametrize("no_past", ["zeros", "none"])
def test_without_a_past_there_are_zeros_or_no_tokens_and_effects_act_on_either(model, no_past):
    section, inputs, noise = begun(model, helios={"no_past": no_past})
    step = section.steps[0]
    seen = tokens(model, inputs, noise, step, "context")
    assert len(seen) == (inputs.segments[-1].tokens if no_past == "none" else len(tokens(model, inputs, noise, step)))
    free = without("context")
    plain = model.predict(noise, step, free, inputs)
    if no_past == "zeros":
        kept = inputs.contexts["context"]["latents_history_short"]
        assert torch.equal(kept[:, :, :1], inputs.contexts["full"]["latents_history_short"][:, :, :1])
        assert not kept[:, :, 1:].any() and not inputs.contexts["context"]["latents_history_long"].any()
    with model.acting((KVBlur(sigma=0.6),), inputs):
        blurred = model.predict(noise, step, free, inputs)
    with model.acting((KeyGain(gain=0.5, on="all"),), inputs):
        gained = model.predict(noise, step, free, inputs)
    assert not torch.equal(blurred, plain) and torch.equal(model.predict(noise, step, free, inputs), plain)
    assert torch.equal(gained, plain) == (no_past == "none"), "nothing of the past is left to gain"


def test_the_still_past_of_an_images_first_section_is_loosened_too(model, tmp_path):
    """Down to what zeros in its place give; a film from words has no past there, and is told."""
    picture().save(tmp_path / "hero.png")
    loose = {"target": ["context"], "beta": 1.0, "min": 0.0, "p": 0.001}
    scenes = [Scene(id="a", prompt=PROMPT, seconds=1.375, relax=loose)]
    board = storyboard_from_scenes(scenes, size=SIZE, steps=STEPS, sampler="euler")
    words, image = (make_plan(one, model.family) for one in (board, board.changed(image=str(tmp_path / "hero.png"))))
    told = ["no past of the shot" in " ".join(plan.warnings) for plan in (words, image)]
    assert set(words.sections[0].scales["context"]) == {1.0} and told == [True, False]
    assert max(image.sections[0].scales["context"]) < 0.01
    start, texts = model.encode_starts({0: (picture(), SEED)})[0], model.encode_prompts([PROMPT, ""])
    noise = model.noise(9, SIZE, SEED)
    given = {"prompt": texts[PROMPT], "negative": texts[""], "noise": lambda section: noise}
    loosened = sample_shot(model, image, start=start, **given)[0]
    assert loosened.forwards["free"] == STEPS
    section, free, cond = image.sections[0], without("context"), Branch(name="cond")
    rest = {"context": section.context, "steps": section.steps, "past": {}, "options": image.options, "noise": noise}
    words = {"prompt": texts[PROMPT], "negative": texts[""]}
    zero = replace(start, latent=torch.cat([start.latent[:, :, :1], torch.zeros_like(noise[:, :, :1])], dim=2))
    still, zeros = (model.begin(Given(start=one, **words, **rest)) for one in (start, zero))
    wanted = model.predict(noise, section.steps[0], cond, zeros)
    assert torch.equal(model.predict(noise, section.steps[0], free, still), wanted)
    assert not torch.equal(model.predict(noise, section.steps[0], cond, still), wanted)


def test_the_memory_estimates_are_counts(model):
    """Live tensors of the real model, counted at 640x384 and 1280x720: 31 vectors a token in a pass, 50 in a decode."""
    with torch.device("meta"):
        transformer, vae = HeliosTransformer3DModel().to(torch.bfloat16), AutoencoderKLWan()
    big = replace(model, transformer=transformer, vae=vae, dtype=torch.bfloat16)
    context, size = Helios(name="x").context(3, 4), (640, 384)
    at = {preset: big.need(context, 9, size, preset).total / 1e9 for preset in PRESETS}
    assert big.tokens(context, size) == 11_040
    assert at["full"] == pytest.approx(28.7 + 0.5 + 4.7, rel=0.1)
    assert at["tiled"] == pytest.approx(28.7 + 0.5 + 3.5, rel=0.1) and at["offload"] < 6
    assert 1e14 < big.pass_flops(context, 9, size) < 1e15


def test_the_rooftop_is_planned_for_the_real_model_and_rendered_by_a_tiny_one(helios, pytestconfig, tmp_path):
    story = read_storyboard(pytestconfig.rootpath / "storyboards/rooftop-helios.yaml")
    plan = make_plan(story, Helios(name="helios", shift=find_family(str(helios)).shift))
    assert (plan.size, plan.fps, plan.warnings) == ((640, 384), 24, ())
    assert {s.frames[1] - s.frames[0] for s in plan.sections} == {33} and plan.seconds == pytest.approx(12, abs=1)
    loose = [s for s in plan.sections if not s.relaxation.at_rest]
    assert loose and all(s.steps[0].scales["context"] < 1 and s.steps[0].scales["text"] == 5 for s in loose)
    small = story.changed(size=SIZE, steps=2, model=str(helios))
    film = fr.render(small, out=tmp_path / "film", model=load(str(helios), device="cpu"))
    assert film.report["totals"]["frames"] == plan.frames and (tmp_path / "film/video.mp4").stat().st_size > 1000
    assert json.loads((tmp_path / "film/plan.json").read_text())["no_past"] == "zeros"
