"""What is shown fits the width there is: no word broken, every figure there, readable at 3,000 scenes."""

import unicodedata
from io import StringIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from framepack_relax import api
from framepack_relax.cli import tables
from framepack_relax.cli.screen import Screen
from framepack_relax.evaluate import statistics
from framepack_relax.families.catalog import CATALOG
from framepack_relax.rendering.status import Status
from framepack_relax.storyboard import Scene, read_storyboard

FIGURES = {
    "film": "out/backflip/video.mp4",
    "scene": "calm",
    "motion": {"mean": 0.123, "at_once": 0.234, "dynamic": True},
    "action": {
        "named": "backflip",
        "top": {"backflip": 0.91},
        "targets": {"backflip": {"best": 0.92, "mean": 0.53}, "somersaulting": {"best": 0.24, "mean": 0.15}},
    },
    "text": {"score": 28.1, "cosine": 0.281},
    "lpips": {"adjacent": 0.021},
    "drift": {"drift": 0.102},
    "failures": {"snap-back": True},
}


def shown(table, width):
    console = Console(width=width, file=StringIO())
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert all(cell_len(line) <= width for line in lines)
    return "\n".join(lines)


def words(text):
    return {word.strip(",;") for word in text.split()}


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("name", ["day", "rooftop"])
def test_every_figure_and_word_of_a_plan_is_whole(pytestconfig, width, name):
    plan = api.plan(read_storyboard(pytestconfig.rootpath / f"storyboards/{name}.yaml"))
    text = words(shown(tables.plan_table(plan), width))
    for scene in plan.scenes:
        last = plan.sections[scene.sections[-1]]
        figures = {f"{scene.frames[0]}..{scene.frames[1] - 1}", f"{scene.real_seconds:.2f}", scene.scene}
        assert figures | words(last.relaxation.in_words()) <= text
    read = words(shown(tables.prompts_table(plan), width))
    assert all(words(section.prompt) <= read for section in plan.sections)


@pytest.mark.parametrize("width", [80, 120, 160])
def test_every_figure_and_word_of_an_evaluation_is_whole(width):
    text = shown(
        tables.evaluation_table(
            [FIGURES, FIGURES | {"scene": None, "text": {}} | {"text": {"score": 9.0, "cosine": 0.09}}]
        ),
        width,
    )
    figures = "out/backflip/video.mp4 calm 0.123 0.234 yes backflip 0.91 somersaulting 0.92 (0.15) 28.1 0.021 snap-back"
    assert set(figures.split()) <= words(text)


def test_a_wide_console_is_used(pytestconfig):
    plan = api.plan(read_storyboard(pytestconfig.rootpath / "storyboards/day.yaml"))
    lines = shown(tables.plan_table(plan), 160).splitlines()
    assert any("3.6 s -> 3.60 s" in line and "context beta 0.75 p 0.7, gain 0.5 on history" in line for line in lines)
    narrow = shown(tables.plan_table(plan), 80).splitlines()
    assert len(lines) < len(narrow)


@given(
    st.lists(st.lists(st.text("ab \u6d5c\t\n", max_size=30), min_size=3, max_size=3), min_size=1, max_size=6),
    st.integers(20, 120),
)
@example([["", "", " aaaa"]], 20)
@settings(max_examples=200, deadline=None)
def test_no_word_is_broken_at_any_width(rows, width):
    table = tables.Grid([dict(zip(("scene", "what", "more"), row, strict=True)) for row in rows], wraps="what, more")
    text = words(shown(table, width))
    fits = {word for row in rows for cell in row for word in words(cell) if cell_len(word) <= width - 2}
    assert fits - {""} <= text


def test_three_thousand_scenes_are_readable(pytestconfig):
    scenes = [Scene(id=f"s{k}", prompt=f"number {k}", seconds=1.2) for k in range(3000)]
    plan = api.plan(scenes, image=pytestconfig.rootpath / "storyboards/red-beach.png", steps=2)
    for table in (tables.plan_table(plan), tables.prompts_table(plan)):
        text = shown(table, 80)
        assert len(text.splitlines()) < 1000 and {"s0", "s99", "s2900", "s2999", "2800"} <= words(text)
        assert "s1500" not in words(text)
    done = tuple((f"s{k}", 2 if k < 1500 else k == 1500, 2) for k in range(3000))
    status = Status(title="", scenes=done, film=None, at_work=None, seconds_per_section=None, newest=None)
    lines = [line.split() for line in shown(tables.status_table(status), 80).splitlines() if " of " in line]
    assert [line[0] for line in lines] == ["s0", "s1500", "s1501"] and lines[1][1:] == ["1", "of", "2"]
    assert lines[0][-3:] == ["3000", "of", "3000"] and lines[2][-3:] == ["0", "of", "2998"]


def test_what_the_crop_cuts_away_is_shown_of_every_start_image(pytestconfig, tmp_path):
    from PIL import Image

    Image.new("RGB", (640, 480)).save(tmp_path / "wide.png")
    file = pytestconfig.rootpath / "storyboards/red-beach.png"
    scenes = [
        Scene(id="a", prompt="x", seconds=1.2),
        Scene(id="b", prompt="x", seconds=1.2, transition="cut", image=str(tmp_path / "wide.png")),
        Scene(id="c", prompt="x", seconds=1.2, transition="cut"),
    ]
    lines = tables.crops_text(api.plan(scenes, image=file)).splitlines()
    assert lines == [
        f"{file}, 96x96 px: nothing is cut away",
        f"{tmp_path / 'wide.png'}, 640x480 px: 25% is cut away, left and right",
    ]


def test_models_show_their_repositories_whole():
    text = shown(tables.models_table([(entry, False) for entry in CATALOG.values()]), 80)
    assert all(repository in text for repository, _ in CATALOG["framepack"].parts.values())


def test_a_figure_that_is_added_to_the_list_has_a_column_and_a_place_in_a_sweeps_row(monkeypatch):
    monkeypatch.setitem(statistics.FIGURES, "brightness", ("brightness", "change"))
    row = FIGURES | {"brightness": {"change": 0.4567}}
    assert {"brightness", "0.457"} <= words(shown(tables.evaluation_table([row, FIGURES]), 200))
    assert statistics.figures_of(row) == {**statistics.figures_of(FIGURES), "brightness": 0.4567}


EVIL = "\u202e\u2066\x1b[2J\x1b]0;title\x07 \x9b31m \r\x7f\x08 [red] :smile:"


@given(st.text(st.characters(categories=["Cc", "Cf", "Lu", "Lo", "Zs"])) | st.just(EVIL), st.sampled_from([40, 200]))
@example(EVIL, 80)
def test_nothing_that_is_shown_steers_a_terminal(text, width):
    screen = Screen(width=width, file=StringIO())
    row = FIGURES | {"film": text, "scene": text, "failures": {text: True}}
    row["action"] = {"named": text, "top": {text: 0.5}, "targets": {text: {"best": 0.5, "mean": 0.5}}}
    for shown in (
        text,
        Text(text),
        tables.evaluation_table([row]),
        tables.Grid([{"scene": text}], title=text),
        tables.model_text(CATALOG["puppet"], True, {text: text}),
    ):
        screen.print(shown)
    said = screen.file.getvalue()
    assert not [sign for sign in said if unicodedata.category(sign) in ("Cc", "Zl", "Zp") and sign != "\n"]
    assert not [sign for sign in said if unicodedata.bidirectional(sign) in ("LRE", "RLE", "LRO", "RLO", "LRI", "RLI")]
    if text == EVIL:
        assert "\\x1b" in said and "\\x9b" in said and "[red] :smile:" in said
