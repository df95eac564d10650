"""The puppet world: a paper-doll figure that stands, waves, walks, jumps, does a backflip, disappears or explodes.

Everything the packaged model knows was drawn here. `sample_film` invents a film (colour, place, a run of captions with
the moment at which each action really starts); drawing.py turns film frames into pixels.

`FIRST` is the world of the packaged weights, `SECOND` that of their successor; with its weights FIRST goes.
"""

from dataclasses import dataclass, field

import numpy as np

PLACE_WORDS = {"beach": "on the beach", "night": "at night", "field": "in the field", "city": "in the city"}
ACTION_WORDS = {  # the first form is the common one
    "stand": ("stands still", "waits", "stays still"),
    "wave": ("waves", "waves a hand"),
    "walk": ("walks", "walks along"),
    "jump": ("jumps", "jumps up"),
    "backflip": ("does a backflip", "backflips"),
    "vanish": ("disappears", "vanishes"),
    "explode": ("explodes", "blows up"),
}
ACTION_FRAMES = {"stand": 1, "wave": 36, "walk": 10_000, "jump": 20, "backflip": 24, "vanish": 30, "explode": 36}
FOR_GOOD = ("vanish", "explode")  # the figure does not come back
POSE = 13  # numbers: x, y, angle, alpha, eight joint angles, how far the explosion is (0 before it, 1 after it)
SECTION_FRAMES = 36
Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A box with round corners before the sky: centre, half sides and the corners' radius, in image heights."""

    x: float
    y: float
    wide: float = 0.0
    high: float = 0.0
    round: float = 0.0
    colour: Colour


@dataclass(frozen=True, kw_only=True)
class Place:
    sky: Colour
    ground: Colour
    scenery: tuple[Shape, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Body:
    """Proportions in image heights, positions from the figure's middle; the second arm and leg mirror the first."""

    middle: float = 0.58  # of the picture, standing
    torso: tuple[float, float] = (-0.10, 0.08)
    head: float = -0.17
    shoulder: tuple[float, float] = (0.0, -0.08)
    hip: tuple[float, float] = (0.0, 0.08)
    arm: tuple[float, float] = (0.10, 0.09)  # upper and lower
    leg: tuple[float, float] = (0.11, 0.11)
    half_widths: dict[str, float] = field(
        default_factory=lambda: {"arm": 0.022, "leg": 0.028, "torso": 0.05, "head": 0.062}
    )
    detailed: bool = False  # hair, face, sleeves, hands, shoes, shadow


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    colours: dict[str, Colour]
    places: dict[str, Place]
    actions: dict[str, float]  # how often a film is about each
    held_out: frozenset[tuple[str, str]]  # never drawn for training, only for judging
    body: Body = Body()
    horizon: float = 0.74
    leap: float = 0.26  # of a jump
    edge: float = 0.12  # nearer to the picture's sides no figure walks
    starts: float = 0.2  # farthest from the middle that a figure begins
    settle: int = 0  # frames in which a walk ends in standing
    flip: int = ACTION_FRAMES["backflip"]  # frames of a backflip
    even: float = 0.0  # share of a backflip at either end in which its turning gathers; 0: a smooth step throughout
    outline: float = 1.0  # px over which a shape's edge runs

    def lasts(self, action: str) -> int:
        """Frames of an action."""
        return self.flip if action == "backflip" else ACTION_FRAMES[action]

    def pairs(self, *, held_out: bool) -> list[tuple[str, str]]:
        every = ((colour, place) for colour in self.colours for place in self.places)
        return [pair for pair in every if (pair in self.held_out) == held_out]


FIRST = World(
    colours={
        "red": (0.85, 0.20, 0.20),
        "blue": (0.20, 0.35, 0.90),
        "green": (0.15, 0.65, 0.30),
        "yellow": (0.95, 0.80, 0.20),
        "purple": (0.60, 0.25, 0.75),
    },
    places={
        "beach": Place(sky=(0.60, 0.85, 0.95), ground=(0.93, 0.85, 0.60)),
        "night": Place(sky=(0.08, 0.08, 0.20), ground=(0.20, 0.20, 0.28)),
        "field": Place(sky=(0.75, 0.88, 1.00), ground=(0.45, 0.72, 0.35)),
    },
    actions={"wave": 0.16, "walk": 0.20, "jump": 0.20, "backflip": 0.26, "vanish": 0.18},
    held_out=frozenset({("yellow", "night"), ("purple", "beach")}),
)
SECOND = World(
    colours={
        "red": (0.88, 0.16, 0.16),
        "blue": (0.16, 0.36, 0.90),
        "green": (0.10, 0.60, 0.28),
        "yellow": (0.98, 0.80, 0.12),
        "purple": (0.56, 0.22, 0.76),
        "orange": (0.98, 0.50, 0.08),
        "pink": (0.98, 0.48, 0.70),
        "teal": (0.08, 0.64, 0.66),
    },
    places={
        "beach": Place(
            sky=(0.50, 0.80, 0.96),
            ground=(0.94, 0.76, 0.40),
            scenery=(
                Shape(x=0.84, y=0.15, round=0.085, colour=(1.00, 0.92, 0.45)),
                Shape(x=0.50, y=0.70, wide=0.60, high=0.09, colour=(0.16, 0.52, 0.80)),
            ),
        ),
        "night": Place(
            sky=(0.10, 0.11, 0.28),
            ground=(0.36, 0.38, 0.56),
            scenery=(
                Shape(x=0.16, y=0.16, round=0.075, colour=(0.96, 0.94, 0.80)),
                Shape(x=0.195, y=0.135, round=0.065, colour=(0.10, 0.11, 0.28)),
                *(
                    Shape(x=x, y=y, round=0.013, colour=(0.85, 0.87, 0.95))
                    for x, y in ((0.44, 0.10), (0.64, 0.22), (0.90, 0.12), (0.86, 0.42), (0.10, 0.46))
                ),
            ),
        ),
        "field": Place(
            sky=(0.66, 0.87, 0.98),
            ground=(0.56, 0.78, 0.32),
            scenery=(
                Shape(x=0.20, y=0.17, wide=0.09, round=0.05, colour=(0.97, 0.98, 1.00)),
                Shape(x=0.23, y=0.13, wide=0.02, round=0.06, colour=(0.97, 0.98, 1.00)),
                Shape(x=0.12, y=1.02, round=0.46, colour=(0.36, 0.64, 0.36)),
                Shape(x=0.92, y=1.12, round=0.52, colour=(0.42, 0.70, 0.38)),
            ),
        ),
        "city": Place(
            sky=(0.74, 0.70, 0.92),
            ground=(0.46, 0.44, 0.50),
            scenery=tuple(
                Shape(x=x, y=0.85, wide=wide, high=0.85 - top, colour=colour)
                for x, wide, top, colour in (
                    (0.06, 0.10, 0.34, (0.44, 0.42, 0.58)),
                    (0.27, 0.09, 0.50, (0.57, 0.54, 0.72)),
                    (0.72, 0.08, 0.42, (0.57, 0.54, 0.72)),
                    (0.92, 0.11, 0.26, (0.44, 0.42, 0.58)),
                )
            ),
        ),
    },
    actions={"wave": 0.15, "walk": 0.18, "jump": 0.18, "backflip": 0.23, "vanish": 0.13, "explode": 0.13},
    held_out=frozenset(
        {
            ("red", "city"), ("blue", "night"), ("green", "beach"), ("yellow", "field"),
            ("purple", "beach"), ("orange", "night"), ("pink", "field"), ("teal", "city"),
        }
    ),  # every colour once, every place twice
    body=Body(
        middle=0.60, torso=(-0.06, 0.05), head=-0.225, shoulder=(0.085, -0.075), hip=(0.046, 0.09), arm=(0.09, 0.08),
        leg=(0.09, 0.09), half_widths={"arm": 0.042, "leg": 0.046, "torso": 0.088, "head": 0.112}, detailed=True,
    ),
    horizon=0.72,
    leap=0.22,
    edge=0.18,
    starts=0.17,
    settle=8,
    flip=32,
    even=0.2,
    outline=2.0,
)  # fmt: skip


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
    """`pose` [N, POSE] per frame; `segments`: (action, first, end) frames."""

    world: World = FIRST
    colour: str
    place: str
    pose: np.ndarray
    segments: tuple[tuple[str, int, int], ...]


def _turned(phase: np.ndarray, even: float) -> np.ndarray:
    """The share of a whole turn that is done at `phase`: a smooth step, or even but for a share at either end."""
    if not even:
        return phase**2 * (3 - 2 * phase)
    start, end = phase**2 / (2 * even), 1 - even - (1 - phase) ** 2 / (2 * even)
    return np.where(phase < even, start, np.where(phase > 1 - even, end, phase - even / 2)) / (1 - even)


def _limbs(action: str, phase: np.ndarray, t: np.ndarray, world: World) -> tuple[np.ndarray, ...]:
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
        dy -= world.leap * arc
        joints[:, 0] += 2.2 * arc
        joints[:, 1] -= 2.2 * arc
        joints[:, 6] -= crouch
        joints[:, 7] += crouch
    elif action == "backflip":
        dy -= world.leap * arc
        angle = np.where(on, -2 * np.pi * _turned(phase, world.even), 0.0)
        for joint, tuck in ((4, 1.0), (5, 0.7), (6, -1.2), (7, -1.2), (0, 1.2), (1, 1.5)):
            joints[:, joint] += tuck * arc
    elif action == "vanish":
        alpha = 1 - np.minimum(1, phase * 2.5)
    elif action == "explode":
        alpha = np.where(phase < 0.25, 1.0, 0.0)
    return dy, angle, alpha, joints


def _starts(rng: np.random.Generator, action: str, first: int, end: int, mix: Mix, world: World) -> list[int]:
    """Frames at which `action` starts within its caption's stretch [first, end)."""
    if action == "stand":
        return []
    at_once = mix.at_once_later if first else mix.at_once_first
    wait = int(rng.integers(0, 10) if rng.random() < at_once else rng.integers(10, mix.longest_wait))
    starts = [first + wait]
    while action in ("wave", "jump", "backflip") and rng.random() < mix.repeat:
        starts.append(starts[-1] + world.lasts(action) + int(rng.integers(2, 30)))
    return [s for s in starts if s < end]


def act(
    rng: np.random.Generator,
    segments: list[tuple[str, int]],
    mix: Mix,
    *,
    starts: list[list[int]] | None = None,
    world: World = FIRST,
) -> tuple[np.ndarray, tuple[tuple[str, int, int], ...]]:
    """Poses [N, POSE] of a run of (action, frames); an action that was begun is finished under the next caption."""
    frames = sum(n for _, n in segments)
    t = np.arange(frames)
    pose = np.zeros((frames, POSE))
    pose[:, 3], pose[:, 4:12] = 1, _limbs("stand", np.zeros(frames), t, world)[3]
    x, flip = rng.uniform(0.5 - world.starts, 0.5 + world.starts), 1 if rng.random() < 0.7 else -1
    speed, spans, first = np.zeros(frames), [], 0
    for index, (action, length) in enumerate(segments):
        end = first + length
        begins = _starts(rng, action, first, end, mix, world) if starts is None else starts[index]
        for begin in begins:
            stop = end if action == "walk" else min(frames, begin + world.lasts(action))
            span = slice(begin, frames if action in FOR_GOOD else stop)
            phase = np.clip((t[span] - begin) / world.lasts(action), 0, 1)
            dy, angle, alpha, joints = _limbs(action, phase, t[span], world)
            slower = np.ones(len(phase))
            if action == "walk" and world.settle and stop < frames:
                slower = np.clip((stop - t[span]) / world.settle, 0, 1)
                joints = pose[span, 4:12] + slower[:, None] * (joints - pose[span, 4:12])
            pose[span, 1], pose[span, 2], pose[span, 4:12] = dy, angle * flip, joints
            pose[span, 3] = np.minimum(pose[span, 3], alpha)
            if action == "explode":
                pose[span, 12] = phase
            speed[span] = 0.006 * flip * slower if action == "walk" else 0.0
        spans.append((action, first, end))
        first = end
    x = x + np.cumsum(speed)
    wide = 1 - 2 * world.edge
    pose[:, 0] = 1 - world.edge - np.abs((x - world.edge) % (2 * wide) - wide)  # turns round at both edges
    return pose, tuple(spans)


def sample_film(
    rng: np.random.Generator, sections: int, mix: Mix, *, held_out: bool = False, world: World = FIRST
) -> Film:
    """A film of 36 * sections + 1 frames with one to three captions, each a whole number of sections long."""
    pairs = world.pairs(held_out=held_out)
    colour, place = pairs[rng.integers(len(pairs))]
    action = list(world.actions)[rng.choice(len(world.actions), p=list(world.actions.values()))]
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
    pose, segments = act(rng, lengths, mix, world=world)
    return Film(world=world, colour=colour, place=place, pose=pose, segments=segments)


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
    words = (
        set(text.split())
        | set(FIRST.colours)
        | set(SECOND.colours)
        | set("a the figure person puppet flat colours".split())
    )
    return sorted(words)
