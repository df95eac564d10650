"""Lines of text in pictures: each sign in a font of the system that has it, else in Latin letters, else left out.

Pillow brings one font, of Latin letters without accents. No other is shipped; those of the system are looked for when a
text needs them.
"""

import os
import re
import sys
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ENDINGS = (".ttf", ".otf", ".ttc", ".otc")
UNWANTED = ("lastresort", "blank")  # fonts whose signs say that a font is missing
SPECIAL = re.compile("bold|italic|oblique|light|thin|black|condensed|mono|serif|math")  # come after plain ones
MOST_FONTS = 1000  # that are looked into
STRIKES = (109, 136, 160, 128, 96, 64, 40, 32, 20)  # px: fonts of coloured pictures have few sizes, or one
UNSEEN = ("Cc", "Cf", "Cs")  # categories: controls, joiners and marks of direction, halves of signs
SOUND = re.compile("(?:(?:hiragana|katakana) letter(?: small)?|hangul syllable) (.+)")  # in the name of a syllable
LONGEST = 400  # signs of a line
DOTS = "..."
PLAIN = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u301c\u30fc", "-")
    | dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u300c\u300d\u300e\u300f", '"')
    | {"\u2022": "*", "\u00b7": "*", "\u00d7": "x", "\u2044": "/", "\u2192": "->", "\u2190": "<-"}
    | {"\u3001": ",", "\u3002": "."}
    | {"\u00df": "ss", "\u00e6": "ae", "\u00c6": "AE", "\u0153": "oe", "\u0152": "OE", "\u00f8": "o", "\u00d8": "O"}
    | {"\u0142": "l", "\u0141": "L", "\u0111": "d", "\u0110": "D", "\u00f0": "d", "\u00fe": "th", "\u0131": "i"}
)


class Face:
    """A font of a file at `size` px, or at the nearest that it has, scaled; OSError where it has none."""

    def __init__(self, file: Path | None, size: int) -> None:
        self.font, self.pixels = (ImageFont.load_default(size), size) if file is None else _at_some_size(file, size)
        self.scale = size / self.pixels
        self.single = self.font  # lays out nothing: a mark is no mark on a dotted circle
        if file is not None:
            self.single = ImageFont.truetype(file, self.pixels, layout_engine=ImageFont.Layout.BASIC)
        self.known: dict[str, bool] = {}
        self.missing = self._shape("\U0010ffff")

    def has(self, sign: str) -> bool:
        """Whether the font has a picture of the sign that is not the one for signs that it lacks."""
        if sign not in self.known:
            self.known[sign] = self._shape(sign) not in (self.missing, b"")
        return self.known[sign]

    def length(self, text: str) -> float:
        return self.font.getlength(text) * self.scale

    def _shape(self, sign: str) -> bytes:
        """What the font shows for a sign; empty where nothing is to be seen."""
        side = 2 * self.pixels
        image = Image.new("RGBA", (side, side))
        spot = side // 4, 3 * side // 4
        ImageDraw.Draw(image).text(spot, sign, fill="white", font=self.single, anchor="ls", embedded_color=True)
        return image.tobytes() if image.getbbox() else b""


class Lettering:
    """Writes lines of `size` px, any part of `texts`; fonts are looked for in `folders`, by default the system's."""

    def __init__(self, size: int, texts: Sequence[str], folders: Sequence[Path] | None = None) -> None:
        self.size, self.plain = size, Face(None, size)
        self.faces = [self.plain]
        wanted = {sign for text in texts for sign in _line(text) if not self._has(sign)}
        files = _font_files(font_folders() if folders is None else folders) if wanted else []
        for file in files[:MOST_FONTS]:
            if not wanted:
                break
            try:
                face = Face(file, size)
                found = {sign for sign in wanted if face.has(sign)}
            except (OSError, ValueError):  # damaged, or of a kind that FreeType does not know
                continue
            if found:
                self.faces.append(face)
                wanted -= found

    def fit(self, text: str, width: float) -> str:
        """`text` on one line of at most `width` px, cut where it is longer, with signs that no font has replaced."""
        line = "".join(sign if self._has(sign) else self._in_latin(sign) for sign in _line(text))
        line = re.sub(r"(\s*\x00)+\s*", f" {DOTS} ", line).strip()
        if self.length(line) <= width:
            return line
        cut = bisect_left(range(len(line)), True, key=lambda end: self.length(line[:end] + DOTS) > width)
        return line[: max(0, cut - 1)].rstrip() + DOTS

    def length(self, line: str) -> float:
        """Px of a line that `fit` gave."""
        return sum(face.length(run) for face, run in self._runs(line))

    def write(self, image: Image.Image, place: tuple[float, float], line: str, fill: tuple[int, int, int]) -> None:
        """A line that `fit` gave, its upper left corner at `place`."""
        x, y = place
        base = y + self.size
        pen = ImageDraw.Draw(image)
        for face, run in self._runs(line):
            if face.scale == 1:
                pen.text((x, base), run, fill=fill, font=face.font, anchor="ls", embedded_color=True)
            else:
                large = Image.new("RGBA", (round(face.font.getlength(run)) + 1, round(1.4 * self.size / face.scale)))
                spot = 0, self.size / face.scale
                ImageDraw.Draw(large).text(spot, run, fill=fill, font=face.font, anchor="ls", embedded_color=True)
                small = large.resize([max(1, round(side * face.scale)) for side in large.size])
                image.paste(small, (round(x), round(base - self.size)), small)
            x += face.length(run)

    def _has(self, sign: str) -> bool:
        return sign.isspace() or any(face.has(sign) for face in self.faces)

    def _in_latin(self, sign: str) -> str:
        """In signs of the plain font: letters alike, else a syllable's sound or a picture's name; else a zero."""
        letters = unicodedata.normalize("NFKD", sign.translate(PLAIN))
        letters = "".join(c for c in letters if not unicodedata.category(c).startswith("M")).translate(PLAIN)
        if letters.isascii() and letters.isprintable():
            return letters
        name = unicodedata.name(sign, "").lower()
        if unicodedata.category(sign) == "So":
            return f"({name})"
        sound = SOUND.search(name)
        return sound[1] if sound else "\0"

    def _runs(self, line: str) -> Iterator[tuple[Face, str]]:
        """The line in parts that a font writes; a word that one font has in full is written in it."""
        placed: list[tuple[Face, str]] = []
        for word in re.findall(r"\s+|\S+", line):
            whole = next((face for face in self.faces if all(map(face.has, word))), None)
            for sign in word:
                placed.append((whole or next((f for f in self.faces if f.has(sign)), self.plain), sign))
        for face, signs_of in groupby(placed, key=lambda pair: pair[0]):
            yield face, "".join(sign for _, sign in signs_of)


def font_folders() -> list[Path]:
    """Where systems keep fonts."""
    home, variables = Path.home(), os.environ
    if sys.platform == "win32":
        windows = Path(variables.get("WINDIR", r"C:\Windows")) / "Fonts"
        return [windows, Path(variables.get("LOCALAPPDATA", home)) / "Microsoft/Windows/Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    own = Path(variables.get("XDG_DATA_HOME") or home / ".local/share")
    return [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), own / "fonts", home / ".fonts"]


def _font_files(folders: Sequence[Path]) -> list[Path]:
    """Plain faces first, else by name."""
    found = [Path(at) / name for folder in folders for at, _, names in os.walk(folder) for name in names]
    names = {file: file.name.lower() for file in found}
    fonts = [file for file, name in names.items() if name.endswith(ENDINGS) and not any(w in name for w in UNWANTED)]
    return sorted(fonts, key=lambda file: (bool(SPECIAL.search(names[file])), names[file]))


def _at_some_size(file: Path, size: int) -> tuple[ImageFont.FreeTypeFont, int]:
    """The font, and the px at which it was opened."""
    for pixels in (size, *STRIKES):
        try:
            return ImageFont.truetype(file, pixels), pixels
        except OSError as error:
            if "pixel size" not in str(error):
                raise
    raise OSError(f"{file}: no size of it can be used")


def _line(text: str) -> str:
    """One line without what is never seen by itself, variation selectors too."""
    composed = unicodedata.normalize("NFC", " ".join(text.split())[:LONGEST])
    return "".join(c for c in composed if unicodedata.category(c) not in UNSEEN and not "\ufe00" <= c <= "\ufe0f")
