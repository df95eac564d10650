"""A sweep to look at: plots of every figure by arm, and one HTML page with the table and every film's contact sheet."""

import io
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Template
from matplotlib.figure import Figure

from ..rendering.folder import RunFolder
from .statistics import FIGURES, Cell, Row

PLOTTED = ("target", "motion", "identity", "jump")
PAGE = "index.html"
TEMPLATE = Path(__file__).parent / "page.html"
NAMES = (PAGE, *(f"{name}.png" for name in PLOTTED))  # of the files that are written


def plots(cells: Sequence[Cell]) -> dict[str, bytes]:
    """By its name a PNG of the arms' means and intervals for each figure that was measured."""
    made = {}
    for name in PLOTTED:
        found = {cell.arm: cell.figures[name] for cell in cells if name in cell.figures}
        if not found:
            continue
        plot = Figure(figsize=(8, 1 + 0.3 * len(found)), layout="constrained")
        axes, rows = plot.subplots(), range(len(found))
        means, lows, highs = zip(*((one.mean, one.low, one.high) for one in found.values()), strict=True)
        axes.hlines(rows, lows, highs, color="#b8c4d8", linewidth=5)
        axes.plot(means, rows, "o", color="#2463be")
        axes.axvline(means[0], color="#d6741a", linewidth=1)
        axes.set(yticks=rows, yticklabels=list(found), title=name)
        axes.margins(y=0.02)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        plot.savefig(buffer, dpi=120)
        made[f"{name}.png"] = buffer.getvalue()
    return made


def save_page(title: str, rows: Sequence[Row], cells: Sequence[Cell], folder: RunFolder) -> None:
    """index.html: table, plots, and under each arm the contact sheets of its films."""
    pictures = plots(cells)
    names = [name for name in FIGURES if any(name in cell.figures for cell in cells)]
    template = Template(TEMPLATE.read_text(encoding="utf8"), autoescape=True)
    page = template.render(title=title, names=names, cells=cells, pictures=pictures, rows=rows)
    folder.write({**pictures, PAGE: page.encode("utf8", "replace")})
