"""What a batch costs and survives: films under random kills, scaling, planning, the ledger; a table and a JSON file.

python scripts/farm.py                  # all, into scripts/measured/farm.json; about 20 minutes on two cores
python scripts/farm.py --quick          # small numbers, nothing written: whether it works
python scripts/farm.py --only scaling --seconds 30

The scaling is that of the scheduling alone: its sections sleep, so that two cores stand for many GPUs. Start-up is
excluded and told. Processor time of a section is that of this process and all that it has begun, workers and Ray's
daemons, beyond what these take when nothing is to be done; that is told beside it, a second.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import psutil
from nap import Nap

import framepack_relax as fr
from framepack_relax.farm.batch import Batch, run
from framepack_relax.farm.executor import Executor
from framepack_relax.farm.films import find_films
from framepack_relax.rendering.mark import FILM, MARK, REPORT, SECTION_FILE

MEASURED = Path(__file__).parent / "measured/farm.json"
FULL = {"films": 200, "local": (1, 8, 64), "ray": (4, 16), "boards": 1000, "folders": 10_000}
QUICK = {"films": 12, "local": (1, 4), "ray": (2,), "boards": 50, "folders": 200}
WORKERS = {"local": "framepack_relax.farm.local", "ray": "ray::Actor"}  # in the command line of a worker
REST = 20.0  # seconds in which nothing is to be done
EVERY = 8.0  # seconds, on average, from one kill to the next
Row = dict[str, Any]


def executor_of(engine: str, workers: int, folder: Path) -> Executor:
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    return fr.Workers(engine=engine, workers=workers).executor(folder / "logs")  # type: ignore[arg-type]


def write_boards(folder: Path, number: int, shots: int = 2) -> Path:
    """Storyboards for the fake model, each with a seed of its own."""
    folder.mkdir()
    scenes = "\n".join(f"  - {{id: s{i}, prompt: scene {i}, seconds: 1.3, transition: cut}}" for i in range(shots))
    for seed in range(number):
        text = f"title: board {seed}\nmodel: fake\nsize: [64, 64]\nsteps: 2\nseed: {seed}\nscenes:\n{scenes}\n"
        (folder / f"{seed:04d}.yaml").write_text(text)
    return folder


def begun() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


# --- kills ------------------------------------------------------------------------------------------------------------


def kills(numbers: Row, folder: Path, seconds: float) -> Iterator[Row]:
    """Tiny films through each engine while workers are killed: which are there, which were made twice."""
    boards = write_boards(folder / "boards", numbers["films"])
    for engine in WORKERS:
        films = find_films([boards], folder / engine, loading={"device": "cpu"})
        batch, killer = Batch(films, max_retries=1000), Killer(WORKERS[engine])
        on_disk, doubled, clock = set(), set(), time.perf_counter()
        with closing(run(batch, executor_of(engine, 4, folder / engine))) as events, closing(killer):
            for told in events:
                place = told and (told.unit.film, told.event.section)
                if told and told.event.kind == "section":
                    on_disk.add(place)
                elif told and told.event.kind == "step" and place in on_disk:
                    doubled.add(place)
        there = [film for film in films if (film.out / FILM).exists()]
        retries = sum(film.retries for film in batch.progress.values())
        row = {"figure": "kills", "engine": engine, "films": len(films), "there": len(there), "kills": killer.kills}
        row |= {"sections made twice": len(doubled), "units begun again": retries}
        yield {**row, "seconds": round(time.perf_counter() - clock, 1), "met": len(there) == len(films) and not doubled}
    pairs = [[(folder / engine / film.name / FILM).read_bytes() for engine in WORKERS] for film in films]
    same = sum(one == other for one, other in pairs)
    yield {"figure": "kills", "engine": "both", "films": len(films), "equal": same, "met": same == len(films)}


class Killer:
    """Kills a worker every now and then, as long as it is not closed."""

    def __init__(self, name: str) -> None:
        self.name, self.kills, self.random, self.over = name, 0, random.Random(0), Flag()
        self.thread = Thread(target=self._go, daemon=True)
        self.thread.start()

    def _go(self) -> None:
        while not self.over.wait(self.random.uniform(0.5, 1.5) * EVERY):
            workers = []
            for process in begun():
                with suppress(psutil.Error):
                    if self.name in " ".join(process.cmdline()):
                        workers.append(process)
            if workers:
                with suppress(psutil.Error):
                    self.random.choice(workers).kill()
                    self.kills += 1

    def close(self) -> None:
        self.over.set()
        self.thread.join()


# --- scaling ----------------------------------------------------------------------------------------------------------


@dataclass
class Naps:
    """Short naps until all workers are up, nothing for a while, then those that count."""

    workers: int
    waiting: list[Nap]
    up: set[str] = field(default_factory=set)
    resting: bool = True

    @property
    def over(self) -> bool:
        return not self.waiting

    def take(self, worker: str) -> Nap | None:
        if len(self.up) < self.workers:
            return Nap("first", 1, 0.1)
        return self.waiting.pop() if self.waiting and not self.resting else None


def scaling(numbers: Row, folder: Path, seconds: float) -> Iterator[Row]:
    """Sections that sleep, on more and more workers: how many work at a time, and what the scheduling costs."""
    for engine in WORKERS:
        for workers in numbers[engine]:
            yield scale(engine, workers, folder / f"{engine}-{workers}", seconds)


def scale(engine: str, workers: int, folder: Path, seconds: float) -> Row:
    units, sections = 2, 4
    naps = Naps(workers, [Nap(f"nap {n}", sections, seconds) for n in range(workers * units)])
    clock, up, rest, done = time.perf_counter(), 0.0, 0.0, 0
    with closing(executor_of(engine, workers, folder).run(naps)) as events:
        for told in events:
            if told and told.event.kind == "ended":
                naps.up.add(told.worker)
            now = time.perf_counter()
            if not up and len(naps.up) == workers:
                up, before = now, processor()
            if up and naps.resting and now > up + REST:
                naps.resting, rest, idle = False, now, processor()
            done += bool(told and told.event.kind == "section" and told.unit.name != "first")
            if done == workers * units * sections:
                break
        took = time.perf_counter() - rest
        after = processor()
    resting = (idle - before) / (rest - up)  # milliseconds a second
    spent = max(0.0, after - idle - resting * took) / done
    row = {"figure": "scaling", "engine": engine, "workers": workers, "seconds a section": seconds}
    row |= {"start-up": round(up - clock, 1), "at a time": round(done * seconds / took, 2)}
    row |= {"processor ms a section": round(spent, 1), "idle ms a second": round(resting, 1)}
    return {**row, "met": done * seconds / took >= 0.95 * workers and spent <= 50}


def processor() -> float:
    """Milliseconds so far, of this process and all that it has begun."""
    spent = 0.0
    for process in (psutil.Process(), *begun()):
        with suppress(psutil.Error):
            times = process.cpu_times()
            spent += 1000 * (times.user + times.system)
    return spent


# --- planning and the ledger ------------------------------------------------------------------------------------------


def planning(numbers: Row, folder: Path, seconds: float) -> Iterator[Row]:
    boards = write_boards(folder / "boards", numbers["boards"])
    clock = time.perf_counter()
    films = find_films([boards], folder / "out", loading={"device": "cpu"})
    took = time.perf_counter() - clock
    yield {"figure": "planning", "boards": len(films), "seconds": round(took, 2), "met": took <= 60}


def ledger(numbers: Row, folder: Path, seconds: float) -> Iterator[Row]:
    """Folders of ten shots, every other one finished, the others with half of their sections."""
    shots = 10
    board = next(write_boards(folder / "boards", 1, shots).iterdir())
    made = fr.render(board, out=folder / "made").path.parent
    mark, report = (made / MARK).read_bytes(), (made / REPORT).read_bytes()
    for number in range(numbers["folders"]):
        place = folder / "out" / f"{number // 100:03d}" / f"{number:05d}"
        for shot in range(shots):
            (place / f"shots/{shot:02d}").mkdir(parents=True)
            for section in range(2):
                if number % 2 or section == 0:
                    (place / SECTION_FILE.format(shot, section)).touch()
        (place / MARK).write_bytes(mark)
        if number % 2:
            (place / REPORT).write_bytes(report)
            (place / FILM).touch()
    clock = time.perf_counter()
    rows = fr.ledger(folder / "out")
    took = time.perf_counter() - clock
    states = Counter((row.state, row.done) for row in rows)
    half = numbers["folders"] // 2
    met = took <= 5 and states == {("done", 2 * shots): half, ("waiting", shots): half}
    yield {"figure": "ledger", "shots": shots * len(rows), "seconds": round(took, 2), "met": met}


FIGURES = {"kills": kills, "scaling": scaling, "planning": planning, "ledger": ledger}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=FIGURES, nargs="+", default=[*FIGURES])
    parser.add_argument("--seconds", type=float, default=3.0, help="that a section sleeps")
    options = parser.parse_args()
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # where workers find nap.py
    rows = []
    for name in options.only:
        folder = Path(tempfile.mkdtemp(prefix="farm-"))
        try:
            for row in FIGURES[name](QUICK if options.quick else FULL, folder, options.seconds):
                print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)
                rows.append(row)
        finally:
            shutil.rmtree(folder)
    if not options.quick:
        there = json.loads(MEASURED.read_text())["rows"] if MEASURED.exists() else []
        rows = [row for row in there if row["figure"] not in options.only] + rows
        MEASURED.write_text(
            json.dumps({"cores": os.cpu_count(), "versions": versions(), "rows": rows}, indent=1) + "\n"
        )


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("framepack-relax", "ray", "torch")}


if __name__ == "__main__":
    main()
