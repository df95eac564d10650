"""Pixels of the puppet world's films.

N frames, H height, W width in px; positions and lengths in image heights, y downwards; colours 0..1.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from training.world import Body, Film, Place, World

SKIN = (0.96, 0.80, 0.65)
HAIR = (0.45, 0.24, 0.12)
DARK = (0.16, 0.12, 0.16)
TROUSERS = ((0.72, 0.74, 0.84), (0.95, 0.95, 0.98))  # far, near
BLAST = (  # colour, share of the radius, how spiky
    ((1.00, 0.42, 0.08), 1.0, 0.2),
    ((1.00, 0.80, 0.15), 0.66, 0.12),
    ((1.00, 0.97, 0.82), 0.34, 0.0),
)
PUFFS = ((-0.16, 0.02, 0.05), (0.15, -0.04, 0.04), (0.0, -0.14, 0.03))  # x, y and radius when they start
SMOKE = (0.62, 0.60, 0.64)


@dataclass(frozen=True)
class Part:
    """A stroke with round ends: from and to [N, 2], in the figure's own coordinates, and its colour [N, 3]."""

    start: Tensor
    end: Tensor
    half_width: float
    colour: Tensor


def draw(films: list[tuple[Film, np.ndarray]], size: int = 96, device: str = "cpu") -> Tensor:
    """Frames [N, 3, H, W] in -1..1 of the given frame numbers of each film, one after another."""
    return painted(films, size, device)[0]


def painted(
    films: list[tuple[Film, np.ndarray]],
    size: int,
    device: str,
    *,
    corners: list[tuple[int, int]] | None = None,
    crop: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Frames [N, 3, h, w] in -1..1 and what lies behind the figures; of squares of `crop` px at `corners` (x, y).

    All films are of one world.
    """
    world, crop = films[0][0].world, crop or size
    corners = corners or [(0, 0)] * len(films)
    counts = torch.tensor([len(numbers) for _, numbers in films])
    places = {place: _scene(world, place, size) for place in {film.place for film, _ in films}}
    cut = [places[film.place][:, y : y + crop, x : x + crop] for (film, _), (x, y) in zip(films, corners, strict=True)]
    behind = torch.stack(cut).repeat_interleave(counts, 0).to(device)
    pose = torch.tensor(np.concatenate([f.pose[i] for f, i in films]), dtype=torch.float32, device=device)
    cloth = torch.tensor([world.colours[film.colour] for film, _ in films]).repeat_interleave(counts, 0).to(device)
    first = torch.tensor(corners, dtype=torch.float32).repeat_interleave(counts, 0).to(device)
    steps = torch.arange(crop, device=device) + 0.5
    canvas = Canvas(behind.clone(), (steps + first[:, :1]) / size, (steps + first[:, 1:]) / size, size / world.outline)
    _paint_figure(canvas, world, pose, cloth)
    return canvas.image * 2 - 1, behind * 2 - 1


class Canvas:
    """Pictures [N, 3, h, w] that are painted on, at x [N, w] and y [N, h]; `sharpness`: outlines a height."""

    def __init__(self, image: Tensor, x: Tensor, y: Tensor, sharpness: float) -> None:
        self.image, self.x, self.y, self.sharpness = image, x[:, None, :], y[:, :, None], sharpness

    def paint(self, inside: Tensor, alpha: Tensor | float, colour: Tensor) -> None:
        """`inside` [N, h, w] is how deep a pixel lies in the shape; its edge is smooth over an outline."""
        cover = ((inside * self.sharpness + 0.5).clamp(0, 1) * alpha)[:, None]
        colour = colour.to(self.image).reshape(-1, 3, 1, 1)
        self.image.lerp_(colour.expand_as(self.image), cover.expand_as(self.image))

    def stroke(self, start: Tensor, end: Tensor, half_width: float, alpha: Tensor | float, colour: Tensor) -> None:
        """A line with round ends between points [N, 2] of the picture."""
        x0, y0, x1, y1 = (v[:, None, None] for v in (*start.unbind(1), *end.unbind(1)))
        vx, vy = x1 - x0, y1 - y0
        k = (((self.x - x0) * vx + (self.y - y0) * vy) / (vx * vx + vy * vy + 1e-9)).clamp(0, 1)
        self.paint(half_width - torch.hypot(self.x - x0 - k * vx, self.y - y0 - k * vy), alpha, colour)


@cache
def _scene(world: World, place: str, size: int) -> Tensor:
    """A place [3, H, W] without its figure."""
    here: Place = world.places[place]
    axis = (torch.arange(size) + 0.5) / size
    y = axis[None, :, None]
    sky, ground = (torch.tensor(colour)[:, None, None] for colour in (here.sky, here.ground))
    image = (sky * (1 - 0.15 * y)).expand(3, size, size)[None].contiguous()
    canvas = Canvas(image, axis[None], axis[None], size / world.outline)
    for shape in here.scenery:
        dx, dy = (canvas.x - shape.x).abs() - shape.wide, (canvas.y - shape.y).abs() - shape.high
        beyond = torch.hypot(dx.clamp(min=0), dy.clamp(min=0)) + torch.maximum(dx, dy).clamp(max=0)
        canvas.paint(shape.round - beyond, 1.0, torch.tensor(shape.colour))
    earth = ((y - world.horizon) * size / max(1.5, world.outline) + 0.5).clamp(0, 1)
    return image[0] * (1 - earth) + ground * earth


def _paint_figure(canvas: Canvas, world: World, pose: Tensor, cloth: Tensor) -> None:
    body, alpha = world.body, pose[:, 3, None, None]
    cos, sin = torch.cos(pose[:, 2]), torch.sin(pose[:, 2])
    middle = torch.stack([pose[:, 0], body.middle + pose[:, 1]], 1)

    def placed(point: Tensor) -> Tensor:
        px, py = point.unbind(1)
        return torch.stack([px * cos - py * sin, px * sin + py * cos], 1) + middle

    behind = canvas.image
    if body.detailed:
        _paint_shadow(canvas, world, pose)
        behind = canvas.image.clone()
    for part in _detailed(pose, body, cloth) if body.detailed else _plain(pose, body, cloth):
        fade = 1.0 if body.detailed else alpha
        canvas.stroke(placed(part.start), placed(part.end), part.half_width, fade, part.colour)
    if body.detailed:  # fades as a whole
        canvas.image = torch.lerp(behind, canvas.image, alpha[:, None])
        _paint_explosion(canvas, world, middle, pose[:, 12])


def _limb(root: tuple[float, float], side: int, lengths: tuple[float, float], upper: Tensor, bend: Tensor) -> Tensor:
    """Joints [N, 3, 2] of a limb: its root, its elbow or knee, its end."""
    points = [torch.tensor([root[0] * side, root[1]]).to(upper).expand(len(upper), 2)]
    for length, angle in zip(lengths, (upper, upper + bend), strict=True):
        points.append(points[-1] + length * torch.stack([torch.sin(angle), torch.cos(angle)], 1))
    return torch.stack(points, 1)


def _limbs(pose: Tensor, body: Body) -> tuple[list[Tensor], list[Tensor]]:
    """Joints [N, 3, 2] of both arms and both legs."""
    la, ra, le, re, ll, rl, lk, rk = pose[:, 4:12].unbind(1)
    arms = [_limb(body.shoulder, side, body.arm, *angles) for side, angles in ((1, (la, le)), (-1, (ra, re)))]
    legs = [_limb(body.hip, side, body.leg, *angles) for side, angles in ((1, (ll, lk)), (-1, (rl, rk)))]
    return arms, legs


def _plain(pose: Tensor, body: Body, cloth: Tensor) -> list[Part]:
    arms, legs = _limbs(pose, body)
    skin, wide = torch.tensor(SKIN).to(cloth), body.half_widths
    parts = [Part(arm[:, k], arm[:, k + 1], wide["arm"], skin) for arm in arms for k in (0, 1)]
    parts += [Part(leg[:, k], leg[:, k + 1], wide["leg"], cloth * 0.45) for leg in legs for k in (0, 1)]
    torso, head = _upright(pose, *body.torso), _upright(pose, body.head, body.head)
    return [*parts, Part(*torso, wide["torso"], cloth), Part(*head, wide["head"], skin)]


def _upright(pose: Tensor, top: float, bottom: float, x: float = 0.0) -> tuple[Tensor, Tensor]:
    first, last = (torch.tensor([x, y]).to(pose).expand(len(pose), 2) for y in (top, bottom))
    return first, last


def _detailed(pose: Tensor, body: Body, cloth: Tensor) -> list[Part]:
    """Far arm and leg, near leg, torso, head, near arm: every part differs from what it may cover."""
    arms, legs = _limbs(pose, body)
    skin, hair, dark = (torch.tensor(colour).to(cloth) for colour in (SKIN, HAIR, DARK))
    wide = body.half_widths

    def arm(joints: Tensor, colour: Tensor) -> list[Part]:
        sleeve = [Part(joints[:, k], joints[:, k + 1], wide["arm"], colour) for k in (0, 1)]
        return [*sleeve, Part(joints[:, 2], joints[:, 2], wide["arm"], skin)]

    def leg(joints: Tensor, near: int, side: int) -> list[Part]:
        colour = torch.tensor(TROUSERS[near]).to(cloth)
        pieces = [Part(joints[:, k], joints[:, k + 1], wide["leg"], colour) for k in (0, 1)]
        along = joints[:, 2] - joints[:, 1]
        toe = joints[:, 2] + 0.35 * side * torch.stack([along[:, 1], -along[:, 0]], 1)
        return [*pieces, Part(joints[:, 2], toe, wide["leg"], cloth * (0.55 + 0.2 * near))]

    head = [
        Part(*_upright(pose, body.head, body.head), wide["head"], hair),
        Part(*_upright(pose, body.head + 0.028, body.head + 0.028), 0.86 * wide["head"], skin),
        Part(*_upright(pose, body.head + 0.058, body.head + 0.058), 0.042, dark),  # a smile,
        Part(*_upright(pose, body.head + 0.036, body.head + 0.036), 0.047, skin),  # but for what lies above it
        *(Part(*_upright(pose, body.head + 0.006, body.head + 0.022, x), 0.017, dark) for x in (-0.042, 0.042)),
    ]
    torso = Part(*_upright(pose, *body.torso), wide["torso"], cloth)
    far, near = cloth * 0.7, torch.lerp(cloth, torch.ones_like(cloth), 0.35)
    return [*arm(arms[0], far), *leg(legs[0], 0, 1), *leg(legs[1], 1, -1), torso, *head, *arm(arms[1], near)]


def _ellipse(canvas: Canvas, world: World, x: Tensor, wide: Tensor, alpha: Tensor) -> None:
    """A dark one on the ground below the figure; all [N, 1, 1]."""
    body, high = world.body, 0.030
    sole = body.middle + body.hip[1] + sum(body.leg) + body.half_widths["leg"]
    inside = (1 - torch.hypot((canvas.x - x) / wide, (canvas.y - sole) / high)) * high
    canvas.paint(inside, alpha, torch.zeros(3))


def _paint_shadow(canvas: Canvas, world: World, pose: Tensor) -> None:
    """It shrinks as the figure rises, and goes with it."""
    x, rise, alpha = pose[:, 0, None, None], (-pose[:, 1, None, None]).clamp(min=0), pose[:, 3, None, None]
    _ellipse(canvas, world, x, 0.17 - 0.06 * rise / world.leap, 0.28 * alpha)


def _paint_explosion(canvas: Canvas, world: World, middle: Tensor, phase: Tensor) -> None:
    """A star that grows, stays and shrinks, smoke that rises behind it, and soot that stays, at `phase` [N]."""
    at = phase[:, None, None]
    if not at.any():
        return
    _ellipse(canvas, world, middle[:, 0, None, None], torch.full_like(at, 0.22), 0.55 * (5 * at - 1).clamp(0, 1))
    x, y = canvas.x - middle[:, 0, None, None], canvas.y - middle[:, 1, None, None]
    for dx, dy, radius in PUFFS:
        seen = ((at > 0.3) * (2 * (1 - at)).clamp(0, 1)) * 0.9
        away = torch.hypot(x - dx * (0.6 + at), y - dy * (0.6 + at) + 0.16 * at)
        canvas.paint(radius + 0.09 * at - away, seen, torch.tensor(SMOKE))
    radius = 0.40 * torch.minimum((at / 0.25).clamp(0, 1).sqrt(), ((0.8 - at) / 0.35).clamp(0, 1))
    spikes = torch.cos(7 * torch.atan2(y, x))
    for colour, share, spiky in BLAST:
        canvas.paint(
            share * radius * (1 + spiky * spikes) - torch.hypot(x, y), (radius > 0).float(), torch.tensor(colour)
        )
