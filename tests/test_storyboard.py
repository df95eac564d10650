"""The reader: every mistake of a file at once and in its place, and nothing but a storyboard or located errors."""

import os

import fuzz
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from framepack_relax.errors import StoryboardError
from framepack_relax.evaluate.spec import read_sweep
from framepack_relax.storyboard import (
    Guidance,
    Scene,
    Storyboard,
    dump_storyboard,
    parse_storyboard,
    read_storyboard,
    reader,
    storyboard_from_scenes,
    storyboard_schema,
)

SCENE = "scenes:\n  - {id: a, prompt: x, seconds: 1.2}\n"


def told(text, **options):
    with pytest.raises(StoryboardError) as caught:
        parse_storyboard(text, file="story.yaml", **options)
    return str(caught.value).splitlines()


def test_every_mistake_of_a_file_at_once_in_its_order(tmp_path):
    text = """\
version: 1
seed: 010
steps: 1_000
fps: "30"
profile: papr
size: [96, 100]
scenes:
  - id: calm
    prompt: No
    secnds: 2.4
    intensity: 1.4
  - id: calm
    prompt: ""
    seconds: .nan
    relax: {target: [context], beta: 2, p: rapd}
    transition: contnue
    image: ../hero.png
"""
    assert told(text, folder=tmp_path) == [
        "story.yaml:2:7: seed: 010 begins with 0, which some read as octal; write 10",
        "story.yaml:3:8: steps: 1_000 holds '_'; write 1000",
        "story.yaml:4:6: fps: is text; remove the quotes",
        "story.yaml:5:10: profile: is 'papr'; known are auto, paper, or a .yaml file",
        "story.yaml:6:7: size: height 100 must be a multiple of 16 between 16 and 4096",
        "story.yaml:8:5: scenes[0].seconds: is missing; add it",
        "story.yaml:10:5: scenes[0].secnds: unknown field; did you mean 'seconds'?",
        "story.yaml:11:16: scenes[0].intensity: is 1.4; must be between 0 and 1",
        "story.yaml:12:9: scenes[1].id: 'calm' is also the id of scenes[0]; ids must differ",
        "story.yaml:13:13: scenes[1].prompt: is empty; write something or remove the line",
        "story.yaml:14:14: scenes[1].seconds: .nan is not finite; write a finite number",
        "story.yaml:15:38: scenes[1].relax.beta: is 2; must be between -1 and 1",
        "story.yaml:15:44: scenes[1].relax.p: is 'rapd', neither a number nor a preset; did you mean 'rapid'?",
        "story.yaml:16:17: scenes[1].transition: is 'contnue'; did you mean 'continue'?",
        "story.yaml:17:12: scenes[1].image: ../hero.png leaves the storyboard's folder; copy the file into it",
    ]


@pytest.mark.parametrize("word", ["No", "on", "yes", "off", "1e3", "2026-11-23", "012", "null_", "1:30", "~x", "0x10"])
def test_where_text_is_wanted_a_scalar_is_text(word):
    assert parse_storyboard(f"title: {word}\n{SCENE}").title == word


@pytest.mark.parametrize(("word", "value"), [("1e-3", 1e-3), ("2", 2.0), (".5", 0.5), ("1.", 1.0), ("+3.25", 3.25)])
def test_where_a_number_is_wanted_it_is_read_as_one(word, value):
    assert parse_storyboard(SCENE.replace("1.2", word)).scenes[0].seconds == value


@pytest.mark.parametrize(
    ("word", "fact"),
    [
        ("012", "octal; write 12"), ("-010", "write -10"),
        ("9" * 5000, "write a number"), ("1_0", "write 10"), ("0x10", "not decimal"), ("1:30", "looks like a time"),
        (".inf", "not finite"), ("-.NaN", "not finite"), ("yes", "is 'yes'; write a number"), ("1e999", "finite"),
        ("'2'", "remove the quotes"), ("", "is empty"), ("~", "is empty"), ("[1]", "is a list; write a number"),
        ("{a: 1}", "is a mapping; write a number"), ("0", "above 0"), ("-1", "above 0"), ("3601", "at most 3600"),
    ],
)  # fmt: skip
def test_odd_numbers_are_refused_with_a_cure(word, fact):
    lines = told(f"scenes:\n  - id: a\n    prompt: x\n    seconds: {word}\n")
    assert len(lines) == 1 and lines[0].startswith("story.yaml:4:") and fact in lines[0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "story.yaml: is empty; it needs at least `scenes:`"),
        ("# only this\n", "story.yaml: is empty; it needs at least `scenes:`"),
        ("- a\n", "story.yaml:1:1: is not a mapping; begin with `scenes:`"),
        ("title: a\ntitle: b\n" + SCENE, "story.yaml:2:1: title: is given twice, first in line 1; keep one"),
        ("title: &t a\n" + SCENE, "story.yaml:1:8: anchor &t; storyboards have no anchors, remove it"),
        ("title: !!str a\n" + SCENE, "story.yaml:1:8: tag tag:yaml.org,2002:str; storyboards have no tags, remove it"),
        ("title: !x a\n" + SCENE, "story.yaml:1:8: tag !x; storyboards have no tags, remove it"),
        ("<<: {seed: 1}\n" + SCENE, "story.yaml:1:1: merge key '<<'; storyboards have no merges, write it out"),
        (SCENE + "---\ntitle: b\n", "story.yaml:3:1: is a second document; keep one storyboard in a file"),
        ("scenes: []\n", "story.yaml:1:9: scenes: holds no scene; add one"),
        ("scenes: nothing\n", "story.yaml:1:9: scenes: is 'nothing'; write a list"),
        ("title: \x07\n" + SCENE, "story.yaml:1:8: holds the character U+0007, which YAML does not allow; remove it"),
        ('title: "\\UFFFFFFFF"\n' + SCENE, "story.yaml:1:11: is not YAML: "),
        ("%YAML 1." + "9" * 5000 + "\n---\n" + SCENE, "story.yaml:1:"),
        ('"\\e[31m": 1\n' + SCENE, "story.yaml:1:1: '\\x1b[31m': unknown field; known are from, version, title, "),
        ("title: !%1B%5B2J a\n" + SCENE, "story.yaml:1:8: tag '!\\x1b[2J'; storyboards have no tags, remove it"),
        ("seed: -1\n" + SCENE, "story.yaml:1:7: seed: is -1; must be between 0 and 9223372036854775807"),
        ("profile: papr\n" + SCENE, "story.yaml:1:10: profile: is 'papr'; known are auto, paper, or a .yaml file"),
        ('title: "\\a"\n' + SCENE, "story.yaml:1:8: title: holds the control character U+0007; remove it"),
        ("title: [\n", "story.yaml:2:1: is not YAML: while parsing a flow node "),
        ("a: " + "[" * 60, "story.yaml:1:19: is nested more than 16 deep"),
        ("? [a]\n: b\n" + SCENE, "story.yaml:1:3: a key must be a plain word"),
    ],
)
@pytest.mark.parametrize("loader", [reader.LOADER, yaml.SafeLoader])
def test_what_a_storyboard_may_not_be(monkeypatch, text, line, loader):
    monkeypatch.setattr(reader, "LOADER", loader)
    assert told(text)[0].startswith(line)


@pytest.mark.parametrize("loader", [reader.LOADER, yaml.SafeLoader])
def test_what_yaml_would_cut_off_a_text_as_a_comment_is_told(monkeypatch, loader):
    monkeypatch.setattr(reader, "LOADER", loader)
    text = """\
# 🎬 a comment in a line of its own
title: Take #2
image: red-beach.png   # beside a path it is one too
style: "no #1"  # and after quotes
model: models/tiny #7
scenes:
  - id: player #7
    prompt: player #7 in red does a backflip on the beach
    seconds: 1.2  # a number
    transition: continue #1
    # a comment where keys begin
  - {id: b, prompt: c#4 and '#', seconds: 1.2}
  - id: c
    prompt: a red figure

      #7 walks
    image: pic #2.png
    seconds: 1.2
  - id: d
    seconds: 1.2
    prompt:
      a red figure
      walks
      # along the beach
# the end
"""
    lines, line_5 = told(text), "#7 in red does a backflip on the beach"
    cure = "put the whole text in quotes, or the comment in a line of its own, where keys begin"
    assert lines == [
        f"story.yaml:{place}: YAML cuts off {cut!r} as a comment; {cure}"
        for place, cut in (
            ("2:12: title", "#2"),
            ("5:19: model", "#7"),
            ("7:15: scenes[0].id", "#7"),
            ("8:19: scenes[0].prompt", line_5),
            ("14:25: scenes[2].prompt", "#7 walks"),
            ("17:15: scenes[2].image", "#2.png"),
            ("23:12: scenes[3].prompt", "# along the beach"),
        )
    ]
    mended = "\n".join(line for line in text.splitlines() if not line.strip().startswith(("#7", "# along")))
    for old, new in (("Take #2", "'Take #2'"), (": player #7 in red", ": >\n      player #7 in red"), (" #7\n", "\n")):
        mended = mended.replace(old, new)
    story = parse_storyboard(mended.replace("pic #2.png\n", "'pic #2.png'\n    transition: cut\n"))
    assert story.title == "Take #2" and story.scenes[0].prompt.startswith("player #7 in red")
    assert story.scenes[2].image == "pic #2.png"


@pytest.mark.parametrize("loader", [reader.LOADER, yaml.SafeLoader])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\n\n  \n"])
@pytest.mark.parametrize("indent", range(9))
def test_a_line_of_a_text_is_told_wherever_it_would_go_on_with_it(monkeypatch, loader, ends, indent):
    """Nothing of a person's text is lost without a word: `#7 walks` is text where `7 walks` would be."""
    monkeypatch.setattr(reader, "LOADER", loader)
    text = f"scenes:\n  - id: a\n    seconds: 1.2\n    prompt: a red figure{ends}{' ' * indent}{{}}7 walks{ends}"
    if indent > 4:
        assert parse_storyboard(text.format("")).scenes[0].prompt.endswith("7 walks")
        assert "YAML cuts off '#7 walks'" in told(text.format("#"))[0]
    else:
        assert parse_storyboard(text.format("#")).scenes[0].prompt == "a red figure"


@pytest.mark.parametrize(
    "block", ["|\n      a red figure waves\n      on the beach", ">-\n      a red figure\n\n      waves on the beach"]
)
@pytest.mark.parametrize("style", ["flat colours", "|\n  flat colours", ""])
def test_block_prompts_read_as_one_line(block, style):
    text = (
        SCENE.split("-")[0]
        + "- id: a\n    seconds: 1.2\n    prompt: {}\n    negative_prompt: |\n      one\n      two\n"
    )
    text += "style: {}\n"
    story = parse_storyboard(text.format(block, style or "''"))
    line = parse_storyboard(text.format("a red figure waves on the beach", style or "''"))
    wanted = "a red figure waves on the beach" + (", flat colours" if style else "")
    assert story.prompt_of(story.scenes[0]) == line.prompt_of(line.scenes[0]) == wanted
    assert story.negative_of(story.scenes[0]) == "one two"


def test_a_number_that_is_no_whole_one_is_shown_as_it_is():
    assert told("steps: 30.0\n" + SCENE) == ["story.yaml:1:8: steps: is 30.0; write a whole number between 1 and 1000"]


def test_a_profiles_mistakes_are_told_beside_the_boards(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\ntarget: []\np: fast\nscope: [section]\n")
    text = "profile: mine.yaml\n" + SCENE.replace("}", ", intensity: 2}")
    profile = tmp_path / "mine.yaml"
    assert told(text, folder=tmp_path) == [
        "story.yaml:3:49: scenes[0].intensity: is 2; must be between 0 and 1",
        f"{profile}:2:9: target: must name one or more targets, each once",
        f"{profile}:3:4: p: is 'fast', neither a number nor a preset; known are sustained, linear, rapid",
        f"{profile}:4:8: scope: is a list; write text, in quotes if it begins with [",
    ]
    for damage, fact in (("name: [", "is not YAML"), ("", "is empty; it needs at least `name:`")):
        profile.write_text(damage)
        lines = told(text, folder=tmp_path)
        assert "intensity: is 2" in lines[0] and lines[1].startswith(str(profile)) and fact in lines[1]


@pytest.mark.parametrize(
    ("field", "cure"),
    [
        ("p: 0", "above 0 and at most 8"),
        ("p: 8.5", "above 0 and at most 8"),
        ("p: fast", "known are sustained, linear, rapid"),
        ("target: []", "one or more targets"),
        ("target: [text, text]", "each once"),
        ("target: ", "is empty; give a value or remove the line"),
        ("history_gain: 0", "above 0 and at most 4"),
        ("experimental: {lowpass: 2}", "above 0 and at most 1"),
    ],
)
def test_limits_of_relax(field, cure):
    lines = told(SCENE.replace("}", f", relax: {{{field}}}}}"))
    assert len(lines) == 1 and lines[0].startswith("story.yaml:2:") and cure in lines[0]


def test_guidance_takes_any_name_with_a_scale():
    """Which names there are the model's family knows."""
    board = "guidance: {text: 4}\n" + SCENE.replace("}", ", guidance: {text_low: 2.5}}")
    story = parse_storyboard(board)
    assert story.guidance_of(story.scenes[0]) == {"text": 4, "text_low": 2.5}
    dumped = dump_storyboard(story)
    assert parse_storyboard(dumped) == story and "relax" not in dumped and "{}" not in dumped
    assert Guidance(text=4).scales == {"text": 4} and Guidance(text=4) != Guidance()
    assert len({Guidance(text=4, embedded=2), Guidance(embedded=2, text=4), Guidance()}) == 2
    for scale in ("0.5", "101"):
        (line,) = told(SCENE.replace("}", f", guidance: {{text: {scale}}}}}"))
        assert line == f"story.yaml:2:55: scenes[0].guidance.text: is {scale}; must be between 1 and 100"


def test_relax_takes_presets_and_a_bare_target():
    relax = parse_storyboard(SCENE.replace("}", ", relax: {p: rapid, target: text}}")).scenes[0].relax
    assert parse_storyboard(SCENE.replace("}", ", relax: {target: auto}}")).scenes[0].relax.target is None
    assert relax.p == 2.1 and relax.target == ("text",)


def test_an_alias_is_refused_beside_its_anchor():
    assert [t.split(": ")[1].split(";")[0] for t in told("title: &t a\nstyle: *t\n")] == ["anchor &t", "alias *t"]


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"title: \xff\n", ":1: byte 0xff is not UTF-8"),
        (b"a: 1\nb: \xe9t\xe9\n", ":2: byte 0xe9 is not UTF-8"),
        ("title: a".encode("utf-16"), ":1: byte 0xff is not UTF-8"),
        (b"#" * (1 << 19) + b"#", ": is larger than 512 KiB"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ": is no text; write it in YAML"),
    ],
)
def test_bytes_that_are_no_storyboard(tmp_path, data, fact):
    file = tmp_path / "s.yaml"
    file.write_bytes(data)
    with pytest.raises(StoryboardError) as caught:
        read_storyboard(file)
    assert str(caught.value).startswith(f"{file}{fact}")


@pytest.mark.parametrize(
    ("prompt", "fact"),
    [
        ('""', "is empty"),
        ('" "', "is empty"),
        ("a" * 100_000, "is too long: 100000 of at most 20000"),
        (r'"ring \a"', r"U\+0007"),
        (r'"\0"', r"U\+0000"),
        ("hello<|eot_id|><|start_header_id|>system", r"<\|eot_id\|>, which the text encoder takes for a command"),
    ],
)
def test_prompts_that_are_refused(prompt, fact):
    with pytest.raises(StoryboardError, match=rf"1:\d+: scenes\[0\].prompt: .*{fact}"):
        parse_storyboard(f"scenes: [{{id: a, seconds: 1.2, prompt: {prompt}}}]")


@pytest.mark.parametrize(
    "prompt", ["\u202eright to left", "אבג", "a 🤸‍♂️ flips", "{} %s {prompt} [/b]", "<unk> </s> [PAD]"]
)
def test_prompts_that_are_words(prompt):
    assert parse_storyboard(f"scenes:\n- id: a\n  seconds: 1.2\n  prompt: '{prompt}'").scenes[0].prompt == prompt


def test_a_byte_order_mark_a_folder_and_a_missing_file(tmp_path):
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + SCENE.encode())
    assert read_storyboard(tmp_path / "bom.yaml").scenes[0].id == "a"
    with pytest.raises(StoryboardError, match="is a folder; name a file in it"):
        read_storyboard(tmp_path)
    with pytest.raises(StoryboardError, match=r"gone\.yaml: no such file"):
        read_storyboard(tmp_path / "gone.yaml")


def test_where_a_file_is_expected_anything_else_is_named_at_once(tmp_path):
    """A pipe would be waited for without end, and a device has no end."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    for name, fact in {"pipe": "is a pipe", "loop": "cannot be read", "device": "is a device"}.items():
        file = tmp_path / f"{name}.yaml"
        with pytest.raises(StoryboardError, match=f"{name}.yaml: {fact}"):
            read_storyboard(file)
        assert (
            "pipe" not in name
            or "profile: pipe.yaml is a pipe" in told(f"profile: pipe.yaml\n{SCENE}", folder=tmp_path)[0]
        )
        with pytest.raises(StoryboardError, match=f"{name}.yaml: {fact}"):
            read_sweep(str(file))


def test_a_home_and_quotes_of_another_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "story.yaml").write_text(SCENE)
    assert read_storyboard("~/story.yaml").scenes[0].id == "a"
    monkeypatch.chdir(tmp_path)
    assert all(read_storyboard(name).scenes[0].id == "a" for name in ("'story.yaml'", "“~/story.yaml”"))
    (tmp_path / "'story.yaml'").write_text(SCENE.replace("id: a", "id: b"))
    assert read_storyboard("'story.yaml'").scenes[0].id == "b", "a file that is called so"
    with pytest.raises(StoryboardError, match="no such file; write it without these quotes"):
        read_storyboard("story.yaml'")


def test_files_a_board_names_stay_in_its_folder(tmp_path):
    folder = tmp_path / "board"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.png").touch()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "in.png").touch()
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    cases = {
        "in.png": None, "sub/../in.png": None, "../secret.png": "leaves", "/etc/passwd": "leaves",
        "link.png": "leaves", "sub": "is a folder", "gone.png": "no such file", "a" * 5000: "not a usable path",
        "loop.png": "not a usable path", "pipe.png": "is a pipe; name a file", "C:\\Users\\me\\in.png": "leaves",
        "~/in.png": "leaves", "\\\\server\\in.png": "leaves", "sub\\..\\in.png": "write folders with /",
        "'\"in.png\"'": "without these quotes", "“in.png”": "without these quotes", "'\"C:/in.png\"'": "leaves",
        '"images\\a.png"': "take single quotes", '"images\\new.png"': "take single quotes",
        '"a\\tb.png"': "take single quotes", "in\u00a0b.png": "U+00A0 (no-break space)",
        "https://example.org/in.png": "download the file first", "'in.png '": "'in.png ': no such file beside",
        "'in.png  '": "did you mean 'in.png'?", "In.PNG": "did you mean 'in.png'?", "no/in.png": "no such file",
    }  # fmt: skip
    for name, fact in cases.items():
        text = f"image: {name}\n{SCENE}"
        if fact is None:
            assert parse_storyboard(text, folder=folder).resolve(name).exists()
        else:
            assert fact in told(text, folder=folder)[0]


def test_of_very_many_mistakes_the_first_are_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    many = "scenes: [" + "{a: 1, b: 2}, " * 3_000 + "]"
    more = "scenes: [" + "{a: 1}, " * 20_000 + "]"
    wide = "scenes: [{" + ", ".join(f"a{n}: 1" for n in range(30_000)) + "}]"
    for text, last in ((many, "mend these first"), (more, "holds 20000 items"), (wide, "mend these first")):
        with pytest.raises(StoryboardError) as caught:
            parse_storyboard(text, folder=tmp_path)
        assert last in str(caught.value).splitlines()[-1] and len(caught.value.problems) <= 201


def test_an_image_in_mid_shot_is_told_how_to_cut():
    lines = told(SCENE + "  - {id: b, prompt: x, seconds: 1.2, image: b.png}\n")
    assert lines == [
        "story.yaml:3:45: scenes[1].image: an image starts a new shot; add `transition: cut` or remove the image"
    ]


def test_the_python_api_checks_the_same_rules():
    scenes = [Scene(id="a", prompt="x", seconds=1.2), Scene(id="a", prompt="x", seconds=1.2)]
    with pytest.raises(StoryboardError, match=r"scenes\[1\].id: 'a' is also the id of scenes\[0\]"):
        storyboard_from_scenes(scenes)
    with pytest.raises(StoryboardError, match=r"^fps: is 0; must be between 1 and 240$"):
        storyboard_from_scenes(scenes[:1], fps=0)
    story = storyboard_from_scenes(scenes[:1], style="flat", size=[32, 48])
    assert story.prompt_of(story.scenes[0]) == "x, flat" and story.size == (32, 48)
    assert story.changed(seed=9).seed == 9 and story.seed == 31337


RELAX = st.fixed_dictionaries(
    {},
    optional={
        "beta": st.floats(-1, 1), "p": st.floats(0.01, 8), "blur": st.floats(0, 8),
        "target": st.lists(st.sampled_from(["embedded", "text", "context"]), min_size=1, unique=True),
    },
)  # fmt: skip
TEXT = st.characters(exclude_categories=["Cc", "Cs"], include_characters="\n\t")
WORDS = (st.text(TEXT, min_size=1) | st.sampled_from(["null", "No", "~", "1e3", "<<", "---", "# x"])).filter(str.strip)


@given(WORDS, st.floats(0.1, 3600), st.floats(0, 1), st.integers(0, 2**63 - 1), RELAX)
@settings(max_examples=80, deadline=None)
def test_a_dumped_board_reads_back_equal(prompt, seconds, intensity, seed, relax):
    scene = Scene(id="s", prompt=prompt, seconds=seconds, intensity=intensity, relax=relax)
    story = storyboard_from_scenes([scene], seed=seed, title=prompt)
    assert parse_storyboard(dump_storyboard(story)) == story


def test_anything_is_a_plan_or_located_errors():
    ends = fuzz.run(400).ends  # raises at anything else
    assert ends["plans"] > 20 and ends["located errors"] > 100


def test_the_json_schema_names_every_field_and_forbids_others():
    schema = storyboard_schema()
    scene = schema["$defs"]["Scene"]
    assert set(schema["properties"]) == set(Storyboard.model_fields) and schema["additionalProperties"] is False
    assert set(scene["properties"]) == set(Scene.model_fields) and scene["required"] == ["id", "prompt", "seconds"]
    relax = schema["$defs"]["Relax"]["properties"]
    assert {"enum": ["sustained", "linear", "rapid"], "type": "string"} in relax["p"]["anyOf"]
    assert {"type": "string"} in relax["target"]["anyOf"] and {"type": "null"} in relax["target"]["anyOf"]
    scale = schema["$defs"]["Guidance"]["additionalProperties"]
    assert scale == {"maximum": 100, "minimum": 1, "type": "number"}
    assert all(
        "description" in field for part in (schema, *schema["$defs"].values()) for field in part["properties"].values()
    )
    number, word = scene["properties"]["intensity"]["anyOf"]
    assert number == {"type": "number", "minimum": 0, "maximum": 1} and word["const"] == "auto"
