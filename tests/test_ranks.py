"""One film by several processes is the film of one, and they end together, however they end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import load_file

import framepack_relax as fr
from framepack_relax.families.ranks import LOST, RankLost, Ranks, split

TESTS = Path(__file__).parent
CLOSE = 1e-5  # of the largest value
SCENES = """
  - {id: calm, prompt: a red figure stands still, seconds: 1.2, emphasis: [{words: still, gain: 4}]}
  - {id: flip, prompt: a red figure does a backflip, seconds: 1.2, intensity: 0.9, relax: {target: [context]},
     transition: {blend: 2}, emphasis: [{words: backflip, gain: 2}]}
"""
GONE = 90  # seconds after which processes that should have ended hang


def torchrun(ranks: int, *command: object) -> subprocess.Popen[str]:
    """In a process that takes Ctrl-C, whatever started the tests."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return subprocess.Popen(
        [*run, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


@pytest.mark.parametrize("ranks", range(1, 10))
@pytest.mark.parametrize("branches", range(1, 5))
def test_ranks_are_split_into_groups_that_take_the_least_time(branches, ranks):
    groups = split(branches, ranks)
    assert [rank for group in groups for rank in group] == list(range(ranks)), "each rank is in one group"
    assert len(groups) <= branches and max(map(len, groups)) - min(map(len, groups)) <= 1
    busiest = -(-branches // len(groups)) / min(map(len, groups))
    assert busiest <= branches / ranks, "passes that are all shared by all ranks take no less"
    if ranks % branches == 0:
        assert len(groups) == branches, "branches first, and each pass is shared by the ranks that are left"


@pytest.mark.parametrize(
    ("why", "error"),
    [("CUDA out of memory. Tried to allocate 2.00 GiB", torch.OutOfMemoryError), ("key 7", fr.RenderError)],
)
def test_what_another_rank_has_ended_by_is_told_by_rank_0(monkeypatch, why, error):
    """A full GPU is one of another rank, too: `enough_memory` says what would fit."""

    def gone(order):
        raise RankLost()

    monkeypatch.setattr("framepack_relax.families.ranks._send", gone)
    ranks = object.__new__(Ranks)
    ranks.store, ranks.sent = torch.distributed.HashStore(), None
    ranks.store.set(LOST, f"rank 1 has ended: {why}")
    with pytest.raises(error, match=why):
        ranks.lead(SimpleNamespace(preset="full", adapters=()), None, None, None)


def test_a_film_by_two_ranks_is_that_of_one(board, model, tmp_path):
    file, out = board(SCENES), tmp_path / "two"
    said, errors = torchrun(2, "-m", "framepack_relax", "render", file, "--out", out).communicate(timeout=10 * GONE)
    assert said.count("rendered in") == 1 and "Traceback" not in errors, (said, errors)
    fr.render(file, out=tmp_path / "one", model=model)
    for name in ("shots/00/000.safetensors", "shots/00/001.safetensors"):
        two, one = (load_file(tmp_path / folder / name)["latents"] for folder in ("two", "one"))
        assert np.abs(two - one).max() <= CLOSE * np.abs(one).max(), name
    (out / "video.mp4").unlink()
    again = fr.render(file, out=out, model=model)
    assert all(section["reused"] for section in again.report["sections"]), "how many ranks is no part of a key"
    notes = [verdict.note for verdict in fr.preview(file, out=out)]
    assert all("2 x cpu" in note for note in notes), notes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "name"),
    [(2, "tiny"), pytest.param(4, "tiny", marks=pytest.mark.soak), pytest.param(3, "hunyuan", marks=pytest.mark.soak)],
)
def test_every_way_of_sharing_gives_the_latents_of_one_rank(ranks, name, request, board):
    """`ranked.py` renders; tokens and heads do not divide by the ranks, and of four two have no heads."""
    folder, hero = request.getfixturevalue(name), board(SCENES).parent / "hero.png"
    said, errors = torchrun(ranks, TESTS / "ranked.py", folder, hero).communicate(timeout=10 * GONE)
    cases = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert len(cases) == (3 if name == "hunyuan" else 16), errors
    for case in cases:
        groups = split(case["branches"], ranks)
        passes, tokens = -(-case["branches"] // len(groups)), -(-case["tokens"] // len(groups[0]))
        assert case["apart"] <= CLOSE and case["moved"] > 0.1, case
        assert case["passes_of_first"] == passes and case["tokens_of_first"] == tokens, case
    assert any(case["tokens"] % ranks for case in cases) or name == "hunyuan"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "says"),
    [
        ("interrupt", ["stopped:"]),
        pytest.param("kill rank 1", ["stopped:", "another rank has ended"], marks=pytest.mark.soak),
        pytest.param("kill rank 0", [], marks=pytest.mark.soak),
    ],
)
def test_all_ranks_end_with_one_and_nothing_is_lost(board, model, tmp_path, stop, says):
    """Of a killed rank torchrun may tell rank 0 first, which it then stops."""
    file, out = board(SCENES), tmp_path / "out"
    file.write_text(file.read_text().replace("steps: 2", "steps: 60"))
    process = torchrun(2, "-m", "framepack_relax", "render", file, "--out", out)
    waited = time.monotonic()
    while not (out / "shots/00/000.safetensors").exists():
        assert process.poll() is None and time.monotonic() < waited + 10 * GONE, process.communicate()
        time.sleep(0.05)
    ranks = {int(child.environ()["RANK"]): child for child in psutil.Process(process.pid).children()}
    assert sorted(ranks) == [0, 1]
    if stop == "interrupt":
        process.send_signal(signal.SIGINT)
    else:
        ranks[int(stop[-1])].kill()
    said = "".join(process.communicate(timeout=GONE))
    assert psutil.wait_procs(list(ranks.values()), timeout=GONE)[1] == [], "a rank is left"
    assert process.returncode and sum(said.count(words) for words in says) == bool(says), said
    film = fr.render(file, out=out, model=model)
    assert [section["reused"] for section in film.report["sections"]] == [True, False]
