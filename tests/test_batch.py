"""Many storyboards: one film each whatever dies, every mistake of every file at once, nothing rendered twice."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from faults import here
from PIL import Image

import framepack_relax as fr
from framepack_relax.errors import BusyError, MemoryFullError
from framepack_relax.farm import Engine
from framepack_relax.farm.batch import Batch, run
from framepack_relax.farm.costs import costs
from framepack_relax.farm.engines import ENGINES
from framepack_relax.farm.executor import Models, Told, perform
from framepack_relax.farm.films import Film, ShotUnit, find_films
from framepack_relax.farm.local import Local
from framepack_relax.farm.records import write_manifest
from framepack_relax.rendering.events import Event
from framepack_relax.rendering.lease import Lease, look
from framepack_relax.rendering.mark import CANCELLED

ONE, TWO = fr.Workers(workers=1), fr.Workers(workers=2)
COMMAND = (sys.executable, "-m", "framepack_relax", "batch")


def write_board(
    file: Path, *, model: Path | str = "fake", shots: int = 2, seconds: float = 1.3, more: str = ""
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    scenes = [f"  - {{id: s{i}, prompt: scene {i}, seconds: 1.3, transition: cut}}" for i in range(shots)]
    file.write_text("\n".join([f"title: {file.stem}", f"model: {model}", "steps: 2", more, "scenes:", *scenes]))
    return file


@dataclass
class Inline:
    """An executor of this process: one unit after another."""

    workers: int = 1
    device: str = "cpu"

    def run(self, units):
        models = Models()
        while not units.over:
            unit = units.take("here")
            if unit is None:
                yield None
                continue
            told: list[Event] = []
            perform(unit, models, told.append)
            yield from (Told("here", unit, event) for event in told)


def films_of(folder: Path, out: Path, **more) -> list[Film]:
    return find_films([folder], out, loading={"device": "cpu"}, **more)


def through(batch: Batch, executor=None) -> list[tuple[str, str, str]]:
    """(unit, kind, cause) of all that is told, but for steps."""
    heard = [told for told in run(batch, executor or Inline()) if told and told.event.step is None]
    return [(told.unit.name, told.event.kind, told.event.cause) for told in heard]


def film_of(folder: Path) -> list[Path]:
    """Its sections."""
    return list(folder.glob("shots/*/0*.safetensors"))


# --- which films ------------------------------------------------------------------------------------------------------


def test_names_follow_files_folders_and_patterns_and_do_not_hang_on_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("boards/a.yaml", "boards/night/b.yml", "boards/night/deep/c.yaml", "boards/.hidden/d.yaml"):
        write_board(Path(name))
    (tmp_path / "boards/warm.yaml").write_text("levels: []\n")
    (tmp_path / "boards/loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(tmp_path / "boards/pipe.yaml")
    notes: list[str] = []
    given = {"loading": {"device": "cpu"}, "note": notes.append}
    names = lambda *places, **more: [film.name for film in find_films(places, Path("out"), **given, **more)]  # noqa: E731
    assert names("boards") == ["a", "night/b", "night/deep/c"] and len(notes) == 1
    assert all(f"boards/{name}.yaml" in notes[0] for name in ("warm", "loop", "pipe")), notes
    assert names("boards/night/b.yml", "boards/a.yaml") == ["b", "a"]
    assert names("boards/*/*.y*ml", "boards/night/**/c.yaml") == ["night/b", "deep/c"]
    assert names("boards/a.yaml", "boards/a.yaml", "boards") == ["a", "night/b", "night/deep/c"]
    films = find_films(["boards/a.yaml"], Path("out"), seeds=2, **given)
    assert [film.out.as_posix() for film in films] == ["out/a/seed-31337", "out/a/seed-31338"]
    assert len({film.session().keys[0].key for film in films}) == 2
    fr.batch("boards/a.yaml", out="boards/out", workers=ONE)
    assert names("boards") == ["a", "night/b", "night/deep/c"], "what renders leave is no board"


def test_every_mistake_of_every_file_is_told_at_once_and_nothing_is_begun(tmp_path):
    write_board(tmp_path / "good.yaml")
    write_board(tmp_path / "field.yaml").write_text("title: x\nscenes:\n  - {id: a, prompt: b, secnds: 1}\n")
    write_board(tmp_path / "picture.yaml", more="image: gone.png")
    write_board(tmp_path / "model.yaml", model="pupet")
    write_board(tmp_path / "twice/good.yaml")
    write_board(tmp_path / "logs/mine.yaml")
    write_board(tmp_path / "field/inner.yaml")
    write_board(tmp_path / "inner/shots/deep.yaml")
    write_board(tmp_path / "inner.yaml")
    taken = tmp_path / "out/good"
    taken.mkdir(parents=True)
    (taken / "mine.txt").touch()
    with pytest.raises(fr.StoryboardError) as raised:
        fr.batch(
            [tmp_path, tmp_path / "twice/good.yaml", tmp_path / "none/*.yaml"],
            out=tmp_path / "out",
            workers=ONE,
        )
    told = {Path(problem.file).name for problem in raised.value.problems}
    assert told == {"field.yaml", "picture.yaml", "model.yaml", "good.yaml", "mine.yaml", "deep.yaml", "*.yaml"}
    text = str(raised.value)
    for fact in (
        "secnds",
        "gone.png",
        "pupet",
        "holds files that no render wrote",
        f"give the folder {tmp_path}",
        "no sto",
    ):
        assert fact in text, fact
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["good", "mine.txt"]


@pytest.mark.parametrize("given", [{"workers": 0}, {"gpus": 1}, {"workers": 1, "gpus": 1}, {"threads": -1}])
def test_workers_that_cannot_be_are_told(tmp_path, given):
    board = write_board(tmp_path / "a.yaml")
    with pytest.raises(fr.RelaxError, match=[*given][-1]):
        fr.batch(board, out=tmp_path / "out", workers=fr.Workers(**given))
    for seeds in (0, 10**9):
        with pytest.raises(fr.RelaxError, match="seeds"):
            fr.batch(board, out=tmp_path / "out", seeds=seeds)
    assert not (tmp_path / "out").exists()


# --- what is next -----------------------------------------------------------------------------------------------------


def test_a_batch_renders_the_films_that_render_does_bit_for_bit(tiny, tmp_path):
    image = tmp_path / "boards/hero.png"
    image.parent.mkdir()
    Image.radial_gradient("L").resize((32, 32)).convert("RGB").save(image)
    write_board(tmp_path / "boards/fake.yaml", more="image: hero.png")
    write_board(tmp_path / "boards/tiny.yaml", model=tiny, shots=3, more="image: hero.png")
    films = fr.batch(tmp_path / "boards", out=tmp_path / "out", workers=TWO)
    assert [(film.film.name, film.state) for film in films] == [("fake", "done"), ("tiny", "done")]
    for name in ("fake", "tiny"):
        alone = fr.render(tmp_path / f"boards/{name}.yaml", out=tmp_path / "alone" / name)
        assert (tmp_path / f"out/{name}/video.mp4").read_bytes() == alone.path.read_bytes(), name
    rows = json.loads((tmp_path / "out/manifest.json").read_text())["films"]
    assert [row["path"] for row in rows] == ["fake/video.mp4", "tiny/video.mp4"] and all(row["sha256"] for row in rows)
    for shot in range(3):
        assert " ended" in (tmp_path / f"out/logs/tiny-shot-{shot}.log").read_text()
    again = fr.batch(
        tmp_path / "boards",
        out=tmp_path / "out",
        workers=TWO,
        on_event=lambda told, work: pytest.fail(),
    )
    assert [film.state for film in again] == ["done", "done"]
    steps: list[int] = []
    count = lambda told, work: steps.append(1) if told.event.step is not None else None  # noqa: E731
    fr.batch(tmp_path / "boards/fake.yaml", out=tmp_path / "out", workers=ONE, fresh=True, on_event=count)
    assert len(steps) == 2 * len(film_of(tmp_path / "out/fake")), "fresh keeps nothing of any shot"


def test_priorities_come_first_and_then_the_order_given(tmp_path):
    for name in "abc":
        write_board(tmp_path / f"boards/{name}.yaml")
    films = films_of(tmp_path / "boards", tmp_path / "out", priorities={"c": 5, "b*": -1})
    begun = [name for name, kind, _ in through(Batch(films)) if kind == "begun"]
    assert begun == [f"{name}, shot {shot}" for name in "cab" for shot in (0, 1)]


@dataclass(frozen=True, kw_only=True)
class Faulty(ShotUnit):
    """A unit that is stopped by `fault` as long as its count in a file lasts; -9 is a signal."""

    fault: str
    left: Path

    def run(self, models, tell):
        count = int(self.left.read_text())
        self.left.write_text(str(count - 1))
        if count > 0:
            if self.fault == "death":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"busy": BusyError, "memory": MemoryFullError, "crash": ZeroDivisionError}[self.fault]("as asked")
        super().run(models, tell)


@dataclass(frozen=True, kw_only=True)
class Unlucky(Film):
    fault: str
    left_file: Path

    def units(self):
        return [Faulty(film=u.film, job=u.job, fault=self.fault, left=self.left_file) for u in super().units()]


def unlucky(film: Film, fault: str, times: int, place: Path) -> Unlucky:
    file = place / "left"
    file.write_text(str(times))
    return Unlucky(**vars(film), fault=fault, left_file=file)


@pytest.mark.parametrize(
    "fault, times, state, retries",
    [("crash", 2, "done", 2), ("crash", 3, "failed", 2), ("memory", 1, "failed", 0), ("busy", 3, "done", 0)],
)
def test_a_film_is_tried_again_where_that_may_help_and_fails_alone(tmp_path, fault, times, state, retries):
    clock = iter(range(0, 10_000, 3))
    for name in "ab":
        write_board(tmp_path / f"boards/{name}.yaml", shots=1)
    bad, good = films_of(tmp_path / "boards", tmp_path / "out")
    batch = Batch([unlucky(bad, fault, times, tmp_path), good], clock=lambda: next(clock))
    told = through(batch)
    assert (batch.progress["a"].state, batch.progress["a"].retries) == (state, retries)
    assert batch.progress["b"].state == "done" and (tmp_path / "out/b/video.mp4").exists()
    assert [cause for name, kind, cause in told if kind == "ended" and name.startswith("a")][:times] == [fault] * times
    assert (batch.progress["a"].why == "") == (state == "done")


def test_with_fail_fast_all_others_are_stopped(tmp_path):
    for name in "abc":
        write_board(tmp_path / f"boards/{name}.yaml", shots=1)
    first, *others = films_of(tmp_path / "boards", tmp_path / "out")
    batch = Batch([unlucky(first, "memory", 1, tmp_path), *others], fail_fast=True)
    through(batch)
    assert [progress.state for progress in batch.progress.values()] == ["failed", "waiting", "waiting"]


def test_a_film_that_is_called_off_is_left_and_the_others_are_not(tmp_path):
    for name in "ab":
        write_board(tmp_path / f"boards/{name}.yaml")
    batch = Batch(films_of(tmp_path / "boards", tmp_path / "out"))
    for told in run(batch, Inline()):
        if told and told.unit.name == "a, shot 0" and told.event.kind == "shot":
            fr.cancel(tmp_path / "out/a")
    assert [progress.state for progress in batch.progress.values()] == ["cancelled", "done"]
    assert [entry.state for entry in fr.ledger(tmp_path / "out")] == ["cancelled", "done"]
    assert (tmp_path / "out/a" / CANCELLED).exists() and fr.status(tmp_path / "out/a").done == 2
    assert {film.state for film in fr.batch(tmp_path / "boards", out=tmp_path / "out", workers=ONE)} == {"done"}


def test_a_film_that_waits_can_be_called_off_too(tmp_path):
    for name in "ab":
        write_board(tmp_path / f"boards/{name}.yaml")

    def hear(told, work):
        if told.event.kind == "shot" and not (tmp_path / "out/b").exists():
            fr.cancel(tmp_path / "out/b")
            with pytest.raises(fr.RenderError, match="not the folder of a film"):
                fr.cancel(tmp_path / "out/c")

    films = fr.batch(tmp_path / "boards", out=tmp_path / "out", workers=ONE, on_event=hear)
    assert [film.state for film in films] == ["done", "cancelled"] and not (tmp_path / "out/c").exists()


def test_a_shot_on_which_another_is_at_work_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr("framepack_relax.farm.batch.WAIT", 0.1)
    write_board(tmp_path / "boards/a.yaml", shots=2)
    batch, held = Batch(films_of(tmp_path / "boards", tmp_path / "out")), []
    for told in run(batch, Inline()):
        if told and told.unit.name == "a, shot 0" and told.event.kind == "shot":
            (tmp_path / "out/a/shots/01").mkdir()
            held.append(Lease(tmp_path / "out/a/shots/01").__enter__())
        elif told and told.event.cause == "busy" and held:
            held.pop().__exit__()
    assert batch.progress["a"].state == "done" and not batch.progress["a"].retries


def test_boards_that_come_into_a_watched_folder_are_taken_in(tmp_path):
    (tmp_path / "in").mkdir()
    write_board(tmp_path / "first.yaml", shots=1)
    done: list[str] = []

    class Enough(Exception):
        pass

    def hear(told, work):
        if told.event.kind == "film":
            done.append(told.unit.film)
            late = write_board(tmp_path / f"in/late{len(done)}.yaml", shots=1)
            os.utime(late, (1, len(done)))
            (tmp_path / "in/broken.yaml").write_text("scenes: 7\n")
            os.utime(tmp_path / "in/broken.yaml", (1, 1))
            if len(done) == 3:
                raise Enough

    notes: list[str] = []
    given = {"out": tmp_path / "out", "workers": ONE, "on_event": hear, "on_note": notes.append}
    with pytest.raises(Enough):
        fr.batch(tmp_path / "first.yaml", watch=tmp_path / "in", **given)
    assert done == ["first", "late1", "late2"] and len(notes) == 1 and "broken.yaml" in notes[0]


def test_a_board_that_changes_while_it_is_at_work_is_rendered_again(tmp_path):
    board = write_board(tmp_path / "boards/a.yaml")
    batch, changed = Batch(films_of(tmp_path / "boards", tmp_path / "out")), []
    for told in run(batch, Inline()):
        if told and told.event.kind == "section" and not changed:
            board.write_text(board.read_text().replace("scene 1", "another"))
            changed += films_of(tmp_path / "boards", tmp_path / "out")
            batch.add(changed)
    assert batch.progress["a"].state == "done"
    film = fr.render(board, out=tmp_path / "out/a")
    assert film.plan.sections[2].prompt == "another"
    assert all(section["reused"] for section in film.report["sections"]), "it was there already"


def test_a_manifest_that_cannot_be_written_ends_no_batch(tmp_path):
    notes, board = list[str](), write_board(tmp_path / "a.yaml", shots=1)

    def hear(told, work):
        if told.event.kind == "film":
            (tmp_path / "out/manifest.json").unlink()
            (tmp_path / "out/manifest.json/in-the-way").mkdir(parents=True)

    films = fr.batch(board, out=tmp_path / "out", workers=ONE, on_event=hear, on_note=notes.append)
    assert [film.state for film in films] == ["done"] and len(notes) == 1 and "manifest.json" in notes[0]


# --- workers that die -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times, state", [(1, "done"), (9, "failed")])
def test_a_worker_that_is_killed_is_started_anew_and_a_poison_board_fails_alone(tmp_path, monkeypatch, times, state):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    for name in "ab":
        write_board(tmp_path / f"boards/{name}.yaml", shots=1)
    bad, good = films_of(tmp_path / "boards", tmp_path / "out")
    bad = replace(bad, priority=1.0)
    (tmp_path / "logs").mkdir()
    batch = Batch([unlucky(bad, "death", times, tmp_path), good])
    told = through(batch, Local(logs=tmp_path / "logs"))
    assert (batch.progress["a"].state, batch.progress["b"].state) == (state, "done")
    assert Counter(cause for _, kind, cause in told if kind == "ended")["death"] == min(times, 3)
    assert ("SIGKILL" in batch.progress["a"].why) == (state == "failed")


def test_the_command_says_by_its_exit_code_what_became_of_them(tmp_path):
    write_board(tmp_path / "a.yaml", shots=1)
    out = ["--out", str(tmp_path / "out"), "--workers", "1"]
    run_it = lambda *words: here("batch", *words)  # noqa: E731
    done = run_it(str(tmp_path / "a.yaml"), *out, "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"begun", "step", "section", "shot", "film", "ended"} <= {line["kind"] for line in lines}
    assert all((line["film"], line["shot"], line["worker"]) == ("a", 0, "worker 0") for line in lines)
    again = run_it(str(tmp_path / "a.yaml"), *out)
    assert again.returncode == 0 and "1 of 1 films done" in again.stdout
    (tmp_path / "a.yaml").write_text("title: x\n")
    bad = run_it(str(tmp_path / "a.yaml"), *out)
    assert bad.returncode == 2 and "a.yaml" in bad.stderr and "Traceback" not in bad.stderr
    none = run_it(*out)
    assert none.returncode == 2 and "--watch" in none.stderr
    status = run_it("--status", str(tmp_path / "out"), "--json")
    assert [row["state"] for row in json.loads(status.stdout)] == ["done"]
    board = str(write_board(tmp_path / "b.yaml", shots=1))
    (cost,) = json.loads(run_it(board, *out, "--dry-run", "--json").stdout)
    assert (cost["film"], cost["shot"], cost["sections"]) == ("b", 0, 2)
    for words in (("--emit", "commands", "--json"), ("--dry-run", "--fresh")):
        told = run_it(board, *out, *words)
        assert told.returncode == 2 and words[-1] in told.stderr, told.stderr


@pytest.mark.slow
def test_a_batch_that_is_terminated_leaves_with_4_and_the_same_command_ends_it(tiny, tmp_path):
    board = write_board(tmp_path / "a.yaml", model=tiny, shots=4)
    words = [*COMMAND, str(board), "--out", str(tmp_path / "out"), "--workers", "2"]
    hero = tmp_path / "hero.png"
    Image.new("RGB", (32, 32), "red").save(hero)
    board.write_text(board.read_text().replace("steps: 2", "steps: 12\nimage: hero.png"))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "section 1 of 4" in process.stdout.readline()
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 4 and "the same command goes on from there" in said and "Traceback" not in said
    leases = [look(file) for file in (tmp_path / "out").rglob(".lease")]
    assert all(lease.left for lease in leases if lease), "workers leave, and hold nothing"
    kept = fr.status(tmp_path / "out/a").done
    assert 1 <= kept < 4
    done = subprocess.run([*words, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alone = fr.render(board, out=tmp_path / "alone")
    assert (tmp_path / "out/a/video.mp4").read_bytes() == alone.path.read_bytes()


@pytest.mark.slow
def test_two_batches_of_the_same_boards_share_the_work_and_double_nothing(tmp_path):
    for number in range(6):
        write_board(tmp_path / f"boards/{number}.yaml", shots=2)
    words = [*COMMAND, str(tmp_path / "boards"), "--out", str(tmp_path / "out"), "--workers", "1", "--json"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    lines = [json.loads(line) for out, _ in said for line in out.splitlines()]
    steps = Counter((line["film"], line["section"], line["step"]) for line in lines if line["kind"] == "step")
    assert set(steps.values()) == {1} and len(steps) == 6 * 4 * 2, (steps, said)
    assert len(list((tmp_path / "out").glob("*/video.mp4"))) == 6


def test_what_a_batch_will_take_is_counted_before_it_is_begun(tiny, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "hero.png")
    more = "image: hero.png\nguidance: {text: 3}"
    board = write_board(tmp_path / "a.yaml", model=tiny, shots=2, more=more)
    planned = list(costs(fr.batch_plan(board, out=tmp_path / "out", workers=fr.Workers(device="cpu"))))
    assert [(cost.shot, cost.sections) for cost in planned] == [(0, 1), (1, 1)] and not (tmp_path / "out").exists()
    film = fr.render(board, out=tmp_path / "out/a")
    counted = sum(film.report["totals"]["forwards"].values())
    assert [sum(bound) for bound in zip(*(cost.passes for cost in planned), strict=True)] == [counted, counted]
    assert all(cost.memory[0] <= cost.memory[1] and min(cost.seconds) > 0 for cost in planned)
    assert list(costs(fr.batch_plan(board, out=tmp_path / "out", workers=fr.Workers(device="cpu")))) == []


def test_a_pass_of_framepack_takes_the_operations_that_were_counted(model, monkeypatch):
    """498 TFLOP at 18,357 tokens, as counted on meta tensors (40 single and 20 double blocks of 24 heads of 128)."""
    whole = {"num_layers": 20, "num_single_layers": 40, "num_attention_heads": 24, "attention_head_dim": 128}
    monkeypatch.setattr(type(model.transformer), "config", property(lambda transformer: SimpleNamespace(**whole)))
    monkeypatch.setattr(type(model), "tokens", lambda *sizes: 18_357)
    assert model.pass_flops(None, 9, (640, 608)) == pytest.approx(497.9e12, rel=0.001)


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_the_ledger_says_how_far_films_are_and_why_they_failed(tmp_path):
    for name in ("a", "b", "c"):
        write_board(tmp_path / f"boards/deep/{name}.yaml")
    out = tmp_path / "out"
    first, bad, last = films_of(tmp_path / "boards", out)
    batch = Batch([first, unlucky(bad, "memory", 9, tmp_path), last])
    through(batch)
    write_manifest(out, batch.progress.values())
    (out / "deep/c/framepack-relax.json").write_text("{}")
    rows = {entry.name: (entry.state, entry.done, entry.sections, entry.why) for entry in fr.ledger(out)}
    assert rows == {
        "deep/a": ("done", 4, 4, ""),
        "deep/b": ("failed", 0, 4, "as asked"),
        "deep/c": ("damaged", 0, 0, ""),
    }
    (out / "deep/a/video.mp4").unlink()
    (out / "deep/a/shots/00/001.safetensors").unlink()
    with Lease(out / "deep/a"):
        (entry,) = (entry for entry in fr.ledger(out) if entry.name == "deep/a")
        assert (entry.state, entry.done) == ("at work", 3) and f"process {os.getpid()}" in entry.who
    with pytest.raises(fr.RenderError, match="is no folder"):
        fr.ledger(tmp_path / "none")


def test_the_ledger_needs_no_torch(tmp_path):
    fr.batch(write_board(tmp_path / "a.yaml", shots=1), out=tmp_path / "out", workers=ONE)
    code = "import sys, framepack_relax as fr; fr.ledger(sys.argv[1]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=True)


def test_every_engine_that_can_be_chosen_is_made_somehow():
    assert {*ENGINES} == {*get_args(Engine)}
