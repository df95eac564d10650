"""Commands for many films: batch."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.live import Live

from .. import api
from ..errors import RelaxError, RenderError
from . import tables
from .app import STOPPED, Device, Dtype, Memory, Model, OnNan, app, console, errors, print_json, warn
from .films import KEEPING, Anew

if TYPE_CHECKING:
    from ..farm.batch import Batch, Progress
    from ..farm.executor import Told

FAILED, NO_MEMORY = 1, 3

Stories = Annotated[
    list[Path] | None, typer.Argument(help="storyboards, folders of them, or patterns", show_default=False)
]
Folder = Annotated[Path, typer.Option("--out", help="folder for all films: each goes to a folder of its name in it")]
Priority = Annotated[list[str], typer.Option(help="'NAME=5', NAME may be a pattern: the highest first; else 0")]


@app.command()
def batch(
    stories: Stories = None,
    out: Folder = Path("out"),
    seeds: Annotated[int, typer.Option(help="films of each: with the board's seed, the next, and so on")] = 1,
    engine: Annotated[Literal["local"], typer.Option(help="who renders")] = "local",
    gpus: Annotated[
        int | None, typer.Option(help="a worker on each of so many; default: all", show_default=False)
    ] = None,
    workers: Annotated[int | None, typer.Option(help="on the CPU; default: one a core", show_default=False)] = None,
    threads: Annotated[int, typer.Option(help="of each worker on the CPU")] = 1,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = "auto",
    steps: Annotated[int | None, typer.Option(help="denoising steps, instead of the storyboards'")] = None,
    anew: Anew = None,
    on_nan: OnNan = "stop",
    priority: Priority = [],  # noqa: B006
    max_retries: Annotated[int, typer.Option(help="of a film whose worker died")] = 2,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="stop all when one fails")] = False,
    watch: Annotated[Path | None, typer.Option(help="take in boards that come into this folder, too")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print events, a JSON object a line")] = False,
    status: Annotated[Path | None, typer.Option(help="say how far the films in this folder are, and leave")] = None,
    cancel: Annotated[Path | None, typer.Option(help="call off the film in this folder, and leave")] = None,
) -> None:
    """Render many storyboards on many GPUs or cores; run again, it goes on, also on several machines at once.

    Exit codes: 0 all films are there; 1 some failed; 2 bad input, nothing was begun; 3 memory was too small; 4 stopped
    by SIGTERM, what is finished is kept: run it again.
    """
    if cancel:
        return api.cancel(cancel)
    if status:
        return _status(status, as_json)
    if not stories and not watch:
        raise RenderError("batch: give storyboards, a folder of them, or --watch FOLDER")
    given = {"model": model, "steps": steps}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None} | KEEPING[anew]
    options |= {"device": device, "dtype": dtype, "memory": memory, "on_nan": on_nan}
    options |= {"gpus": gpus, "workers": workers, "threads": threads, "engine": engine, "seeds": seeds}
    options |= {"priorities": dict(map(_priority, priority)), "max_retries": max_retries, "fail_fast": fail_fast}
    seen = _Json() if as_json else _Watched() if console.is_interactive and console.file.isatty() else _Lines()
    try:
        with seen:
            films = api.batch(stories or [], out=out, watch=watch, on_event=seen.hear, on_note=warn, **options)
    except (KeyboardInterrupt, SystemExit) as stop:
        errors.aside("stopped: what is finished is kept; the same command goes on from there", soft_wrap=True)
        raise typer.Exit(STOPPED if isinstance(stop, SystemExit) else 130) from None
    _conclude(films, as_json)


def _status(folder: Path, as_json: bool) -> None:
    entries = api.ledger(folder)
    if as_json:
        return print_json([vars(entry) for entry in entries])
    console.print(tables.ledger_table(entries))


def _conclude(films: list[Progress], as_json: bool) -> None:
    """Says what became of them; the exit code tells it, too."""
    failed = [film for film in films if film.state == "failed"]
    for film in failed:
        errors.aside(f"{film.film.name}: {film.why}", soft_wrap=True)
    if not as_json:
        console.print(tables.batch_text(films), soft_wrap=True)
    if failed:
        raise typer.Exit(NO_MEMORY if all(film.cause == "memory" for film in failed) else FAILED)


def _priority(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError:
        raise RelaxError(f"--priority {text}: write NAME=NUMBER, such as 'night/*=5'") from None


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
        unit = {"film": told.unit.film, "shot": told.unit.job.shot, "worker": told.worker}
        print(json.dumps(unit | told.event.to_json()), flush=True)


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
            self.rows[told.worker] = tables.AtWork(unit=told.unit, worker=told.worker, begun=time.monotonic())
        elif event.kind == "ended":
            self.rows.pop(told.worker, None)
        elif event.kind == "section" and event.section in told.unit.job.wanted:
            self.rows[told.worker].done += 1
        if event.kind in ("film", "note") or (event.kind == "ended" and event.cause not in ("", "busy")):
            super().hear(told, work)
        self.live.update(tables.batch_table(list(self.rows.values()), work, time.monotonic(), self.begun))
