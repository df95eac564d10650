"""A sweep from its spec to its page: every film is a line of films.jsonl as soon as it is rendered and measured.

A sweep that was stopped goes on where it was: a line holds the hash of all that determines its film and its figures.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

from ..errors import EvaluationError
from ..families.backend import Backend
from ..families.base import Family
from ..families.catalog import find_family
from ..families.loader import Loading
from ..files import make_folder
from ..planning.planner import make_plan
from ..planning.renderplan import RenderPlan
from ..rendering.folder import RunFolder, writing
from ..rendering.mark import Mark, Note
from ..rendering.session import AnyModel
from .calibration import calibrated_profile, candidates
from .evaluation import judges_for
from .hours import foretelling
from .mistakes import told_at, try_all
from .pages import NAMES, PAGE, save_page
from .rows import lines_of, read_rows
from .spec import Job, jobs, read_sweep
from .statistics import FEWEST, Cell, Row, summarise
from .swept import Here, Judges, Maker, Swept, film_key, place

FILMS = "films.jsonl"
PROFILE = "profile.yaml"
SWEEPS = Mark(board="", title="films of sweeps")  # of every sweep: several may share a folder, and their films


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
    maker_of: Callable[[str], Maker],
    *,
    quick: bool,
    calibrating: bool,
    judges: tuple[str | None, str | None],
    on_film: Callable[[Row, int], None],
    on_note: Note,
) -> Outcome:
    """Renders, measures, compares; see api.sweep. All that can be known is checked and noted before the first film.

    `maker_of` gives what makes films with a model by name.
    """
    sweep = read_sweep(spec).quick() if quick else read_sweep(spec)
    if isinstance(model, str):
        sweep, model = sweep.model_copy(update={"model": model}), None
    planned = jobs(sweep)
    family = model.family if model else find_family(sweep.model)
    plans = plan_films(planned, family)
    if calibrating:
        candidates(planned, family)
    maker: Maker = Here(model) if model else maker_of(sweep.model)
    action, text = (given or fitting for given, fitting in zip(judges, judges_for({family.judges}), strict=True))
    asked = Judges(action=action, text=text, device=maker.device)
    instruments = replace(asked, device=maker.here).load()
    try_all(lambda job: job.targets(instruments), planned)  # labels that the judge does not have
    if calibrating and not (instruments.action and all(job.event.target for job in planned)):
        lacks = "a calibration needs an action judge, and a `target:` of every scene that it can name"
        raise EvaluationError("\n".join([lacks, *instruments.notes]))
    if calibrating and sweep.seeds < FEWEST:
        raise EvaluationError(f"{sweep.seeds} seeds tell no arm from chance; a calibration needs {FEWEST}")
    notes = (*seldom_meant(planned, plans, maker.model), *instruments.notes)
    for note in notes:
        on_note(note)
    own = [PROFILE] if calibrating else []
    with RunFolder(out, SWEEPS, note=on_note).held() as held:
        held.begin({FILMS, *NAMES, *own}, {})
        shared: dict[str, Any] = {"store": out / "store", "judges": asked, "names": instruments.names}
        with writing(shared["store"]):
            make_folder(shared["store"])
        keys = [film_key(*film, maker.model, instruments.names) for film in zip(planned, plans, strict=True)]
        on_film = foretelling(dict(zip(keys, plans, strict=True)), read_rows(out / FILMS), on_film, on_note)
        films = [
            Swept(job=job, key=key, out=out / place(job, key), **shared) for job, key in zip(planned, keys, strict=True)
        ]
        rows = run(films, partial(maker.rows, out=out, note=on_note), held, on_film)
        cells = summarise(rows)
        save_page(sweep.title, rows, cells, held)
        for name in own:
            said = yaml.safe_dump(calibrated_profile(rows, planned, family), sort_keys=False, width=110)
            held.write({name: said.encode("utf8")})
    return Outcome(rows=rows, cells=cells, page=out / PAGE, profile=out / PROFILE if own else None, notes=notes)


def plan_films(jobs: Sequence[Job], family: Family) -> list[RenderPlan]:
    """The plan of each job. Raises StoryboardError with the mistakes of all of them, at their places in the sweep."""
    return try_all(lambda job: told_at(job.located, partial(make_plan, job.story, family)), jobs)


def seldom_meant(jobs: Sequence[Job], plans: Sequence[RenderPlan], model: AnyModel) -> Iterator[str]:
    """What is known of the model here, an arm's settings that are allowed all the same, what is not read of prompts.

    Of a model that workers load they tell it themselves.
    """
    pairs = zip(jobs, plans, strict=True)
    yield from dict.fromkeys(f"{job.arm.id}, {warning}" for job, plan in pairs for warning in plan.warnings)
    if isinstance(model, Loading):
        return
    yield from model.notes
    unread = model.unread(section.prompt for plan in plans for section in plan.sections)
    shown = {" and ".join(parts): prompt for prompt, parts in unread.items()}
    yield from (f"the model {parts} in {shorten(prompt, 60)!r}" for parts, prompt in shown.items())


def run(
    films: Sequence[Swept],
    rows_of: Callable[[Sequence[Swept]], Iterator[Row]],
    folder: RunFolder,
    on_film: Callable[[Row, int], None],
) -> list[Row]:
    """A row per film, in their order; `rows_of` makes those that are not in the folder's films.jsonl, as they come.

    `folder` is held meanwhile. Raises EvaluationError where its films.jsonl holds what no sweep wrote.
    """
    told, known, missing = read_rows(folder.path / FILMS), dict[str, Row](), dict[str, list[Swept]]()

    def tell(row: Row, films: Iterable[Swept]) -> None:
        known[row["key"]] = row
        for film in films:  # two arms may come to the same film
            if (own := row | film.job.columns) not in told:
                told.append(own)
                folder.write({FILMS: lines_of(told)})
            on_film(own, count)

    count, there = len(films), {row["key"]: row for row in told}
    for film in films:
        if film.key in there:
            tell(there[film.key], [film])
        else:
            missing.setdefault(film.key, []).append(film)
    for row in rows_of([same[0] for same in missing.values()]):
        tell(row, missing[row["key"]])
    return [known[film.key] | film.job.columns for film in films]
