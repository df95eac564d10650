"""A sweep from its spec to its page: every film is a line of films.jsonl as soon as it is rendered and measured.

A sweep that was stopped goes on where it was: a line holds the hash of all that determines its film and its figures.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import yaml

from ..errors import EvaluationError
from ..families.backend import Backend
from ..families.base import Family
from ..families.catalog import find_family
from ..families.loader import load
from ..files import make_folder
from ..planning.planner import make_plan
from ..planning.renderplan import RenderPlan, SectionPlan
from ..planning.settings import paper_of
from ..rendering.events import Event
from ..rendering.folder import RunFolder, writing
from ..rendering.keys import SAMPLER_VERSION, hash_of
from ..rendering.loop import RenderedFilm, render
from ..rendering.mark import Mark, Note
from ..rendering.session import Options
from ..video.motion import MotionMeter
from .action import ActionJudge
from .calibration import calibrated_profile, candidates
from .evaluation import Instruments, ends, evaluate, gather, judges_for
from .film import read_film
from .mistakes import told_at, try_all
from .pages import NAMES, PAGE, save_page
from .rows import lines_of, read_rows
from .spec import Job, jobs, read_sweep
from .statistics import FEWEST, Cell, Row, summarise

FILMS = "films.jsonl"
EVERY = 4  # frames, of those that are asked who and where
PROFILE = "profile.yaml"
SWEEPS = Mark(board="", title="films of sweeps")  # of every sweep: several may share a folder, and their films
MEASURES = 4  # raised when the same film would get other figures


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a sweep leaves: a row a film, a cell an arm, the page, a profile; and notes on settings and instruments."""

    rows: list[Row]
    cells: list[Cell]
    page: Path
    profile: Path | None  # of a calibration
    notes: tuple[str, ...]


def compare(
    spec: str,
    out: Path,
    model: str | Backend | None,
    *,
    quick: bool,
    calibrating: bool,
    judges: tuple[str | None, str | None],
    on_film: Callable[[Row, int], None],
    on_note: Note,
    loading: Mapping[str, Any],
) -> Outcome:
    """Renders, measures, compares; see api.sweep. All that can be known is checked and noted before the first film."""
    sweep = read_sweep(spec).quick() if quick else read_sweep(spec)
    if isinstance(model, str):
        sweep, model = sweep.model_copy(update={"model": model}), None
    planned = jobs(sweep)
    family = model.family if model else find_family(sweep.model)
    plans = plan_films(planned, family)
    if calibrating:
        candidates(planned, family)
    model = model or load(sweep.model, **loading)
    action, text = (given or fitting for given, fitting in zip(judges, judges_for({family.judges}), strict=True))
    instruments = gather(action=action, text=text, device=str(model.device))
    try_all(lambda job: job.targets(instruments), planned)  # labels that the judge does not have
    if calibrating and not (instruments.action and all(job.event.target for job in planned)):
        lacks = "a calibration needs an action judge, and a `target:` of every scene that it can name"
        raise EvaluationError("\n".join([lacks, *instruments.notes]))
    if calibrating and sweep.seeds < FEWEST:
        raise EvaluationError(f"{sweep.seeds} seeds tell no arm from chance; a calibration needs {FEWEST}")
    notes = (*seldom_meant(planned, plans, model), *instruments.notes)
    for note in notes:
        on_note(note)
    own = [PROFILE] if calibrating else []
    with RunFolder(out, SWEEPS, note=on_note).held() as held:
        held.begin({FILMS, *NAMES, *own}, {})
        rows = run(planned, plans, folder=held, model=model, instruments=instruments, on_film=on_film)
        cells = summarise(rows)
        save_page(sweep.title, rows, cells, held)
        for name in own:
            said = yaml.safe_dump(calibrated_profile(rows, planned, family), sort_keys=False, width=110)
            held.write({name: said.encode("utf8")})
    return Outcome(rows=rows, cells=cells, page=out / PAGE, profile=out / PROFILE if own else None, notes=notes)


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
    on_film: Callable[[Row, int], None],
) -> list[Row]:
    """A row per job, in the order of the jobs and of their plans; calm sections that films share are rendered once.

    `folder` is held meanwhile. Raises EvaluationError where its films.jsonl holds what no sweep wrote.
    """
    told, store = read_rows(folder.path / FILMS), folder.path / "store"
    with writing(store):
        make_folder(store)
    rows, known = [], {row["key"]: row for row in told}

    def told_of(event: Event) -> None:
        if event.kind == "note":
            folder.note(event.text)

    def seeing(family: Family) -> ActionJudge:
        if instruments.action is None:
            raise EvaluationError("ensure.action: the action judge is not there")
        return instruments.action

    options = Options(store=store, judge=seeing)
    for job, plan in zip(jobs, plans, strict=True):
        key = film_key(job, plan, model, instruments)
        columns = {"arm": job.arm.id, "scene": job.event.id, "seed": job.seed}
        if key not in known:
            film = f"{place(job)}-{key[:8]}"
            made = render(job.story, out=folder.path / film, model=model, options=options, on_event=told_of)
            means = {"dtype": model.precision.removeprefix("torch."), "sampler_version": SAMPLER_VERSION}
            means |= {"weights": model.weights[:12], "film": film, "key": key}
            said = asked(plan.sections[-1], model.family)
            known[key] = {**columns, **said, **measure(job, made, instruments), **means}
        rows.append(known[key] | columns)  # two arms may come to the same film
        if rows[-1] not in told:
            told.append(rows[-1])
            folder.write({FILMS: lines_of(told)})
        on_film(rows[-1], len(jobs))
    return rows


def asked(section: SectionPlan, family: Family) -> Row:
    """What `suggest` looks for: the prompt, and the intensity at which the model's profile asks for its settings."""
    profile = family.profile or paper_of(family)
    intensity = profile.intensity_of(section.relaxation)
    return {"prompt": section.prompt} | ({} if intensity is None else {"intensity": intensity})


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
    shot, targets = ends(seen.frames, seen.fps), job.targets(instruments)
    said = evaluate(seen.cut(scene), instruments, prompt=scene.prompt, targets=targets, shot=shot)
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
    reports = [film.report["sections"][section.index] for section in sections]
    tries = [each["forwards"] for report in reports for each in report.get("tries", ())]
    counts = (sum(each.values()) for each in tries) if tries else (section.passes[1] for section in sections)
    row["forwards"] = sum(counts)
    if not any(report["reused"] for report in reports):
        row["seconds"] = sum(report["seconds"]["sampling"] for report in reports)
    row["wall"] = film.report["totals"]["seconds"]
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}


def film_key(job: Job, plan: RenderPlan, model: Backend, instruments: Instruments) -> str:
    """A hash of the plan, the start image, the weights, the instruments and the way of measuring."""
    said = plan.to_json()
    del said["title"], said["warnings"]
    image = job.story.resolve(str(job.story.image)).read_bytes()
    film = [said, blake2b(image).hexdigest(), model.identity, model.precision, model.device.type]
    facts = [MEASURES, SAMPLER_VERSION, *film, job.event.target, job.calms, *instruments.names]
    return hash_of(facts)


def place(job: Job) -> str:
    """Folder of a film within the sweep's."""
    return "films/" + "/".join(re.sub(r"[^\w.-]+", "-", name) for name in (job.arm.id, f"{job.event.id}-{job.seed}"))
