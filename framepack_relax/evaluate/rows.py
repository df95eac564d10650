"""The rows of films.jsonl, a film a line; what stands there may have been edited by hand or by another program."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, create_model

from ..errors import EvaluationError, StoryboardError
from ..files import read_file
from ..rendering.mark import unreadable
from ..storyboard.fields import Seed, Words
from ..storyboard.messages import printable, validated
from ..storyboard.part import Part
from .mistakes import try_all
from .statistics import FIGURES, Row

Figure = Annotated[float, Field(ge=-(10**9), le=10**9)]
ELSE = "or remove the line, and its film's row is made again"


class _Film(Part, extra="allow"):
    """What sweeps read again of a row."""

    arm: Words
    scene: Words
    seed: Seed
    film: Words
    key: Words
    failures: Mapping[Words, bool]
    motion: Figure
    target: Figure | None = None


MORE: Any = {name: (Figure, 0.0) for name in FIGURES if name not in _Film.model_fields}
FilmRow = create_model("FilmRow", __base__=_Film, **MORE)  # figures of missing instruments are absent


def read_rows(file: Path, kind: type[Part] = FilmRow) -> list[Row]:
    """Every line of a file as a row of this kind; no file is no rows.

    Raises EvaluationError with the mistakes of all lines, RenderError for a file that cannot be read.
    """
    try:
        lines = read_file(file).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(file, error) from error
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    return try_all(partial(_read_row, file, kind), numbered)


def _read_row(file: Path, kind: type[Part], numbered: tuple[int, bytes]) -> Row:
    number, line = numbered
    try:
        row: Row = json.loads(line)
        validated(kind, row)
    except StoryboardError as error:
        said = [str(replace(problem, file=str(file), line=number)) for problem in error.problems]
        raise EvaluationError("\n".join(f"{text}, {ELSE}" for text in said)) from error
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{file}:{number}: is not JSON ({printable(str(error))}); mend it, {ELSE}") from error
    return row


def lines_of(rows: Sequence[Row]) -> bytes:
    """The file that holds these rows."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")
