"""A scene's settings: profile, explicit values, base scales, and what does not fit together."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import Problem
from ..relax.guidance import StepScales
from ..relax.profile import Profile, Relaxation, explicit_values, paper_profile, written
from ..storyboard import Relax, Scene, Storyboard
from ..storyboard.reader import parse_as, read_text
from .facts import ModelFacts

OVER = 0.95  # the paper finds beta 1 worse than none


def choose_profile(story: Storyboard, facts: ModelFacts) -> Profile:
    """`auto` is the model's own profile if it has one, else the paper's; anything else is a file beside the board."""
    paper = paper_profile(embedded=facts.embedded_guidance)
    if story.profile == "paper":
        return paper
    if story.profile == "auto":
        return facts.profile or paper
    file = story.resolve(story.profile)
    return parse_as(Profile, read_text(file), file=str(file))


def settle_profile(story: Storyboard, facts: ModelFacts) -> Storyboard:
    """The same film without its profile: what that says of a scene stands in the scene."""
    if story.profile == "paper":
        return story
    profile = choose_profile(story, facts)
    settled = [Relax(**written(relax_scene(scene, profile))) for scene in story.scenes]
    scenes = [s.model_copy(update={"relax": relax}) for s, relax in zip(story.scenes, settled, strict=True)]
    return story.changed(profile="paper", scenes=tuple(scenes))


def relax_scene(scene: Scene, profile: Profile) -> Relaxation:
    """The profile's settings at the scene's intensity, overruled by the scene's explicit values."""
    return replace(profile.relaxation(scene.intensity), **explicit_values(scene.relax))


def base_scales(scene: Scene, facts: ModelFacts) -> StepScales:
    """The scales at rest: the scene's `guidance`, else the model's."""
    own = scene.guidance
    return StepScales(embedded=own.embedded or facts.embedded, text=own.text or facts.text, context=1.0)


def setting_problems(story: Storyboard, relaxations: Sequence[Relaxation], facts: ModelFacts) -> Iterator[Problem]:
    """s_min above the base, or below what its target allows."""
    for index, (scene, relax) in enumerate(zip(story.scenes, relaxations, strict=True)):
        if relax.minimum is None:
            continue
        bases = vars(base_scales(scene, facts))
        for target in relax.target:
            low, base = 1.0 if target == "text" else 0.0, bases[target]
            if not low <= relax.minimum <= base:
                allowed = f"it must be between {low:g} and the base scale {base:g}"
                message = f"is {relax.minimum:g}; for target {target} {allowed}"
                yield Problem(path=f"scenes[{index}].relax.min", message=message)


def setting_warnings(story: Storyboard, relaxations: Sequence[Relaxation], facts: ModelFacts) -> Iterator[str]:
    """Settings that are allowed and seldom meant."""
    for scene, relax in zip(story.scenes, relaxations, strict=True):
        if relax.at_rest:
            continue
        if relax.beta < 0:
            yield f"scene {scene.id}: beta {relax.beta:g} boosts guidance instead of relaxing it"
        if relax.beta >= OVER and set(relax.target) - {"context"}:
            yield f"scene {scene.id}: beta {relax.beta:g} is over-relaxed; the paper's best is 0.75"
        if "embedded" in relax.target and not facts.embedded_guidance:
            yield f"scene {scene.id}: target embedded has no trained meaning on {facts.name}; use text or context"
        if "text" in relax.target and base_scales(scene, facts).text == 1:
            yield f"scene {scene.id}: target text does nothing at base scale 1; set guidance: {{text: 4}}"
