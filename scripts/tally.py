"""What came of many inputs."""

from collections import Counter
from dataclasses import dataclass, field

FINE = ("plans", "works", "located errors", "no such model")


@dataclass
class Tally:
    ends: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # seconds
    slowest_text: str = ""

    def add(self, end: str, taken: float = 0.0, text: str = "") -> None:
        """One input more; says how far it is now and then, and at once what must not be."""
        self.ends[end] += 1
        if taken > self.slowest:
            self.slowest, self.slowest_text = taken, text
        if self.inputs % 2000 == 0 or (end not in FINE and self.ends[end] == 1):
            print(f"{self.inputs:>7} inputs {dict(self.ends)} slowest {self.slowest:.2f} s {text[-200:]}", flush=True)

    @property
    def inputs(self) -> int:
        return sum(self.ends.values())

    @property
    def wrong(self) -> int:
        """Tracebacks, hangs and whatever else must not be."""
        return sum(count for end, count in self.ends.items() if end not in FINE)
