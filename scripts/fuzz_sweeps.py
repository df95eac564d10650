"""Damages the films.jsonl of a sweep's folder and goes on from it: it works, or every bad line is told at its place.

Run by scripts/fuzz.py sweeps.
"""

import io
import json
import random
import tempfile
import traceback
from pathlib import Path

from forked import run_forked
from fuzz_models import WRONG, places
from tally import Tally

from framepack_relax.cli.screen import Screen
from framepack_relax.cli.tables import sweep_table
from framepack_relax.errors import RelaxError
from framepack_relax.evaluate.calibration import LEVELS, choose
from framepack_relax.evaluate.pages import NAMES, save_page
from framepack_relax.evaluate.rows import lines_of, read_rows
from framepack_relax.evaluate.statistics import Row, summarise
from framepack_relax.evaluate.sweep import FILMS
from framepack_relax.rendering.folder import RunFolder
from framepack_relax.rendering.mark import Mark

MEASURED = Path(__file__).parent / "measured" / FILMS
ARMS, SEEDS = ("vanilla", "context"), range(8)
SIGNS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\n",
    b"\0",
    b"\xff",
    b"\x1b[2J",
    b"[" * 5_000,
    b"9" * 500,
    b"NaN",
    b"1e999",
    b'"',
)


def wholes() -> list[Row]:
    """Rows of two arms, a scene and eight seeds."""
    rows = [row for row in read_rows(MEASURED) if row["arm"] in ARMS and row["seed"] in SEEDS]
    return [row for row in rows if row["scene"] == rows[0]["scene"]]


def damaged(rows: list[Row], rng: random.Random) -> bytes:
    """One to three values changed or gone, or bytes changed, cut off and put in."""
    made = json.loads(json.dumps(rows))
    if rng.random() < 0.6:
        for _ in range(rng.randint(1, 3)):
            *outer, key = rng.choice(places(made))
            owner = made
            for part in outer:
                owner = owner[part]
            owner[key] = rng.choice(WRONG)
        return b"\n".join(json.dumps(row).encode() for row in made)
    data = bytearray(lines_of(made))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        data[at : at + rng.choice((0, 0, 1, 40))] = rng.choice((b"", *SIGNS))
    return bytes(data)


def go_on(folder: Path, rows: list[Row], drawn: bool) -> None:
    """What a sweep does with the rows that it finds, of which the films that they are of are known by their keys."""
    found = {row["key"]: row for row in read_rows(folder / FILMS)}
    there = [{**found.get(row["key"], row), **{name: row[name] for name in ("arm", "scene", "seed")}} for row in rows]
    cells = summarise(there)
    screen = Screen(file=io.StringIO(), width=100)
    screen.print(sweep_table(cells))
    assert "\x1b" not in screen.file.getvalue()
    for level in LEVELS:
        choose(there, level)
    if drawn:
        with RunFolder(folder / "page", Mark(board="", title="x")).held() as held:
            held.begin(NAMES, {})
            save_page("x", there, cells, held)


def run(inputs: int, start: int = 0) -> Tally:
    """Tries `inputs` damaged files; of every twentieth the page is written, too."""
    rows = wholes()
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, FILMS)

        def case(number: int) -> tuple[str, str]:
            file.write_bytes(damaged(rows, random.Random(number)))
            try:
                go_on(file.parent, rows, number % 20 == 0)
            except RelaxError as error:
                told = all(line.startswith(f"{file}:") for line in str(error).splitlines())
                return ("located errors" if told and "\x1b" not in str(error) else f"unlocated error: {error}"), ""
            except Exception as error:
                at = traceback.extract_tb(error.__traceback__)[-1]
                return (
                    f"traceback: {type(error).__name__}: {str(error)[:200]} at {Path(at.filename).name}:{at.lineno}",
                    "",
                )
            return "works", ""

        return run_forked(case, inputs, start)
