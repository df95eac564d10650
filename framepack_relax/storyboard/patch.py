"""Changes a storyboard's text by field, as a person would: comments, order and every other byte stay.

A change is a value for a path such as `scenes[1].relax.beta` (None removes the field), or a scene that is put in, taken
out or moved. Text with mistakes may be changed too, so long as it is YAML.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from ..errors import Problem, StoryboardError
from .reader import LOADER
from .schema import Scene, Storyboard

PART = re.compile(r"\.?([A-Za-z_][\w-]*)|\[([0-9]{1,4})\]")
LINE_END = re.compile("\r\n|[\r\n]|$")
ORDER = {name: place for model in (Storyboard, Scene) for place, name in enumerate(model.model_fields)}
Value = str | float | bool | None | list[Any] | dict[str, Any]
Path = tuple[str | int, ...]


def tree_of(text: str) -> Any:
    """Mappings, lists and texts that YAML holds, numbers as they are written. Raises StoryboardError."""
    return _plain(_compose(text))


def set_field(text: str, path: str, value: Value) -> str:
    """The text with a field of this value, or without the field. Raises StoryboardError."""
    expected, node = tree_of(text), _compose(text)
    inside, parts = expected, _parts(path)
    while len(parts) > 1 and (inner := _child(node, parts[0])) is not None:
        node, inside, parts = inner, inside[parts[0]], parts[1:]
    name, *deeper = parts
    if not isinstance(node, yaml.MappingNode) or not isinstance(name, str):
        raise _refusal(path, "is not the field of a mapping")
    for part in reversed(deeper):
        value = None if value is None else {str(part): value}
    inside.pop(name, None)
    if value is not None:
        inside[name] = _as_texts(value)
    return _checked(_set(text, node, name, value), expected, path)


def insert_scene(text: str, index: int, scene: dict[str, Value]) -> str:
    """The text with one more scene, which stands at `index`. Raises StoryboardError."""
    chunks, indent = _scenes(text)
    fields = [f"{name}: {_written(value)}" for name, value in scene.items()]
    sign = _newline(text)
    chunks.insert(index, f"{indent}- " + f"{sign}{indent}  ".join(fields) + sign)
    return _rejoined(text, chunks, lambda scenes: scenes.insert(index, _as_texts(scene)))


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


def _as_texts(value: Any) -> Any:
    """A value as `_plain` gives it back."""
    return tree_of(f"a: {_written(value)}")["a"]


def _child(node: yaml.Node, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part]
    return None


def _parts(path: str) -> Path:
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


def _line_end(text: str, place: int) -> int:
    found = LINE_END.search(text, place)
    return found.start() if found else len(text)


def _next_line(text: str, place: int) -> int:
    found = LINE_END.search(text, place)
    return found.end() if found else len(text)


def _newline(text: str) -> str:
    found = re.search("\r\n|[\r\n]", text)
    return found[0] if found else "\n"


# --- fields -----------------------------------------------------------------------------------------------------------


def _written(value: Any, flow: bool = False, quote: str | None = None) -> str:
    """As YAML has it, on one line."""
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_written(item, True)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(item, True) for item in value) + "]"
    style = (quote or ('"' if "\n" in value else None)) if isinstance(value, str) else None
    shown = yaml.safe_dump([value] if flow else value, default_flow_style=flow, default_style=style, width=float("inf"),
                           allow_unicode=True)  # fmt: skip
    shown = shown.removesuffix("...\n").strip()
    return shown[1:-1] if flow else shown


def _set(text: str, node: yaml.MappingNode, name: str, value: Value) -> str:
    """Of a mapping."""
    place = next((at for at, (key, _) in enumerate(node.value) if key.value == name), None)
    if value is None:
        return text if place is None else _without(text, node, place)
    if place is None:
        return _with(text, node, name, value)
    old = node.value[place][1]
    begin, end = old.start_mark.index, _end(text, old)
    quote = old.style if isinstance(old, yaml.ScalarNode) and old.style in ('"', "'") else None
    if begin == end:  # there is a key alone
        begin = end = node.value[place][0].end_mark.index + 1
        return f"{text[:begin]} {_written(value, node.flow_style)}{text[end:]}"
    return text[:begin] + _written(value, node.flow_style, quote) + text[end:]


def _with(text: str, node: yaml.MappingNode, name: str, value: Value) -> str:
    """A mapping with one more field, behind those that the schema has before it."""
    order = [ORDER.get(key.value, -1) for key, _ in node.value]
    before = [at for at, place in enumerate(order) if place <= ORDER.get(name, len(ORDER))]
    shown = _written(value, node.flow_style)
    if not node.value:
        place = node.start_mark.index + 1
        return f"{text[:place]}{name}: {shown}{text[place:]}"
    key, after = node.value[before[-1] if before else -1]
    end = _end(text, after)
    if node.flow_style:
        quote = key.style or ""
        return f"{text[:end]}, {quote}{name}{quote}: {shown}{text[end:]}"
    end = _line_end(text, end)
    return f"{text[:end]}{_newline(text)}{' ' * node.value[0][0].start_mark.column}{name}: {shown}{text[end:]}"


def _without(text: str, node: yaml.MappingNode, place: int) -> str:
    """A mapping without a field; a comment in its line goes with it."""
    key, value = node.value[place]
    begin, end = key.start_mark.index, max(_end(text, value), key.end_mark.index + 1)
    if node.flow_style:
        if place + 1 < len(node.value):
            end = node.value[place + 1][0].start_mark.index
        elif place:
            begin = _end(text, node.value[place - 1][1])
        return text[:begin] + text[end:]
    line = begin - key.start_mark.column
    if text[line:begin].strip():  # behind a dash, where the next one takes its place
        following = node.value[place + 1][0].start_mark.index if place + 1 < len(node.value) else _line_end(text, end)
        kept = text[_next_line(text, end) : following]
        return text[:begin] + (_newline(text) + kept if kept.strip() else "") + text[following:]
    return text[:line] + text[_next_line(text, end) :]


# --- scenes -----------------------------------------------------------------------------------------------------------


def _scenes(text: str) -> tuple[list[str], str]:
    """The text of each scene with the comments above it, and what stands before their dashes."""
    node = _child(_compose(text), "scenes")
    if not isinstance(node, yaml.SequenceNode) or node.flow_style or not node.value:
        raise _refusal("scenes", "is not a list with a dash before each scene; change it in the text")
    begins = list(_begins(text, node))
    stops = [*begins[1:], _next_line(text, _end(text, node.value[-1]))]
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


def _rejoined(text: str, chunks: list[str], change: Any) -> str:
    node = _child(_compose(text), "scenes")
    assert isinstance(node, yaml.SequenceNode)
    begin, stop = next(_begins(text, node)), _next_line(text, _end(text, node.value[-1]))
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
