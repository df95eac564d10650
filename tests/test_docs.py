"""What the pages say is there: links, fields, commands, names; and the site is made of all of them."""

import ast
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest
import reference
import typer
import yaml

import framepack_relax as fr
from framepack_relax.cli import app
from framepack_relax.storyboard import Scene, Storyboard
from framepack_relax.storyboard.schema import build_storyboard

ROOT = pages.ROOT
NAV = set(pages.named(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf8"))["nav"]))
SOURCES = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PLAIN = {"id": "plain", "prompt": "a red figure stands still", "seconds": 1}


def where(source: Path) -> str:
    return source.relative_to(ROOT).as_posix()


def blocks(source: Path, kind: str) -> list[str]:
    return [textwrap.dedent(text) for name, text in FENCED.findall(source.read_text(encoding="utf8")) if name == kind]


def anchors(text: str) -> set[str]:
    """As a site and a repository's page make them of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def text_of(path: str) -> str | None:
    """A page as it will be; None where there is none."""
    if path.startswith(pages.OUTSIDE) and (made := pages.MADE.get(pages.in_site(path))):
        return made()
    return (ROOT / path).read_text(encoding="utf8", errors="replace") if (ROOT / path).exists() else None


def test_the_site_lists_every_page_and_each_once():
    listed = [pages.in_repository(name) for name in NAV]
    there = {where(source) for source in SOURCES} - {"README.md"}
    there |= {f"docs/{name}" for name in pages.MADE}
    assert there <= set(listed) and all(text_of(path) for path in listed)


@pytest.mark.parametrize("source", SOURCES, ids=where)
def test_no_link_is_dead(source):
    text, dead = source.read_text(encoding="utf8"), []
    for part in pages.CODE.split(text)[::2]:
        for found in pages.LINK.finditer(part):
            target = os.path.normpath(source.relative_to(ROOT).parent / found[1])
            there = text_of(target)
            if there is None or (found[2] and found[2][1:] not in anchors(there)):
                dead.append(found[0])
        dead += [name for name in re.findall(r"\]\(#([^)]+)\)", part) if name not in anchors(text)]
    assert dead == []


def test_what_is_no_link_or_is_elsewhere_is_left_alone():
    text = "[a](b.md#c) `[a](d.md)` [e](https://f.g) [h](#i)\n```\n[j](k.md)\n```\n![l](../m.png)"
    assert list(pages.links(text, "docs/x.md")) == ["docs/b.md", "m.png"]


def boards(said: object) -> dict:
    """A block of YAML as a whole board: it is one, or fields of one, or scenes, or fields of a scene."""
    if isinstance(said, list):
        said = {"scenes": said}
    if said.keys() <= Scene.model_fields.keys() - Storyboard.model_fields.keys():
        said = {"scenes": [said]}
    given = said.get("scenes", [])
    return {**said, "scenes": [PLAIN, *({**PLAIN, "id": f"s{n}", **scene} for n, scene in enumerate(given))]}


@pytest.mark.parametrize("source", [source for source in SOURCES if blocks(source, "yaml")], ids=where)
def test_every_yaml_block_is_read_as_a_storyboard(source):
    for text in blocks(source, "yaml"):
        assert build_storyboard(boards(yaml.safe_load(text))).scenes


def commands(text: str) -> Iterator[list[str]]:
    """Words of each command line that a page shows."""
    text = text.replace("\\\n", " ")
    shown = [line for _, block in FENCED.findall(text) for line in block.splitlines()]
    shown += re.findall(r"`(framepack-relax [^`]+)`", FENCED.sub("", text).replace("\n", " "))
    shown += re.findall(r"^    (framepack-relax .+)$", text, re.MULTILINE)
    for line in shown:
        if found := re.search(r"(?:^|\bbin/|run )framepack-relax ([a-z].*)", line.split("  #")[0]):
            yield shlex.split(found[1], comments=True)


@pytest.mark.parametrize("source", SOURCES, ids=where)
def test_every_command_that_is_shown_is_there_with_its_options(source):
    known = typer.main.get_command(app).commands
    for name, *words in commands(source.read_text(encoding="utf8")):
        assert name in known, name
        there = {option for given in known[name].params for option in getattr(given, "opts", ())}
        there |= {option for given in known[name].params for option in getattr(given, "secondary_opts", ())}
        said = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert said <= there | {"-h", "--help"}, (name, said - there)


@pytest.mark.parametrize("source", [source for source in SOURCES if blocks(source, "python")], ids=where)
def test_python_that_is_shown_is_python_and_names_what_is_there(source):
    for text in blocks(source, "python"):
        ast.parse(text)
    used = set(re.findall(r"\bfr\.(\w+)", source.read_text(encoding="utf8")))
    assert used and used <= set(fr.__all__)


def test_files_that_contributing_names_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    named = set(re.findall(r"`([\w/.-]+\.(?:py|yaml|md))`", text))
    places = ("", "framepack_relax", "framepack_relax/exchange", "framepack_relax/evaluate", "framepack_relax/farm")
    lost = [
        name for name in named if "NAME" not in name and not any((ROOT / place / name).exists() for place in places)
    ]
    assert len(named) > 20 and set(lost) <= {"family.py", "backend.py"}  # of any family


def test_the_reference_has_every_field_command_and_name():
    board, told = reference.storyboard(), reference.commands()
    for name in (*Storyboard.model_fields, *Scene.model_fields):
        assert f"| `{name}` |" in board
    for name in typer.main.get_command(app).commands:
        assert f"## `framepack-relax {name}`" in told
    assert "`--seeds <int>`" in told and "number >= 0 <= 1 or `auto`" in board
    python = reference.python()
    assert all(f"## fr.{name}\n" in python for name in set(fr.__all__) - {"__version__"})


def test_a_field_that_nobody_has_described_is_told():
    with pytest.raises(ValueError, match=r"Scene\.id: has no description"):
        list(reference.table({"title": "Scene", "properties": {"id": {"type": "string"}}}))


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="pip install '.[docs]'")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {file.relative_to(tmp_path).as_posix(): file.read_text(encoding="utf8") for file in tmp_path.rglob("*.html")}
    assert {name.replace(".md", ".html") for name in NAV} <= made.keys()
    loading = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//")
    assert [name for name, text in made.items() if loading.search(text)] == []
    assert 'href="RESULTS.html"' in made["index.html"] and (tmp_path / "storyboards/backflip.contact.png").exists()
