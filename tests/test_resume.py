"""A render that stops, however it stops, goes on from the last whole section and ends in the same bits."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from faults import TOOL, failing, here, make_film, nan, on_a_disk_of, out_of_memory, packets, same, sections, start
from safetensors.torch import load_file

import framepack_relax as fr
from framepack_relax.cli.tables import verdict_line
from framepack_relax.files import read_file
from framepack_relax.rendering import folder as run_folder
from framepack_relax.rendering import keys
from framepack_relax.rendering.loop import render
from framepack_relax.rendering.mark import MARK
from framepack_relax.rendering.stored import unpack
from framepack_relax.video.reader import read_frames, read_metadata
from framepack_relax.video.writer import Mp4Writer

FILM = """
  - {id: calm, prompt: a red figure stands still, seconds: 2.4}
  - {id: flip, prompt: a red figure does a backflip, seconds: 2.4, intensity: 0.9, relax: {target: [context]}}
  - {id: next, prompt: a blue figure walks, seconds: 1.2, transition: cut}
"""
SECTIONS = 5


def reasons(story, out: Path, model) -> list[str | None]:
    """What a render says about each section of its folder, before it renders."""
    said: list[str | None] = []
    render(
        fr.read(story), out=out, model=model, on_event=lambda event: said.extend(why for _, why, _ in event.verdicts)
    )
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny, model):
    """The film in one go, in a folder that tests copy."""
    return make_film(tmp_path_factory.mktemp("whole"), tiny, model, FILM)


@pytest.fixture
def place(whole, tmp_path):
    """A folder with the storyboard, its image, and a finished film under out/."""
    return shutil.copytree(whole, tmp_path / "place")


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.time() + 120
    while not file.exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)
    assert file.exists(), process.communicate()


# --- what is kept and what is rendered anew ---------------------------------------------------------------------------


def test_a_finished_film_is_kept_whole(place, whole, model):
    assert reasons(place / "story.yaml", place / "out", model) == [None] * SECTIONS
    assert same(place / "out", whole / "out")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("stands still", "waves", "prompt: a red figure stands still -> a red figure waves"),
        ("intensity: 0.9", "intensity: 0.5", "beta: 0.7 -> 0.5, steps changed"),
        ("steps: 2", "steps: 3", "steps changed"),
        ("image: hero.png", "image: other.png", "the start image changed"),
    ],
)
def test_an_edit_renders_from_the_first_section_that_it_changes_and_says_why(place, model, old, new, said):
    file = place / "story.yaml"
    with av.open(str(place / "out/video.mp4")) as film:
        next(film.decode(video=0)).to_image().transpose(0).save(place / "other.png")
    file.write_text(file.read_text().replace(old, new))
    got = reasons(file, place / "out", model)
    first = 2 if "intensity" in old else 0
    assert got[:first] == [None] * first
    assert said in got[first] and None not in got[first:4]
    assert (got[4] is None) == (old in ("stands still", "intensity: 0.9"))
    assert reasons(file, place / "out", model) == [None] * SECTIONS


def test_more_scenes_and_another_title_change_no_section(place, model):
    file = place / "story.yaml"
    file.write_text("title: another\n" + file.read_text() + "  - {id: more, prompt: x, seconds: 1.2}\n")
    assert reasons(file, place / "out", model) == [*[None] * 5, "it is not there yet"]


def test_other_weights_are_seen(place, tiny, model, tmp_path):
    moved = shutil.copytree(tiny, tmp_path / "other")
    weights = next((moved / "transformer").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    loaded = fr.load(str(moved), device="cpu")
    assert all("weights" in why for why in reasons(place / "story.yaml", place / "out", loaded))


def test_another_version_of_the_sampler_is_seen(place, model, monkeypatch):
    monkeypatch.setattr(keys, "SAMPLER_VERSION", 0)
    assert all("sampler" in why for why in reasons(place / "story.yaml", place / "out", model))


def test_damage_anywhere_in_a_section_file_is_seen_and_mended(place, whole, model):
    file = place / "out/shots/00/002.safetensors"
    good = file.read_bytes()
    rng = random.Random(0)
    for _ in range(200):
        bad = bytearray(good)
        if rng.random() < 0.5:
            del bad[rng.randrange(len(bad)) :]
        else:
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        file.write_bytes(bad)
        stored, right = unpack(read_file(file)), load_file(whole / "out/shots/00/002.safetensors")["latents"]
        assert stored is None or torch.equal(torch.from_numpy(stored.latents.copy()), right)
    (place / "out/video.mp4").unlink()
    assert reasons(place / "story.yaml", place / "out", model) == [
        None, None, "its file is broken", run_folder.FOLLOWS, None,
    ]  # fmt: skip
    assert same(place / "out", whole / "out")
    assert (place / "out/shots/00/002-2.safetensors").read_bytes() == bytes(bad)


def test_fresh_starts_over(place, model):
    before = {file: file.stat().st_mtime_ns for file in place.glob("out/shots/*/0*.safetensors")}
    film = fr.render(place / "story.yaml", out=place / "out", model=model, fresh=True)
    assert not any(section["reused"] for section in film.report["sections"])
    assert all(file.stat().st_mtime_ns != time for file, time in before.items())


def test_a_folder_renders_from_its_own_storyboard(place, whole, model, tmp_path):
    shutil.move(place / "out", tmp_path / "alone")
    assert reasons(tmp_path / "alone/story.yaml", tmp_path / "alone", model) == [None] * SECTIONS
    assert same(tmp_path / "alone", whole / "out")


# --- stopped from outside ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", [signal.SIGKILL, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGTERM, signal.SIGINT))]
)
def test_stopped_by_a_signal_it_goes_on_and_ends_in_the_same_bits(place, whole, model, sent):
    shutil.rmtree(place / "out")
    process = start(place)
    wait_for(place / "out/shots/00/001.safetensors", process)
    process.send_signal(sent)
    out, told = process.communicate(timeout=60)
    expected = {signal.SIGKILL: -9, signal.SIGTERM: 4, signal.SIGINT: 130}[sent]
    assert process.returncode == expected and "Traceback" not in out + told
    film = place / "out/video.part.mp4"
    kept = len(sections(place / "out"))
    assert 2 <= kept and len(list(read_frames(film))) >= 3
    film = fr.render(place / "story.yaml", out=place / "out", model=model)
    assert sum(section["reused"] for section in film.report["sections"]) == kept
    assert same(place / "out", whole / "out")
    assert not list((place / "out").rglob("*.part*"))


def test_two_renders_do_not_share_a_folder(place, model):
    shutil.rmtree(place / "out")
    file = place / "story.yaml"
    short = file.read_text()
    file.write_text(short.replace("steps: 2", "steps: 400"))
    process = start(place)
    try:
        wait_for(place / "out/plan.json", process)
        with pytest.raises(fr.RenderError, match=rf"another render is at work .*process {process.pid} on .*, since 20"):
            fr.render(place / "story.yaml", out=place / "out", model=model)
        assert f"process {process.pid}" in fr.status(place / "out").at_work
    finally:
        process.kill()
        process.communicate()
    file.write_text(short)
    fr.render(file, out=place / "out", model=model)
    assert fr.status(place / "out").at_work is None


@pytest.mark.parametrize(
    "limit", [4_000, *(pytest.param(limit, marks=pytest.mark.slow) for limit in (20, 1_500, 30_000))]
)
def test_a_full_disk_is_one_message_and_nothing_is_lost(place, whole, model, limit):
    shutil.rmtree(place / "out")
    done = on_a_disk_of(limit, place)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "File too large" in done.stderr and "run the same command again" in done.stderr
    kept = sections(place / "out")
    film = fr.render(place / "story.yaml", out=place / "out", model=model)
    assert sum(section["reused"] for section in film.report["sections"]) == len(kept)
    assert same(place / "out", whole / "out")


@pytest.mark.parametrize(
    "name", ["shots", "shots/00", "images", "plan.json", "video.part.mp4", "video.mp4", "contact.png"]
)
def test_a_file_where_a_folder_should_be_and_the_reverse(place, whole, model, name):
    shutil.rmtree(place / "out")
    (place / "out").mkdir()
    shutil.copy(whole / "out" / MARK, place / "out")
    wrong = place / "out" / name
    (wrong if wrong.suffix else wrong.parent).mkdir(parents=True, exist_ok=True)
    if not wrong.suffix:
        wrong.touch()
    with pytest.raises(fr.RenderError, match=r"out/.*: cannot be written .*run the same command again"):
        fr.render(place / "story.yaml", out=place / "out", model=model)
    wrong.rmdir() if wrong.is_dir() else wrong.unlink()
    fr.render(place / "story.yaml", out=place / "out", model=model)
    assert same(place / "out", whole / "out")


# --- stopped from inside ----------------------------------------------------------------------------------------------


def test_latents_that_are_not_finite_take_another_seed_if_that_is_wanted(place, model):
    out = place / "nan"
    with failing(model.transformer, range(2, 3), nan):
        film = fr.render(place / "story.yaml", out=out, model=model, on_nan="retry")
    rows = film.report["sections"]
    assert [row["retried"] for row in rows] == [False, True, False, False, False]
    assert rows[1]["seed"] != film.plan.sections[1].seed
    assert (out / "report.json").read_text().count('"retried": true') == 1
    again = fr.render(place / "story.yaml", out=out, model=model)
    assert all(row["reused"] for row in again.report["sections"])
    assert [row["seed"] for row in again.report["sections"]] == [row["seed"] for row in rows]
    assert packets(film.path) == packets(again.path)


def test_infinite_latents_stop_a_render_as_nan_does(place, model):
    shutil.rmtree(place / "out")
    with (
        failing(model.transformer, range(4, 5), lambda output: (output[0] * float("inf"),)),
        pytest.raises(fr.RenderError, match=r"scene flip, section 2, step 0: the latents hold NaN or infinity"),
    ):
        fr.render(place / "story.yaml", out=place / "out", model=model)


def test_three_other_seeds_are_tried_then_it_stops_with_scene_section_and_step(place, whole, model):
    shutil.rmtree(place / "out")
    with (
        failing(model.transformer, range(4, 100), nan),
        pytest.raises(fr.RenderError, match=r"scene flip, section 2, step 0: .*4 seeds were tried"),
    ):
        fr.render(place / "story.yaml", out=place / "out", model=model, on_nan="retry")
    assert len(sections(place / "out")) == 2


@pytest.mark.parametrize("part", ["transformer", "vae.decoder", "vae.encoder"])
def test_a_full_gpu_is_one_message_and_nothing_is_lost(place, whole, model, part):
    rng = random.Random(part)
    shutil.rmtree(place / "out")
    reached = {"transformer": 2 * SECTIONS, "vae.decoder": SECTIONS, "vae.encoder": 2}[part]
    for _ in range(3):
        call = rng.randrange(reached)
        with (
            failing(
                model.transformer if part == "transformer" else model.vae.get_submodule(part[4:]),
                range(call, 99),
                out_of_memory,
            ),
            pytest.raises(fr.RenderError, match=r"the GPU's memory is full .*Tried to allocate 2.00 GiB") as raised,
        ):
            fr.render(place / "story.yaml", out=place / "out", model=model, fresh=True)
        assert "32x32 with memory=full takes about 0.0 GiB: memory=tiled takes about" in str(raised.value)
        fr.render(place / "story.yaml", out=place / "out", model=model)
        assert same(place / "out", whole / "out")


# --- what a film and a folder tell ------------------------------------------------------------------------------------


def test_a_film_renders_again_from_itself_alone(place, whole, tmp_path):
    alone = tmp_path / "sent"
    alone.mkdir()
    shutil.copy(place / "out/video.mp4", alone / "video.mp4")
    shutil.rmtree(place)
    done = here("rerun", "video.mp4", cwd=alone)
    assert done.returncode == 0, done.stderr
    assert same(alone / "out/sent-again", whole / "out"), "a film of that name is called by its folder"


def test_a_film_that_points_outside_its_folder_or_is_none_is_refused(place, tmp_path):
    def film(tags):
        with Mp4Writer(tmp_path / "evil.mp4", fps=30, size=(32, 32), crf=20, metadata=tags) as writer:
            writer.write(np.zeros((2, 32, 32, 3), np.uint8))
        return tmp_path / "evil.mp4"

    story = (place / "out/story.yaml").read_text()
    for path in ("../../caught.png", str(tmp_path / "caught.png")):
        tags = {
            "framepack_relax_storyboard": re.sub(r"images/\w+\.png", lambda _, path=path: path, story),
            "framepack_relax_images": json.dumps({path: "aGVsbG8="}),
        }
        with pytest.raises(fr.RenderError, match=r"caught\.png', which the film does not carry"):
            fr.restore(film(tags), tmp_path / "a/b/c")
        assert not list(tmp_path.rglob("caught.png"))
    for tags in ({}, {"framepack_relax_storyboard": story, "framepack_relax_images": "[1]"}):
        with pytest.raises(fr.RenderError, match="holds no storyboard"):
            fr.restore(film(tags), tmp_path / "x")
    deep = {"framepack_relax_storyboard": story, "framepack_relax_images": "[" * 100_000}
    with pytest.raises(fr.RenderError, match="holds no storyboard"):
        fr.restore(film(deep), tmp_path / "x")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(fr.RenderError, match="cannot be read as a film"):
        fr.restore(tmp_path / "text.mp4", tmp_path / "x")


def test_status_counts_what_is_there(place, tmp_path):
    (place / "out/shots/00/003.safetensors").unlink()
    now = time.time()
    for number, file in enumerate(sorted(sections(place / "out"))):
        os.utime(place / "out" / file, (now - 100 + 10 * number,) * 2)
    status = fr.status(place / "out")
    assert status.scenes == (("calm", 2, 2), ("flip", 1, 2), ("next", 1, 1))
    assert (status.done, status.total, status.seconds_left) == (4, 5, None)
    assert status.film == place / "out/video.mp4", "it is whole without its sections"
    (place / "out/video.mp4").unlink()
    status = fr.status(place / "out")
    assert status.seconds_per_section == pytest.approx(10) and status.seconds_left == pytest.approx(10)
    with pytest.raises(fr.RenderError, match="is not the folder of a render"):
        fr.status(tmp_path)
    shown = subprocess.run(
        [TOOL, "status", str(place / "out")], capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
    )
    assert shown.returncode == 0 and "4 of 5 sections on disk" in shown.stdout and "nobody is at work" in shown.stdout
    assert "about 10 s left" in shown.stdout
    file = place / "out/shots/00/002.safetensors"
    for damaged in (file.read_bytes()[:-1], b"garbage", b"\xff" * 8 + b"{" + b"[" * 100_000):
        file.write_bytes(damaged)
        assert fr.status(place / "out").done == 3


def test_status_counts_what_the_newest_plan_asks_for(place, model):
    assert fr.status(place / "out").film == place / "out/video.mp4"
    file = place / "story.yaml"
    file.write_text(file.read_text().replace("intensity: 0.9", "intensity: 0.5"))

    def stop(section, seed):
        if section.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fr.render(file, out=place / "out", model=model, on_section=stop)
    status = fr.status(place / "out")
    assert status.scenes == (("calm", 2, 2), ("flip", 1, 2), ("next", 1, 1)) and status.film is None


def test_every_shot_says_from_where_on_it_is_rendered_anew(place, model):
    file = place / "story.yaml"
    file.write_text(file.read_text().replace("intensity: 0.9", "intensity: 0.5").replace("blue", "red"))
    (place / "out/shots/00/001.safetensors").unlink()
    assert verdict_line(fr.preview(file, out=place / "out", model=model)) == (
        "1 of 5 sections are kept; from section 1 (scene calm) on rendered anew: it is not there yet; "
        "from section 4 (scene next) on rendered anew: prompt: a blue figure walks -> a red figure walks"
    )


@pytest.mark.parametrize("head", ["framepack: {order: inverted}", "framepack: {decode: blend}"])
def test_inverted_order_and_the_blend_go_on_to_the_same_bits_too(place, model, head):
    file = place / "story.yaml"
    file.write_text(f"{head}\n{file.read_text()}")
    whole = fr.render(file, out=place / "whole", model=model)

    def stop(section, seed):
        if section.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fr.render(file, out=place / "parts", model=model, on_section=stop)
    film = fr.render(file, out=place / "parts", model=model)
    assert 0 < sum(section["reused"] for section in film.report["sections"]) < SECTIONS
    assert same(place / "parts", whole.folder)


@pytest.mark.parametrize("fail", [nan, None])
def test_what_follows_a_section_rendered_anew_is_taken_up_if_that_came_out_the_same(place, model, fail):
    """Its key alone does not do: after a retry, and on some devices, the same plan gives other latents."""
    (place / "out/video.mp4").unlink()
    (place / "out/shots/00/001.safetensors").unlink()

    def stop(section, seed):
        if section.index == 1:
            raise KeyboardInterrupt

    with failing(model.transformer, range(1) if fail else (), nan), pytest.raises(KeyboardInterrupt):
        fr.render(place / "story.yaml", out=place / "out", model=model, on_nan="retry", on_section=stop)
    assert fr.status(place / "out").done == (3 if fail else 5)
    follow = [run_folder.FOLLOWS if fail else None] * 2
    assert reasons(place / "story.yaml", place / "out", model) == [None, None, *follow, None]


def test_an_edit_that_is_taken_back_before_it_is_rendered_costs_nothing(place, model):
    file = place / "story.yaml"
    text = file.read_text()
    file.write_text(text.replace("stands still", "waves"))

    def stop(event):
        if event.kind == "verdicts":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(fr.read(file), out=place / "out", model=model, on_event=stop)
    file.write_text(text)
    assert reasons(file, place / "out", model) == [None] * SECTIONS


def test_a_film_that_is_whole_is_given_although_an_edit_has_begun_to_replace_its_sections(place, whole, model):
    file = place / "story.yaml"
    text = file.read_text()
    file.write_text(text.replace("stands still", "waves"))

    def stop(section, seed):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fr.render(file, out=place / "out", model=model, on_section=stop)
    assert fr.status(place / "out").film is None
    file.write_text(text)
    assert [why for _, why, _ in fr.preview(file, out=place / "out", model=model)] == [None] * SECTIONS
    with failing(model.transformer, range(99), out_of_memory), failing(model.vae, range(99), out_of_memory):
        film = fr.render(file, out=place / "out", model=model)
    assert packets(film.path) == packets(whole / "out/video.mp4") and fr.status(place / "out").film == film.path
    list(fr.stream(file, out=place / "out", model=model))
    assert same(place / "out", whole / "out"), "latents are not another film's"


def test_a_section_that_is_lost_before_its_decode_is_one_message(place, model):
    file = place / "story.yaml"
    file.write_text("framepack: {order: inverted}\n" + file.read_text())

    def lose(section, seed):
        if section.index == 2:
            (place / "parts/shots/00/003.safetensors").write_bytes(b"")

    with pytest.raises(fr.RenderError, match=r"003\.safetensors: was removed or damaged during the render"):
        fr.render(file, out=place / "parts", model=model, on_section=lose)


def test_a_users_own_storyboard_is_not_overwritten(place, model):
    before = (place / "story.yaml").read_text()
    with pytest.raises(fr.RenderError, match=r"holds files that no render wrote \(hero\.png, .*; choose another"):
        fr.render(place / "story.yaml", out=place, model=model)
    with pytest.raises(fr.RenderError, match="files that no render wrote"):
        fr.restore(place / "out/video.mp4", place)
    assert (place / "story.yaml").read_text() == before


def test_a_film_names_the_model_and_the_seeds_that_made_it(place, model):
    scenes = [fr.Scene(id="a", prompt="a red figure walks", seconds=2.4)]
    with failing(model.transformer, range(2, 3), nan):
        film = fr.render(
            scenes, image=str(place / "hero.png"), steps=2, model=model, out=place / "film", on_nan="retry"
        )
    facts = json.loads(read_metadata(film.path)["framepack_relax"])
    assert facts["model"] == model.source.name == fr.read(place / "film/story.yaml").model
    assert facts["seeds"]["1"] == film.report["sections"][1]["seed"] != film.plan.sections[1].seed
    assert facts["dtype"] == "torch.float32"


def test_a_film_made_otherwise_is_rendered_again_as_it_was_and_what_differs_is_said(place, model):
    tags = read_metadata(place / "out/video.mp4")
    facts = json.loads(tags["framepack_relax"])
    facts |= {"dtype": "torch.bfloat16", "weights": "0\x1b[2J"}
    tags["framepack_relax"] = json.dumps(facts)
    with Mp4Writer(place / "other.mp4", fps=30, size=(32, 32), crf=20, metadata=tags) as writer:
        writer.write(np.zeros((2, 32, 32, 3), np.uint8))
    done = here("rerun", "other.mp4", cwd=place)
    assert done.returncode == 0 and "will not come out the same to the bit: weights: '0\\x1b[2J' -> " in done.stderr
    assert json.loads((place / "out/other-again/report.json").read_text())["model"]["dtype"] == "torch.bfloat16"
