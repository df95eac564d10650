"""The seam between what is to be done and who does it: units are taken one by one, events come back. No torch."""

import traceback
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import BusyError, CancelledError, MemoryFullError, RelaxError
from ..rendering.events import Cause, Event, Hear

if TYPE_CHECKING:
    from ..families.backend import Backend
    from ..families.loader import Loading

CAUSES: tuple[tuple[type[RelaxError], Cause], ...] = (
    (BusyError, "busy"),
    (CancelledError, "cancelled"),
    (MemoryFullError, "memory"),
    (RelaxError, "mistake"),
)


@dataclass
class Models:
    """The model that a worker holds: one at a time, loaded once for all units in a row that need it."""

    loaded: "tuple[Loading, Backend] | None" = field(default=None, repr=False)

    def get(self, loading: "Loading") -> "Backend":
        if self.loaded is None or self.loaded[0] != loading:
            self.loaded = None  # its memory is free before the next one takes its own
            self.loaded = loading, loading.load()
        return self.loaded[1]


class Unit(Protocol):
    """What one worker does at a time. It can be pickled, and done again: what is finished of it is kept."""

    @property
    def name(self) -> str: ...

    def run(self, models: Models, tell: Hear) -> None:
        """Raises RelaxError."""
        ...


class Units(Protocol):
    """Where executors take them from; `over` when nothing more will come."""

    @property
    def over(self) -> bool: ...

    def take(self, worker: str) -> Unit | None:
        """None: nothing now."""
        ...


@dataclass(frozen=True)
class Told:
    """An event of a unit; the last one of each is `ended`."""

    worker: str
    unit: Any  # the Unit that was taken
    event: Event


class Executor(Protocol):
    """Workers that each do one unit at a time."""

    @property
    def workers(self) -> int:
        """How many there are at first."""
        ...

    @property
    def device(self) -> str | None:
        """What a model is loaded on where nobody says it."""
        ...

    def run(self, units: Units) -> Generator[Told | None]:
        """Events as they come, None at least every second without any. Every unit that was taken ends, also with its
        worker's death. A generator that is closed stops its workers, which keep what is finished."""
        ...


def perform(unit: Unit, models: Models, tell: Hear) -> None:
    """Does a unit, and tells how it ended, whatever happens."""
    tell(Event(kind="begun"))
    try:
        unit.run(models, lambda event: None if event.plan or event.kind == "error" else tell(event))
    except RelaxError as error:
        tell(
            Event(kind="ended", cause=next(cause for kind, cause in CAUSES if isinstance(error, kind)), text=str(error))
        )
    except Exception as error:
        tell(Event(kind="warning", text=traceback.format_exc()))
        tell(Event(kind="ended", cause="crash", text=f"{type(error).__name__}: {error}"))
    else:
        tell(Event(kind="ended"))
