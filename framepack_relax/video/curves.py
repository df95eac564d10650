"""s(sigma) of every scene as small plots, drawn with Pillow; of very many scenes some, evenly chosen."""

import math
from collections.abc import Callable, Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from .contact import png, some
from .lettering import Lettering

WIDTH, HEIGHT = 300, 190  # px of a panel
LEFT, TOP, RIGHT, BOTTOM = 34, 26, WIDTH - 14, HEIGHT - 35  # px of its axes
HEADROOM = 8  # px over the highest tick
LETTERS, NOTE = 11, 20  # px of a title and of the line above all panels
MOST_PANELS = 180
MOST_DOTS = 50  # of a curve; more would hide one another
SCALE = 2  # drawn larger, then reduced: anti-aliasing
PAPER, INK, RULE = (255, 255, 255), (40, 40, 46), (224, 224, 228)
COLOURS = ((214, 116, 26), (37, 99, 190), (22, 140, 92), (150, 60, 160))  # of restraints in turn

Curve = tuple[str, Sequence[float], Mapping[str, Sequence[float]]]
Spot = Callable[[float, float], tuple[float, float]]  # (sigma, scale) -> px


def draw_curves(curves: Sequence[Curve], columns: int = 3) -> bytes:
    """A PNG, a panel per (label, sigmas per step, scales per step by restraint): sigma falls from 1, left, to 0."""
    shown, note = some(curves, MOST_PANELS)
    columns = min(columns, len(shown))
    top, rows = NOTE if note else 0, math.ceil(len(shown) / columns)
    sheet = Image.new("RGB", (columns * WIDTH, top + rows * HEIGHT), PAPER)
    lettering = Lettering(LETTERS * SCALE, [label for label, _, _ in shown])
    ImageDraw.Draw(sheet).text((LEFT, 4), note, fill=INK, font=ImageFont.load_default(size=LETTERS))
    for index, (label, sigmas, scales) in enumerate(shown):
        panel = _panel(label, sigmas, scales, lettering).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        sheet.paste(panel, (index % columns * WIDTH, top + index // columns * HEIGHT))
    return png(sheet)


def _panel(
    label: str, sigmas: Sequence[float], scales: Mapping[str, Sequence[float]], lettering: Lettering
) -> Image.Image:
    panel = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default(size=10 * SCALE)
    step, steps = _ticks(max([1.0, *(max(values) for values in scales.values())]))

    def spot(sigma: float, scale: float) -> tuple[float, float]:
        x, y = LEFT + (1 - sigma) * (RIGHT - LEFT), BOTTOM - scale / (step * steps) * (BOTTOM - TOP - HEADROOM)
        return x * SCALE, y * SCALE

    title = lettering.fit(label, (RIGHT - LEFT) * SCALE)
    lettering.write(panel, (LEFT * SCALE, 6 * SCALE), title, INK)
    _axes(pen, font, spot, step, steps)
    x = float(LEFT * SCALE)
    for order, (name, values) in enumerate(scales.items()):
        # later dots are smaller, so that equal scales are seen around one another
        colour, radius = COLOURS[order % len(COLOURS)], (0.9 * (len(scales) - order) + 0.8) * SCALE
        line = [spot(sigma, scale) for sigma, scale in zip(sigmas, values, strict=True)]
        pen.line(line, fill=colour, width=round(1.5 * SCALE), joint="curve")
        for dot in line[:: math.ceil(len(line) / MOST_DOTS)]:
            pen.circle(dot, radius, fill=colour)
        pen.circle((x + 3 * SCALE, (HEIGHT - 8) * SCALE), 3 * SCALE, fill=colour)
        pen.text((x + 9 * SCALE, (HEIGHT - 8) * SCALE), name, fill=colour, font=font, anchor="lm")
        x += font.getlength(name) + 20 * SCALE
    return panel


def _axes(
    pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, spot: Spot, step: float, steps: int
) -> None:
    """Rules and ticks: sigma in quarters, the scale from 0 in `steps` steps of `step`."""
    for quarter in range(5):
        sigma = 1 - quarter / 4
        pen.line([spot(sigma, 0), spot(sigma, step * steps)], fill=RULE, width=SCALE)
        x, y = spot(sigma, 0)
        pen.text((x, y + 4 * SCALE), f"{sigma:g}", fill=INK, font=font, anchor="ma")
    for tick in range(steps + 1):
        scale = tick * step
        pen.line([spot(1, scale), spot(0, scale)], fill=INK if tick == 0 else RULE, width=SCALE)
        x, y = spot(1, scale)
        pen.text((x - 5 * SCALE, y), f"{scale:g}", fill=INK, font=font, anchor="rm")
    pen.text((RIGHT * SCALE, (HEIGHT - 8) * SCALE), "sigma", fill=INK, font=font, anchor="rm")


def _ticks(highest: float) -> tuple[float, int]:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that reaches `highest` > 0 in five steps, and the steps."""
    power = 10.0 ** math.floor(math.log10(highest / 5))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice * 5 >= highest)
    return step, math.ceil(highest / step)
