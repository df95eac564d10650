"""What scripts/border.py says of the borders of a film's sections."""

import json

import numpy as np
from border import ROWS, figures, table


def film(places):
    """Frames of a bright square whose left side is at these places."""
    frames = np.zeros((len(places), 48, 96, 3), np.uint8)
    for frame, left in zip(frames, places, strict=True):
        frame[8:40, left : left + 12] = 200
    return frames


def test_motion_across_a_border_is_no_jump_and_a_figure_elsewhere_is():
    still, moving = [20] * 20, [20 + 3 * k for k in range(20)]
    passing = figures(film([20] * 10 + moving), [10, 20])
    assert passing["later"] > 50 and passing["apart"] == 0, "it moves as fast before and after"
    assert passing["border"] == 0 and passing["onset"] > 50, "it begins to move at the next frame"
    moved = figures(film(still + [60] * 20), [20, 30])
    assert moved["border"] == moved["apart"] > 100 and moved["later"] == 0


def test_the_committed_rows_are_told_arm_by_arm():
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf8").splitlines()]
    lines = [line for line in table(rows, "context") if line.startswith("| ") and "right action" not in line]
    assert len(lines) == len({(row["films"], row["arm"]) for row in rows})
    assert len({(row["films"], row["arm"], row["scene"], row["seed"]) for row in rows}) == len(rows)
