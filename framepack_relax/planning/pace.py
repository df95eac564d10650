"""Which steps of a section ask the network, and which reuse the velocity that the step before had."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from ..families.base import GuidanceTerm, Step


def computed(pattern: str, steps: int) -> frozenset[int]:
    """The steps of `steps` that a pattern computes: its own where it is as long, else the same share of each stretch.

    A step is computed where the share of the pattern up to its end has come to one more.
    """
    length, digits = len(pattern), [*map(int, pattern), 0]
    before = [0, *accumulate(digits)]

    def due(step: int) -> int:
        """How many of the steps before this one are computed."""
        whole, part = divmod(step * length, steps)
        return -(-(before[whole] * steps + digits[whole] * part) // length)

    return frozenset(step for step in range(steps) if due(step + 1) > due(step))


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
