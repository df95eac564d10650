"""Commands that finish a film, shot by shot: run only where they may be, once, and each mistake one message."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import TOOL, here, sections
from test_audio import heard, track

import framepack_relax as fr
from framepack_relax.video.reader import read_frames, read_header

SCENES = """\
scenes:
- {id: calm, prompt: a man stands, seconds: 2.4}
- {id: next, prompt: a dog, seconds: 1.2, transition: cut}
"""
TOOLS = """\
import os, sys
from fractions import Fraction
import av, numpy as np

what, given, made = sys.argv[1:4]
with open(os.environ["RUNS"], "a") as log:
    log.write(what + "\\n")
if what == "fail":
    print("no weights \\x1b[31m found")
    sys.exit(3)
if what == "sleep":
    import subprocess
    subprocess.run(["sleep", "60"])
if what == "text":
    open(made, "w").write("no film")
if what in ("nothing", "text"):
    sys.exit()
with av.open(given) as old, av.open(made, "w") as new:
    source = old.streams.video[0]
    side, times = (2, 1) if what == "larger" else (1, 2)
    target = new.add_stream("libx264", rate=Fraction(source.average_rate) * times)
    target.width, target.height, target.pix_fmt = source.width * side, source.height * side, "yuv420p"
    for frame in old.decode(source):
        pixels = frame.to_ndarray(format="rgb24").repeat(side, 0).repeat(side, 1)
        for _ in range(times):
            new.mux(target.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
    new.mux(target.encode(None))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "runs").write_text("")
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def board(place, *steps, timeout=60, head=""):
    said = [[sys.executable, str(place / "tools.py"), what, "{input}", "{output}"] for what in steps]
    lines = "".join(f"- {{run: {words}, timeout: {timeout}}}\n" for words in said)
    (place / "story.yaml").write_text(f"model: fake\n{head}finish:\n{lines}{SCENES}")
    return ("render", "story.yaml", "--out", "out", "--allow-commands")


def runs(place):
    return (place / "runs").read_text().split()


def test_each_shot_goes_through_all_commands_and_the_film_stays(place):
    track(place / "track.wav", 9.0)
    done = here(*board(place, "larger", "smoother", head="audio: track.wav\n"))
    assert done.returncode == 0, done.stderr
    film, finished = place / "out/video.mp4", place / "out/finish/film.mp4"
    before, after = list(read_frames(film)), list(read_frames(finished))
    assert len(after) == 2 * len(before) and read_header(finished)[1] == 60
    assert after[0].shape == (128, 128, 3) and before[0].shape == (64, 64, 3)
    for number in (0, 40, len(before) - 1):
        assert abs(after[2 * number][::2, ::2].astype(int) - before[number]).mean() < 6, (
            "the same pictures in their order"
        )
    samples, rate = heard(finished)
    assert abs(len(samples) / rate - len(before) / 30) < 0.03 and runs(place) == ["larger", "smoother"] * 2
    (place / "plain.yaml").write_text(f"model: fake\naudio: track.wav\n{SCENES}")
    assert film.read_bytes() == fr.render("plain.yaml", out="plain").path.read_bytes()
    assert here("rerun", "out/finish/film.mp4", "--out", "again").returncode == 0
    assert sections(place / "again") == sections(place / "out"), "what is finished carries the board, without commands"


def test_what_was_made_is_not_made_again(place):
    command = board(place, "larger")
    assert here(*command).returncode == 0
    whole = (place / "out/finish/film.mp4").read_bytes()
    assert here(*command).returncode == 0 and runs(place) == ["larger"] * 2
    (place / "out/finish/film.mp4").unlink()
    assert here(*command).returncode == 0 and runs(place) == ["larger"] * 2, "the shots are there"
    assert (place / "out/finish/film.mp4").read_bytes() == whole
    text = (place / "story.yaml").read_text()
    (place / "story.yaml").write_text(text.replace("a dog", "a cat"))
    assert here(*command).returncode == 0 and runs(place) == ["larger"] * 3, "one shot is another"
    assert here(*board(place, "larger", "smoother")).returncode == 0
    assert runs(place)[3:] == ["smoother", "larger", "smoother"], "the first command's of the first shot is taken up"
    assert len(list((place / "out/finish").iterdir())) == 5, "and what no shot asks for is removed"


def test_a_board_runs_nothing_by_itself(place):
    command = board(place, "larger")[:-1]
    for words in (command, (*command, "--dry-run")):
        done = here(*words)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert (
            done.stderr.startswith("story.yaml:3:9: finish[0].run: wants to run ") and "--allow-commands" in done.stderr
        )
    with pytest.raises(fr.StoryboardError, match="no board does by itself"):
        fr.render("story.yaml", out="out")
    assert len(list(fr.stream("story.yaml", out="streamed"))) == 5, "which makes no film"
    assert runs(place) == [] and not (place / "out").exists()
    assert here("plan", "story.yaml").returncode == 0
    assert fr.render("story.yaml", out="out", commands=True).finished == Path("out/finish/film.mp4")
    assert runs(place) == ["larger"] * 2


def test_a_service_and_a_batch_run_none(place):
    from framepack_relax.farm.engines import Workers
    from framepack_relax.farm.queue import Posted, Queue

    board(place, "larger")
    queue = Queue(place / "served", Workers(workers=1), models=("fake",))
    with pytest.raises(fr.StoryboardError, match="no board does by itself"):
        queue.put(Posted(text=(place / "story.yaml").read_bytes()))
    done = here("batch", "story.yaml", "--out", "night")
    assert done.returncode == 2 and "no board does by itself" in done.stderr and runs(place) == []
    (place / "story.yaml").write_text(f"model: fake\n{SCENES}")
    assert here("batch", "story.yaml", "--out", "night", "--workers", 1).returncode == 0
    board(place, "larger")
    done = here("batch", "story.yaml", "--out", "night", "--workers", 1, "--allow-commands")
    assert done.returncode == 0 and (place / "night/story/finish/film.mp4").exists(), done.stderr


def test_a_command_by_the_command_line(place):
    board(place, "fail")
    said = f"'{sys.executable}' tools.py larger {{input}} {{output}}"
    assert here("render", "story.yaml", "--out", "out", "--finish", said).returncode == 0
    assert runs(place) == ["larger"] * 2
    for words, fact in {
        "'": "--finish: No closing quotation; close the quotes",
        "cp {input} x": "must hold {input} and {output}",
        "no-such-command {input} {output}": "finish[0].run: no-such-command: no such command here",
    }.items():
        done = here("render", "story.yaml", "--out", "new", "--finish", words)
        assert done.returncode == 2 and fact in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert not (place / "new").exists()


@pytest.mark.parametrize(
    ("what", "fact"),
    [
        ("fail", "ended with code 3 ('no weights \\x1b[31m found')"),
        ("nothing", "has made no film"),
        ("text", "has made no film"),
    ],
)
def test_a_command_that_fails_is_one_message_and_the_film_is_there(place, what, fact):
    done = here(*board(place, what))
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and fact in last and last.startswith("finish[0], shot 0: "), done.stderr
    assert fr.status(place / "out").film and os.listdir(place / "out/finish") == [] and "\x1b" not in done.stderr
    assert here(*board(place, "larger")).returncode == 0


def test_a_command_that_takes_too_long_is_stopped_with_all_that_it_started(place):
    begun = time.monotonic()
    done = here(*board(place, "sleep", timeout=3))
    assert done.returncode == 2 and "has run for 3 s and was stopped" in done.stderr and time.monotonic() - begun < 50
    alive = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(place / "tools.py") not in alive


def test_ctrl_c_stops_the_command_too_and_keeps_the_film(place):
    words = board(place, "sleep")
    process = subprocess.Popen([TOOL, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if runs(place):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 4 and fr.status(place / "out").film
    alive = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(place / "tools.py") not in alive
