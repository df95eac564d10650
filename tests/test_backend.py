"""What every family keeps to: planning, sampling and rendering ask nothing else of a model.

A new family adds a line to MODELS, and to `case` its tiny folder if it has weights.
"""

import gc
import json
import weakref
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from diffusers import (
    HunyuanVideoPipeline,
)
from PIL import Image
from safetensors.numpy import load_file
from wan_folders import experts_folder, wan_folder

import framepack_relax as fr
from framepack_relax.families.backend import Given
from framepack_relax.families.base import Step
from framepack_relax.families.components import blocks_of
from framepack_relax.families.loader import load
from framepack_relax.planning.planner import make_plan
from framepack_relax.relax.effects import FreeInit, KeyGain, KVBlur, LowPass, MotionAmplitude, WordGain
from framepack_relax.relax.guidance import Branch, without
from framepack_relax.rendering.keys import section_keys
from framepack_relax.sampling.section import sample
from framepack_relax.storyboard import Scene, storyboard_from_scenes

MODELS = (
    "framepack",
    "framepack inverted",
    "hunyuanvideo",
    "wan ti2v",
    "wan image",
    "wan t2v",
    "wan experts",
    "wan i2v",
    "wan svi",
    "wan svi-pro",
    "helios",
    "helios image",
    "fake",
)
SIZE = (64, 32)
EFFECTS = {
    "kv_blur": KVBlur(sigma=0.6),
    "key_gain": KeyGain(gain=0.5),
    "word_gain": WordGain(words="waves", gain=4.0),
    "low_pass": LowPass(factor=0.5),
    "motion_amplitude": MotionAmplitude(factor=1.5),
    "free_init": FreeInit(number=1),
}
PROMPTS = ("a red figure waves on the beach", "")


@pytest.fixture(scope="module", params=MODELS)
def case(request, tiny, hunyuan, helios, tmp_path_factory):
    """A loaded model of each family, and board fields that go with it."""
    folders = {"framepack": tiny, "hunyuanvideo": hunyuan, "helios": helios}
    name, _, kind = request.param.partition(" ")
    if name == "wan":
        place = tmp_path_factory.mktemp("models") / "wan"
        if kind in ("experts", "i2v", "svi", "svi-pro"):
            folders[name] = experts_folder(place, image=kind != "experts")
        else:
            folders[name] = wan_folder(place, expand=kind != "t2v")
    Image.radial_gradient("L").resize(SIZE).convert("RGB").save(hero := tmp_path_factory.mktemp("images") / "hero.png")
    blocks = {"inverted": {"framepack": {"order": "inverted"}}, "image": {"image": str(hero)}}
    own = {**blocks, **{past: {"wan": {"past": past}} for past in ("svi", "svi-pro")}}.get(kind, {})
    return load(str(folders.get(name, name)), device="cpu"), own


def board(tmp_path, model, count=2, *, scene=None, **fields):
    """Scenes of 1.2 s, each a shot where the family has no past."""
    if model.family.image == "required":
        Image.radial_gradient("L").resize(SIZE).convert("RGB").save(tmp_path / "hero.png")
        fields = {"image": str(tmp_path / "hero.png"), **fields}
    cut = {} if model.family.grid.past else {"transition": "cut"}
    made = [Scene(id=f"s{n}", prompt=PROMPTS[0], seconds=1.2, **cut, **(scene or {})) for n in range(count)]
    return storyboard_from_scenes(made, **{"size": SIZE, "steps": 3, "sampler": "euler", **fields})


class Shots:
    """The sections of a plan, one after the other as its shots are rendered."""

    def __init__(self, model, story):
        self.model, self.plan = model, make_plan(story, model.family)
        self.family, plan = model.family.configured(story), self.plan
        self.prompts = model.encode_prompts(
            [s.prompt for s in plan.sections] + [s.negative_prompt for s in plan.sections]
        )
        images = {s.index: (Image.open(s.image).convert("RGB"), s.seed) for s in plan.shots if s.image}
        self.starts = model.encode_starts(images)

    def begin(self, section, noise, past, steps=None):
        given = Given(
            noise=noise, context=section.context, steps=steps or section.steps, past=past,
            start=self.starts.get(section.shot), prompt=self.prompts[section.prompt],
            negative=self.prompts[section.negative_prompt], options=self.plan.options,
            words=self.model.word_tokens(section.prompt, [EFFECTS["word_gain"].words]),
        )  # fmt: skip
        return self.model.begin(given)

    def noise(self, section):
        return self.model.noise(section.latents, self.plan.size, section.seed, draw=section.draw)

    def latents(self, steps=None):
        """By the section's index; `steps` makes rows of its own."""
        found = {}
        for shot in self.plan.shots:
            past = {}
            for index in shot.sections:
                section = self.plan.sections[index]
                rows, noise = steps(section) if steps else section.steps, self.noise(section)
                inputs = self.begin(section, noise, {p: past[p] for p in section.context.needs}, rows)
                how = {"sampler": self.plan.sampler, "fresh": lambda number, noise=noise: noise.flip(2)}
                past[section.place] = found[index] = sample(self.model, inputs, rows, noise, **how).latents
        return found


@pytest.fixture
def shots(case, tmp_path):
    model, own = case
    return Shots(model, board(tmp_path, model, **own))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[index], other[index]) for index in one)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_scene_at_rest_gives_the_stock_pipelines_bits(hunyuan, tmp_path, scale):
    """HunyuanVideo; FramePack's are in test_parity.py."""
    model = load(str(hunyuan), device="cpu")
    made = Shots(model, board(tmp_path, model, 1, scene={"guidance": {"text": scale}}))
    section, noise = made.plan.sections[0], made.noise(made.plan.sections[0])
    stock = HunyuanVideoPipeline.from_pretrained(hunyuan)
    stock.set_progress_bar_config(disable=True)
    wanted = stock(
        prompt=PROMPTS[0], negative_prompt=PROMPTS[1], width=SIZE[0], height=SIZE[1], num_inference_steps=3,
        num_frames=section.frames[1] - section.frames[0], guidance_scale=6.0, true_cfg_scale=scale, latents=noise,
        output_type="latent",
    ).frames  # fmt: skip
    assert wanted.shape == noise.shape and torch.equal(made.latents()[0], wanted)


@pytest.mark.parametrize("way", ["away", "ahead"])
def test_blocks_that_come_for_their_turn_give_the_same_bits(case, shots, way, request):
    """However many stay; what is away is NaN here, and what comes ahead of its turn comes for every block."""
    model, plain, back = case[0], shots.latents(), request.getfixturevalue(way)
    try:
        for count in range(model.blocks):
            model.preset = count
            model.place()
            blocks = [block for network in model.networks.values() for block in blocks_of(network)]
            gone = [block for block in blocks if all(p.isnan().all() for p in block.parameters())]
            assert len(blocks) - len(gone) == count and not model.staying(count) & {*gone}
            assert same(shots.latents(), plain) and same(shots.latents(), plain), count
            assert [block for block in blocks if all(p.isnan().all() for p in block.parameters())] == gone
            groups = [block._diffusers_hook.get_hook("group_offloading").group for block in gone]
            assert all(group.onload_self == (way == "away") for group in groups)
            back()
    finally:
        back()
        model.preset = "full"
        model.place()
    assert same(shots.latents(), plain)


def test_effects_act_and_leave_nothing_behind(case, shots):
    model, plain = case[0], shots.latents()
    for kind in sorted(model.family.effects):
        edited = shots.latents(lambda section, kind=kind: [replace(s, effects=(EFFECTS[kind],)) for s in section.steps])
        assert edited.keys() == plain.keys() and not same(edited, plain), kind
        assert all(torch.isfinite(latents).all() for latents in edited.values())
        assert same(shots.latents(), plain), kind


def test_an_error_within_a_step_leaves_nothing_behind(case, shots):
    model, plain, section = case[0], shots.latents(), shots.plan.sections[shots.plan.shots[0].sections[0]]
    inputs = shots.begin(section, shots.noise(section), {})
    with pytest.raises(ZeroDivisionError), model.acting((EFFECTS["kv_blur"],), inputs):
        raise ZeroDivisionError
    assert same(shots.latents(), plain)


def test_every_term_reaches_the_latents_and_neutral_ones_take_no_pass(case, shots):
    plain = shots.latents()
    for term in shots.family.terms:
        scales = {**shots.plan.sections[0].steps[0].scales, term.name: 0.5 if term.grip else term.base + 1}
        moved = shots.latents(lambda section, scales=scales: [replace(s, scales=scales) for s in section.steps])
        assert not same(moved, plain), term.name
    assert all(branch.name == "cond" for branch in Step(index=0, sigma=1.0, timestep=0.0, scales={}).branches)


def test_what_a_section_sees_is_what_its_context_needs(case, shots):
    """Other latents in a section that it needs change it; it begins without those that it does not need."""
    plan = shots.plan
    for shot in plan.shots:
        for turn, index in enumerate(shot.sections):
            section = plan.sections[index]
            before = {plan.sections[i].place for i in shot.sections[:turn]}
            assert set(section.context.needs) <= before and section.context.initial == (not section.context.needs)
            for place in section.context.needs:
                noise, fit = (
                    shots.noise(section),
                    {p: torch.zeros_like(shots.noise(section)) for p in section.context.needs},
                )
                step, branch = section.steps[0], Branch(name="cond")
                other = {**fit, place: fit[place] + 1}
                passes = [
                    shots.model.predict(noise, step, branch, shots.begin(section, noise, p)) for p in (fit, other)
                ]
                assert not torch.equal(*passes)


def test_without_its_grip_a_past_does_not_matter(case, shots):
    grips = [term.name for term in shots.family.terms if term.of_past]
    section = next((s for s in shots.plan.sections if s.context.needs), None)
    assert len(grips) == (section is not None)
    if section is None:
        return
    noise = shots.noise(section)
    pasts = [{p: torch.full_like(noise, float(value)) for p in section.context.needs} for value in (0, 1)]
    if shots.model.family.kind == "helios" and not shots.starts:  # which keeps the film's first frame in sight
        pasts[0][0][:, :, 0] = 1
    free = without(grips[0])
    made = [shots.model.predict(noise, section.steps[0], free, shots.begin(section, noise, past)) for past in pasts]
    assert torch.equal(*made)


def test_decoded_sections_add_up_to_the_planned_frames(case, shots):
    model, plan, latents = case[0], shots.plan, shots.latents()
    for shot in plan.shots:
        start = shots.starts[shot.index].latent if shot.image else None
        decoder = model.decoder(plan.decode, start, len(shot.sections), plan.options)
        frames = [decoder.push(latents[index]) for index in sorted(shot.sections)]
        assert sum(map(len, frames)) == shot.frames[1] - shot.frames[0]
        assert all(f.dtype == np.uint8 and f.shape[1:] == (SIZE[1], SIZE[0], 3) for f in frames)


@pytest.mark.parametrize("preset", ["full", "offload"])
def test_encoders_leave_with_their_turn(case, preset, monkeypatch):
    """And in `full` without a collection of garbage, which takes as long as a step of a small model."""
    model = case[0]
    if not model.family.parts:
        pytest.skip("it encodes nothing")
    monkeypatch.setattr(model, "preset", preset)
    gc.collect()
    gc.disable()
    try:
        with model.encoders(*model.text_parts) as pipe:
            seen = [weakref.ref(getattr(pipe, part)) for part in model.text_parts]
        assert [ref() for ref in seen] == [None] * len(seen)
    finally:
        gc.enable()


def test_the_noise_is_its_seeds_alone(case):
    model = case[0]
    one, again, other, next_draw = (
        model.noise(2, SIZE, seed, draw=draw) for seed, draw in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one, next_draw)
    ratio = model.family.spatial
    assert one.shape[2:] == (2, SIZE[1] // ratio, SIZE[0] // ratio) and one.dtype == torch.float32


def keys(story, model, weights="w", pictures=None, dtype="torch.float32"):
    plan = make_plan(story, model.family)
    pictures = pictures or {shot.image: "picture" for shot in plan.shots if shot.image}
    return [key.key for _, key in sorted(section_keys(plan, pictures, weights, dtype).items())]


CHANGES = {
    "seed": {"seed": 5},
    "steps": {"steps": 4},
    "size": {"size": (96, 32)},
    "style": {"style": "in ink"},
    "prompt": {"scene": {"prompt": "another"}},
    "scale": {"scene": {"guidance": {"text": 2.5}}},
    "blur": {"scene": {"relax": {"blur": 0.5}}},
    "context": {"scene": {"relax": {"target": ["text"], "beta": 0.5}, "guidance": {"text": 5.0}}},
}
NOTHING = {"title": {"title": "Other"}, "crf": {"crf": 30}}


def test_every_input_changes_the_keys_and_nothing_else_does(case, tmp_path):
    model, own = case
    base = board(tmp_path, model, **own)
    first = keys(base, model)
    seen = [first, keys(base, model, weights="other"), keys(base, model, dtype="torch.bfloat16")]
    for name, change in CHANGES.items():
        fields = dict(change)
        scene = fields.pop("scene", {})
        made = base.changed(
            scenes=tuple(Scene(**{**s.model_dump(exclude_defaults=True), **scene}) for s in base.scenes), **fields
        )
        seen.append(keys(made, model))
        assert all(a != b for a, b in zip(first, seen[-1], strict=True)), name
    if base.image:
        seen.append(keys(base, model, pictures={base.image: "other"}))
    assert len({tuple(row) for row in seen}) == len(seen)
    assert all(keys(base.changed(**change), model) == first for change in NOTHING.values())
    idle = base.changed(negative_prompt="no rain")
    reads = any(b.prompt == "negative" for s in make_plan(base, model.family).sections[0].steps for b in s.branches)
    assert (keys(idle, model) != first) == reads, "a prompt that no pass reads undoes nothing"


def test_the_options_of_a_family_are_part_of_its_keys(case, tmp_path):
    model, own = case
    plan = make_plan(board(tmp_path, model, **own), model.family)
    pictures = {shot.image: "picture" for shot in plan.shots if shot.image}
    first = [key.key for key in section_keys(plan, pictures, "w", "d").values()]
    for name in plan.options:
        other = replace(plan, options={**plan.options, name: "another"})
        assert all(a != key.key for a, key in zip(first, section_keys(other, pictures, "w", "d").values(), strict=True))


def test_a_film_is_encoded_once_resumed_and_the_same_again(case, tmp_path, monkeypatch):
    model, own = case
    story, encoded = board(tmp_path, model, **own), []
    encode = type(model).encode_prompts
    monkeypatch.setattr(type(model), "encode_prompts", lambda self, prompts: encode(self, encoded.append(1) or prompts))
    film = fr.render(story, out=tmp_path / "a", model=model)
    assert len(encoded) == 1 and film.report["totals"]["frames"] == film.plan.frames
    files = sorted((tmp_path / "a/shots").rglob("0*.safetensors"))
    whole = {file: load_file(file)["latents"] for file in files}
    (tmp_path / "a/video.mp4").unlink()
    files[-1].unlink()
    fr.render(story, out=tmp_path / "a", model=model)
    assert len(files) == len(film.plan.sections)
    assert all(np.array_equal(load_file(file)["latents"], whole[file]) for file in files)


def test_rows_say_all_that_happens(case, tmp_path):
    """plan.json's rows are the sampler's only orders: they read back to the very steps."""
    model, own = case
    scene = {"relax": {"blur": 0.5, "experimental": {"over_steps": "follow"}}, "intensity": 0.9}
    plan = make_plan(board(tmp_path, model, scene=scene, **own), model.family)
    section = json.loads(json.dumps(plan.sections[-1].to_json()))
    assert [row["sigma"] for row in section["steps"]] == section["sigmas"]
    for row, step in zip(section["steps"], plan.sections[-1].steps, strict=True):
        effects = tuple(type(effect)(**said) for effect, said in zip(step.effects, row["effects"], strict=True))
        again = Step(**{**{field.name: row[field.name] for field in fields(Step)}, "effects": effects})
        assert again == step and asdict(again) == asdict(step) and step.effects


def test_what_ensure_sees_of_a_section_is_what_the_film_shows(case, tmp_path):
    model, own = case
    relax = {"target": [model.family.terms[0].name], "beta": 0.7, "blur": 0.6}
    story = board(tmp_path, model, scene={"intensity": 0.9, "relax": relax}, ensure={"motion": 1, "tries": 2}, **own)
    film = fr.render(story, model=model, out=tmp_path / "out")
    for row in film.report["sections"]:
        assert row["tries"][0]["rung"] == 0 and len(row["tries"]) <= 2
        kept = next(each for each in row["tries"] if each["kept"])
        assert row["motion"] == pytest.approx(kept["motion"], rel=0.2)
