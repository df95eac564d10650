"""Takes of a scene: other noise on the same past; which one the film has, and what stays when all around it changes."""

import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults import here, packets, same
from PIL import Image
from safetensors.numpy import load_file

import framepack_relax as fr
from framepack_relax.families.loader import Loading
from framepack_relax.rendering.session import USUAL, settle

BOARD = """\
# what this film is about
model: fake
steps: 4
scenes:
  - {id: calm, prompt: a red figure stands still, seconds: 0.8}
  - id: flip   # the one that must be good
    prompt: a red figure does a backflip
    seconds: 1.6   # two sections
    intensity: 0.9
  - {id: after, prompt: a red figure walks, seconds: 0.8}
"""
KEYS = ("5fe8cb43", "96596f03", "3238e81a", "3d099b2a")  # of the board's sections, before there were takes


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "story.yaml"
    path.write_text(BOARD, encoding="utf8")
    return path


@pytest.fixture
def film(file, tmp_path):
    return fr.render(file, out=tmp_path / "out")


@pytest.fixture
def locked(film, file):
    """A film whose second scene is locked as it was rendered."""
    fr.pick(file, "flip", lock=True, out=film.folder)
    return film


def edit(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text(encoding="utf8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    file.write_text(text, encoding="utf8")


def keys_of(file: Path, out: Path) -> list[str]:
    session = settle(fr.read(file), out, Loading(name="fake"), USUAL)
    return [key.key for key in session.keys.values()]


def latents(place: Path) -> list[bytes]:
    """Of the sections in a folder."""
    return [load_file(part)["latents"].tobytes() for part in sorted(place.glob("[0-9]*.safetensors"))]


def frames(film) -> list[bytes]:
    return packets(film.path)


def whys(file: Path, out: Path) -> list[str | None]:
    return [verdict.why for verdict in fr.preview(file, out=out)]


# --- takes ------------------------------------------------------------------------------------------------------------


def test_what_names_no_take_has_the_keys_that_it_had(file, tmp_path):
    assert [key[:8] for key in keys_of(file, tmp_path / "out")] == list(KEYS)
    edit(file, ("intensity: 0.9", "intensity: 0.9\n    take: 1-000000"))
    assert [key[:8] for key in keys_of(file, tmp_path / "out")] == list(KEYS), "the first noise is the scene's own"
    edit(file, ("1-000000", "2-000000"))
    assert [a[:8] == b for a, b in zip(keys_of(file, tmp_path / "out"), KEYS, strict=True)] == [True] + [False] * 3


def test_takes_are_other_noise_on_the_same_past_and_the_film_stays(film, file):
    before = {part: part.read_bytes() for part in film.folder.rglob("*") if part.is_file()}
    made = fr.take(file, "flip", n=3, out=film.folder)
    assert [take.name.split("-")[0] for take in made.takes] == ["1", "2", "3", "4"]
    changed = [part.name for part, data in before.items() if part.read_bytes() != data]
    assert changed == ["framepack-relax.json"], "but for the mark, which knows of the new files"
    assert whys(file, film.folder) == [None] * 4
    places = [film.folder / "takes/flip" / take.name for take in made.takes]
    assert latents(places[0]) == latents(film.folder / "shots/00")[1:3], "the first is the film's own"
    assert len({tuple(latents(place)) for place in places}) == 4
    row = film.report["sections"][1]
    assert made.takes[0].seam == pytest.approx(row["seam"], rel=1e-3), "as the report measures it"
    motion = [each["motion"] for each in film.report["sections"][1:3]]
    assert made.takes[0].motion == pytest.approx(sum(motion) / 2, rel=1e-3)
    sheet = Image.open(made.contact)
    assert sheet.height > 4 * 64, "a row for each"


def test_what_is_there_is_not_rendered_again_and_the_past_is_rendered_where_it_is_not(file, tmp_path):
    steps = []
    made = fr.take(file, "flip", n=1, out=tmp_path / "out", on_step=lambda section, step: steps.append(section.scene))
    assert steps == ["calm"] * 4 + ["flip"] * 16
    assert fr.take(file, "flip", n=1, out=tmp_path / "out", on_step=lambda *_: pytest.fail("a step")) == made
    again = fr.take(file, "flip", n=2, out=tmp_path / "out", on_step=lambda section, _: steps.append(section.scene))
    assert again.takes[:2] == made.takes and len(steps) == 28
    film = fr.render(file, out=tmp_path / "out")
    assert same(film.folder, fr.render(file, out=tmp_path / "other").folder)


def test_takes_of_another_past_stay_and_are_looked_at_on_this_one(film, file):
    made = fr.take(file, "flip", n=1, out=film.folder)
    kept = {part: part.read_bytes() for part in (film.folder / "takes").rglob("*.safetensors")}
    edit(file, ("stands still", "sits down"))
    fr.render(file, out=film.folder)
    again = fr.take(file, "flip", n=1, out=film.folder)
    assert len(again.takes) == 4 and {take.name for take in made.takes} < {take.name for take in again.takes}
    assert all(part.read_bytes() == data for part, data in kept.items())


def test_takes_of_a_scene_after_a_locked_one_have_its_take_as_their_past(locked, file):
    edit(file, ("stands still", "sits down"))
    film = fr.render(file, out=locked.folder)
    made = fr.take(file, "after", n=1, out=locked.folder)
    assert latents(locked.folder / "takes/after" / made.takes[0].name) == latents(locked.folder / "shots/00")[3:]
    assert made.takes[0].seam == pytest.approx(film.report["sections"][3]["seam"], rel=1e-3)


KILLED = """
import os, signal, sys
from framepack_relax.families.loader import Loading
from framepack_relax.rendering.retake import render_takes
import framepack_relax as fr
seen = []
def hear(event):
    seen.append(event.kind)
    if seen.count("section") == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
render_takes(fr.read(sys.argv[1]), "flip", 2, out=__import__("pathlib").Path(sys.argv[2]), on_event=hear)
"""


@pytest.mark.parametrize("sections", [5, 8])
def test_what_was_killed_between_or_within_takes_goes_on_and_ends_in_the_same_bits(film, file, tmp_path, sections):
    whole = shutil.copytree(film.folder, tmp_path / "whole")
    made = fr.take(file, "flip", n=2, out=whole)
    done = subprocess.run([sys.executable, "-c", KILLED, str(file), str(film.folder), str(sections)])
    assert done.returncode == -signal.SIGKILL
    there = len(list(film.folder.glob("takes/flip/*/*.safetensors")))
    steps = []
    again = fr.take(file, "flip", n=2, out=film.folder, on_step=lambda *step: steps.append(step))
    assert 0 < there < 6 and len(steps) == 4 * (6 - there)
    assert again.takes == made.takes
    for take in made.takes:
        assert latents(film.folder / "takes/flip" / take.name) == latents(whole / "takes/flip" / take.name)


def test_noise_as_framepack_draws_it_has_takes_too(file, tmp_path):
    edit(file, ("steps: 4", "steps: 4\nnoise: framepack"))
    made = fr.take(file, "flip", n=1, out=tmp_path / "out")
    places = [tmp_path / "out/takes/flip" / take.name for take in made.takes]
    assert len({part for place in places for part in latents(place)}) == 4


def test_a_take_of_an_ensured_scene_has_its_tries(file, tmp_path):
    edit(
        file, ("intensity: 0.9", "intensity: 0.9\n    relax: {target: [context]}\n    ensure: {motion: 0.9, tries: 2}")
    )
    fr.take(file, "flip", n=1, out=tmp_path / "out")
    fr.pick(file, "flip", 2, lock=True, out=tmp_path / "out")
    film = fr.render(file, out=tmp_path / "out")
    row = film.report["sections"][1]
    assert len(row["tries"]) == 2 and row["reused"]
    edit(file, ("tries: 2", "tries: 1"), ("does a backflip", "sits"))
    other = fr.render(file, out=tmp_path / "out")
    assert other.report["sections"][1]["tries"] == row["tries"]


# --- pick -------------------------------------------------------------------------------------------------------------


def test_a_picked_take_is_taken_and_what_follows_is_rendered_anew(film, file):
    made = fr.take(file, "flip", n=2, out=film.folder)
    done = here("pick", file, "flip", 3, "--out", film.folder)
    assert done.returncode == 0 and made.takes[2].name in done.stdout
    own = "intensity: 0.9\n"
    wanted = BOARD.replace(own, f"{own}    take: {made.takes[2].name}\n", 1)
    assert file.read_text() == wanted, "comments and order stay"
    assert whys(file, film.folder) == [None, None, None, "it follows a section that is rendered anew"]
    said = here("plan", file, "--out", film.folder)
    assert f"take {made.takes[2].name}" in said.stdout and "3 of 4 sections are kept" in said.stdout
    picked = fr.render(file, out=film.folder)
    (row,) = picked.report["takes"]
    assert (row["take"], row["locked"], row["from_files"]) == (made.takes[2].name, False, True)
    assert row["seams"] == [picked.report["sections"][n]["seam"] for n in (1, 3)]
    alone = fr.render(file, out=film.folder.parent / "alone")
    assert frames(alone) == frames(picked), "elsewhere it is rendered from its noise, to the same bits"
    assert not alone.report["takes"][0]["from_files"]
    assert here("pick", file, "flip", 2, "--out", film.folder).returncode == 0
    assert f"take: {made.takes[1].name}" in file.read_text() and file.read_text().count("take:") == 1


def test_a_picked_take_on_another_past_is_its_noise(film, file):
    made = fr.take(file, "flip", n=1, out=film.folder)
    fr.pick(file, "flip", "2", out=film.folder)
    edit(file, ("stands still", "sits down"))
    told = []
    other = fr.render(file, out=film.folder, on_note=told.append)
    assert any(f"take {made.takes[1].name} was made on another past" in text for text in told)
    assert other.report["takes"][0]["from_files"] is False
    assert latents(film.folder / "takes/flip" / made.takes[1].name) != latents(film.folder / "shots/00")[1:3]
    edit(file, ("sits down", "stands still"))
    back = fr.render(file, out=film.folder)
    assert back.report["takes"][0]["from_files"] is True


def test_a_picked_take_whose_file_is_gone_is_rendered_again(film, file):
    made = fr.take(file, "flip", n=1, out=film.folder)
    fr.pick(file, "flip", 2, out=film.folder)
    picked = frames(fr.render(file, out=film.folder))
    (film.folder / "takes/flip" / made.takes[1].name / "001.safetensors").unlink()
    film.path.unlink()
    told = []
    again = fr.render(file, out=film.folder, on_note=told.append)
    assert frames(again) == picked and any("is not in" in text for text in told)


def test_fresh_renders_a_picked_scene_anew_and_leaves_its_take(film, file):
    made = fr.take(file, "flip", n=1, out=film.folder)
    fr.pick(file, "flip", 2, out=film.folder)
    part = film.folder / "takes/flip" / made.takes[1].name / "000.safetensors"
    stamp = part.stat().st_mtime_ns
    film = fr.render(file, out=film.folder, fresh=True)
    assert not any(row["reused"] for row in film.report["sections"]) and part.stat().st_mtime_ns == stamp


# --- lock -------------------------------------------------------------------------------------------------------------


def test_locking_what_is_rendered_renders_nothing(locked, file):
    assert whys(file, locked.folder) == [None] * 4
    assert [key[:8] for key in keys_of(file, locked.folder)] == list(KEYS)
    text = file.read_text()
    assert "    take: 1-" in text and "\n    lock: true\n" in text


@pytest.mark.parametrize(
    "change",
    [
        ("stands still", "sits down"),
        ("does a backflip", "does a somersault"),
        ("steps: 4", "steps: 6"),
        ("steps: 4", "steps: 4\nseed: 5"),
        ("intensity: 0.9", "intensity: 0.1"),
        ("scenes:\n", "scenes:\n  - {id: new, prompt: a dog, seconds: 0.8}\n"),
        ("  - {id: calm", "  - {id: new, prompt: a dog, seconds: 0.8}\n  - {id: calm"),
    ],
)
def test_a_locked_scene_stays_whatever_changes_around_it(locked, file, change):
    before = latents(locked.folder / "shots/00")[1:3]
    edit(file, change)
    steps = []
    film = fr.render(file, out=locked.folder, on_step=lambda section, step: steps.append(section.scene))
    assert "flip" not in steps
    rows = [row for row in film.report["sections"] if row["scene"] == "flip"]
    assert all(row["reused"] and row["beta"] == 0.7 for row in rows), "what is told is how it was made"
    (told,) = film.report["takes"]
    assert told["locked"] and told["seams"][0] == rows[0]["seam"]
    (part,) = (locked.folder / "takes/flip").glob("1-*")
    assert latents(part) == before
    done = here("status", film.folder)
    assert f"{len(film.plan.sections)} of {len(film.plan.sections)} sections" in done.stdout
    assert "flip: take 1-" in done.stdout and "locked; seam" in done.stdout
    assert whys(file, film.folder) == [None] * len(film.plan.sections)


def test_what_a_film_shows_of_a_locked_scene_is_the_take(locked, file, tmp_path):
    edit(file, ("stands still", "sits down"), ("does a backflip", "sits, too"))
    film = fr.render(file, out=locked.folder)
    assert film.plan.sections[1].prompt == "a red figure does a backflip"
    shown = list(fr.stream(file, out=locked.folder))[1].frames
    edit(file, ("    lock: true\n", ""))
    assert (shown != list(fr.stream(file, out=tmp_path / "free"))[1].frames).any()


def test_what_follows_a_locked_scene_is_rendered_anew_where_its_take_changes(locked, file):
    edit(file, ("stands still", "sits down"))
    assert whys(file, locked.folder)[1:] == [None] * 3, "its past is the same"
    fr.render(file, out=locked.folder)
    fr.take(file, "flip", n=1, out=locked.folder)
    fr.pick(file, "flip", 2, out=locked.folder)
    assert "lock: true" in file.read_text()
    assert [why is None for why in whys(file, locked.folder)] == [True, True, True, False]


def test_neither_fresh_nor_strict_renders_a_locked_scene(locked, file):
    for how in ({"fresh": True}, {"strict": True}):
        film = fr.render(file, out=locked.folder, **how)
        assert [row["reused"] for row in film.report["sections"] if row["scene"] == "flip"] == [True, True]


def test_plan_and_dry_run_tell_what_is_locked(locked, file):
    edit(file, ("stands still", "sits down"))
    for words in (("plan", file, "--out"), ("render", file, "--dry-run", "--out")):
        done = here(*words, locked.folder)
        assert "3 of 4 sections are kept" in done.stdout and "is locked (another past)" in done.stdout
    assert "locked" in here("plan", file).stdout
    passes = fr.plan(file).passes
    edit(file, ("lock: true", "lock: false"))
    assert passes == (16, 16) and fr.plan(file).passes[0] > 16, "what is locked is not sampled"


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_locks_that_cannot_be_kept_are_told_at_their_places_all_at_once(locked, file, tmp_path):
    edit(file, ("seconds: 0.8}\n  - id: flip", "seconds: 0.8, take: 7-abcdef, lock: true}\n  - id: flip"))
    film = locked.path.read_bytes()
    (part,) = (locked.folder / "takes/flip").glob("1-*/001.safetensors")
    kept = part.rename(tmp_path / "kept")
    done = here("render", file, "--out", locked.folder)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and f"{file}:5:" in lines[0] and f"{file}:10:11: scenes[1].take: {part}" in lines[1]
    assert "scenes[0].take" in lines[0] and "copy that folder from where the take was made" in lines[0]
    assert locked.path.read_bytes() == film, "nothing is lost"
    edit(file, (", take: 7-abcdef, lock: true", ""))
    for data, said in ((kept.read_bytes()[:-8], "is damaged"), (b"", "is damaged"), (kept.read_bytes(), None)):
        part.write_bytes(data)
        done = here("render", file, "--out", locked.folder)
        assert (said in done.stderr and done.returncode == 2) if said else done.returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([("seconds: 1.6", "seconds: 2.6")], "has 2 sections, and the scene takes 3 now; write `seconds: 1.6`"),
        ([("seconds: 1.6", "seconds: 1.7")], "latent frames, and the scene"),
        ([("steps: 4", "steps: 4\nsize: [96, 64]")], r"is of size \[64, 64\], and the film of \[96, 64\]"),
        ([("steps: 4", "steps: 4\nfps: 25")], "was made for fps 30, and the film has 25"),
        ([("intensity: 0.9", "intensity: 0.9\n    transition: cut")], "followed on a scene, and now begins its shot"),
    ],
)
def test_a_take_that_no_longer_fits_is_told_with_a_cure(locked, file, change, message):
    edit(file, *change)
    with pytest.raises(fr.StoryboardError, match=rf"story.yaml:\d+:11: scenes\[1\].take: take 1-\w+ .*{message}.*lock"):
        fr.render(file, out=locked.folder)
    assert locked.path.exists()


def test_a_take_of_another_model_is_told(locked, file, tiny):
    hero = Image.new("RGB", (64, 64))
    hero.save(file.parent / "hero.png")
    edit(file, ("model: fake", f"model: {tiny}\nimage: hero.png"))
    with pytest.raises(fr.StoryboardError, match=r"scenes\[1\].take: take 1-\w+ was made with another model"):
        fr.preview(file, out=locked.folder)


def test_a_lock_that_names_no_take_is_told_and_pick_mends_it(film, file):
    edit(file, ("intensity: 0.9", "intensity: 0.9\n    lock: true"))
    done = here("plan", file)
    assert done.returncode == 2 and "story.yaml:10:11: scenes[1].lock: names no take to keep" in done.stderr
    assert "framepack-relax pick STORY flip" in done.stderr
    assert here("pick", file, "flip", "--out", film.folder).returncode == 0
    assert whys(file, film.folder) == [None] * 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pick", "flip", "9"), "has no take 9 of scene flip; known are 1-"),
        (("pick", "flop", "1"), "scene flop: is not on the board; did you mean 'flip'?"),
        (("pick", "calm", "1"), "has no take 1 of scene calm; `framepack-relax take STORY calm` renders some"),
        (("take", "flop"), "scene flop: is not on the board; did you mean 'flip'?"),
    ],
)
def test_what_is_not_there_cannot_be_picked(film, file, words, message):
    fr.take(file, "flip", n=1, out=film.folder)
    command, *rest = words
    done = here(command, file, *rest, "--out", film.folder)
    assert done.returncode == 2 and message in done.stderr and file.read_text() == BOARD


def test_what_was_never_rendered_cannot_be_kept(file, tmp_path):
    with pytest.raises(fr.RenderError, match="nothing whole is rendered of scene flip; render the film first"):
        fr.pick(file, "flip", lock=True, out=tmp_path / "none")
    assert file.read_text() == BOARD


def test_a_take_that_does_not_fit_is_not_written(film, file):
    fr.take(file, "flip", n=1, out=film.folder)
    edit(file, ("seconds: 1.6", "seconds: 2.6"))
    text = file.read_text()
    with pytest.raises(fr.StoryboardError, match="has 2 sections, and the scene takes 3 now"):
        fr.pick(file, "flip", 2, lock=True, out=film.folder)
    assert file.read_text() == text


@pytest.mark.parametrize("take", ["best", "3", "0-abcdef", "3-ABCDEF", "../../x"])
def test_what_no_take_is_called_is_told(file, take):
    edit(file, ("intensity: 0.9", f"intensity: 0.9\n    take: '{take}'"))
    with pytest.raises(fr.StoryboardError, match=r"story.yaml:10:11: scenes\[1\].take: is '.*a take is called such as"):
        fr.plan(file)


def test_the_board_that_a_film_carries_says_which_take_it_needs(locked, tmp_path):
    file = tmp_path / "story.yaml"
    film = fr.render(file, out=locked.folder)
    edit(file, ("stands still", "sits down"))
    film = fr.render(file, out=locked.folder)
    alone = Path(shutil.copy(film.path, tmp_path / "alone.mp4"))
    board = fr.restore(alone, tmp_path / "again")
    with pytest.raises(fr.StoryboardError, match="copy that folder from where the take was made"):
        fr.render(board, out=tmp_path / "again")
    shutil.copytree(locked.folder / "takes", tmp_path / "again/takes")
    assert frames(fr.render(board, out=tmp_path / "again")) == frames(film)
    done = here("rerun", film.path, "--out", tmp_path / "beside")
    assert done.returncode == 0, "beside the film its takes are found"
    assert packets(tmp_path / "beside/video.mp4") == frames(film)


# --- another board's film in the folder ------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files of a run folder but its mark."""
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "framepack-relax.json"}


def told(folder: Path) -> tuple:
    status = fr.status(folder)
    return status.done, status.total, status.film


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", 7], "it has --seed 7, and this 31337"),
        (["--steps", 3], "it has --steps 3, and this 4"),
        (["--draft"], "as --draft may have made it"),
    ],
)
def test_a_film_of_other_options_is_left_as_it_is_until_take_has_them_too(file, tmp_path, options, message):
    edit(file, ("steps: 4", "steps: 4\nsize: [128, 128]"))
    text, out = file.read_text(), tmp_path / "an out"
    assert here("render", file, *options, "--out", out).returncode == 0
    before, said = contents(out), told(out)
    done = here("take", file, "flip", "-n", 1, "--out", out)
    assert done.returncode == 2 and message in done.stderr and "another --out" in done.stderr
    assert contents(out) == before and told(out) == said
    done = here("take", file, "flip", "-n", 1, *options, "--out", out)
    assert done.returncode == 0 and contents(out).items() >= before.items()
    words = shlex.join(map(str, options))
    assert f"framepack-relax pick {file} flip TAKE {words} --out '{out}'" in done.stdout
    done = here("pick", file, "flip", *options, "--out", out)
    assert done.returncode == 0 and f"`framepack-relax render {file} {words} --out '{out}'` makes" in done.stdout
    written = file.read_text().splitlines()
    (line,) = [line for line in written if line not in text.splitlines()]
    assert line.startswith("    take: 1-") and contents(out).items() >= before.items()
    assert "4 of 4 sections are kept" in here("render", file, *options, "--dry-run", "--out", out).stdout


def test_take_on_an_edited_past_asks_for_a_render_first(film, file):
    edit(file, ("stands still", "sits down"))
    before = contents(film.folder)
    with pytest.raises(fr.RenderError, match=r"prompt: a red figure stands still -> .* render the film first"):
        fr.take(file, "flip", n=1, out=film.folder)
    assert contents(film.folder) == before
    fr.render(file, out=film.folder)
    assert len(fr.take(file, "flip", n=1, out=film.folder).takes) == 2


def test_takes_of_an_edited_scene_leave_the_film_and_what_is_told_of_it(film, file):
    edit(file, ("does a backflip", "does a somersault"))
    before, said = contents(film.folder), told(film.folder)
    fr.take(file, "flip", n=1, out=film.folder)
    assert contents(film.folder).items() >= before.items() and told(film.folder) == said
    assert whys(file, film.folder)[0] is None and whys(file, film.folder)[1] is not None


def test_a_locked_board_can_be_drafted(locked, file, tmp_path):
    draft = fr.render(file, out=tmp_path / "draft", draft=True)
    assert not any(row["reused"] for row in draft.report["sections"])
    fr.take(file, "flip", n=1, out=draft.folder, draft=True)
    text = file.read_text()
    for words in ((), ("--lock",)):
        done = here("pick", file, "flip", 2, *words, "--draft", "--out", draft.folder)
        assert done.returncode == 2 and "takes of a draft do not fit the film" in done.stderr
    assert file.read_text() == text
    edit(file, ("steps: 4", f"steps: 4\nstart_from: {{folder: {draft.folder}, strength: 1}}"))
    film = fr.render(file, out=locked.folder)
    assert [row["reused"] for row in film.report["sections"]][1:3] == [True, True]


# --- what is told of a locked scene ----------------------------------------------------------------------------------


def test_what_is_told_of_a_locked_scene_is_what_its_take_was_made_with(locked, file):
    edit(file, ("intensity: 0.9", "intensity: 0.9\n    emphasis: [{words: backflip, gain: 2}]"))
    film = fr.render(file, out=locked.folder)
    rows = [row for row in film.plan.to_json()["sections"] if row["scene"] == "flip"]
    assert all("emphasis" not in row for row in [*rows, *film.report["sections"]])
    assert all(row["sigmas"] == [] for row in rows), "the take has other steps, of which nothing is known"


def test_a_neighbour_is_blended_with_the_words_of_the_take(file, tmp_path):
    edit(file, ("walks, seconds: 0.8", "walks, seconds: 0.8, transition: {blend: 2}"))
    film = fr.render(file, out=tmp_path / "out")
    fr.pick(file, "flip", lock=True, out=film.folder)
    edit(file, ("does a backflip", "sits"))
    assert whys(file, film.folder) == [None] * 4
    again = fr.render(file, out=film.folder)
    flip, after = again.plan.sections[2:]
    assert after.blend.prompt == flip.prompt == "a red figure does a backflip"
    edit(file, (", transition: {blend: 2}", ""))
    kept = fr.render(file, out=film.folder).plan.sections[2]
    assert flip.blend.prompt == "a red figure walks" and kept.blend == flip.blend, "it was made with it"


def test_plan_warns_of_a_lock_whose_take_is_not_in_the_usual_folder(locked, file, tmp_path):
    done = here("plan", file, cwd=tmp_path)
    assert done.returncode == 0 and "scene flip: is locked, and out/story/takes/flip has no take 1-" in done.stderr
    shutil.copytree(locked.folder, tmp_path / "out/story")
    assert "is locked, and" not in here("plan", file, cwd=tmp_path).stderr


def test_all_misfits_of_a_lock_are_told_at_once(locked, file):
    edit(file, ("steps: 4", "steps: 4\nsize: [96, 64]"), ("seconds: 1.6", "seconds: 2.6"))
    message = r"is of size \[64, 64\].*, and has 2 sections.*; undo that, write `seconds: 1.6`, .* without `lock`"
    with pytest.raises(fr.StoryboardError, match=message):
        fr.render(file, out=locked.folder)
    told = []
    edit(file, ("    lock: true\n", ""))
    fr.render(file, out=locked.folder)
    fr.take(file, "flip", n=1, out=locked.folder, on_note=told.append)
    assert any("is of size" in text for text in told) and not any("`lock`" in text for text in told)


# --- real networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["forward", "inverted"])
def test_takes_of_a_network_in_both_orders(board, model, tmp_path, order):
    file = board(
        """
  - {id: calm, prompt: a red figure stands still, seconds: 1.2}
  - {id: flip, prompt: a red figure jumps, seconds: 2.4}
  - {id: after, prompt: a red figure walks, seconds: 1.2}
""",
        f"framepack: {{order: {order}}}",
    )
    made = fr.take(file, "flip", n=1, out=tmp_path / "out", model=model)
    assert len(made.takes) == 2 and (made.takes[0].seam is None) == (order == "inverted")
    fr.pick(file, "flip", 2, lock=True, out=tmp_path / "out")
    fr.render(file, out=tmp_path / "out", model=model)
    before = latents(tmp_path / "out/shots/00")
    other = fr.render(file, out=tmp_path / "out", model=model, style="on the beach")
    rows = [row for row in other.report["sections"] if row["scene"] == "flip"]
    assert all(row["reused"] for row in rows) and not other.report["sections"][0]["reused"]
    assert not set(before) & set(latents(tmp_path / "out/shots/00")), "the others are other ones"
    assert other.report["takes"][0]["seams"][0] is not None


@pytest.mark.parametrize("name", ["helios", "wan", "wan experts", "hunyuanvideo"])
def test_a_locked_take_stays_on_every_family(folder_of, hero, tmp_path, name):
    file, cut = tmp_path / "story.yaml", ", transition: cut" if name == "hunyuanvideo" else ""
    image = "image: hero.png" if name == "wan experts" else ""
    file.write_text(f"""
model: {folder_of(name)}
size: [64, 32]
steps: 2
{image}
scenes:
  - {{id: calm, prompt: a red figure stands still, seconds: 1.4}}
  - {{id: flip, prompt: a red figure jumps, seconds: 1.4{cut}}}
""")
    made = fr.take(file, "flip", n=1, out=tmp_path / "out")
    assert made.takes[0].motion != made.takes[1].motion and (made.takes[0].seam is None) == bool(cut)
    fr.pick(file, "flip", 2, lock=True, out=tmp_path / "out")
    edit(file, ("steps: 2", "steps: 3"))
    film = fr.render(file, out=tmp_path / "out")
    assert [row["reused"] for row in film.report["sections"]] == [False, True]


@pytest.mark.slow
def test_the_packaged_model_takes_picks_and_locks_from_the_command_line(tmp_path):
    boards = Path(__file__).parents[1] / "storyboards"
    for name in ("takes.yaml", "red-beach.png"):
        shutil.copy(boards / name, tmp_path)
    file, out = tmp_path / "takes.yaml", tmp_path / "out"
    edit(file, ("scenes:", "steps: 2\nscenes:"))
    done = here("take", file, "flip", "-n", 1, "--out", out)
    assert done.returncode == 0 and "seam" in done.stdout and "contact.png" in done.stdout
    assert here("pick", file, "flip", 2, "--lock", "--out", out).returncode == 0
    assert here("render", file, "--out", out).returncode == 0
    edit(file, ("stands still", "waves"))
    done = here("render", file, "--out", out)
    assert done.returncode == 0 and "locked; seam" in done.stdout
