"""Takes of a scene as work for a farm's workers."""

from dataclasses import dataclass, fields, replace
from typing import Any

from ..rendering.events import Event, Hear
from ..rendering.retake import render_takes
from ..rendering.takes import scene_number
from .executor import Models
from .films import Film, ShotUnit

SUFFIX = ".takes"  # behind the film's name


@dataclass(frozen=True, kw_only=True)
class TakesUnit(ShotUnit):
    """Its job is the scene's shot."""

    scene: str
    count: int

    def run(self, models: Models, tell: Hear) -> None:
        session = self.job.session
        given: dict[str, Any] = {"model": models.get(self.job.loading), "options": session.options, "on_event": tell}
        made = render_takes(session.story, self.scene, self.count, out=session.out, **given)
        tell(Event(kind="film", text=str(made.contact)))


@dataclass(frozen=True, kw_only=True)
class TakesOf(Film):
    """A film of which so many takes of a scene besides its own are wanted; they lie in its folder."""

    scene: str
    count: int

    def units(self) -> list[ShotUnit]:
        jobs = self.jobs()
        shot = jobs[0].session.plan.scenes[scene_number(self.story, self.scene)].shot
        return [TakesUnit(film=self.name, job=jobs[shot], scene=self.scene, count=self.count)]


def takes_of(film: Film, scene: str, count: int) -> TakesOf:
    """What renders takes of a planned film. Raises RenderError for a scene that is not on its board."""
    scene_number(film.story, scene)
    own = {field.name: getattr(film, field.name) for field in fields(Film)}
    return replace(TakesOf(**own, scene=scene, count=count), name=f"{film.name}{SUFFIX}", whole=False)
