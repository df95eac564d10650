"""Changes of a board's text by field: the fields change, and no other byte does."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from framepack_relax.errors import StoryboardError
from framepack_relax.storyboard.patch import insert_scene, move_scene, remove_scene, set_fields, tree_of

BOARD = """\
# a film
title: "Backflip"   # its name
model: puppet
scenes:
  # the quiet one
  - id: calm
    prompt: a figure stands still   # so far
    seconds: 2.4

  - id: flip
    # how it moves
    prompt: >
      a figure does
      a backflip
    seconds: 2.4
    intensity: 0.9     # most
    relax: {target: [context], beta: 0.75}
  - {id: after, prompt: "a figure, still", seconds: 1.2}
# the end
"""


def lines_of(text: str, changed: str) -> tuple[list[str], list[str]]:
    """Lines that are gone, and that are new."""
    old, new = text.splitlines(), changed.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


@pytest.mark.parametrize(
    ("path", "value", "gone", "new"),
    [
        ("title", "It's: so", ['title: "Backflip"   # its name'], ['title: "It\'s: so"   # its name']),
        ("steps", 2, [], ["steps: 2"]),
        ("scenes[0].seconds", 3.6, [], ["    seconds: 3.6"]),
        ("scenes[1].intensity", 0.5, ["    intensity: 0.9     # most"], ["    intensity: 0.5     # most"]),
        ("scenes[0].intensity", 0.5, [], ["    intensity: 0.5"]),
        ("scenes[1].intensity", None, ["    intensity: 0.9     # most"], []),
        (
            "scenes[0].prompt",
            "he waves, # twice",
            ["    prompt: a figure stands still   # so far"],
            ["    prompt: 'he waves, # twice'   # so far"],
        ),
        ("scenes[1].prompt", "he waves", ["    prompt: >", "      a figure does", "      a backflip"],
         ["    prompt: he waves"]),
        ("scenes[1].relax.beta", 0.5, ["    relax: {target: [context], beta: 0.75}"],
         ["    relax: {target: [context], beta: 0.5}"]),
        ("scenes[1].relax.target", None, ["    relax: {target: [context], beta: 0.75}"], ["    relax: {beta: 0.75}"]),
        ("scenes[0].relax.beta", 0.5, [], ["    relax: {beta: 0.5}"]),
        ("scenes[2].intensity", 0.5, ['  - {id: after, prompt: "a figure, still", seconds: 1.2}'],
         ['  - {id: after, prompt: "a figure, still", seconds: 1.2, intensity: 0.5}']),
        ("scenes[2].prompt", "a, b", ['  - {id: after, prompt: "a figure, still", seconds: 1.2}'],
         ['  - {id: after, prompt: "a, b", seconds: 1.2}']),
        ("scenes[0].lock", True, [], ["    lock: true"]),
    ],
)  # fmt: skip
def test_a_field_changes_and_nothing_else_does(path, value, gone, new):
    assert lines_of(BOARD, set_fields(BOARD, {path: value})) == (gone, new)
    windows = BOARD.replace("\n", "\r\n")
    assert set_fields(windows, {path: value}) == set_fields(BOARD, {path: value}).replace("\n", "\r\n")


def test_scenes_move_with_their_comments():
    moved = move_scene(BOARD, 0, 1)
    assert sorted(moved.splitlines()) == sorted(BOARD.splitlines())
    assert [scene["id"] for scene in tree_of(moved)["scenes"]] == ["flip", "calm", "after"]
    assert moved.index("# the quiet one") > moved.index("most") and moved.endswith("# the end\n")
    assert move_scene(moved, 1, 0) == BOARD


def test_a_scene_comes_and_goes_and_the_rest_is_as_it_was():
    for place in range(4):
        more = insert_scene(BOARD, place, {"id": "new", "prompt": "a: b", "seconds": 1.2})
        assert tree_of(more)["scenes"][place] == {"id": "new", "prompt": "a: b", "seconds": "1.2"}
        assert remove_scene(more, place) == BOARD


@pytest.mark.parametrize(
    "text", ["scenes: [{id: a, prompt: b, seconds: 1}]\n", "scenes:\n- id: a\n", "a: [\n", "- a\n", "title: x\n"]
)
def test_what_cannot_be_done_is_refused(text):
    with pytest.raises(StoryboardError):
        remove_scene(text, 0)


@pytest.mark.parametrize("path", ["", "scenes", "scenes[7].prompt", "scenes[0]", "a..b", "title.x", "scenes[0].id[0]"])
def test_a_path_that_leads_to_no_field_is_refused_or_changes_that_alone(path):
    try:
        changed = set_fields(BOARD, {path: "x"})
    except StoryboardError as error:
        assert error.problems[0].path in (path, path[:60])
    else:
        assert tree_of(changed) == {**tree_of(BOARD), path: "x"}


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.sampled_from(["title", "scenes[2].id"]))
def test_any_text_is_read_as_it_was_written(value, path):
    changed = tree_of(set_fields(BOARD, {path: value}))
    assert (changed["title"] if path == "title" else changed["scenes"][2]["id"]) == value
    assert yaml.safe_load(set_fields(BOARD, {path: value}))["model"] == "puppet"
