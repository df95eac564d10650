"""A film as it is given away: whole, with sums that are right, and the same bytes every time."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile

import pytest
from faults import here
from PIL import Image
from test_audio import track

import framepack_relax as fr

BOARD = """\
title: Two
model: fake
image: a.png
audio: my track.wav
scenes:
- {id: calm, prompt: a man stands, seconds: 2.4}
- {id: next, prompt: a dog, seconds: 1.2, transition: cut, image: b.png}
"""


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64), "red" if name == "a.png" else "blue").save(folder / name)
    track(folder / "my track.wav")
    (folder / "story.yaml").write_text(BOARD)
    return fr.render(folder / "story.yaml", out=folder / "out").folder


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_folder_holds_film_sheet_board_and_a_manifest_that_is_right(film, tmp_path):
    done = here("publish", film, "-o", tmp_path / "given")
    assert done.returncode == 0, done.stderr
    files = contents(tmp_path / "given")
    media = [name for name in files if name.startswith(("images/", "sound/"))]
    assert set(files) - set(media) == {"video.mp4", "contact.png", "story.yaml", "manifest.json", "SHA256SUMS"}
    assert len(media) == 3 and files["video.mp4"] == (film / "video.mp4").read_bytes()
    said, report = json.loads(files["manifest.json"]), json.loads((film / "report.json").read_text())
    assert said["sha256"] == {n: hashlib.sha256(d).hexdigest() for n, d in files.items() if n in said["sha256"]}
    assert set(said["sha256"]) == set(files) - {"manifest.json", "SHA256SUMS"}
    assert [row["seed"] for row in said["sections"]] == [row["seed"] for row in report["sections"]]
    assert said["model"] == {**report["model"], "licence_of_the_weights": "Apache-2.0"}
    assert said["versions"] == report["versions"] and str(tmp_path) not in files["manifest.json"].decode()
    if shutil.which("sha256sum"):
        subprocess.run(said["verify"].split(), cwd=tmp_path / "given", check=True, stdout=subprocess.DEVNULL)


def test_the_board_that_is_published_renders_the_same_film(film, tmp_path):
    here("publish", film, "-o", tmp_path / "given")
    again = fr.render(tmp_path / "given/story.yaml", out=tmp_path / "again")
    assert again.path.read_bytes() == (film / "video.mp4").read_bytes()
    said = json.loads((tmp_path / "given/manifest.json").read_text())["rerun"].split()[1:]
    assert here(*said, cwd=tmp_path / "given").returncode == 0
    assert (tmp_path / "given/again/video.mp4").read_bytes() == (film / "video.mp4").read_bytes()


def test_all_that_the_board_names_is_there_and_its_plan_is_the_films(film, tmp_path):
    fr.publish(film, tmp_path / "given")
    fr.publish(film, tmp_path / "given.zip")
    with zipfile.ZipFile(tmp_path / "given.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    for place in (tmp_path / "given", tmp_path / "unpacked/given"):
        story = fr.read(place / "story.yaml")
        assert [name.partition("/")[0] for name in story.media] == ["images", "sound", "images"]
        assert all(story.resolve(name).is_file() for name in story.media)
        assert here("plan", place / "story.yaml").returncode == 0
        assert fr.plan(place / "story.yaml") == fr.plan(film / "story.yaml")


def test_the_finished_film_is_given_away_while_it_is_of_this_film(tmp_path):
    (tmp_path / "story.yaml").write_text("model: fake\nscenes: [{id: a, prompt: a, seconds: 1.2}]\n")
    copy = ("--finish", "cp {input} {output}", "--allow-commands")
    assert here("render", "story.yaml", "--out", "out", *copy, cwd=tmp_path).returncode == 0
    fr.publish(tmp_path / "out", tmp_path / "given")
    whole = (tmp_path / "out/finish/film.mp4").read_bytes()
    assert (tmp_path / "given/finish/film.mp4").read_bytes() == whole
    assert "finish/film.mp4" in json.loads((tmp_path / "given/manifest.json").read_text())["sha256"]
    assert here("render", "story.yaml", "--out", "out", "--seed", 9, cwd=tmp_path).returncode == 0
    assert (tmp_path / "out/finish/film.mp4").read_bytes() == whole, "which is of the film before"
    fr.publish(tmp_path / "out", tmp_path / "later")
    assert not (tmp_path / "later/finish").exists()


def test_what_lies_outside_of_the_run_folder_is_told_or_refused(film, tmp_path):
    shutil.copytree(film, tmp_path / "own")
    text = (tmp_path / "own/story.yaml").read_text()
    (tmp_path / "earlier.mp4").write_bytes(b"")
    (tmp_path / "own/story.yaml").write_text(f"from: ../earlier.mp4\n{text}")
    done = here("publish", tmp_path / "own", "-o", tmp_path / "given")
    assert done.returncode == 0 and "../earlier.mp4: is named by the board and not given away" in done.stderr
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "own/link.png").symlink_to(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "images/none.png"):
        (tmp_path / "own/story.yaml").write_text(re.sub("(?m)^image: .*", f'image: "{name}"', text))
        done = here("publish", tmp_path / "own", "-o", tmp_path / "more")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "leaves the storyboard's folder" in done.stderr or "no such file beside" in done.stderr, name
        assert not (tmp_path / "more").exists()


def test_a_zip_holds_the_same_and_is_the_same_every_time(film, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert here("publish", film, "-o", tmp_path / name / "given.zip").returncode == 0
        os.utime(film / "video.mp4", (1e9, 1e9))
    assert (tmp_path / "a/given.zip").read_bytes() == (tmp_path / "b/given.zip").read_bytes()
    fr.publish(film, tmp_path / "given")
    with zipfile.ZipFile(tmp_path / "a/given.zip") as archive:
        archive.extractall(tmp_path / "out")
    assert contents(tmp_path / "out/given") == contents(tmp_path / "given")
    assert os.listdir(tmp_path / "a") == ["given.zip"], "nothing is left of its making"


def test_what_is_there_stays_and_what_is_no_film_is_one_message(film, tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "half").mkdir()
    for out, source, fact in (
        ("given", film, "is there already"),
        ("new", tmp_path / "half", "is not the folder of a render"),
    ):
        done = here("publish", source, "-o", tmp_path / out)
        assert done.returncode == 2 and fact in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    shutil.copytree(film, tmp_path / "cut")
    (tmp_path / "cut/video.mp4").write_bytes((film / "video.mp4").read_bytes()[:-1000])
    done = here("publish", tmp_path / "cut", "-o", tmp_path / "new")
    assert done.returncode == 2 and "no film yet; render it to its end first" in done.stderr
    assert not (tmp_path / "new").exists() and os.listdir(tmp_path / "given") == []
