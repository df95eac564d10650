"""Turns pydantic's errors into our sentences: the fact, then the cure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import Problem, StoryboardError
from .meanings import bare, suggest, unknown_field, walk
from .paths import odd_space

M = TypeVar("M", bound=BaseModel)
MOST_PROBLEMS = 200  # told at once
WANTED = {
    "bool": "write true or false",
    "int": "write a whole number",
    "float": "write a number",
    "string": "write text",
    "tuple": "write a list",
    "model": "write a mapping of fields",
    "dict": "write a mapping of fields",
    "missing_argument": "give a list of the right length",
}  # by how pydantic's kind of error begins


def validated(model: type[M], data: Any, others: Sequence[Problem] = ()) -> M:
    """`data` as `model`; raises StoryboardError with every mistake in it, without places, and with the `others`."""
    try:
        made = model.model_validate(data)
    except ValidationError as error:
        others = [*explain(error, model), *others]
    if others:
        raise StoryboardError(others)
    return made


def locate(problem: Problem, file: str, places: Mapping[str, tuple[int, int]]) -> Problem:
    """The problem with the line and column of its path, or of the nearest mapping around it that is written."""
    path = problem.path
    while path and path not in places:
        path = path.rpartition(".")[0] if "." in path else path.rpartition("[")[0]
    line, column = places.get(path, (None, None))
    return replace(problem, file=file, line=line, column=column)


def explain(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """One Problem per field, with the path `scenes[1].seconds`; of very many one more than are told."""
    problems: dict[tuple[int | str, ...], Problem] = {}
    for detail in error.errors(include_url=False):
        if len(problems) > MOST_PROBLEMS:
            break
        loc = _plain_loc(detail["loc"], model)
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
    shown = text if text and text.isprintable() else repr(text)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The mapping's model that a path leads to, None where the path leads to no mapping."""
    current: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part) if current else None
        inside = walk(field.annotation) if field else ()
        current = next((kind for kind in inside if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return current


def _plain_loc(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[int | str, ...]:
    """Without the branch names that pydantic adds for unions."""
    plain: list[int | str] = []
    for part in loc:
        inside = model_at(model, plain)
        if isinstance(part, int) or inside is not None or not plain:
            plain.append(part)
    return tuple(plain)


def _sentence(detail: ErrorDetails, loc: Sequence[str | int], model: type[BaseModel]) -> str:
    kind, value, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    names = [index for index, part in enumerate(loc) if isinstance(part, str)]
    owner = model_at(model, loc[: names[-1]]) if names else model
    if kind == "json_invalid":
        return f"is not JSON: {context['error']}"
    if kind == "missing":
        return "is missing; add it"
    if kind == "extra_forbidden":
        return f"unknown field; {unknown_field(str(loc[-1]), owner, model)}"
    if kind == "value_error":
        return str(context["error"])
    if kind.startswith(("greater", "less")) and owner:
        return f"is {_shown(value)}; must be {_range(owner, loc[names[-1] :])}"
    if kind == "finite_number":
        return f"is {value}; write a finite number"
    if kind == "too_short":
        return f"holds no {str(loc[-1]).removesuffix('s')}; add one"
    if kind in ("too_long", "string_too_long"):
        return f"is too long: {context.get('actual_length', len(str(value)))} of at most {context.get('max_length')}"
    if isinstance(value, str) and (cure := odd_space(value)):
        return f"is {_shown(value)}; {cure}"
    known = choices(owner, loc)
    if kind == "literal_error" or (known and value not in known):
        return f"is {_shown(value)}; {suggest(value if isinstance(value, str) else '', known)}"
    if kind == "string_type" and isinstance(value, (dict, list, tuple)):
        return f"is {_shown(value)}; write text, in quotes if it begins with {'{' if isinstance(value, dict) else '['}"
    sign = "{" if kind.startswith("model") else "[" if kind.startswith("tuple") else ""
    if loc and sign and (form := bare(str(loc[-1]), value, sign)):
        return f"is {_shown(value)}; write `{form}`"
    wanted = next((text for name, text in WANTED.items() if kind.startswith(name)), "write another value")
    if kind.startswith(("int", "float")) and owner and (span := _range(owner, loc[names[-1] :])):
        wanted += f" {span}"
    return f"is {value if isinstance(value, float) else _shown(value)}; {wanted}"


def choices(owner: type[BaseModel] | None, loc: Sequence[str | int]) -> list[str]:
    """The names that a field accepts, if it accepts names."""
    names = [part for part in loc if isinstance(part, str)]
    field = owner.model_fields.get(names[-1]) if owner and names else None
    kinds = walk(field.annotation) if field else ()
    return [str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]


def _range(owner: type[BaseModel], loc: Sequence[str | int]) -> str:
    """The bounds of a number in words, by its field's schema: `loc` is the field and the places in its lists."""
    parts = _branches(_properties(owner)[str(loc[0])])
    for index in loc[1:]:
        lists = [part for part in parts if part.get("type") == "array"]
        inner = [part["prefixItems"][int(index)] if "prefixItems" in part else part["items"] for part in lists]
        parts = [branch for part in inner for branch in _branches(part)]
    found = next((part for part in parts if "maximum" in part), None)
    if found is None:
        return ""
    if "exclusiveMinimum" in found:
        return f"above {_shown(found['exclusiveMinimum'])} and at most {_shown(found['maximum'])}"
    return f"between {_shown(found['minimum'])} and {_shown(found['maximum'])}"


def _branches(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema, *schema.get("anyOf", [])]


@cache
def _properties(owner: type[BaseModel]) -> dict[str, Any]:
    return owner.model_json_schema()["properties"]


def _shown(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", tuple: "a list", type(None): "empty"}
    text = f"{value:.10g}" if isinstance(value, float) else kinds.get(type(value)) or repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
