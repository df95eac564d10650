"""The lines of films.jsonl, edited by hand or by another program: every one is a film's row, or told at its place."""

import json
import subprocess
import sys

import pytest

import framepack_relax as fr
from framepack_relax.evaluate.rows import read_rows
from framepack_relax.evaluate.sweep import FILMS


def line(**others):
    figures = {"motion": 0.1, "failures": {"static": False}, "film": "films/a/b", "key": "k"}
    return json.dumps({"arm": "a", "scene": "b", "seed": 0, **figures, **others}).encode()


WRONG = {  # a line of films.jsonl, and what is said of it
    b"5": "is 5; write a mapping of fields",
    b"null": "is empty; write a mapping of fields",
    b"[]": "is a list; write a mapping of fields",
    b"{}": "arm: is missing; add it",
    b"{": "is not JSON",
    b"[" * 100_000: "is not JSON",
    b'{"a": ' * 5_000 + b"1" + b"}" * 5_000: "is not JSON",
    b"9" * 5_000: "is not JSON",
    b'{"arm": "\xff"}': "is not JSON",
    line(motion="fast"): "motion: is 'fast'; write a number",
    line(motion=float("nan")): "motion: is nan",
    line(motion=1e300): "motion: is 1e+300; must be between -1000000000 and 1000000000",
    line(identity=None): "identity: is empty; write a number",
    line(failures=[1]): "failures: is a list; write a mapping of fields",
    line(failures={"static": "no"}): "failures: is 'no'; write true or false",
    line(seed=-1): "seed: is -1; must be between 0 and",
    line(arm="\x1b[31m"): "arm: ",
    line(key=7): "key: is 7; write text",
}


def test_every_line_that_no_sweep_wrote_is_told_at_its_place_and_none_is_lost(tmp_path):
    file = tmp_path / FILMS
    file.write_bytes(b"\n".join((line(), *WRONG, line(seed=1, more="kept"), b"")))
    with pytest.raises(fr.EvaluationError) as caught:
        read_rows(file)
    said = str(caught.value).splitlines()
    assert all(text.startswith(f"{file}:") and text.endswith("its film's row is made again") for text in said)
    assert "\x1b" not in str(caught.value) and max(map(len, said)) < 200 + len(str(file))
    for number, fact in enumerate(WRONG.values(), 2):
        assert any(text.startswith(f"{file}:{number}: {fact}") for text in said), (number, fact)
    file.write_bytes(b"\n".join((line(), b"", line(seed=1, more="kept"))))
    assert [(row["seed"], row.get("more")) for row in read_rows(file)] == [(0, None), (1, "kept")]


@pytest.mark.slow
def test_damaged_films_of_a_sweep_are_gone_on_from_or_told(pytestconfig):
    """See scripts/fuzz_sweeps.py; LOG.md has the counts of a long run."""
    words = [sys.executable, pytestconfig.rootpath / "scripts/fuzz.py", "sweeps", "--inputs", "60", "--seed", "9000"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert "sweeps: 60 inputs, 0 tracebacks" in done.stdout, done.stdout + done.stderr
