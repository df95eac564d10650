"""Writes RESULTS.md, its plots and the packaged model's profile from the committed films of the sweeps.

python scripts/results.py                     # from scripts/measured/films.jsonl
python scripts/results.py --films FILMS.jsonl # from a sweep's folder, which then is what is committed

The films are those of four sweeps into one folder; an arm that is not rendered yet is left out:
for sweep in ablation calibration paper-table-1 paper-table-2; do
  framepack-relax sweep $sweep --dtype bfloat16 --out out/evidence
done
"""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from framepack_relax.evaluate.calibration import LEVELS, Choice, Level, calibrated_profile, choose
from framepack_relax.evaluate.pages import save_plots
from framepack_relax.evaluate.spec import jobs, read_sweep
from framepack_relax.evaluate.statistics import Cell, Row, interval, paired, summarise
from framepack_relax.evaluate.sweep import read_rows
from framepack_relax.models.catalog import PUPPET
from framepack_relax.plan.facts import SIDECAR, read_facts

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "scripts" / "measured"
FILMS = MEASURED / "films.jsonl"
PAPER = {  # its table 1: probability of the class somersaulting, and the class seen
    -1.0: ".007, spinning poi", -0.5: ".013, breakdancing", 0.0: ".004, static (dancing)", 0.5: ".130, somersaulting",
    0.75: ".394, somersaulting", 1.0: ".028, capoeira",
}  # fmt: skip
PAPER_P = {0.7: ".028, capoeira", 1.0: ".026, capoeira", 2.1: ".019, capoeira"}  # its table 2, at beta 1


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`arm` has more of `figure` than `other`."""

    said: str
    figure: str
    arm: str
    other: str = "vanilla"


CLAIMS = (
    Claim(said="The paper's settings show the action more surely", figure="target", arm="paper"),
    Claim(said="Relaxing text guidance does", figure="target", arm="text relaxed"),
    Claim(said="... more than constant guidance of the same step mean", figure="target", arm="text relaxed",
          other="text constant at the mean"),
    Claim(said="... more than constant guidance of the same area", figure="target", arm="text relaxed",
          other="text constant at the area"),
    Claim(said="Plain guidance is better than boosted", figure="target", arm="vanilla", other="boost"),
    Claim(said="Stronger text guidance shows the action more surely", figure="target", arm="text twice as strong"),
    Claim(said="Blurring the section raises motion", figure="motion", arm="blur section"),
    Claim(said="Blurring keys alone keeps more motion than values alone", figure="motion", arm="blur section K",
          other="blur section V"),
    Claim(said="Blur adds to relaxed guidance", figure="target", arm="paper", other="text relaxed"),
    Claim(said="Blurring the history shows the action more surely", figure="target", arm="blur history"),
    Claim(said="Loosening the context shows the action more surely", figure="target", arm="context"),
    Claim(said="... raises motion", figure="motion", arm="context"),
    Claim(said="... more surely than constantly loosened context of the same mean", figure="target", arm="context",
          other="context constant at the mean"),
    Claim(said="... costs a jump at the section border", figure="seam", arm="context"),
    Claim(said="... costs likeness", figure="identity", arm="vanilla", other="context"),
    Claim(said="Biasing the history's keys shows the action more surely", figure="target", arm="history bias 0.5"),
    Claim(said="... costs a jump at the section border", figure="seam", arm="history bias 0.5"),
    Claim(said="Biasing the start image's keys shows it more surely", figure="target", arm="reference bias 0.5"),
    Claim(said="... costs likeness", figure="identity", arm="vanilla", other="reference bias 0.5"),
    Claim(said="ALG raises motion", figure="motion", arm="ALG"),
    Claim(said="Text guidance in the first steps alone shows it more surely than in the middle alone", figure="target",
          arm="text early only", other="text in the middle only"),
    Claim(said="The paper's beta 0.75 shows it more surely than 0.5", figure="target", arm="paper", other="paper mild"),
    Claim(said="... than 1.0", figure="target", arm="paper", other="paper over"),
    Claim(said="The paper's p 0.7 shows it more surely than 2.1", figure="target", arm="paper", other="paper rapid"),
    Claim(said="Relaxing in sigma shows it more surely than in time", figure="target", arm="text relaxed",
          other="text linear in time"),
    Claim(said="Blurring the history shows it more surely than the section", figure="target", arm="blur history",
          other="blur section"),
    Claim(said="Blur before RoPE lowers motion less than after", figure="motion", arm="blur section before RoPE",
          other="blur section"),
    Claim(said="Blur that fades with sigma lowers motion less than constant blur", figure="motion",
          arm="blur section early", other="blur section"),
    Claim(said="Relaxing text as well takes from loosened context", figure="target", arm="context",
          other="text and context"),
    Claim(said="Bias at all steps shows it more surely than in the first alone", figure="target",
          arm="history bias 0.5 at all steps", other="history bias 0.5"),
)  # fmt: skip
KNOBS: dict[str, dict[str, str]] = {  # what is turned, and the arm at each value
    "beta of text and blur, the paper's (p 0.7, blur 0.6)": {
        "0": "blur section", "0.5": "paper mild", "0.75": "paper", "1": "paper over",
    },
    "beta of text alone (p 0.7)": {"-1": "boost whole", "-0.5": "boost", "0": "vanilla", "0.75": "text relaxed"},
    "beta of context (p 0.7)": {"0": "vanilla", "0.4": "context mild", "0.75": "context", "1": "context whole"},
    "p of the paper's (beta 0.75, blur 0.6)": {"0.7": "paper", "1": "paper linear", "2.1": "paper rapid"},
    "p of context (beta 0.75)": {"0.7": "context", "2.1": "context rapid"},
    "what is blurred (0.6, section)": {"nothing": "vanilla", "K": "blur section K", "V": "blur section V",
                                       "K and V": "blur section"},
    "where it is blurred": {"after RoPE": "blur section", "before RoPE": "blur section before RoPE",
                            "after, fading with sigma": "blur section early"},
    "scope of the blur": {"section": "blur section", "history": "blur history", "reference": "blur reference",
                          "all": "blur all"},
    "bias 0.5": {"history, sigma > 0.7": "history bias 0.5", "history, all steps": "history bias 0.5 at all steps",
                 "start image, sigma > 0.7": "reference bias 0.5"},
    "targets (beta 0.75)": {"none": "vanilla", "embedded": "embedded", "text": "text relaxed", "context": "context",
                            "embedded, text": "embedded and text", "embedded, context": "embedded and context",
                            "text, context": "text and context", "all three": "all three"},
}  # fmt: skip


def verdict(rows: list[Row], claim: Claim) -> str:
    """The paired difference with its interval, and what it says."""
    gaps = paired(rows, claim.arm, claim.other, claim.figure)
    low, high = interval(gaps)
    says = "holds" if low > 0 else "does not hold" if high < 0 else "not decided"
    return f"{mean(gap for _, gap in gaps):+.3f} ({low:+.3f}..{high:+.3f}), {len(gaps)} pairs | {says}"


def of_sweep(rows: list[Row], name: str) -> list[Row]:
    """The films of one sweep, in the order of its arms."""
    sweep, _ = read_sweep(name)
    scenes = {scene.id for scene in sweep.scenes}
    arms = [cell.id for arm in sweep.arms for cell in arm.cells()]
    return [row for arm in arms for row in rows if row["arm"] == arm and row["scene"] in scenes]


def figures(cell: Cell, named: float) -> str:
    """A row of a table of arms."""
    said = [cell.arm, str(cell.films), f"{named:.2f}"]
    for name in ("target", "motion"):
        f = cell.figures[name]
        said.append(f"{f.mean:.2f} ({f.span(2)}), {f.wins:.2f}")
    said += [f"{cell.figures[name].mean:.2f}" for name in ("identity", "seam")]
    said += [f"{cell.failures[kind]:.2f}" for kind in ("static", "snap-back", "freeze", "over-relaxed")]
    said.append(f"{cell.failures['chaos'] + cell.failures['collapse']:.2f}")
    said.append(f"{cell.figures['forwards'].mean:.0f}" if "forwards" in cell.figures else "-")
    return f"| {' | '.join(said)} |"


COLUMNS = (
    "arm", "films", "right action", "its probability, won", "motion, won", "likeness", "seam", "static", "snap-back",
    "freeze", "other action", "chaos, collapse", "forwards",
)  # fmt: skip
INTRO = """# Results

Written by `python scripts/results.py` from `scripts/measured/films.jsonl`; README.md says how a film is judged.

Model: the packaged puppet (weights {weights}). A film is 2.4 s of standing still, then 2.4 s in which the prompt asks
for {scenes}; an arm acts on the second part. {seeds} seeds, each with its own figure and place; every arm has the same
noise after the same calm sections. {films} films in all, {hours:.1f} h of sampling. In brackets are 95 % intervals, by
bootstrap over the seeds (one claim in twenty may be decided by chance); *won* is the share of pairs with more than
vanilla, *likeness* the cosine of the text judge's embeddings to the frame before the scene (another pose lowers it
too), *seam* the change at the section border over the usual one. One tiny model whose text base scale is 2: nothing
here carries over to FramePack without measuring it there.

## What holds

| claim | figure | paired difference | verdict |
|---|---|---|---|
"""
CALIBRATION = """
## Calibration

For each level of intensity the arm with the largest sure gain over vanilla, in the level's own weights
(`framepack_relax/evaluate/calibration.py`); vanilla where none has one:

| from intensity | arm | gain |
|---|---|---|
"""


def right(rows: list[Row], arm: str) -> float:
    """Share of films in which the judge names the wanted action."""
    named = [row["named"] == row["scene"] for row in rows if row["arm"] == arm]
    return sum(named) / len(named)


def arms_table(rows: list[Row]) -> list[str]:
    head = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    return head + [figures(cell, right(rows, cell.arm)) for cell in summarise(rows)]


def scenes_table(rows: list[Row]) -> list[str]:
    """Probability of the wanted action, by scene."""
    scenes = list(dict.fromkeys(row["scene"] for row in rows))
    lines = [f"| arm | {' | '.join(scenes)} |", "|---" * (1 + len(scenes)) + "|"]
    by_scene = [{cell.arm: cell for cell in summarise(rows, scene=scene)} for scene in scenes]
    for arm in by_scene[0]:
        said = [f"{cells[arm].figures['target'].mean:.2f}" if arm in cells else "-" for cells in by_scene]
        lines.append(f"| {arm} | {' | '.join(said)} |")
    return lines


def knobs_table(rows: list[Row]) -> list[str]:
    """One knob at a time: what an arm shows at each of its values."""
    cells = {cell.arm: cell for cell in summarise(rows)}
    lines = ["| knob | value | right action | motion | seam | static |", "|---" * 6 + "|"]
    for knob, arms in KNOBS.items():
        for value, arm in arms.items():
            if cell := cells.get(arm):
                figures = [f"{cell.figures[name].mean:.2f}" for name in ("motion", "seam")]
                said = [knob, value, f"{right(rows, arm):.2f}", *figures, f"{cell.failures['static']:.2f}"]
                lines.append(f"| {' | '.join(said)} |")
    return lines


def paper_table(rows: list[Row], paper: dict[float, str], suffix: str) -> list[str]:
    """Backflips at the paper's settings beside the paper's figure."""
    cells = {cell.arm: cell for cell in summarise(rows, scene="backflip")}
    lines = ["| | paper: VideoMAE | here: judge's probability | static | motion |", "|---|---|---|---|---|"]
    for value, said in paper.items():
        arm = suffix.format(value)
        if arm in cells:
            target, motion = cells[arm].figures["target"], cells[arm].figures["motion"]
            lines.append(
                f"| {arm} | {said} | {target.mean:.2f} ({target.span(2)}) | "
                f"{cells[arm].failures['static']:.2f} | {motion.mean:.2f} |"
            )
    return lines


def text(rows: list[Row]) -> str:
    """RESULTS.md."""
    ablation, calibration = of_sweep(rows, "ablation"), of_sweep(rows, "calibration")
    first, second = of_sweep(rows, "paper-table-1"), of_sweep(rows, "paper-table-2")
    films = {row["key"]: row for row in rows}.values()
    there = {row["arm"] for row in ablation}
    claims = [claim for claim in CLAIMS if {claim.arm, claim.other} <= there]
    parts = [
        INTRO.format(
            weights=" and ".join(sorted({f"{row['weights']} in {row['dtype']}" for row in rows})),
            scenes=", ".join(dict.fromkeys(row["scene"] for row in ablation)),
            seeds=len({row["seed"] for row in ablation}),
            films=len(films),
            hours=sum(row.get("seconds", 0.0) for row in films) / 3600,
        ).rstrip("\n"),
        *(f"| {c.said} | {c.figure} | {verdict(ablation, c)} |" for c in claims),
        "\n## Ablation\n",
        *arms_table(ablation),
        "\n![probability of the action](scripts/measured/target.png) ![motion](scripts/measured/motion.png)",
        "![likeness](scripts/measured/identity.png) ![seam](scripts/measured/seam.png)\n",
        "Probability of the wanted action by scene:\n",
        *scenes_table(ablation),
        "\n## Knob by knob\n",
        *knobs_table([*ablation, *(row for row in calibration if row["arm"] not in there)]),
        CALIBRATION.rstrip("\n"),
        *map(level_row, LEVELS, [choose(calibration, level) for level in LEVELS]),
        "",
        *arms_table(calibration),
    ]
    if first:
        parts += ["\n## The paper's table 1: beta, backflips\n", *paper_table(first, PAPER, "paper beta {}")]
        parts += ["\nWith jumps:\n", *arms_table(first)]
    if second:
        parts += ["\n## The paper's table 2: p at beta 1, backflips\n"]
        parts += [*paper_table(second, PAPER_P, "paper beta 1.0 p {}"), "\nWith jumps, and at beta 0.75:\n"]
        parts += arms_table(second)
    return "\n".join(parts) + "\n"


def level_row(level: Level, best: Choice) -> str:
    return f"| {level.first:g} | {best.arm} | {best.gain:+.3f} ({best.low:+.3f}..{best.high:+.3f}) |"


def profile(rows: list[Row]) -> dict[str, Any]:
    """What `framepack-relax calibrate` makes of these films."""
    return calibrated_profile(of_sweep(rows, "calibration"), jobs(*read_sweep("calibration")), read_facts(PUPPET))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, help="a sweep's films.jsonl, copied to scripts/measured first")
    given = parser.parse_args()
    if given.films:
        shutil.copy(given.films, FILMS)
    found = read_rows(FILMS)
    save_plots(summarise(of_sweep(found, "ablation")), MEASURED)
    (ROOT / "RESULTS.md").write_text(text(found), encoding="utf8")
    facts = json.loads((PUPPET / SIDECAR).read_text(encoding="utf8"))
    facts["profile"] = profile(found)
    (PUPPET / SIDECAR).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
