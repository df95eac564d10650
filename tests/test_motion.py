"""`intensity: auto`: the lexicon of motion orders prompts that it was not written from, and says why."""

import json
import subprocess
import sys
from itertools import combinations, product
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import framepack_relax as fr
from framepack_relax.families.catalog import CATALOG
from framepack_relax.families.fake import Fake
from framepack_relax.planning.lexicon import MILD, UNKNOWN, motion_of
from framepack_relax.planning.planner import make_plan
from framepack_relax.rendering.carry import restore
from framepack_relax.storyboard import read_storyboard, storyboard_from_scenes

HELD_OUT = yaml.safe_load(Path(__file__).with_name("motion_prompts.yaml").read_text(encoding="utf8"))
FAKE = Fake(name="fake")
SUBJECTS = st.sampled_from(["a red figure", "the old man", "two girls in blue coats", "a robot"])
VERBS = st.sampled_from(
    "walk wave dance run jump climb swim kick sprint throw_a_ball do_a_backflip ride_a_bike".split()
)
PLACES = st.sampled_from(["", " on the beach", " in front of a red house", " at night"])


def how_much(prompt):
    return motion_of(prompt).intensity


@pytest.mark.parametrize("language", HELD_OUT)
def test_prompts_of_three_classes_come_in_their_order(language):
    classes = HELD_OUT[language]
    assert list(classes) == ["calm", "moderate", "strong"] and sum(map(len, classes.values())) >= 60
    pairs = [pair for lower, higher in combinations(classes.values(), 2) for pair in product(lower, higher)]
    right = sum(how_much(lower) < how_much(higher) for lower, higher in pairs)
    print(f"{language}: {right} of {len(pairs)} pairs in order, {right / len(pairs):.1%}")
    assert right >= 0.9 * len(pairs)


@given(SUBJECTS, VERBS, PLACES)
def test_negation_and_adverbs(subject, verb, place):
    verb = verb.replace("_", " ")
    plain, slow, fast = (how_much(f"{subject} will {how}{verb}{place}") for how in ("", "slowly ", "suddenly "))
    assert slow < plain < fast <= 1
    for way in ("does not", "doesn't", "never wants to", "refuses to"):
        assert how_much(f"{subject} {way} {verb}{place}") < slow
    assert how_much(f"{subject} stands still{place} and then will {verb}") == plain, "the strongest counts"
    assert how_much(f"{subject} does not {verb} but will {verb}{place}") == plain


@given(SUBJECTS, VERBS, PLACES, st.sampled_from(["{}!", "  {}  .", "\n{}…", "“{}”", "{}"]))
def test_case_and_punctuation_around_it_do_not_matter(subject, verb, place, frame):
    prompt = f"{subject} will {verb.replace('_', ' ')}{place}"
    assert how_much(frame.format(prompt.upper())) == how_much(prompt) == how_much(frame.format(prompt.title()))
    assert how_much(prompt.replace(" ", "  ")) == how_much(prompt)


@given(st.text(max_size=200))
def test_any_text_has_a_number_between_0_and_1_and_a_reason(text):
    made = motion_of(text)
    assert 0 <= made.intensity <= 1 and made.reason and made == motion_of(text)


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("男は跳ばない", "男が跳ぶ"),
        ("男は走らずに立っている", "男は止まらずに走る"),
        ("彼女は踊っていない", "彼女は踊っている"),
        ("彼は動きません", "彼は動く"),
        ("男がゆっくり歩く", "男が歩く"),
        ("男が踊る", "男が激しく踊る"),
        ("カメラがゆっくり回る、猫が眠る", "猫が回る"),
        ("飛行機の模型", "飛行機から飛び降りる"),
        ("他没有跑", "他跑"),
        ("她站着不动", "她动"),
        ("他慢慢地走", "他走"),
        ("他跳舞", "他突然跳舞"),
        ("他走得很慢", "他走得很快"),
        ("镜头旋转,女孩坐着", "女孩旋转"),
        ("镜头旋转\uff0c女孩坐着", "女孩坐着\uff0c然后旋转"),
        ("跑车停在路边", "孩子不停地跑"),
        ("他不慢慢走,而是慢慢走", "他不慢慢走,而是快跑"),
        ("the camera flies over a sleeping town", "a bird flies over a sleeping town"),
        ("slow pan, whip pan, tracking shot: a woman sits", "a woman turns"),
        ("a tap with running water", "a running man"),
        ("a jump cut to a portrait", "he jumps"),
        ("a walk-in closet, an empty room", "she walks in"),
        ("a still life with fall leaves in spring", "a man falls"),
        ("a stand-up comedian sits", "a comedian stands up"),
        ("she does not run or jump", "she does not sit, she jumps"),
        ("he doesn't slowly walk, he waits", "he doesn't slowly walk, he sprints"),
        ("a man, motionless", "a man cannot stop dancing"),
    ],
)
def test_what_is_meant(lower, higher):
    assert how_much(lower) < how_much(higher), (motion_of(lower), motion_of(higher))


@pytest.mark.parametrize(
    ("simplified", "traditional"), [("他突然飞奔", "他突然飛奔"), ("女孩没有跳", "女孩沒有跳"), ("马飞驰", "馬飛馳")]
)
def test_traditional_characters_count_as_the_simplified(simplified, traditional):
    assert how_much(simplified) == how_much(traditional) != MILD


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("A red figure does a backflip on the beach", "0.9: does a backflip"),
        ("the man does not jump", "0.1: does not jump"),
        ("he walks slowly", "0.24: walks slowly"),
        ("男がゆっくり歩いている", "0.24: ゆっくり歩いている"),
        ("男は跳ばない", "0.1: 跳ばない"),
        ("purple haze", f"{MILD:g}: {UNKNOWN}"),
        ("紫色", f"{MILD:g}: {UNKNOWN}"),
        ("Фигура прыгает", f"{MILD:g}: {UNKNOWN}"),
    ],
)
def test_every_number_explains_itself(prompt, said):
    assert str(motion_of(prompt)) == said


FLIP = "a red figure does a backflip on the beach"


def board(intensity, **fields):
    scenes = [fr.Scene(id="a", prompt=FLIP, seconds=1.2, intensity=intensity)]
    return storyboard_from_scenes(scenes, model="fake", **fields)


def test_a_plan_holds_the_number_as_if_it_had_been_written():
    assert make_plan(board("auto"), FAKE) == make_plan(board(0.9), FAKE) != make_plan(board(0.0), FAKE)
    assert make_plan(board("auto"), FAKE).to_json()["sections"][0]["intensity"] == 0.9
    assert fr.Scene(id="a", prompt=FLIP, seconds=1).intensity == 0, "the default stays at rest"


def test_the_style_of_the_board_does_not_count():
    scenes = [fr.Scene(id="a", prompt="a man sits", seconds=1.2, intensity="auto")]
    plan = make_plan(storyboard_from_scenes(scenes, model="fake", style="explosions, jumping, wild action"), FAKE)
    assert plan.sections[0].intensity == how_much("a man sits")


def test_a_film_carries_the_number_and_its_keys_are_those_of_the_number(tmp_path):
    film = fr.render(board("auto"), out=tmp_path / "film")
    again = fr.preview(board(0.9), out=tmp_path / "film")
    assert all(why is None for _, why, _ in again)
    assert json.loads((film.path.parent / "plan.json").read_text())["sections"][0]["intensity"] == 0.9
    for file in (tmp_path / "film/story.yaml", restore(film.path, tmp_path / "restored")):
        assert read_storyboard(file).scenes[0].intensity == 0.9


def test_on_a_real_family_too(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    scenes = {value: fr.Scene(id="a", prompt=FLIP, seconds=1.2, intensity=value) for value in ("auto", 0.9)}
    plans = [
        make_plan(storyboard_from_scenes([scene], image=str(tmp_path / "a.png")), CATALOG["framepack-f1"].family)
        for scene in scenes.values()
    ]
    assert plans[0] == plans[1]


def test_bad_values_and_the_schema():
    for value in ("high", "Auto", 1.5, -0.1, float("nan"), None, True, [0.5]):
        with pytest.raises(fr.StoryboardError, match="intensity: is"):
            fr.Scene(id="a", prompt="x", seconds=1, intensity=value)
    with pytest.raises(fr.StoryboardError, match="write a number between 0 and 1, or auto"):
        fr.Scene(id="a", prompt="x", seconds=1, intensity="Auto")


def test_it_needs_no_torch():
    code = (
        "import sys, framepack_relax as fr\n"
        "scene = fr.Scene(id='a', prompt='a man jumps', seconds=1.2, intensity='auto')\n"
        "assert fr.plan([scene], model='fake').sections[0].intensity == fr.suggest([scene])[0].motion.intensity > 0.5\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
