"""Where sweeps and farms meet: what films will take, told before anything is rendered; films that workers make."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EvaluationError, MemoryFullError
from ..evaluate.spec import Job
from ..evaluate.statistics import Row
from ..evaluate.swept import Swept, place
from ..families.backend import Backend
from ..families.loader import Loading
from ..farm.batch import Batch, run
from ..farm.costs import passes_of, seconds_of
from ..farm.engines import Workers
from ..farm.executor import Executor, Models
from ..farm.films import Film, ShotUnit
from ..farm.records import LOGS, Logs
from ..planning.renderplan import RenderPlan, SectionPlan
from ..rendering.events import Event, Hear, nobody
from ..rendering.mark import Note, call_off

CALM = "calm scenes, shared"  # in the place of an arm


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """Of an arm's films: forward passes, and an H200's hours for them, the least and the most that ensured scenes may
    take; the hours are None where the model cannot be asked."""

    arm: str
    films: int
    passes: tuple[int, int]
    hours: tuple[float, float] | None


def ahead(jobs: Sequence[Job], plans: Sequence[RenderPlan], backend: Backend | None) -> list[Ahead]:
    """A row for the calm scenes, which films of a seed share, then one for each arm's own scenes."""
    calm, acts, size = dict[tuple[int, int], SectionPlan](), dict[str, list[SectionPlan]](), plans[0].size
    films = dict[str, int]()
    for job, plan in zip(jobs, plans, strict=True):
        own = plan.scenes[-1].sections
        calm |= {(job.seed, section.index): section for section in plan.sections if section.index not in own}
        acts.setdefault(job.arm.id, []).extend(plan.sections[index] for index in own)
        films[job.arm.id] = films.get(job.arm.id, 0) + 1

    def row(name: str, count: int, sections: Iterable[SectionPlan]) -> Ahead:
        whole = list(sections)
        seconds = seconds_of(whole, size, backend)
        hours = seconds and (seconds[0] / 3600, seconds[1] / 3600)
        return Ahead(arm=name, films=count, passes=passes_of(whole), hours=hours)

    shared = [row(CALM, len({seed for seed, _ in calm}), calm.values())] if calm else []
    return [*shared, *(row(arm, films[arm], sections) for arm, sections in acts.items())]


@dataclass(frozen=True, kw_only=True)
class SweptUnit(ShotUnit):
    """The whole film, as one worker renders and measures it; it is told when its row is there."""

    swept: Swept

    def run(self, models: Models, tell: Hear) -> None:
        self.swept.row(models.get(self.job.loading), lambda event: None if event.kind == "film" else tell(event))
        tell(Event(kind="film", text=str(self.swept.out)))


@dataclass(frozen=True, kw_only=True)
class SweptFilm(Film):
    """A film of a batch that is measured, too."""

    swept: Swept

    def units(self) -> list[ShotUnit]:
        return [SweptUnit(film=self.name, job=self.jobs()[0], swept=self.swept)]


@dataclass(frozen=True, kw_only=True)
class Farm:
    """Films are made by the workers of a farm's executor, each with a model and judges of its own."""

    model: Loading
    executor: Executor
    max_retries: int
    device: str | None  # of the judges that measure; None: each worker's
    here = "cpu"  # a worker needs the GPU whole

    def rows(self, films: Iterable[Swept], *, out: Path, note: Note) -> Iterator[Row]:
        """As they come; what workers tell goes to `out`/logs, too.

        The first film of every seed comes before the others, which then find its calm sections. Where a film cannot be
        made the others are stopped, which keep what is finished. Raises RelaxError.
        """
        work = Batch([*self._batch(films)], max_retries=self.max_retries, fail_fast=True, more=lambda: None)
        logs, heard = Logs(out / LOGS), set[str]()
        with closing(run(work, self.executor)) as events:
            for told in filter(None, events):
                logs.hear(told)
                if (event := told.event).kind in ("note", "warning") and event.text not in heard:
                    heard.add(event.text)
                    note(event.text)
                if event.kind == "film":
                    yield told.unit.swept.row(self.model, nobody)
        for film in work.progress.values():
            if film.state != "done" and film.cause:
                kind = MemoryFullError if film.cause == "memory" else EvaluationError
                raise kind(f"{film.film.name}: {film.why}; what is finished is kept")

    def _batch(self, films: Iterable[Swept]) -> Iterator[Film]:
        seeds = set[int]()
        for film in films:
            call_off(film.out, False)
            first, job = film.job.seed not in seeds, film.job
            given: dict[str, Any] = {"story": job.story, "out": film.out, "options": film.options}
            yield SweptFilm(name=place(job, film.key), swept=film, loading=self.model, priority=float(first), **given)
            seeds.add(job.seed)


def farm_of(workers: Workers, model: str, out: Path) -> Farm:
    """Raises RelaxError for workers that cannot be."""
    executor = workers.executor(out / LOGS)
    loading = Loading(name=model, **workers.loading(executor.device))
    return Farm(model=loading, executor=executor, max_retries=workers.max_retries, device=workers.device)
