"""`ensure`: what stands still is sampled again with more letting go, what falls apart with less; decisions last."""

import json
import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from faults import same

import framepack_relax as fr
from framepack_relax.api.films import make_options
from framepack_relax.errors import StoryboardError
from framepack_relax.families.catalog import find_family
from framepack_relax.families.loader import Loading
from framepack_relax.farm.costs import costs
from framepack_relax.planning.renderplan import Ensured, Rung
from framepack_relax.relax.profile import Profile
from framepack_relax.rendering.ensure import WILD, Try, best, judged, next_rung
from framepack_relax.rendering.jobs import make_jobs, render_shot
from framepack_relax.rendering.loop import assemble, render
from framepack_relax.rendering.session import USUAL, Options, settle

BOARDS = Path(__file__).parents[1] / "storyboards"
MOVING = 0.09  # motion of fake films: less of those at rest, more of those whose context is loosened
LADDER = """
name: steps
threshold: 0.2
target: context
levels:
  - [0.2, {beta: 0.1}]
  - [0.4, {beta: 0.5}]
  - [0.6, {beta: 1, p: 0.1}]
"""


def write(place, *, motion: float, tries: int = 4, more: str = "", intensity: float = 0.9, ensure: bool = True):
    """A board of the fake model: calm, then a scene whose settings come from a profile of three levels."""
    place.mkdir(exist_ok=True)
    (place / "steps.yaml").write_text(LADDER)
    line = f"ensure: {{motion: {motion}, tries: {tries}}}" if ensure else ""
    file = place / "story.yaml"
    file.write_text(f"""
model: fake
profile: ./steps.yaml
{line}
scenes:
  - {{id: calm, prompt: a red figure stands still, seconds: 0.8}}
  - {{id: go, prompt: a red figure does a backflip, seconds: 0.8, intensity: {intensity}{more}}}
""")
    return file


def tries_of(film, scene: str = "go"):
    """Of each section of a scene: (rung, what was found, kept) of its tries."""
    rows = [row for row in film.report["sections"] if row["scene"] == scene]
    return [[(each["rung"], each["found"], each["kept"]) for each in row["tries"]] for row in rows]


def test_what_stands_still_is_sampled_again_from_the_same_noise_until_it_moves(tmp_path):
    file, events = write(tmp_path, motion=MOVING), []
    film = render(fr.read(file), out=tmp_path / "out", on_event=events.append)
    made = tries_of(film)
    assert len(made) == 1 and made[0][0] == (0, "static", False), made
    assert made[0][-1][1:] == ("moves", True) and [rung for rung, _, _ in made[0]] == list(range(len(made[0])))
    row = film.report["sections"][-1]
    kept = row["tries"][-1]
    section = film.plan.sections[-1]
    chosen = section.ensure.rungs[kept["rung"]].relaxation
    assert (row["beta"], row["p"], row["seed"]) == (chosen.beta, chosen.p, section.seed)
    assert row["forwards"] == {k: sum(each["forwards"][k] for each in row["tries"]) for k in row["forwards"]}
    assert row["motion"] == pytest.approx(kept["motion"], abs=0.01), "what was looked at is what the film shows"
    told = [event.text for event in events if event.kind == "try"]
    assert len(told) == len(row["tries"]) and "scene go, section" in told[0] and "static" in told[0]
    alone = fr.read(file, ensure=None)
    scenes = [alone.scenes[0], alone.scenes[1].model_copy(update={"relax": fr.Relax(beta=chosen.beta, p=chosen.p)})]
    plain = fr.render(alone.changed(scenes=tuple(scenes)), out=tmp_path / "alone")
    assert same(film.folder, plain.folder), "the same noise with the rung's settings"


def test_what_moves_at_once_is_the_plain_models_and_costs_its_passes(tmp_path):
    film = fr.render(write(tmp_path, motion=0.001), out=tmp_path / "out")
    plain = fr.render(write(tmp_path, motion=0.001, ensure=False, intensity=0), out=tmp_path / "plain")
    assert tries_of(film) == [[(0, "moves", True)]] and same(film.folder, plain.folder)
    assert film.report["totals"]["forwards"] == plain.report["totals"]["forwards"]
    assert film.plan.passes[0] == sum(film.report["totals"]["forwards"].values()) < film.plan.passes[1]


def test_what_falls_apart_is_sampled_again_with_less_and_the_best_is_kept(tmp_path):
    file = write(tmp_path, motion=MOVING)
    rungs = [{}, {"relax": {"beta": 0.5}}, {"relax": {"beta": 1, "p": 0.1}}, {"relax": {"beta": 1, "p": 0.05}}]
    film = fr.render(file, ensure={"motion": MOVING, "tries": 3, "ladder": rungs}, out=tmp_path / "out")
    assert tries_of(film) == [[(0, "static", False), (2, "broken", False), (1, "moves", True)]]
    film = fr.render(write(tmp_path, motion=0.3, tries=4), out=tmp_path / "four")
    made = film.report["sections"][-1]["tries"]
    assert [each["found"] for each in made][:3] == ["static"] * 3 and len(made) == 4
    assert made[-1]["found"] == "broken" and made[-1]["change"] > WILD
    assert [each["kept"] for each in made] == [each["motion"] == max(e["motion"] for e in made[:3]) for each in made]
    skipped = fr.render(write(tmp_path, motion=0.3, tries=3), out=tmp_path / "three")
    assert [rung for rung, _, _ in tries_of(skipped)[0]] == [0, 2, 3]


def test_no_section_takes_more_tries_or_passes_than_was_said(tmp_path):
    for tries in (1, 2, 3, 4):
        file = write(tmp_path, motion=1, tries=tries)
        planned = fr.plan(file)
        (cost,) = costs(fr.batch_plan(file, out=tmp_path / "batch", workers=fr.Workers(device="cpu")))
        film = fr.render(file, out=tmp_path / f"{tries}")
        spent = sum(film.report["totals"]["forwards"].values())
        assert len(tries_of(film)[0]) == tries and cost.passes == planned.passes
        assert planned.passes[0] <= spent <= planned.passes[1]
    assert [rung for rung, _, _ in tries_of(film)[0]] == [0, 1, 2, 3] and spent == planned.passes[1]


def test_a_single_try_is_the_scenes_own_settings_looked_at(tmp_path):
    film = fr.render(write(tmp_path, motion=1, tries=1, intensity=0.5), out=tmp_path / "out")
    plain = fr.render(write(tmp_path, motion=1, ensure=False, intensity=0.5), out=tmp_path / "plain")
    assert same(film.folder, plain.folder) and tries_of(film) == [[(2, "static", True)]]


# --- what lasts -------------------------------------------------------------------------------------------------------


def test_without_it_nothing_changes(tmp_path):
    """Keys and files are those of a board that cannot say it; of a scene at rest the board's holds nothing."""
    file = write(tmp_path, motion=0.1, ensure=False)
    keys = {}
    for name, ensure in (("off", None), ("on", {"motion": 0.1})):
        session = settle(fr.read(file, ensure=ensure), tmp_path / name, Loading(name="fake"), USUAL)
        keys[name] = [session.keys[index] for index in range(len(session.plan.sections))]
    assert keys["off"][0].key == keys["on"][0].key and keys["off"][-1].key != keys["on"][-1].key
    assert not any("ensure" in key.inputs for key in keys["off"])
    film = fr.render(file, out=tmp_path / "out")
    assert not any("tries" in row for row in film.report["sections"])
    assert b'"tries"' not in (film.folder / "shots/00/001.safetensors").read_bytes()[:4096]


@pytest.mark.parametrize(
    "changed", [{"motion": MOVING + 0.001}, {"tries": 3}, {"ladder": [{}, {"relax": {"beta": 0.3}}]}]
)
def test_its_settings_are_part_of_the_key(tmp_path, changed):
    file = write(tmp_path, motion=MOVING)
    film = fr.render(file, out=tmp_path / "out")
    other = {"motion": MOVING, "tries": 4, **changed}
    verdicts = fr.preview(fr.read(file, ensure=other), out=film.folder)
    assert [verdict.why for verdict in verdicts] == [None, "ensure changed"]


def test_a_film_is_taken_up_again_without_a_try_and_with_its_figures(tmp_path):
    file = write(tmp_path, motion=MOVING)
    film = fr.render(file, out=tmp_path / "out")
    before, events = film.path.read_bytes(), []
    film.path.unlink()
    again = render(fr.read(file), out=film.folder, on_event=events.append)
    assert not {event.kind for event in events} & {"step", "try"}
    assert again.path.read_bytes() == before
    for old, new in zip(film.report["sections"], again.report["sections"], strict=True):
        assert new["reused"] and new.get("tries") == old.get("tries") and new["beta"] == old["beta"]


class Killed(BaseException):
    """Stops a render."""


def test_a_render_that_is_stopped_between_two_tries_ends_as_one_that_was_not(tmp_path):
    file = write(tmp_path, motion=MOVING)
    whole = fr.render(file, out=tmp_path / "whole")

    def stop(event):
        if event.kind == "try":
            raise Killed

    with pytest.raises(Killed):
        render(fr.read(file), out=tmp_path / "out", on_event=stop)
    there = sorted(path.name for path in (tmp_path / "out/shots/00").glob("0*.safetensors"))
    assert there == ["000.safetensors"], "the section that was under way is lost, and no other"
    film = fr.render(file, out=tmp_path / "out")
    assert film.path.read_bytes() == whole.path.read_bytes() and tries_of(film) == tries_of(whole)


def test_another_worker_decides_alike_and_the_film_tells_what_it_tried(tmp_path):
    file, loading = write(tmp_path, motion=MOVING), Loading(name="fake", device="cpu")
    session = settle(fr.read(file), tmp_path / "out", loading, USUAL)
    (job,) = make_jobs(session, loading, session.verdicts(session.folder(print)))
    rows = render_shot(pickle.loads(pickle.dumps(job)), loading.load())
    film, one = assemble(session, loading.load()), fr.render(file, out=tmp_path / "one")
    assert same(film.folder, one.folder) and tries_of(film) == tries_of(one)
    assert [row.get("tries") for row in rows] == [row.get("tries") for row in one.report["sections"]]
    assert film.path.read_bytes() == one.path.read_bytes()


def test_the_board_that_a_film_carries_makes_the_same_film(tmp_path):
    film = fr.render(write(tmp_path, motion=MOVING), out=tmp_path / "out")
    board = fr.restore(film.path, tmp_path / "again")
    again = fr.render(board, out=tmp_path / "again")
    assert same(film.folder, again.folder)
    assert tries_of(again) == tries_of(film)


def test_the_tiny_network_is_looked_at_as_its_film_shows_it(board, model, tmp_path):
    scenes = """
  - {id: calm, prompt: a red figure stands still, seconds: 1.2}
  - {id: flip, prompt: a red figure jumps, seconds: 1.2, intensity: 0.9, relax: {target: [context], beta: 0.75}}
"""
    plain = fr.render(board(scenes), out=tmp_path / "plain", model=model)
    film = fr.render(board(scenes, "ensure: {motion: 1}"), out=tmp_path / "out", model=model)
    row = film.report["sections"][1]
    assert [each["rung"] for each in row["tries"]] == [0, 1] and sum(each["kept"] for each in row["tries"]) == 1
    kept = next(each for each in row["tries"] if each["kept"])
    assert row["motion"] == pytest.approx(kept["motion"], rel=0.1)
    own = plain.report["sections"][1]["forwards"]
    assert row["tries"][1]["forwards"] == own and row["forwards"]["cond"] == 2 * own["cond"]
    assert (
        fr.render(board(scenes, "ensure: {motion: 1, tries: 1}"), out=tmp_path / "one", model=model).report["sections"][
            1
        ]["tries"][0]["motion"]
        == row["tries"][1]["motion"]
    ), "a try depends on no other"


# --- the search -------------------------------------------------------------------------------------------------------


def searched(found: str, tries: int) -> list[int]:
    """The rungs that are tried of a ladder on which each rung shows what its letter says."""
    names = {"m": "moves", "s": "static", "b": "broken"}
    rungs = tuple(Rung(relaxation=None, guidance=1.0, steps=()) for _ in found)
    ensure, made = Ensured(motion=0.1, action=False, tries=tries, rungs=rungs), []
    while (rung := next_rung(ensure, made)) is not None:
        values = {"relaxed": "", "motion": rung / 10, "change": 0.0, "forwards": {}}
        made.append(Try(rung=rung, found=names[found[rung]], **values))
    return [each.rung for each in made]


@pytest.mark.parametrize(
    ("found", "tries", "rungs"),
    [
        ("ssms", 4, [0, 1, 2]),
        ("ssss", 4, [0, 1, 2, 3]),
        ("sssss", 3, [0, 2, 4]),
        ("smbbb", 4, [0, 2, 1]),
        ("ssbbb", 4, [0, 2, 1]),
        ("bmmm", 4, [0]),
        ("ssssm", 2, [0, 4]),
        ("sm", 8, [0, 1]),
        ("mmm", 1, [2]),
    ],
)
def test_the_least_letting_go_that_moves_is_sought(found, tries, rungs):
    assert searched(found, tries) == rungs


@pytest.mark.parametrize("tries", range(1, 7))
def test_a_search_ends_tries_nothing_twice_and_finds_what_moves_where_more_lets_go_more(tries):
    for low, high in product(range(6), repeat=2):
        found = "s" * low + "m" * (high - low) + "b" * (5 - max(low, high)) if low <= high < 6 else "s" * 5
        made = searched(found[:5].ljust(5, "b"), tries)
        assert len(made) == len(set(made)) <= tries
        if tries >= 5 and "m" in found[:5]:
            assert found[made[-1]] == "m" and made[-1] == low, (found, made)


def tried(found: str, motion: float) -> Try:
    return Try(rung=0, relaxed="", motion=motion, change=0.0, found=found, forwards={})


def test_the_best_is_what_moves_then_what_moves_most_then_what_is_least_broken():
    assert best([tried("static", 0.1), tried("broken", 0.9), tried("moves", 0.2)]) == 2
    assert best([tried("static", 0.01), tried("broken", 0.9), tried("static", 0.02)]) == 2
    assert best([tried("broken", 0.9), tried("broken", 0.8)]) == 1
    assert best([tried("static", 0.01), tried("static", 0.01)]) == 0, "of equals the one that lets go least"


def test_still_frames_are_static_noise_is_broken_and_a_moving_square_moves():
    rung = Rung(relaxation=fr.plan(BOARDS / "backflip.yaml").sections[0].relaxation, guidance=1.0, steps=())
    still = np.full((37, 32, 32, 3), 128, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, still.shape, dtype=np.uint8)
    moving = still.copy()
    for number, frame in enumerate(moving):
        frame[8:16, number % 24 : number % 24 + 8] = 255
    found = [judged(0, rung, frames, 0.03, {}).found for frames in (still, noise, moving)]
    assert found == ["static", "broken", "moves"]


# --- what is said of it -----------------------------------------------------------------------------------------------


def test_a_ladder_goes_from_rest_over_the_profiles_levels_to_the_scenes_own(tmp_path):
    def betas(**scene):
        file = write(tmp_path, motion=0.1, **scene)
        return [rung.relaxation.beta for rung in fr.plan(file).sections[-1].ensure.rungs]

    assert betas() == [0, 0.1, 0.5, 1] and betas(intensity=0.5) == [0, 0.1, 0.5] and betas(intensity=0.3) == [0, 0.1]
    assert betas(more=", relax: {beta: 0.3, p: 1}") == [0, 0.3], "explicit values win on every rung but at rest"
    named = ", ensure: {ladder: [{relax: {beta: 0.2}}, {guidance: 2}]}"
    rungs = fr.plan(write(tmp_path, motion=0.1, more=named)).sections[-1].ensure.rungs
    assert [(rung.relaxation.beta, rung.guidance) for rung in rungs] == [(0.2, 1), (0, 2), (1, 1)]
    assert [rung.steps[0].scales["text"] for rung in rungs] == [3, 6, 3]
    (tmp_path / "steps.yaml").write_text(LADDER + "ladder: [{relax: {beta: 0.7}}]\n")
    assert fr.plan(tmp_path / "story.yaml").sections[-1].ensure.rungs[0].relaxation.beta == 0.2, "the scene's own wins"
    file = write(tmp_path, motion=0.1)
    (tmp_path / "steps.yaml").write_text(LADDER + "ladder: [{relax: {beta: 0.7}}]\n")
    assert [rung.relaxation.beta for rung in fr.plan(file).sections[-1].ensure.rungs] == [0.7, 1]


def test_a_profiles_own_ladder_stands_in_for_its_levels():
    profile = Profile(name="a", target="context", points=[(0.25, 0.0), (0.5, 0.5), (1.0, 0.75)], blur=0.6)
    assert [relax.beta for relax in profile.below(0.9)] == [0, 0.5]
    assert profile.below(0.9)[0].at_rest and profile.below(0.2) == [profile.relaxation(0)]


def test_where_no_past_is_rendered_rungs_that_come_to_the_same_are_one(tmp_path):
    file = write(tmp_path, motion=1)
    file.write_text(file.read_text().replace("seconds: 0.8}", "seconds: 0.8, intensity: 0.9}", 1))
    first = fr.plan(file).sections[0]
    assert len(first.ensure.rungs) == first.ensure.tries == 1 and first.passes == (50, 50)


def test_the_plan_says_what_is_ensured_and_what_it_may_cost(tmp_path):
    plan = fr.plan(write(tmp_path, motion=0.05))
    assert plan.sections[-1].in_words().endswith("until motion 0.05") and "then" in plan.sections[-1].in_words()
    assert plan.sections[0].ensure is None and plan.sections[0].passes[0] == plan.sections[0].passes[1]
    said = json.loads(json.dumps(plan.to_json()))["sections"]
    assert "ensure" not in said[0] and said[-1]["ensure"]["tries"] == 4
    assert [rung["beta"] for rung in said[-1]["ensure"]["rungs"]] == [0, 0.1, 0.5, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "ensure: {motion: lots}",
            "ensure.motion: is 'lots', neither a number nor a preset; known are low, medium, high",
        ),
        ("ensure: {motion: 0}", "ensure.motion: .*greater than 0|ensure.motion: is 0"),
        ("ensure: {action: [backflip, '']}", r"ensure.action\[1\]: is empty"),
        ("ensure: {tries: 9}", "ensure.tries: .*8"),
        ("ensure: {trie: 3}", "ensure.trie: unknown field; did you mean 'tries'"),
        ("ensure: 0.08", r"ensure: .*write `?ensure: \{motion: 0.08\}"),
        (
            "ensure: {ladder: [{relax: {target: [contxt]}}]}",
            r"ensure.ladder\[0\].relax.target\[0\]: .*did you mean 'context'",
        ),
    ],
)
def test_mistakes_are_told_at_their_place(tmp_path, line, message):
    file = write(tmp_path, motion=0.1, ensure=False)
    file.write_text(file.read_text().replace("model: fake", f"model: fake\n{line}"))
    with pytest.raises(StoryboardError, match=rf"story.yaml:3:\d+: (?:{message})"):
        fr.plan(file)


def test_a_scene_at_rest_that_asks_for_it_is_a_mistake(tmp_path):
    file = write(tmp_path, motion=0.1, ensure=False, intensity=0.1, more=", ensure: {motion: low}")
    with pytest.raises(StoryboardError, match=r"scenes\[1\].ensure: the scene is at rest at intensity 0.1"):
        fr.plan(file)


# --- the action -------------------------------------------------------------------------------------------------------


class SeesSwing:
    """Sees a swing where the whole picture changes by more than 0.05 from frame to frame."""

    labels = ("swing", "stand")

    def __init__(self, weights: str = "one") -> None:
        self.weights = weights

    def score(self, frames, fps):
        change = np.abs(np.diff(frames.astype(np.float32) / 255, axis=0)).mean()
        return {"swing": np.array([change > 0.05], np.float32), "stand": np.array([change <= 0.05], np.float32)}


def seen_by(weights: str) -> Options:
    return Options(judge=lambda family: SeesSwing(weights))


def test_what_moves_otherwise_is_sampled_again_until_the_action_is_seen(tmp_path):
    file = write(tmp_path, motion=0.001)
    story = fr.read(file, ensure={"motion": 0.001, "action": "Swing"})
    film = render(story, out=tmp_path / "out", options=seen_by("one"))
    made = film.report["sections"][-1]["tries"]
    assert [each["found"] for each in made] == ["other"] * (len(made) - 1) + ["moves"] and len(made) > 1
    assert [each["action"] for each in made] == [0.0] * (len(made) - 1) + [1.0] and made[-1]["kept"]
    words = fr.plan(story).sections[-1].in_words()
    assert words.endswith("until motion 0.001 and Swing")
    keys = [settle(story, tmp_path / "x", Loading(name="fake"), seen_by(w)).keys[1].key for w in ("one", "one", "two")]
    assert keys[0] == keys[1] != keys[2], "what judges is part of the key"


def test_true_means_what_the_prompt_names(tmp_path):
    file = write(tmp_path, motion=0.001)
    said = file.read_text().replace("does a backflip", "swings its arms")
    file.write_text(said.replace("{motion: 0.001, tries: 4}", "{action: true}"))
    film = render(fr.read(file), out=tmp_path / "out", options=seen_by("one"))
    assert film.report["sections"][-1]["tries"][-1]["found"] == "moves" and len(tries_of(film)[0]) > 1
    file = write(tmp_path / "other", motion=0.001)
    with pytest.raises(fr.RenderError, match=r"scene go: ensure.action: the prompt names no action .*judge has swing"):
        render(fr.read(file, ensure={"action": True}), out=tmp_path / "out2", options=seen_by("one"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (seen_by("one"), "backflip is not known; the action judge has swing, stand"),
        (USUAL, "nothing here sees actions"),
    ],
)
def test_an_action_that_nothing_sees_is_told_before_anything_is_rendered(tmp_path, options, message):
    story = fr.read(write(tmp_path, motion=0.1), ensure={"action": ["backflip"]})
    with pytest.raises(fr.RenderError, match=f"scene go: ensure.action: {message}"):
        render(story, out=tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_the_packaged_judge_is_handed_in_for_the_packaged_model(tmp_path):
    story = fr.read(BOARDS / "ensure.yaml", ensure={"action": True})
    (verdict, *_) = fr.preview(story, out=tmp_path / "out")
    assert verdict.why == "it is not there yet"
    with pytest.raises(fr.RenderError, match=r"flop is not known; the action judge has .*backflip"):
        fr.preview(fr.read(BOARDS / "ensure.yaml", ensure={"action": "flop"}), out=tmp_path / "out")


def test_a_worker_opens_the_judge_by_itself(tmp_path):
    options = pickle.loads(pickle.dumps(make_options("stop")))
    judge, again = (options.judge(find_family("puppet")) for _ in range(2))
    assert {"backflip", "wave", "static"} <= set(judge.labels) and judge is again
