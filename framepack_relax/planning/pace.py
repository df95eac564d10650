"""Which steps of a section ask the network, and which reuse the velocity that the step before had."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..families.base import GuidanceTerm, Step


def computed(pattern: str, steps: int) -> frozenset[int]:
    """The steps of `steps` that a pattern computes: its own where it is as long, else spread as it spreads them."""
    places = np.array([place for place, digit in enumerate(pattern) if digit == "1"])
    count = max(1, round(steps * len(places) / len(pattern)))
    spread = np.interp(np.linspace(0, len(places) - 1, count), range(len(places)), places)
    return frozenset(np.rint(spread * (steps - 1) / max(1, len(pattern) - 1)).astype(int).tolist())


def paced(rows: Sequence[Step], pattern: str, terms: Sequence[GuidanceTerm]) -> Iterator[Step]:
    """A section's rows, of which those that the pattern does not compute reuse what the row before them has.

    Where effects or acting terms change, all is computed: the velocity before is of another field.
    """
    wanted = computed(pattern, len(rows))
    before: tuple[object, frozenset[str]] = None, frozenset()
    for row in rows:
        field = row.effects, [term.timesteps[0] <= row.timestep < term.timesteps[1] for term in terms]
        names = tuple(branch.name for branch in row.branches)
        reused = tuple(name for name in names if name in before[1]) if field == before[0] else ()
        yield row if row.index in wanted or not reused else replace(row, reused=reused)
        before = field, frozenset(names)
