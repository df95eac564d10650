"""`framepack-relax suggest`: intensities by the words of the prompts, and how they get into a maker's file."""

import difflib
import json
import re
import stat

import pytest
from faults import here

import framepack_relax as fr
from framepack_relax.storyboard import read_storyboard

BOARD = """\
# what this film is about
model: fake   # no weights

scenes:
- id: calm   # the first
  prompt: >-
    an old man sits on a bench
  seconds: 1.2   # short

- {id: flip, prompt: 'a red figure, 転 🎬, does a backflip', seconds: 1.2}   # in one line
- prompt: 男がゆっくり歩く
  intensity: auto   # by the words
  seconds: 1.2
- { id: run,
    prompt: a boy runs, intensity: "auto" , seconds: 1.2 }
- seconds: 1.2
  intensity: 0.45   # my own
  id: own
  prompt: a boy runs
""".replace("- prompt: 男", "- id: walk\n  prompt: 男")
WRITTEN = {"calm": 0.1, "flip": 0.9, "walk": 0.24, "run": 0.8, "own": 0.45}


def intensities(file):
    return {scene.id: scene.intensity for scene in read_storyboard(file).scenes}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "story.yaml"
    path.write_text(BOARD, encoding="utf8")
    return path


def test_it_says_why_and_writes_nothing_unless_asked(file):
    done = here("suggest", file)
    assert done.returncode == 0 and file.read_text(encoding="utf8") == BOARD
    for words in ("0.9: does a backflip", "0.24: ゆっくり歩く", "0.1: sits", "0.8: runs"):
        assert words in done.stdout
    assert [one.said for one in fr.suggest(file)] == [None, None, "auto", "auto", 0.45]


def test_plan_shows_the_number_and_the_reason_of_auto(file):
    done = here("plan", file)
    assert done.returncode == 0 and "0.24: ゆっくり歩く" in done.stdout and "0.8: runs" in done.stdout
    assert "0.9: does a backflip" not in done.stdout, "that scene says no `auto`: it stays at rest"
    rows = json.loads(here("plan", file, "--json").stdout)["sections"]
    assert {row["scene"]: row["intensity"] for row in rows} == {**WRITTEN, "calm": 0, "flip": 0}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_it_writes_the_numbers_and_nothing_else(file, mark, newline, end):
    before = mark + (BOARD.rstrip() + end).replace("\n", newline).encode("utf8")
    file.write_bytes(before)
    file.chmod(0o640)
    done = here("suggest", file, "--write")
    assert done.returncode == 0 and "4 of 5 intensities written, 1 kept" in done.stdout, done.stderr
    assert intensities(file) == WRITTEN and stat.S_IMODE(file.stat().st_mode) == 0o640
    steps = difflib.SequenceMatcher(None, before, file.read_bytes(), autojunk=False).get_opcodes()
    taken = b"".join(before[a:b] for kind, a, b, _, _ in steps if kind != "equal")
    assert taken in (b"", b'auto"auto"'), "no byte but these is gone"
    written = file.read_bytes()
    assert written.startswith(mark) and written.endswith(before[-8:]) and written.count(b"#") == before.count(b"#")
    assert here("suggest", file, "--write").returncode == 0 and file.read_bytes() == written, "a second time: nothing"


def test_each_line_is_as_a_person_would_write_it(file):
    here("suggest", file, "--write")
    added = [line[2:] for line in difflib.ndiff(BOARD.splitlines(), file.read_text(encoding="utf8").splitlines())
             if line.startswith("+ ")]  # fmt: skip
    assert added == [
        "  intensity: 0.1",
        "- {id: flip, prompt: 'a red figure, 転 🎬, does a backflip', seconds: 1.2, intensity: 0.9}   # in one line",
        "  intensity: 0.24   # by the words",
        "    prompt: a boy runs, intensity: 0.8 , seconds: 1.2 }",
    ]


@pytest.mark.parametrize("indent", [None, 2])
def test_json_too(tmp_path, indent):
    file = tmp_path / "story.json"
    scenes = [
        {"id": "a", "prompt": "a man jumps", "seconds": 1.2},
        {"id": "b", "seconds": 1.2, "prompt": "a man sits", "intensity": "auto"},
    ]
    file.write_text(json.dumps({"model": "fake", "scenes": scenes}, indent=indent))
    assert here("suggest", file, "--write").returncode == 0
    made = json.loads(file.read_text())["scenes"]
    assert [scene.pop("intensity") for scene in made] == [0.85, 0.1]
    assert made == [{name: value for name, value in scene.items() if name != "intensity"} for scene in scenes]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scenes:\n- {id: a, prompt: &x he runs, seconds: 1.2}\n", r"story.yaml:2:19: .*anchor &x"),
        ("scenes:\n- {id: a, prompt: he runs, seconds: 1.2, intensity: high}\n", r":2:53: .*intensity: is 'high'"),
        ("scenes:\n- id: a\n  prompt: he runs\n  intensity: auto\n", r"scenes\[0\].seconds: is missing"),
    ],
)  # fmt: skip
def test_what_it_cannot_read_or_write_is_told_and_left(tmp_path, text, said):
    file = tmp_path / "story.yaml"
    file.write_text(text)
    done = here("suggest", file, "--write")
    assert done.returncode == 2 and "Traceback" not in done.stderr and file.read_text() == text
    assert re.search(said, done.stderr), done.stderr


def test_odd_mappings_are_written_right_or_refused(tmp_path):
    """Whatever the text is like: the board afterwards is the one that was meant, or the file is as it was."""
    texts = (
        "scenes:\n-\n    seconds: 1.2\n    id: a\n    prompt: he runs\n",
        "scenes:\n-   ? seconds\n    : 1.2\n    id: a\n    prompt: he runs\n",
        "scenes:\n- id: a\n  prompt: he runs\n  seconds:\n    1.2\n",
        "scenes: [{id: a, prompt: he runs,\n  seconds: 1.2 # comment\n  }]\n",
        "scenes: [\n{'id': a, 'prompt': he runs, 'seconds':\n1.2}]",
        "{scenes: [{id: a, seconds: 1.2, prompt: he runs}], model: fake}",
        "scenes:\n  - id: a\n    prompt: |\n      he runs\n      seconds: 9\n    seconds: 1.2\ntitle: x\n",
    )
    for text in texts:
        file = tmp_path / "story.yaml"
        file.write_text(text)
        done = here("suggest", file, "--write")
        assert done.returncode == 0, (text, done.stderr)
        assert intensities(file) == {"a": 0.8}, text


def test_a_link_stays_a_link(tmp_path, file):
    link = tmp_path / "other.yaml"
    link.symlink_to(file)
    assert here("suggest", link, "--write").returncode == 0
    assert link.is_symlink() and intensities(file) == WRITTEN


def test_from_python(file):
    with pytest.raises(fr.RenderError, match="give its path"):
        fr.suggest(fr.read(file), write=True)
    scene = fr.Scene(id="a", prompt="a man jumps", seconds=1.2)
    (one,) = fr.suggest([scene])
    assert (one.scene, one.said, str(one.motion)) == ("a", None, "0.85: jumps")
    fr.suggest(file, write=True)
    assert intensities(file) == WRITTEN
