"""Commands for many films: batch, serve, studio."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import typer
from rich.live import Live

from .. import api
from ..api.films import make_options
from ..errors import RelaxError, RenderError
from ..families.quiet import quietly
from ..farm import Engine
from . import tables
from .app import MEMORY_FULL, STOPPED, Loaded, Model, OnNan, app, console, errors, print_json, spread, warn
from .films import KEEPING, Anew

if TYPE_CHECKING:
    from ..farm.batch import Batch, Progress
    from ..farm.executor import Told
    from ..farm.films import Film

Emit = Literal["commands", "openjd", "flamenco"]
Stories = Annotated[
    list[Path] | None, typer.Argument(help="storyboards, folders of them, or patterns", show_default=False)
]
FAILED = 1


@dataclass(frozen=True, kw_only=True)
class Boards:
    """What is rendered."""

    out: Annotated[Path, typer.Option(help="folder for all films, each in one of its name")] = Path("out")
    seeds: Annotated[int, typer.Option(help="films of each: with the board's seed, the next, and so on")] = 1
    model: Model = None
    steps: Annotated[int | None, typer.Option(help="denoising steps, instead of the storyboards'")] = None
    priority: Annotated[list[str], typer.Option(help="'NAME=5': the highest first; NAME may be a pattern")] = field(
        default_factory=list
    )

    allow_commands: Annotated[bool, typer.Option("--allow-commands", help="run the storyboards' own `finish`")] = False

    def given(self) -> dict[str, Any]:
        changed = {name: value for name, value in (("model", self.model), ("steps", self.steps)) if value is not None}
        return {"out": self.out, "seeds": self.seeds, "priorities": dict(map(_priority, self.priority)), **changed}


@dataclass(frozen=True, kw_only=True)
class Crew(Loaded):
    """Who renders it: the fields of `framepack_relax.Workers`."""

    engine: Annotated[Engine, typer.Option(help="where the workers are")] = "local"
    gpus: Annotated[int | None, typer.Option(help="a worker on each of so many; default: all")] = None
    workers: Annotated[int | None, typer.Option(help="so many on the CPU; default: as many as cores allow")] = None
    threads: Annotated[int, typer.Option(help="of each worker on the CPU")] = 1
    max_retries: Annotated[int, typer.Option(help="of a film whose worker died")] = 2
    address: Annotated[str | None, typer.Option(help="of Ray: HOST:PORT, auto, ray://HOST:10001; else it begins")] = (
        None
    )
    slurm: Annotated[list[str], typer.Option(help="'NAME=VALUE': an option of sbatch, such as partition=gpu")] = field(
        default_factory=list
    )


@dataclass(frozen=True, kw_only=True)
class Instead:
    """What else the command does, and leaves."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what there is to do")] = False
    emit: Annotated[Emit | None, typer.Option(help="the same work for a farm: commands, or a job of its kind")] = None
    status: Annotated[Path | None, typer.Option(help="say how far the films in this folder are")] = None
    cancel: Annotated[Path | None, typer.Option(help="call off the film in this folder")] = None


@app.command()
@spread
def batch(
    boards: Boards,
    crew: Crew,
    instead: Instead,
    stories: Stories = None,
    anew: Anew = None,
    on_nan: OnNan = "stop",
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="stop all when one fails")] = False,
    watch: Annotated[Path | None, typer.Option(help="take in boards that come into this folder, too")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print events, a JSON object a line")] = False,
) -> None:
    """Render many storyboards on many GPUs or cores; run again, it goes on, also on several machines at once.

    Exit codes: 0 all films are there; 1 some failed or were called off; 2 bad input, nothing was begun; 3 memory was
    too small; 4 stopped by SIGTERM, what is finished is kept: run it again.
    """
    if instead.cancel:
        return api.cancel(instead.cancel)
    if instead.status:
        return _status(instead.status, as_json)
    if not stories and not watch:
        raise RenderError("batch: give storyboards, a folder of them, or --watch FOLDER")
    given = {**boards.given(), "on_note": warn}
    given["workers"] = api.workers(**vars(crew), commands=boards.allow_commands)
    if instead.dry_run or instead.emit:
        if (as_json and instead.emit) or anew is not None or watch:
            raise RenderError(
                "batch: --fresh, --strict, --watch and --emit with --json are for a render; leave them out"
            )
        if instead.emit and boards.allow_commands:
            raise RenderError("batch: what is emitted runs no `finish`; render here, or leave --allow-commands out")
        planned = api.batch_plan(stories or [], away=bool(instead.emit), **given)
        return _planned(planned, boards.out, instead.emit, as_json)
    given |= {"on_nan": on_nan, "fail_fast": fail_fast, "watch": watch, **KEEPING[anew]}
    seen = _Json() if as_json else _Watched() if console.is_interactive and console.file.isatty() else _Lines()
    try:
        with seen:
            films = api.batch(stories or [], on_event=seen.hear, **given)
    except (KeyboardInterrupt, SystemExit) as stop:
        errors.aside("stopped: what is finished is kept; the same command goes on from there", soft_wrap=True)
        raise typer.Exit(STOPPED if isinstance(stop, SystemExit) else 130) from None
    _conclude(films, as_json)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Where a service is asked."""

    host: Annotated[str, typer.Option(help="where it listens; where others can ask, a token is needed")] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8000
    token: Annotated[str, typer.Option(envvar="FRAMEPACK_RELAX_TOKEN", help="that who asks must say")] = ""


@app.command()
@spread
def serve(
    crew: Crew,
    asked: Asked,
    out: Annotated[Path, typer.Option(help="folder for all films, each in one of its name")] = Path("out"),
    model: Annotated[list[str], typer.Option(help="that boards may name; default: the catalogue's")] = [],  # noqa: B006
) -> None:
    """Take storyboards over HTTP and render them; started again, it goes on. Its openapi.json says what one can ask.

    Exit codes: 1 crashed; 2 bad input; 4 stopped by SIGTERM, what is finished is kept.
    """
    _serve(api.output_folder(out), crew, asked, tuple(model))


@app.command()
@spread
def studio(
    crew: Crew,
    asked: Asked,
    folder: Annotated[Path, typer.Argument(help="of storyboards; films go to its folder out")] = Path("."),
) -> None:
    """Edit the storyboards in a folder in the browser, render them and look at the films.

    Exit codes: 1 crashed; 2 bad input; 4 stopped by SIGTERM, what is finished is kept.
    """
    if not folder.is_dir():
        raise RenderError(f"{folder}: is no folder; make it, or give another")
    _serve(api.output_folder(folder / "out"), crew, asked, boards=folder)


def _serve(out: Path, crew: Crew, asked: Asked, models: tuple[str, ...] = (), boards: Path | None = None) -> None:
    """A service, with the page for a folder of storyboards."""
    place = str(boards or f"films of {out}")
    errors.aside(f"{place}: starting", soft_wrap=True)
    try:
        from ..farm import service
    except ImportError as error:
        raise RenderError(f"{error.name} is not installed: pip install 'framepack-relax[serve]'") from error
    from ..farm.boards import Boards
    from ..farm.queue import Queue
    from ..farm.studio import add_studio

    listening = service.listen(asked.host, asked.port, asked.token)
    entry = f"/?token={quote(asked.token, safe='')}" if boards and asked.token else ""

    def told(url: str) -> None:
        if asked.host in ("0.0.0.0", "::"):
            errors.aside("other machines ask by the name or the address of this one", soft_wrap=True)
        console.aside(f"{place}: {url}{entry}", soft_wrap=True)

    extend = partial(add_studio, boards=Boards(boards)) if boards else lambda app: None
    try:
        with quietly:
            options = make_options("stop", preview=bool(boards))
            queue = Queue(out, api.workers(**vars(crew)), models=models, options=options, note=warn)
            service.serve(queue, listening, asked.token, told, extend)
    except (KeyboardInterrupt, SystemExit) as stop:
        errors.aside("stopped: what is finished is kept; the same command goes on from there", soft_wrap=True)
        raise typer.Exit(STOPPED if isinstance(stop, SystemExit) else 130) from None


@quietly
def _planned(films: list[Film], out: Path, emit: Emit | None, as_json: bool) -> None:
    """What there is to do, or the same for a farm; that takes back that a film was called off."""
    from ..farm.costs import costs
    from ..farm.emit import commands, flamenco, openjd
    from ..farm.records import BUNDLE
    from ..rendering.mark import call_off

    for film in films if emit else ():
        call_off(film.out, False)
    match emit:
        case "commands":
            print(*(f"{line}\n" for line in commands(films)), sep="", end="", flush=True)
        case "openjd":
            console.print(str(openjd(films, out / BUNDLE, out.absolute().name)), soft_wrap=True)
        case "flamenco":
            print(flamenco(films, out.absolute().name))
        case None if as_json:
            print_json([asdict(cost) for cost in costs(films)])
        case None:
            console.print(tables.costs_table(list(costs(films)), films))


def _status(folder: Path, as_json: bool) -> None:
    entries = api.ledger(folder)
    if as_json:
        return print_json([vars(entry) for entry in entries])
    console.print(tables.ledger_table(entries))


def _conclude(films: list[Progress], as_json: bool) -> None:
    """Says what became of them; the exit code tells it, too."""
    missing = [film for film in films if film.state != "done"]
    for film in missing:
        errors.aside(f"{film.film.name}: {film.why or film.state}", soft_wrap=True)
    if not as_json:
        console.aside(tables.batch_text(films), soft_wrap=True)
    if missing:
        causes = {film.cause for film in missing if film.state == "failed"}
        raise typer.Exit(MEMORY_FULL if causes == {"memory"} else FAILED)


def _priority(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    with suppress(ValueError):
        if name and isfinite(float(number)):
            return name, float(number)
    raise RelaxError(f"--priority {text}: write NAME=NUMBER, such as 'night/*=5'")


class _Lines:
    """A line for each section and film, for logs."""

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def hear(self, told: Told, work: Batch) -> None:
        event, name = told.event, told.unit.name
        if event.kind == "section" and event.section in told.unit.job.wanted:
            film = work.progress[told.unit.film]
            console.aside(f"{name}: section {film.done} of {film.film.sections} ({told.worker})", soft_wrap=True)
        elif event.kind == "film":
            console.aside(f"{told.unit.film}: {event.text}", soft_wrap=True)
        elif event.kind == "note" or (event.kind == "ended" and event.cause not in ("", "busy")):
            errors.aside(f"{name}: {event.text}", soft_wrap=True)


class _Json(_Lines):
    """An object for each event."""

    def hear(self, told: Told, work: Batch) -> None:
        from ..farm.batch import told_json

        with suppress(OSError):  # who has listened has gone
            print(json.dumps(told_json(told)), flush=True)


class _Watched(_Lines):
    """A table of what is at work."""

    def __init__(self) -> None:
        self.rows: dict[str, tables.AtWork] = {}
        self.live, self.begun = Live(console=console, refresh_per_second=4, transient=True), time.monotonic()

    def __enter__(self) -> _Watched:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def hear(self, told: Told, work: Batch) -> None:
        event = told.event
        if event.kind == "begun":
            self.rows[told.unit.name] = tables.AtWork(unit=told.unit, worker=told.worker, begun=time.monotonic())
        elif event.kind == "ended":
            self.rows.pop(told.unit.name, None)
        elif event.kind == "section" and event.section in told.unit.job.wanted:
            self.rows[told.unit.name].done += 1
        if event.kind in ("film", "note") or (event.kind == "ended" and event.cause not in ("", "busy")):
            super().hear(told, work)
        self.live.update(tables.batch_table(list(self.rows.values()), work, time.monotonic(), self.begun))
