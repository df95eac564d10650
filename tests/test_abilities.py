"""What a family has a board may say, in every family; what it has not is told at its place, with what it has."""

import json
import shutil

import pytest
from PIL import Image

from framepack_relax.errors import ModelError, StoryboardError
from framepack_relax.families.catalog import CATALOG, PUPPET, find_family, read_family
from framepack_relax.planning.planner import make_plan
from framepack_relax.storyboard import Scene, read_storyboard, storyboard_from_scenes
from framepack_relax.storyboard.schema import BLOCKS

TERMS = {"embedded", "text", "context", "anchor", "motion"}  # of all families
SCOPES = {"section", "history", "reference", "all"}


@pytest.fixture(params=CATALOG)
def family(request):
    return find_family(request.param)


@pytest.fixture
def planned(family, tmp_path):
    """Plans a board of one scene; gives what is wrong with it as (path, message), and the plan."""
    image = {}
    if family.image != "refused":
        Image.new("RGB", (96, 96), "navy").save(tmp_path / "start.png")
        image = {"image": str(tmp_path / "start.png")}

    def plan(scene=(), **board):
        made = Scene(id="a", prompt="x", seconds=2.4, **dict(scene))
        try:
            return [], make_plan(storyboard_from_scenes([made], steps=2, **image, **board), family)
        except StoryboardError as error:
            return [(problem.path, problem.message) for problem in error.problems], None

    return plan


def acting(family, plan, name):
    """The scales of a term in the steps in which it acts; in the others it is 1."""
    first, end = next(term.timesteps for term in family.terms if term.name == name)
    steps = [(first <= step.timestep < end, step.scales[name]) for step in plan.sections[0].steps]
    assert all(acts or scale == 1 for acts, scale in steps)
    return {scale for acts, scale in steps if acts}


def test_guidance_is_said_of_every_settable_term_and_of_no_other(family, planned):
    settable = {term.name for term in family.terms if not term.grip}
    for name in TERMS:
        for place, fields in (("", {"guidance": {name: 5.0}}), ("scenes[0].", {"scene": {"guidance": {name: 5.0}}})):
            problems, plan = planned(**fields)
            if name in settable:
                assert acting(family, plan, name) == {5.0}
            else:
                ((path, message),) = problems
                assert path == f"{place}guidance.{name}" and all(known in message for known in settable)


def test_a_scenes_guidance_wins_over_the_boards_term_by_term(family, planned):
    first, *others = [term.name for term in family.terms if not term.grip]
    _, plan = planned({"guidance": {first: 3.0}}, guidance=dict.fromkeys((first, *others), 7.0))
    assert acting(family, plan, first) == {3.0} and all(acting(family, plan, name) == {7.0} for name in others)


def test_targets_and_scopes_are_those_of_the_family(family, planned):
    terms = {term.name for term in family.terms}
    for field, names, known in (("target", TERMS, terms), ("scope", SCOPES, set(family.scopes))):
        for name in names:
            problems, _ = planned({"relax": {field: name, "beta": 0.5, "blur": 0.5}})
            assert (
                not problems
                if name in known
                else [path.partition("[0].")[2] for path, _ in problems]
                == ["relax.target[0]" if field == "target" else "relax.scope"]
            )
    ((path, message),) = planned({"relax": {"target": ["text", "contxt"]}})[0]
    assert path == "scenes[0].relax.target[1]" and ("did you mean 'context'?" in message) == ("context" in terms)


def test_effects_that_a_family_cannot_do_are_told(family, planned):
    asked = {"relax": {"history_gain": 0.5, "blur": 0.5, "experimental": {"lowpass": 0.5}}}
    wrong = [path for path, _ in planned(asked)[0]]
    places = {"key_gain": "scenes[0].relax.history_gain", "low_pass": "scenes[0].relax.experimental.lowpass"}
    assert wrong == [place for effect, place in places.items() if effect not in family.effects]


def test_the_settings_of_another_family_are_a_mistake(family, planned):
    assert "framepack" in BLOCKS
    problems, _ = planned(framepack={"order": "forward"})
    assert [path for path, _ in problems] == ([] if family.kind == "framepack" else ["framepack"])


def test_all_that_a_family_has_not_is_told_at_once_each_at_its_place(tmp_path):
    Image.new("RGB", (96, 96)).save(tmp_path / "a.png")
    (tmp_path / "story.yaml").write_text(
        "guidance: {cfg: 4}\nimage: a.png\nscenes:\n  - {id: a, prompt: x, seconds: 2}\n  - id: b\n    prompt: x\n"
        "    seconds: 2\n    guidance: {txt: 4, context: 2}\n    relax: {target: contxt, scope: histry}\n"
    )
    with pytest.raises(StoryboardError) as caught:
        make_plan(read_storyboard(tmp_path / "story.yaml"), find_family("framepack-f1"))
    assert [line.rpartition("story.yaml:")[2] for line in str(caught.value).splitlines()] == [
        "1:17: guidance.cfg: framepack-f1 has no such guidance; write `text`",
        "8:21: scenes[1].guidance.txt: framepack-f1 has no such guidance; did you mean 'text'?",
        "8:33: scenes[1].guidance.context: framepack-f1 has no such guidance; known are embedded, text",
        "9:21: scenes[1].relax.target[0]: framepack-f1 has no restraint contxt; did you mean 'context'?",
        "9:36: scenes[1].relax.scope: framepack-f1 has no histry to blur; did you mean 'history'?",
    ]


PROFILE = "name: own\ntarget: contxt\nlevels: [[0.5, {scope: histry}]]\n"


def test_names_of_a_profile_are_told_in_its_file(tmp_path):
    Image.new("RGB", (96, 96)).save(tmp_path / "a.png")
    (tmp_path / "own.yaml").write_text(PROFILE)
    (tmp_path / "story.yaml").write_text("image: a.png\nprofile: own.yaml\nscenes: [{id: a, prompt: x, seconds: 2}]\n")
    with pytest.raises(StoryboardError) as caught:
        make_plan(read_storyboard(tmp_path / "story.yaml"), find_family("framepack-f1"))
    target, scope = str(caught.value).splitlines()
    assert target.startswith(f"{tmp_path}/own.yaml:2:9: target[0]: ") and target.endswith("did you mean 'context'?")
    assert scope.startswith(f"{tmp_path}/own.yaml:3:24: levels[0][1].scope: ")


def test_names_of_a_sidecars_profile_are_told_when_it_is_read(tmp_path):
    shutil.copytree(PUPPET / "scheduler", tmp_path / "scheduler")
    facts = json.loads((PUPPET / "framepack_relax.json").read_text())
    facts["profile"] = {"name": "own", "target": ["contxt"], "levels": [[0.5, {"scope": "histry"}]]}
    (tmp_path / "framepack_relax.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError) as caught:
        read_family(tmp_path)
    target, scope = str(caught.value).splitlines()
    assert "framepack_relax.json: profile.target[0]: " in target and target.endswith("did you mean 'context'?")
    assert "framepack_relax.json: profile.levels[0][1].scope: " in scope
