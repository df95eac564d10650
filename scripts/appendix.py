"""docs/results-appendix.md: every arm, the calibration, the paper's tables, the detectors."""

import json
from collections.abc import Sequence
from pathlib import Path

import blind
import footage

from framepack_relax.evaluate.calibration import DOUBT, LEVELS, choose, ranked
from framepack_relax.evaluate.pages import PLOTTED
from framepack_relax.evaluate.rows import read_rows
from framepack_relax.evaluate.spec import read_sweep
from framepack_relax.evaluate.statistics import Cell, Row, summarise

MEASURED = Path(__file__).parent / "measured"
DETECTORS, FOOTAGE = MEASURED / "detectors.json", MEASURED / "footage.jsonl"
PAPER = {  # its table 1: probability of the class somersaulting, and the class seen
    -1.0: ".007, spinning poi", -0.5: ".013, breakdancing", 0.0: ".004, static (dancing)", 0.5: ".130, somersaulting",
    0.75: ".394, somersaulting", 1.0: ".028, capoeira",
}  # fmt: skip
PAPER_P = {0.7: ".028, capoeira", 1.0: ".026, capoeira", 2.1: ".019, capoeira"}  # its table 2, at beta 1
COLUMNS = (
    "arm", "films", "right action", "its probability", "motion", "identity", "jump", "perceptual", "fit", "static",
    "snap-back", "freeze", "other action", "chaos, collapse", "passes",
)  # fmt: skip

INTRO = """# Results: the further tables

Written by `python scripts/results.py`; [Results](../RESULTS.md) says how they are read. No claim is made of a difference here: of
so many some are large by chance.

*its probability*: of the wanted action, as the judge sees it in the window that shows it best. *identity*: share of frames that fit
the film's own figure and place better than any other start's (where the figure has vanished, by chance). *jump*: largest change at
any border of its sections, in levels of 255; motion adds to it, which the jump of [Results](../RESULTS.md) leaves out. *perceptual*:
distance of features [from frame to frame](measuring.md), where it was measured; LPIPS was not. *fit*: cosine to the prompt. In
brackets: 95 % intervals by bootstrap over seeds.

## The arms that lead
"""
OLDER = """
## The ablation

These films and those of the tables that follow are of other seeds and starts, solved by {solvers}.
*snap-back*, *chaos* and *collapse* are what the detectors of their time called; the present ones are below.
"""
CALIBRATION = """
## Calibration

For each level of intensity the arm that gains most over the plain model, in the level's own weights
(`framepack_relax/evaluate/calibration.py`): target {target}, motion {motion}, failures {broken}, another figure or
place {strange}, jump {jump}, one number per level. *chance*: how often the best of all {arms} arms does as
well without any effect; over {doubt:g} the level stays at rest. The best of many gains is larger than it will be again; the
next two follow.

| from intensity | arm | gain | chance | next |
|---|---|---|---|---|
"""
SEEN = """
## The judge and the eye

Forty films of {arms} arms and {seeds} seeds that no other sweep has, half of them named static by the judge where there were enough
([the sheet](../scripts/measured/blind.png), `python scripts/blind.py`): marked by one reader of the sheet who did not see the key,
against what the action judge names. *broken*: more than one figure, or none that moves as a figure can; limbs that come loose in a
flip were let pass.
"""
DRAWN = """
## The detectors

On drawn clips with the failure built in (`python scripts/failures.py --count 20`), and on the rendered films that lead. One that
shows the right action is called static or snapped back wrongly:
"""


def of_sweep(rows: Sequence[Row], name: str) -> list[Row]:
    """The films of one sweep, in the order of its arms."""
    sweep = read_sweep(name)
    scenes, seeds = {scene.id for scene in sweep.scenes}, range(sweep.first_seed, sweep.first_seed + sweep.seeds)
    films = [row for row in rows if row["scene"] in scenes and row["seed"] in seeds]
    return [row for arm in sweep.arms for cell in arm.cells() for row in films if row["arm"] == cell.id]


def right(rows: Sequence[Row], arm: str) -> float:
    """Share of films in which the judge names the wanted action and something moves."""
    named = [row["named"] == row["scene"] and not row["failures"]["static"] for row in rows if row["arm"] == arm]
    return sum(named) / len(named)


def figures(cell: Cell, named: float) -> str:
    """A row of a table of arms."""
    means = {name: figure.mean for name, figure in cell.figures.items()}
    said = [cell.arm, str(cell.films), f"{named:.2f}"]
    said += [f"{means[name]:.2f} ({cell.figures[name].span(2)})" for name in ("target", "motion")]
    said += [costs(cell), f"{means['perceptual']:.3f}" if "perceptual" in means else "-", f"{means['text']:.2f}"]
    said += [f"{cell.failures[kind]:.2f}" for kind in ("static", "snap-back", "freeze", "over-relaxed")]
    said += [f"{cell.failures['chaos'] + cell.failures['collapse']:.2f}", f"{means['forwards']:.0f}"]
    return f"| {' | '.join(said)} |"


def costs(cell: Cell) -> str:
    """What stands beside every motion figure: identity and jump."""
    return f"{cell.figures['identity'].mean:.2f} | {cell.figures['jump'].mean:.0f}"


def arms_table(rows: list[Row]) -> list[str]:
    head = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    return head + [figures(cell, right(rows, cell.arm)) for cell in summarise(rows)]


def scenes_table(rows: list[Row]) -> list[str]:
    """Probability of the wanted action, by scene."""
    scenes = list(dict.fromkeys(row["scene"] for row in rows))
    lines = [f"| arm | {' | '.join(scenes)} |", "|---" * (1 + len(scenes)) + "|"]
    by_scene = [
        {cell.arm: cell for cell in summarise([row for row in rows if row["scene"] == scene])} for scene in scenes
    ]
    for arm in by_scene[0]:
        said = [f"{cells[arm].figures['target'].mean:.2f}" if arm in cells else "-" for cells in by_scene]
        lines.append(f"| {arm} | {' | '.join(said)} |")
    return lines


def paper_table(rows: list[Row], paper: dict[float, str], suffix: str) -> list[str]:
    """Backflips at the paper's settings beside the paper's figure."""
    cells = {cell.arm: cell for cell in summarise([row for row in rows if row["scene"] == "backflip"])}
    head = "| | the paper's VideoMAE, another judge: not to be compared | here: judge's probability | static | motion | identity | jump |"
    lines = [head, "|---" * 7 + "|"]
    for arm, said in {"vanilla": "-", **{suffix.format(value): said for value, said in paper.items()}}.items():
        if arm in cells:
            target, motion = cells[arm].figures["target"], cells[arm].figures["motion"]
            lines.append(
                f"| {arm} | {said} | {target.mean:.2f} ({target.span(2)}) | "
                f"{cells[arm].failures['static']:.2f} | {motion.mean:.2f} | {costs(cells[arm])} |"
            )
    return lines


def calibration_table(rows: list[Row]) -> list[str]:
    """The head of the calibration, and a row per level with what came next."""
    weights = {name: ", ".join(f"{getattr(level, name):g}" for level in LEVELS) for name in vars(LEVELS[0])}
    found = [(level, choose(rows, level), ranked(rows, level)) for level in LEVELS]
    lines = [CALIBRATION.format(**weights, arms=len(found[0][2]), doubt=DOUBT).rstrip("\n")]
    for level, best, others in found:
        after = ", ".join(
            f"{c.arm} {c.gain:+.2f} ({c.low:+.2f}..{c.high:+.2f})" for c in [o for o in others if o.arm != best.arm][:2]
        )
        gain = f"{best.gain:+.2f} ({best.low:+.2f}..{best.high:+.2f}) | {others[0].chance:.4f}"
        lines.append(f"| {level.first:g} | {best.arm} | {gain} | {after} |")
    return lines


def detectors_table(rows: list[Row]) -> list[str]:
    """Precision and recall on drawn clips, and what the same detectors call rendered films."""
    said = json.loads(DETECTORS.read_text(encoding="utf8"))
    kinds = list(said)
    lines = [
        "| drawn | clips | called | precision | recall | rendered films called so | of these show the right action |",
        "|---" * 7 + "|",
    ]
    for kind, row in said.items():
        precision = row.get(kind, 0) / max(1, sum(other.get(kind, 0) for other in said.values()))
        others = ", ".join(f"{row[name]} {name}" for name in kinds if name != kind and row.get(name))
        flagged = [film for film in rows if film["failures"].get(kind, False)]
        if kind == "sound":
            flagged = [film for film in rows if not any(film["failures"].values())]
        shown = sum(film["named"] == film["scene"] for film in flagged)
        counts = f"{precision:.2f} | {row.get(kind, 0) / sum(row.values()):.2f} | {len(flagged)} | {shown}"
        lines.append(f"| {kind} | {sum(row.values())} | {others or 'all right'} | {counts} |")
    return lines


def text(rows: list[Row], lead: list[Row], solvers: str) -> str:
    """docs/results-appendix.md; `solvers` are those of the ablation."""
    ablation, calibration, first, second = (
        of_sweep(rows, name) for name in ("ablation", "calibration", "paper-table-1", "paper-table-2")
    )
    key = read_rows(blind.KEY, blind.Keyed)
    plots = " ".join(f"![{name}](../scripts/measured/{name}.png)" for name in PLOTTED)
    parts = [
        INTRO,
        *arms_table(lead),
        OLDER.format(solvers=solvers),
        *arms_table(ablation),
        f"\n{plots}\n",
        "Probability of the wanted action by scene:\n",
        *scenes_table(ablation),
        *calibration_table(calibration),
        "",
        *arms_table(calibration),
        "\n## The paper's table 1: beta, backflips\n",
        *paper_table(first, PAPER, "paper beta {}"),
        "\nWith jumps:\n",
        *arms_table(first),
        "\n## The paper's table 2: p at beta 1, backflips\n",
        *paper_table(second, PAPER_P, "paper beta 1.0 p {}"),
        "\nWith jumps, and at beta 0.75:\n",
        *arms_table(second),
        SEEN.format(**{f"{name}s": len({row[name] for row in key}) for name in ("arm", "seed")}),
        *blind.confusion(),
        DRAWN,
        *detectors_table(lead),
        footage.INTRO,
        *footage.tables([json.loads(line) for line in FOOTAGE.read_text(encoding="utf8").splitlines()]),
    ]
    return "\n".join(parts) + "\n"
