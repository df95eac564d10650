"""The installed command, seen from outside: output, exit codes, no tracebacks."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import here

from framepack_relax.video.reader import read_frames

SCENES = "  - {id: calm, prompt: a red figure stands still, seconds: 2.4}\n"


def run(*words, environment=None, **options):
    command = [Path(sys.executable).parent / "framepack-relax", *map(str, words)]
    environment = {**os.environ, "COLUMNS": "160", **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def test_help_and_version():
    assert all(word in run("--help").stdout for word in ("render", "plan", "schema", "models"))
    assert run("--version").stdout.startswith("framepack-relax 0.")


@pytest.mark.parametrize("words", [(), ("render",), ("plan",), ("eval",), ("status",), ("models",)])
def test_h_is_help(words):
    done = here(*words, "-h")
    assert done.returncode == 0 and "Usage: " in done.stdout and "--help" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_a_console_cannot_show_ends_nothing(board, tmp_path, encoding):
    """A Windows console, a redirect or a service: texts that its encoding lacks are shown by their numbers."""
    file = board("  - {id: a, prompt: 浜辺 — “hello” 🎬, seconds: 1.2}\n", "title: 浜辺")
    for words in (("plan", file), ("render", file, "--out", tmp_path / "o"), ("status", tmp_path / "o")):
        done = here(*words, encoding=encoding)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert ("浜辺" if encoding == "utf-8" else "\\u6d5c\\u8fba") in done.stdout
    assert (tmp_path / "o/video.mp4").exists()
    file = board("  - {id: a, prompt: 海 — “bye”, seconds: 1.2}\n", "title: 浜辺")
    done = here("render", file, "--out", tmp_path / "o", encoding=encoding)
    assert done.returncode == 0 and "rendered anew: prompt: " in done.stdout, done.stderr
    assert ("海" if encoding == "utf-8" else "\\u6d77") in done.stdout, "the line that compares the two is no obstacle"


@pytest.mark.parametrize("words", [("plan", "--json"), ("plan",), ("render",), ("schema",), ("--help",)])
def test_an_output_that_takes_nothing_is_one_message(board, tmp_path, words):
    """A full disk behind a redirect; what is rendered by then is kept."""
    given = (words[0], board(SCENES), "--model", "fake", *words[1:]) if words[0] in ("plan", "render") else words
    command = [Path(sys.executable).parent / "framepack-relax", *map(str, given)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("standard output: cannot be written (No space left on device)")


@pytest.mark.parametrize(
    ("words", "code"), [("plan {} --json", 2), ("schema", 2), ("plan {}", 0), ("render {} --model fake", 0)]
)
def test_a_closed_output_ends_what_only_prints(board, tmp_path, words, code):
    tool, said = Path(sys.executable).parent / "framepack-relax", words.format(board(SCENES))
    done = subprocess.run(f"{tool} {said} >&-", shell=True, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert not code or "standard output is closed" in done.stderr
    assert (tmp_path / "out/story/video.mp4").exists() == words.startswith("render")


def test_without_a_terminal_every_section_is_a_line_at_once(board, tmp_path):
    file = board("  - {id: long, prompt: a red figure walks, seconds: 36}\n")
    command = [Path(sys.executable).parent / "framepack-relax", "render", str(file), "--out", str(tmp_path / "o")]
    log = tmp_path / "log.txt"
    with log.open("w") as opened:
        process = subprocess.Popen(command, stdout=opened, stderr=opened)
        deadline = time.time() + 120
        while "section 3 of 30: scene long" not in log.read_text() and time.time() < deadline:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        running = process.poll() is None
        process.kill()
        process.wait()
    assert running and re.search(r"section 3 of 30: scene long, \d+ s\n", log.read_text())


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("--out", "story.yaml"), "story.yaml: is no folder; choose another"),
        (("--out", "story.yaml/deep/er"), "story.yaml: is no folder; choose another"),
        (("--out", "~nobody-here/o"), "~nobody-here is nobody's home; write the whole path"),
        (("--out", "  "), "'  ': is not there; a name of spaces alone is none"),
        (("--device", "tpu"), "device=tpu: no such device"),
        (("--dtype", "f8"), "dtype=f8: unknown"),
    ],
)
def test_slips_of_the_command_line_are_told_before_a_model_is_loaded(board, tmp_path, words, fact):
    """A folder whose weights are gone would be told of as soon as it was loaded."""
    model = tmp_path / "empty"
    model.mkdir()
    for name in ("framepack_relax.json", "scheduler"):
        source = Path(next(line for line in board(SCENES).read_text().splitlines() if "model" in line).split(": ")[1])
        (shutil.copytree if name == "scheduler" else shutil.copy)(source / name, model / name)
    done = here("render", board(SCENES), "--model", model, *words, cwd=tmp_path)
    assert done.returncode == 2 and fact in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_quotes_around_paths_are_not_part_of_them(board, tmp_path):
    assert here("render", board(SCENES), "--out", "'film'", cwd=tmp_path).returncode == 0
    done = here("rerun", "“film/video.mp4”", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "out/film-again/video.mp4").exists(), done.stderr
    for words in (
        ("status",),
        ("eval",),
        ("rerun",),
        ("plan", board(SCENES), "--model"),
        ("plan", board(SCENES), "--out"),
    ):
        done = here(*words, "C:\\films\\a", cwd=tmp_path)
        assert done.returncode == 2 and "; name a place on this machine, with /" in done.stderr
        assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("*\\*"))


def test_a_home_in_quotes_is_the_home_and_a_picture_no_board(board, tmp_path):
    done = here("render", board(SCENES), "--out", "~/films", cwd=tmp_path, environment={"HOME": str(tmp_path / "me")})
    assert done.returncode == 0 and (tmp_path / "me/films/video.mp4").exists() and not (tmp_path / "~").exists()
    done = run("rerun", tmp_path / "me/films/video.mp4", "--out", tmp_path / "again")
    assert done.returncode == 0 and done.stderr == "", "other libraries' notes stay silent"
    done = here("render", tmp_path / "hero.png")
    assert done.returncode == 2 and "hero.png: is no text; write it in YAML" in done.stderr


def test_render_shows_progress_a_table_and_the_films_path(board, tmp_path):
    done = here("render", board(SCENES), "--out", tmp_path / "o", "--steps", 2)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "section 1 of 2: scene calm, " in text and "section 2 of 2" in text and "asked -> real" in text
    assert str(tmp_path / "o/video.mp4") in text and (tmp_path / "o/report.json").exists()


def test_plan_shows_every_rounding_and_prints_json(board, tmp_path):
    file = board("  - {id: a, prompt: x, seconds: 3.0}\n")
    text = here("plan", file).stdout
    assert "3 s -> 3.63 s" in text and "asked 3 s -> 3.63 s, 3 sections, 109 frames" in text
    data = json.loads(here("plan", file, "--json", "--draft").stdout)
    section = data["sections"][0]
    assert {"index", "shot", "scene", "prompt", "seed", "frames", "intensity", "beta", "p", "blur", "scope", "target",
            "sigmas", "scales"} <= set(section)  # fmt: skip
    assert set(section["scales"]) == {"embedded", "text", "context"} and len(section["sigmas"]) == 2
    assert {"fps", "size", "order", "shots", "sections"} <= set(data)


def test_square_brackets_in_texts_are_texts(board, tmp_path):
    file = board("  - {id: a, prompt: '[/z] [red]figure', seconds: 1.2}\n", 'title: "[/x] [bold]loud"\nstyle: "[/y]"')
    for words in (("plan",), ("render", "--out", tmp_path / "[b]")):
        done = here(words[0], file, *words[1:])
        assert done.returncode == 0 and "[/x] [bold]loud" in done.stdout, done.stderr
    assert "'[/z] [red]figure, [/y]'" in done.stderr and "[b]/video.mp4" in done.stdout


def test_schema_is_json():
    assert json.loads(here("schema").stdout)["title"] == "Storyboard"


def test_models_are_listed_with_licence_and_place():
    text = " ".join(here("models").stdout.split())
    assert all(word in text for word in ("puppet", "framepack-f1", "European", "hunyuanvideo-community", "on disk"))
    assert "calibrated" in here("models", "puppet").stdout


@pytest.mark.parametrize("command", ["render", "plan"])
def test_mistakes_are_located_exit_code_2_no_traceback_nothing_written(board, tmp_path, command):
    file = board("  - {id: a, prompt: No, secnds: 1.2}\n  - {id: a, prompt: x, seconds: 0}\n")
    done = here(command, file, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr + done.stdout
    assert f"{file}:6:25: scenes[0].secnds: unknown field; did you mean 'seconds'?" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 4 and not (tmp_path / "out").exists()


def test_a_plans_mistakes_are_located_too(board, tmp_path):
    file = board("  - {id: a, prompt: x, seconds: 1.2}\n  - id: b\n    prompt: x\n    seconds: 0.2\n")
    done = here("plan", file)
    assert done.returncode == 2 and f"{file}:9:14: scenes[1].seconds: 0.2 s gets no section" in done.stderr
    (tmp_path / "hero.png").write_bytes(b"GIF89a")
    done = here("plan", board(SCENES))
    assert done.returncode == 2 and "story.yaml:2:8: image: hero.png: is no image" in done.stderr
    no_image = tmp_path / "none.yaml"
    no_image.write_text("scenes:\n" + SCENES)
    done = here("plan", no_image, "--model", "framepack-f1")
    assert done.returncode == 2 and "none.yaml:2:5: scenes[0]: shot 1 has no start image" in done.stderr


def test_a_model_that_does_not_exist_is_told_at_its_place(board, tmp_path):
    for name in ("puppe", "x" * 300):
        file = board(SCENES)
        file.write_text(re.sub("^model: .*", f"model: {name}", file.read_text()))
        done = here("plan", file)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f": model: {name}: no such model; known are puppet" in done.stderr.replace("\n", "")
        assert done.stderr.startswith(f"{file}:1:8: model: ")
    done = here("plan", board(SCENES), "--model", "x" * 300)
    assert done.returncode == 2 and done.stderr.startswith("--model: xxx"), "the file does not say it"


def test_missing_weights_are_one_clear_message(board, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [Path(sys.executable).parent / "framepack-relax", "render", str(board(SCENES)), "--model", "framepack-f1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "hf download lllyasviel/FramePack_F1_I2V_HY_20250503" in done.stderr


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_says_so(board, tmp_path):
    file = board("  - {id: long, prompt: a red figure walks, seconds: 120}\n")
    command = [Path(sys.executable).parent / "framepack-relax", "render", str(file), "--out", str(tmp_path / "o")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # tests may run with it ignored
    )  # fmt: skip
    deadline = time.time() + 120
    while not (tmp_path / "o/shots/00/003.safetensors").exists() and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    kept = len(list((tmp_path / "o/shots/00").glob("0*.safetensors")))
    assert process.returncode == 130 and "Traceback" not in told
    assert 4 <= kept < 100 and "sections are kept" in told
    assert [file.name for file in (tmp_path / "o").rglob("*.part*")] == ["video.part.mp4"]
    assert len(list(read_frames(tmp_path / "o/video.part.mp4"))) >= 36 * (kept - 2)


def test_a_model_from_a_folder_wins_over_the_boards(board, tiny, tmp_path):
    moved = shutil.copytree(tiny, tmp_path / "moved")
    data = json.loads(here("plan", board(SCENES), "--json", "--model", moved, "--seed", 5).stdout)
    assert data["model"] == str(moved)


def test_a_plan_does_all_that_it_is_asked_for_or_says_that_it_does_not(board, tmp_path):
    story, out = board("  - {id: a, prompt: x, seconds: 1.2}", "size: [64, 512]"), tmp_path / "out"
    warned = here("plan", story).stderr
    assert "size 64x512" in warned
    done = here("plan", story, "--memory", "--out", out)
    assert done.stderr == warned and f"{out}: nothing is there yet" in done.stdout and "in GB" in done.stdout
    for slip in (("--dtype", "fp9"), ("--json", "--out", out)):
        done = here("plan", story, *slip)
        assert (done.returncode, done.stdout) == (2, "") and str(slip[0]).strip("-") in done.stderr
