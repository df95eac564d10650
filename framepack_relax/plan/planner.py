"""Storyboard -> RenderPlan. Every mistake that shows only beside the model is collected and raised at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import Problem, StoryboardError
from ..relax.profile import Relaxation
from ..storyboard import Scene, Storyboard
from ..storyboard.images import ImageError, read_image
from .facts import ModelFacts
from .grid import MOST_SECTIONS, SECTION_FRAMES, nearest_bucket, snap
from .history import Order, render_order, slots
from .renderplan import RenderPlan, SceneTiming, SectionPlan, ShotPlan
from .schedule import scale_table, sigma_table
from .seeds import section_seed, shot_seed
from .settings import base_scales, choose_profile, relax_scene, setting_problems, setting_warnings


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A run of scenes up to a hard cut, with its place in the film."""

    number: int
    scenes: tuple[Scene, ...]
    first_scene: int  # on the board
    counts: tuple[int, ...]  # sections of each scene
    first_section: int
    first_frame: int

    @property
    def sections(self) -> int:
        return sum(self.counts)

    @property
    def frames(self) -> int:
        return SECTION_FRAMES * self.sections + 1


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What all sections of a film share."""

    story: Storyboard
    facts: ModelFacts
    relaxations: tuple[Relaxation, ...]  # per scene
    fps: int
    size: tuple[int, int]
    order: Order


def make_plan(story: Storyboard, facts: ModelFacts) -> RenderPlan:
    """The film that `story` asks of a model with these facts.

    Raises StoryboardError with every mistake: scenes too short for a section, missing start images, settings that
    contradict one another, films of over 3,000 sections.
    """
    profile = choose_profile(story, facts)
    fps = story.fps or facts.fps
    shots = split_shots(story, fps)
    relaxations = tuple(relax_scene(scene, profile) for scene in story.scenes)
    problems = [
        *_timing_problems(shots, fps),
        *_image_problems(story, shots),
        *_decode_problems(story, facts),
        *setting_problems(story, relaxations, facts),
    ]
    if problems:
        raise StoryboardError([story.located(problem) for problem in problems])
    frame = Frame(
        story=story,
        facts=facts,
        relaxations=relaxations,
        fps=fps,
        size=story.size or facts.size or _bucket(story, shots[0]),
        order=story.order or facts.order,
    )
    return RenderPlan(
        title=story.title,
        model=facts.name,
        order=frame.order,
        decode=story.decode or ("stream" if frame.order == "forward" else "blend"),
        fps=fps,
        adain=story.adain,
        size=frame.size,
        sampler=story.sampler,
        profile=profile.name,
        shots=tuple(_plan_shot(frame, shot) for shot in shots),
        scenes=tuple(timing for shot in shots for timing in _time_scenes(frame, shot)),
        sections=tuple(section for shot in shots for section in _plan_sections(frame, shot)),
        warnings=tuple(setting_warnings(story, relaxations, facts)),
    )


def split_shots(story: Storyboard, fps: int) -> list[Shot]:
    """Scenes grouped by hard cuts and snapped to the grid."""
    starts = [i for i, scene in enumerate(story.scenes) if i == 0 or scene.transition == "cut"]
    shots: list[Shot] = []
    section = frame = 0
    for number, (first, end) in enumerate(zip(starts, [*starts[1:], len(story.scenes)], strict=True)):
        scenes = story.scenes[first:end]
        shot = Shot(
            number=number,
            scenes=scenes,
            first_scene=first,
            counts=tuple(snap([scene.seconds for scene in scenes], fps)),
            first_section=section,
            first_frame=frame,
        )
        shots.append(shot)
        section, frame = section + shot.sections, frame + shot.frames
    return shots


def _plan_shot(frame: Frame, shot: Shot) -> ShotPlan:
    opening = shot.scenes[0]
    order = render_order(frame.order, shot.sections)
    return ShotPlan(
        index=shot.number,
        image=opening.image or frame.story.image,
        seed=shot_seed(frame.story.seed if opening.seed is None else opening.seed, opening.id),
        sections=tuple(shot.first_section + place for place in order),
        frames=(shot.first_frame, shot.first_frame + shot.frames),
    )


def _places(shot: Shot) -> Iterator[tuple[int, Scene, range]]:
    """(scene's index on the board, scene, its sections counted within the shot)."""
    place = 0
    for nth, (scene, count) in enumerate(zip(shot.scenes, shot.counts, strict=True)):
        yield shot.first_scene + nth, scene, range(place, place + count)
        place += count


def _span(shot: Shot, places: range) -> tuple[int, int]:
    """Film-wide frames [first, end) of sections of a shot; the first owns the shot's extra frame."""
    first = shot.first_frame + SECTION_FRAMES * places[0] + (places[0] > 0)
    return first, shot.first_frame + SECTION_FRAMES * (places[-1] + 1) + 1


def _time_scenes(frame: Frame, shot: Shot) -> Iterator[SceneTiming]:
    for _, scene, places in _places(shot):
        frames = _span(shot, places)
        yield SceneTiming(
            scene=scene.id,
            shot=shot.number,
            asked_seconds=scene.seconds,
            real_seconds=(frames[1] - frames[0]) / frame.fps,
            sections=tuple(shot.first_section + place for place in places),
            frames=frames,
        )


def _plan_sections(frame: Frame, shot: Shot) -> Iterator[SectionPlan]:
    story = frame.story
    for index, scene, places in _places(shot):
        relaxation = frame.relaxations[index]
        steps = scene.steps or story.steps
        sigmas = sigma_table(steps, frame.facts.shift, *frame.size)
        settled = tuple(float(sigma) for sigma in sigmas)
        base = base_scales(scene, frame.facts)
        scales = {fresh: scale_table(relaxation, sigmas, base=base, fresh=fresh) for fresh in (False, True)}
        for nth, place in enumerate(places):
            history = slots(frame.order, place, shot.sections)
            yield SectionPlan(
                index=shot.first_section + place,
                shot=shot.number,
                place=place,
                scene=scene.id,
                prompt=story.prompt_of(scene),
                negative_prompt=story.negative_of(scene),
                seed=section_seed(story.seed if scene.seed is None else scene.seed, scene.id, nth),
                frames=_span(shot, range(place, place + 1)),
                intensity=scene.intensity,
                relaxation=relaxation,
                sigmas=settled,
                scales=scales[history.fresh],
                history=history,
            )


def _timing_problems(shots: Sequence[Shot], fps: int) -> Iterator[Problem]:
    for shot in shots:
        for index, scene, places in _places(shot):
            if not places:
                yield Problem(
                    path=f"scenes[{index}].seconds",
                    message=f"{scene.seconds:g} s gets no section: scenes end on a grid of "
                    f"{SECTION_FRAMES / fps:g} s; make the scene longer or join it with its neighbour",
                )
    total = sum(shot.sections for shot in shots)
    if total > MOST_SECTIONS:
        yield Problem(
            path="scenes",
            message=f"the film has {total} sections; at most {MOST_SECTIONS} are planned: split the storyboard",
        )


def _image_problems(story: Storyboard, shots: Sequence[Shot]) -> Iterator[Problem]:
    """A start image per shot, there and readable."""
    for shot in shots:
        own = shot.scenes[0].image
        path = f"scenes[{shot.first_scene}].image" if own or shot.number else "image"
        image = own or story.image
        if image is None:
            yield Problem(
                path=f"scenes[{shot.first_scene}]",
                message=f"shot {shot.number + 1} has no start image and the model needs one: give the scene or the "
                "storyboard an `image:`",
            )
            continue
        try:
            read_image(story.resolve(image))
        except FileNotFoundError:
            yield Problem(path=path, message=f"{image}: no such file; paths are relative to the storyboard")
        except ImageError as error:
            yield Problem(path=path, message=f"{image}: {error}")


def _decode_problems(story: Storyboard, facts: ModelFacts) -> Iterator[Problem]:
    if story.decode == "stream" and (story.order or facts.order) == "inverted":
        yield Problem(
            path="decode", message="stream needs forward order, and this film is rendered from its end; remove the line"
        )


def _bucket(story: Storyboard, shot: Shot) -> tuple[int, int]:
    """FramePack's own choice of size: the 640 bucket nearest to the start image."""
    return nearest_bucket(*read_image(story.resolve(str(shot.scenes[0].image or story.image))).size)
