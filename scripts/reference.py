"""The reference, written from what the program itself knows: schema, command line, catalogue, docstrings.

python scripts/reference.py            # all four pages
python scripts/reference.py commands   # one of them

The site (mkdocs.yml) makes these pages anew whenever it is built, so that nothing here is written by hand.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from typer.cli import get_docs_for_click

import framepack_relax as fr
from framepack_relax.cli import app
from framepack_relax.families.catalog import CATALOG, Entry, find_family
from framepack_relax.storyboard import storyboard_schema

Schema = Mapping[str, Any]
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
ENDLESS = 2**63 - 1  # a bound that is none to a reader
NAMES = {  # of the mappings of a board, by their place on it
    "FramePackBlock": "framepack",
    "WanBlock": "wan",
    "HeliosBlock": "helios",
    "Rung": "ensure.ladder",
    "Experimental": "relax.experimental",
    "Keyframe": "keyframes",
    "StartFrom": "start_from",
    "Blend": "transition",
}


def section_of(name: str) -> str:
    """The heading of a mapping of the schema."""
    return NAMES.get(name, name.lower())


def kind_of(field: Schema) -> str:
    """What a value may be, in words, with links to mappings."""
    if "$ref" in field:
        name = section_of(field["$ref"].rpartition("/")[2])
        return f"[{name}](#{name.replace('.', '')})"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(kind_of(kind) for kind in field["anyOf"] if kind.get("type") != "null"))
    if "const" in field or "enum" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        if "prefixItems" in field:
            return "[" + ", ".join(kind_of(item) for item in field["prefixItems"]) + "]"
        return f"list of {kind_of(field['items'])}"
    bounds = [f"{sign} {field[name]:g}" for name, sign in BOUNDS.items() if name in field and field[name] != ENDLESS]
    return " ".join([{"string": "text", "boolean": "true, false"}.get(field["type"], field["type"]), *bounds])


def default_of(name: str, field: Schema, required: list[str]) -> str:
    if name in required:
        return "required"
    value = field.get("default")
    return "" if value in (None, "") or isinstance(value, dict) else f"`{str(value).lower()}`"


def table(part: Schema) -> Iterator[str]:
    """The fields of a mapping, a row each. Raises ValueError for one that nobody has described."""
    yield "| field | value | default | what it is |"
    yield "|---|---|---|---|"
    for name, field in part.get("properties", {}).items():
        if not field.get("description"):
            raise ValueError(f"{part.get('title')}.{name}: has no description in storyboard/schema.py")
        said = field["description"].replace("|", "\\|")
        yield f"| `{name}` | {kind_of(field)} | {default_of(name, field, part.get('required', []))} | {said} |"


def storyboard() -> str:
    """Every field of a storyboard."""
    schema = storyboard_schema()
    named = sorted(schema["$defs"].items(), key=lambda part: section_of(part[0]))
    parts = {"Storyboard": schema, "Scene": schema["$defs"]["Scene"], **dict(named)}
    lines = ["# Storyboard fields", "", "`framepack-relax schema` prints the same as JSON Schema, for your editor."]
    for name, part in parts.items():
        own = " ".join(part.get("description", "").split())
        lines += ["", f"## {'board' if name == 'Storyboard' else section_of(name)}", "", own, ""]
        if part.get("properties"):
            lines += table(part)
        else:
            lines += ["Names of the model's scales, each with a number: [models](models.md) has them."]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its arguments and options, as typer documents them."""
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="framepack-relax")
    made = get_docs_for_click(obj=group, ctx=context, name="framepack-relax")
    return made.replace("# `framepack-relax`", "# Commands", 1)


def model(entry: Entry) -> Iterator[str]:
    """What planning knows of a model, as a list."""
    family = entry.family or find_family(entry.name)
    grid = family.grid
    frames = f"{grid.unit_frames * grid.most_units} frames" + (" at most" if grid.most_units > 1 else "")
    hub = [name for name in entry.repositories if name and not Path(name).is_absolute()]
    facts = {
        "family": f"`{family.kind}`",
        "size": "{}x{}".format(*family.size) if family.size else "of its start image",
        "frames per second": f"{family.fps:g}",
        "a section": frames + (f", and {grid.lead_frames} more at a shot's begin" if grid.lead_frames else ""),
        "goes on from its past": "yes" if grid.past else "no: every scene is a shot of its own",
        "start image": family.image,
        "scales at rest": ", ".join(f"`{term.name}` {term.base:g}" for term in family.terms),
        "effects": ", ".join(f"`{effect}`" for effect in sorted(family.effects)),
        "whose keys and values are blurred (`scope`)": ", ".join(f"`{scope}`" for scope in family.scopes),
        "samplers": ", ".join(f"`{sampler}`" for sampler in family.samplers),
        "on disk": f"{entry.gigabytes:g} GB" if entry.gigabytes else "not known" if entry.repository else "",
        "repositories": ", ".join(f"`{name}`" for name in hub),
        "licence": entry.licence,
    }
    yield from (f"## `{entry.name}`", "", f"{entry.about[:1].upper()}{entry.about[1:]}.", "")
    yield from (f"- {name}: {value}" for name, value in facts.items() if value)
    yield ""


def models() -> str:
    """Every model that is known by name."""
    said = "What planning knows. [Models](../models.md) says what was measured and checked."
    return "\n".join(["# Models by name", "", said, "", *(line for entry in CATALOG.values() for line in model(entry))])


def plain(annotation: str) -> str:
    """Without quotes and the homes of usual names."""
    return re.sub(r"['\"]|collections\.abc\.|typing\.|pathlib\.", "", annotation)


def signature_of(name: str, thing: Any) -> str:
    """As it is called, an argument a line where there are many."""

    def said(given: inspect.Parameter) -> str:
        text = given.replace(default=inspect.Parameter.empty)
        made = plain(str(text))
        if given.default is inspect.Parameter.empty:
            return made
        return f"{made} = {'..' if callable(given.default) else repr(given.default)}"

    called = inspect.signature(thing)
    given = list(called.parameters.values())
    named = next((n for n, one in enumerate(given) if one.kind is inspect.Parameter.KEYWORD_ONLY), None)
    parts = [said(one) for one in given]
    if named is not None:
        parts.insert(named, "*")
    gives = "" if isinstance(thing, type) else plain(inspect.formatannotation(called.return_annotation))
    gives = f" -> {gives}" if gives else ""
    line = f"{name}({', '.join(parts)}){gives}"
    return line if len(line) <= 100 else f"{name}(\n    " + ",\n    ".join(parts) + f",\n){gives}"


def python() -> str:
    """Every public name of the package, with its docstring."""
    lines = ["# Python", "", "`import framepack_relax as fr`; names are imported when they are used.", ""]
    for name in sorted(set(fr.__all__) - {"__version__"}, key=str.lower):
        thing = getattr(fr, name)
        lines += [f"## fr.{name}", ""]
        if isinstance(thing, type) and issubclass(thing, BaseModel):
            heading = "board" if name == "Storyboard" else section_of(name)
            lines += [f"Its arguments are the fields of [{heading}](storyboard.md#{heading}).", ""]
        elif not (isinstance(thing, type) and issubclass(thing, Exception)):
            lines += ["```python", signature_of(f"fr.{name}", thing), "```", ""]
        lines += [inspect.getdoc(thing) or "", ""]
    return "\n".join(lines)


PAGES = {"storyboard": storyboard, "commands": commands, "models": models, "python": python}


def main(*names: str) -> int:
    if unknown := set(names) - set(PAGES):
        print(f"{', '.join(sorted(unknown))}: no such page; there are {', '.join(PAGES)}", file=sys.stderr)
        return 2
    print("\n".join(PAGES[name]() for name in names or PAGES))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
