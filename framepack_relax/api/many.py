"""Many films on many GPUs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..families.quiet import quietly
from .films import OnNan, make_options
from .paths import Place, meant, output_folder

if TYPE_CHECKING:
    from ..farm.batch import Batch, Progress
    from ..farm.engines import Workers
    from ..farm.executor import Told
    from ..farm.films import Film
    from ..farm.ledger import Entry
    from ..rendering.mark import Note


@quietly
def batch(
    stories: Place | Sequence[Place],
    *,
    out: Place,
    seeds: int = 1,
    workers: "Workers | None" = None,
    fresh: bool = False,
    strict: bool = False,
    on_nan: OnNan = "stop",
    priorities: Mapping[str, float] = {},
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
    another machine that shares the disk. `priorities` are by patterns of names, the highest first. `watch` is a folder
    whose boards are taken in as they come, until the call is stopped. `on_event` hears (worker, unit, event) and knows
    how all films stand; an exception that it raises stops the batch.
    """
    from ..farm.batch import Batch, run
    from ..farm.engines import Workers
    from ..farm.films import Watch, find_films
    from ..farm.records import LOGS, Logs, tell_manifest, write_manifest
    from ..rendering.mark import call_off

    crew, folder = workers or Workers(), output_folder(out)
    executor = crew.executor(folder / LOGS)
    find = partial(
        find_films,
        out=folder,
        seeds=seeds,
        board=board,
        loading=crew.loading(executor.device),
        options=make_options(on_nan, fresh, strict, crew.commands),
        priorities=priorities,
        note=on_note,
    )
    films = find(_places(stories))
    come = Watch(Path(watch), find, on_note, films) if watch else lambda: None
    for film in films:
        call_off(film.out, False)
    logs = Logs(folder / LOGS)
    work = Batch(films, max_retries=crew.max_retries, fail_fast=fail_fast, more=come)
    write_manifest(folder, work.progress.values())  # so that others know of films that wait
    try:
        with closing(run(work, executor)) as events:
            for told in events:
                if told:
                    logs.hear(told)
                    on_event(told, work)
    finally:
        tell_manifest(folder, work.progress.values(), on_note)
    return list(work.progress.values())


@quietly
def batch_plan(
    stories: Place | Sequence[Place],
    *,
    out: Place,
    seeds: int = 1,
    workers: "Workers | None" = None,
    priorities: Mapping[str, float] = {},
    away: bool = False,
    on_note: "Note" = lambda note: None,
    **board: Any,
) -> "list[Film]":
    """The films that `batch` would render, with the sections of each shot that are left; nothing is written.

    `away`: they will be rendered on other machines, which have what this one has not.
    """
    from ..farm.engines import Workers
    from ..farm.films import find_films

    crew = workers or Workers()
    crew.check(away)
    loading = {**crew.loading("cpu" if crew.workers else None), "download": False}
    loading["away"] |= away
    given: dict[str, Any] = {"seeds": seeds, "board": board, "loading": loading, "priorities": priorities}
    options = make_options("stop", commands=crew.commands)
    return find_films(_places(stories), output_folder(out), options=options, note=on_note, **given)


def workers(**given: Any) -> "Workers":
    """See `Workers`."""
    from ..farm.engines import Workers

    return Workers(**given)


def _places(stories: Place | Sequence[Place]) -> Sequence[Place]:
    return [stories] if isinstance(stories, Place) else stories


def ledger(out: Place) -> "list[Entry]":
    """How far the films are that a batch renders into the folder `out`; needs no torch. Raises RenderError."""
    from ..farm.ledger import read_ledger

    return read_ledger(meant(out))


def cancel(folder: Place) -> None:
    """Calls off the film that is rendered into a folder: whoever is at work on it stops within a step.

    What is finished stays, and a call that renders it goes on from there. Raises RenderError.
    """
    from ..farm.ledger import make_known
    from ..rendering.mark import call_off

    make_known(place := meant(folder))
    call_off(place)
