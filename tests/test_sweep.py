"""Sweeps on a tiny model: paired films, calm sections rendered once, and the same table after a stop."""

import json
import os
import shutil
import subprocess
import time

import numpy as np
import pytest
import yaml
from faults import TOOL, here
from PIL import Image

import framepack_relax as fr
from framepack_relax.evaluate.calibration import LEVELS, calibrated_profile, candidates, choose, utility
from framepack_relax.evaluate.evaluation import gather
from framepack_relax.evaluate.hours import foretelling
from framepack_relax.evaluate.spec import READY, jobs, read_sweep
from framepack_relax.evaluate.statistics import FEWEST, chance, interval, summarise
from framepack_relax.evaluate.sweep import FILMS, SWEEPS, plan_films, seldom_meant
from framepack_relax.evaluate.swept import FIGURES, film_key
from framepack_relax.families.catalog import find_family
from framepack_relax.relax.profile import Profile
from framepack_relax.rendering.folder import RunFolder
from framepack_relax.rendering.lease import Lease
from framepack_relax.storyboard.reader import parse_as

SPEC = """
title: a <small> sweep
model: {model}
seeds: 2
steps: 2
calm_seconds: 1.2
seconds: 1.2
starts: [{{image: hero.png, who: a red figure, where: on the beach}}]
scenes: [{{id: flip, prompt: "{{who}} does a backflip {{where}}", target: backflip}}]
arms:
  - {{id: vanilla, intensity: 0.0}}
  - {{id: context, relax: {{target: [context], blur: 0.0}}, grid: {{beta: [0.5, 1.0]}}}}
"""


def write_spec(folder, tiny):
    Image.radial_gradient("L").resize((32, 32)).convert("RGB").save(folder / "hero.png")
    file = folder / "spec.yaml"
    file.write_text(SPEC.format(model=tiny), encoding="utf8")
    return file


@pytest.fixture
def spec(tmp_path, tiny):
    return write_spec(tmp_path, tiny)


def sweep(spec, out, model, **more):
    return fr.sweep(spec, out=out, model=model, action="packaged", text="packaged", **more)


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name not in ("seconds", "wall")} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny, model):
    """A sweep that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return sweep(write_spec(folder, tiny), folder / "out", model)


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_to_the_same_table(spec, tmp_path, model, whole):
    told = []

    def stop(row, films):
        told.append((row["arm"], films))
        if len(told) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(spec, tmp_path / "parts", model, on_film=stop)
    file = tmp_path / "parts" / FILMS
    whole_lines = file.read_text()
    file.write_text(whole_lines[:-20])  # as somebody who edits it may leave it
    with pytest.raises(fr.EvaluationError, match=rf"{FILMS}:4: is not JSON .*; mend it, or remove the line"):
        sweep(spec, tmp_path / "parts", model)
    assert file.read_text() == whole_lines[:-20]
    file.write_text("".join(whole_lines.splitlines(keepends=True)[:3]))
    again = sweep(spec, tmp_path / "parts", model)
    assert told == [(arm, 6) for arm in ("vanilla", "context beta 0.5", "context beta 1.0", "vanilla")]
    assert without_seconds(again.rows) == without_seconds(whole.rows) and len(whole.rows) == 6
    assert [cell.figures["motion"] for cell in again.cells] == [cell.figures["motion"] for cell in whole.cells]
    assert len(read := [json.loads(line) for line in file.read_text().splitlines()]) == 6
    assert {row["key"] for row in read} == {row["key"] for row in whole.rows}
    page = whole.page.read_text(encoding="utf8")
    assert "a &lt;small&gt; sweep" in page and page.count("contact.png") == 6
    sheets = list(whole.page.parent.glob("films/*/*/contact.png"))
    assert all(str(sheet.relative_to(whole.page.parent)) in page for sheet in sheets) and len(sheets) == 6
    assert len(list((whole.page.parent / "store").iterdir())) == 2 + 6, "the calm section of a seed is rendered once"
    reports = [json.loads(file.read_text()) for file in whole.page.parent.glob("films/*/*/report.json")]
    assert sum(section["reused"] for report in reports for section in report["sections"]) == 4


@pytest.mark.slow
def test_a_sweep_that_is_killed_in_mid_film_goes_on_to_the_same_table(spec, tmp_path, model, whole):
    out = tmp_path / "killed"
    words = [TOOL, "sweep", str(spec), "--out", str(out), "--action", "packaged", "--text", "packaged"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not (out / FILMS).exists() or len((out / FILMS).read_text().splitlines()) < 2:
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    again = sweep(spec, out, model)
    assert without_seconds(again.rows) == without_seconds(whole.rows)
    for a, b in zip(again.cells, whole.cells, strict=True):
        assert a.failures == b.failures
        assert {n: f for n, f in a.figures.items() if n != "seconds"} == {
            n: f for n, f in b.figures.items() if n != "seconds"
        }


def asked_of(folder):
    """How often the network was asked for each section, by the reports of all films below."""
    reports = [json.loads(file.read_text()) for file in folder.glob("films/*/*/report.json")]
    return sum(not section["reused"] for report in reports for section in report["sections"])


@pytest.mark.slow
def test_workers_make_the_rows_that_one_process_makes_and_render_what_films_share_once(spec, tmp_path, tiny, whole):
    told, noted = [], []
    hear = {"on_film": lambda row, films: told.append((row["arm"], row["seed"], films)), "on_note": noted.append}
    done = sweep(spec, tmp_path / "out", None, workers=fr.Workers(workers=2), **hear)
    assert without_seconds(done.rows) == without_seconds(whole.rows) and done.cells[0].films == 2
    assert sorted(told) == sorted((row["arm"], row["seed"], 6) for row in whole.rows)
    assert len(set(noted)) == len(noted)
    assert asked_of(tmp_path / "out") == asked_of(whole.page.parent) == 2 + 6
    lines = (tmp_path / "out" / FILMS).read_text().splitlines()
    assert sorted(map(json.loads, lines), key=str) == sorted(done.rows, key=str)
    assert sweep(spec, tmp_path / "out", None, workers=fr.Workers(workers=1)).rows == done.rows


@pytest.mark.slow
def test_a_sweep_whose_workers_are_killed_with_it_loses_no_film_that_was_measured(spec, tmp_path, model, whole):
    out = tmp_path / "killed"
    words = [
        TOOL,
        "sweep",
        str(spec),
        "--out",
        str(out),
        "--action",
        "packaged",
        "--text",
        "packaged",
        "--workers",
        "2",
    ]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 200
    while len(measured := list(out.glob(f"films/*/*/{FIGURES}"))) < 2:
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    before = {file: file.read_bytes() for file in measured}
    (out / FILMS).unlink(missing_ok=True)  # as if it had been killed before it heard of them
    again = sweep(spec, out, model)
    assert without_seconds(again.rows) == without_seconds(whole.rows)
    assert all(json.loads(data) in again.rows for data in before.values())


def test_workers_that_cannot_be_are_refused_before_anything_is_made(spec, tmp_path, model):
    with pytest.raises(fr.EvaluationError, match="workers load the model themselves: give its name"):
        sweep(spec, tmp_path / "out", model, workers=fr.Workers(workers=2))
    with pytest.raises(fr.RenderError, match="workers: is 0; at least 1 must be at work"):
        sweep(spec, tmp_path / "out", None, workers=fr.Workers(workers=0))
    assert not (tmp_path / "out").exists()


def test_a_film_that_no_worker_can_make_ends_the_sweep_with_its_reason(spec, tmp_path):
    spec.write_text(spec.read_text().replace("calm_seconds: 1.2", "calm_seconds: 0"))
    place = tmp_path / "out" / "films" / "vanilla"
    with RunFolder(tmp_path / "out", SWEEPS).held() as held:
        held.begin((), {})
        place.parent.mkdir()
        place.write_text("mine")
    with pytest.raises(fr.EvaluationError, match=r"^films/vanilla/flip-0-\w+: .*what is finished is kept$"):
        sweep(spec, tmp_path / "out", None, workers=fr.Workers(workers=1))
    assert place.read_text() == "mine"


def test_two_sweeps_do_not_share_a_folder(spec, tmp_path, model):
    (tmp_path / "out").mkdir()
    with Lease(tmp_path / "out"), pytest.raises(fr.RenderError, match="is at work in this folder"):
        sweep(spec, tmp_path / "out", model)


def test_what_no_sweep_wrote_is_left_as_it_is_no_link_is_followed_and_no_pipe_waited_for(spec, tmp_path, model):
    one = spec.read_text().replace("seeds: 2", "seeds: 1").replace("beta: [0.5, 1.0]", "beta: [1.0]")
    spec.write_text(one.replace("steps: 2", "steps: 1").replace("calm_seconds: 1.2", "calm_seconds: 0"))
    out, mine = tmp_path / "out", tmp_path / "mine.txt"
    mine.write_text("mine")
    out.mkdir()
    (out / "index.html").write_text("mine")
    with pytest.raises(fr.RenderError, match=r"files that no render wrote \(index\.html\); .* for instance .*-2$"):
        sweep(spec, out, model)
    assert (out / "index.html").read_text() == "mine"
    out = tmp_path / "good"
    done = sweep(spec, out, model)
    whole = (out / FILMS).read_bytes()
    for name in (f".{FILMS}.part", ".motion.png.part", ".index.html.part"):
        (out / name).symlink_to(mine)
    spec.write_text(spec.read_text().replace("beta: [1.0]", "beta: [1.0, 0.5]"))
    assert sweep(spec, out, model).rows[:2] == done.rows and (out / FILMS).read_bytes().startswith(whole)
    for name, kind in ((FILMS, os.mkfifo), ("motion.png", lambda place: place.symlink_to(mine))):
        (out / name).rename(tmp_path / "aside")
        kind(out / name)
        with pytest.raises(fr.RenderError, match=f"{name}: cannot be written .*a link or a pipe"):
            sweep(spec, out, model)
        (out / name).unlink()
        (tmp_path / "aside").rename(out / name)
    (out / FILMS).write_bytes(whole + b"5\n")
    with pytest.raises(fr.EvaluationError, match=f"{FILMS}:3: is 5"):
        sweep(spec, out, model)
    assert (out / FILMS).read_bytes() == whole + b"5\n" and mine.read_text() == "mine"


def test_arms_differ_in_the_last_scene_alone_and_seeds_are_paired(spec):
    made = jobs(read_sweep(str(spec)))
    assert [(job.arm.id, job.seed) for job in made[:4]] == [
        ("vanilla", 0), ("context beta 0.5", 0), ("context beta 1.0", 0), ("vanilla", 1)
    ]  # fmt: skip
    plans = [fr.plan(job.story) for job in made]
    calm = [plan.sections[0] for plan in plans]
    assert calm[0] == calm[1] == calm[2] and calm[0].relaxation.at_rest
    assert len({plan.sections[1].seed for plan in plans[:3]}) == 1 != len({plan.sections[1].seed for plan in plans})
    assert [plan.sections[1].relaxation.beta for plan in plans[:3]] == [0, 0.5, 1.0]


@pytest.mark.parametrize("name", sorted(file.stem for file in READY.glob("*.yaml")))
def test_ready_sweeps_can_be_planned_and_begin_with_plain_framepack(name):
    planned = read_sweep(name)
    made = jobs(planned)
    seed = made[0].seed
    arms = {job.arm.id: fr.plan(job.story).sections[-1] for job in made if job.seed == seed}
    at_rest = [arm for arm, section in arms.items() if section.relaxation.at_rest]
    assert at_rest[0] == made[0].arm.id == "vanilla" and set(at_rest) <= {
        "vanilla",
        "vanilla, official negative",
        "guidance twice as strong",
        "guidance 6",
        "text",
        "text against stillness",
        "emphasis",
    }
    settings = [(s.relaxation, s.negative_prompt, *s.scales.items(), s.in_words()) for s in arms.values()]
    assert len(set(settings)) == len(settings), "no two arms are the same"
    quick = jobs(planned.quick())
    assert {job.seed for job in quick} == {seed} and {job.arm.id for job in quick} == set(arms)


@pytest.mark.parametrize("name", ["wan2.2-5b", "helios"])
def test_sweeps_of_people_vary_text_context_and_the_negative_prompt_on_the_same_calm(name):
    made = jobs(read_sweep(name))
    plans = {job.arm.id: fr.plan(job.story) for job in made if (job.seed, job.event.id) == (0, "backflip")}
    assert all(plan.sections[0] == plans["vanilla"].sections[0] for plan in plans.values()) and not made[0].story.image
    acts = {arm: plan.sections[-1] for arm, plan in plans.items()}
    text = {arm: section.scales["text"] for arm, section in acts.items()}
    base = text["vanilla"][0]
    assert set(text["vanilla"]) == {base} and text["text relaxed"][0] < text["text relaxed"][-1] <= base
    late = text["text relaxed inversely"]
    assert late[0] == base > late[-1] and sorted(late, reverse=True) == list(late)
    constant = set(text["text constant at the mean"])
    assert len(constant) == 1 and constant.pop() == pytest.approx(np.mean(text["text relaxed"]))
    assert min(acts["context"].scales["context"]) < 1 == min(acts["paper"].scales["context"])
    for arm in ("vanilla", "paper"):
        official = acts[f"{arm}, official negative"]
        assert (acts[arm].negative_prompt, official.scales) == ("", acts[arm].scales)
        assert "static" in official.negative_prompt or "静态" in official.negative_prompt
    assert all(job.event.target for job in made) and read_sweep(name).seeds >= FEWEST


def test_what_a_sweep_will_take_is_told_without_weights(spec, tiny):
    hours = fr.sweep_plan("wan2.2-5b")
    made, arms = jobs(read_sweep("wan2.2-5b")), {row.arm: row for row in hours}
    passes = {arm: sum(fr.plan(j.story).sections[-1].passes[1] for j in made if j.arm.id == arm) for arm in arms}
    assert hours[0].films == 8 and all(row.passes == (passes[row.arm],) * 2 for row in hours[1:])
    assert sum(row.films for row in hours[1:]) == len(made)
    per_pass = {arm: row.hours[1] / row.passes[1] for arm, row in arms.items()}
    assert arms["context"].hours[0] > arms["vanilla"].hours[0] > hours[0].hours[0] > 0
    assert per_pass["context"] == pytest.approx(per_pass["vanilla"])
    said = here("sweep", "wan2.2-5b", "--dry-run")
    assert said.returncode == 0 and f"{sum(row.passes[1] for row in hours)} passes" in said.stdout
    assert f"{sum(row.hours[1] for row in hours):.1f} hours of an H200" in " ".join(said.stdout.split())
    assert "under 0.1 hours of an H200" in " ".join(here("sweep", "calibration", "--dry-run").stdout.split())
    few = fr.sweep_plan(spec, model=tiny, quick=True)
    assert [row.films for row in few] == [1, 1, 1, 1] and few[1].passes == (1, 1)


def test_every_mistake_of_a_spec_is_told_at_its_place(spec):
    text = (
        spec.read_text().replace("seeds: 2", "seedz: 2").replace("1.0]", "7]").replace("calm_seconds: 1.2", "calm: ''")
    )
    spec.write_text(text)
    with pytest.raises(fr.StoryboardError) as caught:
        fr.sweep(spec, out="nowhere")
    said = str(caught.value).splitlines()
    assert said[0].endswith("spec.yaml:4:1: seedz: unknown field; did you mean 'seeds'?")
    assert any("calm: is empty" in line for line in said)
    assert any(line.endswith("arms[1].grid.beta[1]: is 7; must be between -1 and 1") for line in said)
    with pytest.raises(fr.StoryboardError, match="no sweep that comes along; those are ablation, blind, calibration"):
        fr.sweep("ablatio", out="nowhere")


def mistakes(spec, **options):
    with pytest.raises(fr.StoryboardError) as caught:
        fr.sweep(spec, **options)
    return str(caught.value).replace(f"{spec}:", "").splitlines()


def test_names_that_come_twice_and_places_that_no_start_fills_are_refused(spec):
    text = spec.read_text().replace("[0.5, 1.0]", "[0.5, 0.5]").replace("backflip {where}", "{{backflip}} {were}")
    scene = "{id: flip, prompt: a flip, target: jump}"
    spec.write_text(text.replace("target: backflip}", f"target: backflip}}, {scene}"))
    wanted = "; starts fill in {who} and {where} alone"
    assert mistakes(spec, out="nowhere") == [
        "9:29: scenes[0].prompt: holds {backflip}, {were}" + wanted,
        "11:3: arms: more than one is called 'context beta 0.5'; ids must differ",
    ]
    spec.write_text(spec.read_text().replace("{were}", "{where}").replace("{{backflip}}", "backflip"))
    assert "9:9: scenes: more than one is called 'flip'; ids must differ" in mistakes(spec, out="nowhere")
    spec.write_text(spec.read_text().replace("id: flip, prompt: a", "id: flop, prompt: a").replace("0.5, 0.5", "0.5"))
    spec.write_text(f"{spec.read_text()}  - {{id: context beta 0.5}}\n  - {{id: vanilla}}\n")
    said = "11:3: arms: more than one is called 'vanilla', 'context beta 0.5'; ids must differ"
    assert mistakes(spec, out="nowhere") == [said]


def test_all_that_cannot_be_rendered_is_told_before_the_first_film_once_and_at_its_place(spec, tmp_path, model):
    starts = "starts: [{image: hero.png, who: a, where: b}, {image: none.png, who: a, where: b}]"
    text = spec.read_text().replace("seeds: 2", "seeds: 4").replace("beta: [0.5", "intensity: [0.5, 1.0], beta: [0.5")
    lines = [starts if line.startswith("starts") else line for line in text.splitlines()]
    lines += ["  - id: mine", "    relax:", "      target: text", "      min: 0.5"]
    spec.write_text("\n".join(lines).replace("target: [context]", "target: [context], min: 7.0"))
    for given in (model, None):  # loaded, or the spec's
        said = sorted(mistakes(spec, out=tmp_path / "out", model=given))
        assert len(said) == 3 and not (tmp_path / "out").exists()
        assert said[0].startswith("12:") and "arms[1].relax.min: is 7; for target context it must be between" in said[0]
        assert said[1].startswith("16:12: arms[2].relax.min: is 0.5; for target text it must be between")
        assert said[2].startswith("8:55: starts[1].image: none.png: no such file")
    spec.write_text(text.replace("image: hero.png, ", ""))
    assert [line.partition(": shot")[0] for line in mistakes(spec, out="nowhere")] == ["8:10: starts[0]"]


def test_a_film_is_known_by_its_picture_wherever_that_lies_and_by_whom_it_is_told_from(spec, tmp_path, model):
    def keys(text):
        spec.write_text(text)
        made = jobs(read_sweep(str(spec)))
        return [film_key(*film, model, ()) for film in zip(made, plan_films(made, model.family), strict=True)]

    text = spec.read_text()
    shutil.copy(tmp_path / "hero.png", tmp_path / "other.png")
    assert keys(text.replace("hero.png", "other.png")) == keys(text)
    told = text.replace("on the beach}]", "on the beach}, {image: hero.png, who: b, where: c}]").replace(
        "seeds: 2", "seeds: 1"
    )
    assert not {*keys(told)} & {*keys(text)}
    Image.new("RGB", (32, 32)).save(tmp_path / "other.png")
    assert not {*keys(text.replace("hero.png", "other.png"))} & {*keys(text)}


@pytest.mark.parametrize(
    ("calm", "act", "size", "said"),
    [
        ("0", "0.1", "[33, 32]", "8:7: size: width 33 must be a multiple of 16"),
        ("0", "0.1", "[32, 32]", "7:10: seconds: 0.1 s gets no section"),
        ("0.1", "1.2", "[32, 32]", "6:15: calm_seconds: 0.1 s gets no section"),
        ("3600", "3600", "[32, 32]", "7:10: seconds: the film has 6000 sections"),
    ],
)
def test_mistakes_of_the_films_stand_at_the_fields_of_the_sweep(spec, tmp_path, calm, act, size, said):
    text = spec.read_text().replace("calm_seconds: 1.2\nseconds: 1.2", f"calm_seconds: {calm}\nseconds: {act}")
    spec.write_text(text.replace("starts:", f"size: {size}\nstarts:"))
    (line,) = mistakes(spec, out=tmp_path / "out")
    assert line.startswith(said)


def test_what_is_seldom_meant_is_noted_once(spec, model):
    spec.write_text(spec.read_text().replace("does a backflip", "does a zorkflip").replace("[context]", "[embedded]"))
    made = jobs(read_sweep(str(spec)))
    said = list(seldom_meant(made, plan_films(made, model.family), model))
    assert said == [
        "context beta 1.0, scene act: beta 1 is over-relaxed; the paper's best is 0.75",
        "the model does not know zorkflip in 'a red figure does a zorkflip on the beach'",
    ]


def test_intervals_of_few_seeds_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    low, high = interval(list(enumerate(rng.normal(3, 1, 400))))
    assert low < 3 < high and high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    held = [low < 3 < high for low, high in (interval(list(enumerate(rng.normal(3, 1, 8)))) for _ in range(200))]
    assert 0.91 < np.mean(held) < 0.99
    eight = list(enumerate(rng.normal(3, 1, 8)))
    assert interval(eight * 5) == interval(eight), "five films of a seed that agree are not five seeds"
    assert interval(eight[:5]) == (-np.inf, np.inf)


def test_a_stopped_calibration_is_of_the_seeds_that_all_arms_have():
    rows = [film(arm, "jump", k, target=t) for k in range(8) for arm, t in (("plain", 0.2), ("a", 0.6), ("b", 0.4))]
    assert choose(rows[:-1], LEVELS[0]).arm == choose(rows[:-3], LEVELS[0]).arm == "a"


def test_the_best_of_several_arms_is_held_against_the_best_by_chance():
    rng = np.random.default_rng(0)
    found = [chance(rng.normal(0, 1, (10, 8))) for _ in range(200)]
    assert np.mean([p <= 0.1 for p in found]) == pytest.approx(0.1, abs=0.05)
    sure = np.full((1, 8), 0.3)
    assert chance(sure) == 1 / 256, "one way of turning signs does as well"
    assert chance(np.repeat(sure, 9, axis=0)) == 1 / 256, "arms that are alike cost nothing"
    half = np.array([[0.4] * 4 + [0.0] * 4])
    assert chance(half) == 1 / 16, "seeds that show nothing say nothing"
    assert chance(rng.normal(0.2, 1, (1, 400))) < 0.01


def test_pairs_are_counted():
    rows = [
        {"arm": arm, "scene": "flip", "seed": seed, "motion": value, "failures": {"static": value < 1}}
        for arm, found in (("a", (0.0, 2.0, 4.0)), ("b", (1.0, 2.0, 3.0)))
        for seed, value in enumerate(found)
    ]
    first, second = summarise(rows)
    assert (first.figures["motion"].mean, first.figures["motion"].wins) == (2.0, 0.5)
    assert second.figures["motion"].wins == 0.5 and second.failures == {"static": 0.0}
    assert first.failures == {"static": pytest.approx(1 / 3)}


def film(arm, scene, seed, *, target, motion=0.2, failure=None):
    failures = {
        kind: kind == failure for kind in ("collapse", "chaos", "static", "freeze", "snap-back", "over-relaxed")
    }
    figures = {"target": target, "motion": motion, "identity": 1.0, "failures": failures}
    return {"arm": arm, "scene": scene, "seed": seed, **figures}


def test_a_level_takes_the_arm_that_gains_and_rests_where_none_surely_does():
    noise = np.random.default_rng(0).normal(0, 0.05, (2, 12))
    rows = [film("plain", "jump", k, target=0.5) for k in range(12)]
    rows += [film("luck", "jump", k, target=0.51 + noise[0, k] - noise[0].mean()) for k in range(12)]
    assert {choose(rows, level).arm for level in LEVELS} == {"plain"}
    rows += [film("wild", "jump", k, target=0.6, motion=0.9, failure="collapse") for k in range(12)]
    rows += [film("steady", "jump", k, target=0.7 + noise[1, k]) for k in range(12)]
    assert [choose(rows, level).arm for level in LEVELS] == ["steady", "steady", "wild"]
    found = choose(rows, LEVELS[0])
    assert 0 < found.low < found.gain < found.high and found.gain == pytest.approx(0.2 + noise[1].mean())
    few = [row for row in rows if row["seed"] < 5]
    assert {choose(few, level).arm for level in LEVELS} == {"plain"}, "five seeds say nothing"


def test_a_film_that_shows_the_action_is_not_charged_for_coming_back_and_strangers_cost():
    calm, wild = LEVELS[0], LEVELS[-1]
    fine = film("a", "jump", 0, target=0.9)
    assert utility(fine, calm) == utility(film("a", "jump", 0, target=0.9, failure="snap-back"), calm)
    assert utility(film("a", "jump", 0, target=0.1, failure="snap-back"), calm) == pytest.approx(0.1 - 1)
    assert utility({**fine, "identity": 0.25}, calm) == pytest.approx(utility(fine, calm) - 0.75)
    assert utility({**fine, "jump": 25.0}, calm) == pytest.approx(utility(fine, calm) - 0.5)
    assert utility({**fine, "identity": 0.25}, wild) > utility({**fine, "identity": 0.25}, calm)


def test_each_level_of_the_profile_is_the_arm_that_was_chosen(spec, model):
    planned = jobs(read_sweep(str(spec)))
    rows = [film("vanilla", "flip", k, target=0.2) for k in range(8)]
    rows += [film("context beta 0.5", "flip", k, target=0.8) for k in range(8)]
    rows += [film("context beta 1.0", "flip", k, target=0.8, motion=0.9, failure="collapse") for k in range(8)]
    made = calibrated_profile(rows, planned, model.family)
    said = parse_as(Profile, yaml.safe_dump(made), file="profile.yaml")
    arms = candidates(planned, model.family)
    assert [row["arm"] for row in made["figures"]["levels"]] == ["context beta 0.5"] * 2 + ["context beta 1.0"]
    assert [said.relaxation(x) for x in (0.3, 0.5, 0.9)] == [
        arms[name] for name in ("context beta 0.5", "context beta 0.5", "context beta 1.0")
    ]
    with pytest.raises(fr.EvaluationError, match="first arm must be at rest"):
        candidates(planned[1:], model.family)


def test_a_calibration_without_a_judge_of_what_should_happen_is_refused(spec, tmp_path, model):
    with pytest.raises(fr.EvaluationError, match="needs an action judge"):
        fr.sweep(spec, out=tmp_path, model=model, calibrate=True, action=str(tmp_path), text="packaged")
    spec.write_text(spec.read_text().replace("target: backflip", "target: [somersaulting, moonwalk]"))
    with pytest.raises(fr.EvaluationError, match="somersaulting: the action judge has no such label"):
        sweep(spec, tmp_path, model)
    spec.write_text(spec.read_text().replace("moonwalk", "Backflip"))
    job = jobs(read_sweep(str(spec)))[0]
    assert job.targets(gather(action="packaged", text="packaged")) == ["Backflip"]


@pytest.mark.slow
def test_a_calibration_writes_a_profile_that_a_storyboard_can_name(spec, tmp_path, model):
    with pytest.raises(fr.EvaluationError, match="2 seeds tell no arm from chance; a calibration needs 6"):
        sweep(spec, tmp_path / "out", model, calibrate=True)
    spec.write_text(spec.read_text().replace("seeds: 2", "seeds: 6").replace("[0.5, 1.0]", "[1.0]"))
    done = sweep(spec, tmp_path / "out", model, calibrate=True)
    text = done.profile.read_text(encoding="utf8")
    said, figures = parse_as(Profile, text, file="profile.yaml"), yaml.safe_load(text)["figures"]
    assert [first for first, _ in said.levels] == [level.first for level in LEVELS]
    assert figures["films"] == 6 and {row["arm"] for row in figures["levels"]} <= {cell.arm for cell in done.cells}
    shutil.copy(done.profile, tmp_path / "mine.yaml")
    story = fr.read([fr.Scene(id="a", prompt="a red figure waves", seconds=1.2, intensity=0.9)], profile="mine.yaml")
    planned = fr.plan(story.changed(model=model.family.name, image="hero.png").placed("", tmp_path, {}))
    assert planned.profile == "calibrated"
    assert planned.sections[0].relaxation == said.relaxation(0.9) and said.relaxation(0.2).at_rest


def test_a_sweep_tells_its_passes_beforehand_and_its_hours_by_films_that_are_there(spec):
    plans = plan_films(jobs(read_sweep(str(spec))), find_family(read_sweep(str(spec)).model))
    told, keys = [], {str(number): plan for number, plan in enumerate(plans)}
    passes = sum(section.passes[0] for plan in plans for section in plan.sections if section.scene == "act")
    made = {"wall": 36.0, "forwards": 2}
    foretelling(keys, [], lambda row, films: None, told.append)
    assert told[0].startswith(f"{len(plans)} films are left, {passes} passes; the hours are told after")
    there = [{**made, "key": "0"}, {**made, "key": "another arm's"}]
    foretelling(keys, there, lambda row, films: None, told.append)
    left = passes - sum(plans[0].sections[-1].passes[:1])
    assert told[1].startswith(f"{len(plans) - 1} films are left, {left} passes: about {left * 18 / 3600:.1f} h")
    on_film = foretelling(keys, [], lambda row, films: told.append(films), told.append)
    for film in range(6):
        on_film({**made, "key": str(film)}, 6)
    assert told[3:] == [6] * 4 + [f"{told[7]}", 6, 6] and "1 films are left" in told[7] and "18.000 s a pass" in told[7]


def test_an_arm_that_ensures_the_action_asks_for_what_its_scene_should_show(spec):
    arms = "  - {id: ensured, ensure: {action: true}}\n  - {id: own, ensure: {action: walk}}\n"
    spec.write_text(spec.read_text().replace("does a backflip", "turns over") + arms)
    acts = {job.arm.id: job.story.scenes[-1] for job in jobs(read_sweep(str(spec)))}
    assert acts["ensured"].ensure.action == ("backflip",) and acts["own"].ensure.action == ("walk",)


def test_an_arm_has_words_of_its_own(tmp_path, spec):
    text = spec.read_text().replace("target: backflip", "words: does a backflip, target: backflip")
    arms = '  - {id: plea, emphasis: 2}\n  - {id: against, negative_prompt: "{who} waits", guidance: {text: 2}}\n'
    spec.write_text(text + arms)
    acts = {job.arm.id: job.story.scenes[-1] for job in jobs(read_sweep(str(spec)))}
    assert [(each.words, each.gain) for each in acts["plea"].emphasis] == [("does a backflip", 2.0)]
    assert acts["against"].negative_prompt == "a red figure waits" and acts["vanilla"].negative_prompt is None
    spec.write_text(text.replace("words: does a backflip", "words: does a flip") + arms)
    with pytest.raises(fr.StoryboardError, match=r"scenes\[0\]\.words: 'does a flip' is not in the prompt"):
        plan_films(jobs(read_sweep(str(spec))), find_family(read_sweep(str(spec)).model))
