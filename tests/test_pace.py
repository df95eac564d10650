"""`speed`: which steps ask the network, what the others reuse, and how a pattern is found."""

from itertools import combinations

import numpy as np
import pytest
import torch
from faults import sections
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import framepack_relax as fr
from framepack_relax.errors import EvaluationError, StoryboardError
from framepack_relax.evaluate.pace import _best, gap_errors
from framepack_relax.families.backend import Given
from framepack_relax.families.base import FAST, Step
from framepack_relax.families.catalog import CATALOG
from framepack_relax.families.loader import load
from framepack_relax.planning.pace import computed, paced
from framepack_relax.planning.planner import make_plan
from framepack_relax.relax.guidance import combine
from framepack_relax.rendering.mark import read_mark
from framepack_relax.rendering.session import USUAL, settle
from framepack_relax.sampling.section import sample
from framepack_relax.storyboard import Scene, storyboard_from_scenes

PATTERNS = st.text("01", min_size=1, max_size=60).map("1".__add__)


def scene(name, seconds=1.2, **fields):
    return Scene(id=name, prompt=f"a {name}", seconds=seconds, **fields)


def plan_of(*scenes, model="fake", **board):
    return make_plan(storyboard_from_scenes(scenes, model=model, **board), CATALOG[model].family)


def asked(section) -> str:
    return "".join("1" if step.passes else "0" for step in section.steps)


@given(PATTERNS)
def test_a_pattern_of_the_films_length_is_kept(pattern):
    wanted = {place for place, digit in enumerate(pattern) if digit == "1"}
    assert computed(pattern, len(pattern)) == wanted


@given(PATTERNS, st.integers(1, 1000))
def test_another_length_keeps_its_share_and_begins_with_the_network(pattern, steps):
    places = computed(pattern, steps)
    assert 0 in places <= set(range(steps))
    assert len(places) == -(-pattern.count("1") * steps // len(pattern))
    half = sum(place < steps / 2 for place in places)
    wanted = pattern[: len(pattern) // 2].count("1") + int(pattern[len(pattern) // 2]) * (len(pattern) % 2) / 2
    assert abs(half - wanted * steps / len(pattern)) < 2
    assert computed("1" * len(pattern), steps) == set(range(steps))


def test_the_usual_pattern_asks_for_no_more_steps_than_the_original_demo_does():
    """Its TeaCache computes about 15 of 25 (threshold 0.15)."""
    assert FAST.count("1") == 13 and len(FAST) == 25


def test_calm_scenes_alone_are_fast_unless_a_scene_says_so():
    odd = scene("odd", intensity=0.9, speed="fast")
    made = plan_of(scene("calm"), scene("wild", intensity=0.9), odd, scene("own", speed="full"), speed="fast")
    found = {section.scene: asked(section) for section in made.sections}
    assert found == {"calm": FAST, "wild": "1" * 25, "odd": FAST, "own": "1" * 25}
    assert made.passes == (count := sum(len(step.passes) for section in made.sections for step in section.steps), count)


def test_all_is_computed_where_effects_begin_or_end_and_a_branch_where_it_comes_in():
    relax = {"target": ["context"], "beta": 0.9, "p": 8, "history_gain": 0.5, "history_gain_above": 0.5}
    made = plan_of(scene("calm"), scene("wild", intensity=0.9, speed="1" + 24 * "0", relax=relax))
    steps = made.sections[-1].steps
    gains = [step.effects for step in steps]
    names = [{branch.name for branch in step.branches} for step in steps]
    assert len(set(gains)) == len(set(map(len, names))) == 2
    for before, step, was, now in zip(steps, steps[1:], gains, gains[1:], strict=False):
        new = names[step.index] - names[before.index]
        expected = names[step.index] if was != now else new
        assert {branch.name for branch in step.passes} == expected


def test_what_forbids_speed_and_what_it_holds_is_told(image):
    follow = {"blur": 0.6, "experimental": {"over_steps": "follow"}}
    wild = scene("wild", 3.6, intensity=0.9, speed="fast", relax={"target": ["embedded"], **follow})
    held = scene("held", intensity=0.6, speed="fast", relax={"target": ["embedded"], "blur": 0})
    made = fr.plan([scene("calm", speed="fast"), wild, held], model="puppet", image=str(image))
    assert asked(made.sections[1]) == "1" * 25 and asked(made.sections[-1]) == FAST
    told = [text for text in made.warnings if "speed" in text]
    assert [text.split(":")[0] for text in told] == ["scene wild", "scene held"]
    assert "spares nothing" in told[0] and "stays as it was" in told[1]
    few = fr.plan([scene("calm", speed="fast")], model="puppet", image=str(image), steps=2)
    assert asked(few.sections[0]) == "11" and not [text for text in few.warnings if "speed" in text], (
        "nothing forbids it"
    )


def test_the_second_expert_begins_with_its_own_velocity():
    family = CATALOG["wan2.2-a14b"].family
    levels = enumerate(family.levels(25, (832, 480), "unipc"))
    rows = [Step(index=n, sigma=sigma, timestep=at, scales={"text": 1.0}) for n, (sigma, at) in levels]
    first = next(row.index for row in rows if row.timestep < family.boundary * 1000)
    assert [row.index for row in paced(rows, "1" + 24 * "0", family.terms) if row.passes] == [0, first]


@pytest.fixture
def image(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (32, 32), "navy").save(file)
    return file


@pytest.fixture(scope="module")
def fake():
    return load("fake", device="cpu")


def test_each_branch_reuses_its_own_velocity(fake):
    made = plan_of(scene("calm", guidance={"text": 4.0}), negative_prompt="a dog", speed="1011001", steps=7)
    section = made.sections[0]
    noise = fake.noise(section.latents, made.size, 1)
    texts = fake.encode_prompts([section.prompt, section.negative_prompt])
    given = Given(
        noise=noise, context=section.context, steps=section.steps, past={}, start=None, options=made.options,
        prompt=texts[section.prompt], negative=texts[section.negative_prompt],
    )  # fmt: skip
    inputs = fake.begin(given)
    solve, x, kept = fake.solver(made.sampler, section.steps), noise, {}
    for step, digit in zip(section.steps, "1011001", strict=True):
        for branch in step.branches if digit == "1" else ():
            kept[branch.name] = fake.predict(x, step, branch, inputs)
        x = solve(step.index, combine(kept, step.scales), x)
    result = sample(fake, inputs, section.steps, noise, sampler=made.sampler)
    assert len(kept) == 2 and torch.equal(result.latents, x)
    assert result.forwards == {"cond": 4, "uncond": 4} | {n: 0 for n in result.forwards if n not in kept}


def test_fast_takes_half_of_the_passes_and_changes_what_it_calls_fast_alone(model, image, tmp_path):
    scenes = [scene("calm"), scene("wild", intensity=0.9)]
    fields = {"model": model, "image": image, "steps": 6, "size": (32, 32)}
    films = {
        speed: fr.render(scenes, out=tmp_path / speed, speed=speed, **fields) for speed in ("full", "111111", "110010")
    }
    whole, same, half = (sections(film.folder) for film in films.values())
    assert same == whole
    assert half != whole
    full, fast = films["full"].report["sections"], films["110010"].report["sections"]
    assert [row["skipped"] for row in fast] == [3, 0] and fast[0]["forwards"]["cond"] == 3
    assert fast[1]["forwards"] == full[1]["forwards"]
    assert films["110010"].report["totals"]["skipped"] == 3


def test_a_film_carries_the_pattern_that_it_was_made_with(model, image, tmp_path):
    scenes = [scene("calm"), scene("wild", intensity=0.9, speed="fast")]
    film = fr.render(scenes, model=model, image=image, out=tmp_path / "out", speed="fast", steps=4)
    board = fr.read(fr.restore(film.path, tmp_path / "again"))
    assert board.speed == FAST and board.scenes[1].speed == FAST
    again = settle(board, tmp_path / "again", model, USUAL)
    assert {str(n): key.key for n, key in again.keys.items()} == dict(read_mark(film.folder).sections)


@pytest.mark.parametrize("value", ["quick", "011", "1", "12", ""])
def test_a_speed_that_is_none_is_told_where_it_stands(value):
    with pytest.raises(StoryboardError) as told:
        storyboard_from_scenes([scene("a")], speed=value)
    assert [problem.path for problem in told.value.problems] == ["speed"]


def test_a_gap_is_as_far_astray_as_solving_with_the_old_velocity_is():
    velocities, sigmas = torch.randn(6, 50, dtype=torch.float64), [1.0, 0.9, 0.7, 0.4, 0.2, 0.1]
    widths = np.diff([*sigmas, 0.0])
    end = sum(width * velocity for width, velocity in zip(widths, velocities, strict=True))
    astray = sum(width * velocity for width, velocity in zip(widths, velocities[[0, 1, 1, 1, 4, 5]], strict=True))
    errors = gap_errors(velocities, sigmas)
    assert errors[1, 4] == pytest.approx(float((astray - end).norm() / end.norm()))
    assert errors[1, 2] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_the_best_pattern_is_the_best_of_all(count):
    errors = np.random.default_rng(count).random((6, 7))
    errors[np.tril_indices(6, 0, 7)] = np.inf

    def astray(places):
        return sum(errors[a, b] for a, b in zip(places, [*places[1:], 6], strict=True))

    best = min(((0, *rest) for rest in combinations(range(1, 6), count - 1)), key=astray)
    places, found = _best(errors, count)
    assert places == set(best) and found == pytest.approx(astray(best))


def test_calibration_measures_calm_sections_and_leaves_the_model_as_it_was(fake):
    scenes = [scene("calm", speed="fast"), scene("wild", intensity=0.9)]
    board = storyboard_from_scenes(scenes, model="fake", steps=8)
    found = fr.pace(board, share=0.5)
    assert len(found.pattern) == 8 and found.pattern.count("1") == 4 and found.pattern[0] == "1"
    assert found.sections == sum(s.scene == "calm" for s in fr.plan(board).sections) and found.astray > 0
    assert fr.pace(board, share=1.0).astray == pytest.approx(0, abs=1e-6)
    with pytest.raises(EvaluationError):
        fr.pace([scene("wild", intensity=0.9)], model="fake")
