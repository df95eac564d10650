"""A scene's settings: profile, explicit values, base scales, and what does not fit together or beside the model."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from ..errors import Problem
from ..families.adapters import Fit
from ..families.base import Family, Size
from ..relax.guidance import INPUTS
from ..relax.profile import Profile, Relaxation, paper_profile, written
from ..storyboard import Relax, Scene, Storyboard
from ..storyboard.fields import exact_rate
from ..storyboard.meanings import suggest
from ..storyboard.messages import printable
from ..storyboard.reader import parse_as, read_text
from ..storyboard.schema import BLOCKS
from .ladder import asked_of, ladder_problems, written_out
from .lexicon import intensity_of
from .renderplan import SectionPlan

OVER = 0.95  # the paper finds beta 1 worse than none
FAR_SIZE = 2.0  # times the area or the aspect ratio that a model was made for, or one over it
MOST_SHOWN = 6  # scenes or shots named in a warning
SAME_SPEED = 0.01  # a difference in speed that nobody sees
# what official negative prompts push away from
PUSH = re.compile(
    r"\b(static|motionless|still (picture|image|frame))\b|静止|静态", re.IGNORECASE
)  # of negative prompts
UNGUIDED = "negative_prompt without effect at text scale 1; set guidance: {text: 4} or remove the line"
NEEDS: tuple[tuple[tuple[str, ...], str, Callable[[Relaxation], bool]], ...] = (
    (("interval",), "schedule: interval", lambda relax: relax.schedule == "interval"),
    (("blur_of", "scope", "space", "over_steps"), "a blur above 0", lambda relax: relax.blur > 0),
    (("history_gain_above", "gain_on"), "a history_gain other than 1", lambda relax: relax.history_gain != 1),
    (("lowpass_above",), "a lowpass below 1", lambda relax: relax.lowpass < 1),
    (("ramp",), "target: [context] and a beta above 0", lambda relax: "context" in relax.target and relax.beta > 0),
)  # fields of `relax` that say how something is done, and what must be done for them


Told = tuple[str, str]  # where, such as `scene calm`, and the warning


def choose_profile(story: Storyboard, family: Family) -> Profile:
    """`auto` is the model's own profile if it has one, else the paper's; anything else is a file beside the board."""
    if story.profile == "paper":
        return paper_of(family)
    if story.profile == "auto":
        return family.profile or paper_of(family)
    file = story.resolve(story.profile)
    check = family.configured(story).profile_problems
    return parse_as(Profile, read_text(file), file=str(file), check=check)


def paper_of(family: Family) -> Profile:
    """The paper's profile on this model."""
    return paper_profile(embedded=any(term.name == "embedded" and term.trained for term in family.terms))


def settle_profile(story: Storyboard, family: Family) -> Storyboard:
    """The same film without its profile: what that says of a scene stands in the scene."""
    if story.profile == "paper":
        return story
    profile = choose_profile(story, family)
    scenes = []
    for scene in story.scenes:
        relaxation = relax_scene(scene, profile)
        ensure = written_out(asked_of(story, scene, relaxation, profile))
        scenes.append(scene.model_copy(update={"relax": Relax(**written(relaxation)), "ensure": ensure}))
    return story.changed(profile="paper", scenes=tuple(scenes))


def relax_scene(scene: Scene, profile: Profile) -> Relaxation:
    """The profile's settings at the scene's intensity, overruled by the scene's explicit values."""
    return replace(profile.relaxation(intensity_of(scene)), **scene.relax.said)


def base_scales(story: Storyboard, scene: Scene, family: Family) -> dict[str, float]:
    """The scales at rest: the scene's `guidance`, else the board's, else the model's."""
    own = story.guidance_of(scene)
    return {term.name: own.get(term.name, own.get(term.like, term.base)) for term in family.terms}


def setting_problems(story: Storyboard, relaxations: Sequence[Relaxation], family: Family) -> Iterator[Problem]:
    """Settings of other families; terms, targets, scopes, effects, samplers, transitions that it has not; odd s_min."""
    if story.sampler and story.sampler not in family.samplers:
        message = f"{family.name} is not sampled with {story.sampler}; write {' or '.join(family.samplers)}"
        yield Problem(path="sampler", message=message)
    side = 2 * family.spatial
    if story.size and any(length % side for length in story.size):
        yield Problem(
            path="size", message=f"{family.name} takes multiples of {side} alone; {_nearest(story.size, side)}"
        )
    for kind in BLOCKS:
        if kind != family.kind and getattr(story, kind) is not None:
            yield Problem(path=kind, message=f"{family.name} is of another family, {family.kind}; remove these lines")
    yield from _guidance_problems("guidance", story.guidance.scales, family)
    yield from ladder_problems("ensure", story.ensure, family)
    for index, (scene, relax) in enumerate(zip(story.scenes, relaxations, strict=True)):
        place = f"scenes[{index}]"
        yield from ladder_problems(f"{place}.ensure", scene.ensure, family)
        if scene.ensure and relax.at_rest:
            fact = f"the scene is at rest at intensity {intensity_of(scene):g}, so that nothing lets go more"
            yield Problem(path=f"{place}.ensure", message=f"{fact}; give it a higher intensity or remove the lines")
        if scene.lock and not scene.take:
            cure = f"`framepack-relax pick STORY {scene.id}` writes that of what is rendered of it, or remove the line"
            yield Problem(path=f"{place}.lock", message=f"names no take to keep; {cure}")
        if relax.freeinit and story.start_of(scene):
            message = "begins from noise, and the scene from a draft; remove this line or `start_from`"
            yield Problem(path=f"{place}.relax.experimental.freeinit", message=message)
        yield from _guidance_problems(f"{place}.guidance", scene.guidance.scales, family)
        yield from family.relax_problems(f"{place}.relax.", scene.relax)
        if index and not family.grid.past and scene.transition != "cut":
            fact = f"{family.name} makes each scene on its own and cannot go on from another"
            yield Problem(path=f"{place}.transition", message=f"{fact}; write `transition: cut`")
        yield from _floor_problems(f"{place}.relax.min", relax, base_scales(story, scene, family), family)


def _nearest(size: Size, side: int) -> str:
    width, height = (max(side, round(length / side) * side) for length in size)
    return f"write [{width}, {height}]"


def _guidance_problems(place: str, names: Iterable[str], family: Family) -> Iterator[Problem]:
    known = [term.name for term in family.terms if not term.grip]
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


def _floor_problems(place: str, relax: Relaxation, bases: Mapping[str, float], family: Family) -> Iterator[Problem]:
    """s_min above the base, or below what its target allows."""
    for term in family.terms:
        low, base = term.lowest, bases[term.name]
        if relax.min is not None and term.name in relax.target and not low <= relax.min <= base:
            allowed = f"it must be between {low:g} and the base scale {base:g}"
            yield Problem(path=place, message=f"is {relax.min:g}; for target {term.name} {allowed}")


def plan_warnings(
    story: Storyboard,
    relaxations: Sequence[Relaxation],
    sections: Sequence[SectionPlan],
    family: Family,
    own: Size,
    shots: Sequence[tuple[float, int]],
    fits: Iterable[Fit],
) -> Iterator[str]:
    """What is allowed and seldom meant, or nothing comes of; `own` is the model's size, `shots` is for its `notes`."""
    yield from (fit.in_words for fit in fits if fit.left)
    if any(map(story.film.start_of, story.film.scenes)) and story.film is not story:
        yield "start_from is left out: a draft starts from noise"
    yield from _shape_warnings(story, family, own)
    yield from _gathered(_setting_warnings(story, relaxations, family))
    yield from _gathered(_past_warnings(sections, family))
    yield from _gathered(dict.fromkeys(_speed_warnings(story, sections)))
    yield from _gathered(family.notes(story, shots))


def _shape_warnings(story: Storyboard, family: Family, own: Size) -> Iterator[str]:
    """A size or a frame rate far from the model's own, `own` being its (width, height) px."""
    speed = float(exact_rate(story.fps or family.fps) / exact_rate(family.fps))
    if abs(speed - 1) > SAME_SPEED:
        fact = f"{family.name} makes motion of {family.fps:g} frames a second, so all moves {speed:.2g} times as fast"
        yield f"fps {story.fps:g}: {fact}; remove the line for true speed"
    width, height = story.film.size or own  # small drafts are meant
    like = family.own_size((width, height))
    area, aspect = width * height / (own[0] * own[1]), width * like[1] / (height * like[0])
    for times, what, (across, down) in ((area, "area", own), (aspect, "aspect ratio", like)):
        if not 1 / FAR_SIZE <= times <= FAR_SIZE:
            fact = f"{times:.2g} times the {what} of {across}x{down}, which {family.name} was made for"
            yield f"size {width}x{height}: {fact}; pictures may fall apart"


def _setting_warnings(story: Storyboard, relaxations: Sequence[Relaxation], family: Family) -> Iterator[Told]:
    """Settings that are allowed and seldom meant, or that nothing comes of."""
    unguided = [base_scales(story, scene, family).get("text", 1) == 1 for scene in story.scenes]
    if story.negative_prompt.strip() and all(unguided):
        yield "", UNGUIDED
    for scene, relax, alone in zip(story.scenes, relaxations, unguided, strict=True):
        pushed = PUSH.search(story.negative_of(scene)) if not alone and "text" in relax.target else None
        if pushed and relax.beta > 0 and not relax.at_rest:
            fact = f"the negative prompt names {pushed[0]!r}, and relaxing text relaxes that push away from it too"
            yield f"scene {scene.id}", f'{fact}; compare with negative_prompt: ""'
        for told in (*_odd(relax, family, unguided=alone), *_idle(scene, relax, unguided=alone)):
            yield f"scene {scene.id}", told


def _past_warnings(sections: Sequence[SectionPlan], family: Family) -> Iterator[Told]:
    """Scenes that loosen nothing but the grip of a past, and have none."""
    where = "before" if family.render_order(2)[0] == 0 else "after"
    pasts = {term.name for term in family.terms if term.of_past}
    others = [term.name for term in family.terms if term.name not in pasts and term.trained]
    cure = f"put a calm scene {where} it, or relax {' or '.join(others)} as well"
    for scene, group in groupby(sections, key=lambda section: section.scene):
        made = list(group)
        relax = made[0].relaxation
        alone = pasts.issuperset(relax.target) and not relax.at_rest and replace(relax, beta=0).at_rest
        if alone and all({*section.scales[name]} == {1.0} for section in made for name in relax.target):
            fact = f"target {' and '.join(relax.target)} does nothing where no past of the shot is rendered yet"
            yield f"scene {scene}", f"{fact}; {cure}"


def _speed_warnings(story: Storyboard, sections: Sequence[SectionPlan]) -> Iterator[Told]:
    """Scenes that ask for speed where their effects forbid it, or where it holds a scale."""
    speeds = {scene.id: scene.speed for scene in story.scenes}
    for section in sections:
        speed = speeds.get(section.scene) or "full"
        if "0" not in speed.replace("fast", "0"):
            continue
        changes = [a.effects != b.effects for steps in section.tables for a, b in pairwise(steps)]
        if changes and all(changes):
            fact = "speed spares nothing, for its effects change in every step, and such a step is computed"
            yield f"scene {section.scene}", f"{fact}; remove what changes them (over_steps: follow), or the line"
        elif section.relaxation.beta and set(section.relaxation.target).intersection(INPUTS):
            yield f"scene {section.scene}", "over the steps that speed spares an embedded scale stays as it was"


def _gathered(warnings: Iterable[Told]) -> Iterator[str]:
    """What holds of several places said once, with the first of them and the number of the others."""
    places: dict[str, list[str]] = {}
    for place, text in warnings:
        places.setdefault(text, []).append(place)
    for text, (first, *others) in places.items():
        more = [f"and {len(others) - MOST_SHOWN + 1} more"] if len(others) >= MOST_SHOWN else []
        shown = ", ".join([first, *(place.partition(" ")[2] for place in others[: MOST_SHOWN - 1]), *more])
        yield f"{shown}: {text}" if first else text


def _odd(relax: Relaxation, family: Family, *, unguided: bool) -> Iterator[str]:
    """What a relaxation does that is seldom meant; `unguided`: at text scale 1."""
    if relax.at_rest:
        return
    if relax.beta < 0:
        yield f"beta {relax.beta:g} boosts guidance instead of relaxing it"
    if relax.beta >= OVER and any(term.name in relax.target for term in family.terms if not term.grip):
        yield f"beta {relax.beta:g} is over-relaxed; the paper's best is 0.75"
    for term in family.terms:
        if term.name in relax.target and not term.trained:
            yield f"target {term.name} has no trained meaning on {family.name}; use text or context"
    if "text" in relax.target and unguided:
        yield "target text does nothing at base scale 1; set guidance: {text: 4}"


def _idle(scene: Scene, relax: Relaxation, *, unguided: bool) -> Iterator[str]:
    """What the scene itself sets and nothing comes of."""
    if (scene.negative_prompt or "").strip() and unguided:
        yield UNGUIDED
    for names, needed, at_work in NEEDS:
        idle = [name for name in names if name in scene.relax.said]
        if idle and not at_work(relax):
            yield f"{', '.join(idle)} without effect: needs {needed}; add that or remove the line"
