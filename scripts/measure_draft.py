"""How much of a draft its final film keeps: draft against finals from it at several strengths, and one from noise.

python scripts/measure_draft.py --work runs/draft --out draft.png     # 2 minutes a seed on one core; goes on

Of the dynamic scene, frames downsized to 24x24 luma: PSNR in dB, and the correlation of what changed since the film's
first frame (the place alone would correlate). Means over seeds, and the least of them; the picture shows one seed.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import framepack_relax as fr
from framepack_relax.video.contact import png
from framepack_relax.video.reader import read_frames

SIDE, SHOWN, HEIGHT = 24, 12, 96  # px; frames of a row in the picture
STRENGTHS = (0.4, 0.6, 0.8, 1.0)  # 1: from noise


def small(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Luma [N, SIDE, SIDE], 0..1."""
    made = [Image.fromarray(frame).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX) for frame in frames]
    return np.stack([np.asarray(image) for image in made]) / 255


def likeness(one: NDArray[np.uint8], other: NDArray[np.uint8], first: int) -> tuple[float, float]:
    """PSNR in dB, and correlation of the changes since frame 0, of the frames from `first` on."""
    a, b = small(one), small(other)
    psnr = -10 * np.log10(np.mean((a[first:] - b[first:]) ** 2))
    changes = [(x[first:] - x[0]).ravel() for x in (a, b)]
    return float(psnr), float(np.corrcoef(*changes)[0, 1])


def films(model: object, work: Path, board: str, seed: int) -> tuple[dict[str, NDArray[np.uint8]], int]:
    """Frames of the draft, and of the final at each strength; the frame at which the dynamic scene begins."""
    folder = work / f"seed-{seed}"
    draft = fr.render(board, model=model, seed=seed, draft=True, out=folder / "draft")
    made, first = {"draft": np.stack([*read_frames(draft.path)])}, draft.plan.scenes[-1].frames[0]
    for strength in STRENGTHS:
        start = {"folder": str(draft.folder.absolute()), "strength": strength}
        film = fr.render(board, model=model, seed=seed, start_from=start, out=folder / f"{strength}")
        made[f"{strength}"] = np.stack([*read_frames(film.path)])
    return made, first


def picture(made: dict[str, NDArray[np.uint8]], first: int) -> bytes:
    """A row of frames for each film, the draft above."""
    rows = []
    for frames in made.values():
        chosen = frames[np.linspace(first, len(frames) - 1, SHOWN).round().astype(int)]
        rows.append(np.concatenate([np.asarray(Image.fromarray(f).resize((HEIGHT, HEIGHT))) for f in chosen], axis=1))
    return png(Image.fromarray(np.concatenate(rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="puppet")
    parser.add_argument("--board", default="storyboards/draft.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="PNG of the first seed: draft, finals, from noise")
    words = parser.parse_args()
    model, figures = fr.load(words.model), dict[str, list[tuple[float, float]]]()
    for seed in words.seeds:
        made, first = films(model, words.work, words.board, seed)
        for name in list(made)[1:]:
            figures.setdefault(name, []).append(likeness(made["draft"], made[name], first))
        if words.out and seed == words.seeds[0]:
            words.out.write_bytes(picture(made, first))
    print(f"{'strength':>9} {'PSNR':>6} {'least':>6} {'corr.':>6} {'least':>6} of {len(words.seeds)} seeds; 1.0: noise")
    for name, rows in figures.items():
        values = np.array(rows)
        columns = (f"{values[:, k].mean():6.2f} {values[:, k].min():6.2f}" for k in range(2))
        print(f"{name:>9} {' '.join(columns)}")


if __name__ == "__main__":
    main()
