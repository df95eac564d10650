"""A film on one page: a row of thumbnails per scene under its caption; of very many scenes some, evenly chosen."""

import io
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .lettering import Lettering

WIDEST, TALLEST = 320, 160  # px of a thumbnail
MOST_ROWS = 80  # with ten columns at most 3244 x 14582 px, which every viewer opens
GAP, CAPTION, LETTERS = 4, 18, 12  # px
PAPER, INK = (250, 250, 248), (40, 40, 46)

Row = TypeVar("Row")


class ContactSheet:
    """Collects thumbnails while frames stream by; `rows` are (caption, first frame, end frame), film-wide."""

    def __init__(self, *, rows: Sequence[tuple[str, int, int]], columns: int = 10) -> None:
        shown, self.note = some(rows, MOST_ROWS)
        self.captions = [caption for caption, _, _ in shown]
        self.columns = columns
        self.wanted: dict[int, list[tuple[int, int]]] = {}  # frame -> (row, column)
        for row, (_, first, end) in enumerate(shown):
            for column, frame in enumerate(np.linspace(first, end - 1, columns).round().astype(int)):
                self.wanted.setdefault(int(frame), []).append((row, column))
        self.thumbnails: dict[tuple[int, int], Image.Image] = {}

    def call(self, captions: Sequence[str]) -> None:
        """Other captions for all rows that were given."""
        self.captions = some(captions, MOST_ROWS)[0]

    def add(self, first: int, frames: NDArray[np.uint8]) -> None:
        """Looks at frames [N, H, W, 3] that begin at film-wide number `first`."""
        for number, pixels in enumerate(frames, first):
            for place in self.wanted.get(number, ()):
                image = Image.fromarray(pixels.copy())  # else it keeps all the frames that came with it
                image.thumbnail((WIDEST, TALLEST), Image.Resampling.LANCZOS)
                self.thumbnails[place] = image

    def png(self) -> bytes:
        """The sheet as a PNG."""
        first = next(iter(self.thumbnails.values()))
        width, height, top = first.width + GAP, first.height + GAP + CAPTION, CAPTION if self.note else 0
        sheet = Image.new("RGB", (self.columns * width + GAP, top + len(self.captions) * height + GAP), PAPER)
        lettering, room = Lettering(LETTERS, self.captions), sheet.width - 2 * GAP
        lettering.write(sheet, (GAP, GAP), lettering.fit(self.note, room), INK)
        for row, caption in enumerate(self.captions):
            lettering.write(sheet, (GAP, top + row * height + GAP), lettering.fit(caption, room), INK)
        for (row, column), image in self.thumbnails.items():
            sheet.paste(image, (column * width + GAP, top + row * height + GAP + CAPTION))
        return png(sheet)


def some(rows: Sequence[Row], most: int) -> tuple[list[Row], str]:
    """At most `most` rows, evenly chosen from the first to the last, and a note; it is empty if all are there."""
    if len(rows) <= most:
        return list(rows), ""
    numbers = np.linspace(0, len(rows) - 1, most).round().astype(int)
    return [rows[number] for number in numbers], f"{most} of {len(rows)} scenes"


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
