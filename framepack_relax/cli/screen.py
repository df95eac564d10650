"""A console that nobody's text can steer, and tables that break no word, by rich."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

KEEP = "\u00a0"  # a space at which no line ends
MOST_ROWS = 200  # of a table
NARROW, TALL = 1 / 3, 4  # a table that gets less than this share of what it wants, and rows of more lines, is none
BIDI = (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # change the order of what follows, or its line
SHOWN = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160), *BIDI) if chr(code) != "\n"}
LOOK: Mapping[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False}


class Screen(Console):
    """A console that nobody's text can steer: control characters are shown by their numbers. No markup and no emoji:
    titles, prompts and paths may hold square brackets and colons."""

    def __init__(self, **more: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **more)

    @property
    def watched(self) -> bool:
        """Whether a terminal shows it; FORCE_COLOR makes none of a log."""
        return self.is_interactive and self.file.isatty()

    def aside(self, *lines: Any, **how: Any) -> None:
        """Prints what one can do without: a log that takes nothing ends no render."""
        with suppress(OSError):
            self.print(*lines, **how)

    def on_broken_pipe(self) -> None:
        """Whoever has listened has gone: nothing more is said, and the work goes on."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for part in super().render(renderable, options):
            yield part if part.control else Segment(part.text.translate(SHOWN), part.style)


class Grid:
    """Rows of texts under named columns, as wide as they need to be and the console is.

    `left` stand to the left; `wraps` do so too and go on in the next line at a space, but not at a no-break space. No
    word and no figure is broken: where a row does not fit, it is a block of lines under its `keys`. Of very many rows
    the first and the last are shown.
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, str]],
        *,
        keys: str = "scene",
        left: str = "",
        wraps: str = "",
        title: str | None = None,
        caption: str | None = None,
    ) -> None:
        self.rows = [{name: _tidy(cell) for name, cell in row.items()} for row in rows]
        self.columns, self.keys, self.wraps = list(self.rows[0]), keys.split(", "), wraps.split(", ")
        self.left = {*left.split(", "), *self.keys, *self.wraps}
        self.title, self.caption = _tidy(" ".join((title or "").split())) or None, caption
        if (more := len(self.rows) - MOST_ROWS) > 0:
            gap = {name: f"{more} more" if name in self.keys else "..." for name in self.columns}
            self.rows[MOST_ROWS // 2 : -MOST_ROWS // 2] = [gap]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(options.max_width)
        if widths is None:
            yield from self._blocks()
            return
        table = Table(**LOOK, title=self.title, caption=self.caption)
        for name, width in widths.items():
            justify: Any = "left" if name in self.left else "right"
            table.add_column(_spaced(name), justify=justify, width=width, overflow="fold")
        for row in self.rows:
            table.add_row(*(_spaced(_in_lines(row[name], width)) for name, width in widths.items()))
        yield table

    def _widths(self, width: int) -> dict[str, int] | None:
        """What each column needs, or has of too little, shared by need.

        None where the longest words do not fit, or only in ladders of short lines.
        """
        least, most = [], []
        for name in self.columns:
            lines = [line for row in self.rows for line in row[name].split("\n")]
            words = [word for line in lines for word in line.split(" ")] if name in self.wraps else lines
            most.append(max(map(cell_len, [name, *lines])))
            least.append(max(map(cell_len, [*name.split(" "), *words])))
        wanted, spare = sum(most) - sum(least), width - sum(least) - 2 * len(least) - 1  # rules and padding
        if spare < 0:
            return None
        share = min(1.0, spare / max(wanted, 1))
        widths = [low + int((high - low) * share) for low, high in zip(least, most, strict=True)]
        tallest = max(high / width for high, width in zip(most, widths, strict=True))
        return None if share < NARROW and tallest > TALL else dict(zip(self.columns, widths, strict=True))

    def _blocks(self) -> RenderResult:
        if self.title:
            yield Text(self.title, style="italic")
        for row in self.rows:
            yield Text("  ".join(row[key] for key in self.keys), style="bold", overflow="fold")
            others = {name: cell.replace("\n", ", ") for name, cell in row.items() if name not in self.keys}
            facts = [f"{name} {cell}" for name, cell in others.items() if cell not in ("", "-", "...")]
            yield Padding(Text(_spaced("; ".join(facts)), overflow="fold"), (0, 0, 0, 2))
        if self.caption:
            yield Text(self.caption, style="dim")


def _tidy(text: str) -> str:
    """Lines without spaces around them, and single ones between words, so that lengths are what is seen."""
    return "\n".join(re.sub("[ \t]+", " ", line).strip(" ").translate(SHOWN) for line in text.split("\n"))


def _in_lines(text: str, width: int) -> str:
    """With line ends at spaces, but at no no-break spaces, so that no line is wider; rich would break at both."""
    lines: list[str] = []
    for line in text.split("\n"):
        lines.append("")
        for word in line.split(" "):
            longer = f"{lines[-1]} {word}".lstrip(" ")
            if lines[-1] and cell_len(longer) > width:
                lines.append(word)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def _spaced(text: str) -> str:
    return text.replace(KEEP, " ")
