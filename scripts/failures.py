"""Clips of the puppet world with a failure built in, and how well the detectors tell them apart.

python scripts/failures.py                          # precision and recall on 40 clips a kind (3 min)
python scripts/failures.py --sheet failures.png     # two clips a kind, to be looked at

The thresholds were chosen on seeds 1000 to 1023; what is printed is of seeds from 0 on.

N frames of H x W pixels; frames are uint8 RGB [N, H, W, 3]; a pose is a row of training.world's Film.pose
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from training.drawing import SKIN, draw
from training.world import ACTION_FRAMES, FIRST, Mix, act
from training.world import Film as Played

from framepack_relax.evaluate.evaluation import Instruments, evaluate, gather
from framepack_relax.evaluate.film import Film

FRAMES = 109  # three sections
FPS = 30.0
SEEN = 6  # a sheet shows every sixth frame
MOVES = tuple(FIRST.actions)
Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """`wanted` is the action that was asked for, `shown` says how the clip was drawn."""

    frames: Frames
    wanted: str
    shown: str


def film_of(rng: np.random.Generator, action: str, start: int, end: int = FRAMES) -> Played:
    """A film of FRAMES frames with one action from frame `start` on; walking stops at `end`."""
    segments = [(action, end), ("stand", FRAMES - end)] if end < FRAMES else [(action, FRAMES)]
    starts = [[] if action == "stand" else [start], []][: len(segments)]
    pose, spans = act(rng, segments, Mix(), starts=starts)
    colour, place = rng.choice(list(FIRST.colours)), rng.choice(list(FIRST.places))
    return Played(colour=str(colour), place=str(place), pose=pose, segments=spans)


def drawn(film: Played, size: int = 96) -> Floats:
    """Levels 0..255 [N, H, W, 3]."""
    pixels = draw([(film, np.arange(len(film.pose)))], size).permute(0, 2, 3, 1).numpy()
    return np.asarray(pixels * 127.5 + 127.5, dtype=np.float32)


def begun(rng: np.random.Generator, action: str) -> tuple[int, int]:
    """The frame in which an action starts, and one well inside it."""
    start = int(rng.integers(12, 40))
    return start, start + int(min(ACTION_FRAMES[action], 40) * rng.uniform(0.35, 0.6))


def sound(rng: np.random.Generator, action: str | None = None) -> Clip:
    """An action that starts and ends as it should; a walk may end in standing."""
    action = action or str(rng.choice(MOVES))
    start = begun(rng, action)[0]
    end = int(rng.integers(70, 90)) if action == "walk" and rng.random() < 0.5 else FRAMES
    return _clip(rng, drawn(film_of(rng, action, start, end)), action, action)


def static(rng: np.random.Generator) -> Clip:
    """A figure that never starts."""
    return _clip(rng, drawn(film_of(rng, "stand", 0)), str(rng.choice(MOVES)), "stand")


def freeze(rng: np.random.Generator) -> Clip:
    """Stops in the middle of an action, at once or within six frames, and stays like that."""
    action = str(rng.choice(["wave", "walk", "jump", "backflip"]))
    film, middle, slowing = *_inside(rng, action), float(rng.choice([0, 3, 6]))
    late = np.maximum(0, np.arange(FRAMES) - middle)
    moment = np.minimum(np.arange(FRAMES), middle) + slowing / 2 * (1 - np.exp(-2 * late / max(slowing, 0.1)))
    pose = np.stack([np.interp(moment, np.arange(FRAMES), column) for column in film.pose.T], axis=1)
    return _clip(rng, drawn(replace(film, pose=pose)), action, f"{action}, slowing {slowing:.0f}")


def snap_back(rng: np.random.Generator) -> Clip:
    """From the middle of an action back to standing: from one frame to the next, or within up to five."""
    action = str(rng.choice(["wave", "walk", "jump", "backflip"]))
    film, middle = _inside(rng, action)
    still = film_of(rng, "stand", 0).pose
    still[:, 0] = film.pose[0, 0]
    after, over = np.arange(FRAMES) - middle, int(rng.integers(1, 6))
    back = np.clip(after / over, 0, 1)[:, None]
    if rng.random() < 0.5:  # the figure is pulled
        held = film.pose[np.minimum(np.arange(FRAMES), middle)]
        pulled = replace(film, pose=held + back * (still - held))
        return _clip(rng, drawn(pulled), action, f"{action}, pulled in {over}")
    mixed = back[..., None, None].astype(np.float32)  # the picture fades over
    frames = (1 - mixed) * drawn(film) + mixed * drawn(replace(film, pose=still))
    return _clip(rng, frames, action, f"{action}, faded in {over}")


def chaos(rng: np.random.Generator) -> Clip:
    """From some moment on one to four bodies and ghosts, limbs too long and too many, new every 2 to 4 frames."""
    action = str(rng.choice(MOVES[:-1]))
    film = film_of(rng, action, start := int(rng.integers(8, 40)))
    frames, ground = drawn(film), drawn(replace(film, pose=film.pose * 0))[0]
    bodies, hold, limbs = int(rng.integers(1, 5)), int(rng.integers(2, 5)), int(rng.integers(0, 4))
    keys = []
    for pose in film.pose[start::hold]:
        poses = np.stack([_flung(rng, pose) for _ in range(bodies)])
        looks = drawn(replace(film, pose=poses)) - ground
        weight = rng.uniform(0.35, 1, (bodies, 1, 1, 1)) if bodies > 1 else 1.0
        keys.append(_limbs(rng, ground + (looks * weight).sum(0), poses[0], limbs))
    after = np.arange(FRAMES - start) / hold
    whole = np.minimum(after.astype(int), len(keys) - 1)
    part = (after - whole) * float(rng.random() < 0.5)  # each picture fades into the next, or gives way to it
    following = np.stack(keys)[np.minimum(whole + 1, len(keys) - 1)]
    frames[start:] = (1 - part)[:, None, None, None] * np.stack(keys)[whole] + part[:, None, None, None] * following
    return _clip(rng, frames, action, f"{bodies} bodies, {limbs} limbs, {hold} frames")


def over_relaxed(rng: np.random.Generator) -> Clip:
    """Well drawn, but not what was asked for."""
    wanted, action = (str(word) for word in rng.choice(MOVES, 2, replace=False))
    return replace(sound(rng, action), wanted=wanted)


def collapse(rng: np.random.Generator) -> Clip:
    """The picture dissolves: it scatters, runs, or turns into blots that change with every latent frame."""
    action, start = str(rng.choice(MOVES[:-1])), int(rng.integers(15, 50))
    frames, way = drawn(film_of(rng, action, start)), str(rng.choice(list(DISSOLVED)))
    pace = float(rng.uniform(10, 30))
    for number in range(start, FRAMES):
        frames[number] = DISSOLVED[way](rng, frames[number], min(1.0, (number - start) / pace), number // 4)
    return _clip(rng, frames, action, way)


def _inside(rng: np.random.Generator, action: str) -> tuple[Played, int]:
    start, middle = begun(rng, action)
    return film_of(rng, action, start), middle


def _flung(rng: np.random.Generator, pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The figure of `pose` [POSE] thrown about: place, angle and every joint."""
    wild = pose.copy()
    wild[:12] += rng.normal(0, 1, 12) * np.array([0.12, 0.08, 0.9, 0, *[1.2] * 8])
    wild[0], wild[3] = np.clip(wild[0], 0.15, 0.85), 1
    return wild


def _limbs(rng: np.random.Generator, frame: Floats, pose: NDArray[np.float64], count: int) -> Floats:
    """`count` arms, as long as the body and longer, on a frame [H, W, 3]."""
    size = len(frame)
    body = np.array([pose[0], 0.55 + pose[1]]) * size
    painted = np.ascontiguousarray(frame)
    for angle in rng.uniform(0, 2 * np.pi, count):
        tip = body + rng.uniform(0.25, 0.5) * size * np.array([np.cos(angle), np.sin(angle)])
        ends = [(int(x), int(y)) for x, y in (body, tip)]
        cv2.line(painted, *ends, [255 * part for part in SKIN], max(1, round(0.04 * size)), cv2.LINE_AA)
    return painted


def _scatter(rng: np.random.Generator, frame: Floats, strength: float, _: int) -> Floats:
    height, width = frame.shape[:2]
    dy, dx = (np.kron(rng.normal(0, 9 * strength, (height // 8, width // 8)), np.ones((8, 8))) for _ in range(2))
    y, x = np.mgrid[:height, :width]
    there = np.clip(y + dy, 0, height - 1).astype(int), np.clip(x + dx, 0, width - 1).astype(int)
    return np.asarray(frame[there] + rng.normal(0, 12 * strength, frame.shape), dtype=np.float32)


def _run(_: np.random.Generator, frame: Floats, strength: float, __: int) -> Floats:
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), 0.1 + 9 * strength, sigmaY=0.1 + 14 * strength))


def _blot(rng: np.random.Generator, frame: Floats, strength: float, latent: int) -> Floats:
    few = np.random.default_rng(latent).uniform(0, 255, (12, 12, 3)).astype(np.float32)
    blots = cv2.resize(few, frame.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray((1 - 0.8 * strength) * frame + 0.8 * strength * blots)


DISSOLVED = {"scattered": _scatter, "run": _run, "blots": _blot}


def _clip(rng: np.random.Generator, frames: Floats, wanted: str, shown: str) -> Clip:
    """Half of the clips a little out of focus, half with a camera's grain."""
    if rng.random() < 0.5:
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.8) for frame in frames])
    if rng.random() < 0.5:
        frames = frames + rng.normal(0, 2, frames.shape)
    levels = np.asarray(frames.clip(0, 255).round(), dtype=np.uint8)
    return Clip(frames=levels, wanted=wanted, shown=shown)


KINDS: dict[str, Callable[[np.random.Generator], Clip]] = {
    "sound": sound, "static": static, "freeze": freeze, "snap-back": snap_back,
    "chaos": chaos, "over-relaxed": over_relaxed, "collapse": collapse,
}  # fmt: skip


def clip(kind: str, seed: int) -> Clip:
    """The same clip for the same kind and seed."""
    return KINDS[kind](np.random.default_rng((list(KINDS).index(kind), seed)))


def found(made: Clip, instruments: Instruments) -> str:
    """What `framepack-relax eval` calls a clip; `sound` where no detector speaks."""
    film = Film(path=Path("clip"), frames=made.frames, fps=FPS)
    failures = evaluate(film, instruments, targets=[made.wanted])["failures"]
    return next((kind for kind, true in failures.items() if true), "sound")


def measure(count: int) -> dict[str, Counter[str]]:
    """How many clips of each kind are called what."""
    instruments = gather(action="packaged", text="packaged")
    return {kind: Counter(found(clip(kind, seed), instruments) for seed in range(count)) for kind in KINDS}


def table(said: dict[str, Counter[str]]) -> str:
    """Rows: what was drawn; columns: what was found; then precision and recall."""
    lines = ["".join(f"{word:>13}" for word in ("", *KINDS, "precision", "recall"))]
    for kind, row in said.items():
        precision = row[kind] / max(1, sum(other[kind] for other in said.values()))
        counts = "".join(f"{row[other]:13d}" for other in KINDS)
        lines.append(f"{kind:>13}{counts}{precision:13.2f}{row[kind] / row.total():13.2f}")
    return "\n".join(lines)


def sheet() -> Image.Image:
    """Two clips of every kind, a row each."""
    rows = [np.concatenate(list(clip(kind, seed).frames[::SEEN]), axis=1) for kind in KINDS for seed in (0, 1)]
    return Image.fromarray(np.concatenate(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="PNG to write instead")
    parser.add_argument("--count", type=int, default=40, help="clips of each kind")
    parser.add_argument("--out", type=Path, help="JSON to write the counts to: scripts/measured/detectors.json")
    given = parser.parse_args()
    if given.sheet:
        sheet().save(given.sheet)
    else:
        said = measure(given.count)
        print(table(said))
        if given.out:
            given.out.write_text(json.dumps(said, indent=1) + "\n", encoding="utf8")
