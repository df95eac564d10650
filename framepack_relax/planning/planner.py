"""Storyboard -> RenderPlan. Every mistake that shows only beside the model is collected and raised at once."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial
from itertools import chain, count, groupby, pairwise, starmap

from ..errors import Problem, StoryboardError
from ..families.adapters import look, loras_of
from ..families.base import Family, GuidanceTerm, Size, Step, TimeGrid
from ..families.flow import times
from ..relax.effects import Effect, FreeInit, Ramp, WordGain
from ..relax.guidance import relaxed_scale
from ..relax.profile import Relaxation
from ..storyboard import Scene, Storyboard
from ..storyboard.fields import exact_rate
from ..storyboard.images import ImageError, read_image
from ..storyboard.paths import path_cure
from .anchors import anchor_problems, anchored, asked_for, opening_image
from .draft import begun, start_problems
from .grid import MOST_SECTIONS, fitting_seconds, snap, split
from .ladder import Asked, asked_of, plan_ensured, stronger
from .lexicon import intensity_of
from .pace import paced
from .renderplan import RenderPlan, SceneTiming, SectionPlan, ShotPlan, number_of, stable_seed
from .settings import base_scales, choose_profile, image_problem, plan_warnings, relax_scene, setting_problems
from .wording import plan_blends, word_gains, wording_problems

Rows = tuple[Step, ...]
MOST_SHOWN = 40  # scenes that are too short, told at once


def make_plan(story: Storyboard, model: Family, found: Iterable[Problem] = ()) -> RenderPlan:
    """The film that `story` asks of a model; mistakes that were `found` already are told with its own.

    Raises StoryboardError with every mistake: scenes too short for a section, missing start images, settings that
    contradict one another, films of over 3,000 sections.
    """
    family = model.configured(story)
    profile, grid = choose_profile(story, family), family.grid
    fps = story.fps or family.fps
    rate, shots = exact_rate(fps), split_shots(story)
    asked = [[story.scenes[index].seconds for index in shot] for shot in shots]
    film = story.before is not None
    units = [split(length, grid.most_units) for lengths in snap(asked, rate, grid, film=film) for length in lengths]
    relaxations = tuple(relax_scene(scene, profile) for scene in story.scenes)
    ladders = [asked_of(story, *pair, profile) for pair in zip(story.scenes, relaxations, strict=True)]
    found = list(found)
    image_sizes, image_problems = _image_sizes(story, shots, family, {problem.path for problem in found})
    fits, lora_problems = look(story, family)
    own_size = family.own_size(image_sizes[0])
    size = story.size or own_size
    sampler = story.sampler or family.samplers[0]
    problems = [
        *found,
        *_timing_problems(asked, list(map(len, units)), rate, grid, film),
        *anchor_problems(story, family),
        *image_problems,
        *family.problems(story),
        *setting_problems(story, relaxations, family),
        *lora_problems,
        *wording_problems(story, list(map(len, units))),
        *_noise_problems(story, shots),
        *start_problems(story, family, size, sampler),
    ]
    if problems:
        located = [problem if problem.file else story.located(problem) for problem in problems]
        raise StoryboardError(sorted(located, key=lambda p: (p.line or 0, p.column or 0)))
    # scenes share what is equal: 3,000 of 1,000 steps are 12 million figures otherwise
    rows = lru_cache(maxsize=64)(partial(_plan_steps, family, size, sampler))
    planned = _plan_sections(story, family, shots, units, relaxations, ladders, rows)
    sections = tuple(anchored(story, family, planned, rate))
    made = [list(group) for _, group in groupby(sections, key=lambda section: section.shot)]
    lengths = [(sum(seconds), len(group)) for seconds, group in zip(asked, made, strict=True)]
    return RenderPlan(
        title=story.title,
        model=family.name,
        kind=family.kind,
        fps=fps,
        size=size,
        options=family.options,
        lora=fits,
        decode=family.decode,
        sampler=sampler,
        profile=profile.name,
        frames=sections[-1].frames[1],
        shots=tuple(_plan_shot(story, *each, family) for each in zip(shots, made, image_sizes, strict=True)),
        scenes=tuple(_time_scenes(story, sections, rate)),
        sections=sections,
        warnings=tuple(plan_warnings(story, relaxations, sections, family, own_size, lengths, fits)),
    )


def split_shots(story: Storyboard) -> list[range]:
    """The scenes of each shot, by their places on the board."""
    starts = [i for i, scene in enumerate(story.scenes) if i == 0 or scene.transition == "cut"]
    return list(starmap(range, pairwise([*starts, len(story.scenes)])))


def _seed(story: Storyboard, scene: Scene) -> int:
    return story.seed if scene.seed is None else scene.seed


def _plan_sections(
    story: Storyboard,
    family: Family,
    shots: Sequence[range],
    units: Sequence[tuple[int, ...]],
    relaxations: Sequence[Relaxation],
    ladders: Sequence[Asked | None],
    rows: Callable[..., Rows],
) -> Iterator[SectionPlan]:
    """In the order of the film; `units` are those of each scene's sections. A shot's first has the lead frames, too."""
    grid, numbers, end, loras = family.grid, count(), 0, loras_of(story, family)
    blends = plan_blends(story, list(map(len, units)))
    for shot, scenes in enumerate(shots):
        places = [(index, nth) for index in scenes for nth in range(len(units[index]))]
        rendered = list(family.render_order(len(places)))
        for place, (index, nth) in enumerate(places):
            scene, relaxation, length = story.scenes[index], relaxations[index], units[index][nth]
            film = shot == 0 and story.before is not None
            first, end = end, end + length * grid.unit_frames + (0 if place or film else grid.lead_frames)
            seed, draw = stable_seed("section", _seed(story, scene), nth, scene.id), 0
            if story.noise == "framepack":
                seed, draw = _seed(story, story.scenes[scenes[0]]), rendered.index(place)
            if scene.take and (number := number_of(scene.take)) > 1:
                seed = stable_seed("take", seed, number)
            context = family.context(place, len(places), film=film)
            past = family.has_past(context, image=film or bool(story.scenes[scenes[0]].image or story.image))
            steps = _Steps(rows=rows, story=story, scene=scene, family=family, past=past)
            yield SectionPlan(
                index=next(numbers),
                shot=shot,
                place=place,
                scene=scene.id,
                prompt=story.prompt_of(scene),
                negative_prompt=story.negative_of(scene),
                seed=seed,
                draw=draw,
                frames=(first, end),
                intensity=intensity_of(scene),
                relaxation=relaxation,
                lora=loras[index],
                latents=grid.latents(length, first=place == 0 and not film),
                steps=steps.at(relaxation),
                context=context,
                ensure=plan_ensured(ladders[index], steps.at),
                blend=blends.get((index, nth)),
                take=scene.take,
                lock=scene.lock,
                start_from=story.start_of(scene),
            )


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """A section's steps, made by `rows`, with or without a `past`."""

    rows: Callable[..., Rows]
    story: Storyboard
    scene: Scene
    family: Family
    past: bool

    def at(self, relaxation: Relaxation, factor: float = 1.0) -> Rows:
        """With these settings, the scene's base scales so many times as strong."""
        story, scene, start = self.story, self.scene, self.story.start_of(self.scene)
        return self.rows(
            steps=scene.steps or story.steps,
            relaxation=relaxation,
            scales=tuple(stronger(base_scales(story, scene, self.family), factor, self.family).items()),
            past=self.past,
            speed=_speed(story, scene, relaxation),
            words=word_gains(scene),
            strength=start.strength if start else None,
        )


def _speed(story: Storyboard, scene: Scene, relaxation: Relaxation) -> str:
    """The scene's own, else the board's, which is for scenes at rest."""
    return scene.speed or (story.speed if relaxation.at_rest else "full")


def _plan_steps(
    family: Family,
    size: Size,
    sampler: str,
    *,
    steps: int,
    relaxation: Relaxation,
    scales: tuple[tuple[str, float], ...],
    past: bool,
    speed: str,
    words: tuple[WordGain, ...],
    strength: float | None,
) -> Rows:
    """A row per noise level: eq. 2 for the targets, for the rest the scale at rest of these `scales`.

    Without a `past` there is no grip that could loosen; `speed` is a storyboard's; `words` act in every step. A
    `strength` leaves the rows of a section that starts from a draft.
    """
    levels, base = family.levels(steps, size, sampler), dict(scales)
    noise = [sigma for sigma, _ in levels]
    at = noise if relaxation.coord == "sigma" else [float(time) for time in times(len(noise))]
    weights = relaxation.weights(at, noise)
    targets = set() if relaxation.at_rest else set(relaxation.target)
    ramps = [Ramp(frames=relaxation.ramp, past_after=family.render_order(2)[0] != 0)] if relaxation.ramp else []
    others: tuple[Effect, ...] = (*ramps, *words) if past and not relaxation.at_rest else words

    def scale(term: GuidanceTerm, timestep: float, weight: float) -> float:
        if not term.timesteps[0] <= timestep < term.timesteps[1]:
            return 1.0
        if term.name not in targets or (term.of_past and not past):
            return base[term.name]
        low = term.floor if relaxation.min is None else relaxation.min
        return relaxed_scale(weight, base=base[term.name], minimum=low, beta=relaxation.beta)

    made = tuple(
        Step(
            index=index,
            sigma=sigma,
            timestep=timestep,
            scales={term.name: scale(term, timestep, weight) for term in family.terms},
            effects=(*relaxation.effects(sigma), *others),
        )
        for index, ((sigma, timestep), weight) in enumerate(zip(levels, weights, strict=True))
    )
    if speed != "full":
        made = tuple(paced(made, family.fast if speed == "fast" else speed, family.terms))
    return _further(made, relaxation.freeinit or 0) if strength is None else begun(made, strength)


def _further(rows: Rows, passes: int) -> Rows:
    """The rows, and so many times the same again."""
    numbered = ((number, row) for number in range(1, passes + 1) for row in rows)
    again = (
        replace(row, index=number * len(rows) + row.index, effects=(*row.effects, FreeInit(number=number)))
        for number, row in numbered
    )
    return *rows, *again


def _plan_shot(
    story: Storyboard, scenes: range, sections: Sequence[SectionPlan], image_size: Size, family: Family
) -> ShotPlan:
    opening = story.scenes[scenes[0]]
    return ShotPlan(
        index=sections[0].shot,
        image=story.before if story.before and scenes[0] == 0 else opening.image or story.image,
        image_size=image_size,
        seed=stable_seed("start", _seed(story, opening), opening.id),
        sections=tuple(sections[place].index for place in family.render_order(len(sections))),
        frames=(sections[0].frames[0], sections[-1].frames[1]),
    )


def _time_scenes(story: Storyboard, sections: Sequence[SectionPlan], rate: Fraction) -> Iterator[SceneTiming]:
    groups = groupby(sections, key=lambda section: section.scene)
    for scene, made in zip(story.scenes, (list(group) for _, group in groups), strict=True):
        first, end = made[0].frames[0], made[-1].frames[1]
        yield SceneTiming(
            scene=scene.id,
            shot=made[0].shot,
            asked_seconds=scene.seconds,
            real_seconds=float((end - first) / rate),
            sections=tuple(section.index for section in made),
            frames=(first, end),
        )


def _timing_problems(
    asked: Sequence[Sequence[float]], counts: Sequence[int], rate: Fraction, grid: TimeGrid, film: bool
) -> Iterator[Problem]:
    """Scenes to be made longer so that every scene of the board gets a section, with their seconds; too long ones.

    Seconds are `asked` shot by shot; `counts` are the sections of each scene.
    """
    fitting = fitting_seconds(asked, rate, grid, film=film)
    pairs = zip(chain.from_iterable(asked), chain.from_iterable(fitting), strict=True)
    longer = [(index, seconds, fits) for index, (seconds, fits) in enumerate(pairs) if fits != seconds]
    step = f"scenes end on a grid of {float(grid.unit_frames / rate):.4g} s"
    for index, seconds, fits in longer[:MOST_SHOWN]:
        late = f"is too short as soon as scenes[{longer[0][0]}] gets one"
        why = late if counts[index] else f"gets no section: {step}"
        yield Problem(path=f"scenes[{index}].seconds", message=f"{seconds:g} s {why}; write {fits:g}")
    for index, seconds, _ in longer[MOST_SHOWN : MOST_SHOWN + 1]:
        others = f"is too short, and so are {len(longer) - MOST_SHOWN - 1} more scenes; mend those before it first"
        yield Problem(path=f"scenes[{index}].seconds", message=f"{seconds:g} s {others}")
    most = float((grid.most_units * grid.unit_frames + grid.lead_frames) / rate)
    for index, sections in enumerate(counts if not grid.past else ()):
        if sections > 1:
            message = f"is longer than the {most:.4g} s that a scene of this model has at most; split it"
            yield Problem(path=f"scenes[{index}].seconds", message=message)
    if sum(counts) > MOST_SECTIONS:
        message = f"the film has {sum(counts)} sections; at most {MOST_SECTIONS} are planned: split the storyboard"
        yield Problem(path="scenes", message=message)


def _image_sizes(
    story: Storyboard, shots: Sequence[range], family: Family, known: Collection[str]
) -> tuple[list[Size], list[Problem]]:
    """(width, height) px of every shot's start image, and which are not there or cannot be read; each is read once, and
    so are those of anchors. A film is (1, 1), and so is what is `known` by its path to be wrong."""
    problems: list[Problem] = []
    images = [opening_image(story), *(story.scenes[shot[0]].image or story.image for shot in shots[1:])]
    named = list[tuple[str, str | None]]()
    for number, (shot, image) in enumerate(zip(shots, images, strict=True)):
        place = f"scenes[{shot[0]}]"
        path = f"{place}.image" if story.scenes[shot[0]].image or number else "image"
        if (number or not story.before) and (wrong := image_problem(family, number, image)):
            problems.append(Problem(path=path if image else place, message=wrong))
        else:
            named.append((path, image))
    named += [(path + ".image" * (role == "key"), image) for _, path, image, role, _ in asked_for(story)]
    read: dict[str, Size] = {image: (1, 1) for path, image in named if image and path in known}
    for path, image in named:
        if image and image not in read:
            read[image] = (1, 1)
            try:
                read[image] = read_image(story.resolve(image)).size
            except FileNotFoundError:
                there = story.resolve(image).absolute()
                message = f"{image}: no such file; it was looked for as {there}{path_cure(image, there)}"
                problems.append(Problem(path=path, message=message))
            except ImageError as error:
                problems.append(Problem(path=path, message=f"{image}: {error}"))
    return [read.get(image or "", (1, 1)) for image in images], problems


def _noise_problems(story: Storyboard, shots: Sequence[range]) -> Iterator[Problem]:
    for index in chain.from_iterable(shot[1:] for shot in shots if story.noise == "framepack"):
        if story.scenes[index].seed is not None:
            message = "noise: framepack draws a shot's noise from the seed of its first scene; remove the line"
            yield Problem(path=f"scenes[{index}].seed", message=message)
