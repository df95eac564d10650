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

import footage

from framepack_relax.evaluate.calibration import DOUBT, LEVELS, calibrated_profile, choose, ranked
from framepack_relax.evaluate.pages import plots
from framepack_relax.evaluate.rows import read_rows
from framepack_relax.evaluate.spec import jobs, read_sweep
from framepack_relax.evaluate.statistics import Cell, Row, chance, interval, paired, seed_means, summarise
from framepack_relax.families.catalog import PUPPET, SIDECAR, read_family
from framepack_relax.files import write_file

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "scripts" / "measured"
FILMS = MEASURED / "films.jsonl"
DETECTORS = MEASURED / "detectors.json"
FOOTAGE = MEASURED / "footage.jsonl"
CONCLUSIONS = ROOT / "scripts" / "conclusions.md"  # in words, with places for the figures
NEAR = {"target": 0.1, "motion": 0.05, "identity": 0.1, "jump": 5.0}  # differences that would not matter
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
    Claim(said="Relaxing guidance does", figure="target", arm="guidance relaxed"),
    Claim(said="... more than constant guidance of the same step mean", figure="target", arm="guidance relaxed",
          other="guidance constant at the mean"),
    Claim(said="... more than constant guidance of the same area", figure="target", arm="guidance relaxed",
          other="guidance constant at the area"),
    Claim(said="Plain guidance is better than boosted", figure="target", arm="vanilla", other="boost"),
    Claim(said="Stronger guidance shows the action more surely", figure="target", arm="guidance twice as strong"),
    Claim(said="The distilled scale shows it more surely than true CFG", figure="target", arm="vanilla", other="text"),
    Claim(said="Relaxing true CFG shows it more surely than not", figure="target", arm="text relaxed", other="text"),
    Claim(said="Blurring the section raises motion", figure="motion", arm="blur section"),
    Claim(said="Blurring keys alone keeps more motion than values alone", figure="motion", arm="blur section K",
          other="blur section V"),
    Claim(said="Blur adds to relaxed guidance", figure="target", arm="paper", other="guidance relaxed"),
    Claim(said="Blurring the history shows the action more surely", figure="target", arm="blur history"),
    Claim(said="Loosening the context shows the action more surely", figure="target", arm="context"),
    Claim(said="... raises motion", figure="motion", arm="context"),
    Claim(said="... more surely than constantly loosened context of the same mean", figure="target", arm="context",
          other="context constant at the mean"),
    Claim(said="... costs a jump at the section border", figure="jump", arm="context"),
    Claim(said="... costs the figure and its place", figure="identity", arm="vanilla", other="context"),
    Claim(said="Biasing the history's keys shows the action more surely", figure="target", arm="history bias 0.5"),
    Claim(said="... costs a jump at the section border", figure="jump", arm="history bias 0.5"),
    Claim(said="Biasing the start image's keys shows it more surely", figure="target", arm="reference bias 0.5"),
    Claim(said="... costs the figure and its place", figure="identity", arm="vanilla", other="reference bias 0.5"),
    Claim(said="ALG raises motion over true CFG alone", figure="motion", arm="ALG", other="text"),
    Claim(said="Guidance in the first steps alone shows it more surely than in the middle alone", figure="target",
          arm="guidance early only", other="guidance in the middle only"),
    Claim(said="The paper's beta 0.75 shows it more surely than 0.5", figure="target", arm="paper", other="paper mild"),
    Claim(said="... than 1.0", figure="target", arm="paper", other="paper over"),
    Claim(said="The paper's p 0.7 shows it more surely than 2.1", figure="target", arm="paper", other="paper rapid"),
    Claim(said="Relaxing in sigma shows it more surely than in time", figure="target", arm="guidance relaxed",
          other="guidance relaxed in time"),
    Claim(said="The paper's schedule shows it more surely than constant guidance of its mean, with blur",
          figure="target", arm="paper", other="paper constant at the mean"),
    Claim(said="Blurring the history shows it more surely than the section", figure="target", arm="blur history",
          other="blur section"),
    Claim(said="Blur before RoPE lowers motion less than after", figure="motion", arm="blur section before RoPE",
          other="blur section"),
    Claim(said="Blur that fades with sigma lowers motion less than constant blur", figure="motion",
          arm="blur section early", other="blur section"),
    Claim(said="Relaxing guidance as well takes from loosened context", figure="target", arm="context",
          other="guidance and context"),
    Claim(said="Bias at all steps shows it more surely than in the first alone", figure="target",
          arm="history bias 0.5 at all steps", other="history bias 0.5"),
)  # fmt: skip
KNOBS: dict[str, dict[str, str]] = {  # what is turned, and the arm at each value
    "beta of guidance and blur, the paper's (p 0.7, blur 0.6)": {
        "0": "blur section", "0.5": "paper mild", "0.75": "paper", "1": "paper over",
    },
    "beta of guidance alone (p 0.7)": {"-1": "boost whole", "-0.5": "boost", "0": "vanilla", "0.75": "guidance relaxed"},
    "beta of context (p 0.7)": {"0": "vanilla", "0.4": "context mild", "0.75": "context", "1": "context whole"},
    "p of the paper's (beta 0.75, blur 0.6)": {"0.7": "paper", "1": "paper linear", "2.1": "paper rapid"},
    "p of context (beta 0.75)": {"0.7": "context", "2.1": "context rapid"},
    "what is blurred (0.6, section)": {"nothing": "vanilla", "K": "blur section K", "V": "blur section V",
                                       "K and V": "blur section"},
    "where it is blurred": {"after RoPE": "blur section", "before RoPE": "blur section before RoPE",
                            "after, fading with sigma": "blur section early"},
    "blur of the section": {"0": "vanilla", "0.3": "blur section 0.3", "0.6": "blur section",
                            "1.5": "blur section 1.5"},
    "blur of the history": {"0": "vanilla", "0.6": "blur history", "1.5": "blur history 1.5"},
    "scope of the blur (0.6)": {"section": "blur section", "history": "blur history", "reference": "blur reference",
                                "all": "blur all"},
    "bias 0.5": {"history, sigma > 0.7": "history bias 0.5", "history, all steps": "history bias 0.5 at all steps",
                 "start image, sigma > 0.7": "reference bias 0.5"},
    "schedule of the guidance (beta 0.75)": {"power 0.7": "guidance relaxed", "power 0.7 in time": "guidance relaxed in time",
                                         "power 1 in time": "guidance linear in time", "cosine": "guidance cosine",
                                         "constant, step mean": "guidance constant at the mean",
                                         "constant, area": "guidance constant at the area"},
    "targets (beta 0.75)": {"none": "vanilla", "embedded": "guidance relaxed", "context": "context",
                            "embedded, context": "guidance and context"},
    "targets, true CFG instead of the embedded scale": {"none": "text", "text": "text relaxed",
                                                        "text, context": "text and context"},
    "embedded scale": {"2": "vanilla", "4": "guidance twice as strong", "6": "guidance 6",
                       "6, relaxed": "guidance 6 relaxed"},
}  # fmt: skip


def verdict(rows: list[Row], claim: Claim) -> str:
    """The paired difference with its interval, and what it says: the interval and the turning of signs must agree."""
    gaps = paired(rows, claim.arm, claim.other, claim.figure)
    low, high = interval(gaps)
    seeds, near = seed_means(gaps)[None], NEAR[claim.figure]
    says = "not decided"
    if -near < low and high < near:
        says = f"no difference of {near:g}"
    elif low > 0 and chance(seeds) <= DOUBT:
        says = "holds"
    elif high < 0 and chance(-seeds) <= DOUBT:
        says = "the opposite holds"
    return f"{mean(gap for _, gap in gaps):+.3f} ({low:+.3f}..{high:+.3f}) | {says}"


def of_sweep(rows: list[Row], name: str) -> list[Row]:
    """The films of one sweep, in the order of its arms."""
    sweep = read_sweep(name)
    scenes = {scene.id for scene in sweep.scenes}
    arms = [cell.id for arm in sweep.arms for cell in arm.cells()]
    return [row for arm in arms for row in rows if row["arm"] == arm and row["scene"] in scenes]


def figures(cell: Cell, named: float) -> str:
    """A row of a table of arms."""
    said = [cell.arm, str(cell.films), f"{named:.2f}"]
    for name in ("target", "motion"):
        f = cell.figures[name]
        said.append(f"{f.mean:.2f} ({f.span(2)}), {f.wins:.2f}")
    said += [costs(cell), f"{cell.figures['text'].mean:.2f}"]
    said += [f"{cell.failures[kind]:.2f}" for kind in ("static", "snap-back", "freeze", "over-relaxed")]
    said.append(f"{cell.failures['chaos'] + cell.failures['collapse']:.2f}")
    said.append(f"{cell.figures['forwards'].mean:.0f}")
    return f"| {' | '.join(said)} |"


def costs(cell: Cell) -> str:
    """What stands beside every motion figure: identity and jump."""
    return f"{cell.figures['identity'].mean:.2f} | {cell.figures['jump'].mean:.0f}"


COLUMNS = (
    "arm", "films", "right action", "its probability, won", "motion, won", "identity", "jump", "fit", "static",
    "snap-back", "freeze", "other action", "chaos, collapse", "forwards",
)  # fmt: skip
SOLVERS = {  # by sampler version
    1: "solved by diffusers' UniPC (bh2), as was the default until sampler version 2, FramePack's own",
    2: "solved by FramePack's own UniPC",
}
INTRO = """# Results

Written by `python scripts/results.py` from `scripts/measured/films.jsonl`; docs/measuring.md says how a film is judged.

Model: the packaged puppet (weights {weights}, by its own judges). A film is 2.4 s of standing still,
then 2.4 s in which the prompt asks for {scenes}; an arm acts on the second part. {seeds} seeds, each with
its own figure and place; every arm has the same noise after the same calm sections. {films} films, 25 steps each,
{solvers}. Rendering them took {hours:.1f} h of one-thread processes,
two at a time on two cores. Films of a seed share everything but the action, so a result rests on {seeds} figures, not on 40
films: in brackets are 95 % intervals by bootstrap over seeds, and a claim counts only if turning the seeds' signs
agrees. One tiny model whose embedded base scale is 2: nothing here carries over to FramePack without measuring it
there.

*right action*: the judge names it and the film is not static. *won*: share of pairs with more than plain FramePack
(less than .05 of probability is a tie). *identity*: share of frames that fit the film's own figure and place better
than any other start's (a figure that has vanished fits none, so half of the vanishing films lower it). *jump*: largest
change at the section's borders, in levels of 255 (busiest 5 % of the pixels). *fit*: cosine to the prompt. LPIPS was
not measured: its trunk cannot be had here.

"""
CALIBRATION = """
## Calibration

For each level of intensity the arm that gains most over plain FramePack, in the level's own weights
(`framepack_relax/evaluate/calibration.py`): target {target}, motion {motion}, failures {broken}, another figure or
place {strange}, jump at the border {jump}, one number per level. *chance*: how often the best of all {arms} arms does as
well without any effect; over {doubt:g} the level stays at rest. The best of many gains is larger than it will be again; the
next two follow.

| from intensity | arm | gain | chance | next |
|---|---|---|---|---|
"""


def right(rows: list[Row], arm: str) -> float:
    """Share of films in which the judge names the wanted action and something moves."""
    named = [row["named"] == row["scene"] and not row["failures"]["static"] for row in rows if row["arm"] == arm]
    return sum(named) / len(named)


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


def seeds_table(rows: list[Row]) -> list[str]:
    """Probability of the wanted action by seed, for some arms."""
    seeds = sorted({row["seed"] for row in rows})
    lines = [f"| arm | {' | '.join(f'seed {seed}' for seed in seeds)} |", "|---" * (1 + len(seeds)) + "|"]
    for arm in ("vanilla", "paper", "guidance relaxed", "history bias 0.5", "context", "context and bias"):
        means = seed_means([(row["seed"], row["target"]) for row in rows if row["arm"] == arm])
        lines.append(f"| {arm} | {' | '.join(f'{value:.2f}' for value in means)} |")
    return lines


def knobs_table(rows: list[Row]) -> list[str]:
    """One knob at a time: what an arm shows at each of its values."""
    cells = {cell.arm: cell for cell in summarise(rows)}
    lines = ["| knob | value | right action | its probability | motion | identity | jump | static |", "|---" * 8 + "|"]
    for knob, arms in KNOBS.items():
        for value, arm in arms.items():
            if cell := cells.get(arm):
                target = cell.figures["target"]
                said = [knob, value, f"{right(rows, arm):.2f}", f"{target.mean:.2f} ({target.span(2)})"]
                said += [f"{cell.figures['motion'].mean:.2f}", costs(cell), f"{cell.failures['static']:.2f}"]
                lines.append(f"| {' | '.join(said)} |")
    return lines


def paper_table(rows: list[Row], paper: dict[float, str], suffix: str) -> list[str]:
    """Backflips at the paper's settings beside the paper's figure."""
    cells = {cell.arm: cell for cell in summarise([row for row in rows if row["scene"] == "backflip"])}
    head = "| | paper: VideoMAE | here: judge's probability | static | motion | identity | jump |"
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
        "| drawn | clips | called | precision | recall | rendered films called so | of which right |",
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


def text(rows: list[Row]) -> str:
    """RESULTS.md."""
    ablation, calibration = of_sweep(rows, "ablation"), of_sweep(rows, "calibration")
    first, second = of_sweep(rows, "paper-table-1"), of_sweep(rows, "paper-table-2")
    films = {row["key"]: row for row in rows}.values()
    there = {row["arm"] for row in ablation}
    head = INTRO.format(
        weights=" and ".join(sorted({f"{row['weights']} in {row['dtype']}" for row in rows})),
        scenes=", ".join(dict.fromkeys(row["scene"] for row in ablation)),
        seeds=len({row["seed"] for row in ablation}),
        films=len(films),
        solvers=" and ".join(SOLVERS[version] for version in sorted({row["sampler_version"] for row in rows})),
        hours=sum(row["wall"] for row in films) / 3600,
    )
    parts = [
        head.rstrip("\n"),
        "\n## What the data say\n",
        conclusions(ablation, calibration),
        "\n## Claims\n",
        "| claim | figure | paired difference | verdict |",
        "|---" * 4 + "|",
        *(f"| {c.said} | {c.figure} | {verdict(ablation, c)} |" for c in CLAIMS if {c.arm, c.other} <= there),
        "\n## Ablation\n",
        *arms_table(ablation),
        "\n![probability of the action](scripts/measured/target.png) ![motion](scripts/measured/motion.png)",
        "![identity](scripts/measured/identity.png) ![jump](scripts/measured/jump.png)\n",
        "Probability of the wanted action by scene:\n",
        *scenes_table(ablation),
        "\nBy seed, which is the figure and its place:\n",
        *seeds_table(ablation),
        "\n## Knob by knob\n",
        *knobs_table([*ablation, *(row for row in calibration if row["arm"] not in there)]),
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
        "\n## The detectors\n",
        "On drawn clips with the failure built in (`python scripts/failures.py --count 20`), and on the films of the ablation,\nas the detectors of its time called them, before their snap-backs, order and cuts were changed:\n",
        *detectors_table(ablation),
        footage.INTRO,
        *footage.tables([json.loads(line) for line in FOOTAGE.read_text(encoding="utf8").splitlines()]),
    ]
    return "\n".join(parts) + "\n"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def conclusions(ablation: list[Row], calibration: list[Row]) -> str:
    """In words; the numbers are those of the tables: shares of right films, motion, jumps."""
    rows = [*ablation, *calibration]
    shares = {arm: percent(right(rows, arm)) for arm in {row["arm"] for row in rows}}
    cells = {cell.arm: cell for cell in summarise(rows)}
    motion = {arm: f"{cell.figures['motion'].mean:.2f}" for arm, cell in cells.items()}
    jump = {arm: f"{cell.figures['jump'].mean:.0f}" for arm, cell in cells.items()}
    levels = [f"{choose(calibration, level).arm} from {level.first:g} on" for level in LEVELS]
    return CONCLUSIONS.read_text(encoding="utf8").format(s=shares, m=motion, j=jump, shipped="; ".join(levels)).strip()


def profile(rows: list[Row]) -> dict[str, Any]:
    """What `framepack-relax calibrate` makes of these films."""
    return calibrated_profile(of_sweep(rows, "calibration"), jobs(read_sweep("calibration")), read_family(PUPPET))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, help="a sweep's films.jsonl, copied to scripts/measured first")
    given = parser.parse_args()
    if given.films:
        shutil.copy(given.films, FILMS)
    found = read_rows(FILMS)
    for name, picture in plots(summarise(of_sweep(found, "ablation"))).items():
        write_file(MEASURED / name, picture)
    (ROOT / "RESULTS.md").write_text(text(found), encoding="utf8")
    facts = json.loads((PUPPET / SIDECAR).read_text(encoding="utf8"))
    facts["profile"] = profile(found)
    (PUPPET / SIDECAR).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
