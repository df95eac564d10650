"""Renders a storyboard: plan, encode, then section after section to latents, frames, film and report.

A run folder holds story.yaml with images/, plan.json, shots/NN/NNN.safetensors, video.mp4, contact.png, curves.png and
report.json. A section that is on disk, whole and made by the same settings, is not rendered again.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import RenderError
from ..models.loader import load
from ..models.memory import choose_preset, enough_memory, give_back, keep_steady
from ..models.video_model import StartCondition, TextCondition, VideoModel
from ..plan.grid import SECTION_LATENTS
from ..plan.history import HISTORY
from ..plan.planner import make_plan
from ..plan.renderplan import RenderPlan, SectionPlan
from ..plan.seeds import retry_seed
from ..relax.latents import match_statistics
from ..sampling.section import NonFiniteLatents, SectionResult, gather_history, sample_section, section_noise
from ..storyboard import Storyboard
from ..storyboard.images import ImageError, fit_image, read_image
from ..video.contact import ContactSheet
from ..video.curves import save_curves
from ..video.decode import BlendDecoder
from ..video.motion import MotionMeter
from ..video.stream import StreamDecoder
from .carry import write_story
from .folder import Link, RunFolder, digest, section_facts, writing
from .report import caption, film_report, film_tags, section_report

RETRIES = 3
Step = Callable[[SectionPlan, int], None]
Decoder = StreamDecoder | BlendDecoder
Verdict = tuple[SectionPlan, str | None]  # a section, and why it must be rendered; None: it is on disk


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to render, besides what: nothing here changes a section whose latents are finite.

    `fresh` forgets what the folder holds; `on_nan` says what to do when latents are not finite: stop, or retry with
    another seed, at most three times. `store` is a folder in which renders share their sections.
    """

    fresh: bool = False
    store: Path | None = None
    on_nan: Literal["stop", "retry"] = "stop"


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Who is told: once what the model does not read of each prompt, what is on disk and what must be rendered and why;
    every step; every section on disk.

    `on_section` hears the seed too, which a retry may have changed. In inverted order frames come later.
    """

    on_unread: Callable[[dict[str, list[str]]], None] = lambda unread: None
    on_verdicts: Callable[[list[Verdict]], None] = lambda verdicts: None
    on_step: Step = lambda section, step: None
    on_section: Callable[[SectionPlan, int], None] = lambda section, seed: None


@dataclass(frozen=True, kw_only=True)
class FinishedSection:
    """A section that is decoded, in film order; `frames` uint8 [T, H, W, 3] are what became final with it.

    With `decode: blend` 33 frames are still to be blended with the next section, so frames lag behind.
    """

    plan: SectionPlan
    latents: Tensor  # [1, C, 9, h, w] float32
    frames: NDArray[np.uint8]
    first_frame: int  # film-wide number of frames[0]
    report: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RenderedFilm:
    """What a render leaves behind."""

    path: Path
    folder: Path
    plan: RenderPlan
    report: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Work:
    """A render that has begun: everything is encoded, the folder is locked. Texts by prompt, start images by shot."""

    plan: RenderPlan
    model: VideoModel
    options: Options
    folder: RunFolder
    tags: dict[str, str]  # by which an mp4 carries the storyboard
    texts: dict[str, TextCondition]
    starts: dict[int, StartCondition]
    unread: dict[str, list[str]]


def render(
    story: Storyboard,
    *,
    out: str | Path,
    model: VideoModel | None = None,
    options: Options = Options(),
    watch: Watcher = Watcher(),
) -> RenderedFilm:
    """Renders `story` into the folder `out` and returns where the film is.

    Raises StoryboardError, ModelError or RenderError before the first section wherever it can be known by then. While
    it works, `out`/video.part.mp4 is a film that can be played up to the last section.
    """
    from ..video.writer import Mp4Writer  # needs PyAV, which `stream` can do without

    begun = time.perf_counter()
    with _begun(story, Path(out), model, options) as work:
        plan, folder, film = work.plan, work.folder, work.folder.path / "video.mp4"
        sheet = ContactSheet(rows=[(caption(plan, scene.sections[0]), *scene.frames) for scene in plan.scenes])
        ends = [plan.sections[scene.sections[-1]] for scene in plan.scenes]
        with writing(folder.path / "curves.png"):
            save_curves([(end.scene, end.sigmas, vars(end.scales)) for end in ends], folder.path / "curves.png")
        meters = [MotionMeter() for _ in plan.shots]
        sections: list[dict[str, Any]] = []
        seeds = {section.index: section.seed for section in plan.sections}
        tags = {**film_tags(plan, work.model, seeds), **work.tags}
        with writing(film), Mp4Writer(film, fps=plan.rate, size=plan.size, crf=story.crf, metadata=tags) as writer:
            for done in _sections(work, watch):
                if len(done.frames):
                    writer.write(done.frames)
                    sheet.add(done.first_frame, done.frames)
                    meters[done.plan.shot].add(done.frames)
                sections.append(done.report)
            seeds = {report["index"]: report["seed"] for report in sections}  # a retry has changed some
            writer.metadata |= film_tags(plan, work.model, seeds)
        with writing(folder.path / "contact.png"):
            sheet.save(folder.path / "contact.png")
        report = film_report(plan, work.model, sections, meters, time.perf_counter() - begun)
        report["unread"] = work.unread
        folder.write_text("report.json", json.dumps(report, indent=1))
    return RenderedFilm(path=film, folder=folder.path, plan=plan, report=report)


def stream(
    story: Storyboard, *, out: str | Path, model: VideoModel | None = None, options: Options = Options()
) -> Iterator[FinishedSection]:
    """Renders `story` and hands over its sections in film order; each is on disk under `out`/shots by then.

    In inverted order a shot's sections come when its first, which is rendered last, is done.
    """
    with _begun(story, Path(out), model, options) as work:
        yield from _sections(work, Watcher())


@contextmanager
def _begun(story: Storyboard, out: Path, model: VideoModel | None, options: Options) -> Iterator[Work]:
    """Plans, opens the folder and encodes all prompts and start images, each once; holds the folder meanwhile."""
    model = model or load(story.model)
    plan = make_plan(story, model.facts)
    images = start_images(story, plan)
    with RunFolder(out, fresh=options.fresh, store=options.store).locked() as folder:
        tags = write_story(folder, story, plan, model.facts, images)
        history = plan.sections[0].history
        model.preset = choose_preset(model, history, plan.size)
        with enough_memory("encoding prompts and images", model, history, plan.size):
            prompts = [section.prompt for section in plan.sections]
            texts, unread = model.encode_texts([*prompts, *(section.negative_prompt for section in plan.sections)])
            starts = model.encode_images({shot.index: (images[shot.image or ""], shot.seed) for shot in plan.shots})
            model.place()
        yield Work(
            plan=plan, model=model, options=options, folder=folder, tags=tags, texts=texts, starts=starts, unread=unread
        )


def _sections(work: Work, watch: Watcher) -> Iterator[FinishedSection]:
    """The loop: shot by shot, section by section in rendering order, decoded as soon as they follow in the film."""
    keep_steady()
    watch.on_unread(work.unread)
    plan, model, folder = work.plan, work.model, work.folder
    links = make_links(work)
    why_anew = folder.verdicts(plan, links)
    folder.begin(plan, links, why_anew)
    watch.on_verdicts([(plan.sections[index], why) for index, why in why_anew.items()])
    for shot in plan.shots:
        start = work.starts[shot.index]
        folder.save_start(shot.index, start.latent)
        decoder: Decoder = StreamDecoder(model.vae, start=start.latent, rest=model.rest)
        if plan.decode == "blend":
            decoder = BlendDecoder(model.vae, order=plan.order, start=start.latent, sections=len(shot.sections))
        latents: dict[int, Tensor] = {0: start.latent}
        colours: Tensor | None = None  # the first section to be rendered, whose colours stay
        waiting: dict[int, dict[str, Any]] = {}  # reports of sections that are not decoded yet
        following, next_frame = min(shot.sections), shot.frames[0]
        for index in shot.sections:
            section, reused, clock = plan.sections[index], why_anew[index] is None, time.perf_counter()
            with _memory_for(work, section):
                if reused:
                    stored = folder.load_section(section)
                    result, seed = SectionResult(latents=stored.latents), stored.seed
                else:
                    result, seed = _sample(work, section, latents, watch.on_step)
                    if colours is not None:
                        result = replace(result, latents=match_statistics(result.latents, colours, plan.adain))
                    folder.save_section(section, result.latents, links[index], seed)
                made = result.latents.to(model.device)
                colours = made if colours is None else colours
                latents = _remember(latents, section, made)
            seconds = time.perf_counter() - clock
            waiting[index] = section_report(
                section, seed=seed, forwards=result.forwards, reused=reused, seconds=seconds
            )
            watch.on_section(section, seed)
            give_back()
            while following in waiting:
                done = _decode(work, decoder, plan.sections[following], waiting.pop(following), next_frame)
                yield done
                next_frame, following = next_frame + len(done.frames), following + 1
                give_back()
        assert next_frame == shot.frames[1], "a shot gives exactly the frames that its plan says"


def _decode(
    work: Work, decoder: Decoder, section: SectionPlan, report: dict[str, Any], first_frame: int
) -> FinishedSection:
    """The section as it lies on disk and what becomes final with it; `report` is told how long that took."""
    clock = time.perf_counter()
    latents = work.folder.load_section(section).latents
    with _memory_for(work, section):
        frames = decoder.push(latents.to(work.model.device))
    report["seconds"]["decoding"] = round(time.perf_counter() - clock, 3)
    return FinishedSection(plan=section, latents=latents, frames=frames, first_frame=first_frame, report=report)


def _memory_for(work: Work, section: SectionPlan) -> AbstractContextManager[None]:
    where = f"scene {section.scene}, section {section.index}"
    return enough_memory(where, work.model, section.history, work.plan.size)


def start_images(story: Storyboard, plan: RenderPlan) -> dict[str, Image.Image]:
    """The start images of all shots by their path in the storyboard, each of the film's size."""
    images = {}
    for path in dict.fromkeys(shot.image for shot in plan.shots):
        assert path is not None, "the planner refuses shots without a start image"
        try:
            images[path] = fit_image(read_image(story.resolve(path)), plan.size)
        except (OSError, ImageError) as error:
            raise RenderError(f"{story.resolve(path)}: {error}") from error
    return images


def make_links(work: Work) -> dict[int, Link]:
    """What determines each section, by its index, in rendering order; known before anything is rendered."""
    links = {}
    for shot in work.plan.shots:
        start = work.starts[shot.index]
        before = digest(start.latent, start.tokens)
        for index in shot.sections:
            link = Link(before=before, facts=section_facts(work.plan.sections[index], work.plan, work.model))
            links[index], before = link, link.hash
    return links


def _sample(work: Work, section: SectionPlan, latents: dict[int, Tensor], on_step: Step) -> tuple[SectionResult, int]:
    """The section, and the seed that its noise was drawn with."""
    plan, model, start = work.plan, work.model, work.starts[section.shot]
    for attempt in range(RETRIES + 1):
        seed = section.seed if attempt == 0 else retry_seed(section.seed, attempt)
        try:
            result = sample_section(
                model,
                section,
                sampler=plan.sampler,
                order=plan.order,
                noise=section_noise(seed, model.latent_channels, plan.size, draw=section.draw),
                start=start,
                text=work.texts[section.prompt],
                negative=work.texts[section.negative_prompt],
                history=gather_history(section.history, latents, start.latent),
                on_step=lambda step: on_step(section, step),
            )
            return result, seed
        except NonFiniteLatents as error:
            if work.options.on_nan != "retry" or attempt == RETRIES:
                tried = f" {attempt + 1} seeds were tried." if attempt else ""
                raise RenderError(
                    f"scene {section.scene}, section {section.index}, step {error.step}: the latents hold NaN or "
                    f"infinity; what is finished is kept.{tried} Try --on-nan retry, --dtype float32 or another seed "
                    "for the scene"
                ) from error
    raise AssertionError("the last attempt returns or raises")


def _remember(past: Mapping[int, Tensor], section: SectionPlan, latents: Tensor) -> dict[int, Tensor]:
    """Latent frames by their position in the shot: the start, this section, and as much as a history reaches back."""
    first = SECTION_LATENTS * section.place + 1
    near = {position: frame for position, frame in past.items() if position == 0 or abs(position - first) <= HISTORY}
    return near | {first + k: frame for k, frame in enumerate(latents.split(1, dim=2))}
