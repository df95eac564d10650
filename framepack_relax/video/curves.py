"""s(sigma) of every scene as small plots, drawn with Pillow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN = 300, 190, 34  # px of a panel
SCALE = 2  # drawn larger, then reduced: anti-aliasing
PAPER, INK, RULE = (255, 255, 255), (40, 40, 46), (224, 224, 228)
COLOURS = {"embedded": (214, 116, 26), "text": (36, 99, 190), "context": (22, 140, 92)}

Curve = tuple[str, Sequence[float], Mapping[str, Sequence[float]]]


def save_curves(curves: Sequence[Curve], path: Path, columns: int = 3) -> None:
    """A panel per (label, sigmas per step, scales per step by restraint): sigma falls from 1 at the left to 0."""
    columns = min(columns, len(curves))
    rows = -(-len(curves) // columns)
    sheet = Image.new("RGB", (columns * WIDTH * SCALE, rows * HEIGHT * SCALE), PAPER)
    for index, curve in enumerate(curves):
        panel = _panel(curve)
        sheet.paste(panel, (index % columns * WIDTH * SCALE, index // columns * HEIGHT * SCALE))
    sheet.resize((sheet.width // SCALE, sheet.height // SCALE), Image.Resampling.LANCZOS).save(path)


def _panel(curve: Curve) -> Image.Image:
    label, sigmas, scales = curve
    panel = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default(size=10 * SCALE)
    left, top, right, bottom = (v * SCALE for v in (MARGIN, 26, WIDTH - 12, HEIGHT - MARGIN))
    highest = max(1.0, *(max(values) for values in scales.values())) * 1.08

    def spot(sigma: float, scale: float) -> tuple[float, float]:
        return left + (1 - sigma) * (right - left), bottom - scale / highest * (bottom - top)

    for tick in range(5):
        x, y = spot(1 - tick / 4, highest * tick / 4)
        pen.line([(x, top), (x, bottom)], fill=RULE, width=SCALE)
        pen.line([(left, y), (right, y)], fill=RULE, width=SCALE)
        pen.text((x, bottom + 3 * SCALE), f"{1 - tick / 4:g}", fill=INK, font=font, anchor="ma")
        pen.text((left - 3 * SCALE, y), f"{highest * tick / 4:.1f}", fill=INK, font=font, anchor="rm")
    pen.text((left, 4 * SCALE), label[:30], fill=INK, font=font)
    pen.text((right, HEIGHT * SCALE - 2 * SCALE), "sigma", fill=INK, font=font, anchor="rd")
    for number, (name, values) in enumerate(scales.items()):
        colour = COLOURS[name]
        line = [spot(sigma, scale) for sigma, scale in zip(sigmas, values, strict=True)]
        pen.line(line, fill=colour, width=2 * SCALE, joint="curve")
        for x, y in line:
            pen.ellipse([x - 2 * SCALE, y - 2 * SCALE, x + 2 * SCALE, y + 2 * SCALE], fill=colour)
        at = left + number * 70 * SCALE
        pen.text((at, HEIGHT * SCALE - 2 * SCALE), name, fill=colour, font=font, anchor="ld")
    return panel
