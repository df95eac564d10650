"""Changes a storyboard's text by field, as a person would: comments, order and every other byte stay.

A change is a value for a path such as `scenes[1].relax.beta` (None removes the field), or a scene that is put in, taken
out or moved. Text with mistakes may be changed too, so long as it is YAML.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from ..errors import Problem, StoryboardError
from .reader import LOADER
from .schema import Scene, Storyboard

PART = re.compile(r"\.?([A-Za-z_][\w-]*)|\[([0-9]{1,4})\]")
BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]|$")  # of lines, as YAML counts them, and the end
ORDER = {name: place for model in (Storyboard, Scene) for place, name in enumerate(model.model_fields)}
Value = str | float | bool | None | list[Any] | dict[str, Any]
Edit = tuple[int, int, str]  # signs of a text, from the first until before the second, and what is written for them


def tree_of(text: str) -> Any:
    """Mappings, lists and texts that YAML holds, numbers as they are written. Raises StoryboardError."""
    return _plain(_compose(text))


def set_fields(text: str, values: Mapping[str, Value]) -> str:
    """The text in which the fields at these paths have these values, or are gone. Raises StoryboardError."""
    expected, root = tree_of(text), _compose(text)
    edits = [edit for path, value in values.items() for edit in [_edit(text, root, expected, path, value)] if edit]
    changed, end = "", 0
    for begin, stop, written in sorted(edits, key=lambda edit: edit[:2]):
        changed, end = changed + text[end:begin] + written, stop
    return _checked(changed + text[end:], expected, next(iter(values), ""))


def _edit(text: str, node: yaml.Node, inside: Any, path: str, value: Value) -> Edit | None:
    """What sets one field, which it sets in `inside`, the whole tree, too."""
    parts = _parts(path)
    while len(parts) > 1 and (inner := _child(node, parts[0])) is not None:
        node, inside, parts = inner, inside[parts[0]], parts[1:]
    name, *deeper = parts
    if not isinstance(node, yaml.MappingNode) or not isinstance(name, str):
        raise _refusal(path, "is not the field of a mapping")
    for part in reversed(deeper):
        value = None if value is None else {str(part): value}
    inside.pop(name, None)
    if value is not None:
        inside[name] = tree_of(f"a: {written(value)}")["a"]
    return _set(text, node, name, value)


def insert_scene(text: str, index: int, scene: dict[str, Value]) -> str:
    """The text with one more scene, which stands at `index`. Raises StoryboardError."""
    chunks, indent = _scenes(text)
    fields = [f"{name}: {written(value)}" for name, value in scene.items()]
    sign = _newline(text)
    chunks.insert(index, f"{indent}- " + f"{sign}{indent}  ".join(fields) + sign)
    return _rejoined(text, chunks, lambda scenes: scenes.insert(index, tree_of(f"a: {written(scene)}")["a"]))


def remove_scene(text: str, index: int) -> str:
    """The text without a scene and its comments. Raises StoryboardError, also for the last one."""
    chunks, _ = _scenes(text)
    if not 0 <= index < len(chunks) or len(chunks) == 1:
        raise _refusal(f"scenes[{index}]", "cannot be taken out: a board has at least one scene")
    del chunks[index]
    return _rejoined(text, chunks, lambda scenes: scenes.pop(index))


def move_scene(text: str, index: int, to: int) -> str:
    """The text with a scene at another place, its comments with it. Raises StoryboardError."""
    chunks, _ = _scenes(text)
    if not (0 <= index < len(chunks) and 0 <= to < len(chunks)):
        raise _refusal(f"scenes[{index}]", f"there are {len(chunks)} scenes")
    chunks.insert(to, chunks.pop(index))
    return _rejoined(text, chunks, lambda scenes: scenes.insert(to, scenes.pop(index)))


# --- YAML's nodes -----------------------------------------------------------------------------------------------------


def _compose(text: str) -> yaml.Node:
    try:
        node = yaml.compose(text, Loader=LOADER)
    except (yaml.YAMLError, ValueError) as error:
        raise _refusal("", "the file is not YAML; mend that in its text first") from error
    if not isinstance(node, yaml.MappingNode):
        raise _refusal("", "the file is no mapping; mend that in its text first")
    return node


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return node.value


def _child(node: yaml.Node, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part]
    return None


def _parts(path: str) -> tuple[str | int, ...]:
    found = list(PART.finditer(path))
    if not found or "".join(match[0] for match in found) != path:
        raise _refusal(path[:60], "is no path of a field, such as scenes[1].seconds")
    return tuple(match[1] if match[1] else int(match[2]) for match in found)


def _end(text: str, node: yaml.Node) -> int:
    """Where a node's own text ends: of a block, that of what stands last in it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    end = node.end_mark.index
    return node.start_mark.index + len(text[node.start_mark.index : end].rstrip())


def _line_end(text: str, place: int) -> re.Match[str]:
    """What ends the line, or the text."""
    found = BREAK.search(text, place)
    assert found
    return found


def _newline(text: str) -> str:
    return _line_end(text, 0)[0] or "\n"


# --- fields -----------------------------------------------------------------------------------------------------------


def written(value: Any, flow: bool = False, quote: str | None = None) -> str:
    """As YAML has it, on one line."""
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {written(item, True)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(item, True) for item in value) + "]"
    style = (quote or ('"' if "\n" in value else None)) if isinstance(value, str) else None
    shown = yaml.safe_dump([value] if flow else value, default_flow_style=flow, default_style=style, width=float("inf"),
                           allow_unicode=True)  # fmt: skip
    shown = shown.removesuffix("...\n").strip("\n")
    return shown[1:-1] if flow else shown


def _set(text: str, node: yaml.MappingNode, name: str, value: Value) -> Edit | None:
    """Of a mapping."""
    place = next((at for at, (key, _) in enumerate(node.value) if key.value == name), None)
    if value is None:
        return None if place is None else _without(text, node, place)
    if place is None:
        return _with(text, node, name, value)
    key, old = node.value[place]
    begin, end = old.start_mark.index, _end(text, old)
    if begin == end:  # there is a key alone
        begin = key.end_mark.index + 1
        return begin, begin, f" {written(value, node.flow_style)}"
    quote = old.style if isinstance(old, yaml.ScalarNode) and old.style in ('"', "'") else None
    return begin, end, written(value, node.flow_style, quote)


def _with(text: str, node: yaml.MappingNode, name: str, value: Value) -> Edit:
    """A mapping with one more field, behind those that the schema has before it."""
    shown = f"{name}: {written(value, node.flow_style)}"
    if not node.value:
        begin = node.start_mark.index + 1
        return begin, begin, shown
    order = [ORDER.get(key.value, -1) for key, _ in node.value]
    before = [at for at, place in enumerate(order) if place <= ORDER.get(name, len(ORDER))]
    key, after = node.value[before[-1] if before else -1]
    end = _end(text, after)
    if node.flow_style:
        quote = key.style or ""
        return end, end, f", {quote}{name}{quote}{shown[len(name) :]}"
    end = _line_end(text, end).start()
    return end, end, f"{_newline(text)}{' ' * node.start_mark.column}{shown}"


def _without(text: str, node: yaml.MappingNode, place: int) -> Edit:
    """A mapping without a field; a comment in its line goes with it."""
    key, value = node.value[place]
    begin, end = key.start_mark.index, max(_end(text, value), key.end_mark.index + 1)
    following = node.value[place + 1][0].start_mark.index if place + 1 < len(node.value) else None
    if node.flow_style:
        before = _end(text, node.value[place - 1][1]) if place else begin
        return (begin, following, "") if following else (before, end, "")
    line, stop = begin - key.start_mark.column, _line_end(text, end).end()
    if not text[line:begin].strip():
        return line, stop, ""
    kept = text[stop:following] if following else ""  # behind a dash, where the next one takes its place
    return begin, following or stop, _newline(text) + kept if kept.strip() else ""


# --- scenes -----------------------------------------------------------------------------------------------------------


def _scenes(text: str) -> tuple[list[str], str]:
    """The text of each scene with the comments above it, and what stands before their dashes."""
    node = _child(_compose(text), "scenes")
    if not isinstance(node, yaml.SequenceNode) or node.flow_style or not node.value:
        raise _refusal(
            "scenes",
            "is not a list with a dash before each scene; write it so in the text, then scenes come and go here",
        )
    begins = list(_begins(text, node))
    stops = [*begins[1:], _line_end(text, _end(text, node.value[-1])).end()]
    chunks = [text[begin:stop] for begin, stop in zip(begins, stops, strict=True)]
    sign = _newline(text)
    whole = [chunk if chunk.endswith(("\n", "\r")) else chunk + sign for chunk in chunks]
    return whole, " " * node.start_mark.column


def _begins(text: str, node: yaml.SequenceNode) -> Iterator[int]:
    """Where each scene's lines begin: that of its dash, or the comments right above that."""
    for item in node.value:
        dash = text.rfind("-", 0, item.start_mark.index + 1)
        begin = max(text.rfind("\n", 0, dash), text.rfind("\r", 0, dash)) + 1
        while begin:
            above = max(text.rfind("\n", 0, begin - 1), text.rfind("\r", 0, begin - 1)) + 1
            if not text[above:begin].startswith(" " * node.start_mark.column + "#"):
                break
            begin = above
        yield begin


def _rejoined(text: str, chunks: list[str], change: Callable[[list[Any]], Any]) -> str:
    node = _child(_compose(text), "scenes")
    assert isinstance(node, yaml.SequenceNode)
    begin, stop = next(_begins(text, node)), _line_end(text, _end(text, node.value[-1])).end()
    expected = tree_of(text)
    change(expected["scenes"])
    return _checked(text[:begin] + "".join(chunks) + text[stop:], expected, "scenes")


def _checked(changed: str, expected: Any, path: str) -> str:
    """What was changed, if that and nothing else was."""
    try:
        same = tree_of(changed) == expected
    except StoryboardError:
        same = False
    if not same:
        raise _refusal(path, "cannot be written into this file as it is; nothing was written: change it in the text")
    return changed


def _refusal(path: str, message: str) -> StoryboardError:
    return StoryboardError([Problem(path=path, message=message)])
