"""The judges: their labels, their windows, their training, and what they say of clips of the world."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from training.judge_data import captioned, clips, label, labels
from training.measure import figures
from training.world import FIRST, SECOND, Film, Mix, act

from framepack_relax.evaluate.action import ActionJudge, named, window_frames
from framepack_relax.evaluate.evaluation import JUDGES as PACKAGED
from framepack_relax.evaluate.text import TextJudge


def film(action, frames=145, starts=(40,)):
    pose, segments = act(np.random.default_rng(0), [(action, frames)], Mix(), starts=[list(starts)], world=SECOND)
    return Film(world=SECOND, colour="red", place="beach", pose=pose, segments=segments)


@pytest.mark.parametrize("action", SECOND.actions)
def test_a_clip_is_called_by_what_happens_in_it_not_by_its_caption(action):
    late = film(action)
    assert label(late, 0, 38) == "static", "it has not begun"
    assert label(late, 30, 94) == action
    assert label(late, 0, 44) is None, "too little of it to say"


def test_labels_come_about_equally_often():
    for world, count in ((FIRST, 6), (SECOND, 7)):
        _, truths, _ = clips(np.random.default_rng(0), 10 * count, frames=4, span=64, size=16, world=world)
        assert torch.bincount(truths, minlength=len(labels(world))).tolist() == [10] * count


def test_windows_are_seconds_whatever_the_frame_rate():
    at_30, at_24 = window_frames(300, 30), window_frames(240, 24)
    assert len(at_30) == len(at_24) == 16 and all(len(window) == 16 for window in at_30)
    assert np.abs(np.array(at_30) / 30 - np.array(at_24) / 24).max() < 1 / 24
    assert at_30[0][0] == 0 and at_30[0][-1] == 63 and at_30[-1][-1] == 299
    assert [window[-1] for window in window_frames(73, 30)] == [63, 72], "the end is seen, too"
    assert window_frames(20, 30)[0][-5:] == [19] * 5, "a short film holds its last frame"


def test_a_film_is_named_by_its_most_certain_window():
    windows = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.9, 0.1, 0.0]], np.float32)
    labels = ("static", "jump", "wave")
    assert named(dict(zip(labels, windows.T, strict=True))) == "jump"
    assert named(dict(zip(labels, windows[[0, 2]].T, strict=True))) == "static"


@pytest.mark.soak
def test_training_learns_resumes_and_its_folders_open_like_the_hubs(pytestconfig, tmp_path):
    command = [sys.executable, "-m", "training.judges", "--smoke", "--out", tmp_path]
    for _ in range(2):
        done = subprocess.run(
            command, cwd=pytestconfig.rootpath / "scripts", check=True, capture_output=True, text=True
        )
    assert " step " not in done.stderr, "finished training is not done again"
    for judge in ("action", "text"):
        losses = [json.loads(line)["loss"] for line in (tmp_path / "runs" / judge / "losses.jsonl").open()]
        assert np.mean(losses[-8:]) < 0.97 * np.mean(losses[:8]), judge
    frames = np.zeros((70, 32, 32, 3), np.uint8)
    scores = ActionJudge(tmp_path / "action").score(frames, 30)
    assert tuple(scores) == labels(SECOND)
    assert sum(scores.values()) == pytest.approx(np.ones(2), abs=1e-5)
    cosines = TextJudge(tmp_path / "text").cosines(frames[:40], ["a red figure waves", "a blue figure jumps at night"])
    assert cosines.shape == (40, 2) and np.abs(cosines).max() <= 1


@pytest.mark.slow
def test_the_packaged_action_judge_names_clips_it_has_not_seen():
    pixels, truths, _ = clips(np.random.default_rng(4242), 30, frames=64, span=64, size=96)
    frames = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2).numpy()
    judge = ActionJudge(PACKAGED / "action")
    names = [named(judge.score(clip, 30)) for clip in frames]
    assert sum(name == labels()[truth] for name, truth in zip(names, truths.tolist(), strict=True)) >= 29


def test_the_packaged_text_judge_prefers_a_frames_own_caption():
    pixels, texts = captioned(np.random.default_rng(4242), 20, 96)
    frames = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    nearest = TextJudge(PACKAGED / "text").cosines(frames, texts).argmax(1)
    assert (nearest == np.arange(20)).sum() >= 19


def test_the_cards_figures_are_those_of_its_rows():
    rows = [{"kind": "static", "seed": n, "action": a, "static": n < 3} for n, a in enumerate(["jump", "wave"] * 3)]
    made = figures([*rows, {"kind": "vae", "seed": 0, "psnr": 31.0}, {"kind": "vae", "seed": 1, "psnr": 29.0}])
    assert made["static_death"] == {"films": 6, "share": 0.5, "wave": 0.333, "jump": 0.667}
    assert made["vae_psnr"] == {"clips": 2, "mean": 30.0, "lowest": 29.0} and "right_action" not in made
