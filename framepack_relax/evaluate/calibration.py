"""From a sweep to an intensity profile: for each level of intensity the settings that serve it best on a model.

A level weighs what a film gains (the wanted action seen, motion) against what it costs (failures, another figure or
place, a jump at the section border). The arm that gains most over the plain model on the same films is taken, unless
the best of as many arms would do as well by chance; then the level stays at rest.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import EvaluationError
from ..families.base import Family
from ..planning.settings import choose_profile, paper_of, relax_scene
from ..relax.profile import Relaxation, written
from ..storyboard import Guidance
from .spec import Job
from .statistics import Cell, Row, chance, interval, paired, seed_means, summarise

THRESHOLD = 0.25  # intensity up to which a scene is at rest, as in the paper's profile
FASTEST = 1.0  # short sides a second from which on more motion is no more gain
CUT = 50.0  # levels of 255 in the busiest 5 % of the pixels from which on a jump is a cut
DOUBT = 0.025  # largest probability that the choice is chance
BROKEN = ("chaos", "freeze", "snap-back")  # not where the judge sees the wanted action: jumps come back, too


@dataclass(frozen=True, kw_only=True)
class Level:
    """Weights of an intensity from `first` on, each on a figure between 0 and 1."""

    first: float
    target: float  # probability of the wanted action
    motion: float
    broken: float  # collapse; chaos, freeze or snap-back where the wanted action is not seen
    strange: float  # another figure or place than the film's own
    jump: float  # at the section border


LEVELS = (
    Level(first=THRESHOLD, target=1.0, motion=0.0, broken=1.0, strange=1.0, jump=1.0),
    Level(first=0.5, target=1.0, motion=0.5, broken=1.0, strange=0.5, jump=0.5),
    Level(first=0.8, target=1.0, motion=1.0, broken=0.5, strange=0.25, jump=0.25),
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An arm and what it gains over the first arm, in the level's own measure, with its 95 % interval.

    The largest of many gains is larger than the arm's true one: `chance` takes that into account, the interval not.
    """

    arm: str
    gain: float
    low: float
    high: float
    chance: float = 1.0


def utility(row: Row, level: Level) -> float:
    """What a film is worth; figures of missing judges count nothing."""
    seen, failed = row.get("target") or 0.0, row["failures"].get
    gained = level.target * seen + level.motion * min(1.0, row["motion"] / FASTEST)
    broken = failed("collapse", False) or (seen < 0.5 and any(failed(kind, False) for kind in BROKEN))
    lost = level.broken * broken + level.strange * (1 - row.get("identity", 1.0))
    return gained - lost - level.jump * min(1.0, row.get("jump", 0.0) / CUT)


def ranked(rows: Sequence[Row], level: Level) -> list[Choice]:
    """Every arm but the first by what it gains, best first; `chance` is that of the best of them all."""
    worth, first = [{**row, "worth": utility(row, level)} for row in rows], rows[0]["arm"]
    arms = list(dict.fromkeys(row["arm"] for row in rows if row["arm"] != first))
    common = set.intersection(*({row["seed"] for row in rows if row["arm"] == arm} for arm in (first, *arms)))
    gaps = {arm: [gap for gap in paired(worth, arm, first, "worth") if gap[0] in common] for arm in arms}
    gains = {arm: seed_means(found) for arm, found in gaps.items()}
    # an arm that is surely worse would pass for a sure gain when its signs are turned (Hansen's test, 2005)
    rivals = [found for found in gains.values() if chance(-found[None]) > DOUBT]
    doubt = chance(np.array(rivals)) if rivals else 1.0
    made = []
    for arm in sorted(arms, key=lambda name: -gains[name].mean()):
        low, high = interval(gaps[arm])
        made.append(Choice(arm=arm, gain=float(gains[arm].mean()), low=low, high=high, chance=doubt))
    return made


def choose(rows: Sequence[Row], level: Level) -> Choice:
    """The arm that gains most, else the first, which is the plain model."""
    best = ranked(rows, level)[0]
    if best.gain > 0 and best.chance <= DOUBT:
        return best
    return Choice(arm=rows[0]["arm"], gain=0.0, low=0.0, high=0.0)


def candidates(jobs: Sequence[Job], family: Family) -> dict[str, Relaxation]:
    """What each arm comes to, less those that no profile could say: with scales or words of their own, or ensured.

    Raises EvaluationError unless the first is the plain model and there is another.
    """
    usual = {"guidance": Guidance(), "ensure": None, "negative_prompt": None, "emphasis": None}
    stories = {job.arm.id: job.story for job in jobs if usual.items() <= dict(job.arm).items()}
    made = {arm: relax_scene(story.scenes[-1], choose_profile(story, family)) for arm, story in stories.items()}
    if len(made) < 2 or not next(iter(made.values())).at_rest:
        raise EvaluationError("to calibrate, the first arm must be at rest (intensity 0), and others stand beside it")
    return made


def calibrated_profile(rows: Sequence[Row], jobs: Sequence[Job], family: Family) -> dict[str, Any]:
    """A profile file's mapping, with the figures that justify it."""
    arms = candidates(jobs, family)
    rows = [row for row in rows if row["arm"] in arms]
    cells = {cell.arm: cell for cell in summarise(rows)}
    levels, figures = [], []
    for level in LEVELS:
        best = choose(rows, level)
        levels.append([level.first, written(arms[best.arm])])
        gain, doubt = [round(x, 3) for x in (best.gain, best.low, best.high)], round(best.chance, 4)
        means = _means(cells[best.arm])
        figures.append({"arm": best.arm, "gain": gain, "chance": doubt, "weights": asdict(level), "means": means})
    plain = cells[rows[0]["arm"]]
    return {
        "name": "calibrated",
        "threshold": THRESHOLD,
        "target": list((family.profile or paper_of(family)).target),
        "levels": levels,
        "figures": {"films": plain.films, "at rest": _means(plain), "levels": figures},
    }


def _means(cell: Cell) -> dict[str, float]:
    named = {name: cell.figures[name].mean for name in ("target", "motion", "identity", "jump") if name in cell.figures}
    return {name: round(float(value), 3) for name, value in (named | cell.failures).items()}
