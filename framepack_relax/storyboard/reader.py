"""Reads a storyboard: every mistake of a file at once, each with file, line and column.

The wanted type decides how a scalar is read, so YAML 1.1's surprises (`No`, `010`, `1:30`, `1e-3`) do not happen.
Anchors, aliases, merges and tags are refused: a storyboard is untrusted input and reads the same to everybody.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from ..errors import Problem, StoryboardError
from .annotations import inside, kinds, numeric
from .cures import PROSE, cure, lookalikes
from .fields import PROFILES
from .messages import MOST_PROBLEMS, Check, locate, path_of, printable, validated
from .paths import expand, leaves, path_cure, refusal
from .profile import ProfileFields
from .schema import Storyboard, build_storyboard

P = TypeVar("P", bound=BaseModel)
Data = dict[str, Any]
Beside = Callable[[P, Sequence[Problem]], Sequence[Problem]]

LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast
LARGEST_BYTES = 1 << 19
DEEPEST = 16
LONGEST_LIST = 3000
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
QUOTED = "or put text that begins so in quotes"
COMMENT = re.compile(r"(?P<ends>(?:[ \t]*\r?\n)*)[ \t]*(?P<cut>#.{0,99})")  # after a scalar, here or in a next line
LONGEST_NUMBER = 300  # characters; every whole number of that length still fits a float
NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?")
ODD_NUMBERS = (
    (re.compile(r"[-+]?0[0-9]+(\.[0-9]*)?"), "begins with 0, which some read as octal; write {0}"),
    (re.compile(r"[-+]?[0-9][0-9_]*_[0-9_.]*"), "holds '_'; write {0}"),
    (re.compile(r"[-+]?0[xXbBoO][0-9a-fA-F]+"), "is not decimal; write it in decimal"),
    (re.compile(r"[-+]?[0-9]+(:[0-9]+)+(\.[0-9]*)?"), "looks like a time; write plain seconds, such as 90"),
    (re.compile(r"[-+]?\.?(inf|nan)", re.IGNORECASE), "is not finite; write a finite number"),
)


def read_storyboard(path: str | Path, beside: Beside[Storyboard] = lambda story, found: found) -> Storyboard:
    """The storyboard in a YAML file. Raises StoryboardError with every mistake found.

    Where only files that it names are wrong, `beside` adds to what was found what else is wrong with the board.
    """
    file = expand(path)
    return parse_storyboard(read_text(file), file=str(file), folder=file.resolve().parent, beside=beside)


def read_text(file: Path) -> str:
    """The text of a YAML file of at most 512 KiB. Raises StoryboardError."""
    try:
        if not (message := refusal(file)):
            with file.open("rb") as stream:
                data = stream.read(LARGEST_BYTES + 1)
            if len(data) <= LARGEST_BYTES:
                return decoded(data, str(file), "JSON" if file.suffix == ".json" else "YAML")
            message = f"is larger than {LARGEST_BYTES >> 10} KiB; make it smaller"
    except FileNotFoundError:
        message = f"no such file{path_cure(str(file), file)}"
    except (OSError, ValueError) as error:
        message = f"cannot be read ({error})"
    raise StoryboardError([Problem(file=str(file), message=message)])


def decoded(data: bytes, file: str, kind: str) -> str:
    """The text in the bytes of a file that is to be of a `kind`. Raises StoryboardError where they are no UTF-8."""
    line = None
    try:
        if b"\0" not in data or data.startswith(UTF_16):
            return data.decode("utf-8-sig")
        message = f"is no text; write it in {kind}"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        message = f"byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"
    raise StoryboardError([Problem(file=file, line=line, message=message)])


def parse_storyboard(
    text: str,
    *,
    file: str = "<storyboard>",
    folder: Path | None = None,
    beside: Beside[Storyboard] = lambda story, found: found,
) -> Storyboard:
    """The storyboard in a YAML text; `folder` is what its image paths are relative to. Raises StoryboardError."""
    reading = Reading(file, text)

    def build(data: Data) -> Storyboard:
        return build_storyboard(data).placed(file, folder, reading.places)

    return reading.checked(Storyboard, build, lambda data: _path_problems(data, folder), beside)


def parse_as(model: type[P], text: str, *, file: str, check: Check[P] = lambda made: ()) -> P:
    """Any other mapping in YAML, by its pydantic model, then by `check`. Raises StoryboardError with every mistake."""
    return Reading(file, text).checked(model, lambda data: validated(model, data, check=check))


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

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self.problems: list[Problem] = []
        self.places: dict[str, tuple[int, int]] = {}

    def checked(
        self,
        model: type[BaseModel],
        build: Callable[[Data], P],
        others: Check[Data] = lambda data: (),
        beside: Beside[P] = lambda made, found: found,
    ) -> P:
        """What `build` makes of the text for `model`; raises StoryboardError with its and all `others`' problems.

        Where only others have some, `beside` adds its own.
        """
        if (node := self._compose(model)) is not None:
            data = self._mapping(node, model, "")
            try:
                made = build(data)
            except StoryboardError as error:
                self._tell(error.problems)
            sound = not self.problems
            self._tell(others(data))
            if sound and self.problems:
                self.problems = list(beside(made, self.problems))
        if self.problems:
            found = sorted(self.problems, key=lambda p: (p.file != self.file, p.line or 0, p.column or 0))
            rest = [Problem(file=self.file, message="holds more mistakes; mend these first")]
            raise StoryboardError(found[:MOST_PROBLEMS] + rest if len(found) > MOST_PROBLEMS else found)
        return made

    def _tell(self, found: Iterable[Problem]) -> None:
        """Adds what was found on fields that have no problem yet, here or in a file that the board names."""
        told = {(problem.file, problem.path) for problem in self.problems}
        found = (problem if problem.file else locate(problem, self.file, self.places) for problem in found)
        self.problems += [problem for problem in found if (problem.file, problem.path) not in told]

    def _refuse(self, message: str, mark: Any, path: str = "") -> None:
        line, column = _spot(mark) if mark else (None, None)
        self.problems.append(Problem(message=message, path=path, file=self.file, line=line, column=column))

    def _compose(self, model: type[BaseModel]) -> yaml.MappingNode | None:
        """The document's node tree; None, and problems, if it holds what is refused in any place or is not YAML."""
        try:
            self._look_for_refused()
            node = None if self.problems else yaml.compose(self.text, Loader=LOADER)
        except yaml.MarkedYAMLError as error:
            self.problems = []  # of text that is no YAML nothing else is known
            reason = " ".join(part for part in (error.context, error.problem) if part)
            said = "; ".join(filter(None, (f"is not YAML: {reason}", cure(error, self.text))))
            at = error.problem_mark or error.context_mark
            self._refuse(said, at)
            self._tell_lookalikes(range(at.line, at.line + 2) if at else range(0))
        except yaml.reader.ReaderError as error:
            message = f"holds the character U+{int(error.character):04X}, which YAML does not allow; remove it"
            self._refuse_signs([(error.position, message)])
        if self.problems:
            return None
        needed = next(name for name, field in model.model_fields.items() if field.is_required())
        if node is None:
            self._refuse(f"is empty; it needs at least `{needed}:`", None)
        elif not isinstance(node, yaml.MappingNode):
            self._refuse(f"is not a mapping; begin with `{needed}:`", node.start_mark)
        else:
            self.places[""] = _spot(node.start_mark)
            return node
        self._tell_lookalikes(range(1, 2 + self.text.count("\n")))
        return None

    def _tell_lookalikes(self, lines: range) -> None:
        """Signs that look like YAML's, where one of them stands in these lines: then they are the mistakes."""
        found = list(islice(lookalikes(self.text), MOST_PROBLEMS))
        if any(self.text.count("\n", 0, place) + 1 in lines for place, _ in found):
            self._refuse_signs(found)

    def _refuse_signs(self, found: Iterable[tuple[int, str]]) -> None:
        """These, each (place in the text, message), are the only mistakes."""
        spots = [(self.text.count("\n", 0, at) + 1, at - self.text.rfind("\n", 0, at), said) for at, said in found]
        self.problems = [Problem(file=self.file, line=n, column=at, message=said) for n, at, said in spots]

    def _look_for_refused(self) -> None:
        depth = documents = 0
        for event in _events(self.text):
            mark = event.start_mark
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1 and isinstance(event, yaml.DocumentStartEvent):
                self._refuse("is a second document; keep one storyboard in a file", mark)
            if isinstance(event, yaml.AliasEvent):
                self._refuse(f"alias *{event.anchor}; write the value out, {QUOTED}", mark)
            elif anchor := getattr(event, "anchor", None):
                self._refuse(f"anchor &{anchor}; storyboards have no anchors, remove it {QUOTED}", mark)
            if tag := getattr(event, "tag", None):
                self._refuse(f"tag {printable(tag)}; storyboards have no tags, remove it {QUOTED}", mark)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                return self._refuse(f"is nested more than {DEEPEST} deep", mark)

    def _convert(self, node: yaml.Node, wanted: Any, path: str, begin: int) -> Any:
        """A node as the plain value that `wanted`, a type annotation, asks for; its key or dash is at `begin`."""
        self.places.setdefault(path, _spot(node.start_mark))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, wanted, path)
        if isinstance(node, yaml.SequenceNode):
            if len(node.value) > LONGEST_LIST:
                self._refuse(f"holds {len(node.value)} items; at most {LONGEST_LIST} are read", node.start_mark, path)
                return ()
            dash = node.start_mark.column
            items = enumerate(node.value)
            return tuple(self._convert(item, inside(wanted, n), f"{path}[{n}]", dash) for n, item in items)
        assert isinstance(node, yaml.ScalarNode)
        return None if self._refuses_cut_off(node, wanted, path, begin) else self._scalar(node, wanted, path)

    def _mapping(self, node: yaml.MappingNode, wanted: Any, path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, mark = key.value, key.start_mark
            if not isinstance(key, yaml.ScalarNode):
                self._refuse("a key must be a plain word", mark, path)
                continue
            there, kind = f"{path}.{path_of([name])}" if path else path_of([name]), inside(wanted, name)
            if name == "<<" and not key.style:
                self._refuse("merge key '<<'; storyboards have no merges, write it out", mark, path)
            elif name in made:
                self._refuse(f"is given twice, first in line {lines[name]}; keep one", mark, there)
            else:
                if kind is Any:
                    self.places[there] = _spot(mark)
                lines[name] = mark.line + 1
                made[name] = self._convert(value, kind, there, mark.column)
        return made

    def _scalar(self, node: yaml.ScalarNode, wanted: Any, path: str) -> Any:
        plain = not node.style
        text = node.value.strip() if plain else node.value  # a no-break space at an end is a space
        if plain and text in ("", "~", "null", "Null", "NULL"):
            if wanted is not Any:
                self._refuse("is empty; give a value or remove the line", node.start_mark, path)
            return None
        if plain and text.casefold() in ("true", "false") and bool in kinds(wanted):
            return text.casefold() == "true"
        if not numeric(wanted) or len(text) > LONGEST_NUMBER:
            return text
        if NUMBER.fullmatch(text) and plain:
            return int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else float(text)
        if NUMBER.fullmatch(text):
            self._refuse("is text; remove the quotes", node.start_mark, path)
        for pattern, advice in ODD_NUMBERS if plain else ():
            if pattern.fullmatch(text):
                cure = re.sub(r"^([-+]?)0+(?=[0-9])", r"\1", text.replace("_", ""))
                self._refuse(f"{text} {advice.format(cure)}", node.start_mark, path)
        return text

    def _refuses_cut_off(self, node: yaml.ScalarNode, wanted: Any, path: str, begin: int) -> bool:
        """YAML takes ` #` and all after it for a comment, also in a line that goes on with a text.

        After a text that is meant to be read this is seldom meant, nor is it after a name where no space follows.
        """
        found = None if node.style or str not in kinds(wanted) else COMMENT.match(self.text, node.end_mark.index)
        if not found or (found["ends"] and found.start("cut") - found.end("ends") <= begin):
            return False
        if path.rpartition(".")[2] not in PROSE and found["cut"][1:2].isspace():
            return False
        advice = "put the whole text in quotes, or the comment in a line of its own, where keys begin"
        self._refuse(f"YAML cuts off {printable(found['cut'].rstrip())!r} as a comment; {advice}", node.end_mark, path)
        return True


def _spot(mark: yaml.Mark) -> tuple[int, int]:
    """Line and column, from 1."""
    return mark.line + 1, mark.column + 1


def _path_problems(data: dict[str, Any], folder: Path | None) -> Iterator[Problem]:
    """Files that a board names: inside its folder, and there."""
    if folder is None:
        return
    scenes = data.get("scenes")
    for index, scene in enumerate(scenes if isinstance(scenes, tuple) else ()):
        if isinstance(scene, dict):
            for name in ("image", "end_image"):
                yield from _inside(folder, scene.get(name), f"scenes[{index}].{name}")
            frames = scene.get("keyframes")
            for nth, frame in enumerate(frames if isinstance(frames, tuple) else ()):
                if isinstance(frame, dict):
                    yield from _inside(folder, frame.get("image"), f"scenes[{index}].keyframes[{nth}].image")
    yield from _inside(folder, data.get("image"), "image")
    yield from _inside(folder, data.get("audio"), "audio")
    name = data.get("profile", "auto")
    problems = [] if name in PROFILES else list(_inside(folder, name, "profile"))
    yield from problems
    if isinstance(name, str) and name.strip() and name not in PROFILES and not problems:
        try:  # its own mistakes
            parse_as(ProfileFields, read_text(folder / name), file=str(folder / name))
        except StoryboardError as error:
            yield from error.problems


def _inside(folder: Path, name: Any, path: str) -> Iterator[Problem]:
    if not isinstance(name, str) or not name.strip():
        return
    try:
        target = (folder / name).resolve()
        outside = leaves(name) or not target.is_relative_to(folder.resolve())
        wrong = "leaves the storyboard's folder; copy the file into it" if outside else refusal(target)
    except FileNotFoundError:
        cure = path_cure(name, folder / name)
        yield Problem(path=path, message=f"{printable(name)}: no such file beside the storyboard{cure}")
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error.args[-1]
        yield Problem(path=path, message=f"{name[:60]!r} is not a usable path ({printable(str(reason))})")
    else:
        if wrong:
            yield Problem(path=path, message=f"{printable(name)} {wrong}")
