"""A render in jobs: shots sampled by other processes make the same film, and nobody does another's work."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from faults import failing, nan, same
from PIL import Image

import framepack_relax as fr
from framepack_relax.errors import CancelledError
from framepack_relax.families.loader import Loading
from framepack_relax.rendering.events import Event
from framepack_relax.rendering.jobs import ShotJob, make_jobs, render_shot
from framepack_relax.rendering.lease import LEASE, Lease, look
from framepack_relax.rendering.loop import assemble, render, render_part
from framepack_relax.rendering.mark import call_off, read_mark
from framepack_relax.rendering.session import USUAL, settle
from framepack_relax.video.reader import read_frames
from framepack_relax.video.writer import Mp4Writer

FILM = """
  - {id: calm, prompt: a red figure stands still, seconds: 2.4}
  - {id: flip, prompt: a red figure does a backflip, seconds: 1.2, intensity: 0.9}
  - {id: next, prompt: a blue figure walks, seconds: 2.4, transition: cut, intensity: 0.5}
"""
WORK = """
import pickle, sys
from pathlib import Path
from framepack_relax.rendering.jobs import render_shot
print("ready", flush=True)
for line in sys.stdin:
    job = pickle.loads(Path(line.strip()).read_bytes())
    kinds = []
    result = render_shot(job, job.loading.load(), lambda event: kinds.append(event.kind))
    print(*kinds, *(row["reused"] for row in result), flush=True)
"""


def story_of(place: Path, model: Path | str) -> Path:
    place.mkdir(exist_ok=True)
    Image.radial_gradient("L").resize((32, 32)).convert("RGB").save(place / "hero.png")
    file = place / "story.yaml"
    file.write_text(f"model: {model}\nimage: hero.png\nsteps: 2\nscenes:{FILM}")
    return file


def jobs_of(file: Path, out: Path, loading: Loading) -> list[ShotJob]:
    session = settle(fr.read(file), out, loading, USUAL)
    return make_jobs(session, loading, session.verdicts(session.folder(print)))


@pytest.fixture(scope="module")
def workers():
    """Two processes that take the files of jobs by lines on their input."""
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", WORK], **given) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.communicate()
    yield processes
    for process in processes:
        process.communicate()


def work(workers, jobs, place: Path) -> list[list[str]]:
    """What each of two processes says of its job, which both begin at once."""
    for job in jobs:
        (place / f"{job.shot}.job").write_bytes(pickle.dumps(job))
    for job, process in zip(jobs, workers, strict=True):
        print(place / f"{job.shot}.job", file=process.stdin, flush=True)
    lines = [process.stdout.readline().split() for process in workers]
    assert all(lines), [process.communicate() for process in workers]
    return lines


@pytest.fixture(params=["fake", "framepack"])
def loading(request):
    """A model that nobody has loaded."""
    name = "fake" if request.param == "fake" else str(request.getfixturevalue("tiny"))
    return Loading(name=name, device="cpu")


def test_two_processes_make_the_film_of_one_bit_for_bit(loading, workers, tmp_path):
    file = story_of(tmp_path, loading.name)
    jobs = jobs_of(file, tmp_path / "two", loading)
    assert [job.wanted for job in jobs] == [shot.sections for shot in jobs[0].session.plan.shots]
    for job, said in zip(jobs, work(workers, jobs, tmp_path), strict=True):
        count = len(job.wanted)
        assert said == [*(["step"] * 2 + ["section"]) * count, "shot", *["False"] * count]
    assert not list((tmp_path / "two").rglob(LEASE)) and not (tmp_path / "two/video.mp4").exists()
    model = loading.load()
    film = assemble(jobs[0].session, model)
    one = fr.render(file, out=tmp_path / "one", model=model)
    assert film.path.read_bytes() == one.path.read_bytes() and same(film.folder, one.folder)
    for name in ("contact.png", "curves.png", "plan.json", "story.yaml"):
        assert (film.folder / name).read_bytes() == (one.folder / name).read_bytes(), name
    assert read_mark(film.folder).contents.keys() == read_mark(one.folder).contents.keys()
    assert all(row["reused"] for row in film.report["sections"]) and film.report["totals"]["frames"] == one.plan.frames
    again = fr.render(file, out=tmp_path / "two", model=model)
    assert again.path.read_bytes() == one.path.read_bytes() and fr.status(film.folder).film == film.path


def test_two_processes_may_begin_one_film_at_once_and_lose_no_entry_of_its_mark(workers, tmp_path):
    loading = Loading(name="fake", device="cpu")
    file = story_of(tmp_path, "fake")
    for number in range(20):
        out = tmp_path / str(number)
        jobs = jobs_of(file, out, loading)
        work(workers, jobs, tmp_path)
        known = read_mark(out).contents
        assert {"plan.json", "story.yaml"} < known.keys() and all((out / name).exists() for name in known)
        assert len(list(out.glob("shots/*/0*.safetensors"))) == sum(len(job.wanted) for job in jobs)
        assert not list(out.rglob("*-2*")), "nothing of one is a stranger's to the other"


def test_a_shot_is_not_rendered_twice_at_once_while_others_are(tmp_path):
    loading = Loading(name="fake", device="cpu")
    jobs = jobs_of(story_of(tmp_path, "fake"), tmp_path / "out", loading)
    model, told = loading.load(), []

    def meanwhile(event):
        if event.kind == "step" and not told:
            told.append(fr.status(tmp_path / "out").at_work)
            with pytest.raises(
                fr.RenderError, match=rf"shots/00: another render is at work .*process {os.getpid()} on"
            ):
                render_shot(jobs[0], model)
            assert not any(row["reused"] for row in render_shot(jobs[1], model))

    result = render_shot(jobs[0], model, meanwhile)
    assert f"process {os.getpid()} on" in told[0] and fr.status(tmp_path / "out").at_work is None
    assert [row["reused"] for row in result] == [False] * len(jobs[0].wanted)
    assert all(row["reused"] for row in render_shot(jobs[0], model)), "what is finished is kept"


def test_what_is_missing_is_named_and_a_film_is_not_assembled_without_it(tmp_path):
    loading = Loading(name="fake", device="cpu")
    jobs = jobs_of(story_of(tmp_path, "fake"), tmp_path / "out", loading)
    model = loading.load()
    render_shot(jobs[0], model)
    with pytest.raises(fr.RenderError, match=r"\(scene next\): it is not there yet; render its shot first"):
        assemble(jobs[0].session, model)
    render_shot(jobs[1], model)
    (tmp_path / "out/shots/01/start.safetensors").unlink()
    with pytest.raises(fr.RenderError, match="the start latent of shot 1 is gone; render it again"):
        assemble(jobs[0].session, model)
    render_shot(jobs[1], model)
    assert assemble(jobs[0].session, model).path.exists()


def test_a_worker_with_another_model_or_dtype_is_refused(tiny, tmp_path):
    jobs = jobs_of(story_of(tmp_path, tiny), tmp_path / "out", Loading(name=str(tiny), device="cpu"))
    with pytest.raises(fr.RenderError, match="its weights or dtype are not those that the render began with"):
        render_shot(jobs[0], replace(jobs[0].loading, dtype="bfloat16").load())
    with pytest.raises(fr.RenderError, match="its weights or dtype are not those that the render began with"):
        render_shot(jobs[0], Loading(name="fake", device="cpu").load())


def test_whoever_renders_the_last_shot_makes_the_film_in_any_order(tmp_path):
    loading = Loading(name="fake", device="cpu")
    file, model = story_of(tmp_path, "fake"), loading.load()
    jobs = jobs_of(file, tmp_path / "back", loading)
    assert pickle.loads(pickle.dumps(jobs[1])).session.keys == jobs[1].session.keys
    assert render_part(jobs[1], model) is None and not (tmp_path / "back/video.mp4").exists()
    film, whole = render_part(jobs[0], model), fr.render(file, out=tmp_path / "whole", model=model)
    assert film.path.read_bytes() == whole.path.read_bytes()
    again = render_part(jobs[1], model)
    assert again.path == film.path and all(row["reused"] for row in again.report["sections"])


def test_the_film_grows_while_its_last_shot_is_sampled(tmp_path):
    loading, sizes = Loading(name="fake", device="cpu"), [0]
    jobs, model = jobs_of(story_of(tmp_path, "fake"), tmp_path / "out", loading), loading.load()

    def look_at(event):
        part = tmp_path / "out/video.part.mp4"
        if event.kind == "step" and part.exists():
            sizes.append(len(list(read_frames(part))))

    assert render_part(jobs[1], model, look_at) is None and sizes == [0]
    film = render_part(jobs[0], model, look_at)
    assert 0 < sizes[-1] < film.plan.frames and sizes == sorted(sizes)


def test_a_film_that_is_called_off_stops_within_a_step_and_keeps_what_is_finished(tmp_path):
    file, model = story_of(tmp_path, "fake"), fr.load("fake")

    def hear(event):
        if event.kind == "section":
            call_off(tmp_path / "out")

    with pytest.raises(CancelledError, match="was called off; what is finished is kept"):
        render(fr.read(file), out=tmp_path / "out", model=model, on_event=hear)
    assert fr.status(tmp_path / "out").done == 1
    jobs = jobs_of(file, tmp_path / "out", Loading(name="fake", device="cpu"))
    with pytest.raises(CancelledError):
        render_shot(jobs[1], model)
    film = fr.render(file, out=tmp_path / "out", model=model)
    assert film.report["sections"][0]["reused"], "who renders it again wants it"


def test_events_are_json_and_tell_a_render_in_order(tmp_path):
    file, events = story_of(tmp_path, "fake"), []
    film = render(fr.read(file), out=tmp_path / "out", on_event=events.append)
    lines = [json.loads(json.dumps(event.to_json())) for event in events]
    kinds = list(dict.fromkeys(line["kind"] for line in lines))
    assert kinds == ["plan", "verdicts", "step", "section", "shot", "film"] and lines[-1]["text"] == str(film.path)
    assert lines[0]["plan"] == json.loads((tmp_path / "out/plan.json").read_text())
    first = [line for line in lines if line.get("section") == 0]
    assert first == [
        *({"kind": "step", "shot": 0, "section": 0, "step": step} for step in range(2)),
        {"kind": "section", "shot": 0, "section": 0, "seed": film.plan.sections[0].seed},
    ]
    events.clear()
    render(fr.read(file), out=tmp_path / "out", on_event=events.append)
    assert [event.kind for event in events] == ["plan", "verdicts", "film"]


def test_an_error_is_told_before_it_is_raised(tiny, model, tmp_path):
    file, events = story_of(tmp_path, tiny), []
    with failing(model.transformer, range(1), nan), pytest.raises(fr.RenderError) as raised:
        render(fr.read(file), out=tmp_path / "out", model=model, on_event=events.append)
    assert events[-1] == Event(kind="error", text=str(raised.value))


# --- leases -----------------------------------------------------------------------------------------------------------


HOLD = """
import sys
from pathlib import Path
from framepack_relax.rendering.lease import Lease
with Lease(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lease of a folder until its input ends."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_lease_is_of_one_process_until_it_gives_it_back(holder, tmp_path):
    with pytest.raises(fr.RenderError, match=rf"{tmp_path}: .*process {holder.pid} on .*, since 20.*; wait for it"):
        Lease(tmp_path).__enter__()
    holder.stdin.close()
    with Lease(tmp_path, patience=60) as mine:
        assert mine.is_held() and not look(tmp_path / LEASE).left
    assert not (tmp_path / LEASE).exists()


def test_a_lease_whose_process_was_killed_counts_no_more_at_once(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert look(tmp_path / LEASE).left, "also where nobody has asked yet how it ended"
    with Lease(tmp_path) as mine:
        assert mine.is_held()


@pytest.mark.parametrize("text", [json.dumps({"pid": 1, "host": "far", "on": "far 1", "since": 0}), "", "[" * 10_000])
def test_a_lease_of_another_machine_counts_until_nobody_touches_it(tmp_path, text):
    file = tmp_path / LEASE
    file.write_text(text)
    assert not look(file).left
    os.utime(file, (time.time() - 61,) * 2)
    assert look(file).left
    with Lease(tmp_path) as mine:
        assert mine.is_held() and look(file).here


def test_an_owner_notices_that_its_lease_was_taken_over_and_leaves_the_new_one(tmp_path):
    with Lease(tmp_path) as mine:
        os.utime(tmp_path / LEASE, (0, 0))  # as if it had slept
        with Lease(tmp_path) as other:
            assert other.is_held() and not mine.is_held()
        assert not mine.is_held()
        (tmp_path / LEASE).write_text("another's")
    assert (tmp_path / LEASE).read_text() == "another's"


def test_a_lease_that_is_given_back_where_its_folder_went_counts_no_more(tmp_path):
    place = tmp_path / "a"
    place.mkdir()
    with Lease(place):
        place.rename(tmp_path / "b")
    with Lease(tmp_path / "b") as mine:
        assert mine.is_held()


def test_many_who_want_one_lease_get_it_one_after_the_other(tmp_path):
    """Each writes what it alone may: nobody is in between."""
    code = (
        "import sys; from pathlib import Path; from framepack_relax.rendering.lease import Lease\n"
        "place = Path(sys.argv[1])\n"
        "for _ in range(10):\n"
        "    with Lease(place, patience=60):\n"
        "        count = int((place / 'count').read_text()); (place / 'count').write_text(str(count + 1))\n"
    )
    (tmp_path / "count").write_text("0")
    (tmp_path / LEASE).write_text("left behind")
    os.utime(tmp_path / LEASE, (0, 0))
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0] * 3
    assert (tmp_path / "count").read_text() == "30"


# --- one model, several films -----------------------------------------------------------------------------------------


def test_a_preset_may_change_between_films_of_one_model(tiny, tmp_path):
    model, made = fr.load(str(tiny), device="cpu", memory="full"), {}
    file = story_of(tmp_path, tiny)
    for preset in ("full", "offload", "full", "tiled"):
        model.memory = preset
        out = tmp_path / f"{len(made)} {preset}"
        made[out] = fr.render(file, out=out, model=model)
        assert made[out].report["memory"] == preset == model.preset
        assert model.streams == (preset == "offload") and made[out].report["totals"]["peak_bytes"] > 0
    first, *others = made
    assert all(same(other, first) for other in others)


def test_a_section_is_written_while_the_next_is_sampled(tmp_path, monkeypatch):
    sampled, waited = threading.Event(), []
    write = Mp4Writer.write

    def slow(writer, frames):
        waited.append(sampled.wait(30))
        write(writer, frames)

    monkeypatch.setattr(Mp4Writer, "write", slow)
    board = [fr.Scene(id=name, prompt=name, seconds=1) for name in "ab"]

    def stepped(section, step):
        if section.index == 1:
            sampled.set()

    fr.render(board, model="fake", out=tmp_path / "out", on_step=stepped)
    assert waited[0]
