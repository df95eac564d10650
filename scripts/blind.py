"""Films of a sweep judged by eye without knowing which they are, and how the action judge's names compare.

python scripts/blind.py out/blind       # the sheet, its key, and marks to fill in, from a sweep's folder
python scripts/blind.py                 # the confusion matrix of the marks against the judge
python scripts/blind.py --words         # the marks that may be given

The sweep is `framepack-relax sweep blind --dtype bfloat16 --out out/blind`: arms that stand still, that move, and that
overdo it, from seeds that no other sweep has. A row of the sheet is the scene in which something was asked for, from
the frame before it on. Whoever marks looks at the sheet alone: what was asked for stands in the key, too.

N frames of H x W pixels; frames are uint8 RGB [N, H, W, 3]
"""

import argparse
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from framepack_relax.evaluate.evaluation import open_action
from framepack_relax.evaluate.film import read_film
from framepack_relax.evaluate.rows import lines_of, read_rows
from framepack_relax.evaluate.sweep import FILMS
from framepack_relax.rendering.mark import FILM
from framepack_relax.storyboard.fields import Words
from framepack_relax.storyboard.part import Part

MEASURED = Path(__file__).parent / "measured"
SHEET, KEY, MARKS = (MEASURED / name for name in ("blind.png", "blind-key.jsonl", "blind-marks.txt"))
COUNT, COLUMNS = 40, 2
SHOWN, SIDE, MARGIN = 12, 96, 28  # frames of a film, px each, px for its number
COLOURS = 256  # of the sheet
STILL = "static"  # the judge's label for a figure that does nothing
BROKEN = "broken"  # more than one figure, or none that moves as a figure can
Row = dict[str, Any]


class Keyed(Part, extra="allow"):
    """A row of the key: what the judge has named the film of this number."""

    number: int
    named: Words
    key: Words


def strip(film: Path) -> Image.Image:
    """Frames of a film's last scene, and the one before it, at equal distances."""
    read = read_film(film)
    scene = read.cut(read.scenes[-1])
    numbers = np.linspace(0, len(scene.frames) - 1, SHOWN).round().astype(int)
    shown = [
        Image.fromarray(scene.frames[int(number)]).resize((SIDE, SIDE), Image.Resampling.LANCZOS) for number in numbers
    ]
    made = Image.new("RGB", (SHOWN * SIDE, SIDE))
    for place, frame in enumerate(shown):
        made.paste(frame, (place * SIDE, 0))
    return made


def sampled(rows: Sequence[Row], seed: int) -> list[Row]:
    """COUNT rows of different films in an order that says nothing, half of them named static where there are enough."""
    films = [row for _, row in sorted({row["key"]: row for row in rows}.items())]
    chance = random.Random(seed)
    chance.shuffle(films)
    still, others = ([row for row in films if (row["named"] == STILL) == true] for true in (True, False))
    half = min(COUNT // 2, len(others))
    chosen = [*others[: max(half, COUNT - len(still))], *still[: COUNT - half]]
    chance.shuffle(chosen)
    return chosen[:COUNT]


def sheet(folder: Path, rows: Sequence[Row]) -> Image.Image:
    """A strip a row under its number, from 1, down the columns."""
    high, wide = -(-len(rows) // COLUMNS), MARGIN + SHOWN * SIDE
    made = Image.new("RGB", (COLUMNS * wide, high * (SIDE + 2)), "white")
    pen = ImageDraw.Draw(made)
    for index, row in enumerate(rows):
        x, y = wide * (index // high), (SIDE + 2) * (index % high)
        pen.text((x + MARGIN - 5, y + SIDE // 2), str(index + 1), fill="black", anchor="rm", font_size=14)
        made.paste(strip(folder / row["film"] / FILM), (x + MARGIN, y))
    return made.quantize(COLOURS, dither=Image.Dither.NONE)


def words() -> tuple[str, ...]:
    """Marks: the judge's labels, and what no action is."""
    return (*open_action("packaged").labels, BROKEN)


def read_marks(text: str, known: Sequence[str]) -> dict[int, str]:
    """By number; lines without a mark are left out. Raises SystemExit that names every line that is wrong."""
    made, wrong = dict[int, str](), []
    for line in filter(None, map(str.strip, text.splitlines())):
        number, _, mark = map(str.strip, line.partition(":"))
        if not number.isdecimal() or mark not in ("", *known):
            wrong.append(f"{line!r}: write NUMBER: MARK, with a mark of {', '.join(known)}")
        elif mark:
            made[int(number)] = mark
    if wrong:
        raise SystemExit("\n".join(wrong))
    return made


def table(marks: Mapping[int, str], key: Sequence[Row], known: Sequence[str]) -> list[str]:
    """Rows: seen by eye; columns: named by the judge; and how often both say the same."""
    pairs = Counter((marks[row["number"]], row["named"]) for row in key if row["number"] in marks)
    labels = known[:-1]
    lines = [f"| by eye | {' | '.join(labels)} |", "|---" * (len(labels) + 1) + "|"]
    for mark in known:
        counts = " | ".join(str(pairs[mark, label] or "-") for label in labels)
        lines.append(f"| {mark} | {counts} |")
    same = sum(count for (mark, named), count in pairs.items() if mark == named)
    return [*lines, "", f"{same} of {pairs.total()} films are named as they were seen; {len(key)} are on the sheet."]


def confusion() -> list[str]:
    """The table of the marks that are filled in."""
    return table(read_marks(MARKS.read_text(encoding="utf8"), words()), read_rows(KEY, Keyed), words())


def lay_out(folder: Path, seed: int) -> None:
    rows = sampled(read_rows(folder / FILMS), seed)
    sheet(folder, rows).save(SHEET, optimize=True)
    told = ("arm", "scene", "seed", "named", "target", "failures", "key")
    KEY.write_bytes(lines_of([{"number": n, **{name: row[name] for name in told}} for n, row in enumerate(rows, 1)]))
    MARKS.write_text("".join(f"{number}:\n" for number in range(1, len(rows) + 1)), encoding="utf8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of a sweep: lay a sheet of its films out")
    parser.add_argument("--seed", type=int, default=0, help="of the choice and its order")
    parser.add_argument("--words", action="store_true", help="print the marks that may be given")
    given = parser.parse_args()
    if given.words:
        print(*words(), sep="\n")
    elif given.folder:
        lay_out(given.folder, given.seed)
    else:
        print(*confusion(), sep="\n")
