"""Detectors on drawn clips and real footage with a failure built in; scripts/ counts them on many more."""

import json
from dataclasses import replace
from pathlib import Path

import appendix
import cv2
import failures as drawn
import footage
import numpy as np
import pytest
from training.world import FIRST, SECOND

from framepack_relax.evaluate import detectors
from framepack_relax.evaluate.detectors import UNEXPLAINED, find_cuts, find_failures, measure_signals
from framepack_relax.evaluate.evaluation import Instruments

BARE = Instruments(action=None, text=None, distances={}, notes=())


@pytest.fixture(scope="module")
def said():
    return drawn.measure(2)


@pytest.mark.slow
def test_most_failures_are_called_by_their_name(said):
    assert list(said) == ["sound", "static", "freeze", "snap-back", "chaos", "over-relaxed", "collapse"]
    assert all(row[kind] >= 1 for kind, row in said.items())
    assert sum(row[kind] for kind, row in said.items()) >= 12, drawn.table(said)
    assert said["sound"]["sound"] == said["static"]["static"] == 2


def test_precision_and_recall_are_of_the_counts():
    counted = {kind: drawn.Counter({kind: 3}) for kind in drawn.KINDS}
    counted["snap-back"] = drawn.Counter({"snap-back": 1, "sound": 2})
    rows = {line.split()[0]: line.split()[-2:] for line in drawn.table(counted).splitlines()[1:]}
    assert rows["sound"] == ["0.60", "1.00"] and rows["snap-back"] == ["1.00", "0.33"]


@pytest.mark.parametrize("kind", ["static", "snap-back", "chaos", "collapse"])
def test_what_needs_no_judge_is_found_without_one_and_at_any_size(kind):
    made = drawn.clip(kind, 0)
    assert drawn.found(made, BARE) == kind
    larger = made.frames.repeat(2, axis=1).repeat(2, axis=2)
    verdict = find_failures(larger, drawn.FPS)
    assert verdict[kind] and sum(verdict.values()) == 1 and not {"freeze", "over-relaxed"} & set(verdict)


def test_a_freeze_needs_the_pose_and_over_relaxed_a_wish():
    made = drawn.clip("freeze", 0)
    seen = find_failures(made.frames, drawn.FPS, likeness=0.5, wrong=True)
    assert seen["freeze"] and not seen["over-relaxed"], "the first failure that applies"
    again = find_failures(made.frames, drawn.FPS, likeness=0.99, wrong=True)
    assert again["over-relaxed"] and not again["freeze"], "still, but in its first pose elsewhere"
    assert not any(find_failures(made.frames, drawn.FPS, likeness=0.99, wrong=False).values())


def test_a_film_with_frames_in_between_is_judged_alike():
    made = drawn.clip("chaos", 0).frames.astype(np.float32)
    smooth = np.empty((2 * len(made) - 1, *made.shape[1:]), np.uint8)
    smooth[::2], smooth[1::2] = made, (made[:-1] + made[1:]) / 2
    assert find_failures(smooth, 60)["chaos"], "half the change from frame to frame is the same chaos"


def test_thresholds_decide(monkeypatch):
    still = drawn.clip("static", 0).frames
    assert find_failures(still, drawn.FPS)["static"]
    assert find_failures(still, drawn.FPS, lpips=0.5)["collapse"]
    monkeypatch.setattr(detectors, "STATIC", 0)
    assert not find_failures(still, drawn.FPS)["static"]


def test_two_equal_frames_are_static():
    assert find_failures(np.zeros((2, 96, 160, 3), np.uint8), 30) == {
        "collapse": False, "chaos": False, "static": True, "snap-back": False
    }  # fmt: skip


@pytest.mark.parametrize("world", [FIRST, SECOND], ids=["first", "second"])
@pytest.mark.parametrize("action", ["jump", "backflip", "wave"])
def test_what_comes_down_by_itself_is_no_snap_back(world, action):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        played = drawn.film_of(rng, action, start=int(rng.integers(5, 40)))
        if world is SECOND:
            pose, segments = drawn.act(rng, [(action, 73)], drawn.Mix(), starts=[[20 + 5 * seed]], world=world)
            colour, place = world.pairs(held_out=False)[seed]
            played = replace(played, world=world, colour=colour, place=place, pose=pose, segments=segments)
        frames = drawn.drawn(played).clip(0, 255).round().astype(np.uint8)
        assert footage.called(frames, drawn.FPS) == "sound", (action, seed)


CLIP = Path(__file__).parent / "footage" / "backflip.mp4"  # NOTICE beside it


@pytest.fixture(scope="module", params=[None, footage.CLIPS["backflip, crop"].crop], ids=["whole", "crop"])
def real(request):
    return list(footage.stretches(CLIP, request.param))


def made(kind, stretch):
    first, frames, fps = stretch
    return footage.called(footage.KINDS[kind][1](np.random.default_rng(first), frames), fps)


def test_a_real_backflip_raises_no_alarm(real):
    assert [made("as it is", stretch) for stretch in real] == ["sound"] * 3


@pytest.mark.parametrize("kind", ["first frame held", "shuffled", "dissolved: run"])
def test_failures_built_into_real_footage_are_called_by_their_name(real, kind):
    assert [made(kind, stretch) for stretch in real] == [footage.KINDS[kind][0]] * 3


def test_a_cut_is_no_failure_and_is_found():
    _, frames, fps = next(iter(footage.stretches(CLIP, None)))
    left, right = frames[:, :, :224], frames[:, :, -224:][:, ::-1]
    joined = np.concatenate([left[:30], right[30:]])
    assert find_cuts(measure_signals(joined, fps)) == [30]
    assert footage.called(joined, fps) == footage.called(right[30:], fps)
    assert not find_cuts(measure_signals(left, fps))


def passing(frames=48, side=108):
    """A patterned square that passes a patterned wall, over its own height a second at 25 frames a second."""
    rng = np.random.default_rng(0)
    few = [
        rng.integers(0, 255, (high // 12, wide // 12, 3), dtype=np.uint8) for high, wide in ((192, 252), (side, side))
    ]
    wall, square = (cv2.resize(cells, None, fx=12, fy=12, interpolation=cv2.INTER_CUBIC) for cells in few)
    made = np.stack([np.pad(wall, ((0, 0), (side, side), (0, 0)))] * frames)
    for number in range(frames):
        x = 9 * number % (252 + side)
        made[number, 60 : 60 + side, x : x + side] = square
    return made[:, :, side:-side]


def test_what_passes_quickly_hides_and_shows_but_is_no_chaos():
    quick = passing()
    assert measure_signals(quick, 25).unexplained.mean() > UNEXPLAINED
    assert footage.called(quick, 25) == "sound"
    assert footage.called(np.random.default_rng(0).permutation(quick), 25) == "chaos"


def test_every_stretch_of_the_committed_rows_has_every_kind():
    rows = [json.loads(line) for line in appendix.FOOTAGE.read_text(encoding="utf8").splitlines()]
    made = {name: drawn.Counter(row["made"] for row in rows if row["clip"] == name) for name in footage.CLIPS}
    assert sum(map(len, made.values())) == len(made) * len(footage.KINDS)
    assert all(len(set(counts.values())) == 1 for counts in made.values())
    assert all(row["kind"] == footage.KINDS[row["made"]][0] for row in rows)
