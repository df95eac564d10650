"""Mistakes of many things, told together: each once, at the place where it can be mended."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from ..errors import EvaluationError, Problem, StoryboardError

A = TypeVar("A")
B = TypeVar("B")


def try_all(work: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """`work` done on every item. Raises StoryboardError or EvaluationError with what is wrong with any of them."""
    made: list[B] = []
    problems: list[Problem] = []
    messages: list[str] = []
    for item in items:
        try:
            made.append(work(item))
        except StoryboardError as error:
            problems += error.problems
        except EvaluationError as error:
            messages.append(str(error))
    if problems:
        raise StoryboardError(list(dict.fromkeys(problems)))
    if messages:
        raise EvaluationError("\n".join(dict.fromkeys(messages)))
    return made


def told_at(located: Callable[[Problem], Problem], work: Callable[[], B]) -> B:
    """What `work` gives; the problems of its StoryboardError stand where `located` puts them."""
    try:
        return work()
    except StoryboardError as error:
        raise StoryboardError([located(problem) for problem in error.problems]) from error
