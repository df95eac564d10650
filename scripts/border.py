"""What changes at the borders of a film's sections: how much of it is the calm scene's end, how much is motion.

python scripts/border.py                    # of scripts/measured/border.jsonl; --plot border.png draws it
python scripts/border.py --sweep FOLDER     # of a sweep's films
python scripts/border.py --drawn            # of films as the packaged model learnt from, which jump nowhere

`border` is the change at the scene's first frame, `later` the largest at the borders within the scene, `onset` the
largest in the scene's first twelve frames, in levels of 255 (busiest 5 % of the pixels). `apart` is how far the change
at one of the borders exceeds every other one within four frames of it: that of motion, however fast, does not. An mp4
adds up to 2 levels at each border, where a group of pictures begins; the rows of border.jsonl are without them.

Those rows are of backflip, jump and wave on starts of `headline`, in bfloat16; of one section those films that end
with it, which the judge sees alone. All but `vanilla` loosen the context as `context` does, and `ramp` is a setting.
The rest were tried and are not in the package. `fade`: half of the first latent frame is the past's last one.
`anchor`: the x0 of the first is the past's last one while sigma is above 0.5. `two frames rendered again`: the first
two, from sigma 0.9, between the past and the rest of their section, with the full grip. `first section alone`: later
ones keep the grip. `noise of the frame before`: the first has the noise of the past's last one. `h0 of the frame
before`: the loosened pass sees a shot that begins with that one.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from training.drawing import draw
from training.world import ACTION_FRAMES, FIRST, Film, Mix, act

from framepack_relax.evaluate.film import read_film
from framepack_relax.evaluate.rows import read_rows
from framepack_relax.evaluate.statistics import chance, paired, seed_means
from framepack_relax.video.motion import MotionMeter

ROWS = Path(__file__).parent / "measured" / "border.jsonl"
BESIDE, BEGINNING = 4, 12  # frames
SECTION, FILMS = 36, 16
CALM = 2 * SECTION + 1
FIGURES = ("border", "later", "onset", "apart")
Row = dict[str, Any]


def figures(frames: Any, borders: Sequence[int]) -> Row:
    """Of frames [N, H, W, 3], whose scene begins with the first of `borders`; the others are in it."""
    meter = MotionMeter()
    meter.add(frames)
    changes = 255 * np.array([0.0, *meter.changes])  # to frame k
    around = [np.delete(changes[k - BESIDE : k + BESIDE + 1], BESIDE) for k in borders]
    apart = max(changes[k] - near.max() for k, near in zip(borders, around, strict=True))
    first, *others = borders
    onset = changes[first : first + BEGINNING + 1].max()
    made = {"border": changes[first], "later": max(changes[others], default=0.0), "onset": onset}
    return {name: round(float(value), 2) for name, value in {**made, "apart": max(0.0, apart)}.items()}


def swept(folder: Path) -> Iterator[Row]:
    """A row a film of a sweep's folder."""
    for row in read_rows(folder / "films.jsonl"):
        film = folder / row["film"]
        sections = json.loads((film / "plan.json").read_text(encoding="utf8"))["sections"]
        borders = [section["frames"][0] for section in sections if section["scene"] == sections[-1]["scene"]]
        kept = {name: row.get(name) for name in ("arm", "scene", "seed", "named", "motion", "forwards")}
        said = {"films": folder.name, **kept, "static": row["failures"]["static"]}
        yield said | figures(read_film(film / "video.mp4").frames, borders)


def drawn() -> Iterator[Row]:
    """Calm, then an action that begins within a third of a second: no sampler, no codec, no border."""
    pairs = sorted(FIRST.held_out)
    for action, seed in (
        (action, seed) for action in ACTION_FRAMES if action in FIRST.actions for seed in range(FILMS)
    ):
        colour, place = pairs[seed % len(pairs)]
        mix, segments = Mix(at_once_later=1.0), [("stand", CALM), (action, 2 * SECTION)]
        pose, spans = act(np.random.default_rng(seed), segments, mix, world=FIRST)
        film = Film(world=FIRST, colour=colour, place=place, pose=pose, segments=spans)
        pictures = draw([(film, np.array([k])) for k in range(CALM - 1 - BESIDE, len(pose))])
        frames = ((pictures + 1) * 127.5).round().byte().movedim(1, -1).numpy()
        row = {"films": "drawn", "arm": action, "scene": action, "seed": seed, "named": action, "static": False}
        yield row | figures(frames, [1 + BESIDE, 1 + BESIDE + SECTION])


def right(rows: Sequence[Row]) -> float:
    return 100 * float(np.mean([row["named"] == row["scene"] and not row["static"] for row in rows]))


def told(rows: Sequence[Row], arm: str, base: str) -> str:
    """A row of a table: means and medians, and how much more than in `base`, with the p of the exact test that turns
    the signs of seeds."""
    mine = [row for row in rows if row["arm"] == arm]
    said = [arm, str(len(mine)), f"{right(mine):.0f} %"]
    for name in FIGURES:
        values, more = [row[name] for row in mine if name in row], ""
        if arm != base and (gaps := paired(rows, arm, base, name)):
            gains = seed_means(gaps)
            p = min(1.0, 2 * min(chance(gains[None]), chance(-gains[None])))
            more = f"; {gains.mean():+.1f}, p {p:.2g}"
        said.append(f"{np.mean(values):.1f} / {np.median(values):.1f}{more}" if values else "")
    for name in ("motion", "forwards"):
        values = [row[name] for row in mine if name in row]
        said.append(f"{np.mean(values):.3g}" if values else "")
    return f"| {' | '.join(said)} |"


def table(rows: Sequence[Row], base: str) -> Iterator[str]:
    """By where the films come from; each arm is held against `base`."""
    for films in dict.fromkeys(row["films"] for row in rows):
        own = [row for row in rows if row["films"] == films]
        yield f"\n{films}: mean / median; difference from {base}"
        yield "| arm | films | right action | border | later | onset | apart | motion | passes |"
        yield "|---" * 9 + "|"
        yield from (told(own, arm, base) for arm in dict.fromkeys(row["arm"] for row in own))


def plot(rows: Sequence[Row], path: Path) -> None:
    """Right action against the change at the scene's border, a panel for each place that films come from."""
    places = list(dict.fromkeys(row["films"] for row in rows))
    page = Figure(figsize=(5 * len(places), 4), layout="constrained")
    for axes, films in zip(np.ravel(page.subplots(1, len(places), sharey=True)), places, strict=True):
        for arm in dict.fromkeys(row["arm"] for row in rows if row["films"] == films):
            own = [row for row in rows if row["films"] == films and row["arm"] == arm]
            at = np.mean([row["border"] for row in own]), right(own)
            axes.scatter(*at, s=np.mean([row["forwards"] for row in own]), alpha=0.6, label=arm)
        axes.legend(fontsize=7, loc="lower right")
        axes.set(title=films, xlabel="change at the scene's first frame, levels of 255", ylim=(0, 105))
        axes.spines[["top", "right"]].set_visible(False)
    page.supylabel("films with the right action, %")
    page.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, help="folder of a sweep's films")
    parser.add_argument("--drawn", action="store_true")
    parser.add_argument("--base", default="context", help="arm that the others are held against")
    parser.add_argument("--plot", type=Path, help="PNG")
    words = parser.parse_args()
    made = [*swept(words.sweep)] if words.sweep else [*drawn()] if words.drawn else None
    rows = made or [json.loads(line) for line in ROWS.read_text(encoding="utf8").splitlines()]
    print("\n".join(table(rows, words.base)))
    if words.plot:
        plot(rows, words.plot)
