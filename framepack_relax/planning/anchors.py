"""Images that shots end on or come to on the way, on the grid of latent frames; and a film that goes on from another.

What a family cannot do is a located mistake that names the models which can.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import groupby

from ..errors import Problem, StoryboardError
from ..families.base import Anchor, Family, Role
from ..families.catalog import CATALOG
from ..storyboard import Storyboard
from ..storyboard.messages import printable
from ..storyboard.paths import path_cure, refusal
from .renderplan import SectionPlan

Asked = tuple[int, str, str, Role, float]  # scene, path in the file, image, role, seconds from the scene's beginning
CANNOT: dict[Role, str] = {"end": "cannot be told the image that a shot ends on", "key": "takes no images on the way"}


def opening_image(story: Storyboard) -> str | None:
    """The start image of the first shot; None where it has none, or goes on from a film."""
    return None if story.before else story.scenes[0].image or story.image


def asked_for(story: Storyboard) -> Iterator[Asked]:
    """What a board asks for, in the order of the film."""
    for index, scene in enumerate(story.scenes):
        for nth, key in enumerate(scene.keyframes or ()):
            yield index, f"scenes[{index}].keyframes[{nth}]", key.image, "key", key.at
        if scene.end_image:
            yield index, f"scenes[{index}].end_image", scene.end_image, "end", scene.seconds
    if story.loop and (image := opening_image(story)):
        yield len(story.scenes) - 1, "loop", image, "end", story.scenes[-1].seconds


def anchor_problems(story: Storyboard, family: Family) -> Iterator[Problem]:
    """Anchors that the family has not, or twice; a film that cannot be gone on from."""
    for _, path, _, role, _ in asked_for(story):
        if role not in family.anchors:
            yield Problem(path=path, message=f"{family.name} {CANNOT[role]}; remove the line, or {_others(role)}")
    if story.loop and story.scenes[-1].end_image:
        yield Problem(path="loop", message="ends the film on its first image, and the last scene on its end_image")
    if story.loop and not opening_image(story):
        fact = "the film begins with no image to end on"
        yield Problem(path="loop", message=f"{fact}; give it an `image:`, and no `from:`, or remove the line")
    yield from _film_problems(story, family) if story.before else ()


def _film_problems(story: Storyboard, family: Family) -> Iterator[Problem]:
    if not family.past_frames:
        still = "" if family.image == "refused" else "give its last frame as `image:`, or "
        yield Problem(path="from", message=f"{family.name} cannot go on from a film; {still}{_others(None)}")
    if family.size is None and story.size is None:
        yield Problem(path="from", message=f"{family.name} has no size of its own; write the film's: size: [.., ..]")
    if story.scenes[0].image:
        yield Problem(path="scenes[0].image", message="the first shot goes on from a film; remove this or `from:`")
    if story.image and not any(scene.transition == "cut" and not scene.image for scene in story.scenes[1:]):
        yield Problem(path="image", message="no shot begins with it: the first goes on from a film; remove one of both")
    assert story.before is not None
    there = story.resolve(story.before).absolute()
    try:
        wrong = refusal(there)
    except (OSError, ValueError):
        wrong = f"no such film; it was looked for as {there}{path_cure(story.before, there)}"
    if wrong:
        yield Problem(path="from", message=f"{printable(story.before)}: {wrong}")


def _others(role: Role | None) -> str:
    """Which models take such anchors; None: go on from a film."""
    known = [(name, entry.family) for name, entry in CATALOG.items() if entry.family]
    names = [name for name, family in known if (role in family.anchors if role else family.past_frames)]
    return f"take a model that can: {', '.join(names)}"


def anchored(
    story: Storyboard, family: Family, sections: Iterable[SectionPlan], rate: Fraction
) -> Iterator[SectionPlan]:
    """The sections with their anchors: each at the last frame of the latent frame of its scene that is nearest.

    Raises StoryboardError after the last where two come to one latent frame.
    """
    wanted, per = list(asked_for(story)), family.grid.unit_frames // family.grid.unit_latents
    problems: list[Problem] = []
    for index, (_, group) in enumerate(groupby(sections, key=lambda section: section.scene)):
        made = list(group)
        there = [(frame, n, k) for n, section in enumerate(made) for frame, k in _last_frames(section, per)]
        found: dict[tuple[int, int], Anchor] = {}
        for _, path, image, role, seconds in (asked for asked in wanted if asked[0] == index):
            first, last = made[0].frames[0], made[-1].frames[1] - 1
            at = last if role == "end" else first + math.floor(Fraction(repr(seconds)) * rate + Fraction(1, 2))
            frame, nth, latent = min(there, key=lambda each: abs(each[0] - at))
            if (nth, latent) in found:
                other = f"it comes to the same latent frame as {printable(found[nth, latent].image)}"
                problems.append(story.located(Problem(path=path, message=f"{other}; move one, or remove it")))
                continue
            comes = float((frame - first) / rate)
            found[nth, latent] = Anchor(latent=latent, image=image, role=role, asked=seconds, seconds=comes)
        for nth, section in enumerate(made):
            own = tuple(anchor for (where, _), anchor in sorted(found.items()) if where == nth)
            yield replace(section, anchors=own) if own else section
    if problems:
        raise StoryboardError(problems)


def _last_frames(section: SectionPlan, per: int) -> Sequence[tuple[int, int]]:
    """(the last frame, its place among those that are sampled) of each new latent frame of `per` frames."""
    first, end = section.frames
    return [(end - 1 - per * k, section.latents - 1 - k) for k in range((end - first) // per)]
