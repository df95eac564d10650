"""Stable Video Infinity: the bits of diffusers' pipeline given its condition; two grips apart; its LoRA pair."""

from itertools import combinations
from pathlib import Path

import pytest
import torch
from diffusers import WanImageToVideoPipeline
from diffusers.video_processor import VideoProcessor
from faults import here
from PIL import Image
from test_backend import Shots
from test_lora import lora_file
from test_wan import PROMPTS, SIZE, STEPS, sampled, stock
from wan_folders import experts_folder

import framepack_relax as fr
from framepack_relax.errors import StoryboardError
from framepack_relax.families.catalog import CATALOG, find_family, what_is_missing
from framepack_relax.families.loader import load
from framepack_relax.planning.planner import make_plan
from framepack_relax.relax.guidance import Branch, without
from framepack_relax.storyboard import Scene, read_storyboard, storyboard_from_scenes

pytestmark = pytest.mark.usefixtures("one_thread")

ROOFTOP = Path(__file__).parents[1] / "storyboards" / "rooftop.png"
PASTS = [{"past": "svi"}, {"past": "svi-pro"}, {"past": "svi-pro", "carry": 2}]
SCALES = {"text": 3.5, "text_low": 2.5}
PRO = PASTS[1]
MASK = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = experts_folder(tmp_path_factory.mktemp("models") / "wan", image=True)
    return folder, load(str(folder), device="cpu")


def board(hero, *relaxed, scales=SCALES, **fields):
    """A scene of a section for each `relax`."""
    words = {"prompt": PROMPTS[0], "negative_prompt": PROMPTS[1], "seconds": 0.75, "guidance": scales}
    scenes = [Scene(id=f"s{n}", relax=relax, **words) for n, relax in enumerate(relaxed)]
    return storyboard_from_scenes(scenes, **{"size": SIZE, "steps": STEPS, "image": hero.filename, **fields})


def encoded(vae, pictures):
    """Pixels of pictures, one after the other -> latents as the pipeline normalises them."""
    video = torch.cat([VideoProcessor().preprocess(picture).unsqueeze(2) for picture in pictures], dim=2)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    with torch.no_grad():
        return (vae.encode(video).latent_dist.mode() - mean) * (1.0 / std)


def condition(vae, wan, hero, last, past, latents):
    """As SVI's own scripts build it: 2.0 of pictures, 2.0 Pro of latents and zeros; the first frame is marked."""
    if wan["past"] == "svi":
        seen = encoded(vae, [last or hero] + [hero] * (4 * latents - 4))
    else:
        parts = [encoded(vae, [hero]), *([past[:, :, -wan.get("carry", 1) :]] if past is not None else [])]
        empty = latents - sum(part.shape[2] for part in parts)
        seen = torch.cat([*parts, torch.zeros_like(parts[0]).repeat_interleave(empty, dim=2)], dim=2)
    mask = torch.zeros(1, MASK, *seen.shape[2:])
    mask[:, :, 0] = 1
    return torch.cat([mask, seen], dim=1)


@pytest.mark.parametrize("wan", PASTS, ids=str)
def test_every_section_at_rest_is_the_stock_pipelines_given_svis_condition(model, hero, wan):
    """The whole chain, section by section; what it repeats is dropped, and the film has its frames."""
    folder, svi = model
    plan = make_plan(board(hero, {}, {}, {}, wan=wan), svi.family)
    made, noise = sampled(svi, plan, hero)
    again = 1 + plan.options.get("carry", 0)
    assert [section.latents for section in plan.sections] == [4, 3 + again, 3 + again]
    decoder, last, past, count = svi.decoder("stream", None, 3, plan.options), None, None, 0
    for section in plan.sections:
        x = noise[section.place]

        class Given(WanImageToVideoPipeline):
            def prepare_latents(self, *args, x=x, last=last, past=past, **kwargs):
                return x, condition(self.vae, wan, hero, last, past, x.shape[2])

        given = {"image": hero, "num_frames": 4 * section.latents - 3, "scale": 3.5, "guidance_scale_2": 2.5}
        past = made[section.place].latents
        assert torch.equal(past, stock(Given, folder, **given))
        frames = decoder.push(past)
        assert len(frames) == section.frames[1] - section.frames[0] == (12 if section.place else 13)
        last, count = Image.fromarray(frames[-1]), count + len(frames)
    assert count == plan.frames == 37


@pytest.mark.parametrize("past", ["svi", "svi-pro"])
def test_a_half_alone_is_what_the_model_knows_by_itself(model, hero, past):
    """Without the motion a section sees what a shot's first one does; without the anchor SVI 2.0 sees what the stock
    pipeline does, and 2.0 Pro the motion between zeros, unmarked."""
    svi = model[1]
    shots, plain = (Shots(svi, board(hero, {}, {}, **own)) for own in ({"wan": {"past": past}}, {}))
    first, second = shots.plan.sections
    noise = shots.noise(second)
    inputs = shots.begin(second, noise, {0: torch.ones_like(noise)})
    opening = shots.begin(first, noise, {})

    def made(branch, inputs):
        return svi.predict(noise, second.steps[0], branch, inputs)

    cond = Branch(name="cond")
    assert torch.equal(made(without("motion"), inputs), made(cond, opening))
    assert torch.equal(made(without("motion"), opening), made(cond, opening)), "there is nothing to loosen"
    seen = inputs.beside["anchor"]
    if past == "svi":
        stock_inputs = plain.begin(plain.plan.sections[1], noise, {0: torch.ones_like(noise)})
        assert torch.equal(made(without("anchor"), inputs), made(cond, stock_inputs))
    else:
        assert not seen[:, :MASK].any() and not seen[:, :, [0, *range(2, seen.shape[2])]].any()
        assert (seen[:, MASK:, 1] == 1).all()
    different = [made(branch, inputs) for branch in (cond, without("anchor"), without("motion"))]
    assert not any(torch.equal(*pair) for pair in combinations(different, 2))


@pytest.mark.parametrize("past", ["svi", "svi-pro"])
def test_each_half_loosens_apart_and_what_is_at_rest_takes_no_pass(model, hero, past):
    svi = model[1]

    def rendered(*target, beta=0.75):
        relax = {"target": list(target), "beta": beta} if target else {}
        plan = make_plan(board(hero, relax, relax, wan={"past": past}), svi.family)
        return plan, sampled(svi, plan, hero)[0]

    made = {target: rendered(*target) for target in [(), ("anchor",), ("motion",), ("anchor", "motion")]}
    for target, (plan, sections) in made.items():
        for section in plan.sections:
            loose = [grip for grip in target if grip == "anchor" or section.place]
            names = [branch.name for branch in section.steps[0].branches]
            assert names == ["cond", "uncond", *loose]
            assert set(section.scales) == {"text", "text_low", "anchor", "motion"}
            assert all(set(section.scales[grip]) == {1.0} for grip in {"anchor", "motion"} - {*loose})
            assert all(section.scales[grip][0] == pytest.approx(0.25, abs=2e-3) for grip in loose)
            passes = sum(branch.name in loose for step in section.steps for branch in step.branches)
            assert sections[section.place].forwards["free"] == passes and (passes > 0) == bool(loose)
    for one, other in combinations(made, 2):
        for place in (0, 1):
            same = torch.equal(made[one][1][place].latents, made[other][1][place].latents)
            assert same == (place == 0 and ("anchor" in one) == ("anchor" in other)), (one, other, place)
    off = rendered("anchor", "motion", beta=0.0)[1]
    assert all(torch.equal(off[place].latents, made[()][1][place].latents) for place in (0, 1))


def test_the_halves_add_up_as_written(model, hero):
    """v + (1 - s_a)(v without the anchor - v) + (1 - s_m)(v without the motion - v), in a single step of Euler's."""
    svi = model[1]
    relaxed = {"target": ["anchor", "motion"], "beta": 0.6}
    shots = Shots(svi, board(hero, {}, relaxed, scales={"text": 1.0}, wan=PRO, steps=1, sampler="euler"))
    made, section = shots.latents(), shots.plan.sections[1]
    noise, step = shots.noise(section), section.steps[0]
    inputs = shots.begin(section, noise, {0: made[0]})
    v, a, m = (
        svi.predict(noise, step, branch, inputs)
        for branch in (Branch(name="cond"), without("anchor"), without("motion"))
    )
    wanted = v + (1 - step.scales["anchor"]) * (a - v) + (1 - step.scales["motion"]) * (m - v)
    assert step.scales["anchor"] == step.scales["motion"] < 0.5
    assert torch.equal(made[1], noise - step.sigma * wanted)


def test_clips_are_of_at_most_81_frames_of_which_five_are_the_pros_repeats():
    def sections(name, seconds, **fields):
        scene = Scene(id="a", prompt="x", seconds=seconds)
        plan = make_plan(storyboard_from_scenes([scene], image=str(ROOFTOP), **fields), find_family(name))
        return [(s.frames[1] - s.frames[0], s.latents) for s in plan.sections]

    assert sections("wan2.2-svi-pro", 14.3) == [(77, 20), (76, 21), (76, 21)]
    assert sections("wan2.2-svi-pro", 13.6, wan={"carry": 2}) == [(73, 19), (72, 21), (72, 21)]
    assert sections("wan2.2-svi", 10.06) == [(81, 21), (80, 21)] == sections("wan2.2-a14b", 10.06)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The catalogue's repositories on this machine: tiny ones."""
    entry = CATALOG["wan2.2-svi-pro"]
    folder = experts_folder(tmp_path / "weights" / entry.repository, image=True)
    (folder / "framepack_relax.json").unlink()
    transformer = load(str(folder), device="cpu").transformer
    for seed, lora in enumerate(entry.family.lora):
        file = tmp_path / "weights" / lora.file
        file.parent.mkdir(parents=True, exist_ok=True)
        lora_file(transformer, file, seed)
    monkeypatch.setenv("FRAMEPACK_RELAX_WEIGHTS", str(tmp_path / "weights"))
    return entry, tmp_path / "weights"


def test_the_catalogues_name_is_the_model_its_past_and_its_pair(weights, hero, tmp_path):
    """Each expert wears its own file; said line by line it is the same film, and another file makes another."""
    entry, place = weights
    relaxed = {"target": ["anchor"], "beta": 0.5}
    story = board(hero, {}, relaxed, model="wan2.2-svi-pro", steps=3)
    film = fr.render(story, out=tmp_path / "out")
    assert [(row["file"], row["network"]) for row in film.report["lora"]] == [
        (lora.file, network) for lora, network in zip(entry.family.lora, ("transformer", "transformer_2"), strict=True)
    ]
    assert [lora.file for lora in film.plan.lora] == [lora.file for lora in entry.family.lora]
    said = {"wan": PRO, "lora": [vars(lora) for lora in entry.family.lora]}
    again = fr.render(story.changed(model=str(place / entry.repository), **said), out=tmp_path / "out")
    assert all(section["reused"] for section in again.report["sections"])
    bare = fr.plan(story.changed(model=str(place / entry.repository), wan=PRO))
    assert any("only SVI's LoRA have learned it" in warning for warning in bare.warnings) and not bare.lora
    high, low = (place / lora.file for lora in entry.family.lora)
    low.write_bytes(high.read_bytes())
    other = fr.render(story, out=tmp_path / "out")
    assert not any(section["reused"] for section in other.report["sections"])


def test_what_is_not_on_the_machine_is_named_with_the_pair(weights):
    entry, place = weights
    assert not what_is_missing("wan2.2-svi-pro")
    (place / "vita-video-gen").rename(place / "elsewhere")
    told = what_is_missing("wan2.2-svi-pro")
    assert told.count("hf download") == 1 and all(lora.file.split("/", 2)[2] in told for lora in entry.family.lora)


def test_what_a_board_may_not_say_is_told_at_its_place(model, hero):
    for own, path, told in (
        ({"past": "svi", "carry": 2}, "wan.carry", "has no such setting"),
        ({"carry": 2}, "wan.carry", "has no such setting"),
        (
            {"past": "svi-pro"},
            "scenes[0].relax.target[0]",
            "has no restraint context; known are text, text_low, anchor",
        ),
    ):
        with pytest.raises(StoryboardError) as caught:
            make_plan(
                board(hero, {"target": ["context"]} if path.startswith("scenes") else {}, wan=own), model[1].family
            )
        assert len(caught.value.problems) == 1 and caught.value.problems[0].path == path and told in str(caught.value)
    alone = make_plan(board(hero, {"target": ["motion"], "beta": 0.5}, wan=PRO), model[1].family)
    assert any("target motion does nothing where no past of the shot is rendered" in told for told in alone.warnings)
    assert not any("embedded" in told for told in alone.warnings), "it has no such restraint"
    loose = make_plan(board(hero, {"target": ["anchor"], "beta": 0.5}, wan=PRO), model[1].family)
    assert not any("target anchor" in told for told in loose.warnings)


def test_a_profile_may_target_the_halves_and_a_table_shows_their_scales(model, hero, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\ntarget: [anchor, motion]\npoints: [[0, 0], [1, 0.5]]\n")
    story = board(hero, {}, {}, wan=PRO, profile=str(tmp_path / "mine.yaml"))
    story = story.changed(scenes=[scene.model_copy(update={"intensity": 1.0}) for scene in story.scenes])
    film = fr.render(story, out=tmp_path / "out", model=model[1])
    assert film.plan.sections[1].relaxation.target == ("anchor", "motion")
    told = " ".join(here("plan", tmp_path / "out/story.yaml").stdout.split())
    assert "anchor 0.5" in told and "motion 0.5" in told


def test_the_storyboard_that_ships_is_planned_for_the_real_model(pytestconfig):
    plan = make_plan(
        read_storyboard(pytestconfig.rootpath / "storyboards/rooftop-svi.yaml"), find_family("wan2.2-svi-pro")
    )
    assert (plan.kind, plan.size, plan.fps, plan.options["past"], plan.options["carry"]) == (
        "wan",
        (832, 480),
        16,
        "svi-pro",
        1,
    )
    assert [section.latents for section in plan.sections] == [20, 21, 21, 21, 21] and len(plan.shots) == 1
    loose = [{grip for grip in ("anchor", "motion") if section.scales[grip][0] < 1} for section in plan.sections]
    assert loose == [set(), {"anchor"}, {"anchor", "motion"}, {"anchor", "motion"}, set()]


@pytest.mark.slow
def test_the_storyboard_that_ships_is_rendered(weights, pytestconfig, tmp_path):
    board = pytestconfig.rootpath / "storyboards/rooftop-svi.yaml"
    done = fr.render(board, out=tmp_path / "out", size=SIZE)
    assert done.path.exists() and done.report["totals"]["frames"] == done.plan.frames == 381
    free = [section["forwards"]["free"] for section in done.report["sections"]]
    assert [bool(passes) for passes in free] == [False, True, True, True, False]
