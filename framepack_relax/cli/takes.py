"""Commands for takes of a scene: take, pick."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .. import api
from ..api.films import make_options
from ..errors import RenderError
from ..families.quiet import quietly
from .app import Loaded, OnNan, Out, app, console, processes, spread, warn
from .films import Board, Changes, Preview, with_bar

SceneId = Annotated[str, typer.Argument(help="id of the scene", show_default=False)]


@app.command()
@spread
def take(
    story: Board,
    scene: SceneId,
    loaded: Loaded,
    changes: Changes,
    n: Annotated[int, typer.Option("-n", min=1, max=99, help="takes besides the film's own")] = 4,
    out: Out = None,
    on_nan: OnNan = "stop",
    preview: Preview = None,
) -> None:
    """Render more takes of a scene, other noise on the same past; those that are there are kept."""
    board = changes.of(story)
    plan, folder = api.plan(board), api.folder_for(board, out, changes.draft)
    warn(*plan.warnings)
    with quietly:
        from ..families.loader import Loading
        from ..rendering.retake import render_takes
    model = Loading(name=board.model, **vars(loaded), ranks=processes())
    options = make_options(on_nan, preview=console.watched if preview is None else preview)
    make = partial(render_takes, board, scene, n, out=folder, model=model, options=options)
    made = with_bar(plan, folder, lambda hear: make(on_event=hear))
    pick_one = _command("pick", story, changes, out, scene, "TAKE")
    console.print(f"{made.contact}  `{pick_one}` takes one", soft_wrap=True)


@app.command()
@spread
def pick(
    story: Board,
    scene: SceneId,
    changes: Changes,
    take: Annotated[
        str | None, typer.Argument(help="name or number; default: what is rendered of the scene", show_default=False)
    ] = None,
    lock: Annotated[bool, typer.Option("--lock", help="and keep it, whatever changes around the scene")] = False,
    out: Out = None,
) -> None:
    """Write into a storyboard which take a scene is; all else in the file stays."""
    with quietly:
        from ..families.loader import Loading
        from ..rendering.retake import NO_LOCK, pick_take
    if lock and changes.draft:
        raise RenderError(f"scene {scene}: {NO_LOCK}")
    board = changes.of(story)
    folder, model = api.folder_for(board, out, changes.draft), Loading(name=board.model, download=False)
    name = pick_take(board, scene, take, lock=lock, out=folder, model=model, options=make_options("stop"))
    kept = ", locked" if lock else ""
    text = f"{story}: scene {scene} is take {name}{kept}; `{_command('render', story, changes, out)}` makes the film"
    console.print(text, soft_wrap=True)


def _command(name: str, story: Path, changes: Changes, out: Path | None, *words: str) -> str:
    """What to run next on the same film."""
    into = [] if out is None else ["--out", str(out)]
    return shlex.join(["framepack-relax", name, str(story), *words, *changes.words(), *into])
