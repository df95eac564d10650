"""Clips and frames of the puppet world with their labels, for the judges: drawn, never rendered by a model."""

import numpy as np
import torch

from training.drawing import draw
from training.world import FIRST, FOR_GOOD, Film, Mix, World, caption, sample_film

FPS = 30
LEAST = 8  # frames of an action that must be seen in a window to call it by its name
MOVED = 0.06  # of a pose between two frames: more than the sway of standing


def labels(world: World = FIRST) -> tuple[str, ...]:
    return ("static", *world.actions)


def moving(film: Film) -> np.ndarray:
    """[N] bool: the frames at which the figure does what it does, and not only sways."""
    change = np.abs(np.diff(film.pose, axis=0)).max(1) > MOVED
    change |= np.abs(np.diff(film.pose[:, 0])) > 1e-4  # walking
    change |= np.diff(film.pose[:, 12]) > 0  # blowing up
    return np.concatenate([change[:1], change])


def label(film: Film, first: int, end: int) -> str | None:
    """What frames first..end-1 show; None where it is arguable."""
    if film.pose[first:end, 3].min() < 0.9:
        return _going(film) if film.pose[end - 1, 3] < 0.5 else None
    seen = moving(film)[first:end]
    if seen.sum() == 0:
        return "static"
    if seen.sum() < LEAST:
        return None
    acts = [a for a, begin, stop in film.segments if a != "stand" and begin < end + 36 and stop > first - 36]
    return acts[0] if len(set(acts)) == 1 else None


def _going(film: Film) -> str:
    """How the figure goes for good."""
    return next(action for action, _, _ in film.segments if action in FOR_GOOD)


def clips(
    rng: np.random.Generator, count: int, *, frames: int, span: int, size: int, world: World = FIRST
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels [B, T, 3, H, W] in -1..1, labels [B], poses [B, T, POSE]; every label about as often.

    `frames` are spread over `span` frames of a film.
    """
    picks: list[tuple[Film, np.ndarray]] = []
    names, chosen = labels(world), []
    while len(picks) < count:
        film = sample_film(rng, 4, Mix(), held_out=rng.random() < 0.13, world=world)
        wanted = names[len(picks) % len(names)]
        starts = rng.permutation(len(film.pose) - span)[:24]
        found = next((int(s) for s in starts if label(film, int(s), int(s) + span) == wanted), None)
        if found is not None:
            picks.append((film, found + np.linspace(0, span - 1, frames).round().astype(int)))
            chosen.append(names.index(wanted))
    poses = torch.tensor(np.stack([film.pose[numbers] for film, numbers in picks]), dtype=torch.float32)
    return draw(picks, size).unflatten(0, (count, frames)), torch.tensor(chosen), poses


def captioned(rng: np.random.Generator, count: int, size: int, world: World = FIRST) -> tuple[torch.Tensor, list[str]]:
    """Frames [B, 3, H, W] in -1..1 and a caption of each; no colour, place and action comes twice."""
    picks: dict[tuple[str, str, str], tuple[Film, np.ndarray]] = {}
    texts = []
    while len(picks) < min(count, len(world.colours) * len(world.places) * (1 + len(world.actions))):
        film = sample_film(rng, 2, Mix(), held_out=rng.random() < 0.13, world=world)
        number = int(rng.integers(len(film.pose)))
        action = _shown(film, number)
        if action is not None and (key := (film.colour, film.place, action)) not in picks:
            picks[key] = (film, np.array([number]))
            texts.append(caption(rng, film, action))
    return draw(list(picks.values()), size), texts


def _shown(film: Film, number: int) -> str | None:
    """The action that one frame shows, if one frame can."""
    pose = film.pose[number]
    if 0.1 < pose[12] < 0.6:
        return "explode"
    if pose[3] < 0.9:
        return "vanish" if 0.15 < pose[3] < 0.85 else None
    low, high = max(0, number - 2), number + 3
    if not moving(film)[low:high].any():
        return "stand"
    acts = [a for a, first, end in film.segments if first <= number < end]
    return acts[0] if acts[0] != "stand" and moving(film)[low:high].all() else None
