"""What a sweep compares: arms, the settings of each, in the words of a storyboard, on the same films.

A film is a calm scene and then one in which something happens; the arm acts on the second. Seeds are paired: every
arm renders every scene from the same noise after the same calm sections.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ..errors import Problem, StoryboardError
from ..storyboard import Guidance, Relax, Scene, Storyboard, storyboard_from_scenes
from ..storyboard.fields import ONE, Beta, Intensity, Power, Seed, Steps, Words
from ..storyboard.messages import locate, printable, validated
from ..storyboard.part import Part
from ..storyboard.paths import expand
from ..storyboard.reader import Reading, read_text
from ..storyboard.schema import Emphasis, Ensure, Written
from .evaluation import Instruments
from .mistakes import told_at, try_all

READY = Path(__file__).parent / "specs"
QUICK_SCENES, QUICK_STEPS = 2, 0.5  # of --quick: the first scenes, one seed, this share of the steps
FILLED = ("{who}", "{where}")  # in prompts, from each start


def _filled_alone(prompt: str) -> str:
    if odd := [printable(found) for found in re.findall(r"\{[^{}]*\}", prompt) if found not in FILLED]:
        raise ValueError(f"holds {', '.join(odd)}; starts fill in {' and '.join(FILLED)} alone")
    return prompt


def _ids_differ(parts: "tuple[Event | Arm, ...]") -> "tuple[Event | Arm, ...]":
    ids = [one.id for part in parts for one in (part.cells() if isinstance(part, Arm) else [part])]
    if twice := [repr(name) for name, count in Counter(ids).items() if count > 1]:
        raise ValueError(f"more than one is called {', '.join(twice)}; ids must differ")
    return parts


Prompt = Annotated[Words, AfterValidator(_filled_alone)]
IDS_DIFFER = AfterValidator(_ids_differ)


class Start(Part):
    """Where a film begins: `who` and `where` stand for {who} and {where} in the prompts."""

    image: Words | None = Field(
        None, description="start image, relative to the file; default: the film begins with words"
    )
    who: Words = Field(description="a red figure")
    where: Words = Field(description="on the beach")

    def said(self, prompt: str) -> str:
        return prompt.replace("{who}", self.who).replace("{where}", self.where)


class Event(Part):
    """What should happen after the calm."""

    id: Words
    prompt: Prompt = Field(description="with {who} and {where}")
    words: Words | None = Field(None, description="of the prompt, those that an arm's emphasis acts on; default: all")
    target: Annotated[tuple[Words, ...], ONE] = Field(
        (), description="labels of the action judge for it: one, or several of which one must be seen"
    )


class Grid(Part):
    """Every combination of these values is an arm of its own."""

    intensity: tuple[Intensity, ...] = ()
    beta: tuple[Beta, ...] = ()
    p: tuple[Power, ...] = ()
    blur: tuple[Annotated[float, Field(ge=0, le=8)], ...] = ()
    scope: tuple[str, ...] = ()


class Arm(Part):
    """Settings under a name; `relax`, `guidance`, `ensure`, `negative_prompt` as a scene of a storyboard has them."""

    id: Words
    intensity: float = Field(1.0, ge=0, le=1)
    relax: Relax = Relax()
    guidance: Guidance = Guidance()
    ensure: Ensure | None = Field(None, description="`action: true` asks for the event's target, where it has one")
    negative_prompt: Prompt | None = Field(None, description="with {who} and {where}; default: none")
    emphasis: float | None = Field(None, gt=0, le=4, description="gain of the event's words; 1 is off")
    grid: Grid = Grid()

    def cells(self) -> Iterator["Arm"]:
        """The arm itself, or one for each combination of the grid's values, named by them."""
        axes = {name: values for name, values in self.grid if values}
        for combination in product(*axes.values()):
            chosen = dict(zip(axes, combination, strict=True))
            name = " ".join([self.id, *(f"{axis} {value}" for axis, value in chosen.items())])
            intensity = chosen.pop("intensity", self.intensity)
            relax = self.relax.model_copy(update=chosen)
            yield self.model_copy(update={"id": name, "intensity": intensity, "relax": relax, "grid": Grid()})


class Sweep(Written):
    """A comparison of arms; the first is what the others are held against."""

    version: Literal[1] = 1
    title: Words
    model: Words = "puppet"
    profile: Words = Field("paper", description="what an arm's intensity means, before its own values")
    seeds: int = Field(8, ge=1, le=10_000, description="how many; seed k begins at start k")
    first_seed: Seed = 0
    steps: Steps = 25
    sampler: Literal["unipc", "euler"] = "unipc"
    size: tuple[int, int] | None = None
    calm: Prompt = "{who} stands still {where}"
    calm_seconds: float = Field(2.4, ge=0, le=3600)
    seconds: float = Field(2.4, gt=0, le=3600)
    starts: Annotated[tuple[Start, ...], Field(min_length=1)]
    scenes: Annotated[tuple[Event, ...], Field(min_length=1), IDS_DIFFER]
    arms: Annotated[tuple[Arm, ...], Field(min_length=1), IDS_DIFFER]

    def quick(self) -> "Sweep":
        """The same arms on one seed, the first scenes and fewer steps: to see that it works, not to conclude from."""
        few = {"seeds": 1, "steps": max(1, round(QUICK_STEPS * self.steps)), "scenes": self.scenes[:QUICK_SCENES]}
        return self.model_copy(update=few)

    def located(self, problem: Problem, *, paths: Mapping[str, str]) -> Problem:
        """A mistake of a film's storyboard at its place in this file: by how a path begins, how it begins here."""
        if problem.file:  # another's: the profile's
            return problem
        begins = next((begins for begins in paths if problem.path.startswith(begins)), "")
        path = paths.get(begins, "") + problem.path.removeprefix(begins)
        return locate(replace(problem, path=path), self._file, self._places)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One film of a sweep."""

    arm: Arm
    event: Event
    seed: int
    story: Storyboard
    calms: tuple[str, ...]  # what stands still where: the film's own start, then the sweep's others
    located: Callable[[Problem], Problem]  # a mistake of the story at its place in the sweep's file

    @property
    def columns(self) -> dict[str, Any]:
        """Which film it is, in its row."""
        return {"arm": self.arm.id, "scene": self.event.id, "seed": self.seed}

    def targets(self, instruments: Instruments) -> list[str]:
        """The event's labels that the action judge has. Raises EvaluationError if it has none of them."""
        judge = instruments.action
        if judge is None or not self.event.target:
            return []
        known = [label for label in self.event.target if label.casefold() in map(str.casefold, judge.labels)]
        return known or [judge.known(self.event.target[0])]


def read_sweep(name: str) -> Sweep:
    """A ready sweep by its name, or a YAML file. Raises StoryboardError."""
    ready = {file.stem: file for file in sorted(READY.glob("*.yaml"))}
    file = ready.get(name, expand(name))
    if not os.path.lexists(file):
        message = f"no such file, and no sweep that comes along; those are {', '.join(ready)}"
        raise StoryboardError([Problem(file=name, message=message)])
    reading = Reading(str(file), read_text(file))
    sweep = reading.checked(Sweep, partial(validated, Sweep))
    return sweep.placed(str(file), file.resolve().parent, reading.places)


def jobs(sweep: Sweep) -> list[Job]:
    """Every film: all arms of a seed before the next seed, so that a sweep that is stopped can be compared.

    Raises StoryboardError with every mistake.
    """
    cells = [(index, cell) for index, arm in enumerate(sweep.arms) for cell in arm.cells()]
    films = product(range(sweep.seeds), range(len(sweep.scenes)), cells)
    return try_all(lambda film: _job(sweep, *film), films)


def _job(sweep: Sweep, number: int, scene: int, cell: tuple[int, Arm]) -> Job:
    """The film of a seed, a scene and an arm, all three by their places in the sweep."""
    (nth, arm), begin, event = cell, number % len(sweep.starts), sweep.scenes[scene]
    start, seed = sweep.starts[begin], sweep.first_seed + number
    act = "scenes[1]" if sweep.calm_seconds else "scenes[0]"
    paths = {"scenes[0].prompt": "calm", "scenes[0].seconds": "calm_seconds", "image": f"starts[{begin}].image"}
    paths |= {f"{act}.prompt": f"scenes[{scene}].prompt", f"{act}.seconds": "seconds"}
    paths |= {f"{act}.emphasis[0].words": f"scenes[{scene}].words"}
    paths |= {"scenes[0]": f"starts[{begin}]"} | {act: f"arms[{nth}]", "scenes": "seconds"}
    located = partial(sweep.located, paths=paths)
    story = told_at(located, partial(_story, sweep, start, event, arm, seed))
    calms = tuple(dict.fromkeys(other.said(sweep.calm) for other in (start, *sweep.starts)))
    return Job(arm=arm, event=event, seed=seed, story=story, calms=calms, located=located)


def _story(sweep: Sweep, start: Start, event: Event, arm: Arm, seed: int) -> Storyboard:
    calm = start.said(sweep.calm)
    scenes = [Scene(id="calm", prompt=calm, seconds=sweep.calm_seconds)] if sweep.calm_seconds else []
    act: dict[str, Any] = {name: getattr(arm, name) for name in ("intensity", "relax", "guidance", "ensure")}
    prompt = start.said(event.prompt)
    if arm.negative_prompt:
        act["negative_prompt"] = start.said(arm.negative_prompt)
    if arm.ensure and arm.ensure.action is True and event.target:
        act["ensure"] = arm.ensure.model_copy(update={"action": event.target})
    if arm.emphasis:
        act["emphasis"] = (Emphasis(words=event.words or prompt, gain=arm.emphasis),)
    scenes.append(Scene(id="act", prompt=prompt, seconds=sweep.seconds, **act))
    story = storyboard_from_scenes(
        scenes, title=f"{arm.id}: {event.id}", model=sweep.model, profile=sweep.profile, seed=seed, steps=sweep.steps,
        sampler=sweep.sampler, size=sweep.size, image=start.image,
    )  # fmt: skip
    return story.placed("", sweep._folder, {})
