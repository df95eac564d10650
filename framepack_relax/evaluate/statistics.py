"""Rows of a sweep as a table: means with bootstrap intervals, and how often an arm wins against the first one.

Pairs are films of the same scene and seed: they differ in the arm alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
FIGURES = ("target", "motion", "at_once", "text", "identity", "seam", "drift", "lpips", "forwards", "seconds")
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Mean over films, its 95 % bootstrap interval, and the share of pairs won against the first arm (ties half)."""

    mean: float
    low: float
    high: float
    wins: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm: figures by name, and shares of films by failure."""

    arm: str
    films: int
    figures: dict[str, Figure]
    failures: dict[str, float]


def summarise(rows: Sequence[Row], *, scene: str | None = None) -> list[Cell]:
    """A cell per arm in the order of the rows; `scene` takes its films alone."""
    chosen = [row for row in rows if scene in (None, row["scene"])]
    return [_cell(arm, chosen) for arm in dict.fromkeys(row["arm"] for row in chosen)]


def _cell(arm: str, all_rows: Sequence[Row]) -> Cell:
    rows, figures = [row for row in all_rows if row["arm"] == arm], {}
    for name in FIGURES:
        values = np.array([row[name] for row in rows if row.get(name) is not None])
        if len(values):
            gaps = gap(all_rows, arm, all_rows[0]["arm"], name)
            low, high = interval(values)
            wins = float(((gaps > 0) + 0.5 * (gaps == 0)).mean()) if len(gaps) else 0.5
            figures[name] = Figure(mean=float(values.mean()), low=low, high=high, wins=wins)
    kinds = rows[0]["failures"]
    failures = {kind: float(np.mean([row["failures"][kind] for row in rows])) for kind in kinds}
    return Cell(arm=arm, films=len(rows), figures=figures, failures=failures)


def gap(rows: Sequence[Row], arm: str, other: str, figure: str) -> NDArray[np.float64]:
    """How much larger a figure is in each film of `arm` than in its pair of `other`; films without it are left out."""
    there = {(row["scene"], row["seed"]): row.get(figure) for row in rows if row["arm"] == other}
    pairs = [(row.get(figure), there.get((row["scene"], row["seed"]))) for row in rows if row["arm"] == arm]
    return np.array([a - b for a, b in pairs if a is not None and b is not None])


def interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean, from the same draws every time."""
    draws = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
