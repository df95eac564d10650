"""What holds for every format: archives that are not trusted, encodings, files in the way."""

import io
import json
import os
import stat
import zipfile

import pytest
from exchanged import imported, png, zipped
from faults import here
from test_import_wan2gp import PARAMS, ZIP

from framepack_relax.exchange import FORMATS
from framepack_relax.exchange.source import MOST_FILES


def with_entry(name="x.png", data=b"x", **info):
    """A good archive with one more file in it."""
    buffer = io.BytesIO(zipped(ZIP))
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo("x.png")
        entry.filename, entry.compress_type = name, zipfile.ZIP_DEFLATED
        for key, value in info.items():
            setattr(entry, key, value)
        archive.writestr(entry, data)
    return buffer.getvalue()


HOSTILE = {
    "leads out of it": [
        with_entry(name) for name in ("../x.png", "/etc/x", "a/../../x", "C:\\x", "a\\..\\x", "~/x", "C:/x")
    ],
    "is a link or a device": [
        with_entry(external_attr=kind << 16) for kind in (stat.S_IFLNK | 0o777, stat.S_IFCHR, stat.S_IFIFO)
    ],
    "is in it twice": [with_entry(name) for name in ("queue.json", "QUEUE.JSON")],
    "is an archive in the archive": [with_entry("more.zip"), with_entry("a.tar.gz")],
    "unpacks to": [with_entry(data=bytes(20 << 20))],
    "files, of which at most": [zipped({f"{n}.png": b"" for n in range(MOST_FILES + 1)})],
}


@pytest.mark.parametrize("fact", HOSTILE)
def test_a_hostile_archive_is_refused_with_one_message(tmp_path, fact):
    for number, data in enumerate(HOSTILE[fact]):
        before = sorted(os.listdir(tmp_path.parent))
        (tmp_path / str(number)).mkdir()
        seen = imported(tmp_path / str(number), "q.zip", data)
        assert seen.code == 2 and fact in seen.said and len(seen.said.splitlines()) == 1, seen.said
        assert os.listdir(tmp_path / str(number)) == ["q.zip"] and sorted(os.listdir(tmp_path.parent)) == before


def test_an_archive_that_lies_about_its_sizes_unpacks_to_no_more(tmp_path):
    data = bytearray(with_entry(data=bytes(1 << 20)))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (16).to_bytes(4, "little")
    seen = imported(tmp_path, "q.zip", bytes(data))
    assert seen.code in (0, 2) and len(seen.said) < 2000


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "latin1"])
def test_another_encoding_is_one_located_message(tmp_path, coding):
    seen = imported(tmp_path, "p.txt", "[0s-2s: ein Mann läuft]".encode(coding))
    assert seen.code == 2 and seen.said.startswith("p.txt") and len(seen.said.splitlines()) == 1
    assert "UTF-8" in seen.said


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path):
    seen = imported(tmp_path, "p.txt", "\ufeff[0s-2s: a]\r\n[2s-4s: b]\r\n")
    assert [prompt for prompt, _, _ in seen.scenes] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"prompt": "a",\n  "seed": }', "q.json:2:11: is not JSON: Expecting value"),
        ("[" * 100_000, "q.json: is nested too deep"),
        ("[1, " + "9" * 5000 + "]", "q.json: holds a number of too many digits"),
        ('{"a": 1}', "q.json: is of no format that is known; say which with --as: "),
        ("", "q.json: is of no format that is known"),
        ("just a prompt", "q.json: is of no format that is known"),
    ],
)
def test_what_is_no_format_is_one_message(tmp_path, text, said):
    seen = imported(tmp_path, "q.json", text)
    assert seen.code == 2 and seen.said.startswith(said) and len(seen.said.splitlines()) == 1, seen.said


@pytest.mark.parametrize("kind", [name for name in FORMATS if name != "otio"])
@pytest.mark.parametrize("data", [b"", b"[1]", b'{"a": {}}', b"PK", b"just a prompt", zipped({"a.txt": "x"})])
def test_a_format_that_is_said_and_is_not_there_is_no_crash(tmp_path, kind, data):
    seen = imported(tmp_path, "f", data, "--as", kind)
    assert seen.code in (0, 2) and (seen.code == 0) == (seen.story is not None) and "f" in seen.said


def test_the_format_that_is_said_overrules(tmp_path):
    assert imported(tmp_path, "p.txt", "a man walks", "--as", "musubi").scenes == [("a man walks", 4.0, "continue")]
    seen = imported(tmp_path, "p.txt", "a", "--as", "musbi")
    assert seen.code == 2 and "musbi is no format that is known" in seen.said


@pytest.mark.parametrize("kind", ["framepack-studio", "fountain", "musubi", "wan2gp", "helios"])
@pytest.mark.parametrize("text", ["[0s:", "[[", "/*", "A", "\n ", "[0s: ", "[/a=", "a --f ", '"', "INT. A\n\n"])
def test_a_megabyte_of_one_thing_is_read_or_refused(tmp_path, kind, text):
    """Where a pattern looked at each beginning to the end this would take hours."""
    assert imported(tmp_path, "f", text * (10**6 // len(text)) + " a", "--as", kind).code in (0, 2)


def test_what_is_there_already_stays(tmp_path):
    (tmp_path / "q.json").write_text(json.dumps({**PARAMS, "image_start": "a.png"}))
    (tmp_path / "a.png").write_bytes(png())
    for there in ("story.yaml", "story-images/scene-1.png"):
        (tmp_path / there).parent.mkdir(exist_ok=True)
        (tmp_path / there).write_text("mine")
        done = here("import", "q.json", "-o", "story.yaml", cwd=tmp_path)
        assert done.returncode == 2 and f"{there}: is there already" in done.stderr
        assert (tmp_path / there).read_text() == "mine"
        (tmp_path / there).unlink()
    assert here("import", "q.json", "-o", "story.yaml", cwd=tmp_path).returncode == 0
    assert here("plan", "story.yaml", cwd=tmp_path).returncode == 0


def test_a_board_that_would_be_too_long_to_read_is_not_written(tmp_path):
    tasks = [{**PARAMS, "image_start": "", "image_end": "", "prompt": f"{number} {'x' * 9000}"} for number in range(60)]
    seen = imported(tmp_path, "q.json", tasks)
    assert seen.code == 2 and "512 KiB that are read" in seen.said and not (tmp_path / "story.yaml").exists()


def test_what_is_not_there_or_no_place_to_write_is_one_message(tmp_path):
    done = here("import", "nothing.zip", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr == "nothing.zip: no such file\n"
    (tmp_path / "p.txt").write_text("[0s-2s: a]")
    done = here("import", "p.txt", "-o", "p.txt/story.yaml", cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_what_a_plan_would_refuse_is_told_as_something_to_do(tmp_path):
    seen = imported(tmp_path, "p.txt", "[0s: a] [2s: b] [2.2s-4s: c]", "--model", "framepack-f1")
    todo = [line.partition("to do: ")[2] for line in seen.said.splitlines() if "to do: " in line]
    planned = here("plan", "story.yaml", cwd=tmp_path)
    assert planned.returncode == 2 and todo == planned.stderr.splitlines(), "with its places and cures"
    assert any("scenes[1].seconds: 0.2 s gets no section" in line and "write " in line for line in todo)
    assert any("give the scene or the board an `image:`" in line for line in todo)
    assert "to do" not in imported(tmp_path, "p.txt", "[0s-2s: a]", "--model", "fake").said


def test_mistakes_that_only_the_storyboard_knows_have_their_place_in_the_file(tmp_path):
    seen = imported(tmp_path, "q.json", {**PARAMS, "num_inference_steps": 5000, "image_start": "", "prompt": "a\u0007"})
    assert seen.code == 2 and sorted(seen.said.splitlines()) == [
        "q.json: steps: is 5000; must be between 1 and 1000",
        "q.json: task 1.prompt: holds the control character U+0007; remove it (in double quotes a backslash begins an "
        "escape; write / in paths, or take single quotes)",
    ]
