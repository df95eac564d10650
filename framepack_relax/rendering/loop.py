"""Renders films into run folders: whole, streamed, or put together from shots that others have sampled.

A run folder holds story.yaml with images/, plan.json, shots/NN/NNN.safetensors, video.mp4, contact.png, curves.png and
report.json. A section that is on disk, whole and made from the same, is not rendered again; what is not needed for
the others is not loaded.
"""

import json
import os
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import CancelledError, RenderError
from ..families.backend import Backend, Decoder, unread_notes
from ..families.heap import give_back
from ..families.loader import Loading
from ..planning.renderplan import RenderPlan, SectionPlan
from ..storyboard import Storyboard
from ..storyboard.messages import printable
from ..video.contact import ContactSheet
from ..video.curves import draw_curves
from ..video.motion import MotionMeter
from .carry import story_tags
from .ensure import kept
from .events import Event, Hear, nobody, noting, telling
from .finish import finish
from .folder import RunFolder, Verdict, writing
from .jobs import (
    ANOTHER_VAE,
    Conditions,
    Row,
    ShotJob,
    finite_pixels,
    make_jobs,
    render_shot,
    render_shots,
    to_device,
    turn,
)
from .mark import CANCELLED, FILM, PICTURES, REPORT, call_off
from .report import caption, film_report, film_tags, section_report
from .session import USUAL, AnyModel, Options, Session, made_with, opened, provenance, settle
from .takes import take_rows


@dataclass(frozen=True, kw_only=True)
class FinishedSection:
    """A section that is decoded, in film order; `frames` uint8 [T, H, W, 3] are what became final with it.

    A decoder that blends sections still changes the last frames with the next one, so that frames lag behind.
    """

    plan: SectionPlan
    latents: Tensor  # [1, C, T, h, w] float32
    frames: NDArray[np.uint8]
    first_frame: int  # film-wide number of frames[0]
    report: Row


@dataclass(frozen=True, kw_only=True)
class RenderedFilm:
    """What a render leaves behind."""

    path: Path
    folder: Path
    plan: RenderPlan
    report: dict[str, Any]
    finished: Path | None = None  # by the board's commands


def render(
    story: Storyboard,
    *,
    out: str | Path,
    model: AnyModel | None = None,
    options: Options = USUAL,
    on_event: Hear = nobody,
) -> RenderedFilm:
    """Renders `story` into the folder `out` and returns where the film is; one that is finished is given as it is.

    Raises StoryboardError, ModelError or RenderError before the first section wherever it can be known by then. While
    it works, `out`/video.part.mp4 is a film that can be played up to the last section; an older film stays until the
    new one is whole.
    """
    chosen = model or Loading(name=story.model)
    import_module("..video.reader", __package__)  # that it is not installed is said before anything is made
    session = settle(story, Path(out), chosen, options)
    call_off(session.out, False)
    return _render(session, chosen, on_event)


def _render(session: Session, chosen: AnyModel, on_event: Hear) -> RenderedFilm:
    """The film of a session, which grows while it is sampled."""
    begun = time.perf_counter()
    with telling(on_event), opened(session, noting(on_event)) as folder:
        verdicts = session.verdicts(folder)
        if film := _finished(session, folder, verdicts, on_event):
            return film
        backend = chosen.load()
        conditions = Conditions(session=session, backend=backend)
        rows = render_shots(make_jobs(session, chosen, verdicts), conditions, on_event)
        return _write(conditions, folder, rows, on_event, begun)


def stream(
    story: Storyboard,
    *,
    out: str | Path,
    model: AnyModel | None = None,
    options: Options = USUAL,
    on_event: Hear = nobody,
) -> Iterator[FinishedSection]:
    """Renders `story` and hands over its sections in film order; each is on disk under `out`/shots by then.

    Where a model renders a shot from its end, its sections come when the first, which is rendered last, is done.
    """
    chosen = model or Loading(name=story.model)
    session = settle(story, Path(out), chosen, options)
    call_off(session.out, False)
    with telling(on_event), opened(session, noting(on_event)) as folder:
        verdicts, backend = session.verdicts(folder), chosen.load()
        _tell(session, verdicts, on_event)
        _unread(session, backend, on_event)
        conditions = Conditions(session=session, backend=backend)
        rows = render_shots(make_jobs(session, chosen, verdicts), conditions, on_event)
        yield from _decoded(conditions, folder, rows)


def render_one_shot(
    story: Storyboard, shot: int, *, out: Path, model: AnyModel, options: Options = USUAL, on_event: Hear = nobody
) -> RenderedFilm | None:
    """`render_part` of a storyboard's shot, counted from 0. Raises RenderError for what keeps nothing of a film."""
    if options.fresh or options.strict:
        raise RenderError("shot: fresh and strict are for the whole film; leave one of both out")
    session = settle(story, out, model, options)
    if shot not in range(count := len(session.plan.shots)):
        raise RenderError(f"shot {shot}: there is none; the film has {count}, counted from 0")
    if os.path.lexists(session.out / CANCELLED):
        raise CancelledError(f"{session.out}: the film was called off; render it whole, or emit its commands again")
    jobs = make_jobs(session, model, session.verdicts(session.folder(noting(on_event))))
    return render_part(jobs[shot], model.load(), on_event)


def render_part(job: ShotJob, backend: Backend, on_event: Hear = nobody) -> RenderedFilm | None:
    """Renders a shot, and makes the film where all the others are there: while it samples, or behind it where they came
    meanwhile. None where some are not.

    Raises RenderError; BusyError where another is at work on the same shot, or on the film.
    """
    session = job.session
    folder = session.folder(noting(on_event))
    missing = {section.shot for section, why, _ in session.verdicts(folder) if why is not None}
    if missing <= {job.shot}:
        return _render(session, backend, on_event)
    _tell(session, session.verdicts(folder, [session.plan.shots[job.shot]]), on_event)
    if job.shot in missing:
        render_shot(job, backend, on_event)
    there = all(why is None for _, why, _ in session.verdicts(folder))
    return assemble(session, backend, on_event) if there else None


def assemble(session: Session, backend: Backend, on_event: Hear = nobody) -> RenderedFilm:
    """Makes the film of sections that are all on disk, whoever sampled them: mp4, pictures, report.

    Raises RenderError that names the first section that is not.
    """
    begun = time.perf_counter()
    session = replace(session, options=replace(session.options, fresh=False, strict=False))  # its jobs had these
    with telling(on_event), opened(session, noting(on_event)) as folder:
        verdicts = session.verdicts(folder)
        if film := _finished(session, folder, verdicts, on_event):
            return film
        for section, why, _ in verdicts:
            if why is not None:
                raise RenderError(f"section {section.index} (scene {section.scene}): {why}; render its shot first")
        conditions = Conditions(session=session, backend=backend)
        conditions.add([])
        return _write(conditions, folder, _kept(session, folder), on_event, begun)


def _tell(session: Session, verdicts: list[Verdict], on_event: Hear) -> None:
    on_event(Event(kind="plan", plan=session.plan))
    for text in session.notes:
        on_event(Event(kind="warning", text=text))
    on_event(Event(kind="verdicts", verdicts=tuple((section.index, why, note) for section, why, note in verdicts)))


def _finished(session: Session, folder: RunFolder, verdicts: list[Verdict], on_event: Hear) -> RenderedFilm | None:
    """The film, if it is there already; tells what is kept."""
    report = session.finished(folder, verdicts)
    _tell(session, [verdict._replace(why=None) for verdict in verdicts] if report else verdicts, on_event)
    return _film(session, report, on_event) if report else None


def _film(session: Session, report: dict[str, Any], on_event: Hear) -> RenderedFilm:
    path, finished = session.out / FILM, finish(session, on_event)
    on_event(Event(kind="film", text=str(path)))
    return RenderedFilm(path=path, folder=session.out, plan=session.plan, report=report, finished=finished)


def _unread(session: Session, backend: Backend, on_event: Hear) -> dict[str, list[str]]:
    """What the model does not read of each prompt, and tells it, with its notes."""
    unread = backend.unread(section.prompt for section in session.plan.sections)
    for text in (*backend.notes, *unread_notes(unread)):
        on_event(Event(kind="warning", text=text))
    said = {(s.prompt, words): s.scene for s in session.plan.sections for words in s.emphasis}
    for (prompt, words), scene in said.items():
        if not backend.word_tokens(prompt, [words])[words]:
            fact = f"{printable(words)!r} stands where the model no longer reads"
            on_event(Event(kind="warning", text=f"scene {scene}: emphasis: {fact}; put it further to the front"))
    for text in {adapter.fit.in_words: None for adapter in session.adapters if adapter.fit.left}:
        if text not in session.plan.warnings:  # the file was not here when the film was planned
            on_event(Event(kind="warning", text=text))
    return unread


def _write(
    conditions: Conditions, folder: RunFolder, rows: Generator[Row], on_event: Hear, begun: float
) -> RenderedFilm:
    """The mp4 of sections that are on disk as soon as `rows` tell of them, then pictures and report."""
    from ..video.writer import Mp4Writer, WriteError  # needs PyAV, which `stream` can do without

    session, backend = conditions.session, conditions.backend
    plan, film = session.plan, session.out / FILM
    if backend.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(backend.device)
    unread = _unread(session, backend, on_event)
    sheet = ContactSheet(rows=[("", *scene.frames) for scene in plan.scenes])
    meters, sections = [MotionMeter() for _ in plan.shots], list[Row]()
    made = {"model": plan.model, **made_with(backend, session.weights, session.adapters), "film": session.mark.film}
    made["judges"] = backend.family.judges
    tags = {**film_tags(plan, made, {s.index: s.seed for s in plan.sections}), **story_tags(session, folder.note)}
    encoding: dict[str, Any] = {"fps": plan.rate, "size": plan.size, "crf": session.story.crf, "metadata": tags}
    encoding["sound"] = _sound(session, on_event)

    def take(done: FinishedSection) -> None:
        if len(done.frames):
            writer.write(done.frames)
            sheet.add(done.first_frame, done.frames)
            meters[done.plan.shot].add(done.frames)

    with (
        writing(film, kind=WriteError),
        Mp4Writer(film, settle=folder.settle, **encoding) as writer,
        closing(_decoded(conditions, folder, rows)) as finished,
        ThreadPoolExecutor(max_workers=1) as beside,
    ):
        taken = beside.submit(lambda: None)
        for done in finished:
            taken.result()  # one section is written while the next is sampled
            taken = beside.submit(take, done)
            sections.append(done.report)
        taken.result()
        made |= provenance(backend)  # which is placed by now
        seeds = {report["index"]: report["seed"] for report in sections}  # a retry has changed some
        writer.metadata |= film_tags(plan, {**made, "packets": writer.digest}, seeds)
        folder.check_there()
    sampled = [kept(plan.sections[row["index"]], row.get("tries", ())) for row in sections]
    comes = [[anchor for index in scene.sections for anchor in plan.sections[index].anchors] for scene in plan.scenes]
    firsts = [sampled[scene.sections[0]] for scene in plan.scenes]
    sheet.call(list(map(caption, firsts, comes)))
    ends = [sampled[scene.sections[-1]] for scene in plan.scenes]
    curves = draw_curves([(end.scene, end.sigmas, end.scales) for end in ends])
    report = film_report(plan, made, backend, sections, meters, time.perf_counter() - begun) | {"unread": unread}
    report["lora"] = [adapter.row for adapter in session.adapters]
    if session.sound:
        report["audio"] = {"seconds": session.sound.seconds, "digest": session.sound.digest}
    report |= {"from": session.before.row} if session.before else {}
    report |= {"loop": {"seam": meters[-1].seam_to(meters[0])}} if session.story.loop else {}
    report |= {"takes": taken_rows} if (taken_rows := take_rows(plan, report["sections"])) else {}
    told = json.dumps(report, indent=1).encode("utf8")
    folder.write({**dict(zip(PICTURES, (sheet.png(), curves), strict=True)), REPORT: told})
    return _film(session, report, on_event)


def _sound(session: Session, on_event: Hear) -> bytes:
    """The film's, encoded; tells where the track is shorter or longer."""
    if session.sound is None:
        return b""
    from ..video.sound import encode_sound

    length, track = session.plan.frames / session.plan.rate, session.sound
    if abs(track.seconds - length) > 1 / session.plan.rate:
        fact = "the rest is silent" if track.seconds < length else "its end is cut"
        said = f"{track.path}: lasts {track.seconds:.2f} s, the film {float(length):.2f} s; {fact}"
        on_event(Event(kind="warning", text=said))
    return encode_sound(track, length)


def _decoded(conditions: Conditions, folder: RunFolder, rows: Generator[Row]) -> Generator[FinishedSection]:
    """Each section as soon as it follows in the film."""
    session, backend = conditions.session, conditions.backend
    plan, frames = session.plan, 0
    with closing(rows):
        for row in _in_order(rows):
            section = plan.sections[row["index"]]
            shot = plan.shots[section.shot]
            if section.place == 0:
                start = folder.load_start(shot.index, session.starts[shot.index]) if shot.image else None
                if shot.image and start is None:
                    raise RenderError(f"{session.out}: the start latent of shot {shot.index} is gone; render it again")
                first = None if start is None else to_device(backend, start)
                decoder = backend.decoder(plan.decode, first, len(shot.sections), plan.options)
            done = _decode(session, folder, backend, decoder, section, row, frames)
            if conditions.preview and frames + len(done.frames) == section.frames[1]:  # else they lag behind
                conditions.preview.learn(done.latents, done.frames[section.frames[0] - section.frames[1] :])
            yield done
            frames += len(done.frames)
            del done
            give_back()
    assert frames == plan.frames, "a film has the frames that its plan says"


def _in_order(rows: Iterable[Row]) -> Iterator[Row]:
    """Each row as soon as all before it in the film are there."""
    waiting: dict[int, Row] = {}
    following = 0
    for row in rows:
        waiting[row["index"]] = row
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _kept(session: Session, folder: RunFolder) -> Generator[Row]:
    """The rows of sections that are on disk."""
    for section in session.plan.sections:
        stored = folder.load_section(section, session.keys[section.index])
        said: Any = {"seed": stored.seed, "forwards": {}, "reused": True, "seconds": 0}
        yield section_report(section, tries=stored.tries, **said)


def _decode(
    session: Session,
    folder: RunFolder,
    backend: Backend,
    decoder: Decoder,
    section: SectionPlan,
    row: Row,
    first_frame: int,
) -> FinishedSection:
    """The section as it lies on disk and what becomes final with it; `row` is told how long that took."""
    clock = time.perf_counter()
    latents = to_device(backend, folder.load_section(section, session.keys[section.index]).latents)
    saved = "the latents are kept"
    with turn(backend, session, section) as where, finite_pixels(where, saved):
        frames = decoder.push(latents)
    if frames.size and frames.min() == frames.max() and latents.min() != latents.max():
        fact = "all frames that the VAE makes are of one value, and the latents are not"
        raise RenderError(f"{where}: {fact}; {saved}. {ANOTHER_VAE}")
    row["seconds"]["decoding"] = round(time.perf_counter() - clock, 3)
    return FinishedSection(plan=section, latents=latents.cpu(), frames=frames, first_frame=first_frame, report=row)
