"""The puppet world: a paper-doll figure that stands, waves, walks, jumps, does a backflip or disappears.

Everything the packaged model knows was drawn here. `sample_film` invents a film (colour, place, a run of captions with
the moment at which each action really starts), `draw` turns film frames into pixels.

    N frames, H height, W width, J body parts (two arms and two legs of two pieces each, and the torso)
"""

from dataclasses import dataclass

import numpy as np
import torch

COLOURS = {
    "red": (0.85, 0.20, 0.20),
    "blue": (0.20, 0.35, 0.90),
    "green": (0.15, 0.65, 0.30),
    "yellow": (0.95, 0.80, 0.20),
    "purple": (0.60, 0.25, 0.75),
}
PLACES = {  # sky, ground
    "beach": ((0.60, 0.85, 0.95), (0.93, 0.85, 0.60)),
    "night": ((0.08, 0.08, 0.20), (0.20, 0.20, 0.28)),
    "field": ((0.75, 0.88, 1.00), (0.45, 0.72, 0.35)),
}
PLACE_WORDS = {"beach": "on the beach", "night": "at night", "field": "in the field"}
ACTIONS = ("stand", "wave", "walk", "jump", "backflip", "vanish")
ACTION_WORDS = {  # the first form is the common one
    "stand": ("stands still", "waits", "stays still"),
    "wave": ("waves", "waves a hand"),
    "walk": ("walks", "walks along"),
    "jump": ("jumps", "jumps up"),
    "backflip": ("does a backflip", "backflips"),
    "vanish": ("disappears", "vanishes"),
}
ACTION_FRAMES = {"stand": 1, "wave": 36, "walk": 10_000, "jump": 20, "backflip": 24, "vanish": 30}
HELD_OUT = {("yellow", "night"), ("purple", "beach")}  # never drawn for training, only for judging
SECTION_FRAMES = 36
SKIN = (0.96, 0.80, 0.65)
WIDTHS = {"arm": 0.022, "leg": 0.028, "torso": 0.05, "head": 0.062}  # half widths, in image heights


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How often a film holds what; the long calm before a change is where static death comes from."""

    at_once_first: float = 0.9  # share of a film's opening actions that start within a third of a second
    at_once_later: float = 0.1  # the same of actions whose caption follows another one
    longest_wait: int = 400  # frames a late action may wait for, uniformly
    repeat: float = 0.5  # chance that a jump, wave or backflip is done again after a pause
    calm_first: float = 0.45  # share of films that begin with calm sections under a calm caption
    calm_after: float = 0.35  # chance that a calm caption follows an action
    calm_only: float = 0.10


@dataclass(frozen=True, kw_only=True)
class Film:
    """`pose` [N, 12]: x, y, angle, alpha and eight joint angles per frame; `segments`: (action, first, end) frames."""

    colour: str
    place: str
    pose: np.ndarray
    segments: tuple[tuple[str, int, int], ...]


def _limbs(action: str, phase: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, ...]:
    """dy, angle, alpha [N] and joint angles [N, 8] of an action at `phase` 0..1 (0: not started)."""
    n = len(t)
    dy, angle, alpha = np.zeros(n), np.zeros(n), np.ones(n)
    sway = 0.03 * np.sin(t * 0.35)
    joints = np.stack([0.35 + sway, -0.35 + sway, *(np.full(n, v) for v in (0.1, -0.1, 0.15, -0.15, 0.0, 0.0))], axis=1)
    on = (phase > 0) & (phase < 1)
    arc = np.where(on, 4 * phase * (1 - phase), 0.0)
    if action == "wave":
        k = np.where(phase > 0, np.minimum(1, phase * 6) * np.minimum(1, (1 - phase) * 6), 0.0)
        joints[:, 1] -= 2.2 * k
        joints[:, 3] -= 0.6 * k * np.sin(t * 0.9)
    elif action == "walk":
        s = np.sin(t * 0.55) * np.minimum(1, phase * ACTION_FRAMES["walk"] / 8)
        for joint, swing in ((4, 0.5), (5, -0.5), (0, -0.5), (1, 0.5)):
            joints[:, joint] += swing * s
        joints[:, 6] -= 0.5 * np.maximum(0, s)
        joints[:, 7] -= 0.5 * np.maximum(0, -s)
    elif action == "jump":
        crouch = np.where(on, np.maximum(0, 0.3 - arc) * 1.8, 0.0)
        dy -= 0.26 * arc
        joints[:, 0] += 2.2 * arc
        joints[:, 1] -= 2.2 * arc
        joints[:, 6] -= crouch
        joints[:, 7] += crouch
    elif action == "backflip":
        dy -= 0.26 * arc
        angle = np.where(on, -2 * np.pi * phase**2 * (3 - 2 * phase), 0.0)
        for joint, tuck in ((4, 1.0), (5, 0.7), (6, -1.2), (7, -1.2), (0, 1.2), (1, 1.5)):
            joints[:, joint] += tuck * arc
    elif action == "vanish":
        alpha = 1 - np.minimum(1, phase * 2.5)
    return dy, angle, alpha, joints


def _starts(rng: np.random.Generator, action: str, first: int, end: int, mix: Mix) -> list[int]:
    """Frames at which `action` starts within its caption's stretch [first, end)."""
    if action == "stand":
        return []
    at_once = mix.at_once_later if first else mix.at_once_first
    wait = int(rng.integers(0, 10) if rng.random() < at_once else rng.integers(10, mix.longest_wait))
    starts = [first + wait]
    while action in ("wave", "jump", "backflip") and rng.random() < mix.repeat:
        starts.append(starts[-1] + ACTION_FRAMES[action] + int(rng.integers(2, 30)))
    return [s for s in starts if s < end]


def act(
    rng: np.random.Generator, segments: list[tuple[str, int]], mix: Mix, *, starts: list[list[int]] | None = None
) -> tuple[np.ndarray, tuple[tuple[str, int, int], ...]]:
    """Poses [N, 12] of a run of (action, frames); an action that was begun is finished under the next caption."""
    frames = sum(n for _, n in segments)
    t = np.arange(frames)
    pose = np.zeros((frames, 12))
    pose[:, 3], pose[:, 4:] = 1, _limbs("stand", np.zeros(frames), t)[3]
    x, flip = rng.uniform(0.3, 0.7), 1 if rng.random() < 0.7 else -1
    speed, spans, first = np.zeros(frames), [], 0
    for index, (action, length) in enumerate(segments):
        end = first + length
        begins = _starts(rng, action, first, end, mix) if starts is None else starts[index]
        for begin in begins:
            stop = end if action == "walk" else min(frames, begin + ACTION_FRAMES[action])
            span = slice(begin, frames if action == "vanish" else stop)
            phase = np.clip((t[span] - begin) / ACTION_FRAMES[action], 0, 1)
            dy, angle, alpha, joints = _limbs(action, phase, t[span])
            pose[span, 1], pose[span, 2], pose[span, 4:] = dy, angle * flip, joints
            pose[span, 3] = np.minimum(pose[span, 3], alpha)
            speed[span] = 0.006 * flip if action == "walk" else 0.0
        spans.append((action, first, end))
        first = end
    x = x + np.cumsum(speed)
    pose[:, 0] = 0.88 - np.abs((x - 0.12) % 1.52 - 0.76)  # turns round at both edges
    return pose, tuple(spans)


def sample_film(rng: np.random.Generator, sections: int, mix: Mix, *, held_out: bool = False) -> Film:
    """A film of 36 * sections + 1 frames with one to three captions, each a whole number of sections long."""
    pairs = [(c, p) for c in COLOURS for p in PLACES if ((c, p) in HELD_OUT) == held_out]
    colour, place = pairs[rng.integers(len(pairs))]
    action = ACTIONS[rng.choice(5, p=(0.16, 0.20, 0.20, 0.26, 0.18)) + 1]
    draw_kind, left, captions = rng.random(), sections, []
    if draw_kind < mix.calm_only:
        captions, left = [("stand", sections)], 0
    elif draw_kind < mix.calm_only + mix.calm_first and sections > 1:
        calm = int(rng.integers(1, sections))
        captions, left = [("stand", calm)], sections - calm
    if left:
        after = int(rng.integers(1, left)) if left > 1 and rng.random() < mix.calm_after else 0
        captions.append((action, left - after))
        if after:
            captions.append(("stand", after))
    lengths = [(a, n * SECTION_FRAMES + (index == 0)) for index, (a, n) in enumerate(captions)]
    pose, segments = act(rng, lengths, mix)
    return Film(colour=colour, place=place, pose=pose, segments=segments)


def caption(rng: np.random.Generator | None, film: Film, action: str) -> str:
    """A prompt for `action`; with `rng` its wording varies, without it is the canonical one."""
    article, noun, style, form = "a", "figure", "", 0
    if rng is not None:
        article = "the" if rng.random() < 0.3 else "a"
        noun = rng.choice(["figure", "figure", "figure", "person", "puppet"])
        style = ", flat colours" if rng.random() < 0.4 else ""
        form = int(rng.integers(len(ACTION_WORDS[action]))) if rng.random() < 0.3 else 0
    return f"{article} {film.colour} {noun} {ACTION_WORDS[action][form]} {PLACE_WORDS[film.place]}{style}"


def vocabulary() -> list[str]:
    """Every word a caption can hold, sorted."""
    text = " ".join([w for forms in ACTION_WORDS.values() for w in forms] + list(PLACE_WORDS.values()))
    words = set(text.split()) | set(COLOURS) | set("a the figure person puppet flat colours".split())
    return sorted(words)


def _parts(pose: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Body parts [N, J, 4] (x0, y0, x1, y1 in image heights) and head centres [N, 2] of poses [N, 12]."""
    la, ra, le, re, ll, rl, lk, rk = pose[:, 4:].unbind(1)
    zero = torch.zeros_like(la)

    def tip(x: torch.Tensor, y: torch.Tensor, angle: torch.Tensor, length: float) -> tuple[torch.Tensor, torch.Tensor]:
        return x + torch.sin(angle) * length, y + torch.cos(angle) * length

    pieces = []
    for shoulder, elbow in ((la, le), (ra, re)):
        ex, ey = tip(zero, zero - 0.08, shoulder, 0.10)
        pieces += [(zero, zero - 0.08, ex, ey), (ex, ey, *tip(ex, ey, shoulder + elbow, 0.09))]
    for hip, knee in ((ll, lk), (rl, rk)):
        kx, ky = tip(zero, zero + 0.08, hip, 0.11)
        pieces += [(zero, zero + 0.08, kx, ky), (kx, ky, *tip(kx, ky, hip + knee, 0.11))]
    pieces += [(zero, zero - 0.10, zero, zero + 0.08), (zero, zero - 0.17, zero, zero - 0.17)]
    points = torch.stack([torch.stack(p, 1) for p in pieces], 1).unflatten(2, (2, 2))  # [N, J + 1, 2, 2]
    cos, sin = torch.cos(pose[:, 2])[:, None, None], torch.sin(pose[:, 2])[:, None, None]
    px, py = points[..., 0], points[..., 1]
    points = torch.stack([px * cos - py * sin, px * sin + py * cos], -1)
    points = points + torch.stack([pose[:, 0], 0.58 + pose[:, 1]], 1)[:, None, None, :]
    return points[:, :-1].flatten(2), points[:, -1, 0]


def draw(films: list[tuple[Film, np.ndarray]], size: int = 96, device: str = "cpu") -> torch.Tensor:
    """Frames [N, 3, H, W] in -1..1 of the given frame numbers of each film, one after another."""
    pose = torch.tensor(np.concatenate([f.pose[i] for f, i in films]), dtype=torch.float32, device=device)
    counts = torch.tensor([len(i) for _, i in films], device=device)

    def table(values: list) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device).repeat_interleave(counts, 0)[:, :, None, None]

    cloth = table([COLOURS[f.colour] for f, _ in films])
    sky, ground = (table([PLACES[f.place][k] for f, _ in films]) for k in (0, 1))
    axis = (torch.arange(size, device=device) + 0.5) / size
    y, x = axis[None, :, None], axis[None, None, :]
    earth = ((y - 0.74) * size / 1.5 + 0.5).clamp(0, 1)[:, None]
    image = sky * (1 - 0.15 * y[:, None]) * (1 - earth) + ground * earth
    image = image.expand(-1, -1, size, size).contiguous()
    alpha = pose[:, 3, None, None]
    skin = torch.tensor(SKIN, device=device)[None, :, None, None]
    parts, head = _parts(pose)

    def paint(distance: torch.Tensor, radius: float, colour: torch.Tensor) -> None:
        cover = (((radius - distance) * size + 0.5).clamp(0, 1) * alpha)[:, None]
        image.lerp_(colour.expand_as(image), cover.expand_as(image))

    looks = [("arm", skin)] * 4 + [("leg", cloth * 0.45)] * 4 + [("torso", cloth)]
    for j, (kind, colour) in enumerate(looks):
        x0, y0, x1, y1 = (parts[:, j, k, None, None] for k in range(4))
        vx, vy = x1 - x0, y1 - y0
        k = (((x - x0) * vx + (y - y0) * vy) / (vx * vx + vy * vy + 1e-9)).clamp(0, 1)
        paint(torch.hypot(x - x0 - k * vx, y - y0 - k * vy), WIDTHS[kind], colour)
    paint(torch.hypot(x - head[:, 0, None, None], y - head[:, 1, None, None]), WIDTHS["head"], skin)
    return image * 2 - 1
