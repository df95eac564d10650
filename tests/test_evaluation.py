"""The evaluation of films: what is read, what each figure is where the answer is known, and what is missing."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from faults import here

import framepack_relax as fr
from framepack_relax.evaluate.action import ActionJudge
from framepack_relax.evaluate.evaluation import JUDGES, judges_for
from framepack_relax.evaluate.film import read_film
from framepack_relax.evaluate.perceptual import measure_stability
from framepack_relax.families.catalog import PUPPET, find_family
from framepack_relax.families.configs import SIDECAR
from framepack_relax.video.writer import Mp4Writer


def write(path, frames, fps=30, tags=None):
    with Mp4Writer(path, fps=fps, size=frames.shape[2:0:-1], crf=10, metadata=tags or {}) as writer:
        writer.write(frames)
    return path


def moving_square(frames=61, size=96, speed=1):
    made = np.full((frames, size, size, 3), 90, np.uint8)
    for number in range(frames):
        made[number, 30:50, 10 + speed * number : 30 + speed * number] = (240, 220, 60)
    return made


def test_a_film_is_read_with_its_scenes_and_made_small(tmp_path):
    scenes = [{"id": "a", "prompt": "x", "frames": [0, 10]}, {"id": "b", "prompt": "y", "frames": [10, 25]}]
    tags = {"framepack_relax": json.dumps({"model": "puppet", "scenes": scenes})}
    film = read_film(write(tmp_path / "f.mp4", np.zeros((25, 320, 640, 3), np.uint8), fps=24, tags=tags))
    assert film.frames.shape == (25, 256, 512, 3) and film.fps == 24 and film.seconds == pytest.approx(25 / 24)
    assert film.judges == "packaged" and [scene.prompt for scene in film.scenes] == ["x", "y"]
    assert len(film.cut(film.scenes[1]).frames) == 15
    tags = {"framepack_relax": json.dumps({"scenes": [scenes[0], {**scenes[1], "follows": True}]})}
    film = read_film(write(tmp_path / "h.mp4", moving_square(25), tags=tags))
    assert len(film.cut(film.scenes[1]).frames) == 16, "the change at the border is the scene's"
    assert [len(film.frames[scene.begin : scene.frames[1]]) for scene in film.scenes] == [10, 25]
    short = read_film(write(tmp_path / "i.mp4", moving_square(12), tags=tags))
    assert [scene.id for scene in short.scenes] == ["a"], "a film that is still being rendered"
    foreign = write(tmp_path / "g.mp4", moving_square(5), tags={"framepack_relax": '{"scenes": [1]}'})
    assert (read_film(foreign).judges, read_film(foreign).scenes) == (None, ())


@pytest.mark.parametrize(
    ("facts", "judges"),
    [
        ({"model": "a/folder/of/a/model", "judges": "packaged"}, "packaged"),  # its sidecar named them
        ({"model": "puppet"}, "packaged"),  # of before films said so: the catalogue knows
        ({"model": "framepack-f1"}, None),
        ({"model": "puppet-of-another"}, None),
        ({"model": ["puppet"]}, None),
        ({"model": "framepack-f1", "judges": 3}, None),
    ],
)
def test_a_films_judges_are_those_that_its_model_names(tmp_path, facts, judges):
    film = read_film(write(tmp_path / "f.mp4", moving_square(5), tags={"framepack_relax": json.dumps(facts)}))
    assert film.judges == judges
    assert judges_for({film.judges}) == (("packaged",) * 2 if judges else ("videomae", "clip"))
    assert judges_for({film.judges, None}) == judges_for(set()) == ("videomae", "clip"), "one judge for all films"


def test_a_models_folder_is_judged_as_its_sidecar_says_under_whatever_name(tmp_path):
    shutil.copytree(PUPPET / "scheduler", tmp_path / "mine" / "scheduler")
    sidecar = tmp_path / "mine" / SIDECAR
    shutil.copy(PUPPET / SIDECAR, sidecar)
    assert find_family(str(tmp_path / "mine")).judges == find_family("puppet").judges == "packaged"
    facts = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({name: said for name, said in facts.items() if name != "judges"}))
    assert find_family(str(tmp_path / "mine")).judges is None


@pytest.mark.parametrize("content", [b"", b"no film", None])
def test_what_is_no_film_is_one_message(tmp_path, content):
    file = tmp_path / "x.mp4"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(fr.EvaluationError, match=r"x\.mp4: cannot be read as a film") as alone:
        fr.evaluate(file)
    other = tmp_path / "other.mp4"
    with pytest.raises(fr.EvaluationError) as both:
        fr.evaluate([file, other])
    first, second = str(both.value).splitlines()
    assert first == str(alone.value) and second.startswith(f"{other}: cannot be read"), "all of them at once"


def brightness(a, b):
    return (a - b).abs().mean((1, 2, 3))


def test_stability_between_frames_to_the_first_and_to_a_reference():
    ramp = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    figures = measure_stability(ramp, 8, brightness, ramp)
    assert figures["adjacent"] == pytest.approx(1 / 127.5)
    assert figures["first"] == pytest.approx(20 / 127.5)
    assert figures["reference"] == 0
    with pytest.raises(fr.EvaluationError, match="frames of 4x8, the film of 8x8"):
        measure_stability(ramp, 8, brightness, ramp[:, :, :4])


def test_scenes_are_held_against_their_shot_and_the_same_moment_of_a_reference(tmp_path):
    ramp = np.full((109, 96, 96, 3), 60, np.uint8) + np.arange(109, dtype=np.uint8)[:, None, None, None]
    scenes = [{"id": "a", "prompt": "x", "frames": [0, 37]}, {"id": "b", "prompt": "y", "frames": [37, 109]}]
    tags = {"framepack_relax": json.dumps({"scenes": [scenes[0], {**scenes[1], "follows": True}]})}
    film = write(tmp_path / "f.mp4", ramp, tags=tags)
    rows, _ = fr.evaluate([film], reference=film, action="packaged", text="packaged", distance=brightness)
    assert [row["lpips"]["reference"] for row in rows] == [0, 0]
    assert rows[0]["drift"]["exposure"] == 0 and rows[1]["drift"]["exposure"] == pytest.approx(72 / 255, rel=0.05)
    short = write(tmp_path / "s.mp4", ramp[:30])
    rows, _ = fr.evaluate([film], reference=short, action="packaged", text="packaged", distance=brightness)
    assert [row["lpips"]["reference"] for row in rows] == [0, None] and rows[1]["seconds"] == 2.4
    other = write(tmp_path / "g.mp4", ramp, fps=24)
    with pytest.raises(fr.EvaluationError, match="reference has 24 fps, the film 30"):
        fr.evaluate([film], reference=other, action="packaged", text="packaged", distance=brightness)


def test_a_judge_that_cannot_be_loaded_is_a_note(tmp_path):
    folder = shutil.copytree(JUDGES / "action", tmp_path / "action")
    (folder / "preprocessor_config.json").unlink()
    film = write(tmp_path / "f.mp4", moving_square(8))
    rows, notes = fr.evaluate([film], prompt="x", action=str(folder), text="packaged", distance=brightness)
    assert any(note.startswith(f"{folder}: cannot be loaded: ") for note in notes)
    assert "action" not in rows[0] and rows[0]["text"]["checkpoint"].endswith("text") and "lpips" in rows[0]


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_no_matter_of_the_judges(tmp_path, device):
    film = write(tmp_path / "f.mp4", moving_square(8))
    with pytest.raises(fr.ModelError, match=f"device={device}: .*(use|the last is)"):
        fr.evaluate([film], device=device)


def test_labels_that_the_judge_has_not_are_told_at_once_with_those_near_them(tmp_path):
    film = write(tmp_path / "f.mp4", moving_square(8))
    with pytest.raises(fr.EvaluationError) as caught:
        fr.evaluate([film], target_classes=["flying", "flip", "Backflop", "JUMP"], action="packaged", text="packaged")
    flying, flip, flop = str(caught.value).splitlines()
    none = "the action judge has no such label"
    assert flying == f"flying: {none}; it has backflip, jump, static, vanish, walk, wave"
    assert (flip, flop) == (f"flip: {none}; did you mean backflip?", f"Backflop: {none}; did you mean backflip?")


def test_of_very_many_labels_the_first_are_told():
    judge = ActionJudge(JUDGES / "action")
    judge.labels = tuple(f"{number} somersaults" for number in range(400))
    with pytest.raises(fr.EvaluationError, match=r"it has 0 somersaults, .*, 102 somersaults and 394 more$"):
        judge.known("flying")


def test_a_reference_that_cannot_be_compared_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    film = write(tmp_path / "f.mp4", moving_square(8))
    rows, notes = fr.evaluate([film], reference=film, action="packaged", text="packaged")
    assert "lpips" not in rows[0]
    assert any("lpips is not installed" in note and "nor with a reference: pip install" in note for note in notes)


def test_a_missing_instrument_is_said_and_the_others_measure(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    rows, notes = fr.evaluate([write(tmp_path / "f.mp4", moving_square())], prompt="a square", action="videomae")
    assert any("MCG-NJU/videomae-base-finetuned-kinetics" in line and "hf download" in line for line in notes)
    assert rows[0]["motion"]["mean"] == pytest.approx(30 / 96, rel=0.25) and "action" not in rows[0]
    assert rows[0]["drift"]["drift"] > 0


def test_the_command_measures_and_prints_json(tmp_path):
    film = write(tmp_path / "f.mp4", moving_square())
    done = here("eval", film, "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)[0]
    assert row["film"] == str(film) and row["motion"]["dynamic"]


def test_what_the_command_prints_of_a_film_and_of_a_judge_steers_no_terminal(tmp_path):
    evil = "\x1b[2J\x1b]0;x\x07"
    scenes = [{"id": evil, "prompt": evil, "frames": [0, 8]}, {"id": "b" * 5_000, "prompt": "x", "frames": [8, 16]}]
    tags = {"framepack_relax": json.dumps({"model": evil, "scenes": scenes})}
    film = write(tmp_path / f"{evil[:4]}.mp4", moving_square(16), tags=tags)
    judge = shutil.copytree(JUDGES / "action", tmp_path / "action")
    config = json.loads((judge / "config.json").read_text())
    config["id2label"] = {number: f"{name}{evil}" for number, name in config["id2label"].items()}
    (judge / "config.json").write_text(json.dumps(config))
    done = here("eval", film, "--action", judge)
    assert done.returncode == 0, done.stderr
    assert not [sign for sign in done.stdout + done.stderr if not sign.isprintable() and sign not in "\n\xa0"]
    assert "\\x1b[2J" in done.stdout and "b" * 50 in done.stdout and len(done.stdout) < 5_000


def test_without_the_extra_the_command_says_what_to_install(tmp_path):
    film = write(tmp_path / "f.mp4", moving_square(4))
    code = (
        "import sys\nsys.modules['cv2'] = None\nfrom framepack_relax.cli import main\n"
        f"sys.argv = ['framepack-relax', 'eval', {str(film)!r}]\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'framepack-relax[eval]'" in done.stderr
