"""Storyboard -> RenderPlan. Every mistake that shows only beside the model is collected and raised at once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache, partial
from itertools import accumulate, chain

from ..errors import Problem, StoryboardError
from ..families.base import Family, Size, Step, TimeGrid
from ..relax.profile import Relaxation
from ..storyboard import Scene, Storyboard
from ..storyboard.images import ImageError, read_image
from ..storyboard.paths import path_cure
from ..storyboard.schema import exact_rate
from .grid import MOST_SECTIONS, fitting_seconds, snap, split
from .renderplan import RenderPlan, SceneTiming, SectionPlan, ShotPlan, stable_seed
from .schedule import plan_steps
from .settings import (
    ability_problems,
    base_scales,
    choose_profile,
    gathered,
    image_problem,
    past_warnings,
    relax_scene,
    setting_problems,
    setting_warnings,
    shape_warnings,
)

Rows = tuple[Step, ...]
MOST_SHOWN = 40  # scenes that are too short, told at once


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A run of scenes up to a hard cut, with its place in the film."""

    number: int
    scenes: tuple[Scene, ...]
    first_scene: int  # on the board
    units: tuple[tuple[int, ...], ...]  # of each section of each scene
    first_section: int
    first_frame: int
    grid: TimeGrid

    @property
    def sections(self) -> int:
        return sum(map(len, self.units))

    def places(self) -> Iterator[tuple[int, Scene, range]]:
        """(scene's index on the board, scene, its sections counted within the shot)."""
        place = 0
        for nth, (scene, units) in enumerate(zip(self.scenes, self.units, strict=True)):
            yield self.first_scene + nth, scene, range(place, place + len(units))
            place += len(units)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Units of each section."""
        return tuple(chain.from_iterable(self.units))

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Film-wide frames at which sections begin, and the shot's end; the first section owns the lead frames."""
        ends, grid = accumulate(self.lengths), self.grid
        return self.first_frame, *(self.first_frame + end * grid.unit_frames + grid.lead_frames for end in ends)

    def span(self, places: range) -> tuple[int, int]:
        """Film-wide frames [first, end) of these sections."""
        return self.edges[places[0]], self.edges[places[-1] + 1]

    def latents(self, place: int) -> int:
        """Latent frames that the section at this place samples."""
        return self.grid.latents(self.lengths[place], first=place == 0)


def make_plan(story: Storyboard, model: Family) -> RenderPlan:
    """The film that `story` asks of a model.

    Raises StoryboardError with every mistake: scenes too short for a section, missing start images, settings that
    contradict one another, films of over 3,000 sections.
    """
    family = model.configured(story)
    profile = choose_profile(story, family)
    fps = story.fps or family.fps
    rate = exact_rate(fps)
    shots = split_shots(story, rate, family.grid)
    relaxations = tuple(relax_scene(scene, profile) for scene in story.scenes)
    image_sizes, image_problems = _image_sizes(story, shots, family)
    problems = [
        *_timing_problems(shots, rate, family.grid),
        *image_problems,
        *family.problems(story),
        *ability_problems(story, family),
        *_noise_problems(story, shots),
        *setting_problems(story, relaxations, family),
    ]
    if problems:
        located = [story.located(problem) for problem in problems]
        raise StoryboardError(sorted(located, key=lambda p: (p.line or 0, p.column or 0)))
    own_size = family.own_size(image_sizes[0])
    size = story.size or own_size
    sampler = story.sampler or family.samplers[0]
    # scenes share what is equal: 3,000 of 1,000 steps are 12 million figures otherwise
    rows = lru_cache(maxsize=64)(partial(plan_steps, family, size, sampler))
    sections = tuple(s for shot in shots for s in _plan_sections(story, family, shot, relaxations, rows))
    return RenderPlan(
        title=story.title,
        model=family.name,
        kind=family.kind,
        fps=fps,
        size=size,
        options=family.options,
        decode=family.decode,
        sampler=sampler,
        profile=profile.name,
        frames=shots[-1].span(range(shots[-1].sections))[1],
        shots=tuple(_plan_shot(story, *each, family) for each in zip(shots, image_sizes, strict=True)),
        scenes=tuple(timing for shot in shots for timing in _time_scenes(shot, rate)),
        sections=sections,
        warnings=(
            *shape_warnings(story, family, own_size),
            *gathered(setting_warnings(story, relaxations, family)),
            *gathered(past_warnings(sections, family)),
            *gathered(family.notes(story, [(sum(s.seconds for s in shot.scenes), shot.sections) for shot in shots])),
        ),
    )


def split_shots(story: Storyboard, rate: Fraction, grid: TimeGrid) -> list[Shot]:
    """Scenes grouped by hard cuts and snapped to the grid, `rate` being frames per second."""
    runs = _runs(story)
    shots: list[Shot] = []
    scene = section = frame = 0
    for number, (run, counts) in enumerate(zip(runs, snap(_seconds(runs), rate, grid), strict=True)):
        units = tuple(split(count, grid.most_units) for count in counts)
        shots.append(
            Shot(
                number=number, scenes=run, first_scene=scene, units=units, first_section=section, first_frame=frame,
                grid=grid,
            )
        )  # fmt: skip
        scene, section = scene + len(run), section + shots[-1].sections
        frame += grid.unit_frames * sum(counts) + grid.lead_frames
    return shots


def _runs(story: Storyboard) -> list[tuple[Scene, ...]]:
    """The scenes of each shot."""
    starts = [i for i, scene in enumerate(story.scenes) if i == 0 or scene.transition == "cut"]
    return [story.scenes[first:end] for first, end in zip(starts, [*starts[1:], len(story.scenes)], strict=True)]


def _seconds(runs: Iterable[Sequence[Scene]]) -> list[list[float]]:
    return [[scene.seconds for scene in run] for run in runs]


def _plan_shot(story: Storyboard, shot: Shot, image_size: Size, family: Family) -> ShotPlan:
    opening = shot.scenes[0]
    return ShotPlan(
        index=shot.number,
        image=opening.image or story.image,
        image_size=image_size,
        seed=stable_seed("start", _seed(story, opening), opening.id),
        sections=tuple(shot.first_section + place for place in family.render_order(shot.sections)),
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
    story: Storyboard, family: Family, shot: Shot, relaxations: Sequence[Relaxation], rows: Callable[..., Rows]
) -> Iterator[SectionPlan]:
    seed, rendered = _seed(story, shot.scenes[0]), list(family.render_order(shot.sections))
    for index, scene, places in shot.places():
        relaxation, base = relaxations[index], tuple(base_scales(story, scene, family).items())
        steps = scene.steps or story.steps
        for nth, place in enumerate(places):
            context = family.context(place, shot.sections)
            yield SectionPlan(
                index=shot.first_section + place,
                shot=shot.number,
                place=place,
                scene=scene.id,
                prompt=story.prompt_of(scene),
                negative_prompt=story.negative_of(scene),
                seed=seed if story.noise == "framepack" else stable_seed("section", _seed(story, scene), nth, scene.id),
                draw=rendered.index(place) if story.noise == "framepack" else 0,
                frames=shot.span(range(place, place + 1)),
                intensity=scene.intensity,
                relaxation=relaxation,
                latents=shot.latents(place),
                steps=rows(steps, relaxation, base, context.initial),
                context=context,
            )


def _timing_problems(shots: Sequence[Shot], rate: Fraction, grid: TimeGrid) -> Iterator[Problem]:
    """Scenes to be made longer so that every scene of the board gets a section, with their seconds; too long ones."""
    counts = [len(places) for shot in shots for _, _, places in shot.places()]
    asked = _seconds(shot.scenes for shot in shots)
    pairs = zip(chain.from_iterable(asked), chain.from_iterable(fitting_seconds(asked, rate, grid)), strict=True)
    longer = [(index, seconds, fits) for index, (seconds, fits) in enumerate(pairs) if fits != seconds]
    step = f"scenes end on a grid of {float(grid.unit_frames / rate):.4g} s"
    for index, seconds, fits in longer[:MOST_SHOWN]:
        why = (
            f"gets no section: {step}"
            if not counts[index]
            else f"is too short as soon as scenes[{longer[0][0]}] gets one"
        )
        yield Problem(path=f"scenes[{index}].seconds", message=f"{seconds:g} s {why}; write {fits:g}")
    for index, seconds, _ in longer[MOST_SHOWN : MOST_SHOWN + 1]:
        others = f"is too short, and so are {len(longer) - MOST_SHOWN - 1} more scenes; mend those before it first"
        yield Problem(path=f"scenes[{index}].seconds", message=f"{seconds:g} s {others}")
    most = float((grid.most_units * grid.unit_frames + grid.lead_frames) / rate)
    for index, count in enumerate(counts if not grid.past else ()):
        if count > 1:
            message = f"is longer than the {most:.4g} s that a scene of this model has at most; split it"
            yield Problem(path=f"scenes[{index}].seconds", message=message)
    total = sum(shot.sections for shot in shots)
    if total > MOST_SECTIONS:
        message = f"the film has {total} sections; at most {MOST_SECTIONS} are planned: split the storyboard"
        yield Problem(path="scenes", message=message)


def _image_sizes(story: Storyboard, shots: Sequence[Shot], family: Family) -> tuple[list[Size], list[Problem]]:
    """(width, height) px of every shot's start image, and which are not there or cannot be read; each is read once."""
    read: dict[str, Size] = {}
    problems: list[Problem] = []
    for shot in shots:
        own = shot.scenes[0].image
        place = f"scenes[{shot.first_scene}]"
        path = f"{place}.image" if own or shot.number else "image"
        image = own or story.image
        if wrong := image_problem(family, shot.number, image):
            problems.append(Problem(path=path if image else place, message=wrong))
        elif image and image not in read:
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


def _noise_problems(story: Storyboard, shots: Sequence[Shot]) -> Iterator[Problem]:
    if story.noise == "framepack":
        for shot in shots:
            for index, scene, _ in list(shot.places())[1:]:
                if scene.seed is not None:
                    message = "noise: framepack draws a shot's noise from the seed of its first scene; remove the line"
                    yield Problem(path=f"scenes[{index}].seed", message=message)
