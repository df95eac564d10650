"""Draft, accept, final: the film small and in few steps; then the same from the draft's latents, with fewer to go."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..errors import Problem
from ..families.base import Family, Size, Step
from ..storyboard import Storyboard

FEWER, SMALLER = 3, 2  # a draft has a third of the steps, and half the size each way
FEWEST = 4  # steps that are left at least: a single one makes a picture of one colour
DRAFT = ".draft"  # behind the name of its film: no board is called so
LEAST = 4  # tokens each way that are left at least: with three the packaged model's figures fall apart (LOG.md)


def as_draft(story: Storyboard, family: Family, size: Size) -> Storyboard:
    """The same film for a first look, from noise whatever it says and all anew: its takes are of another size, so that
    no lock holds; `size` is (width, height) px of the film itself."""
    side = 2 * family.spatial
    width, height = (max(round(length / SMALLER / side) * side, min(LEAST * side, length)) for length in size)
    own = [{"steps": scene.steps and _fewer(scene.steps), "start_from": None, "lock": False} for scene in story.scenes]
    scenes = tuple(scene.model_copy(update=said) for scene, said in zip(story.scenes, own, strict=True))
    few = {"steps": _fewer(story.steps), "speed": "fast", "start_from": None}
    return story.changed(size=(width, height), scenes=scenes, **few).draft_of(story)


def _fewer(steps: int) -> int:
    return max(-(-steps // FEWER), min(steps, FEWEST))


def begun(rows: Sequence[Step], strength: float) -> tuple[Step, ...]:
    """A section's rows from the first on whose sigma is at most `strength`, else the last; that one reuses nothing."""
    late = [row for row in rows if round(row.sigma, 6) <= strength] or rows[-1:]  # tables are float32
    return replace(late[0], reused=None), *late[1:]


def start_problems(story: Storyboard, family: Family, size: Size, sampler: str) -> Iterable[Problem]:
    """A board that names no draft to start from; scenes that start below all noise levels."""
    return dict.fromkeys(_start_problems(story, family, size, sampler))


def _start_problems(story: Storyboard, family: Family, size: Size, sampler: str) -> Iterator[Problem]:
    if (start := story.start_from) and not start.folder and start.strength != 1:
        yield Problem(
            path="start_from", message="names no draft; add `folder:`, into which `render --draft` has put it"
        )
    for index, scene in enumerate(story.scenes):
        steps, start = scene.steps or story.steps, story.start_of(scene)
        lowest = min(round(sigma, 6) for sigma, _ in family.levels(steps, size, sampler)) if start else 0
        if start and start.strength and start.strength < lowest:
            own = scene.start_from and scene.start_from.strength is not None
            place = f"scenes[{index}].start_from" if own else "start_from"
            fact = f"is {start.strength:g}, and the last of {steps} steps begins at sigma {lowest:.3g}"
            yield Problem(path=f"{place}.strength", message=f"{fact}; write more, or give the film more steps")
