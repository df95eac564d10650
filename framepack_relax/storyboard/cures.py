"""What to do about texts that are not YAML: cures for what people write."""

import re
from collections.abc import Iterator

import yaml

from .meanings import FULL_WIDTH, FULL_WIDTH_COLON
from .paths import ESCAPE, SPACES, odd_space

PROSE = ("title", "style", "prompt", "negative_prompt", "calm", "who", "where")  # fields of text that is read as such
BEGINS_ODDLY = re.compile(rf"\b(?P<name>{'|'.join(PROSE)})[ ]*:[ ]+(?P<value>[\"'\[\]{{}}*&?%@`!|>,#-].*)")
WHOLE_LINE = re.compile(r"[ ]*(?:-[ ]+)*")
ODD_SPACE = re.compile(rf"^[ \t]*(?:-[ ]*)*(?:\w+:[ ]*|\w+(?=\S?\s*:))?([{SPACES}])", re.MULTILINE)
ODD_COLON = re.compile(rf"^[^\S\n]*(?:-[^\S\n]+)*[A-Za-z_]+({FULL_WIDTH_COLON})", re.MULTILINE)
NO_SPACE = re.compile(r"[ ]*(?:-[ ]+)*[a-z_]+:[^\s/]")
INSIDE = ("quoted", "flow", "alias", "anchor", "block scalar")  # of a value that begins at the error's context


def lookalikes(text: str) -> Iterator[tuple[int, str]]:
    """(place in the text, message) of signs that look like YAML's own colon and space, where those should stand."""
    for pattern in (ODD_COLON, ODD_SPACE):
        for found in pattern.finditer(text):
            yield found.start(1), FULL_WIDTH if found[1] == FULL_WIDTH_COLON else odd_space(found[1])


def cure(error: yaml.MarkedYAMLError, text: str) -> str:
    """What to do about a parser's complaint; empty where nothing is known."""
    problem, mark = error.problem or "", error.problem_mark
    stopped_at = text[mark.index : mark.index + 1] if mark else ""
    if stopped_at == "\t" or "tab character" in problem:
        return "indent with spaces, not tabs"
    if "escape" in problem or "hexdecimal" in problem:
        return ESCAPE
    if quoted := _quoted(error, text.splitlines()):
        return quoted
    before = text[: mark.index].rpartition("\n")[0].rpartition("\n")[2] if mark else ""
    if (stopped_at == ":" or "expected ':'" in problem) and NO_SPACE.match(before):
        return "write a space after ':'"
    if stopped_at == ":":
        return "put text that holds ': ' in quotes"
    if "cannot start any token" in problem:
        return "put text that begins so in quotes"
    if mark and re.search("expected (key|'-' indicator|<block end>|',' or)", problem):
        return "put text that holds ' #' in quotes" if " #" in before else "begin the line where its neighbours begin"
    return ""


def _quoted(error: yaml.MarkedYAMLError, lines: list[str]) -> str:
    """The cure for a text that begins with a sign of YAML's, at the error or where what it is inside of begins."""
    inside = error.context and any(word in error.context for word in INSIDE)
    for mark in (error.problem_mark, error.context_mark if inside else None):
        line = lines[mark.line] if mark and mark.line < len(lines) else ""
        found = BEGINS_ODDLY.search(line)
        if found and mark and found.start("value") <= mark.column:
            cure = f"put text that begins with {found['value'][0]} in quotes"
            alone = WHOLE_LINE.fullmatch(line, 0, found.start())
            return f"{cure}, as in {found['name']}: {_in_quotes(found['value'].rstrip())}" if alone else cure
    return ""


def _in_quotes(value: str) -> str:
    sign = value[0]
    if sign in "\"'" and len(value) > 1 and value[-1] == sign and value.count(sign) % 2:
        value = value[1:-1]  # it stands in quotes already, and holds one
    shown = value if len(value) <= 50 else value[:47] + "..."
    return f'"{shown}"' if '"' not in value and "\\" not in value else "'" + shown.replace("'", "''") + "'"
