"""What a maker puts into a marked run folder, or edits there, is kept; what is damaged is written anew."""

import base64
import json
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults import here
from fuzz_folders import contents
from fuzz_folders import edit as edited

import framepack_relax as fr
from framepack_relax.cli.tables import report_table
from framepack_relax.rendering import carry
from framepack_relax.rendering.mark import MARK
from framepack_relax.video.reader import film_digest, read_metadata

SAME = ", unless the new one is the same"


def names(out) -> list[str]:
    made = [*"video.mp4 plan.json report.json story.yaml contact.png curves.png".split()]
    return [*made, *(str(file.relative_to(out)) for file in out.glob("images/*.png"))]


@pytest.mark.parametrize("how", ["edit", "fresh", "lost mark"])
def test_what_a_maker_has_edited_is_kept_under_a_free_name_and_a_dry_run_foresees_it(place, model, how):
    out = place / "out"
    mine = {name: edited(out / name) for name in names(out)}
    given = {"crf": 30} if how == "edit" else {"fresh": how == "fresh"}
    if how == "lost mark":
        (out / MARK).unlink()
    before, foreseen, notes = contents(out), [], []
    fr.preview(place / "story.yaml", out=out, model=model, on_note=foreseen.append, **given)
    assert contents(out) == before
    for _ in range(2):
        fr.render(place / "story.yaml", out=out, model=model, on_note=notes.append, **given)
    moved = [note for note in notes if "no render" in note or "is kept as" in note]
    assert sorted(moved) == sorted(note.replace("would be", "is").removesuffix(SAME) for note in foreseen) and len(
        moved
    ) == len(mine)
    for name, data in mine.items():
        stem, suffix = os.path.splitext(name)
        assert (out / f"{stem}-2{suffix}").read_bytes() == data, name
        assert any(f"/{name}: " in note for note in moved)
    assert fr.status(out).film == out / "video.mp4" and not list(out.rglob("*-3*"))


def test_a_dry_run_and_a_render_agree_on_what_a_folder_without_its_mark_holds(place, model):
    """Whether a film or a picture is the one that will be made anew is not known beforehand, and that is said."""
    out = place / "out"
    (out / MARK).unlink()
    before = {name: (out / name).read_bytes() for name in names(out)}
    (out / "shots/00/start.safetensors").write_bytes(b"MINE")
    foreseen, notes = [], []
    given = {"out": out, "model": model, "crf": 30}
    said = [why for _, why, _ in fr.preview(place / "story.yaml", on_note=foreseen.append, **given)]
    film = fr.render(place / "story.yaml", on_note=notes.append, **given)
    assert [why is None for why in said] == [row["reused"] for row in film.report["sections"]]
    moved = {note.replace("is kept", "would be kept") + SAME for note in notes if "is kept as" in note}
    assert moved < set(foreseen) and any("start-2" in note for note in moved)
    same = [name for note in set(foreseen) - moved for name in before if note.startswith(f"{out / name}: ")]
    assert same and all((out / name).read_bytes() == before[name] for name in same)


def test_under_the_names_of_unfinished_films_only_what_a_render_left_is_removed(place, model):
    out, notes = place / "out", []

    def stop(section, seed):
        if section.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fr.render(place / "story.yaml", out=out, model=model, crf=40, on_section=stop)
    left = (out / "video.part.mp4").read_bytes()
    (out / "video.part-again.mp4").write_bytes(left[: len(left) * 2 // 3])
    kept = {"video.part.mp4": b"MINE", "video.whole.mp4": (out / "contact.png").read_bytes()}
    for name, data in kept.items():
        (out / name).write_bytes(data)
    fr.render(place / "story.yaml", out=out, model=model, on_note=notes.append, crf=30)
    assert len([note for note in notes if "is kept as" in note]) == 2, notes
    assert sorted(file.name for file in out.glob("video*")) == ["video.mp4", "video.part-2.mp4", "video.whole-2.mp4"]
    assert {(out / name.replace(".mp4", "-2.mp4")).read_bytes() for name in kept} == set(kept.values())


def test_a_file_is_ours_whenever_a_render_stops(place, model, monkeypatch):
    """However far a render comes, the next one finds nothing that it does not know."""
    out, replace, left = place / "out", os.replace, 0

    def stop(old, new):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        replace(old, new)
        if left == 1:
            raise KeyboardInterrupt

    notes: list[str] = []
    for number in range(1, 40):
        left = number + 1
        monkeypatch.setattr(os, "replace", stop)
        try:
            fr.render(place / "story.yaml", out=out, model=model, on_note=notes.append, crf=17 + number)
        except KeyboardInterrupt:
            continue
        finally:
            monkeypatch.setattr(os, "replace", replace)
        break
    assert 5 < number < 39 and not notes and not list(out.rglob("*-2*"))


@pytest.mark.parametrize("name", ["plan.json", "story.yaml"])
def test_what_a_finished_film_has_lost_beside_it_is_written_anew(place, whole, model, name):
    file, good = place / "out" / name, (whole / "out" / name).read_bytes()
    for harm in (lambda: file.unlink(), lambda: file.write_bytes(good[: len(good) // 2])):
        harm()
        film = fr.render(place / "story.yaml", out=place / "out", model=model)
        assert all(row["reused"] for row in film.report["sections"]) and file.read_bytes() == good
        assert fr.status(place / "out").film == film.path
    assert (place / "out" / name.replace(".", "-2.")).read_bytes() == good[: len(good) // 2]


@pytest.mark.parametrize("value", [None, "x", [], 1e308])
def test_a_report_that_was_edited_is_never_shown(place, model, value):
    file = place / "out/report.json"
    report = json.loads(file.read_text())
    report["sections"][0] |= dict.fromkeys(("motion", "seam", "seconds", "forwards", "reused"), value)
    file.write_text(json.dumps(report))
    film = fr.render(place / "story.yaml", out=place / "out", model=model)
    report_table(film.plan, film.report)
    assert json.loads(json.dumps(film.report)) == json.loads(file.read_text())
    assert film.report["sections"][0]["motion"] != value and (place / "out/report-2.json").exists()


def test_a_board_restored_twice_keeps_what_was_edited_between(place):
    film = place / "out/video.mp4"
    first = fr.restore(film, place / "again")
    good = {str(file.relative_to(place)): file.read_bytes() for file in (place / "again").rglob("*") if file.is_file()}
    mine = [edited(first), *(edited(file) for file in (place / "again/images").iterdir())]
    notes: list[str] = []
    assert fr.restore(film, place / "again", on_note=notes.append) == first
    assert set(mine) <= contents(place / "again") and len(notes) == len(mine)
    assert all((place / name).read_bytes() == data for name, data in good.items() if not name.endswith(MARK))
    edited(first)
    done = here("rerun", str(film), "--out", "again", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "story.yaml: is not as a render wrote it, and is kept as story-3.yaml" in done.stderr


def test_a_dry_run_foresees_what_a_render_would_refuse_or_move(place):
    (place / "file").write_text("mine")
    done = here("render", "story.yaml", "--dry-run", "--device", "cpu", "--out", "file", cwd=place)
    assert done.returncode == 2 and "file: is no folder; choose another one" in done.stderr
    edited(place / "out/video.mp4")
    done = here("render", "story.yaml", "--dry-run", "--device", "cpu", "--out", "out", cwd=place)
    assert done.returncode == 0 and "would be kept as video-2.mp4" in done.stderr
    os.remove(place / "out/video.mp4")
    (place / "out/video.mp4").mkdir()
    done = here("render", "story.yaml", "--dry-run", "--device", "cpu", "--out", "out", cwd=place)
    assert done.returncode == 2 and "video.mp4: cannot be written (it is a folder, a link or a pipe" in done.stderr


# --- what status says -------------------------------------------------------------------------------------------------


@contextmanager
def nobody():
    """Without the rights of root, which may read and write everything."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)


@pytest.fixture
def shared(whole):
    """A run folder that everybody may read."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield shutil.copytree(whole / "out", Path(name, "out"))


def test_a_section_that_may_not_be_read_is_no_missing_one(shared):
    (shared / "shots/00/001.safetensors").chmod(0)
    with nobody(), pytest.raises(fr.RenderError, match=r"001\.safetensors: cannot be read \(Permission denied\)"):
        fr.status(shared)


def test_who_is_at_work_in_a_folder_that_may_not_be_written_to(shared):
    """A lease of another machine counts until nobody has touched it for a minute, and looking changes nothing."""
    lease = shared / "shots/00/.lease"
    lease.write_text(json.dumps({"pid": 1, "host": "h", "on": "h 1", "since": 0}))
    before = contents(shared)
    with nobody():
        assert "process 1 on h, since 19" in fr.status(shared).at_work
    os.utime(lease, (time.time() - 61,) * 2)
    with nobody():
        assert fr.status(shared).at_work is None
    assert contents(shared) == before


def test_a_run_folder_may_have_a_name_that_is_no_utf8(place, whole, model):
    out = place / os.fsdecode(b"caf\xe9")
    fr.render(place / "story.yaml", out=out, model=model)
    assert film_digest(out / "video.mp4")[0] == film_digest(whole / "out/video.mp4")[0]
    assert fr.status(out).film == out / "video.mp4" and fr.status(out).done == 2
    edited(out / "story.yaml")
    for words in (["render", "story.yaml", "--out", out], ["status", out], ["rerun", out / "video.mp4", "--out", out]):
        done = here(*words, cwd=place)
        assert "Traceback" not in done.stderr and done.returncode == (2 if words[0] == "rerun" else 0), done.stderr
    assert (out / "story-2.yaml").read_text().startswith("# mine")


# --- whose folder it is -----------------------------------------------------------------------------------------------


def test_boards_without_a_title_do_not_take_over_each_others_folder(place, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)

    def make(prompt, more=(), **given):
        scenes = [fr.Scene(id="a", prompt=prompt, seconds=1.2), *more]
        return fr.render(scenes, image=str(place / "hero.png"), steps=1, model=model, **given)

    make("a red figure walks")
    before = contents(tmp_path / "out/a")
    with pytest.raises(
        fr.RenderError, match=r"holds the film of another storyboard, a .*, or give the storyboard a title"
    ):
        make("a blue figure waves")
    assert contents(tmp_path / "out/a") == before
    make("a red figure walks", seed=7)  # the same scenes with other settings
    make("a red figure walks", [fr.Scene(id="b", prompt="a red figure jumps", seconds=1.2)], seed=7)  # more of the same
    make("a red figure walks", title="One")
    assert make("a blue figure waves", title="One").folder.name == "one"


def test_another_board_of_the_same_title_is_another_board_also_when_the_first_is_gone(place, model):
    board = (place / "story.yaml").read_text()
    (place / "first.yaml").write_text(f"title: Mine\n{board}")
    fr.render(place / "first.yaml", out=place / "mine", model=model)
    (place / "first.yaml").unlink()
    (place / "second.yaml").write_text(f"title: Mine\nseed: 5\n{board}")
    before = contents(place / "mine")
    with pytest.raises(fr.RenderError, match=r"mine: holds the film of another storyboard, Mine"):
        fr.render(place / "second.yaml", out=place / "mine", model=model)
    assert contents(place / "mine") == before


def test_a_film_that_is_finished_calls_nobody_back(place, model):
    called: list[object] = []
    given = {"on_step": lambda *told: called.append(told), "on_section": lambda *told: called.append(told)}
    fr.render(place / "story.yaml", out=place / "out", model=model, **given)
    assert not called


# --- what grows -------------------------------------------------------------------------------------------------------


def test_the_plan_of_the_longest_film_stays_small_and_an_ordinary_one_is_whole(place):
    scenes = [
        fr.Scene(id=f"s{n}", prompt=f"walks {n}", seconds=1.2, intensity=0.3 + n % 700 / 1000, guidance={"text": 2.0})
        for n in range(600)
    ]
    given = {"model": "puppet", "image": str(place / "hero.png")}
    ordinary, long = (fr.plan(scenes, steps=steps, **given).to_json() for steps in (25, 1_000))
    assert len(json.dumps(ordinary)) < 1 << 24 and len(json.dumps(long)) < 1 << 20
    assert "left_out" not in ordinary and len(ordinary["sections"][0]["scales"]["text"]) == 25
    assert set(ordinary["sections"][0]) - set(long["sections"][0]) == set(long["left_out"]) - {"blend"}, "there is none"


def test_a_storyboard_too_long_to_be_read_again_is_not_carried_and_that_is_said(place, tiny, model):
    scene = "- {{id: s{}, prompt: a red figure walks, seconds: 1.2, intensity: 0.9}}"
    rows = "\n".join(scene.format(n) for n in range(3000))
    text = f"model: {tiny}\nimage: hero.png\nsteps: 1\nstyle: {'x' * 20_000}\nscenes:\n{rows}"
    (place / "long.yaml").write_text(text)
    notes: list[str] = []
    fr.preview(place / "long.yaml", out=place / "long", device="cpu", on_note=notes.append)
    assert len(text) < 1 << 19
    assert re.search(r"takes more than the 512 KiB that are read: the film does not carry it", notes[0])


def test_a_film_without_its_many_start_images_says_so(place, model, monkeypatch):
    monkeypatch.setattr(carry, "MOST_PICTURES", 100)
    notes: list[str] = []
    film = fr.render(place / "story.yaml", out=place / "new", model=model, on_note=notes.append)
    assert any("a film carries up to 0" in note and str(place / "new") in note for note in notes)
    done = here("rerun", str(film.path), cwd=place)
    assert done.returncode == 2 and "which the film does not carry; render from the folder" in done.stderr
    assert base64.b64encode(b"\x89PNG")[:4].decode() not in read_metadata(film.path)["framepack_relax_images"]
    fr.render(place / "new/story.yaml", out=place / "new", model=model)
