"""What the tests of timelines share: a board whose film is exported, and the command seen from outside."""

import pytest
from faults import here

otio = pytest.importorskip("opentimelineio", reason="pip install 'framepack-relax[otio]'")

BOARD = """\
title: Two
model: fake
seed: 5
fps: 29.97
style: noir
scenes:
- {id: calm, prompt: a man stands, seconds: 2.4, seed: 9}
- {id: flip, prompt: "he flips, then lands", seconds: 2.4, intensity: 0.9, guidance: {text: 3}}
- {id: next, prompt: a dog, seconds: 1.3, transition: cut}
"""


def export(film, name):
    """The timeline of a film in a run folder, written beside that."""
    done = here("export", film, "--otio", film.parent / name)
    assert done.returncode == 0, done.stderr
    return film.parent / name
