"""What a board asks of a model that its family cannot do: each a mistake with its place and the cure."""

from collections.abc import Iterator, Sequence

from ..errors import Problem
from ..families.base import Family
from ..relax.profile import Relaxation
from ..storyboard import Storyboard
from ..storyboard.meanings import suggest

FIELDS = {"kv_blur": "blur", "key_gain": "bias", "low_pass": "lowpass"}  # of `relax`, by the effect that they ask for


def ability_problems(story: Storyboard, relaxations: Sequence[Relaxation], family: Family) -> Iterator[Problem]:
    """Guidance terms, targets, effects, samplers and transitions that the family has not."""
    names = [term.name for term in family.terms]
    settable = [term.name for term in family.terms if term.settable]
    if story.sampler and story.sampler not in family.samplers:
        message = f"{family.name} is not sampled with {story.sampler}; write {' or '.join(family.samplers)}"
        yield Problem(path="sampler", message=message)
    for index, (scene, relax) in enumerate(zip(story.scenes, relaxations, strict=True)):
        place = f"scenes[{index}]"
        for name in scene.guidance.model_dump(exclude_none=True):
            if name not in settable:
                message = f"{family.name} has no such guidance; {suggest(name, settable)}"
                yield Problem(path=f"{place}.guidance.{name}", message=message)
        for name in relax.target if not relax.at_rest else ():
            if name not in names:
                message = f"{family.name} has no restraint {name}; {suggest(name, names)}"
                yield Problem(path=f"{place}.relax.target", message=message)
        for effect, field in FIELDS.items():
            if effect not in family.effects and getattr(scene.relax, field) is not None:
                yield Problem(path=f"{place}.relax.{field}", message=f"{family.name} cannot do that; remove the line")
        if index and not family.grid.past and scene.transition == "continue":
            message = (
                f"{family.name} makes each scene on its own and cannot go on from another; write `transition: cut`"
            )
            yield Problem(path=f"{place}.transition", message=message)


def image_problem(family: Family, shot: int, image: str | None) -> str:
    """What is wrong with a shot's image, or with its having none; empty if nothing is."""
    if image is None and family.image == "required":
        return f"shot {shot + 1} has no start image and the model needs one: give the scene or the board an `image:`"
    if image is not None and family.image == "refused":
        return f"{family.name} makes films from words alone and takes no image; remove the line"
    return ""
