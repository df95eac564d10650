"""Detectors on drawn clips with a failure built in; scripts/failures.py counts them on many more."""

import failures as drawn
import numpy as np
import pytest

from framepack_relax.evaluate import detectors
from framepack_relax.evaluate.detectors import find_failures
from framepack_relax.evaluate.evaluation import Instruments

BARE = Instruments(action=None, text=None, distance=None, notes=())


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
