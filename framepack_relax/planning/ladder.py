"""What a section of an ensured scene may be sampled with, from least to most letting go."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from ..errors import Problem
from ..families.base import Family, Step
from ..relax.profile import Profile, Relaxation, written
from ..storyboard import Relax, Scene, Storyboard
from ..storyboard.schema import Ensure
from ..storyboard.schema import Rung as SaidRung
from .lexicon import intensity_of
from .renderplan import Ensured, Rung

Settings = tuple[Relaxation, float]  # and how many times its base scales
Asked = tuple[Ensure, list[Settings]]


def asked_of(story: Storyboard, scene: Scene, relaxation: Relaxation, profile: Profile) -> Asked | None:
    """What ensures a scene: its own, else the board's unless it is at rest; and its ladder.

    The last rung is the scene's own, this `relaxation`. A ladder that is written out is taken as it is; what comes of a
    profile's points and levels is overruled by the scene's explicit values, as its own settings are.
    """
    ensure = scene.ensure or (None if relaxation.at_rest else story.ensure)
    if ensure is None:
        return None
    own, said = (relaxation, 1.0), profile.ladder if ensure.ladder is None else ensure.ladder
    if said is None:
        usual = profile.below(intensity_of(scene))
        before = [(relax if relax.at_rest else replace(relax, **scene.relax.said), 1.0) for relax in usual]
    else:
        before = [(profile.resting(rung.relax), rung.guidance) for rung in said]
    return ensure, [*dict.fromkeys(settings for settings in before if settings != own), own]


def written_out(asked: Asked | None) -> Ensure | None:
    """The same with its ladder written out, which no profile is needed for."""
    if asked is None:
        return None
    ensure, rungs = asked
    before = tuple(SaidRung(guidance=factor, relax=Relax(**written(relax))) for relax, factor in rungs[:-1])
    return ensure.model_copy(update={"ladder": before})


def plan_ensured(asked: Asked | None, rows: Callable[[Relaxation, float], tuple[Step, ...]]) -> Ensured | None:
    """With the steps of each rung, less those that come to the same as a later one."""
    if asked is None:
        return None
    (ensure, rungs), kept = asked, list[Rung]()
    for relax, factor in rungs:
        made = Rung(relaxation=relax, guidance=factor, steps=rows(relax, factor))
        kept = [*(rung for rung in kept if rung.steps != made.steps), made]
    return Ensured(motion=ensure.motion, action=ensure.action, tries=min(ensure.tries, len(kept)), rungs=tuple(kept))


def ladder_problems(place: str, ensure: Ensure | None, family: Family) -> Iterator[Problem]:
    """What a ladder that is written out asks for that the model has not."""
    for nth, rung in enumerate((ensure and ensure.ladder) or ()):
        yield from family.relax_problems(f"{place}.ladder[{nth}].relax.", rung.relax)


def stronger(scales: Mapping[str, float], factor: float, family: Family) -> dict[str, float]:
    """Base scales so many times as strong, those that act."""
    grips = {term.name for term in family.terms if term.grip}
    return {name: value if value == 1 or name in grips else value * factor for name, value in scales.items()}
