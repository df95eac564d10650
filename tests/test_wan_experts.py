"""Wan 2.2 A14B: the bits of diffusers' pipelines with two transformers; a scale for each; clips that go on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from PIL import Image
from test_wan import PROMPTS, SIZE, STEPS, planned, sampled, stock
from wan_folders import experts_folder

import framepack_relax as fr
from framepack_relax.errors import ModelError
from framepack_relax.families.backend import PRESETS
from framepack_relax.families.catalog import CATALOG, find_family
from framepack_relax.families.loader import load
from framepack_relax.families.wan.family import WanExperts
from framepack_relax.planning.planner import make_plan
from framepack_relax.storyboard import Scene, storyboard_from_scenes

pytestmark = pytest.mark.usefixtures("one_thread")

HERO = Path(__file__).parents[1] / "storyboards" / "rooftop.png"
A14B = find_family("wan2.2-a14b")
MORE = {"experimental": {"motion_amplitude": 1.5}}
SCALES = [(1.0, 1.0), (3.5, 2.5)]  # high, low


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = experts_folder(tmp_path_factory.mktemp("models") / "wan", image=False)
    return folder, load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = experts_folder(tmp_path_factory.mktemp("models") / "wan", image=True)
    return folder, load(str(folder), device="cpu")


def two(model, image, scene=None, **fields):
    """Of two scenes, a section each."""
    words = {"prompt": PROMPTS[0], "negative_prompt": PROMPTS[1], "seconds": 0.8, **(scene or {})}
    scenes = [Scene(id=name, **words) for name in "ab"]
    return make_plan(
        storyboard_from_scenes(scenes, size=SIZE, steps=STEPS, image=image.filename, **fields), model.family
    )


def experts(plan):
    """How many steps each of the two takes."""
    steps = [step.timestep >= 900 for step in plan.sections[0].steps]
    return sum(steps), len(steps) - sum(steps)


@pytest.mark.parametrize("scales", SCALES)
def test_words_by_two_experts_at_rest_are_the_pipelines_bits(words, scales):
    folder, model = words
    plan = planned(model, 1.0, guidance=dict(zip(("text", "text_low"), scales, strict=True)))
    made, noise = sampled(model, plan)
    given = {"num_frames": plan.frames, "latents": noise[0], "scale": scales[0], "guidance_scale_2": scales[1]}
    assert isinstance(model.family, WanExperts) and min(experts(plan)) > 0
    assert torch.equal(made[0].latents, stock(WanPipeline, folder, **given))


@pytest.mark.parametrize("scales", SCALES)
def test_each_clip_is_the_pipelines_from_the_last_frame_of_the_one_before(image, hero, scales):
    """The whole chain: what the pipeline makes of the film's own frame, section by section."""
    folder, model = image
    plan = two(model, hero, guidance=dict(zip(("text", "text_low"), scales, strict=True)))
    made, noise = sampled(model, plan, hero)
    assert [section.latents for section in plan.sections] == [4, 4] and min(experts(plan)) > 0
    decoder, picture, count = model.decoder("stream", None, 2, plan.options), hero, 0
    for section in plan.sections:
        given = {
            "image": picture, "num_frames": 4 * section.latents - 3, "latents": noise[section.place],
            "scale": scales[0], "guidance_scale_2": scales[1],
        }  # fmt: skip
        latents = made[section.place].latents
        assert torch.equal(latents, stock(WanImageToVideoPipeline, folder, **given))
        frames = decoder.push(latents)
        pixels = stock(WanImageToVideoPipeline, folder, "np", **given)[0][-len(frames) :]
        assert np.abs(frames - pixels * 255).max() <= 0.5 + 1e-3
        picture, count = Image.fromarray(frames[-1]), count + len(frames)
    assert count == plan.frames == 25


def test_a_clip_sees_the_frame_that_it_goes_on_from_whatever_the_memory(image, hero):
    folder, model = image
    plan = two(model, hero, scene={"relax": {"target": ["context"], "beta": 0.5, "blur": 0.6}})
    whole = sampled(model, plan, hero)[0]
    assert whole[1].forwards["free"] > 0 == whole[0].forwards["free"]
    other = load(str(folder), device="cpu", memory="offload")
    other.preset = "offload"
    other.encode_prompts(PROMPTS)
    other.place()
    other.vae.tile_sample_min_width = 32
    assert all(torch.equal(made.latents, whole[place].latents) for place, made in sampled(other, plan, hero)[0].items())


def test_each_expert_has_its_scale_and_is_relaxed_by_its_name():
    def rows(**fields):
        scene = Scene(id="a", prompt="x", seconds=2, **fields)
        sections = make_plan(storyboard_from_scenes([scene], image=str(HERO), size=(832, 480)), A14B).sections
        return [(step.timestep >= 900, step.scales["text"], step.scales["text_low"]) for step in sections[0].steps]

    assert {row for row in rows()} == {(True, 3.5, 1.0), (False, 1.0, 3.5)}
    assert {row for row in rows(guidance={"text": 5.0})} == {(True, 5.0, 1.0), (False, 1.0, 5.0)}
    assert {row for row in rows(guidance={"text_low": 2.0})} == {(True, 3.5, 1.0), (False, 1.0, 2.0)}
    for target, place in (("text", 1), ("text_low", 2)):
        made = rows(relax={"target": target, "beta": 0.5})
        moved = {place for row in made for place in (1, 2) if row[place] not in (1.0, 3.5)}
        assert moved == {place}


def test_the_facts_of_the_catalogue_and_of_folders(tmp_path):
    assert (A14B.size, A14B.fps, A14B.boundary, A14B.schedule.flow_shift) == ((832, 480), 16, 0.9, 5.0)
    assert [(t.name, t.base) for t in A14B.terms] == [("text", 3.5), ("text_low", 3.5), ("context", 1.0)]
    for image in (True, False):
        family = find_family(str(experts_folder(tmp_path / f"{image}", image=image, boundary=0.7, shift=2.5)))
        assert (family.boundary, family.schedule.flow_shift, family.image == "required") == (0.7, 2.5, image)


@pytest.mark.parametrize("name", ["wan2.2-a14b", "wan2.2-5b", "wan2.1-1.3b", "helios"])
def test_noise_levels_that_are_not_known_are_planned_with_a_warning_and_not_rendered(tmp_path, monkeypatch, name):
    (tmp_path / CATALOG[name].repository).mkdir(parents=True)
    monkeypatch.setenv("FRAMEPACK_RELAX_WEIGHTS", str(tmp_path))
    scenes = [fr.Scene(id="a", prompt="x", seconds=2)]
    own = {"image": str(HERO)} if find_family(name).image == "required" else {}
    told = f"{name}: its scheduler/scheduler_config.json is not on this machine"
    assert any(told in warning for warning in fr.plan(scenes, model=name, **own).warnings)
    with pytest.raises(ModelError) as caught:
        fr.render(scenes, model=name, out=tmp_path / "out", **own)
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match=r"scheduler_config\.json: is missing"):
        load(name, device="cpu")


def test_the_memory_estimate_counts_both_experts(image):
    """14.3 billion weights each, and a decode of whole pictures, which none of the presets does in tiles."""
    _, model = image
    with torch.device("meta"):
        one, other = (WanTransformer3DModel(in_channels=36, out_channels=16).to(torch.bfloat16) for _ in range(2))
        vae = AutoencoderKLWan()
    big = replace(model, transformer=one, transformer_2=other, vae=vae, dtype=torch.bfloat16)
    at = {preset: big.need(A14B.context(1, 2), 21, A14B.size, preset).total / 1e9 for preset in PRESETS}
    assert at["full"] == at["tiled"] == pytest.approx(2 * 28.6 + 0.5 + 8.3, rel=0.02) and at["offload"] < 10
    assert big.tokens(A14B.context(1, 2), 21, A14B.size) == 32_760


def test_the_motion_amplitude_is_the_nodes_on_latents_of_the_vae(image, hero):
    """Its formula written out once more, given to the pipeline; 1 is the identity, and an image unseen has none."""
    folder, model = image
    plan = two(model, hero, scene={"relax": {"target": ["context"], "beta": 0.0, **MORE}})
    made, noise = sampled(model, plan, hero)

    class Amplified(WanImageToVideoPipeline):
        def prepare_latents(self, *args, **kwargs):
            x, seen = super().prepare_latents(*args, **kwargs)
            mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in ([0.1] * 8, [1.3] * 8))
            z = seen[:, 4:] * std + mean
            for t in range(1, z.shape[2]):
                apart = z[:, :, t] - z[:, :, 0]
                z[:, :, t] = (z[:, :, 0] + (apart - apart.mean()) * 1.5 + apart.mean()).clamp(-6, 6)
            return x, torch.cat([seen[:, :4], (z - mean) / std], dim=1)

    given = {"image": hero, "num_frames": 13, "latents": noise[0], "scale": 3.5, "guidance_scale_2": 3.5}
    wanted, plain = stock(Amplified, folder, **given), stock(WanImageToVideoPipeline, folder, **given)
    assert (made[0].latents - wanted).abs().max() < 1e-4 * wanted.abs().max() < (plain - wanted).abs().max()
    off = two(model, hero, scene={"relax": {"experimental": {"motion_amplitude": 1.0}}})
    assert all(not step.effects for section in off.sections for step in section.steps)
    assert torch.equal(sampled(model, off, hero)[0][0].latents, plain)
