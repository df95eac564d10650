"""The plan: the grid, seeds that stay, history slots against diffusers' pipeline, sigmas against its scheduler."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoFramepackPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import calculate_shift
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from framepack_relax.errors import StoryboardError
from framepack_relax.families.catalog import CATALOG
from framepack_relax.families.flow import FlowShift, sigma_table
from framepack_relax.families.framepack.family import FramePack, nearest_bucket
from framepack_relax.families.framepack.history import slots
from framepack_relax.planning.grid import fitting_seconds, snap
from framepack_relax.planning.planner import make_plan
from framepack_relax.relax.effects import Ramp
from framepack_relax.rendering.keys import section_keys
from framepack_relax.storyboard import (
    Scene,
    dump_storyboard,
    parse_storyboard,
    read_storyboard,
    storyboard_from_scenes,
)
from framepack_relax.storyboard.schema import Experimental

F1 = CATALOG["framepack-f1"].family
FRAMEPACK = CATALOG["framepack"].family


@pytest.fixture
def image(tmp_path):
    file = tmp_path / "start.png"
    Image.new("RGB", (640, 480), "navy").save(file)
    return str(file)


def scene(name, seconds=2.4, **fields):
    return Scene(id=name, prompt=f"prompt of {name}", seconds=seconds, **fields)


def plan_of(image, *scenes, model=F1, **board):
    return make_plan(storyboard_from_scenes(scenes, image=image, **board), model)


@pytest.mark.parametrize(
    ("seconds", "counts"),
    [([2.4, 2.4], [2, 2]), ([3.0], [3]), ([1.7, 1.7], [1, 2]), ([0.6, 0.6], [1, 0]), ([60.0], [50]), ([0.5], [0])],
)
def test_scene_ends_snap_half_up(seconds, counts):
    assert snap([seconds], Fraction(30), FramePack.grid) == [counts]


SECONDS = st.floats(0.01, 500) | st.integers(1, 60).map(float) | st.integers(1, 600).map(lambda n: n / 10)
BOARDS = st.lists(st.lists(SECONDS, min_size=1, max_size=8), min_size=1, max_size=30)
RATES = st.integers(1, 240).map(Fraction) | st.sampled_from([Fraction(30000, 1001), Fraction(24000, 1001)])


def ends(shots, fps):
    """(number of the last frame, seconds asked for up to there, sections) of every scene."""
    first, asked = 0, Fraction(0)
    for shot, counts in zip(shots, snap(shots, fps, FramePack.grid), strict=True):
        sections = 0
        for seconds, count in zip(shot, counts, strict=True):
            asked, sections = asked + Fraction(repr(seconds)), sections + count
            yield first + 36 * sections, asked, count
        first += 36 * sections + 1


@given(BOARDS, RATES)
def test_no_scene_ends_more_than_half_a_section_off(shots, fps):
    for last, asked, count in ends(shots, fps):
        if not count:
            break  # a mistake, after which nothing is promised
        assert abs(last - asked * fps) <= 18


@given(BOARDS, RATES)
@example([[56.0], [1.0, 1.0, 2.0, 1.0, 2.0, 165.6953125], [1.0, 1.0, 103.5, 1.4765625]], Fraction(24000, 1001))
def test_the_seconds_that_are_proposed_give_every_scene_a_section(shots, fps):
    fitting = fitting_seconds(shots, fps, FramePack.grid)
    assert all(count >= 1 for _, _, count in ends(fitting, fps))
    for shot, fits in zip(shots, fitting, strict=True):
        assert all(after >= before for before, after in zip(shot, fits, strict=True))
    if all(count for _, _, count in ends(shots, fps)):
        assert fitting == shots, "what fits is left alone"


@given(st.lists(SECONDS, min_size=1, max_size=20), st.integers(1, 240))
def test_a_board_of_one_shot_has_its_sections_by_whole_sections_of_time(seconds, fps):
    total, before, counts = Decimal(0), 0, []
    for asked in seconds:
        total += Decimal(repr(asked))
        end = int((total * fps / 36).quantize(Decimal(1), rounding=ROUND_HALF_UP))
        counts.append(end - before)
        before = end
    assert snap([seconds], Fraction(fps), FramePack.grid) == [counts]


def test_rounding_is_carried_across_cuts(image):
    cuts = [scene(f"s{k}", 3.0, transition="cut" if k else "continue") for k in range(10)]
    plan = plan_of(image, *cuts)
    assert plan.frames == 910 and plan.seconds == pytest.approx(30.33, abs=0.01), "rather than 874"
    assert len(plan.shots) == 10 and all(shot.frames[1] - shot.frames[0] in (73, 109) for shot in plan.shots)
    assert [timing.frames for timing in plan.scenes] == [shot.frames for shot in plan.shots]
    short = [scene(f"s{k}", 1.7, transition="cut" if k else "continue") for k in range(10)]
    plan = plan_of(image, *short)
    assert plan.seconds == pytest.approx(17.0, abs=0.6) and all(timing.sections for timing in plan.scenes)


@pytest.mark.parametrize(("count", "fps"), [(6, 30), (6, 24), (60, 30), (300, 30)])
def test_scenes_that_are_too_short_are_told_each_in_its_place_with_seconds_that_fit(image, count, fps):
    """Who writes what is proposed has a film, of very many scenes after some rounds."""
    scenes, told = [scene(f"s{k}", 1.0) for k in range(count)], 0
    for _ in range(2 + count // 40):
        try:
            plan = plan_of(image, *scenes, fps=fps)
            break
        except StoryboardError as error:
            problems = error.problems
        assert 1 <= len(problems) <= 41 and f"grid of {36 / fps:g} s" in problems[0].message
        assert (len(problems) == 41) == (problems[-1].message.endswith("mend those before it first"))
        for problem in problems[:40]:
            index, (fits,) = int(problem.path[7:-9]), re.findall(r"; write ([\d.]+)$", problem.message)
            scenes[index], told = scene(f"s{index}", float(fits)), told + 1
    assert told and [len(timing.sections) for timing in plan.scenes] == [1] * count


def test_where_too_short_scenes_stand_is_said_beside_the_ones_that_are_so_only_then(image):
    with pytest.raises(StoryboardError) as caught:
        plan_of(image, *(scene(f"s{k}", 1.0) for k in range(6)))
    assert [str(problem) for problem in caught.value.problems] == [
        "scenes[3].seconds: 1 s gets no section: scenes end on a grid of 1.2 s; write 1.2",
        "scenes[4].seconds: 1 s is too short as soon as scenes[3] gets one; write 1.2",
        "scenes[5].seconds: 1 s is too short as soon as scenes[3] gets one; write 1.2",
    ]


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(30, Fraction(30)), (30.0, Fraction(30)), (29.97, Fraction(30000, 1001)), (23.976, Fraction(24000, 1001))],
)
def test_frame_rates_of_broadcasters_are_exact(image, fps, rate):
    plan = plan_of(image, scene("a", 600.0), fps=fps)
    assert plan.rate == rate and plan.fps == fps and json.loads(json.dumps(plan.to_json()))["fps"] == fps
    assert plan.seconds == pytest.approx(float(plan.frames / rate), abs=1e-12)
    assert abs(plan.seconds - 600.0) <= float(19 / rate)
    again = parse_storyboard(dump_storyboard(storyboard_from_scenes([scene("a")], fps=fps)))
    assert again.fps == fps and isinstance(again.fps, int) == (fps == 30)


@pytest.mark.parametrize(("fps", "cure"), [(24.5, "a whole number"), (29.98, "write 29.97"), (23.98, "write 23.976")])
def test_other_broken_frame_rates_are_refused_with_a_cure(image, fps, cure):
    with pytest.raises(StoryboardError, match=rf"fps: is {fps}; .*{cure}"):
        plan_of(image, scene("a"), fps=fps)


def test_sixty_seconds_are_1801_frames(image):
    plan = plan_of(image, *(scene(f"s{k}", 2.5) for k in range(24)))
    assert plan.frames == 1801 and plan.seconds == pytest.approx(60.03, abs=0.01)


def test_frames_cover_the_film_once_and_a_shot_owns_its_extra_frame(image):
    plan = plan_of(image, scene("a"), scene("b", 3.6), scene("c", 1.2, transition="cut"), scene("d"))
    spans = [section.frames for section in plan.sections]
    assert spans[0] == (0, 37) and [end for _, end in spans[:-1]] == [first for first, _ in spans[1:]]
    assert [end - first for first, end in spans] == [37, 36, 36, 36, 36, 37, 36, 36]
    assert [shot.frames for shot in plan.shots] == [(0, 181), (181, 290)]
    assert [s.frames for s in plan.scenes] == [(0, 73), (73, 181), (181, 218), (218, 290)]


def test_a_scene_without_a_section_is_an_error_that_names_it(image):
    with pytest.raises(StoryboardError, match=r"scenes\[1\]\.seconds: 0\.1 s gets no section: .*grid of 1\.2 s"):
        plan_of(image, scene("a"), scene("b", 0.1))


def test_a_film_of_too_many_sections_is_refused(image):
    with pytest.raises(StoryboardError, match="3334 sections; at most 3000"):
        plan_of(image, scene("a", 2000.0), scene("b", 2000.8))


def test_a_missing_start_image_is_an_error_that_names_the_shot():
    with pytest.raises(StoryboardError, match=r"scenes\[0\]: shot 1 has no start image"):
        make_plan(storyboard_from_scenes([scene("a")]), F1)


def test_inserting_a_scene_changes_no_other_scenes_noise(image):
    before = plan_of(image, scene("a"), scene("b"))
    after = plan_of(image, scene("a"), scene("new"), scene("b"))
    seeds = [{(s.scene, s.seed) for s in plan.sections} for plan in (before, after)]
    assert seeds[0] < seeds[1] and len(seeds[1]) == 6
    assert before.sections[0].seed == 12414424345581208578, "seeds are part of the format: they never change"


def test_a_scenes_own_seed_changes_only_its_noise(image):
    plain, own = plan_of(image, scene("a"), scene("b")), plan_of(image, scene("a"), scene("b", seed=5))
    assert [a.seed == b.seed for a, b in zip(plain.sections, own.sections, strict=True)] == [True, True, False, False]
    assert plain.shots[0].seed == own.shots[0].seed


@pytest.mark.parametrize("order", ["forward", "inverted"])
def test_history_and_indices_are_the_pipelines_for_1_to_12_sections(tiny, order):
    """The transformer's arguments, caught, against the slots filled from what the pipeline itself produced."""
    pipe = HunyuanVideoFramepackPipeline.from_pretrained(tiny, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    kind = {"forward": "vanilla", "inverted": "inverted_anti_drifting"}[order]
    for sections in range(1, 13):
        calls, made = [], []

        def fake(calls=calls, made=made, **kwargs):
            calls.append(kwargs)
            made.append(torch.full_like(kwargs["hidden_states"], float(len(calls))))
            return (kwargs["hidden_states"] - made[-1],)  # one Euler step from sigma 1 to 0 then gives made[-1]

        pipe.transformer.forward = fake
        pipe(
            image=Image.new("RGB", (32, 32), "teal"), prompt="x", height=32, width=32, num_frames=33 * sections,
            num_inference_steps=1, sampling_type=kind, generator=torch.Generator().manual_seed(0), output_type="latent",
        )  # fmt: skip
        assert len(calls) == sections
        latents = {0: calls[0]["latents_clean"][:, :, :1]}
        places = FramePack(name="x", order=order).render_order(sections)
        for call, value, place in zip(calls, made, places, strict=True):
            slot = slots(order, place, sections)
            assert call["indices_latents"].tolist() == list(slot.section_index)
            assert call["indices_latents_clean"].tolist() == [0, *slot.near_index]
            assert call["indices_latents_history_2x"].tolist() == list(slot.mid_index)
            assert call["indices_latents_history_4x"].tolist() == list(slot.far_index)
            zeros = torch.zeros_like(latents[0])
            for positions, got in (
                ((0, *slot.near), call["latents_clean"]),
                (slot.mid, call["latents_history_2x"]),
                (slot.far, call["latents_history_4x"]),
            ):
                wanted = torch.cat([zeros if p is None else latents[p] for p in positions], dim=2)
                assert torch.allclose(got, wanted, atol=1e-5)
            latents |= {9 * place + 1 + k: frame for k, frame in enumerate(value.split(1, dim=2))}


def test_framepacks_noise_is_one_seed_a_shot_drawn_in_rendering_order(image):
    scenes = (scene("a"), scene("b"), scene("c", transition="cut", seed=5))
    plan = plan_of(image, *scenes, noise="framepack", seed=7)
    assert [(s.seed, s.draw) for s in plan.sections] == [(7, 0), (7, 1), (7, 2), (7, 3), (5, 0), (5, 1)]
    backwards = plan_of(image, *scenes, noise="framepack", seed=7, framepack={"order": "inverted"})
    assert [s.draw for s in backwards.sections] == [3, 2, 1, 0, 1, 0]
    assert {s.draw for s in plan_of(image, *scenes).sections} == {0}


def test_framepacks_noise_takes_no_seed_from_later_scenes(image):
    with pytest.raises(StoryboardError, match=r"scenes\[1\]\.seed: .*remove the line"):
        plan_of(image, scene("a"), scene("b", seed=5), noise="framepack")


def test_lengths_that_framepacks_programs_round_otherwise_are_said_beside_its_noise(image):
    three = scene("a", seconds=3.0)  # 2.5 sections
    said = plan_of(image, three, noise="framepack").warnings
    assert len(said) == 1 and "make 2 sections, not 3" in said[0]
    assert not plan_of(image, three).warnings and not plan_of(image, scene("a"), noise="framepack").warnings


@pytest.mark.parametrize("size", [(96, 96), (320, 320), (640, 608)])
@pytest.mark.parametrize("steps", [1, 8, 25, 50])
def test_sigmas_are_the_euler_schedulers_bit_for_bit(size, steps):
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    mu = min(calculate_shift(9 * (size[0] // 8) * (size[1] // 8) / 4), np.log(7.0))
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1], mu=mu)
    levels = F1.levels(steps, size, "euler")
    ours = np.array([sigma for sigma, _ in levels], np.float32)
    assert ours.tolist() == [sigma for sigma, _ in levels] and np.array_equal(ours, scheduler.sigmas[:-1].numpy())
    assert [timestep for _, timestep in levels] == (scheduler.sigmas[:-1] * 1000).tolist()
    assert ours[0] == 1 and np.all(np.diff(ours) < 0)


def test_a_static_shift_is_the_schedulers_too():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, 11)[:-1])
    ours = sigma_table(10, FlowShift(shift=7.0), 7.0, sampler="euler")
    assert [sigma for sigma, _ in ours] == scheduler.sigmas[:-1].tolist()


def test_the_640_buckets_saturate_the_shift():
    seven = sigma_table(10, FlowShift(use_dynamic_shifting=True), 7.0, sampler="euler")
    assert np.array(F1.levels(10, (640, 608), "euler")) == pytest.approx(np.array(seven))
    assert nearest_bucket(1920, 1080) == (832, 480) and nearest_bucket(500, 500) == (608, 640), "FramePack's"


def test_the_size_is_the_boards_else_the_models_else_the_images_bucket(image):
    assert plan_of(image, scene("a")).size == (704, 544)
    assert plan_of(image, scene("a"), size=(96, 128)).size == (96, 128)
    assert plan_of(image, scene("a"), model=replace(F1, size=(64, 64))).size == (64, 64)


def test_calm_scenes_are_at_rest_and_dynamic_ones_follow_eq2(image):
    calm, flip = (plan_of(image, scene("x", intensity=i)).sections[1] for i in (0.25, 1.0))
    assert calm.relaxation.at_rest and set(calm.scales["embedded"]) == {10.0} and set(calm.scales["text"]) == {1.0}
    assert flip.relaxation.beta == 0.75 and flip.relaxation.blur == 0.6
    wanted = [1 + 9 * (1 - 0.75 * s**0.7) for s in flip.sigmas]
    assert flip.scales["embedded"] == pytest.approx(wanted) and set(flip.scales["text"]) == {1.0}


def test_explicit_values_win_over_the_profile(image):
    relax = {"target": ["context"], "beta": 0.5, "p": "linear", "blur": 0.0, "experimental": {"coord": "progress"}}
    sections = plan_of(image, scene("x", intensity=0.1, relax=relax), steps=4).sections
    assert sections[0].context.initial and set(sections[0].scales["context"]) == {1.0}, "h is h0: nothing to loosen"
    assert sections[1].scales["context"] == pytest.approx([0.5, 0.625, 0.75, 0.875])
    assert set(sections[1].scales["embedded"]) == {10.0}


def test_settings_that_contradict_are_told_and_odd_ones_warned(image):
    with pytest.raises(
        StoryboardError, match=r"scenes\[0\]\.relax\.min: is 0\.5; for target text it must be between 1"
    ):
        plan_of(image, scene("x", guidance={"text": 4.0}, relax={"target": ["text"], "min": 0.5, "beta": 0.5}))
    warned = plan_of(
        image,
        scene("x", relax={"beta": -0.5}),
        scene("y", relax={"beta": 1.0, "target": ["text"]}),
        scene("z", relax={"beta": 1.0, "target": ["context"]}),  # 0.75 is the paper's best for guidance
    ).warnings
    assert [word in text for word, text in zip(("boosts", "over-relaxed", "does nothing"), warned, strict=True)] == [
        True
    ] * 3


@pytest.mark.parametrize(("order", "where"), [("forward", "before"), ("inverted", "after")])
def test_context_alone_where_there_is_no_past_is_warned_of(image, order, where):
    loose = {"target": ["context"], "beta": 0.75, "blur": 0.0}
    warned = plan_of(image, scene("x", 1.2, relax=loose), framepack={"order": order}).warnings
    assert len(warned) == 1 and warned[0].startswith("scene x: target context does nothing")
    assert f"put a calm scene {where} it" in warned[0]
    helped = [scene("calm"), scene("x", 1.2, relax=loose), scene("rest")]
    assert not plan_of(image, *helped, framepack={"order": order}).warnings
    longer = scene("x", 2.4, relax=loose)
    assert not plan_of(image, longer, framepack={"order": order}).warnings, "its other section has a past"
    for more in ({"target": ["context", "embedded"]}, {"blur": 0.6}, {"history_gain": 0.5}, {"beta": 0.0}):
        assert not plan_of(image, scene("x", 1.2, relax=loose | more), framepack={"order": order}).warnings


@pytest.mark.parametrize(
    ("idle", "cure"),
    [
        ({"interval": (0.2, 0.8)}, {"schedule": "interval"}),
        ({"lowpass_above": 0.9}, {"lowpass": 0.4}),
        ({"history_gain_above": 0.7, "gain_on": "all"}, {"history_gain": 0.5}),
        ({"blur_of": "k", "scope": "all", "space": "pre_rope", "over_steps": "follow"}, {"blur": 0.6}),
    ],
)
def test_settings_that_nothing_comes_of_are_warned_of(image, idle, cure):
    off = {"schedule": "power", "lowpass": 1.0, "history_gain": 1.0, "blur": 0.0}

    def warned(fields):
        apart = {name: value for name, value in fields.items() if name in Experimental.model_fields}
        relax = {name: value for name, value in fields.items() if name not in apart}
        return plan_of(image, scene("x", intensity=0.9, relax={**relax, "experimental": apart})).warnings

    (told,) = warned(off | idle)
    assert told.startswith("scene x: ") and all(name in told for name in (*idle, *cure))
    assert not warned(off) and not warned(off | idle | cure)


def test_freeinit_is_further_passes_over_the_same_noise_levels(image):
    def steps(**experimental):
        act = scene("x", 1.2, relax={"blur": 0.6, "experimental": experimental})
        return plan_of(image, act, steps=5).sections[0].steps

    once, more = steps(), steps(freeinit=2)
    assert steps(freeinit=0) == once == more[:5] and len(more) == 15
    assert [step.index for step in more] == [*range(15)] and [step.again for step in more] == [0] * 5 + [1] * 5 + [
        2
    ] * 5
    assert all((a.sigma, a.scales) == (b.sigma, b.scales) for a, b in zip(once * 3, more, strict=True))
    with pytest.raises(StoryboardError, match=r"experimental\.freeinit: begins from noise, and the scene from a draft"):
        act = scene("x", 1.2, relax={"experimental": {"freeinit": 1}})
        plan_of(image, act, start_from={"folder": "out/draft"})


def test_a_ramp_acts_where_context_is_loosened_and_knows_where_the_past_is(image):
    loose = {"target": ["context"], "beta": 0.75, "experimental": {"ramp": 4}}
    for model, past_after in ((F1, False), (FRAMEPACK, True)):
        sections = plan_of(image, scene("x", 2.4, relax=loose), model=model).sections
        ramps = [[e for e in s.steps[0].effects if isinstance(e, Ramp)] for s in sections]
        assert [Ramp(frames=4, past_after=past_after)] in ramps and [] in ramps, "one has no past"
    (told,) = plan_of(image, scene("x", relax={"beta": 0.5, "experimental": {"ramp": 4}})).warnings
    assert "ramp without effect: needs target: [context]" in told


def test_a_frame_rate_or_size_far_from_the_models_own_is_warned_of(image):
    (told,) = plan_of(image, scene("a"), fps=24).warnings
    assert told.startswith("fps 24: framepack-f1") and "30 frames a second" in told and "0.8 times as fast" in told
    (told,) = plan_of(image, scene("a"), size=(96, 96)).warnings
    assert told.startswith("size 96x96: ") and "704x544" in told, "its bucket for this image"
    (told,) = plan_of(image, scene("a"), size=(256, 256), model=replace(F1, size=(96, 96))).warnings
    assert "7.1 times the area of 96x96" in told
    for narrow, like in (((1024, 384), "640x608"), ((384, 1024), "640x608")):
        (told,) = plan_of(image, scene("a"), size=narrow, model=replace(F1, size=(640, 608))).warnings
        assert f"times the aspect ratio of {like}" in told, "on the model's own area"
    (told,) = plan_of(image, scene("a"), size=(1600, 256)).warnings
    assert "2.7 times the aspect ratio of 960x416" in told, "the widest of FramePack's buckets"
    wide, tall = {"size": (960, 416)}, {"size": (416, 960)}  # buckets, though not the one of this image
    for near in ({"fps": 29.97}, {"fps": 30}, {"size": (640, 480)}, {"size": (832, 480)}, wide, tall):
        assert not plan_of(image, scene("a"), **near).warnings


def test_of_very_many_scenes_equal_warnings_are_one_that_counts_them(image):
    idle = {"history_gain_above": 0.5}
    scenes = [scene(f"s{k}", 1.2, negative_prompt="ugly", relax=idle) for k in range(3000)]
    told = plan_of(image, *scenes, steps=1).warnings
    assert len(told) == 2 and all(line.startswith("scene s0, s1, s2, s3, s4, s5, and 2994 more: ") for line in told)
    assert "negative_prompt" in told[0] and "history_gain_above" in told[1]
    (told,) = plan_of(image, *scenes[:7], scene("calm"), negative_prompt="ugly", steps=1).warnings[:1]
    assert "scene" not in told, "what holds of the board"
    for count, places in ((1, "scene s0"), (2, "scene s0, s1"), (6, "scene s0, s1, s2, s3, s4, s5")):
        assert plan_of(image, *scenes[:count], steps=1).warnings[1].startswith(f"{places}: history_gain_above")


def test_a_plan_knows_the_size_of_each_start_image(image, tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "other.png")
    plan = plan_of(image, scene("a"), scene("b", transition="cut", image=str(tmp_path / "other.png")))
    assert [shot.image_size for shot in plan.shots] == [(640, 480), (50, 40)]


def test_negative_prompts_that_are_not_read_are_warned_of(image):
    guided = {"guidance": {"text": 4.0}}
    (told,) = plan_of(image, scene("x"), scene("y"), negative_prompt="ugly").warnings
    assert told.startswith("negative_prompt without effect")
    assert not plan_of(image, scene("x"), scene("y", **guided), negative_prompt="ugly").warnings
    (told,) = plan_of(image, scene("x", negative_prompt="ugly"), scene("y", negative_prompt="")).warnings
    assert told.startswith("scene x: negative_prompt without effect")
    assert not plan_of(image, scene("x", negative_prompt="ugly", **guided)).warnings


@pytest.mark.parametrize("words", ["ugly, Static, dull", "motionless", "still picture", "静态", "静止不动的画面"])
def test_a_negative_prompt_that_pushes_away_from_stillness_is_told_where_text_is_relaxed(image, words):
    loose = {"guidance": {"text": 4.0}, "relax": {"target": "text", "beta": 0.5}}
    (told,) = plan_of(image, scene("calm", guidance={"text": 4.0}), scene("x", **loose), negative_prompt=words).warnings
    assert told.startswith("scene x: the negative prompt names ") and 'negative_prompt: ""' in told
    for other in ({"negative_prompt": "ecstatic"}, {"relax": {"target": "text", "beta": -0.5}}, {"guidance": {}}):
        warned = plan_of(image, scene("x", **{**loose, **other}), negative_prompt=words).warnings
        assert not any("the negative prompt names" in warning for warning in warned)


def test_what_does_not_fit_is_told_in_the_order_of_the_file(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "hero.png")
    low = "relax: {target: text, beta: 0.5, min: 0.5}"
    (tmp_path / "story.yaml").write_text(
        f"framepack: {{decode: stream, order: inverted}}\nimage: hero.png\nscenes:\n"
        f"  - {{id: a, prompt: b, seconds: 2, {low}}}\n"
        f"  - {{id: b, prompt: b, seconds: 0.1, {low}}}\n"
    )
    with pytest.raises(StoryboardError) as caught:
        make_plan(read_storyboard(tmp_path / "story.yaml"), F1)
    assert [problem.path for problem in caught.value.problems] == [
        "framepack.decode", "scenes[0].relax.min", "scenes[1].seconds", "scenes[1].relax.min"
    ]  # fmt: skip


def test_the_plan_is_pure(image):
    scenes = [scene("a", intensity=0.9), scene("b", transition="cut")]
    assert plan_of(image, *scenes) == plan_of(image, *scenes)
    json.dumps(plan_of(image, *scenes).to_json())


def test_inverted_order_renders_each_shot_from_its_end(image):
    plan = plan_of(image, scene("a"), scene("b", 3.6, transition="cut"), model=FRAMEPACK)
    assert [shot.sections for shot in plan.shots] == [(1, 0), (4, 3, 2)]
    assert [s.context.initial for s in plan.sections] == [False, True, False, False, True]


def test_frames_cannot_be_streamed_from_the_films_end(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "hero.png")
    (tmp_path / "story.yaml").write_text(
        "image: hero.png\nframepack: {order: inverted,\n  decode: stream}\nscenes: [{id: a, prompt: b, seconds: 1}]\n"
    )
    story = read_storyboard(tmp_path / "story.yaml")
    with pytest.raises(StoryboardError, match=r"story.yaml:3:11: framepack.decode: stream needs forward order"):
        make_plan(story, F1)
    assert make_plan(story.changed(framepack={"order": "inverted"}), F1).decode == "blend"


def test_every_shipped_storyboard_is_planned(pytestconfig):
    files = sorted((pytestconfig.rootpath / "storyboards").glob("*.yaml"))
    rooftops = ["rooftop-helios", "rooftop-svi", "rooftop-wan", "rooftop"]
    boards = ["backflip-hunyuanvideo", "backflip", "blend", "day", "draft", "ensure", "keyframes"]
    assert [file.stem for file in files] == [*boards, *rooftops, "sound", "takes"]
    from framepack_relax.families.catalog import find_family

    plans = {}
    for file in files:
        story = read_storyboard(file)
        plans[file.stem] = make_plan(story, find_family(story.model))
    unread = "its scheduler/scheduler_config.json is not on this machine"
    assert all(unread in warning for plan in plans.values() for warning in plan.warnings)
    day = plans["day"]
    assert len(day.scenes) == 6 and len(day.shots) == 2 and day.seconds >= 20
    assert {section.relaxation.at_rest for section in day.sections} == {True, False}


def test_planning_imports_no_torch(pytestconfig):
    code = (
        "import sys, framepack_relax as fr\n"
        f"fr.plan(r'{pytestconfig.rootpath}/storyboards/rooftop.yaml')\n"
        "import framepack_relax.cli\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_board_that_says_nothing_new_has_the_keys_that_it_always_had():
    """Others would undo every film that there is. A new setting is None in a plan where a board does not name it."""
    scenes = [Scene(id="a", prompt="a man waits", seconds=1), Scene(id="b", prompt="he jumps", seconds=1, intensity=1)]
    plan = make_plan(storyboard_from_scenes(scenes, seed=1, steps=3), CATALOG["fake"].family)
    made = [key.key for key in section_keys(plan, {}, "weights", "float32").values()]
    assert made == ["c3b4f11b5c17099280a67c17d5750b39", "c99649ed70f2056578343c9b827ce47e"]
