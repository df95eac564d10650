"""The Python API: each call takes a storyboard file, a Storyboard, or a list of scenes; rooms are entered when used."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from .errors import EvaluationError, ModelError, Problem, RelaxError, RenderError, StoryboardError
from .families.quiet import quietly

if TYPE_CHECKING:
    import torch

    from .evaluate.perceptual import Distance
    from .evaluate.sweep import Outcome
    from .families.backend import Backend
    from .farm.batch import Batch, Progress
    from .farm.engines import Engine
    from .farm.executor import Told
    from .farm.ledger import Entry
    from .planning.renderplan import RenderPlan, SectionPlan
    from .rendering.events import Event
    from .rendering.folder import Verdict
    from .rendering.loop import FinishedSection, RenderedFilm
    from .rendering.mark import Note
    from .rendering.session import Options
    from .rendering.status import Status
    from .storyboard import Scene, Storyboard

Place = str | Path
Story: TypeAlias = "Place | Storyboard | Sequence[Scene]"
Model: TypeAlias = "Place | Backend | None"
Memory = Literal["auto", "full", "tiled", "offload"]
OnNan = Literal["stop", "retry"]
EXTRA = "is not installed: pip install 'framepack-relax[eval]'"


def read(story: Story, **board: Any) -> "Storyboard":
    """A checked storyboard; `board` sets or overrules its fields (seed=7, steps=12, image="hero.png").

    Raises StoryboardError with every mistake.
    """
    from .storyboard import Scene, Storyboard, read_storyboard, storyboard_from_scenes

    if isinstance(story, Place):
        story = read_storyboard(story)
    if isinstance(story, Storyboard):
        return story.changed(**board) if board else story
    if isinstance(story, (Scene, Mapping)) or not isinstance(story, Iterable):
        fact = f"{type(story).__name__} is no storyboard; give the path of one, a Storyboard or a list of scenes"
        raise StoryboardError([Problem(message=fact)])
    return storyboard_from_scenes(story, **board)


def plan(story: Story, **board: Any) -> "RenderPlan":
    """What a render will do, section by section; no weights are loaded and torch is not imported."""
    from .families.catalog import find_family
    from .planning.planner import make_plan

    checked = read(story, **board)
    try:
        family = find_family(checked.model)
    except ModelError as error:
        raise ModelError(str(checked.located(Problem(path="model", message=str(error))))) from error
    return make_plan(checked, family)


@quietly
def load(
    model: Place = "puppet",
    *,
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype | None" = None,
    memory: Memory = "auto",
) -> "Backend":
    """A model to render several storyboards with: a catalogue name, a diffusers folder or a hub id.

    `memory` says what lies on a GPU: `full` everything, `tiled` the weights while the VAE decodes in tiles, `offload`
    neither; `auto` is the first of these that fits, by estimate.
    """
    from .families.loader import load

    return load(str(model), device=_named(device), dtype=_named(dtype), memory=memory)


def _named(kind: Any) -> str | None:
    """A device or a type of numbers as it is called; PyTorch's own objects will do."""
    return None if kind is None else str(kind).removeprefix("torch.")


@quietly
def render(
    story: Story,
    *,
    out: Place | None = None,
    model: Model = None,
    fresh: bool = False,
    strict: bool = False,
    on_nan: OnNan = "stop",
    on_step: Callable[["SectionPlan", int], None] = lambda section, step: None,
    on_section: Callable[["SectionPlan", int], None] = lambda section, seed: None,
    on_note: "Note" = lambda note: None,
    **board: Any,
) -> "RenderedFilm":
    """Renders a film into the folder `out`; `film.path` is the mp4, `film.report` the contents of report.json.

    `out` is by default out/<stem of the file>, or out/<title>. `model` is a name or what `load` gave; default: the
    storyboard's. What `out` holds already and is made from the same is kept, unless `fresh`, or `strict` and made by
    other versions or on another device. `on_nan="retry"` draws another seed for a section whose latents are not finite.
    `on_step` is called with a section and the number of the step, from 0, that it has behind it, `on_section` with a
    section that is on disk and its noise's seed; of a film that is finished nothing is loaded, and neither is called.
    `on_note` hears warnings, and files that no render wrote and that were in the way: they are kept under a free name.
    An exception that one of them raises stops the render and comes out of this call; finished sections stay, and the
    same call goes on from there. Threads may share a loaded model.
    """
    from .rendering.loop import render

    checked, folder, loaded = _prepare(story, out, model, board)
    hear = _callbacks(on_note, on_step, on_section)
    return render(checked, out=folder, model=loaded, options=_options(on_nan, fresh, strict), on_event=hear)


def stream(
    story: Story,
    *,
    out: Place | None = None,
    model: Model = None,
    fresh: bool = False,
    on_nan: OnNan = "stop",
    on_note: "Note" = lambda note: None,
    **board: Any,
) -> "Iterator[FinishedSection]":
    """Yields sections as they finish, each with its latents and the frames that are final; writes no mp4.

    Mistakes are raised at once, not with the first section. `on_note` is as with `render`.
    """
    return _stream(*_prepare(story, out, model, board), _options(on_nan, fresh), on_note)


def preview(
    story: Story,
    *,
    out: Place | None = None,
    model: Model = None,
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype | None" = None,
    fresh: bool = False,
    strict: bool = False,
    on_note: "Note" = lambda note: None,
    **board: Any,
) -> "list[Verdict]":
    """Which sections in `out` a render would keep, and why the others not; loads no weights and writes nothing.

    Torch is asked only for what is not said, `device` and `dtype`. `on_note` hears which files of others would be put
    aside. Raises RenderError where a render would refuse the folder.
    """
    from .families.loading import Loading
    from .rendering.session import preview

    checked, folder, loaded = _prepare(story, out, model, board)
    choice = loaded or Loading(name=checked.model, device=_named(device), dtype=_named(dtype), download=False)
    return preview(checked, folder, choice, _options("stop", fresh, strict), on_note)


def _stream(
    story: "Storyboard", folder: Path, model: "Backend | None", options: "Options", on_note: "Note"
) -> "Iterator[FinishedSection]":
    with quietly:
        from .rendering.loop import stream

        yield from stream(story, out=folder, model=model, options=options, on_event=_callbacks(on_note))


def _callbacks(
    on_note: "Note",
    on_step: "Callable[[SectionPlan, int], None]" = lambda section, step: None,
    on_section: "Callable[[SectionPlan, int], None]" = lambda section, seed: None,
) -> "Callable[[Event], None]":
    """What calls these as a render tells what happens."""
    sections: list[SectionPlan] = []

    def hear(event: "Event") -> None:
        if event.plan:
            sections.extend(event.plan.sections)
        elif event.kind in ("note", "warning"):
            on_note(event.text)
        elif event.section is not None:
            if event.step is not None:
                on_step(sections[event.section], event.step)
            elif event.seed is not None:
                on_section(sections[event.section], event.seed)

    return hear


def _options(on_nan: OnNan, fresh: bool, strict: bool = False) -> "Options":
    from .rendering.session import Options

    if on_nan not in get_args(OnNan):
        raise RenderError(f"on_nan is {on_nan!r}; write {' or '.join(map(repr, get_args(OnNan)))}")
    return Options(fresh=fresh, strict=strict, on_nan=on_nan)


def folder_for(story: "Storyboard", out: Place | None) -> Path:
    """The folder `out`, or that of the storyboard. Raises RenderError where it can be none."""
    from .rendering.mark import default_out

    return output_folder(out or default_out(story))


def output_folder(out: Place) -> Path:
    """The folder `out`, which need not be there yet. Raises RenderError where it can be none."""
    folder = meant(out)
    there = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), Path("/"))
    if not there.is_dir():
        raise RenderError(f"{there}: is no folder; choose another one for the film")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RenderError(f"{there}: nothing may be written there; choose another folder for the film")
    return folder


def meant(path: Place, error: type[RelaxError] = RenderError) -> Path:
    """The path that a person means; raises `error` for one that is none here, such as one of Windows."""
    from .storyboard.messages import printable
    from .storyboard.paths import expand, path_cure

    if not isinstance(path, Place):
        raise error(f"{path!r} is no path; write it as text")
    place = expand(path)
    if not os.path.lexists(place) and (cure := path_cure(str(place))):
        raise error(f"{printable(str(place))}: is not there{cure}")
    return place


@quietly
def restore(film: Place, out: Place, *, on_note: "Note" = lambda note: None) -> Path:
    """Writes the storyboard and start images that a film carries into the folder `out`; gives the storyboard's path.

    Rendering it gives the same film again. `on_note` hears which edited ones were put aside for them. Raises
    RenderError for files that framepack-relax has not written.
    """
    from .rendering.carry import restore

    return restore(meant(film), output_folder(out), on_note)


@quietly
def batch(
    stories: Place | Sequence[Place],
    *,
    out: Place,
    seeds: int = 1,
    engine: "Engine" = "local",
    gpus: int | None = None,
    workers: int | None = None,
    threads: int = 1,
    device: str | None = None,
    dtype: str | None = None,
    memory: Memory = "auto",
    fresh: bool = False,
    strict: bool = False,
    on_nan: OnNan = "stop",
    priorities: Mapping[str, float] = {},
    max_retries: int = 2,
    fail_fast: bool = False,
    watch: Place | None = None,
    on_event: "Callable[[Told, Batch], None]" = lambda told, work: None,
    on_note: "Note" = lambda note: None,
    **board: Any,
) -> "list[Progress]":
    """Renders storyboards, folders and patterns of them on many GPUs or cores; a row per film says what became of it.

    All are read and planned first: StoryboardError holds every mistake of every file. Films go to `out`/NAME, with
    `seeds` > 1 to `out`/NAME/seed-SEED, beside logs/ and manifest.json. What is finished there is kept, whoever made
    it, and what another process is at work on is left to it, so that the same call goes on after a stop, or helps on
    another machine that shares the disk. A worker (one per GPU, or `workers` on the CPU with `threads` each) loads its
    model once; one that dies has its shot begun again, `max_retries` times a film. `priorities` are by patterns of
    names. `watch` is a folder whose boards are taken in as they come, until the call is stopped. `on_event` hears
    (worker, unit, event) and knows how all films stand; an exception that it raises stops the batch.
    """
    from .farm.batch import Batch, run
    from .farm.engines import make_executor
    from .farm.films import Watch, find_films
    from .farm.records import LOGS, Logs, write_manifest

    places, folder = [stories] if isinstance(stories, Place) else stories, output_folder(out)
    executor = make_executor(engine, logs=folder / LOGS, gpus=gpus, workers=workers, threads=threads)
    loading = {"device": device or executor.device, "dtype": dtype, "memory": memory}
    given: dict[str, Any] = {"seeds": seeds, "board": board, "loading": loading, "priorities": priorities}
    given |= {"options": _options(on_nan, fresh, strict), "note": on_note}
    films, logs = find_films(places, folder, **given), Logs(folder / LOGS)
    come = Watch(Path(watch), partial(find_films, out=folder, **given), on_note) if watch else lambda: None
    work = Batch(films, max_retries=max_retries, fail_fast=fail_fast, more=come)
    try:
        with closing(run(work, executor)) as events:
            for told in events:
                if told:
                    logs.hear(told)
                    on_event(told, work)
    finally:
        write_manifest(folder, work.progress.values())
    return list(work.progress.values())


def status(out: Place) -> "Status":
    """How far the render in the folder `out` has come; needs no weights and no torch. Raises RenderError."""
    from .rendering.status import read_status

    return read_status(meant(out))


def ledger(out: Place) -> "list[Entry]":
    """How far the films are that a batch renders into the folder `out`; needs no torch. Raises RenderError."""
    from .farm.ledger import read_ledger

    return read_ledger(meant(out))


def cancel(folder: Place) -> None:
    """Calls off the film that is rendered into a folder: whoever is at work on it stops within a step.

    What is finished stays, and a call that renders it goes on from there. Raises RenderError.
    """
    from .rendering.mark import call_off

    call_off(meant(folder))


def evaluate(
    films: Place | Sequence[Place],
    *,
    prompt: str | None = None,
    target_classes: Sequence[str] = (),
    reference: Place | None = None,
    action: str | None = None,
    text: str | None = None,
    distance: "Distance | None" = None,
    device: str | None = None,
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """What films show, a row each: motion, action, fit to the prompt, LPIPS, drift; and notes on instruments.

    Without `prompt` a film that framepack-relax wrote gives a row per scene. `action` and `text` are `packaged`,
    `videomae` and `clip`, a folder or a hub id; by default what fits the films. `distance` (two batches [P, 3, H, W] in
    -1..1 -> [P]) stands in for LPIPS with its own trunk. Needs the extra `eval`. Raises EvaluationError.
    """
    try:
        from .evaluate.film import read_film, read_films
    except ImportError as error:
        raise EvaluationError(f"{error.name} {EXTRA}") from error
    # without torch, so that what cannot be read is told at once
    to_path = partial(meant, error=EvaluationError)
    other = None if reference is None else read_film(to_path(reference))
    read = read_films([films] if isinstance(films, Place) else films, to_path)
    with quietly:
        from .evaluate.evaluation import evaluate_scenes, gather, judges_for

        names = judges_for({film.judges for film in read})
        instruments = gather(action=action or names[0], text=text or names[1], device=device, distance=distance)
        rows = []
        for film in read:
            rows += evaluate_scenes(film, instruments, prompt=prompt, targets=target_classes, reference=other)
    return rows, instruments.notes


@quietly
def sweep(
    spec: Place,
    *,
    out: Place,
    model: Model = None,
    quick: bool = False,
    calibrate: bool = False,
    action: str | None = None,
    text: str | None = None,
    on_film: Callable[[dict[str, Any], int], None] = lambda row, films: None,
    on_note: "Note" = lambda line: None,
    **loading: Any,
) -> "Outcome":
    """Renders and measures every film of a sweep into `out` and compares its arms; goes on where a stop left it.

    `spec` is a ready one's name or a YAML file; `model` stands in for the spec's; `quick` takes one seed, two scenes
    and half the steps; `calibrate` also writes an intensity profile of the arms that served the model best. `on_film`
    is told each film's row and how many there are, `on_note` each warning before the first. `loading` goes to `load`.
    Needs the extra `eval`. Raises StoryboardError, ModelError, RenderError or EvaluationError.
    """
    try:
        from .evaluate.sweep import compare
    except ImportError as error:
        raise EvaluationError(f"{error.name} {EXTRA}") from error
    folder, choice = output_folder(out), str(model) if isinstance(model, Place) else model
    options: Any = {"quick": quick, "calibrating": calibrate, "judges": (action, text), "loading": loading}
    return compare(str(spec), folder, choice, on_film=on_film, on_note=on_note, **options)


def _prepare(
    story: Story, out: Place | None, model: Model, board: dict[str, Any]
) -> "tuple[Storyboard, Path, Backend | None]":
    """Storyboard, folder, loaded model. Raises RenderError for an argument that no render and no storyboard takes."""
    from .storyboard import Storyboard
    from .storyboard.meanings import argument

    own = [name for name, kind in signature(render).parameters.items() if kind.kind is Parameter.KEYWORD_ONLY]
    for name in board:
        if name in signature(load).parameters:
            call = f"model=fr.load(..., {name}={board[name]!r})"
            raise RenderError(f"{name}: is said when a model is loaded; write {call}")
        if name not in Storyboard.model_fields and (cure := argument(name, own)):
            raise RenderError(f"{name}: unknown argument; {cure}")
    if isinstance(model, Place):
        board, model = {**board, "model": str(model)}, None
    elif model is not None and not hasattr(model, "family"):
        raise ModelError(f"model is {model!r}; give a name, a folder, or what fr.load gave")
    checked = read(story, **board)
    return checked, folder_for(checked, out), model
