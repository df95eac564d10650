"""A film on one page: a row of thumbnails per scene under its caption."""

import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..files import write_file

TALLEST = 160  # px of a thumbnail
GAP, CAPTION = 4, 18  # px
PAPER, INK = (250, 250, 248), (40, 40, 46)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class ContactSheet:
    """Collects thumbnails while frames stream by; `rows` are (caption, first frame, end frame), film-wide."""

    def __init__(self, *, rows: Sequence[tuple[str, int, int]], columns: int = 10) -> None:
        self.captions = [caption for caption, _, _ in rows]
        self.columns = columns
        self.wanted: dict[int, list[tuple[int, int]]] = {}  # frame -> (row, column)
        for row, (_, first, end) in enumerate(rows):
            for column, frame in enumerate(np.linspace(first, end - 1, columns).round().astype(int)):
                self.wanted.setdefault(int(frame), []).append((row, column))
        self.thumbnails: dict[tuple[int, int], Image.Image] = {}

    def add(self, first: int, frames: NDArray[np.uint8]) -> None:
        """Looks at frames [N, H, W, 3] that begin at film-wide number `first`."""
        for number, pixels in enumerate(frames, first):
            for place in self.wanted.get(number, ()):
                image = Image.fromarray(pixels.copy())  # else it keeps all the frames that came with it
                if image.height > TALLEST:
                    width = round(image.width * TALLEST / image.height)
                    image = image.resize((width, TALLEST), Image.Resampling.LANCZOS)
                self.thumbnails[place] = image

    def save(self, path: Path) -> None:
        """Writes the sheet as PNG."""
        first = next(iter(self.thumbnails.values()))
        width, height = first.width + GAP, first.height + GAP + CAPTION
        sheet = Image.new("RGB", (self.columns * width + GAP, len(self.captions) * height + GAP), PAPER)
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
        for row, caption in enumerate(self.captions):
            text = fit_line(caption, font, sheet.width - 2 * GAP)
            pen.text((GAP, row * height + GAP), text, fill=INK, font=font)
        for (row, column), image in self.thumbnails.items():
            sheet.paste(image, (column * width + GAP, row * height + GAP + CAPTION))
        save_png(sheet, path)


def fit_line(text: str, font: Font, width: float) -> str:
    """One line of at most `width` px, in ASCII: Pillow's built-in font has no other letters, so accents are dropped."""
    letters = unicodedata.normalize("NFKD", " ".join(text.split())[:400])
    line = "".join(c for c in letters if not unicodedata.combining(c)).encode("ascii", "replace").decode()
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "...") > width:
        line = line[:-1]
    return line.rstrip() + "..."


def save_png(image: Image.Image, path: Path) -> None:
    """Writes a PNG that appears under its name when it is whole."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_file(path, buffer.getvalue())
