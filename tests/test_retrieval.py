"""`suggest --log` and `calibrate --prompts`: what films have shown, how sure that is, what is said of it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from faults import here

import framepack_relax as fr
from framepack_relax.evaluate.retrieval import Known, Log, Ridge, embedder, fit, known_prompts, read_log, suggest_from
from framepack_relax.families.loader import load
from framepack_relax.planning.lexicon import motion_of
from framepack_relax.relax.profile import paper_profile

ROOT = Path(__file__).parent.parent


def committed():
    spec = importlib.util.spec_from_file_location("prompts", ROOT / "scripts" / "prompts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.rows())


def test_the_hat_matrix_gives_what_leaving_out_gives():
    """Each prompt's miss is that of a ridge of the same strength on the mean of all, fitted without it."""
    numbers = np.random.default_rng(3)
    x, slope = numbers.normal(size=(30, 6)), numbers.normal(size=6) * 0.1
    y = 0.5 + x @ slope
    made = fit(x, y)
    assert made.error < 0.01 and made.sure and made.prompts == 30
    assert np.allclose([made.at(row) for row in x], y, atol=0.02)
    noise = fit(x, numbers.normal(size=30))
    assert not noise.sure
    scale = 1e-4 * ((x - x.mean(0)) ** 2).sum() / 30  # the weakest, which fits exact data best
    missed = []
    for n in range(30):
        rest = np.arange(30) != n
        design = np.c_[np.ones(29), x[rest] - x.mean(0)]
        solved = np.linalg.solve(design.T @ design + scale * np.diag([0, *[1] * 6]), design.T @ y[rest])
        missed.append(y[n] - np.r_[1, x[n] - x.mean(0)] @ solved)
    assert made.error == pytest.approx(np.sqrt(np.mean(np.square(missed))), rel=0.02)


def test_on_committed_films_a_number_is_given_only_where_the_log_beats_its_mean():
    """40 prompts of the packaged model: the honest error, as docs/directing.md has it."""
    rows, model = committed(), load("puppet", device="cpu")
    known = known_prompts(rows)
    assert len(rows) >= 120 and len(known) == 40
    vectors = embedder(model)([one.prompt for one in known])
    log, ridge = Log(known=known, vectors=vectors), fit(vectors, [one.best for one in known])
    prompt = "a red figure does a backflip on the beach"
    said = suggest_from(prompt, embedder(model)([prompt])[0], log, ridge)
    print(f"left out: nearest {log.error:.3f}, ridge {ridge.error:.3f}, mean {log.plain:.3f}; {said}")
    unsure = log.error > min(0.2, log.plain)
    assert ("by the lexicon; like" in said.reason) == unsure and ridge.sure == (ridge.error <= min(0.2, log.plain))
    assert not unsure or said.intensity == motion_of(prompt).intensity
    of_words = fit(vectors, [motion_of(one.prompt).intensity for one in known])
    assert of_words.sure and of_words.error < 0.05 < of_words.plain, "what follows from the words it finds"


def lines(tmp_path, rows):
    file = tmp_path / "films.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def film(prompt, intensity, target, **more):
    return {"prompt": prompt, "intensity": intensity, "target": target, "motion": 0.5, "jump": 5.0, **more}


def test_the_best_intensity_is_the_lowest_that_does_it():
    rows = [film("a", 0.0, 0.1), film("a", 0.3, 0.9), film("a", 0.5, 0.9), film("a", 0.8, 0.9, jump=50.0)]
    rows += [film("b", 0.3, 0.9, failures={"collapse": True}), film("b", 0.5, 0.8), {"prompt": "c", "intensity": 0.7}]
    assert known_prompts(rows) == [
        Known(prompt="a", best=0.3, films=1, right=1),
        Known(prompt="b", best=0.5, films=1, right=1),
        Known(prompt="c", best=0.7, films=1, right=None),
    ]


ACTS = {"backflip": 0.9, "cartwheel": 0.8, "sits": 0.1, "stands": 0.1}


def world(acts=ACTS, films=3):
    """Embeddings in which an action is a direction, and a log of what served it."""
    axes = np.eye(len(acts))
    known = [Known(prompt=f"{act} {n}", best=best, films=films, right=films - 1)
             for act, best in acts.items() for n in range(4)]  # fmt: skip
    noise = np.random.default_rng(1).normal(size=(len(known), len(acts))) * 0.05
    return Log(known=known, vectors=np.repeat(axes, 4, axis=0) + noise), axes


def test_every_number_explains_itself():
    log, axes = world()
    ridge = fit(log.vectors, [one.best for one in log.known])
    said = suggest_from("a man does a backflip", axes[0], log, ridge)
    assert said.intensity == pytest.approx(0.9, abs=0.01)
    assert said.reason.startswith("like 'backflip") and "(12 films, right 8), ridge says 0.89" in said.reason
    alone = suggest_from("x", axes[2], Log(known=[], vectors=log.vectors[:0]), ridge)
    assert alone.intensity == pytest.approx(0.1, abs=0.05) and alone.reason == "by the ridge"
    assert "ridge" not in suggest_from("x", axes[0], log, None).reason


@pytest.mark.parametrize("case", ["far", "few films", "few prompts", "astray", "disagree"])
def test_where_it_is_not_sure_the_lexicon_stays_and_that_is_said(case):
    log, axes = world(films=1 if case == "few films" else 3)
    ridge, vector = fit(log.vectors, [one.best for one in log.known]), axes[0]
    if case == "far":
        vector = log.vectors.mean(0) - (axes[0] - log.vectors.mean(0)) * 0.5
    elif case == "few prompts":
        log = Log(known=log.known[:3], vectors=log.vectors[:3])
    elif case == "astray":
        bests = np.random.default_rng(2).uniform(size=len(log.known))
        log = Log(known=[Known(**{**vars(one), "best": best}) for one, best in zip(log.known, bests, strict=True)],
                  vectors=log.vectors)  # fmt: skip
    elif case == "disagree":
        ridge = Ridge(**{**vars(ridge), "intercept": 0.0, "slope": ridge.slope * 0})
    said = suggest_from("a man jumps", vector, log, ridge)
    words = {"far": "nothing near", "few films": "too few", "few prompts": "too few", "astray": "astray by",
             "disagree": "by the ridge"}  # fmt: skip
    assert said.intensity == motion_of("a man jumps").intensity and words[case] in said.reason
    assert said.reason.startswith("jumps, by the lexicon; ")


def test_from_the_command_line(tmp_path):
    rows = [film(f"a man {act} {n}", best, 0.9) for act, best in ACTS.items() for n in range(3)]
    log, ridge, story = lines(tmp_path, rows), tmp_path / "ridge.safetensors", tmp_path / "story.yaml"
    text = "model: fake\nscenes:\n- {id: a, prompt: a man jumps, seconds: 1}\n"
    story.write_text(text)
    done = here("calibrate", "--prompts", log, "--model", "fake", "--out", ridge)
    assert done.returncode == 0 and "12 prompts" in done.stdout and ridge.is_file(), done.stderr
    done = here("suggest", story, "--log", log, "--ridge", ridge)
    assert done.returncode == 0 and "0.85: jumps, by the lexicon" in " ".join(done.stdout.split()), done.stderr
    assert story.read_text() == text
    assert here("suggest", story, "--log", log, "--write").returncode == 0
    assert fr.read(story).scenes[0].intensity == 0.85


def test_a_run_folder_is_a_log(tmp_path):
    board = tmp_path / "story.yaml"
    board.write_text(
        "model: fake\nscenes:\n- {id: a, prompt: stands, seconds: 1}\n"
        "- {id: b, prompt: jumps, seconds: 1, intensity: 0.9}\n"
    )
    fr.render(board, out=tmp_path / "out")
    known = {one.prompt: one for one in known_prompts(list(read_log(tmp_path / "out")))}
    assert {prompt: (one.best, one.right) for prompt, one in known.items()} == {
        "stands": (0, None),
        "jumps": (0.9, None),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"prompt": "x", "intensity": 2}\n', "films.jsonl:1: intensity: is 2"),
        ("no json\n", "films.jsonl:1: is not JSON"),
        ('{"motion": 1}\n', "no row has a prompt and an intensity"),
        ('{"prompt": "x", "intensity": 0.5, "weights": "1"}\n', "is of this model's weights"),
        (None, "no such file"),
    ],
)
def test_logs_that_cannot_be_read_are_told(tmp_path, text, said):
    file = tmp_path / "films.jsonl"
    if text is not None:
        file.write_text(text)
    story = tmp_path / "story.yaml"
    story.write_text("model: fake\nscenes:\n- {id: a, prompt: x, seconds: 1}\n")
    done = here("suggest", story, "--log", file)
    assert done.returncode == 2 and said in " ".join(done.stderr.split()), done.stderr
    done = here("suggest", story, "--ridge", story)
    assert done.returncode == 2 and "is no ridge that" in " ".join(done.stderr.split())


def test_settings_of_the_profile_are_found_again():
    profile = paper_profile(embedded=True)
    for first, intensity in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        assert profile.intensity_of(profile.relaxation(first)) == intensity
    assert profile.intensity_of(profile.relaxation(0.77)) is None
