"""Slurm, by submitit's own jobs on this machine: they share a batch by its run folders, and lose nothing."""

import os
import signal
from contextlib import suppress

import psutil
import pytest

import framepack_relax as fr

pytest.importorskip("submitit", reason="needs the extra slurm: pip install 'framepack-relax[slurm]'")

from test_batch import write_board

from framepack_relax.farm.films import find_films
from framepack_relax.farm.slurm import _Followed
from framepack_relax.rendering.mark import CANCELLED

HERE = {"engine": "slurm", "slurm": ["cluster=local"]}


def jobs_here(signalled: int) -> int:
    """Sends a signal to the Python of each job; gives how many there are."""
    sent = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "submitit.core._submit" in process.cmdline():
                os.kill(process.pid, signalled)
                sent += 1
    return sent


@pytest.mark.slow
def test_jobs_that_are_preempted_are_queued_again_and_the_films_are_those_of_one_worker(tmp_path):
    for name in "abc":
        write_board(tmp_path / f"boards/{name}.yaml")
    told, sent = [], []

    def hear(one, work):
        told.append((one.unit.name, one.event.kind))
        if one.event.kind == "begun" and not sent:
            sent.append(jobs_here(signal.SIGUSR2))

    films = fr.batch(tmp_path / "boards", out=tmp_path / "out", on_event=hear, workers=fr.Workers(workers=2, **HERE))
    assert [film.state for film in films] == ["done"] * 3 and sent == [2]
    assert sorted(name[0] for name, kind in told if kind == "film") == [*"abc"]
    assert sum(kind == "section" for _, kind in told) == 12
    for name in "abc":
        alone = fr.render(tmp_path / f"boards/{name}.yaml", out=tmp_path / "alone" / name)
        assert (tmp_path / f"out/{name}/video.mp4").read_bytes() == alone.path.read_bytes()
    nothing = fr.batch(
        tmp_path / "boards", out=tmp_path / "out", on_event=pytest.fail, workers=fr.Workers(workers=2, **HERE)
    )
    assert [film.state for film in nothing] == ["done"] * 3


@pytest.mark.soak
def test_where_all_jobs_have_died_the_films_that_are_left_have_failed(tmp_path):
    write_board(tmp_path / "boards/a.yaml", shots=6)
    died = []

    def hear(one, work):
        if one.event.kind == "begun" and not died:
            died.append(jobs_here(signal.SIGKILL))

    (film,) = fr.batch(tmp_path / "boards", out=tmp_path / "out", on_event=hear, workers=fr.Workers(workers=1, **HERE))
    assert died == [1] and film.state == "failed" and "no job is left" in film.why and film.cause == "mistake"
    (film,) = fr.batch(tmp_path / "boards", out=tmp_path / "out", workers=fr.Workers(workers=1))
    assert film.state == "done"


def test_what_jobs_cannot_share_is_told_before_any_is_queued(tmp_path):
    board = write_board(tmp_path / "a.yaml")
    (tmp_path / "in").mkdir()
    for more, fact in (({"fresh": True}, "fresh"), ({"strict": True}, "strict"), ({"watch": tmp_path / "in"}, "watch")):
        with pytest.raises(fr.RenderError, match=f"slurm: .*{fact}"):
            fr.batch(board, out=tmp_path / "out", workers=fr.Workers(workers=1, **HERE), **more)
    with pytest.raises(fr.RenderError, match="login node"):
        fr.batch(board, out=tmp_path / "out", workers=fr.Workers(engine="slurm", workers=1))
    assert not list(tmp_path.rglob("*submitted*"))


def test_what_is_on_disk_tells_what_has_come_and_an_old_film_does_not_count(tmp_path):
    board = write_board(tmp_path / "a.yaml", shots=2)
    fr.render(board, out=tmp_path / "out/a")
    board.write_text(board.read_text().replace("scene 1", "another scene"))
    (film,) = find_films([board], tmp_path / "out", loading={"device": "cpu"})
    (unit,) = film.units()
    followed = _Followed(unit)
    assert not list(followed.look(None, is_last=True)), "the old film is none"
    fr.render(board, out=tmp_path / "out/a")
    said = list(followed.look(None, is_last=True))
    assert [event.kind for event in said] == ["begun", "section", "section", "film", "ended"] and followed.ended
    (film,) = find_films([board], tmp_path / "other", loading={"device": "cpu"})
    first, last = map(_Followed, film.units())
    (tmp_path / "other/a").mkdir(parents=True)
    (tmp_path / "other/a" / CANCELLED).touch()
    assert [event.cause for event in (*first.look(None, is_last=False), *last.look(None, is_last=True))] == [
        "cancelled"
    ] * 2
