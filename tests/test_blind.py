"""The blind sheet: what is on it, that its key lies apart and fits, how marks are read and counted."""

import blind
import numpy as np
import pytest
from PIL import Image

from framepack_relax.evaluate.rows import read_rows

ROWS = read_rows(blind.MEASURED / blind.FILMS)
WORDS = ("jump", "static", "wave", blind.BROKEN)


def test_films_are_chosen_once_each_and_in_the_same_order_for_the_same_seed():
    chosen = blind.sampled(ROWS, 0)
    films = [row["key"] for row in chosen]
    assert len(set(films)) == blind.COUNT and films == [row["key"] for row in blind.sampled(ROWS[::-1], 0)]
    assert films != [row["key"] for row in blind.sampled(ROWS, 1)]
    still = [row["named"] == blind.STILL for row in chosen]
    assert sum(still) == blind.COUNT // 2 and still not in (sorted(still), sorted(still)[::-1])


def test_marks_are_counted_against_what_the_judge_has_named():
    key = [{"number": n, "named": named} for n, named in enumerate(["jump", "jump", "static", "wave", "wave"], 1)]
    marks = blind.read_marks("1: jump\n2: broken\n\n3: static\n4: jump\n5:\n", WORDS)
    lines = blind.table(marks, key, WORDS)
    assert lines[2:6] == [
        "| jump | 1 | - | 1 |",
        "| static | - | 1 | - |",
        "| wave | - | - | - |",
        "| broken | 1 | - | - |",
    ]
    assert lines[-1] == "2 of 4 films are named as they were seen; 5 are on the sheet."


def test_every_line_of_marks_that_is_wrong_is_told():
    with pytest.raises(SystemExit) as told:
        blind.read_marks("1: jump\nx: jump\n3: flies", WORDS)
    first, second = str(told.value).splitlines()
    assert first.startswith("'x: jump': write NUMBER: MARK") and second.startswith("'3: flies'")


def test_the_committed_sheet_has_a_key_and_places_for_marks():
    key = read_rows(blind.KEY, blind.Keyed)
    assert [row["number"] for row in key] == list(range(1, blind.COUNT + 1))
    assert {row["named"] for row in key} <= set(blind.words()) and len({row["key"] for row in key}) == blind.COUNT
    marks = blind.read_marks(blind.MARKS.read_text(encoding="utf8"), blind.words())
    assert marks.keys() <= {row["number"] for row in key}
    with Image.open(blind.SHEET) as image:
        width = blind.COLUMNS * (blind.MARGIN + blind.SHOWN * blind.SIDE)
        assert image.size == (width, blind.COUNT // blind.COLUMNS * (blind.SIDE + 2)) and not image.text
        assert np.asarray(image.convert("L")).std() > 20
    assert blind.SHEET.stat().st_size < 1_500_000
