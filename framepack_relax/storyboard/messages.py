"""Turns pydantic's errors into our sentences: the fact, then the cure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import Problem, StoryboardError
from .annotations import at, bounds, branch, choices, kinds, mapping
from .meanings import BESIDE, bare, suggest, unknown_field
from .paths import odd_space

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Check = Callable[[T], Iterable[Problem]]
Places = Mapping[str, tuple[int, int] | str]  # of paths: line and column in the file, or the option that says it
MOST_PROBLEMS = 200  # told at once
SAID = {
    "json_invalid": "is not JSON: {error}",
    "missing": "is missing; add it",
    "value_error": "{error}",
    "finite_number": "is {value}; write a finite number",
    "too_long": "is too long: {actual_length} of at most {max_length}",
}  # by pydantic's kind of error
WANTED = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "string": "text", "tuple": "a list",
    "model": "a mapping of fields", "dict": "a mapping of fields", "missing_argument": "a list of the right length",
}  # fmt: skip  # by how pydantic's kind of error begins


def validated(model: type[M], data: Any, others: Sequence[Problem] = (), *, check: Check[M] = lambda made: ()) -> M:
    """`data` as `model`; raises StoryboardError with every mistake in it, without places, and with the `others`.

    What is made is given to `check`, which tells more of them.
    """
    try:
        made = model.model_validate(data)
        others = [*others, *check(made)]
    except ValidationError as error:
        others = [*explain(error, model), *others]
    if others:
        raise StoryboardError(others)
    return made


def locate(problem: Problem, file: str, places: Places) -> Problem:
    """The problem with the line and column of its path, or of the nearest mapping around it that is written."""
    path = problem.path
    while path and path not in places:
        path = path.rpartition("[" if path.endswith("]") else ".")[0]
    place = places.get(path, (None, None))
    if isinstance(place, str):
        return replace(problem, path=place)
    return replace(problem, file=file, line=place[0], column=place[1])


def field_of(path: str) -> str:
    """Of the board, in which `scenes[1].seconds` stands."""
    return path.partition(".")[0].partition("[")[0]


def located(problem: Problem, file: str, places: Places) -> Problem:
    """The same where the file, or an option, says the board's field that it is about; else as it is."""
    elsewhere = problem.path and field_of(problem.path) not in map(field_of, places)
    return problem if elsewhere else locate(problem, file, places)


def explain(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """One Problem per field, with the path `scenes[1].seconds`; of very many one more than are told."""
    problems: dict[tuple[int | str, ...], Problem] = {}
    for detail in error.errors(include_url=False):
        if len(problems) > MOST_PROBLEMS:
            break
        loc = _plain_loc(detail["loc"], model)
        if detail["type"] == "literal_error" and isinstance(detail["input"], Mapping) and mapping(at(model, loc)):
            continue  # the mapping that may stand there too has mistakes of its own
        if detail["type"] == "too_short" and detail["input"]:
            continue  # the items that are there have mistakes of their own
        if loc not in problems:
            problems[loc] = Problem(path=path_of(loc), message=_sentence(detail, loc, model))
    lists = {loc[:end] for loc in problems for end, part in enumerate(loc) if isinstance(part, int)}
    return [problem for loc, problem in problems.items() if loc not in lists]


def path_of(loc: Sequence[str | int]) -> str:
    """scenes[1].relax.beta"""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{printable(part)}" if text else printable(part)
    return text


def printable(text: str, most: int = 60) -> str:
    """A word of an untrusted file on one short line: quoted where it would not show, or would steer a terminal."""
    shown = text if text.isprintable() and text.strip() == text != "" else repr(text)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def _plain_loc(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[int | str, ...]:
    """Without the branch names that pydantic adds for unions."""
    plain: tuple[int | str, ...] = ()
    for part in loc:
        wanted = at(model, plain)
        if isinstance(part, int) or (mapping(wanted) and not branch(wanted, part)):
            plain += (part,)
    return plain


def _sentence(detail: ErrorDetails, loc: Sequence[str | int], model: type[BaseModel]) -> str:
    kind, value, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    wanted = at(model, loc)
    if kind in SAID:
        return SAID[kind].format(value=value, **context)
    if kind == "extra_forbidden":
        return f"unknown field; {unknown_field(str(loc[-1]), mapping(at(model, loc[:-1])), model)}"
    if kind.startswith(("greater", "less")):
        return f"is {_shown(value)}; must be {bounds(wanted)}"
    if kind == "too_short":
        return f"holds no {str(loc[-1]).removesuffix('s')}; add one"
    if kind == "string_too_long":
        return f"is too long: {len(value)} of at most {context['max_length']}"
    if isinstance(value, str) and (cure := odd_space(value)):
        return f"is {_shown(value)}; {cure}"
    known = [str(name) for name in choices(wanted)]
    known += [BESIDE[str(loc[-1])]] if loc and loc[-1] in BESIDE and mapping(wanted) else []
    if kind == "literal_error" or (known and value not in known and float not in kinds(wanted)):
        return f"is {_shown(value)}; {suggest(value if isinstance(value, str) else '', known)}"
    if kind == "string_type" and isinstance(value, (dict, list, tuple)):
        return f"is {_shown(value)}; write text, in quotes if it begins with {'{' if isinstance(value, dict) else '['}"
    sign = "{" if kind.startswith("model") else "[" if kind.startswith("tuple") else ""
    if loc and sign and (form := bare(str(loc[-1]), value, sign)):
        return f"is {_shown(value)}; write `{form}`"
    cure = "write " + next((text for name, text in WANTED.items() if kind.startswith(name)), "another value")
    if kind.startswith(("int", "float")) and (span := bounds(wanted)):
        cure += f" {span}"
    cure += "".join(f", or {name}" for name in known)
    return f"is {value if isinstance(value, float) else _shown(value)}; {cure}"


def _shown(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", tuple: "a list", type(None): "empty"}
    text = f"{value:.10g}" if isinstance(value, float) else kinds.get(type(value)) or repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
