"""What people write by mistake is answered with what they meant: slips of YAML, words of other programs."""

import re

import pytest
import yaml
from test_storyboard import SCENE, told

from framepack_relax.storyboard import Relax, Scene, Storyboard, meanings, parse_storyboard, reader
from framepack_relax.storyboard.schema import Blend, Experimental, FramePackBlock


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        (SCENE.replace("x", "a figure: waves"), "put text that holds ': ' in quotes"),
        ("scenes:\n  - id: a\n    prompt: a figure: waves\n", "put text that holds ': ' in quotes"),
        ("scenes:\n  - id: a\n\tprompt: x\n", "indent with spaces, not tabs"),
        ("scenes:\n\t- id: a\n", "indent with spaces, not tabs"),
        ("scenes:\r\n\t- id: a\r\n", "indent with spaces, not tabs"),
        ("image: @home\n", "put text that begins so in quotes"),
        ("scenes:\n  - id: a\n   prompt: x\n", "begin the line where its neighbours begin"),
        ("scenes:\n  - id: a\n    prompt:x\n    seconds: 1\n", "write a space after ':'"),
        ("scenes:\n  - id: a\n    prompt: x #7 y\n      more\n", "put text that holds ' #' in quotes"),
        ('image: "C:\\Users\\me.png"\n', "write / in paths, or take single quotes"),
    ],
)
@pytest.mark.parametrize("loader", [reader.LOADER, yaml.SafeLoader])
def test_the_commonest_slips_are_told_with_a_cure(monkeypatch, text, cure, loader):
    monkeypatch.setattr(reader, "LOADER", loader)
    lines = told(text)
    assert len(lines) == 1 and "is not YAML: " in lines[0] and lines[0].endswith(cure)


BEGINNINGS = [
    '"Hello" says a red figure on the beach', "[0s: a red figure stands] [2s: it waves]", "*wave* hello", "*jumps high",
    "& then", "? what", "%100 real", "@home", "`tick` x", "{a} b", "'tis the season", "- a dash", "> loud", "| pipe",
    ", and then", "[open", '"open',
]  # fmt: skip


@pytest.mark.parametrize("prompt", BEGINNINGS)
@pytest.mark.parametrize("loader", [reader.LOADER, yaml.SafeLoader])
def test_texts_that_begin_with_yamls_signs_are_told_how_to_write_them(monkeypatch, prompt, loader):
    """What is proposed reads as the text that was meant."""
    monkeypatch.setattr(reader, "LOADER", loader)
    board = "image: a.png\ntitle: 'x'\nscenes:\n  - id: a\n    prompt: {}\n    seconds: 1.2\n"
    (line,) = told(board.format(prompt))
    assert f"put text that begins with {prompt[0]} in quotes, as in prompt: " in line
    proposed = line.partition("as in prompt: ")[2]
    assert parse_storyboard(board.format(proposed)).scenes[0].prompt == prompt


@pytest.mark.parametrize("prompt", ["&co walks", "!wow it jumps", "*jumps"])
def test_texts_that_read_as_anchors_tags_and_aliases_are_told_so(prompt):
    lines = told(f"scenes:\n  - id: a\n    seconds: 1.2\n    prompt: {prompt}\n")
    assert len(lines) == 1 and lines[0].startswith("story.yaml:4:13: ") and "begins so in quotes" in lines[0]


def test_an_apostrophe_inside_single_quotes_is_told_how_to_write_it():
    (line,) = told("title: 'the figure's arm'\n" + SCENE)
    assert line.endswith("""as in title: "the figure's arm\"""")


@pytest.mark.parametrize(
    ("text", "place", "sign"),
    [
        ("scenes:\n  - id: a\n    prompt\uff1a a red figure\n    seconds: 1.2\n", "3:11", "full-width"),
        ("title\uff1ax\nscenes:\n  - id: a\n", "1:6", "full-width"),
        ("title\uff1a x", "1:6", "full-width"),
        ("scenes:\n  - {id: a, prompt: x, seconds\uff1a 1}\n", "2:24", "full-width"),
        ("scenes:\n\u00a0\u00a0- id: a\n    prompt: x\n", "2:1", "U+00A0 (no-break space)"),
        ("scenes:\n  - id: a\n    prompt:\u00a0a red figure\n    seconds: 1.2\n", "3:12", "U+00A0 (no-break space)"),
        ("scenes:\n  - id: a\n\u3000\u3000prompt: a\n    seconds: 1.2\n", "3:1", "U+3000 (ideographic space)"),
    ],
)
@pytest.mark.parametrize("loader", [reader.LOADER, yaml.SafeLoader])
def test_signs_that_look_like_yamls_are_named_with_their_place(monkeypatch, text, place, sign, loader):
    monkeypatch.setattr(reader, "LOADER", loader)
    assert any(line.startswith(f"story.yaml:{place}: ") and sign in line for line in told(text))


def test_signs_that_look_like_yamls_may_stand_in_texts():
    prompt = "|\n      note\uff1a x\n      \u3000y\n      z\n"
    text = f"title: a\u00a0b\uff1a c\nscenes:\n  - id: a\n    seconds: 1\n    prompt: {prompt}"
    assert parse_storyboard(text).title == "a\u00a0b\uff1a c"
    (line,) = told(text + "   seed: 1\n")
    assert "is not YAML" in line, "another mistake is told as what it is"


@pytest.mark.parametrize(
    ("where", "word", "cure"),
    [
        ("board", "cfg: 7", "write `guidance: {text: ..}`"),
        ("board", "duration: 7", "write `seconds` under `scenes:`"),
        ("board", "width: 640", "write `size: [width, height]`"),
        ("scene", "ratio: 1", "write `size: [width, height]` at the top of the file"),
        ("board", "mode: i2v", "not yet: a model has no modes; "),
        ("scene", "start: 0", "not yet: a scene begins where the one before it ends and lasts `seconds`; "),
        ("board", "end: a.png", "its start image is `image`"),
        ("board", "beta: 1", "it belongs under `relax:`"),
        ("board", "codec: h264", "not yet: "),
        ("board", "device: cpu", "when a film is rendered"),
        ("scene", "cfg: 7", "write `guidance: {text: ..}`"),
        ("scene", "guidance_scale: 7", "write `guidance: {embedded: ..}`"),
        ("scene", "cfg-scale: 7", "write `guidance: {text: ..}`"),
        ("scene", "duration: 2.4", "write `seconds`"),
        ("scene", "playback_speed: 2", "not yet: a film plays at its `fps`; say in the prompt how fast"),
        ("scene", "FPS: 24", "write `fps` at the top of the file"),
        ("board", "FPS: 24", "did you mean 'fps'?"),
        ("board", "draft: true", "when a film is rendered"),
        ("scene", "Prompt: y", "did you mean 'prompt'?"),
        ("scene", "length: 2.4", "write `seconds`"),
        ("scene", "numFrames: 36", "write `seconds`"),
        ("scene", "frames: 36", "write `seconds`"),
        ("scene", "motion: 1", "write `intensity`"),
        ("scene", "negative: ugly", "write `negative_prompt`"),
        ("scene", "last_frame: a.png", "write `end_image`"),
        ("scene", "keyframe: a.png", "write `keyframes: [{at: .., image: ..}]`"),
        ("board", "input_video: a.mp4", "write `from`"),
        ("scene", "loras: a", "write `lora: [{file: .., scale: ..}]`"),
        ("board", "loras: a", "write `lora: [{file: .., scale: ..}]`"),
        ("scene", "embedding: a", "not yet: "),
        ("scene", "camera: pan", "not yet: "),
        ("scene", "crf: 2", "it belongs at the top of the file"),
        ("scene", "secnds: 2", "did you mean 'seconds'?"),
        ("scene", "zzz: 2", "known are id, prompt, "),
    ],
)
def test_unknown_fields_are_answered_by_what_is_meant(where, word, cure):
    text = f"{word}\n{SCENE}" if where == "board" else SCENE.replace("}", f", {word}}}")
    (line,) = told(text)
    assert "unknown field; " in line and cure in line


@pytest.mark.parametrize(
    ("inside", "cure"),
    [
        ("lora: [{file: a, strength: 1}]", "scale"),
        ("lora: [{file: a, weight: 1}]", "scale"),
        ("lora: [{path: a}]", "file"),
        ("emphasis: [{words: x, strength: 2}]", "gain"),
    ],
)
def test_a_word_means_first_what_the_mapping_that_it_stands_in_has(inside, cure):
    lines = told(SCENE.replace("}", f", {inside}}}"))
    assert any(f"unknown field; write `{cure}`" in line for line in lines) and not any("intensity" in x for x in lines)


@pytest.mark.parametrize(
    ("old", "new", "cure"),
    [
        ("order: inverted", "framepack: {order: inverted}", "it belongs under `framepack:`"),
        ("decode: blend", "framepack: {decode: blend}", "it belongs under `framepack:`"),
        ("drift: adain 0.5", "framepack: {drift: adain 0.5}", "it belongs under `framepack:`"),
        ("relax: {bias: 0.5}", "relax: {history_gain: 0.5}", "write `history_gain`"),
        ("relax: {bias_above: 0.5}", "relax: {history_gain_above: 0.5}", "write `history_gain_above`"),
        ("relax: {bias_on: all}", "relax: {experimental: {gain_on: all}}", "write `experimental: {gain_on: ..}`"),
        *((f"relax: {{{field}}}", f"relax: {{experimental: {{{field}}}}}", "it belongs under `experimental:`")
          for field in ("schedule: mean", "interval: [0, 1]", "coord: sigma", "over_steps: follow", "space: pre_rope",
                        "blur_of: k", "lowpass: 0.4", "lowpass_above: 0.9")),
    ],
)  # fmt: skip
def test_an_old_name_is_told_at_its_place_with_the_new_one(old, new, cure):
    text = "scenes:\n  - id: a\n    prompt: x\n    seconds: 1\n"
    board = (text + "    {}\n").format if old.startswith("relax") else ("{}\n" + text).format
    (line,) = told(board(old))
    place = "5:13" if old.startswith("relax") else "1:1"
    assert line.startswith(f"story.yaml:{place}: ") and line.endswith(f"unknown field; {cure}")
    parse_storyboard(board(new))


@pytest.mark.parametrize(
    ("where", "word", "cure"),
    [
        ("scene", "guidance: 4", "is '4'; write `guidance: {text: 4}`"),
        ("scene", "guidance: strong", "is 'strong'; write a mapping of fields"),
        ("scene", "relax: 0.5", "is '0.5'; write `relax: {beta: 0.5}`"),
        ("scene", "relax: {experimental: {interval: 0.2-.8}}", "is '0.2-.8'; write `interval: [0.2, .8]`"),
        ("scene", "intensity: high", "is 'high'; write a number between 0 and 1, or auto"),
        ("scene", "steps: many", "is 'many'; write a whole number between 1 and 1000"),
        ("scene", "transition: fade", "is 'fade'; not yet: shots are joined by cuts"),
        ("scene", "transition: Cut", "is 'Cut'; did you mean 'cut'?"),
        ("scene", "transition: cut\u200b", "holds the sign U+200B (zero width space); write a plain space"),
        ("board", "size: 640x480", "is '640x480'; write `size: [640, 480]`"),
        ("board", "size: 640", "is '640'; write `size: [width, height]`"),
        ("board", "fps: 2\u00a0400", "holds the sign U+00A0 (no-break space); write a plain space"),
    ],
)
def test_values_of_another_kind_are_answered_by_what_to_write(where, word, cure):
    text = f"{word}\n{SCENE}" if where == "board" else SCENE.replace("}", f", {word}}}")
    (line,) = told(text)
    assert line.endswith(cure)
    if proposed := re.search(r"`(.*[0-9].*)`", cure):
        wrong = re.search(r"\w+: [^{}]+", word)[0]
        parse_storyboard(text.replace(wrong, proposed[1]))


@pytest.mark.parametrize("place", ["fps: 24{}", "size: [96,{}96]", "image:{} a.png", "title: x{}", "steps: {}3 "])
def test_a_no_break_space_at_the_end_of_a_value_is_a_space(place):
    (plain, odd) = (f"{place.format(sign)}\n{SCENE}" for sign in (" ", " \u00a0"))
    assert parse_storyboard(plain) == parse_storyboard(odd)


def test_every_word_of_other_programs_leads_to_a_field_that_there_is():
    parts = (Storyboard, Scene, Relax, Experimental, FramePackBlock, Blend)
    fields = {name for part in parts for name in part.model_fields} | {"text", "embedded"}
    words = [word for group in (*meanings.CALLED.values(), *meanings.NOT_YET.values()) for word in group.split()]
    assert len(words) == len(set(words)), "no word means two things"
    assert all(set(field.split(".")) <= fields for field in meanings.CALLED)
    for part in (Storyboard, Scene):
        assert all("known are" not in meanings.unknown_field(word, part, Storyboard) for word in words)


@pytest.mark.parametrize("name", ["場面1", "fröhlich", "-a", "a b"])
def test_ids_say_which_letters(name):
    (line,) = told(SCENE.replace("id: a", f"id: {name}"))
    assert f"is {name!r}; write 1 to 64 of A-Z, a-z, 0-9" in line
