"""From a sweep to an intensity profile: for each level of intensity the settings that serve it best on a model.

A level weighs what a film gains (the wanted action seen, motion) against what it costs (failures, another figure or
place). An arm must beat plain FramePack on the same films, by the lower end of a 95 % bootstrap interval; where none
does, the level stays at rest.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..plan.facts import ModelFacts
from ..plan.settings import choose_profile, relax_scene
from ..relax.profile import Relaxation, written
from ..storyboard import Guidance
from .spec import Job
from .statistics import Cell, gap, interval, summarise
from .sweep import Row

THRESHOLD = 0.25  # intensity up to which a scene is at rest, as in the paper's profile
FASTEST = 1.0  # short sides a second from which on more motion is no more gain
BROKEN = ("chaos", "collapse", "freeze", "snap-back")


@dataclass(frozen=True, kw_only=True)
class Level:
    """Weights of an intensity from `first` on, each on a figure between 0 and 1."""

    first: float
    target: float  # probability of the wanted action
    motion: float
    broken: float  # chaos, collapse, freeze or snap-back
    identity: float  # 1 - cosine to the frame before the scene


LEVELS = (
    Level(first=THRESHOLD, target=1.0, motion=0.0, broken=1.0, identity=1.0),
    Level(first=0.5, target=1.0, motion=0.5, broken=1.0, identity=0.5),
    Level(first=0.8, target=1.0, motion=1.0, broken=0.5, identity=0.25),
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
    return gained - level.broken * broken - level.identity * (1 - row.get("identity", 1.0))


def choose(rows: Sequence[Row], level: Level) -> Choice:
    """The arm with the largest gain among those whose interval lies above 0, else the first arm."""
    worth, first = [{**row, "worth": utility(row, level)} for row in rows], rows[0]["arm"]
    best = Choice(arm=first, gain=0.0, low=0.0, high=0.0)
    for arm in dict.fromkeys(row["arm"] for row in rows):
        low, high = interval(gaps := gap(worth, arm, first, "worth"))
        if low > 0 and gaps.mean() > best.gain:
            best = Choice(arm=arm, gain=float(gaps.mean()), low=low, high=high)
    return best


def calibrated_profile(rows: Sequence[Row], jobs: Sequence[Job], facts: ModelFacts) -> dict[str, Any]:
    """A profile file's mapping, with the figures that justify it.

    Arms with base scales of their own are left out: those are the model's, not a profile's.
    """
    fitting = {job.arm.id for job in jobs if job.arm.guidance == Guidance()}
    rows = [row for row in rows if row["arm"] in fitting]
    cells = summarise(rows)
    found = {cell.arm: cell for cell in cells}
    levels, figures = [], []
    for level in LEVELS:
        choice = choose(rows, level)
        story = next(job.story for job in jobs if job.arm.id == choice.arm)
        levels.append([level.first, _said(relax_scene(story.scenes[-1], choose_profile(story, facts)))])
        said = {"arm": choice.arm, "gain": [round(x, 3) for x in (choice.gain, choice.low, choice.high)]}
        figures.append({**said, "weights": asdict(level), "means": _means(found[choice.arm])})
    plain = _means(found[rows[0]["arm"]])
    return {
        "name": "calibrated",
        "threshold": THRESHOLD,
        "levels": levels,
        "figures": {"films": cells[0].films, "at rest": plain, "levels": figures},
    }


def _said(relaxation: Relaxation) -> dict[str, Any]:
    """What a level must say: its target and strength, and what is not the default."""
    default = written(Relaxation(target=(), beta=0.0, p=0.0))
    said = {key: value for key, value in written(relaxation).items() if key == "beta" or value != default[key]}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}


def _means(cell: Cell) -> dict[str, float]:
    named = {name: cell.figures[name].mean for name in ("target", "motion", "identity", "seam") if name in cell.figures}
    return {name: round(float(value), 3) for name, value in (named | cell.failures).items()}
