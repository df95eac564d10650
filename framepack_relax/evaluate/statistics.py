"""Rows of a sweep as a table: means with bootstrap intervals, and how often an arm wins against the first one.

Pairs are films of the same scene and seed: they differ in the arm alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm, permutation_test

RESAMPLES = 20_000  # and up to 14 seeds' signs are turned in every way
FEWEST = 6  # seeds that give an interval
FIGURES: Mapping[str, tuple[str, ...]] = {  # where `evaluate` says each; () is what a sweep measures itself
    "target": (), "motion": ("motion", "mean"), "at_once": ("motion", "at_once"), "text": ("text", "cosine"),
    "identity": (), "border": (), "jump": (), "drift": ("drift", "drift"), "lpips": ("lpips", "adjacent"),
    "perceptual": ("perceptual", "adjacent"), "forwards": (), "seconds": (),
}  # fmt: skip
TIES = {"target": 0.05}  # less than this is no difference; of other figures any is
Row = dict[str, Any]


def figures_of(said: Mapping[str, Any]) -> Row:
    """The figures of a film that `evaluate` has said, by name; those of a missing instrument are absent."""
    return {name: reduce(getitem, path, said) for name, path in FIGURES.items() if path and path[0] in said}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Mean over films, its 95 % bootstrap interval, and the share of pairs won against the first arm (ties half)."""

    mean: float
    low: float
    high: float
    wins: float

    def span(self, digits: int) -> str:
        """The interval in words; a dash where there are too few seeds for one."""
        return "-" if math.isinf(self.low) else f"{self.low:.{digits}f}..{self.high:.{digits}f}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm: figures by name, and shares of films by failure."""

    arm: str
    films: int
    figures: dict[str, Figure]
    failures: dict[str, float]


def summarise(rows: Sequence[Row]) -> list[Cell]:
    """A cell per arm in the order of the rows."""
    return [_cell(arm, rows) for arm in dict.fromkeys(row["arm"] for row in rows)]


def _cell(arm: str, all_rows: Sequence[Row]) -> Cell:
    rows, figures = [row for row in all_rows if row["arm"] == arm], {}
    for name in FIGURES:
        values = [(row["seed"], row[name]) for row in rows if row.get(name) is not None]
        if values:
            gaps = np.array([gap for _, gap in paired(all_rows, arm, all_rows[0]["arm"], name)])
            low, high = interval(values)
            tie = TIES.get(name, 0.0)
            wins = float(((gaps > tie) + 0.5 * (abs(gaps) <= tie)).mean()) if len(gaps) else 0.5
            figures[name] = Figure(mean=float(np.mean([v for _, v in values])), low=low, high=high, wins=wins)
    kinds = [kind for kind in rows[0]["failures"] if all(kind in row["failures"] for row in all_rows)]
    failures = {kind: float(np.mean([row["failures"][kind] for row in rows])) for kind in kinds}
    return Cell(arm=arm, films=len(rows), figures=figures, failures=failures)


def paired(rows: Sequence[Row], arm: str, other: str, figure: str) -> list[tuple[int, float]]:
    """(seed, how much larger a figure is in a film of `arm` than in its pair of `other`), where both have it."""
    there = {(row["scene"], row["seed"]): row.get(figure) for row in rows if row["arm"] == other}
    films = [
        (row["seed"], row.get(figure), there.get((row["scene"], row["seed"]))) for row in rows if row["arm"] == arm
    ]
    return [(seed, a - b) for seed, a, b in films if a is not None and b is not None]


def interval(values: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """95 % interval of the mean of (seed, value); without bounds below six seeds.

    Films of a seed share figure, place and calm, so seeds are what is drawn. Percentile bootstrap with tails widened
    for few draws (Hesterberg, arXiv 1411.5279, "expanded"); Student's t by its expansion (Abramowitz, Stegun 26.7.5).
    """
    means = seed_means(values)
    free = len(means) - 1
    if free < FEWEST - 1:
        return -math.inf, math.inf
    z = norm.ppf(0.975)
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    level = 1 - 2 * float(norm.cdf(-t * math.sqrt(len(means) / free)))
    settings = {"n_resamples": RESAMPLES, "confidence_level": level, "method": "percentile", "rng": 0}
    low, high = bootstrap((means,), np.mean, **settings).confidence_interval
    return float(low), float(high)


def seed_means(values: Sequence[tuple[int, float]]) -> NDArray[np.float64]:
    """Mean of each seed, in the order of the seeds."""
    return np.array([np.mean([v for s, v in values if s == seed]) for seed in sorted({seed for seed, _ in values})])


def chance(gains: NDArray[np.float64]) -> float:
    """How often the best of several arms, [arms, seeds] gains over one and the same, does as well by chance.

    The test that turns the signs of seeds, of up to 14 in every way: without any effect a seed's gains are as likely as
    their opposites. All arms turn together, so that arms which hardly differ cost nothing (Westfall and Young's max
    test). One-sided.
    """
    settings = {"permutation_type": "samples", "n_resamples": RESAMPLES, "alternative": "greater", "axis": 1, "rng": 0}
    return float(permutation_test((gains.round(12),), lambda x, axis: x.mean(axis).max(-1), **settings).pvalue)


def holm(chances: Sequence[float]) -> list[float]:
    """The p values of several tests, corrected so that all verdicts together are wrong as seldom as one would be.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979): the k-th smallest of m counts m - k + 1 times, and no
    less than those before it.
    """
    values = np.asarray(chances, dtype=float)
    order, rank = np.argsort(values), np.argsort(np.argsort(values))
    corrected = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return [float(p) for p in np.minimum(1.0, corrected)[rank]]
