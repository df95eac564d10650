"""The prompt lists of Helios: CSV with id, prompt_index, prompt, maybe refined_prompt; a film an id, as they come."""

import csv
import io
from itertools import groupby

from .draft import Draft
from .source import Source

NEEDED = {"id", "prompt_index", "prompt"}


def claims(source: Source) -> bool:
    head = source.text.partition("\n")[0]
    return {name.strip().strip('"').lower() for name in head.split(",")} >= NEEDED


def read(draft: Draft) -> None:
    rows = []
    reader = csv.reader(io.StringIO(draft.source.text), strict=True)
    try:
        names = [name.strip().lower() for name in next(reader)]
        if not set(names) >= NEEDED:
            raise KeyError
        for row in reader:
            if len(row) != len(names) and row:
                draft.source.refuse(f"has {len(row)} cells, the first line has {len(names)}", line=reader.line_num)
            if row:
                rows.append((reader.line_num, dict(zip(names, map(str.strip, row), strict=True))))
        ordered = [(said["id"], int(said["prompt_index"]), line, said) for line, said in rows]
    except (KeyError, StopIteration):
        draft.source.refuse(f"must begin with the names of its columns, {', '.join(sorted(NEEDED))} among them", line=1)
    except csv.Error as error:
        draft.source.refuse(f"is not CSV: {error}", line=reader.line_num)
    except ValueError:
        draft.source.refuse("prompt_index must be whole numbers")
    draft.board["model"] = "helios"
    for name in sorted({name for name in names if name not in NEEDED | {"refined_prompt"}}):
        draft.leave("", f"the column {name[:40]!r} is not carried over")
    films = {name: place for place, name in enumerate(dict.fromkeys(one[0] for one in ordered))}  # by their first line
    for _, film in groupby(sorted(ordered, key=lambda one: (films[one[0]], *one[1:3])), key=lambda one: one[0]):
        for turn, (name, _, line, said) in enumerate(film):
            if refined := said.get("refined_prompt"):
                draft.leave(f"line {line}", "the refined prompt is taken")
            draft.scene(f"line {line}", refined or said["prompt"], name=name, cut=not turn)
