"""Renders takes of a scene into the run folder, and looks at all that are there: figures, and a contact sheet."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import RelaxError, RenderError
from ..families.backend import Backend
from ..families.loader import Loading
from ..planning.renderplan import SceneTiming
from ..storyboard import Storyboard, read_storyboard
from ..storyboard.edit import write_fields
from ..video.contact import ContactSheet
from ..video.motion import MotionMeter
from .events import Event, Hear, nobody, noting, telling
from .folder import BROKEN, NOT_THERE, RunFolder
from .jobs import Conditions, look, make_jobs, render_shots, to_device
from .mark import START_FILE, STORY, Mark, Note, read_mark, section_file
from .session import USUAL, AnyModel, Options, Session, settle
from .stored import read_tags
from .takes import (
    FILE,
    STRIP,
    TAKES,
    About,
    Take,
    choose_take,
    keep_rendered,
    name_take,
    names_of,
    read_take,
    save_about,
    scene_number,
    with_take,
)

NO_LOCK = "is locked, and takes of a draft do not fit the film; pick one of the film, or do without the lock"


@dataclass(frozen=True, kw_only=True)
class Takes:
    """All takes of a scene that are in a run folder, and where the contact sheet of them is."""

    takes: tuple[Take, ...]
    contact: Path


def render_takes(
    story: Storyboard,
    scene: str,
    count: int,
    *,
    out: Path,
    model: AnyModel | None = None,
    options: Options = USUAL,
    on_event: Hear = nobody,
) -> Takes:
    """Sees to it that the folder `out` has takes of a scene with its own noise and with `count` others, all on the past
    that it has now; what is there stays and is not rendered again, a past that is not there is rendered.

    Raises StoryboardError, ModelError, RenderError; the last too where the folder has another past, which would be
    written over.
    """
    number, chosen = scene_number(story, scene), model or Loading(name=story.model)
    film = settle(story, out, chosen, options)
    timing = film.plan.scenes[number]
    boards = [with_take(story, number, name_take(noise, "0" * 6)) for noise in range(1, count + 2)]
    with telling(on_event), _held(film, timing, noting(on_event)) as folder:
        backend = chosen.load()
        for noise, board in enumerate(boards, 1):
            session = _one_take(settle(board, out, chosen, options), folder.mark, timing, noise)
            _render(session, folder, backend, timing, on_event)
        return _look_at_all(session, folder, backend, timing, story.scenes[number].take, on_event)


@contextmanager
def _held(session: Session, timing: SceneTiming, note: Note) -> Iterator[RunFolder]:
    """Holds the folder; marks it where no film has begun in it, for one that has stays whose it is."""
    folder, there = session.folder(note), read_mark(session.out)
    begun = there is not None and there.film != ""
    if begun:
        folder.mark = session.mark.model_copy(update={"film": ""})
    with folder.held():
        _spare(session, folder, timing)
        if not begun:
            session.begin(folder)
        yield folder


def _spare(session: Session, folder: RunFolder, timing: SceneTiming) -> None:
    """Raises RenderError where the past of a scene that is there is another: rendering it would write over that."""
    shot = session.plan.shots[timing.shot]
    past = shot.sections[: min(shot.sections.index(index) for index in timing.sections)]
    verdicts = session.verdicts(folder, [replace(shot, sections=past)])
    other = [f"{section_file(each)}: {why}" for each, why, _ in verdicts if why not in (None, NOT_THERE, BROKEN)]
    start = START_FILE.format(shot.index)
    if shot.image and read_tags(folder.path / start).get("key", "") not in ("", session.starts[shot.index]):
        other.append(f"{start}: the image, its seed or the size changed")
    if other:
        fact = f"what lies there before scene {timing.scene} was made otherwise ({other[0]})"
        raise RenderError(f"{folder.path}: {fact}, and `take` writes over nothing; {_cure(session, folder.path)}")


def _cure(session: Session, out: Path) -> str:
    """What to do about a past that is another, by the storyboard that lies in the folder."""
    try:
        there = read_storyboard(out / STORY)
    except (RelaxError, OSError):
        return "render the film first, or take another --out"
    mine, said = session.story, list[str]()
    if there.size and there.size != session.plan.size:
        said.append(f"it is of size {there.size[0]}x{there.size[1]}, as --draft may have made it")
    theirs = {"model": there.model, "seed": there.seed, "steps": there.steps}
    own = {"model": session.plan.model, "seed": mine.seed, "steps": mine.steps}
    said += [f"it has --{name} {value}, and this {own[name]}" for name, value in theirs.items() if value != own[name]]
    if there.start_from and there.start_from.folder and not (mine.start_from and mine.start_from.folder):
        said.append(f"it starts --from {there.start_from.folder}")
    if said:
        return f"{'; '.join(said)}: give the options that it was rendered with, or another --out"
    return "the board has changed since: render the film first, or take another --out"


def _one_take(session: Session, mark: Mark, timing: SceneTiming, noise: int) -> Session:
    """What renders a take: the scene's shot up to it, its files among the takes; the folder stays marked as it is."""
    sections, shots = list(session.plan.sections), list(session.plan.shots)
    shot = shots[timing.shot]
    *_, last = (place for place, index in enumerate(shot.sections) if index in timing.sections)
    take = name_take(noise, session.keys[shot.sections[last]].key)
    for nth, index in enumerate(timing.sections):
        sections[index] = replace(sections[index], take=take, file=FILE.format(timing.scene, take, nth))
    shots[timing.shot] = replace(shot, sections=shot.sections[: last + 1])
    plan = replace(session.plan, sections=tuple(sections), shots=tuple(shots))
    return replace(session, plan=plan, mark=mark)


def _render(session: Session, folder: RunFolder, backend: Backend, timing: SceneTiming, on_event: Hear) -> None:
    """A take; one that the film has already is copied from there."""
    shot = session.plan.shots[timing.shot]
    for index in timing.sections:
        section, key = session.plan.sections[index], session.keys[index]
        own = folder.look(replace(section, file=""), key)
        if own[1] is None and folder.look(section, key)[0] is None:
            folder.copy(section)
    verdicts = session.verdicts(folder, [shot])
    name = str(session.plan.sections[timing.sections[0]].take)
    on_event(Event(kind="take", text=f"scene {timing.scene}: take {name}"))
    on_event(Event(kind="plan", plan=session.plan))
    on_event(Event(kind="verdicts", verdicts=tuple((section.index, why, note) for section, why, note in verdicts)))
    job = make_jobs(session, backend, verdicts)[shot.index]
    deque(render_shots([job], Conditions(session=session, backend=backend), on_event), maxlen=0)
    fps, count = float(session.plan.fps), len(timing.sections)
    save_about(folder, timing.scene, name, About(sections=count, fps=fps, seconds=timing.asked_seconds))


def _look_at_all(
    session: Session, folder: RunFolder, backend: Backend, timing: SceneTiming, picked: str | None, on_event: Hear
) -> Takes:
    """Figures of all takes on the past of this one, and the contact sheet."""
    plan, first = session.plan, session.plan.sections[timing.sections[0]]
    shot, count, takes = plan.shots[first.shot], timing.frames[1] - timing.frames[0], list[Take]()
    start = folder.load_start(shot.index, session.starts[shot.index]) if shot.image else None
    begin = None if start is None else to_device(backend, start)
    before = [plan.sections[first.index - 1]] if first.index - 1 in shot.sections else []
    past = [folder.load_section(section, session.keys[section.index]).latents for section in before]
    looked, files = dict[str, NDArray[np.uint8]](), dict[str, bytes]()
    for name in names_of(folder.path, timing.scene):
        made, wrong = read_take(folder.path, plan, timing, name, session.weights)
        if wrong:
            on_event(Event(kind="warning", text=f"scene {timing.scene}: take {name} is left out: {wrong}"))
            continue
        shown = [to_device(backend, latents) for latents in (*past, *(stored.latents for stored in made))]
        frames = look(session, backend, first, begin, shown)
        meter, lead, usual = MotionMeter(), len(frames) - count, first.frames[1] - first.frames[0]
        meter.add(frames)
        own = slice(max(lead - 1, 0), None)
        figures = {"motion": np.mean(meter.changes[own]), "change": np.mean(meter.overall[own])}
        seam = meter.figures([(0, lead), (lead, lead + usual)])[-1].seam if before else None
        said = {kind: float(figure) for kind, figure in figures.items()}
        takes.append(Take(scene=timing.scene, name=name, seam=seam, on_board=name == picked, **said))
        looked[name] = frames[lead:]
        on_event(Event(kind="take", text=f"scene {timing.scene}: take {takes[-1].in_words()}"))
    sheet = ContactSheet(rows=[(take.in_words(), n * count, (n + 1) * count) for n, take in enumerate(takes)])
    for number, (take, frames) in enumerate(zip(takes, looked.values(), strict=True)):
        alone = ContactSheet(rows=[(take.in_words(), 0, count)], columns=5)
        sheet.add(number * count, frames)
        alone.add(0, frames)
        files[STRIP.format(timing.scene, take.name)] = alone.png()
    file = f"{TAKES.format(timing.scene)}/contact.png"
    folder.write({**files, file: sheet.png()})
    return Takes(takes=tuple(takes), contact=folder.path / file)


def pick_take(
    story: Storyboard, scene: str, take: str | None, *, lock: bool, out: Path, model: AnyModel, options: Options
) -> str:
    """Writes into the file of a storyboard which take in the folder `out` a scene is; see `fr.pick`."""
    if story.file is None:
        raise RenderError("pick writes into a storyboard's file; give its path")
    number = scene_number(story, scene)
    name = keep_rendered(story, out, scene) if take is None else choose_take(out, scene, take)
    free = tuple(each.model_copy(update={"lock": False}) for each in story.scenes)
    alone = with_take(story.changed(scenes=free), number, name, lock or story.scenes[number].lock)
    settle(alone, out, model, options)
    written = read_storyboard(story.file)  # as it is without what was changed of it for the film
    where = scene_number(written, scene)
    if written.scenes[where].lock and not story.scenes[number].lock:
        raise RenderError(f"scene {scene}: {NO_LOCK}")
    write_fields(story.file, written, {(where, "take"): name, **({(where, "lock"): True} if lock else {})})
    return name
