"""What can go wrong, for the user to mend. Every message names the place, the fact and the cure.

    RelaxError
    ├── StoryboardError     mistakes of a storyboard, all of them at once, each with its place
    ├── ModelError          a model that is not there, is incomplete, or does not fit the storyboard
    ├── RenderError         a render that cannot start or go on (output folder, image, numbers)
    │   ├── BusyError           another is at work there: wait for it
    │   ├── CancelledError      somebody has called the film off
    │   └── MemoryFullError     it takes more memory than there is, or than it may
    ├── EvaluationError     a film that cannot be measured, or an instrument that is not there
    └── FilmError           both of these: a file that cannot be read as a film

The command line prints them without a traceback and exits with code 2, with 3 where memory is full. Anything else is a
bug of ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake: `file:line:column: path: message`; line and column count from 1 and are absent in the Python API."""

    message: str
    path: str = ""  # of the field: scenes[1].seconds
    file: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return ": ".join(part for part in (place, self.path, self.message) if part)


class RelaxError(Exception):
    """Base of every error that a user can mend."""


class StoryboardError(RelaxError):
    """Carries every mistake found, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ModelError(RelaxError):
    """A model that is not there, is incomplete, or does not fit the storyboard."""


class RenderError(RelaxError):
    """A render that cannot start or go on."""


class BusyError(RenderError):
    """Another is at work on the same; what it makes is there afterwards."""


class CancelledError(RenderError):
    """A film that somebody has called off."""


class MemoryFullError(RenderError):
    """More memory is needed than there is, or than may be taken."""


class EvaluationError(RelaxError):
    """A film that cannot be measured, or an instrument that is not there."""


class FilmError(RenderError, EvaluationError):
    """A file that cannot be read as a film, wherever one is asked for."""
