"""A unit of work for scripts/farm.py, in a file of its own so that its worker imports no torch."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from framepack_relax.rendering.events import Event


@dataclass(frozen=True)
class Nap:
    """A unit without torch: a section is a sleep."""

    name: str
    sections: int
    seconds: float

    def run(self, models: Any, tell: Callable[[Event], None]) -> None:
        for number in range(self.sections):
            time.sleep(self.seconds)
            tell(Event(kind="section", section=number))
