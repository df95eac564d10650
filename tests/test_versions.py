"""The versions that are said to do: what `make test-versions` installs, and what the make targets do."""

import tomllib
from pathlib import Path

import versions
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    return [Requirement(text) for text in project["dependencies"]]


def test_the_lowest_versions_that_are_tried_are_those_that_are_allowed():
    bounds = versions.lower_bounds()
    assert set(bounds) == {requirement.name for requirement in requirements()} and "torch" in bounds
    for requirement in requirements():
        assert [(part.operator, part.version) for part in requirement.specifier] == [(">=", bounds[requirement.name])]


def test_the_versions_of_the_make_targets_are_allowed_and_of_every_direct_dependency():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in requirements():
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
