"""Whose a run folder is, what is written into it, and that what a maker has put there stays."""

import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from faults import failing as failing_at
from faults import here, nan, packets, same, sections
from PIL import Image

import framepack_relax as fr
from framepack_relax.families import loaded
from framepack_relax.families.loaded import checksum
from framepack_relax.families.loader import Loading
from framepack_relax.rendering import session as of_session
from framepack_relax.rendering.lease import LEASE
from framepack_relax.rendering.mark import MARK, read_mark
from framepack_relax.video.reader import read_frames
from framepack_relax.video.writer import Mp4Writer


def change(place, old: str, new: str):
    file = place / "story.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return file


def verdicts(place, model, **given):
    return fr.preview(place / "story.yaml", out=place / "out", model=model, **given)


def reasons(place, model, **given):
    return [why for _, why, _ in verdicts(place, model, **given)]


def files(folder) -> dict[str, bytes]:
    """All that lies there, but for what is the render's own bookkeeping of who works."""
    found = (f for f in sorted(folder.rglob("*")) if f.is_file() and not f.is_symlink() and f.name != LEASE)
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def one_ulp(output):
    """What another GPU model makes of an encoder: the last bit of every number is another."""
    return torch.nextafter(output, torch.full_like(output, torch.inf))


# --- keys are made from inputs ----------------------------------------------------------------------------------------


def test_threads_versions_and_the_last_bit_of_an_encoder_undo_nothing(place, whole, model, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(2, threads))
    try:
        with failing_at(model.vae.encoder, range(9), one_ulp):
            assert reasons(place, model) == [None, None]
            film = fr.render(place / "story.yaml", out=place / "out", model=model, crf=30)
    finally:
        torch.set_num_threads(threads)
    assert [row["reused"] for row in film.report["sections"]] == [True, True]
    before = of_session.versions()
    monkeypatch.setattr(of_session, "versions", lambda: {**before, "torch": "99.0"})
    told = verdicts(place, model)
    assert [(why, note) for _, why, note in told] == [(None, f"torch {before['torch']} -> 99.0")] * 2
    assert all("99.0" in why for why in reasons(place, model, strict=True))
    film = fr.render(place / "story.yaml", out=place / "out", model=model, strict=True)
    assert not any(row["reused"] for row in film.report["sections"]) and same(place / "out", whole / "out")
    assert reasons(place, model, strict=True) == [None, None]


def test_a_shot_goes_on_with_the_start_latent_that_it_was_begun_with(place, whole, model):
    (place / "out/shots/00/001.safetensors").unlink()
    (place / "out/video.mp4").unlink()
    with failing_at(model.vae.encoder, range(9), one_ulp):
        fr.render(place / "story.yaml", out=place / "out", model=model)
    assert same(place / "out", whole / "out")
    shutil.rmtree(place / "out")
    with failing_at(model.vae.encoder, range(9), one_ulp):
        fr.render(place / "story.yaml", out=place / "out", model=model)
    assert sections(place / "out") != sections(whole / "out"), "the bit that differs would be seen"


def test_a_finished_film_loads_nothing_and_one_that_must_be_encoded_anew_no_encoder(place, model, monkeypatch):
    def refuse(source, part, dtype):
        assert part.startswith("tokenizer"), f"{part} was loaded"
        return load_part(source, part, dtype)

    load_part = loaded.load_part
    monkeypatch.setattr(loaded, "load_part", refuse)
    before = files(place / "out")
    film = fr.render(place / "story.yaml", out=place / "out")
    assert files(place / "out") == before and all(row["reused"] for row in film.report["sections"])
    change(place, "steps: 2", "crf: 40\nsteps: 2")
    film = fr.render(place / "story.yaml", out=place / "out", model=model)
    assert all(row["reused"] for row in film.report["sections"])
    assert len((place / "out/video.mp4").read_bytes()) < len(before["video.mp4"])


def test_weights_that_are_changed_in_memory_are_other_weights(place, model):
    weight = model.transformer.proj_out.weight
    before = weight.detach().clone()
    try:
        weight.data[0, 0] += 1e-3  # .data leaves no trace in the tensor's version
        assert all("weights: " in why for why in reasons(place, model))
    finally:
        weight.data.copy_(before)
    assert reasons(place, model) == [None, None]


def test_the_checksum_sees_order_names_and_adapters():
    def of(weight, scale=None):
        layer = torch.nn.Linear(4000, 40, bias=False, dtype=torch.bfloat16)
        layer.weight.data = weight
        if scale:
            layer.scaling = {"default": scale}
        return checksum(layer)

    weight = torch.randn(40, 4000).to(torch.bfloat16)
    assert of(weight) == of(weight.clone())
    assert len({of(weight), of(weight.flip(0)), of(weight.roll(1, 1)), of(weight, 0.5), of(weight, 1.0)}) == 5


@pytest.mark.parametrize(
    ("old", "new", "first"),
    [
        ("steps: 2", "steps: 2\nnegative_prompt: blurred", 2),  # nobody reads it: text guidance is off
        ("steps: 2", "steps: 2\ntitle: another", 2),
        ("seconds: 1.2, intensity", "seconds: 1.2, negative_prompt: x, guidance: {text: 2}, intensity", 1),
        ("steps: 2", "steps: 2\nsampler: euler", 0),
        ("steps: 2", "steps: 2\nseed: 5", 0),
        ("steps: 2", "steps: 2\nsize: [48, 32]", 0),
    ],
)
def test_a_key_changes_with_what_goes_in_and_with_nothing_else(place, model, old, new, first):
    change(place, old, new)
    got = reasons(place, model)
    assert [why is None for why in got] == [index < first for index in range(2)]


def test_an_error_of_the_disk_is_called_so_and_nothing_is_written_over(place, model):
    """/proc/self/mem is a regular file whose first byte cannot be read."""
    file = place / "out/shots/00/000.safetensors"
    file.rename(file.with_suffix(".aside"))
    file.symlink_to("/proc/self/mem")
    with pytest.raises(fr.RenderError, match=r"000\.safetensors: cannot be read \(Input/output error\)"):
        verdicts(place, model)
    before = files(place / "out/shots/00")
    with pytest.raises(fr.RenderError, match=r"000\.safetensors: cannot be "):
        fr.render(place / "story.yaml", out=place / "out", model=model)
    assert file.is_symlink() and file.with_suffix(".aside").exists() and files(place / "out/shots/00") == before


# --- what a render would do -------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_kept_without_torch_and_writes_nothing(place):
    change(place, "intensity: 0.9", "intensity: 0.5")
    before = files(place)
    code = (
        "import sys\nfrom framepack_relax.cli import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    said = "1 of 2 sections are kept; from section 1 (scene flip) on rendered anew: beta: 0.7 -> 0.5, steps changed"
    for words in (
        ["render", "--dry-run", "--fresh", "--strict", "--device", "cpu"],  # the last of the two counts
        ["plan", "--dtype", "float32", "--device", "cpu"],
    ):
        command = [sys.executable, "-c", code, *words, str(place / "story.yaml"), "--out", str(place / "out")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and said in done.stdout, done.stdout + done.stderr
    fresh = fr.preview(place / "story.yaml", out=place / "new", device="cpu")
    assert [why for _, why, _ in fresh] == ["it is not there yet"] * 2
    assert files(place) == before and not (place / "new").exists()


def test_the_old_film_stays_until_the_new_one_is_whole(place, whole, model):
    change(place, "intensity: 0.9", "intensity: 0.5")

    def stop(section, seed):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fr.render(place / "story.yaml", out=place / "out", model=model, on_section=stop)
    for name in ("video.mp4", "contact.png", "curves.png", "report.json"):
        assert (place / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()
    assert fr.status(place / "out").film is None
    fr.render(place / "story.yaml", out=place / "out", model=model)
    assert fr.status(place / "out").film and packets(place / "out/video.mp4") != packets(whole / "out/video.mp4")


# --- whose folder it is -----------------------------------------------------------------------------------------------


def test_files_of_the_maker_are_neither_removed_nor_overwritten(place, model):
    shutil.rmtree(place / "out")
    names = ("video.mp4", "report.json", "contact.png", "curves.png", "plan.json", "images/0.png", "shots/raw/clip.mov")
    for name in names:
        folder = place / f"of {name.replace('/', ' ')}"
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("mine")
        for fresh in (False, True):
            with pytest.raises(fr.RenderError, match=r"no render wrote \((.*)\); .*choose another folder, .*-2$"):
                fr.render(place / "story.yaml", out=folder, model=model, fresh=fresh)
        assert files(folder) == {name: b"mine"} and len(list(folder.rglob("*"))) == len(name.split("/"))


def test_a_file_that_comes_later_is_the_makers_too(place, whole, model, tmp_path):
    list(fr.stream(place / "story.yaml", out=place / "new", model=model))
    (place / "new/video.mp4").write_text("mine")
    notes: list[str] = []
    fr.render(place / "story.yaml", out=place / "new", model=model, on_note=notes.append)
    assert (place / "new/video-2.mp4").read_text() == "mine" and same(place / "new", whole / "out")
    assert [note for note in notes if "video.mp4: is not as a render wrote it, and is kept as video-2.mp4" in note]
    with Mp4Writer(place / "mine.mp4", fps=30, size=(32, 32), crf=20, metadata={}) as writer:
        writer.write(np.zeros((2, 32, 32, 3), np.uint8))
    mine = (place / "mine.mp4").read_bytes()
    shutil.move(place / "mine.mp4", place / "out/video.mp4")  # with a sound track, say
    change(place, "steps: 2", "steps: 2\ncrf: 40")
    fr.render(place / "story.yaml", out=place / "out", model=model)
    assert (place / "out/video-2.mp4").read_bytes() == mine
    (place / "out/shots/footage").mkdir()
    (place / "out/shots/footage/clip.mov").write_text("mine")
    fr.render(place / "story.yaml", out=place / "out", model=model, fresh=True)
    assert (place / "out/shots/footage/clip.mov").read_text() == "mine"


def test_two_storyboards_of_one_name_do_not_share_a_folder(place, whole, model, tmp_path, monkeypatch):
    other = shutil.copytree(place, tmp_path / "q", ignore=shutil.ignore_patterns("out"))
    monkeypatch.chdir(tmp_path)
    film = fr.render(place / "story.yaml", model=model)
    assert film.folder == tmp_path.joinpath("out/story").relative_to(tmp_path)
    before = files(tmp_path / "out/story")
    with pytest.raises(
        fr.RenderError, match=r"story: holds the film of another storyboard \(.*place/story\.yaml\); .*-2$"
    ):
        fr.render(other / "story.yaml", model=model)
    assert files(tmp_path / "out/story") == before
    done = here("render", "q/story.yaml", "--fresh", cwd=tmp_path)
    assert done.returncode == 2 and "out/story-2" in done.stderr and files(tmp_path / "out/story") == before
    scenes = [fr.Scene(id="a", prompt="a red figure walks", seconds=1.2)]
    given = {"image": str(place / "hero.png"), "steps": 1, "model": model}
    assert fr.render(scenes, title="Föo / bar", **given).folder.name == "föo-bar"
    assert fr.render(scenes, **given).folder.name == "a"
    with pytest.raises(fr.RenderError, match=r"holds the film of another storyboard, a \(from Python\)"):
        fr.render([fr.Scene(id="b", prompt="a red figure walks", seconds=1.2)], out="out/a", **given)


def test_a_storyboard_that_moves_is_the_same_one(place, model):
    change(place, "steps: 2", "steps: 2\ntitle: My film")
    fr.render(place / "story.yaml", out=place / "out", model=model)
    (place / "story.yaml").rename(place / "renamed.yaml")
    film = fr.render(place / "renamed.yaml", out=place / "out", model=model)
    assert all(row["reused"] for row in film.report["sections"])
    assert read_mark(place / "out").board == "../renamed.yaml"


@pytest.mark.parametrize("mark", [None, b"", b"{", b"[1]", b'{"board": 1, "title": "x"}'])
def test_a_folder_that_lost_its_mark_is_known_by_its_sections(place, whole, model, mark):
    file = place / "out" / MARK
    file.unlink() if mark is None else file.write_bytes(mark)
    film = fr.render(place / "story.yaml", out=place / "out", model=model)
    assert all(row["reused"] for row in film.report["sections"]) and same(place / "out", whole / "out")
    file.unlink()
    change(place, "steps: 2", "steps: 2\nseed: 9")
    with pytest.raises(fr.RenderError, match="holds files that no render wrote"):
        fr.render(place / "story.yaml", out=place / "out", model=model)


def test_a_folder_of_the_version_before_is_left_alone(place, model):
    (place / "out" / MARK).unlink()
    (place / "out/shots/wanted.json").write_text("{}")
    change(place, "steps: 2", "steps: 2\nseed: 9")
    before = files(place / "out")
    with pytest.raises(fr.RenderError, match=r"a render of framepack-relax 0\.1, .*choose another folder, .*out-2"):
        fr.render(place / "story.yaml", out=place / "out", model=model, fresh=True)
    assert files(place / "out") == before


def test_the_folders_own_storyboard_stays_as_its_maker_edits_it(place, model):
    own = place / "out/story.yaml"
    own.write_text("# my notes\n" + own.read_text().replace("backflip", "jump"))
    text = own.read_text()
    film = fr.render(own, out=place / "out", model=model)
    assert own.read_text() == text and [row["reused"] for row in film.report["sections"]] == [True, False]
    assert "jump" in fr.restore(film.path, place / "again").read_text()


def test_films_are_restored_into_folders_of_their_own(place, model):
    film = place / "out/video.mp4"
    fr.restore(film, place / "again")
    shutil.copy(film, place / "second.mp4")
    with pytest.raises(fr.RenderError, match=r"again: holds the film of another storyboard .*choose another folder"):
        fr.restore(place / "second.mp4", place / "again")
    assert fr.restore(film, place / "again") == place / "again/story.yaml"


# --- one model, two threads -------------------------------------------------------------------------------------------


def test_two_threads_with_one_model_make_the_films_that_each_makes_alone(place, model):
    Image.radial_gradient("L").rotate(90).resize((32, 32)).convert("RGB").save(place / "other.png")
    text = {"intensity": 0.6, "guidance": {"text": 2.0}}
    boards = {
        "x": (str(place / "hero.png"), fr.Scene(id="x", prompt="a red figure stands still", seconds=2.4)),
        "y": (str(place / "other.png"), fr.Scene(id="y", prompt="a blue figure walks", seconds=2.4, **text)),
    }
    raised = []

    def go(name: str, out: str) -> None:
        image, scene = boards[name]
        try:
            fr.render([scene], image=image, steps=2, out=place / out, model=model)
        except Exception as error:
            raised.append(error)

    for name in boards:
        go(name, f"alone {name}")
    threads = [threading.Thread(target=go, args=(name, f"together {name}")) for name in boards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not raised, raised
    for name in boards:
        assert same(place / f"together {name}", place / f"alone {name}")


# --- films that are not what was written ------------------------------------------------------------------------------


def test_status_names_a_film_only_if_it_is_the_newest_plans_and_plays(place, model, monkeypatch):
    def stop(*given):
        raise KeyboardInterrupt

    film = place / "out/video.mp4"
    assert fr.status(place / "out").film == film
    good = film.read_bytes()
    for bad in (good[:-1], good[: len(good) // 2], b"", good[:-400] + bytes(400)):
        film.write_bytes(bad)
        assert fr.status(place / "out").film is None
    film.write_bytes(good)
    monkeypatch.setattr(Mp4Writer, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        fr.render(place / "story.yaml", out=place / "out", model=model, crf=40)
    said = fr.status(place / "out")
    assert (said.done, said.total, said.film) == (2, 2, None) and film.read_bytes() == good


@pytest.mark.parametrize("how", ["truncate", "cut short", "remove", "swap", "flip"])
def test_a_part_that_somebody_changes_makes_no_film(place, whole, model, how):
    shutil.rmtree(place / "out")
    part = place / "out/video.part.mp4"
    with Mp4Writer(place / "another.mp4", fps=30, size=(32, 32), crf=20, metadata={}) as writer:
        writer.write(np.zeros((73, 32, 32, 3), np.uint8))

    def harm(section, seed):
        if section.index == 1:
            if how == "truncate":
                os.truncate(part, part.stat().st_size // 2)
            elif how == "cut short":
                os.truncate(part, 100)
            elif how == "remove":
                part.unlink()
            elif how == "swap":
                os.replace(place / "another.mp4", part)
            else:
                with part.open("r+b") as file:
                    file.seek(part.stat().st_size - 100)
                    file.write(b"\xff\xff\xff\xff")

    with pytest.raises(fr.RenderError, match=r"video\.mp4: cannot be written .*changed"):
        fr.render(place / "story.yaml", out=place / "out", model=model, on_section=harm)
    assert not (place / "out/video.mp4").exists()
    fr.render(place / "story.yaml", out=place / "out", model=model)
    assert same(place / "out", whole / "out") and not [
        f for f in (place / "out").rglob("*.part*") if "-2" not in f.name
    ]


@pytest.mark.parametrize(("fail", "said"), [(nan, "NaN or infinity"), (lambda x: x * 0 - 2, "of one value")])
def test_frames_that_are_none_stop_the_render_and_keep_the_latents(place, whole, model, fail, said):
    shutil.rmtree(place / "out")
    broken = (lambda x: x * float("nan")) if fail is nan else fail
    with (
        failing_at(model.vae.decoder, range(99), broken),
        pytest.raises(fr.RenderError, match=rf"scene calm, section 0: .*{said}.*the latents are kept"),
    ):
        fr.render(place / "story.yaml", out=place / "out", model=model)
    assert len(sections(place / "out")) == 1 and not (place / "out/video.mp4").exists()


@pytest.mark.parametrize("how", ["moved", "removed", "another"])
def test_a_folder_that_goes_away_stops_the_render_at_the_next_step(place, whole, model, how):
    shutil.rmtree(place / "out")
    steps = []

    def step(section, number):
        steps.append((section.index, number))
        if steps[-1] == (1, 0):
            if how == "removed":
                shutil.rmtree(place / "out")
            else:
                (place / "out").rename(place / "away")
            if how == "another":
                (place / "out").mkdir()

    with pytest.raises(fr.RenderError, match="was moved or removed during the render"):
        fr.render(place / "story.yaml", out=place / "out", model=model, on_step=step)
    assert steps[-1] == (1, 0) and not list((place / "out").rglob("*"))
    if how != "removed":
        fr.render(place / "story.yaml", out=place / "away", model=model)
        assert same(place / "away", whole / "out")


def test_files_and_their_names_are_synced_before_the_next_is_begun(place, model, monkeypatch):
    """What a power cut leaves is what was synced: each file before it is renamed, each folder after."""
    told: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(opened):
        told.append(("sync", os.readlink(f"/proc/self/fd/{opened}")))
        fsync(opened)

    def renamed(old, new):
        told.append(("name", f"{old} {new}"))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    fr.render(place / "story.yaml", out=place / "new", model=model)
    named = {}
    for number, (what, path) in enumerate(told):
        if what == "name" and "part-again" not in path:
            old, new = path.split()
            assert told[number - 1] == ("sync", old) and told[number + 1] == ("sync", os.path.dirname(new))
            named[os.path.basename(new)] = True
    assert {"video.mp4", "contact.png", "curves.png", "report.json", "001.safetensors", MARK} <= set(named)
    for made in ("new", "new/shots", "new/shots/00"):
        assert ("sync", str((place / made).parent)) in told


# --- folders that somebody has worked on ------------------------------------------------------------------------------


NAMES = (
    "video.mp4 plan.json report.json story.yaml contact.png curves.png plan.json.part .lease shots/00/.lease "
    "video.part.mp4 video.part-again.mp4 video.whole.mp4 "
    f"{MARK} shots/00/000.safetensors shots/00/start.safetensors"
).split()


@pytest.mark.parametrize("kind", ["fifo", "link", "dangling", "loop", "folder"])
def test_what_is_no_file_neither_hangs_a_render_nor_is_followed(place, model, kind):
    for name in NAMES:
        out = shutil.copytree(place / "out", place / f"{kind} {name.replace('/', ' ')}")
        file = out / name
        file.unlink(missing_ok=True)
        (place / "precious").write_text("mine")
        if kind == "fifo":
            os.mkfifo(file)
        elif kind == "folder":
            file.mkdir()
        else:
            file.symlink_to({"link": place / "precious", "dangling": place / "nowhere", "loop": file}[kind])
        for act in (
            lambda out=out: fr.status(out),
            lambda out=out: fr.render(place / "story.yaml", out=out, model=model, crf=30),
        ):
            try:
                act()
            except fr.RenderError as error:
                assert str(out) in str(error)
        assert (place / "precious").read_text() == "mine" and not (place / "nowhere").exists(), name


def test_nothing_steers_a_terminal(place, model):
    evil = "\x1b[2J\x1b]0;x\x07"
    plan = json.loads((place / "out/plan.json").read_text())
    plan["title"], plan["scenes"][0]["scene"] = evil, evil
    (place / "out/plan.json").write_text(json.dumps(plan))
    mark = json.loads((place / "out" / MARK).read_text())
    mark["title"], mark["board"], mark["sections"] = evil, evil, {}
    (place / "out" / MARK).write_text(json.dumps(mark))
    (place / "out" / LEASE).write_text(json.dumps({"pid": evil, "host": evil, "since": 0, "on": ""}))
    shown = here("status", place / "out")
    assert shown.returncode == 0 and "\x1b" not in shown.stdout + shown.stderr and "x1b" in shown.stdout
    shown = here("render", place / "story.yaml", "--out", place / "out", "--dry-run")
    assert shown.returncode == 2 and "\x1b" not in shown.stdout + shown.stderr


def test_a_loading_answers_as_the_model_that_it_loads(tiny, model):
    loading = Loading(name=str(tiny), device="cpu")
    assert (loading.identity, loading.precision, loading.hardware) == (model.identity, model.precision, model.hardware)
    assert loading.family == model.family
    assert Loading(name=str(tiny)).precision in ("torch.float32", "torch.bfloat16")


def test_the_whole_film_plays(whole):
    assert len(list(read_frames(whole / "out/video.mp4"))) == 73


def test_a_folder_whose_board_was_moved_is_known_by_its_sections(place, whole):
    (place / "boards").mkdir()
    (place / "story.yaml").rename(place / "boards/story.yaml")
    (place / "boards/hero.png").write_bytes((place / "hero.png").read_bytes())
    assert all(why is None for _, why, _ in fr.preview(place / "boards/story.yaml", out=place / "out", device="cpu"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden here")
@pytest.mark.parametrize("name", ["video.mp4", "contact.png"])
def test_a_file_that_may_not_be_read_is_told_before_the_work(place, model, name):
    (place / "out" / name).chmod(0)
    with pytest.raises(fr.RenderError, match=rf"{name}: .*Permission denied"):
        fr.render(place / "story.yaml", out=place / "out", model=model, crf=40, on_section=lambda *_: pytest.fail())


def test_what_lies_where_the_shots_should_is_told_before_the_work(place, model):
    shutil.rmtree(place / "out/shots")
    (place / "out/shots").write_text("mine")
    with pytest.raises(fr.RenderError, match="shots"):
        fr.render(place / "story.yaml", out=place / "out", model=model, crf=40, on_section=lambda *_: pytest.fail())
    assert (place / "out/shots").read_text() == "mine"
