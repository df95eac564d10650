"""Commands for takes of a scene: take, pick."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from .. import api
from ..api.films import make_options
from ..families.quiet import quietly
from .app import Loaded, OnNan, Out, app, console, processes, spread, warn
from .films import Board, with_bar

SceneId = Annotated[str, typer.Argument(help="id of the scene", show_default=False)]


@app.command()
@spread
def take(
    story: Board,
    scene: SceneId,
    loaded: Loaded,
    n: Annotated[int, typer.Option("-n", min=1, max=99, help="takes besides the film's own")] = 4,
    out: Out = None,
    on_nan: OnNan = "stop",
) -> None:
    """Render more takes of a scene, other noise on the same past; those that are there are kept."""
    board = api.read(story)
    plan, folder = api.plan(board), api.folder_for(board, out)
    warn(*plan.warnings)
    with quietly:
        from ..families.loader import Loading
        from ..rendering.retake import render_takes
    model = Loading(name=board.model, **vars(loaded), ranks=processes())
    make = partial(render_takes, board, scene, n, out=folder, model=model, options=make_options(on_nan))
    made = with_bar(plan, folder, lambda hear: make(on_event=hear))
    console.print(f"{made.contact}  `framepack-relax pick {story} {scene} TAKE` takes one", soft_wrap=True)


@app.command()
def pick(
    story: Board,
    scene: SceneId,
    take: Annotated[
        str | None, typer.Argument(help="name or number; default: what is rendered of the scene", show_default=False)
    ] = None,
    lock: Annotated[bool, typer.Option("--lock", help="and keep it, whatever changes around the scene")] = False,
    out: Out = None,
) -> None:
    """Write into a storyboard which take a scene is; all else in the file stays."""
    name = api.pick(story, scene, take, lock=lock, out=out)
    kept = ", locked" if lock else ""
    text = f"{story}: scene {scene} is take {name}{kept}; `framepack-relax render {story}` makes the film"
    console.print(text, soft_wrap=True)
