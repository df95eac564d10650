"""A sweep to look at: plots of every figure by arm, and one HTML page with the table and every film's contact sheet."""

import io
from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

from ..rendering.folder import RunFolder
from .statistics import FIGURES, Cell, Row

PLOTTED = ("target", "motion", "identity", "jump")
PAGE = "index.html"
NAMES = (PAGE, *(f"{name}.png" for name in PLOTTED))  # of the files that are written
STYLE = """body{font:15px/1.5 system-ui;margin:2em auto;max-width:76em;padding:0 1em;color:#28282e}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.15em .7em;text-align:right}
td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#f4f4f2}img{max-width:100%}"""


def plots(cells: Sequence[Cell]) -> dict[str, bytes]:
    """By its name a PNG of the arms' means and intervals for each figure that was measured."""
    made = {}
    for name in PLOTTED:
        found = [(cell.arm, cell.figures[name]) for cell in cells if name in cell.figures]
        if not found:
            continue
        plot = Figure(figsize=(8, 1 + 0.3 * len(found)), layout="constrained")
        axes = plot.subplots()
        for row, (_, figure) in enumerate(found):
            axes.plot([figure.low, figure.high], [row, row], color="#b8c4d8", linewidth=5, solid_capstyle="butt")
            axes.plot([figure.mean], [row], "o", color="#2463be")
        axes.axvline(found[0][1].mean, color="#d6741a", linewidth=1)
        axes.set(yticks=range(len(found)), yticklabels=[arm for arm, _ in found], title=name)
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
    shown = "".join(f"<p><img src='{name}' alt='{name.removesuffix('.png')}'></p>" for name in pictures)
    arms = []
    for cell in cells:
        films = [row for row in rows if row["arm"] == cell.arm]
        sheets = [f"<p>{escape(row['scene'])}, seed {row['seed']}<br>{_image(row)}</p>" for row in films]
        arms.append(f"<details><summary>{escape(cell.arm)}</summary>{''.join(sheets)}</details>")
    page = f"<!doctype html><meta charset=utf8><title>{escape(title)}</title><style>{STYLE}</style>"
    page += f"<h1>{escape(title)}</h1>{_table(cells)}{shown}<h2>Films</h2>{''.join(arms)}"
    folder.write({**pictures, PAGE: page.encode("utf8", "replace")})


def _image(row: Row) -> str:
    return f"<img loading=lazy src='{escape(row['film'])}/contact.png' alt=''>"


def _table(cells: Sequence[Cell]) -> str:
    names = [name for name in FIGURES if any(name in cell.figures for cell in cells)]
    kinds = list(cells[0].failures)
    head = "".join(f"<th>{escape(name)}" for name in ("arm", "films", *names, *kinds))
    rows = []
    for cell in cells:
        words = [escape(cell.arm), str(cell.films)]
        words += [f"{f.mean:.3f}<br><small>{f.span(3)}</small>" if f else "" for f in map(cell.figures.get, names)]
        words += [f"{cell.failures[kind]:.2f}" for kind in kinds]
        rows.append("<tr>" + "".join(f"<td>{word}" for word in words))
    return f"<table><tr>{head}{''.join(rows)}</table>"
