"""Reads a storyboard: every mistake of a file at once, each with file, line and column.

The wanted type decides how a scalar is read, so YAML 1.1's surprises (`No`, `010`, `1:30`, `1e-3`) do not happen.
Anchors, aliases, merges and tags are refused: a storyboard is untrusted input and reads the same to everybody.
"""

import re
import types
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import Problem, StoryboardError
from .messages import explain, path_of, printable
from .schema import PROFILES, Part, Storyboard, build_storyboard

LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast
LARGEST_BYTES = 1 << 20
DEEPEST = 16
LONGEST_NUMBER = 300  # characters; every whole number of that length still fits a float
NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?")
ODD_NUMBERS = (
    (re.compile(r"[-+]?0[0-9]+(\.[0-9]*)?"), "begins with 0, which some read as octal; write {0}"),
    (re.compile(r"[-+]?[0-9][0-9_]*_[0-9_.]*"), "holds '_'; write {0}"),
    (re.compile(r"[-+]?0[xXbBoO][0-9a-fA-F]+"), "is not decimal; write it in decimal"),
    (re.compile(r"[-+]?[0-9]+(:[0-9]+)+(\.[0-9]*)?"), "looks like a time; write plain seconds, such as 90"),
    (re.compile(r"[-+]?\.?(inf|nan)", re.IGNORECASE), "is not finite; write a finite number"),
)


def read_storyboard(path: str | Path) -> Storyboard:
    """The storyboard in a YAML file. Raises StoryboardError with every mistake found."""
    file = Path(path)
    return parse_storyboard(read_text(file), file=str(path), folder=file.resolve().parent)


def read_text(file: Path) -> str:
    """The text of a YAML file of at most 1 MiB. Raises StoryboardError."""
    try:
        if file.is_dir():
            raise StoryboardError([Problem(file=str(file), message="is a folder; name the storyboard file in it")])
        with file.open("rb") as stream:
            data = stream.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise StoryboardError([Problem(file=str(file), message="no such file")]) from None
    except (OSError, ValueError) as error:
        raise StoryboardError([Problem(file=str(file), message=f"cannot be read ({error})")]) from None
    if len(data) > LARGEST_BYTES:
        message = f"is larger than {LARGEST_BYTES >> 20} MiB; split the storyboard"
        raise StoryboardError([Problem(file=str(file), message=message)])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise StoryboardError([Problem(file=str(file), line=line, message=message)]) from None


def parse_storyboard(text: str, *, file: str = "<storyboard>", folder: Path | None = None) -> Storyboard:
    """The storyboard in a YAML text; `folder` is what its image paths are relative to. Raises StoryboardError."""
    reading = Reading(file)
    data = reading.mapping(text, Storyboard)
    problems = list(reading.problems)
    if data is not None:
        try:
            story = build_storyboard(data).placed(file, folder, reading.places)
        except StoryboardError as error:
            problems += _untold(problems, map(reading.located, error.problems))
        problems += _untold(problems, map(reading.located, _path_problems(data, folder)))
    if problems:
        raise StoryboardError(sorted(problems, key=lambda p: (p.line or 0, p.column or 0)))
    return story


def parse_as(model: type[Part], text: str, *, file: str) -> Any:
    """Any other mapping in YAML, checked by its pydantic model. Raises StoryboardError with every mistake."""
    reading = Reading(file)
    data = reading.mapping(text, model)
    problems = list(reading.problems)
    if data is not None:
        try:
            made = model.model_validate(data)
        except ValidationError as error:
            problems += _untold(problems, map(reading.located, explain(error, model)))
    if problems:
        raise StoryboardError(sorted(problems, key=lambda p: (p.line or 0, p.column or 0)))
    return made


def _untold(told: Sequence[Problem], found: Iterable[Problem]) -> list[Problem]:
    """What was found on fields that have no problem yet: one mistake is told once."""
    paths = {problem.path for problem in told}
    return [problem for problem in found if problem.path not in paths]


def _events(text: str) -> Iterator[yaml.Event]:
    """PyYAML's events. Without libyaml it raises ValueError on numbers that are out of range, without a place."""
    loader = LOADER(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    except (ValueError, OverflowError):
        raise yaml.MarkedYAMLError(problem="a number is out of range", problem_mark=loader.get_mark()) from None


class Reading:
    """One file on its way to plain values: problems found so far, and where every field stands."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.places: dict[str, tuple[int, int]] = {}

    def mapping(self, text: str, model: type[BaseModel]) -> dict[str, Any] | None:
        """A YAML text as plain values for `model`; None if it holds what is refused. Raises StoryboardError."""
        try:
            node = self.compose(text)
            return None if node is None else self._mapping(node, model, "")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = " ".join(part for part in (error.context, error.problem) if part)
            raise StoryboardError([self.problem(f"is not YAML: {reason}", mark)]) from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            column = error.position - text.rfind("\n", 0, error.position)
            message = f"holds the character U+{int(error.character):04X}, which YAML does not allow; remove it"
            raise StoryboardError([Problem(file=self.file, line=line, column=column, message=message)]) from None

    def problem(self, message: str, mark: Any, path: str = "") -> Problem:
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        return Problem(message=message, path=path, file=self.file, line=line, column=column)

    def located(self, problem: Problem) -> Problem:
        path = problem.path
        while path not in self.places:
            path = path.rpartition(".")[0] if "." in path else path.rpartition("[")[0]
        line, column = self.places[path]
        return Problem(message=problem.message, path=problem.path, file=self.file, line=line, column=column)

    def compose(self, text: str) -> yaml.MappingNode | None:
        """The document's node tree, after what is refused in any place has been looked for."""
        self.problems += self._refused(text)
        if self.problems:
            return None
        node = yaml.compose(text, Loader=LOADER)
        if node is None:
            self.problems.append(Problem(file=self.file, message="is empty; a storyboard needs at least `scenes:`"))
            return None
        self.places[""] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if not isinstance(node, yaml.MappingNode):
            self.problems.append(self.problem("is not a mapping; begin with `scenes:`", node.start_mark))
            return None
        return node

    def _refused(self, text: str) -> Iterator[Problem]:
        depth = documents = 0
        for event in _events(text):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    yield self.problem("is a second document; keep one storyboard in a file", event.start_mark)
            if isinstance(event, yaml.AliasEvent):
                yield self.problem(f"alias *{event.anchor}; write the value out", event.start_mark)
            elif anchor := getattr(event, "anchor", None):
                yield self.problem(f"anchor &{anchor}; storyboards have no anchors, remove it", event.start_mark)
            if tag := getattr(event, "tag", None):
                yield self.problem(f"tag {printable(tag)}; storyboards have no tags, remove it", event.start_mark)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                yield self.problem(f"is nested more than {DEEPEST} deep", event.start_mark)
                return

    def convert(self, node: yaml.Node, wanted: Any, path: str) -> Any:
        """A node as the plain value that `wanted`, a type annotation, asks for."""
        self.places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, next(_of_kind(wanted, BaseModel), None), path)
        if isinstance(node, yaml.SequenceNode):
            inner = _items(wanted, len(node.value))
            items = zip(node.value, inner, strict=True)
            return tuple(self.convert(item, kind, f"{path}[{index}]") for index, (item, kind) in enumerate(items))
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, wanted, path)

    def _mapping(self, node: yaml.MappingNode, model: type[BaseModel] | None, path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, mark = key.value, key.start_mark
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(self.problem("a key must be a plain word", mark, path))
                continue
            inside = f"{path}.{path_of([name])}" if path else path_of([name])
            if name == "<<" and not key.style:
                self.problems.append(
                    self.problem("merge key '<<'; storyboards have no merges, write it out", mark, path)
                )
            elif name in made:
                message = f"is given twice, first in line {lines[name]}; keep one"
                self.problems.append(self.problem(message, mark, inside))
            else:
                field = model.model_fields.get(name) if model else None
                if field is None:
                    self.places[inside] = (mark.line + 1, mark.column + 1)
                lines[name] = mark.line + 1
                made[name] = self.convert(value, field.annotation if field else Any, inside)
        return made

    def _scalar(self, node: yaml.ScalarNode, wanted: Any, path: str) -> Any:
        text, plain = node.value, not node.style
        kinds = set(_leaves(wanted))
        if plain and text in ("", "~", "null", "Null", "NULL"):
            if kinds:
                self.problems.append(self.problem("is empty; give a value or remove the line", node.start_mark, path))
            return None
        if not kinds & {int, float}:
            return text
        if not plain:
            if NUMBER.fullmatch(text):
                self.problems.append(self.problem("is text; remove the quotes", node.start_mark, path))
            return text
        if len(text) > LONGEST_NUMBER:
            return text
        if NUMBER.fullmatch(text):
            return int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else float(text)
        for pattern, advice in ODD_NUMBERS:
            if pattern.fullmatch(text):
                cure = re.sub(r"^([-+]?)0+(?=[0-9])", r"\1", text.replace("_", ""))
                self.problems.append(self.problem(f"{text} {advice.format(cure)}", node.start_mark, path))
        return text


def _leaves(wanted: Any) -> Iterator[Any]:
    """Scalar types inside an annotation; of a Literal the types of its values."""
    origin = get_origin(wanted)
    if origin is Annotated:
        yield from _leaves(get_args(wanted)[0])
    elif origin is Literal:
        yield from (type(value) for value in get_args(wanted))
    elif origin in (types.UnionType, Union):
        for inner in get_args(wanted):
            yield from _leaves(inner)
    elif wanted in (str, int, float):
        yield wanted


def _of_kind(wanted: Any, base: type) -> Iterator[Any]:
    if isinstance(wanted, type) and issubclass(wanted, base):
        yield wanted
    elif get_origin(wanted) in (types.UnionType, Union, Annotated):
        for inner in get_args(wanted):
            yield from _of_kind(inner, base)


def _items(wanted: Any, count: int) -> list[Any]:
    """The annotation of each item of a list of `count` items."""
    if get_origin(wanted) in (types.UnionType, Union, Annotated):
        found = [_items(inner, count) for inner in get_args(wanted)]
        return next((items for items in found if items and items[0] is not Any), [Any] * count)
    if get_origin(wanted) is tuple:
        kinds = get_args(wanted)
        return [kinds[0]] * count if kinds[-1] is ... else [*kinds, *[Any] * count][:count]
    return [Any] * count


def _path_problems(data: dict[str, Any], folder: Path | None) -> Iterator[Problem]:
    """Files that a board names: inside its folder, and there."""
    if folder is None:
        return
    if (profile := data.get("profile", "auto")) not in PROFILES:
        yield from _inside(folder, profile, "profile")
    yield from _inside(folder, data.get("image"), "image")
    scenes = data.get("scenes")
    for index, scene in enumerate(scenes if isinstance(scenes, tuple) else ()):
        if isinstance(scene, dict):
            yield from _inside(folder, scene.get("image"), f"scenes[{index}].image")


def _inside(folder: Path, name: Any, path: str) -> Iterator[Problem]:
    if not isinstance(name, str) or not name.strip():
        return
    try:
        target = (folder / name).resolve()
        leaves = Path(name).is_absolute() or not target.is_relative_to(folder.resolve())
        there = target.is_file()
    except (OSError, ValueError) as error:
        yield Problem(path=path, message=f"{name[:60]!r} is not a usable path ({error.args[-1]})")
        return
    name = printable(name)
    if leaves:
        yield Problem(path=path, message=f"{name} leaves the storyboard's folder; copy the file into it")
    elif target.is_dir():
        yield Problem(path=path, message=f"{name} is a folder; name a file in it")
    elif not there:
        yield Problem(path=path, message=f"{name}: no such file beside the storyboard")
