"""What a night on a farm brings besides dead workers: readers that leave, folders with a past, names that are taken."""

import json
import os
import shutil
import signal
import subprocess
import time

import psutil
import pytest
from faults import here
from test_batch import COMMAND, ONE, films_of, write_board

import framepack_relax as fr
from framepack_relax.farm.emit import commands
from framepack_relax.farm.films import Watch, find_films


def test_what_a_batch_changes_reaches_the_commands_or_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board = write_board(tmp_path / "a.yaml", shots=1)
    board.write_text(board.read_text().replace("seconds: 1.3", "seconds: 1.3, steps: 7"))
    planned = fr.batch_plan("a.yaml", out="out", steps=3, workers=fr.Workers(workers=1))
    (line,) = commands(planned)
    assert "--steps 3" in line and "--device cpu" in line
    assert {len(section.steps) for section in planned[0].session().plan.sections} == {3}, "as render's --steps: of all"
    with pytest.raises(fr.RenderError, match="no command can say crf"):
        commands(fr.batch_plan("a.yaml", out="out", crf=30))
    odd = board.rename(tmp_path / "b\nc.yaml")
    with pytest.raises(fr.RenderError, match="a command is a line"):
        commands(fr.batch_plan(odd, out="out"))
    odd.rename(board)
    fr.render("a.yaml", out="out/a")
    assert here("batch", "a.yaml", "--out", "out", "--device", "cpu", "--emit", "commands").stdout == ""


@pytest.mark.slow
def test_whoever_listens_may_leave(tmp_path):
    board = write_board(tmp_path / "a.yaml")
    for nth, rest in enumerate(("| head -0", ">/dev/full")):
        out = tmp_path / f"out{nth}"
        words = f"set -o pipefail; {' '.join(COMMAND)} {board} --out {out} --workers 1 {rest}"
        done = subprocess.run(["bash", "-c", words], capture_output=True, text=True)
        assert done.returncode == 0 and (out / "a/video.mp4").exists(), (rest, done)


def test_a_manifest_keeps_the_films_of_other_batches_and_is_nobody_elses(tmp_path):
    for name in "ab":
        fr.batch(write_board(tmp_path / f"{name}.yaml", shots=1), out=tmp_path / "out", workers=ONE)
    manifest = tmp_path / "out/manifest.json"
    rows = json.loads(manifest.read_text())["films"]
    assert [(row["film"], row["state"]) for row in rows] == [("a", "done"), ("b", "done")]
    shutil.rmtree(tmp_path / "out/a")
    fr.batch(tmp_path / "b.yaml", out=tmp_path / "out", workers=ONE)
    assert [entry.name for entry in fr.ledger(tmp_path / "out")] == ["b"], "what was removed is not waited for"
    manifest.write_text('{"precious": 1}')
    with pytest.raises(fr.RenderError, match=r"manifest\.json: is not what a batch has written"):
        fr.batch(tmp_path / "a.yaml", out=tmp_path / "out", workers=ONE)
    assert manifest.read_text() == '{"precious": 1}'


def test_a_film_does_not_lie_within_one_of_a_batch_before(tmp_path):
    board = write_board(tmp_path / "a.yaml", shots=1)
    fr.batch(board, out=tmp_path / "out", workers=ONE)
    with pytest.raises(fr.StoryboardError, match=r"would lie in the folder of another one, .*out/a"):
        fr.batch(board, out=tmp_path / "out", seeds=2, workers=ONE)


def test_a_watched_board_takes_no_other_ones_film_and_a_folder_may_be_away_for_a_while(tmp_path):
    (first,) = films_of(write_board(tmp_path / "boards/a.yaml").parent, tmp_path / "out")
    notes, folder = list[str](), tmp_path / "in"
    for name in ("a.yaml", "b.yaml", "b.yml"):
        os.utime(write_board(folder / name), (1, 1))
    (folder / "warm.yaml").write_text("levels: []")
    os.utime(folder / "warm.yaml", (1, 1))
    find = lambda places: find_films(places, tmp_path / "out", loading={"device": "cpu"})  # noqa: E731
    watch = Watch(folder, find, notes.append, [first])
    assert [film.name for film in watch()] == ["b"]
    assert len(notes) == 2 and all("rename one" in note for note in notes), notes
    folder.rename(tmp_path / "away")
    assert watch() == watch() == [] and len(notes) == 3 and "cannot be read" in notes[2]
    (tmp_path / "away").rename(folder)
    os.utime(folder / "b.yaml", (2, 2))
    assert [film.name for film in watch()] == ["b"] and len(notes) == 3


def test_a_film_that_was_called_off_is_missing_and_its_shots_are_not_rendered_by_queued_commands(tmp_path):
    board, out = write_board(tmp_path / "a.yaml"), tmp_path / "out"
    fr.batch(board, out=out, workers=ONE, steps=1)
    fr.cancel(out / "a")
    done = here("render", board, "--out", out / "a", "--shot", 0)
    assert done.returncode == 2 and "called off" in done.stderr
    assert here("batch", board, "--out", out, "--emit", "commands").stdout.count("--shot") == 2, "asked for again"
    assert here("render", board, "--out", out / "a", "--shot", 0).returncode == 0


def test_a_board_that_is_removed_while_it_waits_is_rendered_as_it_was(tmp_path):
    board = write_board(tmp_path / "a.yaml", shots=1)
    films = fr.batch(
        board, out=tmp_path / "out", workers=ONE, on_event=lambda told, work: board.unlink(missing_ok=True)
    )
    assert [film.state for film in films] == ["done"] and (tmp_path / "out/a/video.mp4").exists()


@pytest.mark.slow
def test_a_batch_that_is_killed_at_any_moment_leaves_no_worker(tmp_path):
    """A unit of a long film does not fit into a pipe at once."""
    board = write_board(tmp_path / "a.yaml", shots=1)
    board.write_text(board.read_text().replace("seconds: 1.3", "seconds: 600"))
    for moment in (0.0, 3.0):
        words = [*COMMAND, str(board), "--out", str(tmp_path / f"out{moment}"), "--workers", "2"]
        process = psutil.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun = time.monotonic()
        while not (workers := process.children()):
            assert process.poll() is None and time.monotonic() < begun + 90
            time.sleep(0.02)
        time.sleep(moment)
        workers = process.children()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert psutil.wait_procs(workers, timeout=60)[1] == [], moment
