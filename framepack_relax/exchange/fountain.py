"""Screenplays in Fountain 1.1: a heading is a scene, the action its prompt; `[[intensity: 0.7, seconds: 4]]` sets.

Two libraries read the format, both of 2026-10 and version 0.x; the part of it that is needed here is few lines.
"""

import re
from collections import Counter
from typing import Any

from .draft import Draft
from .source import Source

HEADING = re.compile(r"(?:(?:INT|EXT|EST|INT\.?/EXT|I/E)[. ].+|\.[^.\s].*)", re.IGNORECASE)
NUMBER = re.compile(r"\s*#[\w.-]+#\s*$")
TITLE = re.compile(r"(Title|Credit|Author|Authors|Source|Draft date|Contact|Copyright|Notes):", re.IGNORECASE)
BREAK = re.compile(r"CUT TO:|===+")
NOTE = re.compile(r"\[\[([^\[\]]*)\]\]")
SETTING = re.compile(r"\s*(intensity|seconds|seed|image|transition)\s*:(.+)", re.DOTALL)
BONEYARD = re.compile(r"/\*(?:(?!/\*).)*?\*/", re.DOTALL)
LEFT = {  # what a line begins with, and what it is
    "synopses": re.compile(r"=(?!==)"),
    "sections": re.compile(r"#"),
    "lyrics": re.compile(r"~"),
    "centred lines": re.compile(r">.*<$"),
    "transitions besides cuts": re.compile(r">.*|(?!CUT TO:$)[A-Z ]+TO:$"),
}
MARKUP = re.compile(r"^[!~]|^#+\s*|[*_]+", re.MULTILINE)


def claims(source: Source) -> bool:
    lines = source.text.splitlines()
    return any(re.match(r"(INT|EXT|EST|I/E)[. ]", line) for line in lines) or bool(lines and TITLE.match(lines[0]))


def read(draft: Draft) -> None:
    text = BONEYARD.sub(lambda found: "\n" * found[0].count("\n"), draft.source.text.replace("\r\n", "\n"))
    scenes: list[tuple[int, str, list[str]]] = []
    line, left = 1, Counter[str]()
    if TITLE.match(text):
        page, break_, rest = text.partition("\n\n")
        left["entries of its title page"] = len(re.findall(r"^(?!Title:)\S.*?:", page, re.MULTILINE | re.IGNORECASE))
        if found := re.search(r"^Title:(.*(?:\n[ \t]+.*)*)", page, re.MULTILINE | re.IGNORECASE):
            draft.board["title"] = " ".join(MARKUP.sub("", found[1]).split())
        text = "\n" * page.count("\n") + break_ + rest
    for block in re.split(r"(\n(?:[ \t]*\n)+)", text):
        first, _, rest = _without(block, left).strip("\n").partition("\n")
        said = NOTE.sub("", first).strip()
        if HEADING.fullmatch(said):
            notes = "".join(f"[[{note}]]" for note in NOTE.findall(first))
            scenes.append((line, NUMBER.sub("", said).removeprefix("."), [notes, rest]))
        elif scenes and rest and _speaks(said):
            left["speeches"] += 1
        elif scenes and (said or NOTE.search(first)) and not BREAK.fullmatch(said):
            scenes[-1][2].extend((first, rest))
        elif said and not scenes:
            left["paragraphs before the first heading"] += 1
        line += block.count("\n")
    for what, count in left.items():
        if count:
            draft.leave("", f"{count} {what} are not carried over")
    if not scenes:
        draft.source.refuse("holds no scene heading, such as INT. KITCHEN - DAY")
    for line, heading, blocks in scenes:
        _scene(draft, line, heading, "\n".join(blocks))


def _without(block: str, left: Counter[str]) -> str:
    """A paragraph without its lines that are no action, which are counted."""
    kept = []
    for row in block.split("\n"):
        kind = next((kind for kind, begins in LEFT.items() if begins.match(row.strip())), None)
        left.update([kind] if kind else [])
        kept += [] if kind else [row]
    return "\n".join(kept)


def _speaks(line: str) -> bool:
    """Whether it is a name above a speech: in capitals, but for what stands in brackets behind it."""
    name = line.partition("(")[0]
    return line.startswith("@") or (name == name.upper() and any(map(str.isalpha, name)) and line[0] != "!")


def _scene(draft: Draft, line: int, heading: str, text: str) -> None:
    place, fields = f"line {line}", dict[str, Any]()
    for note in NOTE.findall(text):
        pairs = [SETTING.fullmatch(part) for part in note.split(",")]
        fields |= {found[1]: found[2].strip() for found in pairs if found}
        if not all(pairs):
            draft.leave(place, "a note is not carried over")
    for name in fields.keys() & {"intensity", "seconds", "seed"}:
        try:
            fields[name] = int(fields[name]) if name == "seed" else float(fields[name])
        except ValueError:
            if (name, fields[name]) != ("intensity", "auto"):
                draft.source.refuse(f"{name} is {fields[name][:40]!r}; write a number", line=line)
    action = " ".join(MARKUP.sub("", NOTE.sub("", text)).split())
    cut = fields.pop("transition", "cut") == "cut"
    name = re.sub(r"^\W*(INT|EXT|EST|I/E)\W+", "", heading, flags=re.IGNORECASE).lower()
    draft.scene(place, f"{heading}. {action}".strip(), name=name, cut=cut, **fields)
