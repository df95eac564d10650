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
from ..families.backend import Backend, Decoder, Given, NonFinitePixels, Preset, Prompt, Start
from ..families.heap import give_back
from ..families.loading import Loading
from ..families.memory import Demand, choose_preset, enough_memory
from ..families.tokens import unread_notes
from ..planning.renderplan import RenderPlan, SectionPlan
from ..planning.seeds import retry_seed
from ..sampling.section import NonFiniteLatents, SectionResult, sample
from ..storyboard import Storyboard
from ..video.contact import ContactSheet
from ..video.curves import draw_curves
from ..video.motion import MotionMeter
from .carry import story_tags
from .folder import Verdict, writing
from .mark import FILM, PICTURES, REPORT, Note
from .report import caption, film_report, film_tags, section_report
from .session import USUAL, AnyModel, Options, Session, made_with, opened, settle

RETRIES = 3
Step = Callable[[SectionPlan, int], None]


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Callbacks: the verdicts; notes on the model, on what it does not read of each prompt, and on files that are put
    aside; then every step, and every section that is on disk.

    `on_section` hears the seed too, which a retry may have changed. Of a film that is finished only the verdicts are
    told.
    """

    on_note: Note = lambda note: None
    on_verdicts: Callable[[list[Verdict]], None] = lambda verdicts: None
    on_step: Step = lambda section, step: None
    on_section: Callable[[SectionPlan, int], None] = lambda section, seed: None


@dataclass(frozen=True, kw_only=True)
class FinishedSection:
    """A section that is decoded, in film order; `frames` uint8 [T, H, W, 3] are what became final with it.

    A decoder that blends sections still changes the last frames with the next one, so that frames lag behind.
    """

    plan: SectionPlan
    latents: Tensor  # [1, C, T, h, w] float32
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
    model: Backend
    preset: Preset
    texts: Mapping[str, Prompt]
    starts: Mapping[int, Start]
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
        made = {"model": plan.model, **made_with(work.model, session.weights), "film": session.film}
        made["judges"] = work.model.family.judges
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
        curves = draw_curves([(end.scene, end.sigmas, end.scales) for end in ends])
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

    Where a model renders a shot from its end, its sections come when the first, which is rendered last, is done.
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
    begun &= session.starts.keys()
    stored = {shot: latent for shot in begun if (latent := folder.load_start(shot, session.starts[shot])) is not None}
    missing = {shot.index for shot in plan.shots if shot.image} - stored.keys()
    shots = {section.shot for section in needed if plan.shots[section.shot].image} | missing
    images = {shot: (session.images[plan.shots[shot].image or ""], plan.shots[shot].seed) for shot in sorted(shots)}
    prompts = [section.prompt for section in needed]
    demand = _demand(model, plan, plan.sections[0])
    with model.lock:
        model.preset = preset = choose_preset(demand)
        with enough_memory("encoding prompts and images", demand):
            texts = model.encode_prompts([*prompts, *(section.negative_prompt for section in needed)])
            starts = dict(model.encode_starts(images))
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
    unread = {prompt: text.unread for prompt, text in texts.items() if text.unread}
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


def _demand(model: Backend, plan: RenderPlan, section: SectionPlan) -> Demand:
    return Demand(model=model, context=section.context, latents=section.latents, size=plan.size)


def _to(model: Backend, latents: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(latents.copy()).to(model.device)


def _sections(work: Work, watch: Watcher) -> Iterator[FinishedSection]:
    """The loop: shot by shot, section by section in rendering order, decoded as soon as they follow in the film."""
    plan, model, folder, keys = work.plan, work.model, work.session.folder, work.session.keys
    for shot in plan.shots:
        decoder = model.decoder(plan.decode, work.latents.get(shot.index), len(shot.sections), plan.options)
        past: dict[int, Tensor] = {}  # latents by place in the shot, of sections that others still need
        last = {place: turn for turn, i in enumerate(shot.sections) for place in plan.sections[i].context.needs}
        waiting: dict[int, dict[str, Any]] = {}  # reports of sections that are not decoded yet
        following, next_frame, after = min(shot.sections), shot.frames[0], ""
        for turn, index in enumerate(shot.sections):
            section, reused, clock = plan.sections[index], work.why[index] is None, time.perf_counter()
            if reused:
                stored = folder.load_section(section)
                result, seed, after = SectionResult(latents=_to(model, stored.latents)), stored.seed, stored.digest
            else:
                with _turn(work, section):
                    result, seed = _sample(work, section, past, watch.on_step)
                    whole = result.latents.float().cpu().numpy()
                after = folder.save_section(section, whole, keys[index], seed=seed, after=after, made=work.session.made)
            past[section.place] = result.latents
            past = {place: latents for place, latents in past.items() if last.get(place, -1) > turn}
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
    with model.lock, enough_memory(where, _demand(model, work.plan, section)):
        model.preset = work.preset
        model.place()
        yield


def _sample(work: Work, section: SectionPlan, past: Mapping[int, Tensor], on_step: Step) -> tuple[SectionResult, int]:
    """The section, and the seed that its noise was drawn with."""
    plan, model = work.plan, work.model

    def stepped(step: int) -> None:
        work.session.folder.check_there()
        on_step(section, step)

    for attempt in range(RETRIES + 1):
        seed = section.seed if attempt == 0 else retry_seed(section.seed, attempt)
        noise = model.noise(section.latents, plan.size, seed, draw=section.draw)
        inputs = model.begin(
            Given(
                noise=noise,
                context=section.context,
                steps=section.steps,
                past={place: past[place] for place in section.context.needs},
                start=work.starts.get(section.shot),
                prompt=work.texts[section.prompt],
                negative=work.texts[section.negative_prompt],
                options=plan.options,
            )
        )
        try:
            return sample(model, inputs, section.steps, noise, sampler=plan.sampler, on_step=stepped), seed
        except NonFiniteLatents as error:
            if work.session.options.on_nan != "retry" or attempt == RETRIES:
                tried = f" {attempt + 1} seeds were tried." if attempt else ""
                raise RenderError(
                    f"scene {section.scene}, section {section.index}, step {error.step}: the latents hold NaN or "
                    f"infinity; what is finished is kept.{tried} Try on_nan='retry' (--on-nan retry), dtype='float32' "
                    "(--dtype float32) or another seed for the scene"
                ) from error
    raise AssertionError("the last attempt returns or raises")
