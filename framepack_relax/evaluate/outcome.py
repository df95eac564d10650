"""A sweep from its spec to its page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import EvaluationError
from ..families.backend import Backend
from ..families.catalog import find_family
from ..families.loader import load
from ..rendering.folder import RunFolder
from ..rendering.mark import Mark
from .calibration import calibrated_profile, candidates
from .evaluation import gather, judges_for
from .mistakes import try_all
from .pages import NAMES, PAGE, save_page
from .spec import jobs, read_sweep
from .statistics import FEWEST, Cell, Row, summarise
from .sweep import FILMS, plan_films, run, seldom_meant

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
    quick: bool,
    calibrating: bool,
    judges: tuple[str | None, str | None],
    on_film: Callable[[Row, int], None],
    loading: Mapping[str, Any],
    on_note: Callable[[str], None],
) -> Outcome:
    """Renders, measures, compares; see api.sweep. All that can be known is checked and noted before the first film."""
    sweep, folder = read_sweep(spec)
    sweep = sweep.quick() if quick else sweep
    if isinstance(model, str):
        sweep = sweep.model_copy(update={"model": model})
    planned = jobs(sweep, folder)
    family = find_family(sweep.model) if model is None or isinstance(model, str) else model.family
    plans = plan_films(planned, family)
    if calibrating:
        candidates(planned, family)
    loaded = load(sweep.model, **loading) if model is None or isinstance(model, str) else model
    fitting = judges_for({family.judges})
    instruments = gather(action=judges[0] or fitting[0], text=judges[1] or fitting[1], device=str(loaded.device))
    try_all(lambda job: job.targets(instruments), planned)  # labels that the judge does not have
    if calibrating and not (instruments.action and all(job.event.target for job in planned)):
        lacks = "a calibration needs an action judge, and a `target:` of every scene that it can name"
        raise EvaluationError("\n".join([lacks, *instruments.notes]))
    if calibrating and sweep.seeds < FEWEST:
        raise EvaluationError(f"{sweep.seeds} seeds tell no arm from chance; a calibration needs {FEWEST}")
    notes = (*seldom_meant(planned, plans, loaded), *instruments.notes)
    for note in notes:
        on_note(note)
    profile = out / PROFILE if calibrating else None
    with RunFolder(out, SWEEPS).held() as held:
        held.begin({FILMS, *NAMES, *([PROFILE] if calibrating else [])}, {})
        rows = run(
            planned, plans, folder=held, model=loaded, instruments=instruments,
            on_film=lambda row: on_film(row, len(planned)),
        )  # fmt: skip
        cells = summarise(rows)
        save_page(sweep.title, rows, cells, held)
        if calibrating:
            said = yaml.safe_dump(calibrated_profile(rows, planned, family), sort_keys=False, width=110)
            held.write({PROFILE: said.encode("utf8")})
    return Outcome(rows=rows, cells=cells, page=out / PAGE, profile=profile, notes=notes)
