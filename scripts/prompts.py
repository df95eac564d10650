"""Writes the films of scripts/measured/films.jsonl that a calibration has, with the prompts that they were made of.

    python scripts/prompts.py > out/prompts.jsonl
    framepack-relax calibrate --prompts out/prompts.jsonl

Sweeps of today write both columns themselves: `prompt`, and the `intensity` at which the model's profile asks for the
arm's settings.
"""

import json
from pathlib import Path

from framepack_relax.evaluate.spec import jobs, read_sweep
from framepack_relax.evaluate.swept import asked
from framepack_relax.families.catalog import find_family
from framepack_relax.planning.planner import make_plan

MEASURED = Path(__file__).parent / "measured" / "films.jsonl"


def rows():
    """Those whose arm is at an intensity of the packaged model's profile."""
    puppet, said = find_family("puppet"), {}
    for job in jobs(read_sweep("calibration")):
        facts = asked(make_plan(job.story, puppet).sections[-1], puppet)
        said[job.arm.id, job.event.id, job.seed] = facts
    for row in map(json.loads, MEASURED.read_text(encoding="utf8").splitlines()):
        facts = said.get((row["arm"], row["scene"], row["seed"]), {})
        if "intensity" in facts:
            yield row | facts


if __name__ == "__main__":
    for row in rows():
        print(json.dumps(row))
