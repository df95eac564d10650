"""Slurm: jobs that each run the batch by themselves, and share it by its run folders, which the caller follows."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submitit import AutoExecutor
from submitit.core.utils import FailedJobError
from submitit.helpers import Checkpointable

from ..errors import RenderError
from ..rendering.events import Cause, Event
from ..rendering.lease import LEASE, look
from ..rendering.mark import CANCELLED, FILM, SHOT, section_file
from .batch import Batch, run
from .executor import Told, Units
from .films import Film, ShotUnit
from .ledger import read_ledger
from .local import Local

PAUSE = 1.0  # seconds from one look at the folders to the next, at least
LEAVE = 15.0  # seconds in which a job sees that all is done
MINUTES = 60  # that a job asks for where nobody says it; when they are over it is queued again
REQUEUES = 1000
PREEMPTED = 4  # exit code
Outcomes = dict[str, tuple[Cause, str]]  # by film: why it is not there, nothing if it is


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """So many jobs, each with a GPU or with `threads` cores. `sbatch` are its options, by their long names; with
    `cluster: local` submitit runs the jobs on this machine. Each begins a film again `max_retries` times.

    A caller that ends stops them; one that dies does not, and the same call finds what they have made. A job that is
    pre-empted or whose time is over is queued again. Jobs need this Python environment and these folders under the
    same paths.
    """

    logs: Path
    jobs: int
    on_gpus: bool
    threads: int = 1
    sbatch: Mapping[str, str] = field(default_factory=dict)
    max_retries: int = 2

    @property
    def workers(self) -> int:
        return self.jobs

    @property
    def device(self) -> str:
        return "cuda" if self.on_gpus else "cpu"

    def run(self, units: Units) -> Generator[Told | None]:
        followed = [_Followed(unit) for unit in iter(lambda: units.take("slurm"), None)]  # type: ignore[arg-type]
        if not units.over:
            raise RenderError("slurm: its jobs cannot take in boards that come later; leave watch out")
        if not followed:
            return
        with closing(_Jobs(self._submit({one.unit.film: one.film for one in followed}))) as jobs:
            while followed:
                begun, over = time.monotonic(), jobs.over()
                shots = Counter(one.unit.film for one in followed)
                for one in followed:
                    outcome = jobs.outcomes.get(one.unit.film)
                    if over and not outcome:
                        outcome = "mistake", f"no job is left to render it; see {self._folder}"
                    for event in one.look(outcome, is_last=shots[one.unit.film] == 1):
                        yield Told(one.worker, one.unit, event)
                    shots[one.unit.film] -= one.ended
                followed, took = [one for one in followed if not one.ended], time.monotonic() - begun
                yield None
                time.sleep(min(max(PAUSE, took), LEAVE))
            ends = time.monotonic() + LEAVE  # those that wait in the queue have nothing to do
            while not jobs.over() and time.monotonic() < ends:
                yield None
                time.sleep(PAUSE)

    @property
    def _folder(self) -> Path:
        return self.logs.absolute() / "slurm"

    def _submit(self, films: dict[str, Film]) -> list[Any]:
        if any(film.options.fresh or film.options.strict for film in films.values()):
            raise RenderError("slurm: each job would render everything anew; leave fresh and strict out")
        options = dict(self.sbatch)
        try:
            executor = AutoExecutor(self._folder, options.pop("cluster", "slurm"), slurm_max_num_timeout=REQUEUES)
        except RuntimeError as error:
            raise RenderError(f"slurm: {error} Run the batch on a login node, where sbatch and srun are") from error
        executor.update_parameters(
            name="framepack-relax",
            timeout_min=MINUTES,
            cpus_per_task=self.threads,
            gpus_per_node=1 if self.on_gpus else None,
            slurm_additional_parameters=options,  # they overrule the others
        )
        share = Share([*films.values()], self.on_gpus, self.threads, self._folder, self.max_retries)
        try:
            with executor.batch():
                return [executor.submit(share) for _ in range(self.jobs)]
        except Exception as error:  # of sbatch, in submitit's words
            raise RenderError(f"slurm: the jobs were not taken ({error}); mend the options of sbatch") from error


@dataclass
class Share(Checkpointable):
    """What a job does: the whole batch, as far as the others leave it. Gives what became of each film."""

    films: list[Film]
    on_gpu: bool
    threads: int
    logs: Path
    max_retries: int

    def __call__(self) -> Outcomes:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(PREEMPTED))
        logs = self.logs / f"{os.uname().nodename}-{os.getpid()}"
        logs.mkdir(parents=True)
        gpus = (os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],) if self.on_gpu else ()
        batch = Batch(self.films, max_retries=self.max_retries)
        for _ in run(batch, Local(logs=logs, gpus=gpus, threads=self.threads)):
            pass
        return {name: (film.cause, film.why) for name, film in batch.progress.items() if film.over}  # type: ignore


class _Jobs:
    def __init__(self, jobs: list[Any]) -> None:
        self.left, self.outcomes = jobs, Outcomes()

    def over(self) -> bool:
        """Whether all have ended. Learns from those that have what became of the films."""
        for job in [job for job in self.left if job.done()]:
            self.left.remove(job)
            if job.paths.result_pickle.exists():  # it has died otherwise, and says so in its log
                with suppress(FailedJobError):
                    said = job.results()[0]
                    self.outcomes |= {name: said[name] for name in said if self.outcomes.get(name) != ("", "")}
        return not self.left

    def close(self) -> None:
        for job in self.left:
            job.cancel()


class _Followed:
    """A unit, and what is seen of it on disk. The last one of a film ends with it."""

    def __init__(self, unit: ShotUnit) -> None:
        job, session = unit.job, unit.job.session
        self.unit, self.worker, self.begun, self.ended = unit, "slurm", False, False
        self.film = Film(
            name=unit.film, story=session.story, out=session.out, loading=job.loading, options=session.options
        )
        self.files = {index: session.out / section_file(session.plan.sections[index]) for index in job.wanted}
        self.before = {file: _changed(file) for file in (self.film.out / FILM, *self.files.values())}

    def look(self, outcome: tuple[Cause, str] | None, is_last: bool) -> Iterator[Event]:
        """What has come since the last look; `outcome` is what a job has said of the film."""
        out, shot = self.film.out, self.unit.job.shot
        held = look(out / SHOT.format(shot) / LEASE)
        new = [index for index, file in self.files.items() if _changed(file) not in (None, self.before[file])]
        if not self.begun and (new or (held and not held.left)):
            self.worker, self.begun = held.who if held else self.worker, True
            yield Event(kind="begun")
        for index in new:
            del self.files[index]
            yield Event(kind="section", shot=shot, section=index)
        if (out / CANCELLED).exists():
            outcome = "cancelled", f"{out}: the film was called off; what is finished is kept"
        elif _changed(out / FILM) != self.before[out / FILM] and [row.state for row in read_ledger(out)] == ["done"]:
            outcome = "", ""
        elif not self.files and not is_last:
            outcome = outcome or ("", "")
        if outcome:
            self.ended = True
            if is_last and not outcome[0]:
                yield Event(kind="film", text=str(out / FILM))
            yield Event(kind="ended", cause=outcome[0], text=outcome[1])


def _changed(file: Path) -> int | None:
    """When; None where there is no such file."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.stat(file).st_mtime_ns
    return None
