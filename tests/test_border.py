"""What scripts/border.py says of the borders of a film's sections."""

import json

import numpy as np
import pytest
from border import ROWS, figures, table

import framepack_relax as fr
from framepack_relax.evaluate.evaluation import Instruments
from framepack_relax.evaluate.film import read_film
from framepack_relax.evaluate.spec import jobs, read_sweep
from framepack_relax.evaluate.swept import measure


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


def test_a_sweep_tells_the_scenes_border_apart_from_those_within_it(tmp_path):
    spec = {"title": "t", "model": "fake", "seeds": 1, "steps": 3, "calm_seconds": 1.2, "seconds": 2.4}
    spec |= {"starts": [{"who": "a man", "where": "here"}], "scenes": [{"id": "flip", "prompt": "{who} flips {where}"}]}
    file = tmp_path / "spec.json"
    file.write_text(json.dumps({**spec, "arms": [{"id": "vanilla", "intensity": 0.0}]}))
    (job,) = jobs(read_sweep(str(file)))
    film = fr.render(job.story.changed(sampler="euler"), out=tmp_path / "film")
    row = measure(job, film, Instruments(action=None, text=None, distances={}, notes=()))
    borders = [s.frames[0] for s in film.plan.sections if s.scene == film.plan.sections[-1].scene]
    said = figures(read_film(film.path).frames, borders)
    assert len(borders) > 1 and row["border"] == pytest.approx(said["border"], abs=0.01)
    assert row["jump"] == pytest.approx(max(said["border"], said["later"]), abs=0.01)
