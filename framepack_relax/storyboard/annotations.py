"""What a file's pydantic model says of a place in it: the type that is wanted there, its names, its bounds."""

import types
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

EXTRA = "__pydantic_extra__"  # where a mapping says what may stand under names of others


def kinds(annotation: Any) -> Iterator[Any]:
    """The members of a union, or the one annotation itself, and what is noted on it."""
    if get_origin(annotation) in (types.UnionType, Union, Annotated):
        for inner in get_args(annotation):
            yield from kinds(inner)
    else:
        yield annotation


def mapping(annotation: Any) -> type[BaseModel] | None:
    """The model of the mapping that is wanted; None where none is."""
    return next((kind for kind in kinds(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def inside(annotation: Any, part: str | int) -> Any:
    """What is wanted under a name of a mapping, or at a place of a list; Any where nothing is known."""
    model = mapping(annotation)
    if isinstance(part, int):
        for items in (get_args(kind) for kind in kinds(annotation) if get_origin(kind) in (list, tuple)):
            return items[0] if len(items) == 1 or items[-1] is ... else items[part] if part < len(items) else Any
    elif model and (field := next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)):
        return Annotated[field.annotation, field]
    elif model and model.model_config.get("extra") == "allow":
        noted = next(vars(base)["__annotations__"] for base in model.__mro__ if EXTRA in vars(base)["__annotations__"])
        return get_args(noted[EXTRA])[1]
    return Any


def at(model: Any, loc: Sequence[str | int]) -> Any:
    """What is wanted at a path in a file of this model."""
    return reduce(inside, loc, model)


def choices(annotation: Any) -> list[Any]:
    """The names and numbers that may stand there, if only some may."""
    return [value for kind in kinds(annotation) if get_origin(kind) is Literal for value in get_args(kind)]


def branch(annotation: Any, part: str) -> bool:
    """Whether that is pydantic's name of a word, or of a mapping, either of which may stand there."""
    found = mapping(annotation)
    return bool(found and choices(annotation)) and (part.startswith("literal[") or part == found.__name__)  # type: ignore


def bounds(annotation: Any) -> str:
    """Those of a number, in words; empty where it has not two."""
    noted = [fact for kind in kinds(annotation) for fact in getattr(kind, "metadata", ())]
    found = {name: getattr(fact, name) for fact in noted for name in ("gt", "ge", "le") if hasattr(fact, name)}
    if {"gt", "le"} <= found.keys():
        return f"above {found['gt']} and at most {found['le']}"
    return f"between {found['ge']} and {found['le']}" if {"ge", "le"} <= found.keys() else ""


def numeric(annotation: Any) -> bool:
    """Whether a number may stand there."""
    return not {int, float}.isdisjoint([*kinds(annotation), *map(type, choices(annotation))])
