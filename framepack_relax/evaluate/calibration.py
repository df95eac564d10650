"""From a sweep to an intensity profile: for each level of intensity the settings that serve it best on a model.

A level weighs what a film gains (the wanted action seen, motion) against what it costs (failures, another figure or
place). An arm must beat plain FramePack on the same films, by the lower end of a bootstrap interval over seeds; where
none does, the level stays at rest.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import EvaluationError
from ..plan.facts import ModelFacts
from ..plan.settings import choose_profile, relax_scene
from ..relax.profile import Relaxation, paper_profile, written
from ..storyboard import Guidance
from .spec import Job
from .statistics import Cell, Row, interval, paired, summarise

THRESHOLD = 0.25  # intensity up to which a scene is at rest, as in the paper's profile
FASTEST = 1.0  # short sides a second from which on more motion is no more gain
STRANGE = 0.1  # mean RGB difference from which on it is another place; likeness of embeddings follows the pose (LOG.md)
DOUBT = 0.1  # on both sides of an interval together, over all arms of a sweep (Bonferroni)
BROKEN = ("chaos", "collapse", "freeze", "snap-back")


@dataclass(frozen=True, kw_only=True)
class Level:
    """Weights of an intensity from `first` on, each on a figure between 0 and 1."""

    first: float
    target: float  # probability of the wanted action
    motion: float
    broken: float  # chaos, collapse, freeze or snap-back
    drift: float  # of colours from the shot's first frame


LEVELS = (
    Level(first=THRESHOLD, target=1.0, motion=0.0, broken=1.0, drift=1.0),
    Level(first=0.5, target=1.0, motion=0.5, broken=1.0, drift=0.5),
    Level(first=0.8, target=1.0, motion=1.0, broken=0.5, drift=0.25),
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An arm and what it gains over the first arm, in the level's own measure, with its 95 % interval."""

    arm: str
    gain: float
    low: float
    high: float


def utility(row: Row, level: Level) -> float:
    """What a film is worth; figures of missing judges count nothing."""
    gained = level.target * (row.get("target") or 0.0) + level.motion * min(1.0, row["motion"] / FASTEST)
    broken = any(row["failures"].get(kind, False) for kind in BROKEN)
    return gained - level.broken * broken - level.drift * min(1.0, row["drift"] / STRANGE)


def choose(rows: Sequence[Row], level: Level) -> Choice:
    """The arm with the largest gain among those that surely gain, else the first; more arms, wider intervals."""
    worth, first = [{**row, "worth": utility(row, level)} for row in rows], rows[0]["arm"]
    others = dict.fromkeys(row["arm"] for row in rows if row["arm"] != first)
    best = Choice(arm=first, gain=0.0, low=0.0, high=0.0)
    for arm in others:
        gaps = paired(worth, arm, first, "worth")
        low, high = interval(gaps, DOUBT / len(others))
        mean = float(np.mean([gap for _, gap in gaps]))
        if low > 0 and mean > best.gain:
            best = Choice(arm=arm, gain=mean, low=low, high=high)
    return best


def candidates(jobs: Sequence[Job], facts: ModelFacts) -> dict[str, Relaxation]:
    """What each arm comes to, less those with base scales of their own, which are the model's and not a profile's.

    Raises EvaluationError unless the first is plain FramePack and there is another.
    """
    stories = {job.arm.id: job.story for job in jobs if job.arm.guidance == Guidance()}
    made = {arm: relax_scene(story.scenes[-1], choose_profile(story, facts)) for arm, story in stories.items()}
    if len(made) < 2 or not next(iter(made.values())).at_rest:
        raise EvaluationError("to calibrate, the first arm must be at rest (intensity 0), and others stand beside it")
    return made


def calibrated_profile(rows: Sequence[Row], jobs: Sequence[Job], facts: ModelFacts) -> dict[str, Any]:
    """A profile file's mapping, with the figures that justify it."""
    arms = candidates(jobs, facts)
    rows = [row for row in rows if row["arm"] in arms]
    cells = {cell.arm: cell for cell in summarise(rows)}
    levels, figures = [], []
    for level in LEVELS:
        choice = choose(rows, level)
        levels.append([level.first, written(arms[choice.arm])])
        gain = [round(x, 3) for x in (choice.gain, choice.low, choice.high)]
        figures.append({"arm": choice.arm, "gain": gain, "weights": asdict(level), "means": _means(cells[choice.arm])})
    plain = cells[rows[0]["arm"]]
    return {
        "name": "calibrated",
        "threshold": THRESHOLD,
        "target": list((facts.profile or paper_profile(embedded=facts.embedded_guidance)).target),
        "levels": levels,
        "figures": {"films": plain.films, "at rest": _means(plain), "levels": figures},
    }


def _means(cell: Cell) -> dict[str, float]:
    named = {name: cell.figures[name].mean for name in ("target", "motion", "drift", "seam") if name in cell.figures}
    return {name: round(float(value), 3) for name, value in (named | cell.failures).items()}
