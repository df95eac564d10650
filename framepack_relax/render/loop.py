"""Renders a storyboard: plan, encode, then section after section to latents, frames, film and report.

A run folder holds story.yaml with images/, plan.json, shots/NN/NNN.safetensors, video.mp4, contact.png, curves.png and
report.json. A section that is on disk, whole and made from the same, is not rendered again; what is not needed for
the others is not loaded.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import RenderError
from ..models.heap import give_back, keep_steady
from ..models.loading import Loading
from ..models.memory import choose_preset, enough_memory
from ..models.parts import Preset
from ..models.video_model import StartCondition, TextCondition, VideoModel, unread_notes
from ..plan.grid import SECTION_LATENTS
from ..plan.history import HISTORY
from ..plan.renderplan import RenderPlan, SectionPlan
from ..plan.seeds import retry_seed
from ..relax.latents import match_statistics
from ..sampling.section import NonFiniteLatents, SectionResult, gather_history, sample_section, section_noise
from ..storyboard import Storyboard
from ..video.contact import ContactSheet
from ..video.curves import draw_curves
from ..video.decode import BlendDecoder, NonFinitePixels
from ..video.motion import MotionMeter
from ..video.stream import StreamDecoder
from .carry import story_tags
from .folder import Verdict, writing
from .mark import FILM, PICTURES, REPORT, Note
from .report import caption, film_report, film_tags, section_report
from .session import USUAL, AnyModel, Options, Session, made_with, opened, settle

RETRIES = 3
Step = Callable[[SectionPlan, int], None]
Decoder = StreamDecoder | BlendDecoder


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Callbacks: the verdicts; notes on the model, on what it does not read of each prompt, and on files that are put
    aside; then every step, and every section that is on disk.

    `on_section` hears the seed too, which a retry may have changed. In inverted order frames come later. Of a film that
    is finished only the verdicts are told.
    """

    on_note: Note = lambda note: None
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
    """A session whose model is loaded. Encoded are the texts, by prompt, and the start images, by shot, that sections
    need which are still to be rendered."""

    session: Session
    why: Mapping[int, str | None]  # verdicts by section
    model: VideoModel
    preset: Preset
    texts: Mapping[str, TextCondition]
    starts: Mapping[int, StartCondition]
    latents: Mapping[int, Tensor]  # start latents by shot
    unread: dict[str, list[str]]

    @property
    def plan(self) -> RenderPlan:
        return self.session.plan


def render(
    story: Storyboard,
    *,
    out: str | Path,
    model: AnyModel | None = None,
    options: Options = USUAL,
    watch: Watcher = Watcher(),
) -> RenderedFilm:
    """Renders `story` into the folder `out` and returns where the film is; one that is finished is given as it is.

    Raises StoryboardError, ModelError or RenderError before the first section wherever it can be known by then. While
    it works, `out`/video.part.mp4 is a film that can be played up to the last section; an older film stays until the
    new one is whole.
    """
    from ..video.writer import Mp4Writer, WriteError  # needs PyAV, which `stream` can do without

    begun = time.perf_counter()
    session = settle(story, Path(out), model or Loading(name=story.model), options, watch.on_note)
    plan, folder, film = session.plan, session.folder, session.folder.path / FILM
    with opened(session) as verdicts:
        report = session.finished(verdicts)
        watch.on_verdicts([verdict._replace(why=None) for verdict in verdicts] if report else verdicts)
        if report:
            return RenderedFilm(path=film, folder=folder.path, plan=plan, report=report)
        work = _prepare(session, verdicts, watch)
        sheet = ContactSheet(rows=[(caption(plan, scene.sections[0]), *scene.frames) for scene in plan.scenes])
        meters = [MotionMeter() for _ in plan.shots]
        sections: list[dict[str, Any]] = []
        made = {"model": work.model.source.name, **made_with(work.model, session.weights), "film": session.film}
        seeds = {section.index: section.seed for section in plan.sections}
        tags = {**film_tags(plan, made, seeds), **story_tags(session)}
        encoding: dict[str, Any] = {"fps": plan.rate, "size": plan.size, "crf": story.crf, "metadata": tags}
        with writing(film, kind=WriteError), Mp4Writer(film, settle=folder.settle, **encoding) as writer:
            for done in _sections(work, watch):
                if len(done.frames):
                    writer.write(done.frames)
                    sheet.add(done.first_frame, done.frames)
                    meters[done.plan.shot].add(done.frames)
                sections.append(done.report)
            seeds = {report["index"]: report["seed"] for report in sections}  # a retry has changed some
            writer.metadata |= film_tags(plan, {**made, "packets": writer.packets.digest}, seeds)
            folder.check_there()
        ends = [plan.sections[scene.sections[-1]] for scene in plan.scenes]
        curves = draw_curves([(end.scene, end.sigmas, vars(end.scales)) for end in ends])
        report = film_report(plan, made, work.model, sections, meters, time.perf_counter() - begun)
        report["unread"] = work.unread
        told = json.dumps(report, indent=1).encode("utf8")
        folder.write({**dict(zip(PICTURES, (sheet.png(), curves), strict=True)), REPORT: told})
    return RenderedFilm(path=film, folder=folder.path, plan=plan, report=report)


def stream(
    story: Storyboard,
    *,
    out: str | Path,
    model: AnyModel | None = None,
    options: Options = USUAL,
    watch: Watcher = Watcher(),
) -> Iterator[FinishedSection]:
    """Renders `story` and hands over its sections in film order; each is on disk under `out`/shots by then.

    In inverted order a shot's sections come when its first, which is rendered last, is done.
    """
    session = settle(story, Path(out), model or Loading(name=story.model), options, watch.on_note)
    with opened(session) as verdicts:
        yield from _sections(_prepare(session, verdicts, watch), watch)


def _prepare(session: Session, verdicts: list[Verdict], watch: Watcher) -> Work:
    """Loads the model, and encodes what the sections need that must be rendered."""
    plan, folder, model = session.plan, session.folder, session.model.load()
    why = {section.index: why for section, why, _ in verdicts}
    needed = [plan.sections[index] for index, why in why.items() if why is not None]
    begun = {plan.sections[index].shot for index, why in why.items() if why is None}  # they go on from the same start
    stored = {shot: latent for shot in begun if (latent := folder.load_start(shot, session.starts[shot])) is not None}
    shots = {section.shot for section in needed} | {shot.index for shot in plan.shots} - stored.keys()
    images = {shot: (session.images[plan.shots[shot].image or ""], plan.shots[shot].seed) for shot in sorted(shots)}
    prompts = [section.prompt for section in needed]
    history = plan.sections[0].history
    with model.lock:
        model.preset = preset = choose_preset(model, history, plan.size)
        with enough_memory("encoding prompts and images", model, history, plan.size):
            texts, unread = model.encode_texts([*prompts, *(section.negative_prompt for section in needed)])
            starts = model.encode_images(images) if images else {}
            model.place()
        if model.identity != session.weights:
            fact = "its weights changed while the render began, or were edited and given up by memory=tiled"
            raise RenderError(f"{plan.model}: {fact}; load it again, or use another memory preset")
    latents = {shot: _to(model, latent) for shot, latent in stored.items()}
    for shot in sorted(starts.keys() - latents.keys()):
        latents[shot] = starts[shot].latent
        folder.save_start(shot, latents[shot].float().cpu().numpy(), session.starts[shot], session.made)
    starts = {shot: replace(start, latent=latents[shot]) for shot, start in starts.items()}
    kept = [section.prompt for section in plan.sections if section.prompt not in texts]
    unread |= model.unread(kept) if kept else {}
    for note in (*model.notes, *unread_notes(unread)):
        watch.on_note(note)
    return Work(
        session=session,
        why=why,
        model=model,
        preset=preset,
        texts=texts,
        starts=starts,
        latents=latents,
        unread=unread,
    )


def _to(model: VideoModel, latents: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(latents.copy()).to(model.device)


def _sections(work: Work, watch: Watcher) -> Iterator[FinishedSection]:
    """The loop: shot by shot, section by section in rendering order, decoded as soon as they follow in the film."""
    keep_steady()
    plan, model, folder, keys = work.plan, work.model, work.session.folder, work.session.keys
    for shot in plan.shots:
        start = work.latents[shot.index]
        decoder: Decoder = StreamDecoder(model.vae, start=start, rest=model.rest_of(work.preset))
        if plan.decode == "blend":
            decoder = BlendDecoder(model.vae, order=plan.order, start=start, sections=len(shot.sections))
        latents: dict[int, Tensor] = {0: start}
        colours: Tensor | None = None  # the first section to be rendered, whose colours stay
        waiting: dict[int, dict[str, Any]] = {}  # reports of sections that are not decoded yet
        following, next_frame, after = min(shot.sections), shot.frames[0], ""
        for index in shot.sections:
            section, reused, clock = plan.sections[index], work.why[index] is None, time.perf_counter()
            if reused:
                stored = folder.load_section(section)
                result, seed, after = SectionResult(latents=_to(model, stored.latents)), stored.seed, stored.digest
            else:
                with _turn(work, section):
                    result, seed = _sample(work, section, latents, watch.on_step)
                    if colours is not None:
                        result = replace(result, latents=match_statistics(result.latents, colours, plan.adain))
                    whole = result.latents.float().cpu().numpy()
                after = folder.save_section(section, whole, keys[index], seed=seed, after=after, made=work.session.made)
            colours = result.latents if colours is None else colours
            latents = _remember(latents, section, result.latents)
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
    latents = _to(work.model, work.session.folder.load_section(section).latents)
    where = f"scene {section.scene}, section {section.index}"
    cure = "the latents are kept. Try dtype=float32, or another copy of the VAE"
    try:
        with _turn(work, section):
            frames = decoder.push(latents)
    except NonFinitePixels as error:
        raise RenderError(f"{where}: the frames that the VAE makes hold NaN or infinity; {cure}") from error
    if frames.size and frames.min() == frames.max() and latents.min() != latents.max():
        raise RenderError(f"{where}: all frames that the VAE makes are of one value, and the latents are not; {cure}")
    report["seconds"]["decoding"] = round(time.perf_counter() - clock, 3)
    return FinishedSection(plan=section, latents=latents.cpu(), frames=frames, first_frame=first_frame, report=report)


@contextmanager
def _turn(work: Work, section: SectionPlan) -> Iterator[None]:
    """The model as this render needs it: others, in other threads or between two sections, may use it too."""
    model, where = work.model, f"scene {section.scene}, section {section.index}"
    with model.lock, enough_memory(where, model, section.history, work.plan.size):
        model.preset = work.preset
        model.place()
        yield


def _sample(work: Work, section: SectionPlan, latents: dict[int, Tensor], on_step: Step) -> tuple[SectionResult, int]:
    """The section, and the seed that its noise was drawn with."""
    plan, model, start = work.plan, work.model, work.starts[section.shot]

    def stepped(step: int) -> None:
        work.session.folder.check_there()
        on_step(section, step)

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
                on_step=stepped,
            )
            return result, seed
        except NonFiniteLatents as error:
            if work.session.options.on_nan != "retry" or attempt == RETRIES:
                tried = f" {attempt + 1} seeds were tried." if attempt else ""
                raise RenderError(
                    f"scene {section.scene}, section {section.index}, step {error.step}: the latents hold NaN or "
                    f"infinity; what is finished is kept.{tried} Try on_nan='retry' (--on-nan retry), dtype='float32' "
                    "(--dtype float32) or another seed for the scene"
                ) from error
    raise AssertionError("the last attempt returns or raises")


def _remember(past: Mapping[int, Tensor], section: SectionPlan, latents: Tensor) -> dict[int, Tensor]:
    """Latent frames by their position in the shot: the start, this section, and as much as a history reaches back."""
    first = SECTION_LATENTS * section.place + 1
    near = {position: frame for position, frame in past.items() if position == 0 or abs(position - first) <= HISTORY}
    return near | {first + k: frame for k, frame in enumerate(latents.split(1, dim=2))}
