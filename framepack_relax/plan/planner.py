"""Storyboard -> RenderPlan. Every mistake that shows only beside the model is collected and raised at once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain

from ..errors import Problem, StoryboardError
from ..relax.guidance import StepScales
from ..relax.profile import Relaxation
from ..storyboard import Scene, Storyboard
from ..storyboard.images import ImageError, read_image
from ..storyboard.paths import path_cure
from ..storyboard.schema import exact_rate
from .facts import ModelFacts
from .grid import MOST_SECTIONS, SECTION_FRAMES, Size, fitting_seconds, nearest_bucket, snap
from .history import Order, render_order, slots
from .renderplan import RenderPlan, SceneTiming, SectionPlan, ShotPlan
from .schedule import FlowShift, ScaleTable, scale_table, sigma_table
from .seeds import section_seed, shot_seed
from .settings import (
    Told,
    base_scales,
    choose_profile,
    gathered,
    past_warnings,
    relax_scene,
    setting_problems,
    setting_warnings,
    shape_warnings,
)

MOST_SHOWN = 40  # scenes that are too short, told at once


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A run of scenes up to a hard cut, with its place in the film."""

    number: int
    scenes: tuple[Scene, ...]
    first_scene: int  # on the board
    counts: tuple[int, ...]  # sections of each scene
    first_section: int

    @property
    def sections(self) -> int:
        return sum(self.counts)

    def places(self) -> Iterator[tuple[int, Scene, range]]:
        """(scene's index on the board, scene, its sections counted within the shot)."""
        place = 0
        for nth, (scene, count) in enumerate(zip(self.scenes, self.counts, strict=True)):
            yield self.first_scene + nth, scene, range(place, place + count)
            place += count

    def span(self, places: range) -> tuple[int, int]:
        """Film-wide frames [first, end) of these sections; a shot's first section owns its extra frame."""
        before = SECTION_FRAMES * self.first_section + self.number
        return before + SECTION_FRAMES * places[0] + (places[0] > 0), before + SECTION_FRAMES * (places[-1] + 1) + 1


def make_plan(story: Storyboard, facts: ModelFacts) -> RenderPlan:
    """The film that `story` asks of a model with these facts.

    Raises StoryboardError with every mistake: scenes too short for a section, missing start images, settings that
    contradict one another, films of over 3,000 sections.
    """
    profile = choose_profile(story, facts)
    fps, order = story.fps or facts.fps, story.order or facts.order
    rate = exact_rate(fps)
    shots = split_shots(story, rate)
    relaxations = tuple(relax_scene(scene, profile) for scene in story.scenes)
    image_sizes, image_problems = _image_sizes(story, shots)
    problems = [
        *_timing_problems(shots, rate),
        *image_problems,
        *_decode_problems(story, order),
        *_noise_problems(story, shots),
        *setting_problems(story, relaxations, facts),
    ]
    if problems:
        located = [story.located(problem) for problem in problems]
        raise StoryboardError(sorted(located, key=lambda p: (p.line or 0, p.column or 0)))
    own_size = facts.size or nearest_bucket(*image_sizes[0])  # FramePack's own choice
    size = story.size or own_size
    sections = tuple(s for shot in shots for s in _plan_sections(story, facts, shot, relaxations, size, order))
    frames = shots[-1].span(range(shots[-1].sections))[1]
    return RenderPlan(
        title=story.title,
        model=facts.name,
        fps=fps,
        size=size,
        order=order,
        decode=story.decode or ("stream" if order == "forward" else "blend"),
        adain=story.adain,
        sampler=story.sampler,
        profile=profile.name,
        frames=frames,
        shots=tuple(_plan_shot(story, *each, order) for each in zip(shots, image_sizes, strict=True)),
        scenes=tuple(timing for shot in shots for timing in _time_scenes(shot, rate)),
        sections=sections,
        warnings=(
            *shape_warnings(story, facts, own_size),
            *gathered(setting_warnings(story, relaxations, facts)),
            *gathered(past_warnings(sections, order)),
            *gathered(_length_warnings(story, shots)),
        ),
    )


def split_shots(story: Storyboard, rate: Fraction) -> list[Shot]:
    """Scenes grouped by hard cuts and snapped to the grid, `rate` being frames per second."""
    runs = _runs(story)
    shots: list[Shot] = []
    scene = section = 0
    for number, (run, counts) in enumerate(zip(runs, snap(_seconds(runs), rate), strict=True)):
        shots.append(Shot(number=number, scenes=run, first_scene=scene, counts=tuple(counts), first_section=section))
        scene, section = scene + len(run), section + sum(counts)
    return shots


def _runs(story: Storyboard) -> list[tuple[Scene, ...]]:
    """The scenes of each shot."""
    starts = [i for i, scene in enumerate(story.scenes) if i == 0 or scene.transition == "cut"]
    return [story.scenes[first:end] for first, end in zip(starts, [*starts[1:], len(story.scenes)], strict=True)]


def _seconds(runs: Iterable[Sequence[Scene]]) -> list[list[float]]:
    return [[scene.seconds for scene in run] for run in runs]


def _plan_shot(story: Storyboard, shot: Shot, image_size: Size, order: Order) -> ShotPlan:
    opening = shot.scenes[0]
    return ShotPlan(
        index=shot.number,
        image=opening.image or story.image,
        image_size=image_size,
        seed=shot_seed(_seed(story, opening), opening.id),
        sections=tuple(shot.first_section + place for place in render_order(order, shot.sections)),
        frames=shot.span(range(shot.sections)),
    )


def _seed(story: Storyboard, scene: Scene) -> int:
    return story.seed if scene.seed is None else scene.seed


def _time_scenes(shot: Shot, rate: Fraction) -> Iterator[SceneTiming]:
    for _, scene, places in shot.places():
        frames = shot.span(places)
        yield SceneTiming(
            scene=scene.id,
            shot=shot.number,
            asked_seconds=scene.seconds,
            real_seconds=float((frames[1] - frames[0]) / rate),
            sections=tuple(shot.first_section + place for place in places),
            frames=frames,
        )


def _plan_sections(
    story: Storyboard, facts: ModelFacts, shot: Shot, relaxations: Sequence[Relaxation], size: Size, order: Order
) -> Iterator[SectionPlan]:
    seed, rendered = _seed(story, shot.scenes[0]), render_order(order, shot.sections)
    for index, scene, places in shot.places():
        relaxation = relaxations[index]
        noise = (scene.steps or story.steps, facts.shift, size, story.sampler)
        for nth, place in enumerate(places):
            history = slots(order, place, shot.sections)
            yield SectionPlan(
                index=shot.first_section + place,
                shot=shot.number,
                place=place,
                scene=scene.id,
                prompt=story.prompt_of(scene),
                negative_prompt=story.negative_of(scene),
                seed=seed if story.noise == "framepack" else section_seed(_seed(story, scene), scene.id, nth),
                draw=rendered.index(place) if story.noise == "framepack" else 0,
                frames=shot.span(range(place, place + 1)),
                intensity=scene.intensity,
                relaxation=relaxation,
                sigmas=_sigmas(*noise),
                scales=_scales(*noise, relaxation, base_scales(scene, facts), history.fresh),
                history=history,
            )


@lru_cache(maxsize=64)  # scenes share what is equal: 3,000 of 1,000 steps are 12 million figures otherwise
def _sigmas(steps: int, shift: FlowShift, size: Size, sampler: str) -> tuple[float, ...]:
    return tuple(sigma_table(steps, shift, *size, sampler=sampler).tolist())


@lru_cache(maxsize=64)
def _scales(
    steps: int, shift: FlowShift, size: Size, sampler: str, relaxation: Relaxation, base: StepScales, fresh: bool
) -> ScaleTable:
    return scale_table(relaxation, sigma_table(steps, shift, *size, sampler=sampler), base=base, fresh=fresh)


def _timing_problems(shots: Sequence[Shot], rate: Fraction) -> Iterator[Problem]:
    """Scenes to be made longer so that every scene of the board gets a section, with their seconds; too long films."""
    counts = [len(places) for shot in shots for _, _, places in shot.places()]
    asked = _seconds(shot.scenes for shot in shots)
    pairs = zip(chain.from_iterable(asked), chain.from_iterable(fitting_seconds(asked, rate)), strict=True)
    longer = [(index, seconds, fits) for index, (seconds, fits) in enumerate(pairs) if fits != seconds]
    grid = f"scenes end on a grid of {float(SECTION_FRAMES / rate):.4g} s"
    for index, seconds, fits in longer[:MOST_SHOWN]:
        why = (
            f"gets no section: {grid}"
            if not counts[index]
            else f"is too short as soon as scenes[{longer[0][0]}] gets one"
        )
        yield Problem(path=f"scenes[{index}].seconds", message=f"{seconds:g} s {why}; write {fits:g}")
    for index, seconds, _ in longer[MOST_SHOWN : MOST_SHOWN + 1]:
        others = f"is too short, and so are {len(longer) - MOST_SHOWN - 1} more scenes; mend those before it first"
        yield Problem(path=f"scenes[{index}].seconds", message=f"{seconds:g} s {others}")
    total = sum(shot.sections for shot in shots)
    if total > MOST_SECTIONS:
        message = f"the film has {total} sections; at most {MOST_SECTIONS} are planned: split the storyboard"
        yield Problem(path="scenes", message=message)


def _image_sizes(story: Storyboard, shots: Sequence[Shot]) -> tuple[list[Size], list[Problem]]:
    """(width, height) px of every shot's start image, and which are not there or cannot be read; each is read once."""
    read: dict[str, Size] = {}
    problems: list[Problem] = []
    for shot in shots:
        own = shot.scenes[0].image
        place = f"scenes[{shot.first_scene}]"
        path = f"{place}.image" if own or shot.number else "image"
        image = own or story.image
        if image is None:
            cure = "give the scene or the storyboard an `image:`"
            message = f"shot {shot.number + 1} has no start image and the model needs one: {cure}"
            problems.append(Problem(path=place, message=message))
        elif image not in read:
            read[image] = (1, 1)
            try:
                read[image] = read_image(story.resolve(image)).size
            except FileNotFoundError:
                message = (
                    f"{image}: no such file{path_cure(image)}; it was looked for as {story.resolve(image).absolute()}"
                )
                problems.append(Problem(path=path, message=message))
            except ImageError as error:
                problems.append(Problem(path=path, message=f"{image}: {error}"))
    return [read.get(shot.scenes[0].image or story.image or "", (1, 1)) for shot in shots], problems


def _decode_problems(story: Storyboard, order: Order) -> Iterator[Problem]:
    if story.decode == "stream" and order == "inverted":
        message = "stream needs forward order, and this film is rendered from its end; remove the line"
        yield Problem(path="decode", message=message)


def _noise_problems(story: Storyboard, shots: Sequence[Shot]) -> Iterator[Problem]:
    if story.noise == "framepack":
        for shot in shots:
            for index, scene, _ in list(shot.places())[1:]:
                if scene.seed is not None:
                    message = "noise: framepack draws a shot's noise from the seed of its first scene; remove the line"
                    yield Problem(path=f"scenes[{index}].seed", message=message)


def _length_warnings(story: Storyboard, shots: Sequence[Shot]) -> Iterator[Told]:
    """Shots that FramePack's programs, which round half to even at 30 frames a second, would give another length."""
    if story.noise == "framepack":
        for shot in shots:
            asked = sum(scene.seconds for scene in shot.scenes)
            theirs = max(1, round(asked * 30 / SECTION_FRAMES))
            if theirs != shot.sections:
                made = f"FramePack's programs make {theirs} sections, not {shot.sections}"
                yield f"shot {shot.number + 1}", f"of {asked:g} s {made}"
