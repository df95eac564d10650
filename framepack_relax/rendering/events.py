"""What happens in a render, one type for all who listen: callbacks, a progress bar, another process, a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import RelaxError
from ..planning.renderplan import RenderPlan
from .mark import Note

Kind = Literal[
    "plan", "note", "verdicts", "step", "preview", "try", "take", "section", "shot", "film", "warning", "error",
    "begun", "ended",
]  # fmt: skip
Cause = Literal["", "busy", "cancelled", "memory", "mistake", "crash", "death"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """`kind` says which of the others are set.

    plan: what will be rendered. verdicts: (section, why it must be rendered or None, how what is kept was made
    otherwise), in rendering order. note, warning, error: `text`. step: `step`, from 0, of `section` is done. preview:
    the picture that `text` begins with shows what that step predicts; then it says how it was made. section: it is on
    disk, its noise drawn with `seed`, which a retry may have changed. try: an ensured section was sampled once and
    looked at, take: a take was; `text` says what it shows. shot: all its sections are. film: the mp4 is at the path
    `text`. Of a film that was finished before only plan, verdicts and film are told.

    begun, ended: a worker has taken up a unit of a batch, and left it, done unless `cause` says why not: another is at
    work on it, its film was called off, memory is full, the user can mend it, a bug, or the worker has died.
    """

    kind: Kind
    text: str = ""
    cause: Cause = ""
    plan: RenderPlan | None = None
    verdicts: tuple[tuple[int, str | None, str], ...] = ()
    shot: int | None = None
    section: int | None = None
    step: int | None = None
    seed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """What is set."""
        said = {name: value for name, value in vars(self).items() if value not in (None, "", ())}
        return said | ({"plan": self.plan.to_json()} if self.plan else {})


Hear = Callable[[Event], None]


def nobody(event: Event) -> None:
    """Hears nothing."""


@contextmanager
def telling(on_event: Hear) -> Iterator[None]:
    """Tells of an error before it is raised."""
    try:
        yield
    except RelaxError as error:
        on_event(Event(kind="error", text=str(error)))
        raise


def noting(on_event: Hear) -> Note:
    """What hears a text for one who hears events."""
    return lambda text: on_event(Event(kind="note", text=text))
