"""Writes RESULTS.md, docs/results-appendix.md, the measured lines of other pages, plots and the packaged model's profile.

python scripts/results.py                     # from scripts/measured/films.jsonl
python scripts/results.py --films FILMS.jsonl # from a sweep's folder, which then is what is committed

The films are those of sweeps into one folder (make films); an arm that is not rendered yet is left out, and claims are
decided on the headline sweep's films where there are any.
"""

import argparse
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import appendix
import claims
from appendix import of_sweep, right
from claims import DOUBT, Decided
from matplotlib.figure import Figure

from framepack_relax.evaluate.action import SPAN_SECONDS
from framepack_relax.evaluate.calibration import calibrated_profile
from framepack_relax.evaluate.pages import plots
from framepack_relax.evaluate.rows import read_rows
from framepack_relax.evaluate.spec import jobs, read_sweep
from framepack_relax.evaluate.statistics import Row, summarise
from framepack_relax.families.catalog import PUPPET, SIDECAR, read_family
from framepack_relax.files import write_file

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "scripts" / "measured"
FILMS = MEASURED / "films.jsonl"
LEADING = ("headline", "ablation")  # of these the first sweep that is rendered leads, and claims are decided on it
LEAD = ("vanilla", "paper", "guidance relaxed", "guidance constant at the mean", "context")  # arms of the first table
PAGES = ("README.md", "docs/method.md")
BLOCK = re.compile(r"(<!-- measured -->\n).*?(\n<!-- /measured -->)", re.DOTALL)
COLUMNS = ("after a calm section", "films", "right action", "motion", "figure and place", "jump", "passes")
SOLVERS = {  # by sampler version
    1: "diffusers' UniPC (bh2), the default until sampler version 2",
    2: "FramePack's own UniPC",
}
INTRO = """# Results

Written by `python scripts/results.py` from `scripts/measured/films.jsonl`; [Measure and calibrate](docs/measuring.md) says how a
film is judged, and `make evidence` whether this page says what its films do.

Model: the packaged puppet (weights {weights}), by its own judges: one tiny model, from which nothing carries over to FramePack
without measuring it there. A film is 2.4 s of standing still, then 2.4 s in which the prompt asks for {scenes};
an arm acts on the second part. Every arm has the same noise after the same calm sections. {films} films, 25 steps each,
took {hours:.1f} h of one-thread processes. What leads are those of the sweep `{sweep}`, {seeds} of its {of} seeds, solved by
{solvers}.

## Five rows
"""
READING = """
*right action*: share of films in which the judge names it and which are not static. *motion*: short sides of the picture a second.
*figure and place*: share of frames that fit the film's own better than {rivals} others, where it is not asked to vanish. *jump*:
change at the scene's first frame, in levels of 255 (busiest 5 % of the pixels). *passes*: of the network, for the second part.

![Right action against jump at the border, the arms that lead](scripts/measured/pareto.png)

The arms of this sweep: films that show the right action against the jump that they cost; a larger dot takes more passes.
[The appendix](docs/results-appendix.md) has these and all other arms, the calibration, the paper's tables and the detectors.

## What the films say
"""
TESTS = """Each line was put to two tests that turn the signs of seeds, since films of a seed share figure, place and calm:
whether there is a difference, and whether it is smaller than would matter ({near}). *p* is that of
the test that decides, else the smaller, corrected by Holm over all {tests} tests; up to {doubt:g} it decides. The second takes for
granted that differences lie evenly about their mean: a loss of whole seeds, one in ten, escapes {seeds} seeds with a chance of
{unseen:.2g}. The difference is of *probability of the action* in the window of {window:.1f} s that shows it best, motion, figure and
place, or jump, with a 95 % interval by bootstrap over seeds that is not corrected. Two were measured otherwise when these films were
first looked at: the jump at all borders of the scene's sections, where motion adds to it, figure and place against one other (LOG.md)."""
TOO_FEW = """

**With {seeds} seeds nothing can be decided**, however large the difference: the smallest p that they can give is {least:.2g}, and
Holm's correction makes {all:.2g} of it. `framepack-relax sweep headline` renders enough."""


def solvers(rows: list[Row]) -> str:
    return " and ".join(SOLVERS[version] for version in sorted({row["sampler_version"] for row in rows}))


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def leading(rows: list[Row]) -> list[Row]:
    """The films that lead."""
    return next(filter(None, (of_sweep(rows, name) for name in LEADING)), [])


def five_rows(rows: list[Row]) -> list[str]:
    """The table that leads."""
    cells = {cell.arm: cell for cell in summarise(rows)}
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for arm in LEAD:
        if cell := cells.get(arm):
            mean = {name: figure.mean for name, figure in cell.figures.items()}
            said = [claims.CALLED[arm], str(cell.films), percent(right(rows, arm)), f"{mean['motion']:.2f}"]
            own = (row["identity"] for row in claims.counted(rows, "identity") if row["arm"] == arm)
            said += [percent(fmean(own)), f"{mean['border']:.1f}", f"{mean['forwards']:.0f}"]
            lines.append(f"| {' | '.join(said)} |")
    return lines


def too_few(rows: list[Row], decided: Sequence[Decided]) -> str:
    """That the films have too few seeds to decide anything, if so."""
    tests, seeds = 2 * len(decided), len({row["seed"] for row in rows})
    least = 2 / 2**seeds
    said = TOO_FEW.format(seeds=seeds, least=least, all=min(1, least * tests))
    return said if least * tests > DOUBT else ""


def text(rows: list[Row], decided: Sequence[Decided]) -> str:
    """RESULTS.md."""
    films, lead = list({row["key"]: row for row in rows}.values()), leading(rows)
    sweep = next(name for name in LEADING if of_sweep(rows, name))
    of = read_sweep(sweep)
    head = INTRO.format(
        weights=" and ".join(sorted({f"{row['weights']} in {row['dtype']}" for row in rows})),
        scenes=", ".join(dict.fromkeys(row["scene"] for row in lead)),
        films=len(films),
        solvers=solvers(lead),
        hours=sum(row["wall"] for row in films) / 3600,
        sweep=sweep,
        seeds=len({row["seed"] for row in lead}),
        of=of.seeds,
    )
    near = ", ".join(f"{name} {value:g}" for name, value in claims.NEAR.items())
    seeds = len({row["seed"] for row in lead})
    facts = {"seeds": seeds, "unseen": 0.9**seeds, "window": SPAN_SECONDS}
    tests = TESTS.format(near=near, tests=2 * len(decided), doubt=DOUBT, **facts)
    reading = READING.format(rivals=len({(start.who, start.where) for start in of.starts}) - 1)
    said = [head, *five_rows(lead), reading, tests + too_few(lead, decided), "", *claims.table(decided)]
    return "\n".join(said) + "\n"


def block(rows: list[Row], decided: Sequence[Decided], home: str) -> str:
    """The measured lines of a page that has RESULTS.md at `home`: the shares of five arms, the sentences that lead."""
    lead = leading(rows)
    seeds, scenes = (len({row[name] for row in lead}) for name in ("seed", "scene"))
    count = " to ".join(map(str, sorted({cell.films for cell in summarise(lead)})))
    there = [arm for arm in LEAD if any(row["arm"] == arm for row in lead)]
    lines = ["| after a calm section, on the packaged model | films that show the wanted action |", "|---|---|"]
    lines += [f"| {claims.CALLED[arm]} | {percent(right(lead, arm))} |" for arm in there]
    films = f"{count} films a row: {scenes} actions, {seeds} seeds. Tests select these words ([how]({home}RESULTS.md)):"
    said = (f"- {one.sentence}" for one in decided if one.claim.lead)
    return "\n".join([*lines, "", films, "", *said]) + too_few(lead, decided) + "\n"


def written(rows: list[Row], decided: Sequence[Decided]) -> dict[str, str]:
    """Every page that the films decide, by its place in the repository."""
    made = {
        "RESULTS.md": text(rows, decided),
        "docs/results-appendix.md": appendix.text(rows, leading(rows), solvers(of_sweep(rows, "ablation"))),
    }
    for name in PAGES:
        said = block(rows, decided, "../" * name.count("/"))
        made[name] = BLOCK.sub(rf"\g<1>\n{said}\2", (ROOT / name).read_text(encoding="utf8"))
    return made


def pareto(rows: list[Row]) -> bytes:
    """PNG: right action against the jump at the border; named are the rows that lead and what no arm beats in both."""
    cells = {cell.arm: cell for cell in summarise(rows)}
    at = {arm: (cell.figures["border"].mean, 100 * right(rows, arm)) for arm, cell in cells.items()}
    beaten = {one for one in at.values() for x, y in at.values() if x <= one[0] and y >= one[1] and (x, y) != one}
    best = [arm for arm, place in at.items() if place not in beaten]
    plot = Figure(figsize=(8, 5), layout="constrained")
    axes = plot.subplots()
    named: dict[str, list[str]] = {}
    for arm in dict.fromkeys([*(arm for arm in LEAD if arm in at), *best]):
        near = (other for other in named if abs(at[other][1] - at[arm][1]) < 3 and abs(at[other][0] - at[arm][0]) < 4)
        if (beside := next(near, None)) is None:
            named[arm] = [arm]
        elif arm in LEAD:
            named[beside].append(arm)
    for arm, place in sorted(at.items(), key=lambda one: one[0] in LEAD):  # these on top
        colour = "#d6741a" if arm in LEAD else "#2463be" if arm in best else "#b8c4d8"
        axes.scatter(*place, s=cells[arm].figures["forwards"].mean, color=colour, alpha=0.7, linewidths=0)
    middle = max(x for x, _ in at.values()) / 2
    for arm, arms in named.items():
        side = {"xytext": (-8, -3), "ha": "right"} if at[arm][0] > middle else {"xytext": (8, -3)}
        said = ", ".join(claims.CALLED.get(one, one) for one in arms)
        axes.annotate(said, at[arm], textcoords="offset points", fontsize=8, **side)
    axes.set(xlabel="jump at the scene border, levels of 255", ylabel="films with the right action, %")
    axes.set(xlim=(0, None), ylim=(0, 105))
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    plot.savefig(buffer, dpi=100)
    return buffer.getvalue()


def profile(rows: list[Row]) -> dict[str, Any]:
    """What `framepack-relax calibrate` makes of these films."""
    return calibrated_profile(of_sweep(rows, "calibration"), jobs(read_sweep("calibration")), read_family(PUPPET))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, help="a sweep's films.jsonl, copied to scripts/measured first")
    given = parser.parse_args()
    if given.films:
        shutil.copy(given.films, FILMS)
    rows = read_rows(FILMS)
    for name, picture in plots(summarise(of_sweep(rows, "ablation"))).items():
        write_file(MEASURED / name, picture)
    write_file(MEASURED / "pareto.png", pareto(leading(rows)))
    for name, page in written(rows, claims.decide(leading(rows))).items():
        (ROOT / name).write_text(page, encoding="utf8")
    facts = json.loads((PUPPET / SIDECAR).read_text(encoding="utf8"))
    facts["profile"] = profile(rows)
    (PUPPET / SIDECAR).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
