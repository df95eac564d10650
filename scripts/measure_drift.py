"""Drift of long films with and without `drift: adain`: the same scenes and seeds, every section's figures, a plot.

python scripts/measure_drift.py --work runs/drift --out drift.png     # an hour on two cores; goes on where it stopped

Exposure and colour are changes since the film's first section, drift the difference from its first frame (all in
0..1), motion what moves; see framepack_relax/video/motion.py.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from draw_start_images import puppet
from numpy.typing import NDArray
from training.measure import prompt

import framepack_relax as fr

FILMS = (("red", "beach", "stand"), ("blue", "field", "walk"))
FIGURES = ("exposure", "colour", "drift", "motion")
Series = NDArray[np.float64]


def film_figures(model: object, work: Path, film: tuple[str, str, str], sections: int, strength: str) -> Series:
    """[sections, figures] of one film at rest; `strength` is adain's, "0" for none."""
    colour, place, action = film
    folder = work / f"{'-'.join(film)}-{sections}-{strength}"
    folder.mkdir(parents=True, exist_ok=True)
    puppet(colour, place, 1).save(folder / "start.png")
    scene = fr.Scene(id="a", prompt=prompt(colour, place, action), seconds=1.2 * sections)
    drift = None if strength == "0" else f"adain {strength}"
    board = {"framepack": {"drift": drift}}
    made = fr.render([scene], out=folder / "out", model=model, image=str(folder / "start.png"), **board)
    return np.array([[abs(section[name]) for name in FIGURES] for section in made.report["sections"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="puppet")
    parser.add_argument("--sections", type=int, default=30)
    parser.add_argument("--strengths", nargs="+", default=["0", "0.25"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="PNG")
    words = parser.parse_args()
    model = fr.load(words.model)
    made = {
        (film, strength): film_figures(model, words.work, film, words.sections, strength)
        for film in FILMS
        for strength in words.strengths
    }
    print(f"{'film':24} {'adain':>6} {'sections':>9} " + " ".join(f"{name:>9}" for name in FIGURES))
    for (film, strength), series in made.items():
        for part in np.array_split(np.arange(words.sections), 3):
            numbers = f"{part[0] + 1}-{part[-1] + 1}"
            means = " ".join(f"{value:9.4f}" for value in series[part].mean(0))
            print(f"{' '.join(film):24} {strength:>6} {numbers:>9} {means}")
    if words.out:
        plot(made, words.out)


def plot(made: dict[tuple[tuple[str, str, str], str], Series], path: Path) -> None:
    figure, axes = plt.subplots(len(FIGURES), 1, figsize=(10, 9), sharex=True)
    for (film, strength), series in made.items():
        for axis, values in zip(axes, series.T, strict=True):
            style = "-" if strength == "0" else "--"
            axis.plot(1 + np.arange(len(values)), values, style, label=f"{' '.join(film)}, adain {strength}")
    for axis, name in zip(axes, FIGURES, strict=True):
        axis.set_ylabel(name)
    axes[0].legend(fontsize=8)
    axes[-1].set_xlabel("section")
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
