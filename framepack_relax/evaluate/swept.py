"""A film of a sweep: rendered, measured, and its row beside it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import EvaluationError
from ..families.backend import Backend
from ..families.base import Family
from ..files import write_file
from ..planning.renderplan import RenderPlan, SectionPlan
from ..planning.settings import paper_of
from ..rendering.events import Hear
from ..rendering.folder import writing
from ..rendering.keys import SAMPLER_VERSION, hash_of, plain
from ..rendering.loop import RenderedFilm, render
from ..rendering.mark import Note
from ..rendering.session import AnyModel, Options
from ..video.motion import MotionMeter
from .action import ActionJudge
from .evaluation import Instruments, ends, evaluate, gather
from .film import read_film
from .rows import lines_of, read_rows
from .spec import Job
from .statistics import Row, figures_of

FIGURES = "figures.jsonl"  # in a film's folder: its row
EVERY = 4  # frames, of those that are asked who and where
MEASURES = 6  # raised when the same film would get other figures


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Instruments by the names that `gather` takes: what can be sent to a worker, which loads them once."""

    action: str
    text: str
    device: str | None = None

    def load(self) -> Instruments:
        return _gathered(self)

    def seeing(self, family: Family) -> ActionJudge:
        """What sees actions, for scenes that ensure one. Raises EvaluationError."""
        if (judge := self.load().action) is None:
            raise EvaluationError("ensure.action: the action judge is not there")
        return judge


@lru_cache(1)
def _gathered(judges: Judges) -> Instruments:
    return gather(action=judges.action, text=judges.text, device=judges.device)


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A film to be made: `out` is its folder, `key` the hash of all that determines its row."""

    job: Job
    key: str
    out: Path
    store: Path  # of sections that films share
    judges: Judges
    names: tuple[str, ...]  # of the instruments that `key` is of

    @property
    def options(self) -> Options:
        return Options(store=self.store, judge=self.judges.seeing)

    def row(self, model: AnyModel, on_event: Hear) -> Row:
        """The row that lies in its folder, else that of the film, which is rendered unless it is there.

        Raises StoryboardError, ModelError, RenderError or EvaluationError.
        """
        if row := next((row for row in read_rows(self.out / FIGURES) if row["key"] == self.key), None):
            return row
        job, film = self.job, render(self.job.story, out=self.out, model=model, options=self.options, on_event=on_event)
        instruments = self.judges.load()
        if instruments.names != self.names:
            raise EvaluationError("\n".join(["a worker has other judges than who began the sweep", *instruments.notes]))
        row = {**job.columns, **asked(film.plan.sections[-1], model.family), **measure(job, film, instruments)}
        made = film.report["model"]
        row |= {"dtype": made["dtype"].removeprefix("torch."), "sampler_version": SAMPLER_VERSION}
        row |= {"weights": made["weights"][:12], "film": place(job, self.key), "key": self.key}
        with writing(self.out / FIGURES):
            write_file(self.out / FIGURES, lines_of([row]))
        return row


class Maker(Protocol):
    """What makes films: the model, or how it is loaded; the devices of judges that measure, and of those asked here."""

    @property
    def model(self) -> AnyModel: ...
    @property
    def device(self) -> str | None: ...
    @property
    def here(self) -> str | None: ...

    def rows(self, films: Iterable[Swept], *, out: Path, note: Note) -> Iterator[Row]:
        """A row a film, as they come, for a sweep into `out`. Raises RelaxError."""


@dataclass(frozen=True)
class Here:
    """Films are made by this process, one after the other."""

    model: Backend

    @property
    def device(self) -> str:
        """Of the judges that measure."""
        return str(self.model.device)

    here = device  # and of those that this process asks

    def rows(self, films: Iterable[Swept], *, out: Path, note: Note) -> Iterator[Row]:
        """As they come."""
        return (
            film.row(self.model, lambda event: note(event.text) if event.kind == "note" else None) for film in films
        )


def asked(section: SectionPlan, family: Family) -> Row:
    """What `suggest` looks for: the prompt, and the intensity at which the model's profile asks for its settings."""
    profile = family.profile or paper_of(family)
    intensity = profile.intensity_of(section.relaxation)
    return {"prompt": section.prompt} | ({} if intensity is None else {"intensity": intensity})


def measure(job: Job, film: RenderedFilm, instruments: Instruments) -> Row:
    """Figures of the film's last scene; those of a missing instrument are absent.

    `identity` is the share of its frames that fit the film's own figure and place better than any other start's,
    `border` the change at its first frame in levels of 255 (mean of the busiest 5 %), `jump` the largest at any of its
    section borders, to which motion adds, `wall` all seconds that the render took, and `seconds` those of sampling the
    scene, absent where a stop came between.
    """
    seen = read_film(film.path)
    scene, sections = seen.scenes[-1], [film.plan.sections[index] for index in film.plan.scenes[-1].sections]
    meter = MotionMeter()
    meter.add(seen.frames)
    borders = [meter.changes[section.frames[0] - 1] for section in sections if section.frames[0]]
    shot, targets = ends(seen.frames, seen.fps), job.targets(instruments)
    said = evaluate(seen.cut(scene), instruments, prompt=scene.prompt, targets=targets, shot=shot)
    row: Row = {**figures_of(said), **said["drift"], "failures": said["failures"]}
    row["jump"] = 255 * max(borders, default=0.0)
    row["border"] = 255 * borders[0] if scene.frames[0] else 0.0
    if instruments.action:
        row["named"] = said["action"]["named"]
        row["target"] = max((found["best"] for found in said["action"]["targets"].values()), default=None)
    if instruments.text and len(job.calms) > 1:
        fits = instruments.text.cosines(seen.frames[scene.frames[0] : scene.frames[1] : EVERY], job.calms)
        row["identity"] = float(np.mean(fits.argmax(1) == 0))
    reports = [film.report["sections"][section.index] for section in sections]
    tries = [each["forwards"] for report in reports for each in report.get("tries", ())]
    counts = (sum(each.values()) for each in tries) if tries else (section.passes[1] for section in sections)
    row["forwards"] = sum(counts)
    if not any(report["reused"] for report in reports):
        row["seconds"] = sum(report["seconds"]["sampling"] for report in reports)
    row["wall"] = film.report["totals"]["seconds"]
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}


def film_key(job: Job, plan: RenderPlan, model: AnyModel, names: Sequence[str]) -> str:
    """A hash of the plan, the start image, the weights, the instruments by their `names` and the way of measuring."""
    said = plain(plan.to_json())
    del said["title"], said["warnings"]
    said["shots"] = [{**shot, "image": None} for shot in said["shots"]]  # its bytes count, not where they lie
    start = job.story.image and job.story.resolve(job.story.image).read_bytes()
    film = [said, start and blake2b(start).hexdigest(), model.identity, model.precision, model.kind]
    return hash_of([MEASURES, SAMPLER_VERSION, *film, job.event.target, job.calms, *names])


def place(job: Job, key: str) -> str:
    """Folder of a film within the sweep's."""
    named = "/".join(re.sub(r"[^\w.-]+", "-", name) for name in (job.arm.id, f"{job.event.id}-{job.seed}"))
    return f"films/{named}-{key[:8]}"
