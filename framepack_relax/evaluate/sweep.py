"""Renders and measures every film of a sweep; each is a line of films.jsonl as soon as it is done.

A sweep that was stopped goes on where it was: a line holds the hash of all that determines its film and its figures.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from textwrap import shorten

import numpy as np

from ..families.backend import Backend
from ..families.base import Family
from ..files import make_folder
from ..planning.planner import make_plan
from ..planning.renderplan import RenderPlan, SectionPlan
from ..rendering.folder import RunFolder, writing
from ..rendering.keys import SAMPLER_VERSION
from ..rendering.loop import RenderedFilm, render
from ..rendering.session import Options
from ..video.motion import MotionMeter
from .evaluation import Instruments, ends, evaluate
from .film import read_film
from .mistakes import told_at, try_all
from .rows import lines_of, read_rows
from .spec import Job
from .statistics import Row

FILMS = "films.jsonl"
EVERY = 4  # frames, of those that are asked who and where
MEASURES = 3  # raised when the same film would get other figures


def plan_films(jobs: Sequence[Job], family: Family) -> list[RenderPlan]:
    """The plan of each job. Raises StoryboardError with the mistakes of all of them, at their places in the sweep."""
    return try_all(lambda job: told_at(job.located, partial(make_plan, job.story, family)), jobs)


def seldom_meant(jobs: Sequence[Job], plans: Sequence[RenderPlan], model: Backend) -> Iterator[str]:
    """What is known of the model here, an arm's settings that are allowed all the same, what is not read of prompts."""
    yield from model.notes
    pairs = zip(jobs, plans, strict=True)
    yield from dict.fromkeys(f"{job.arm.id}, {warning}" for job, plan in pairs for warning in plan.warnings)
    unread = model.unread(section.prompt for plan in plans for section in plan.sections)
    shown = {" and ".join(parts): prompt for prompt, parts in unread.items()}
    yield from (f"the model {parts} in {shorten(prompt, 60)!r}" for parts, prompt in shown.items())


def run(
    jobs: Sequence[Job],
    plans: Sequence[RenderPlan],
    *,
    folder: RunFolder,
    model: Backend,
    instruments: Instruments,
    on_film: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """A row per job, in the order of the jobs and of their plans; calm sections that films share are rendered once.

    `folder` is held meanwhile. Raises EvaluationError where its films.jsonl holds what no sweep wrote.
    """
    told, store = read_rows(folder.path / FILMS), folder.path / "store"
    with writing(store):
        make_folder(store)
    rows, known = [], {row["key"]: row for row in told}
    for job, plan in zip(jobs, plans, strict=True):
        key = film_key(job, plan, model, instruments)
        film = f"{place(job)}-{key[:8]}"
        if key not in known:
            made = render(job.story, out=folder.path / film, model=model, options=Options(store=store))
            known[key] = {**columns(job), **measure(job, made, instruments), **made_by(model)}
            known[key] |= {"film": film, "key": key}
        rows.append(known[key] | columns(job))  # two arms may come to the same film
        if rows[-1] not in told:
            told.append(rows[-1])
            folder.write({FILMS: lines_of(told)})
        on_film(rows[-1])
    return rows


def columns(job: Job) -> Row:
    """The columns that say which film a row is about."""
    return {"arm": job.arm.id, "scene": job.event.id, "seed": job.seed}


def made_by(model: Backend) -> Row:
    """The columns that say with what."""
    dtype = str(model.dtype).removeprefix("torch.")
    return {"weights": model.weights[:12], "dtype": dtype, "sampler_version": SAMPLER_VERSION}


def measure(job: Job, film: RenderedFilm, instruments: Instruments) -> Row:
    """Figures of the film's last scene; those of a missing instrument are absent.

    `identity` is the share of its frames that fit the film's own figure and place better than any other start's,
    `jump` the largest change at its section borders in levels of 255 (mean of the busiest 5 %), `wall` all seconds that
    the render took, and `seconds` those of sampling the scene, absent where a stop came between.
    """
    seen = read_film(film.path)
    scene, sections = seen.scenes[-1], [film.plan.sections[index] for index in film.plan.scenes[-1].sections]
    meter = MotionMeter()
    meter.add(seen.frames)
    borders = [meter.changes[section.frames[0] - 1] for section in sections if section.frames[0]]
    targets, shot = job.targets(instruments), ends(seen.frames, seen.fps)
    said = evaluate(
        seen.cut(scene),
        instruments,
        prompt=scene.prompt,
        targets=targets,
        shot=shot,
    )
    row: Row = {"motion": said["motion"]["mean"], "at_once": said["motion"]["at_once"]}
    row |= {"failures": said["failures"], "jump": 255 * max(borders, default=0.0), **said["drift"]}
    if instruments.action:
        row["named"] = said["action"]["named"]
        row["target"] = max((found["best"] for found in said["action"]["targets"].values()), default=None)
    if instruments.text:
        row["text"] = said["text"]["cosine"]
        if len(job.calms) > 1:
            fits = instruments.text.cosines(seen.frames[scene.frames[0] : scene.frames[1] : EVERY], job.calms)
            row["identity"] = float(np.mean(fits.argmax(1) == 0))
    if instruments.distance:
        row["lpips"] = said["lpips"]["adjacent"]
    row["forwards"] = sum(forwards(section) for section in sections)
    reports = [film.report["sections"][section.index] for section in sections]
    if not any(report["reused"] for report in reports):
        row["seconds"] = sum(report["seconds"]["sampling"] for report in reports)
    row["wall"] = film.report["totals"]["seconds"]
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}


def forwards(section: SectionPlan) -> int:
    """Forward passes that a section takes, by its plan."""
    return sum(len(step.branches) for step in section.steps)


def film_key(job: Job, plan: RenderPlan, model: Backend, instruments: Instruments) -> str:
    """A hash of the plan, the start image, the weights, the instruments and the way of measuring."""
    said = plan.to_json()
    del said["title"], said["warnings"]
    image = job.story.resolve(str(job.story.image)).read_bytes()
    film = [said, blake2b(image).hexdigest(), model.identity, str(model.dtype), model.device.type]
    facts = [MEASURES, SAMPLER_VERSION, *film, job.event.target, job.calms, *instruments.names]
    return blake2b(json.dumps(facts, sort_keys=True).encode("utf8"), digest_size=16).hexdigest()


def place(job: Job) -> str:
    """Folder of a film within the sweep's."""
    return "films/" + "/".join(re.sub(r"[^\w.-]+", "-", name) for name in (job.arm.id, f"{job.event.id}-{job.seed}"))
