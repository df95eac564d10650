"""What is left to do of many films: which unit is next, what became of the others. Run folders are the ledger."""

import heapq
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from threading import RLock
from typing import Any, Literal

from ..errors import CancelledError, RelaxError
from ..rendering.events import Event
from .executor import Executor, Told
from .films import Film, ShotUnit

WAIT = 5.0  # seconds until a unit is looked at again on which another is at work
LOOK = 1.0  # seconds after which it looks for new films, though events come without a pause
State = Literal["waiting", "at work", "done", "failed", "cancelled"]


@dataclass
class Progress:
    """How far a film has come. `why` says what stopped it, by its cause in an event."""

    film: Film
    state: State = "waiting"
    why: str = ""
    cause: str = ""
    kept: int = 0  # sections that were there before
    made: set[int] = field(default_factory=set)  # sections
    retries: int = 0
    running: dict[str, str] = field(default_factory=dict)  # worker by unit
    waiting: int = 0  # units
    anew: Film | None = None  # its board has changed while it was at work

    @property
    def done(self) -> int:
        """Sections that are there."""
        return self.film.sections if self.state == "done" else self.kept + len(self.made)

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


@dataclass
class Batch:
    """The units of films by priority, each again where its worker died, at most `max_retries` times.

    A film that cannot be rendered fails alone; with `fail_fast` all others are stopped. `more` gives films that
    come later, and None when no more will. Other threads may add films and cancel them.
    """

    films: list[Film]
    max_retries: int = 2
    fail_fast: bool = False
    more: Callable[[], list[Film] | None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    progress: dict[str, Progress] = field(default_factory=dict, init=False)
    _closed: bool = field(default=False, init=False)
    failed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._order = count()
        self._ready: list[tuple[float, int, ShotUnit]] = []
        self._later: list[tuple[float, int, ShotUnit]] = []
        self._unplanned: list[tuple[float, int, str]] = []
        self._lock = RLock()
        self.add(self.films)

    def add(self, films: list[Film]) -> None:
        """Films that come later."""
        with self._lock:
            self._add(films)

    def cancel(self, name: str) -> None:
        """Begins nothing more of a film; a worker that is at work on it is stopped by the mark in its folder."""
        with self._lock:
            if (film := self.progress[name]).state != "done":
                self._stop(film, "cancelled", "cancelled", "")

    def _add(self, films: list[Film]) -> None:
        for film in films:
            if (before := self.progress.get(film.name)) and before.running:
                before.anew = film
                continue
            if before:
                self._forget(film.name)
            state: State = "done" if film.whole else "waiting"
            self.progress[film.name] = Progress(film=film, state=state, kept=film.sections - sum(film.left))
            if state == "waiting":
                heapq.heappush(self._unplanned, (-film.priority, next(self._order), film.name))

    def _forget(self, name: str) -> None:
        """What was left of a film that comes anew."""
        self._unplanned = [item for item in self._unplanned if item[2] != name]
        heapq.heapify(self._unplanned)
        for heap in (self._ready, self._later):
            heap[:] = [item for item in heap if item[2].film != name]
            heapq.heapify(heap)

    @property
    def over(self) -> bool:
        return self._closed and not (self._ready or self._later or self._unplanned)

    def look_around(self) -> None:
        """Takes in films that have come."""
        if not self._closed:
            films = self.more()
            self._closed = films is None
            self.add(films or [])

    def take(self, worker: str) -> ShotUnit | None:
        """The next unit; None where nothing is to be done now."""
        with self._lock:
            return self._take(worker)

    def _take(self, worker: str) -> ShotUnit | None:
        now = self.clock()
        while self._later and self._later[0][0] <= now:
            _, order, unit = heapq.heappop(self._later)
            heapq.heappush(self._ready, (-self.progress[unit.film].film.priority, order, unit))
        while True:
            self._unfold()
            if not self._ready:
                return None
            unit = heapq.heappop(self._ready)[2]
            film = self.progress[unit.film]
            film.waiting -= 1
            if not film.over and not film.anew:
                film.state, film.running[unit.name] = "at work", worker
                return unit

    def _unfold(self) -> None:
        """Makes units of the next film where its turn comes before those that there are."""
        while self._unplanned and (not self._ready or self._unplanned[0][0] < self._ready[0][0]):
            priority, _, name = heapq.heappop(self._unplanned)
            film = self.progress[name]
            if film.over:
                continue
            try:
                for unit in film.film.units():
                    heapq.heappush(self._ready, (priority, next(self._order), unit))
                    film.waiting += 1
            except CancelledError as error:
                self._stop(film, "cancelled", "cancelled", str(error))
            except RelaxError as error:
                self._stop(film, "failed", "mistake", str(error))

    def hear(self, told: Told) -> None:
        """Learns of an event."""
        with self._lock:
            self._hear(told)

    def _hear(self, told: Told) -> None:
        film, event = self.progress[told.unit.film], told.event
        if event.kind == "section" and event.step is None:
            film.made |= {index for index in told.unit.job.wanted if index == event.section}
        elif event.kind == "film":
            film.state = "done"
        elif event.kind == "ended":
            self._ended(film, told.unit, event)

    def _ended(self, film: Progress, unit: ShotUnit, event: Event) -> None:
        film.running.pop(unit.name, None)
        if film.anew and not film.running:
            self._add([film.anew])
        if film.over or film.anew:
            return
        if event.cause == "busy":
            self._again(film, unit, WAIT)
        elif event.cause in ("death", "crash") and film.retries < self.max_retries:
            film.retries += 1
            self._again(film, unit, 0.0)
        elif event.cause:
            self._stop(film, "cancelled" if event.cause == "cancelled" else "failed", event.cause, event.text)
        elif not film.running and not film.waiting:
            film.state = "waiting"  # the film is not there: two ended at the same moment, or a section is gone again
            heapq.heappush(self._unplanned, (-film.film.priority, next(self._order), film.film.name))

    def _again(self, film: Progress, unit: ShotUnit, wait: float) -> None:
        heapq.heappush(self._later, (self.clock() + wait, next(self._order), unit))
        film.waiting += 1
        if not film.running:
            film.state = "waiting"

    def _stop(self, film: Progress, state: State, cause: str, why: str) -> None:
        film.state, film.cause, film.why = state, cause, why
        self.failed |= state == "failed"


def told_json(told: Told) -> dict[str, Any]:
    """An event with its film, shot and worker."""
    return {"film": told.unit.film, "shot": told.unit.job.shot, "worker": told.worker} | told.event.to_json()


def run(batch: Batch, executor: Executor) -> Generator[Told | None]:
    """Renders what is left; events as they come, None at least every second. Closing it stops the workers."""
    batch.look_around()
    looked = time.monotonic()
    with closing(executor.run(batch)) as events:
        for told in events:
            if told is None or time.monotonic() - looked > LOOK:
                batch.look_around()
                looked = time.monotonic()
            if told:
                batch.hear(told)
            yield told
            if batch.failed and batch.fail_fast:
                return
