"""What a board asks of a model that its family cannot do: each a mistake with its place and the cure."""

from collections.abc import Iterable, Iterator

from ..errors import Problem
from ..families.base import Family
from ..storyboard import Storyboard
from ..storyboard.meanings import suggest
from ..storyboard.messages import printable
from ..storyboard.schema import BLOCKS


def ability_problems(story: Storyboard, family: Family) -> Iterator[Problem]:
    """Settings of other families; guidance terms, targets, scopes, effects, samplers, transitions that it has not."""
    if story.sampler and story.sampler not in family.samplers:
        message = f"{family.name} is not sampled with {story.sampler}; write {' or '.join(family.samplers)}"
        yield Problem(path="sampler", message=message)
    for kind in BLOCKS:
        if kind != family.kind and getattr(story, kind) is not None:
            yield Problem(path=kind, message=f"{family.name} is of another family, {family.kind}; remove these lines")
    yield from _guidance_problems("guidance", story.guidance.scales, family)
    for index, scene in enumerate(story.scenes):
        place = f"scenes[{index}]"
        yield from _guidance_problems(f"{place}.guidance", scene.guidance.scales, family)
        yield from family.relax_problems(f"{place}.relax.", scene.relax)
        if index and not family.grid.past and scene.transition == "continue":
            message = (
                f"{family.name} makes each scene on its own and cannot go on from another; write `transition: cut`"
            )
            yield Problem(path=f"{place}.transition", message=message)


def _guidance_problems(place: str, names: Iterable[str], family: Family) -> Iterator[Problem]:
    known = [term.name for term in family.terms if term.settable]
    for name in names:
        if name not in known:
            message = f"{family.name} has no such guidance; {suggest(name, known)}"
            yield Problem(path=f"{place}.{printable(name)}", message=message)


def image_problem(family: Family, shot: int, image: str | None) -> str:
    """What is wrong with a shot's image, or with its having none; empty if nothing is."""
    if image is None and family.image == "required":
        return f"shot {shot + 1} has no start image and the model needs one: give the scene or the board an `image:`"
    if image is not None and family.image == "refused":
        return f"{family.name} makes films from words alone and takes no image; remove the line"
    return ""
