"""Commands between programs: import, export, publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import api
from .app import Model, app, console, warn

Run = Annotated[Path, typer.Argument(help="folder of a film that is done", show_default=False)]


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="another program's board, or - for standard input", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="storyboard to write; its images go beside it")] = Path(
        "story.yaml"
    ),
    kind: Annotated[str | None, typer.Option("--as", help="format, instead of what the file looks like")] = None,
    model: Model = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="of scenes whose length the file does not say")
    ] = 4.0,
) -> None:
    """Write a storyboard from another program's: prompts, queues, timelines, screenplays; says what is left out."""
    made = api.import_board(file, out, kind=kind, model=model, seconds=seconds, on_note=warn)
    count = len(made.scenes)
    console.print(f"{out}: {count} scene{'s' * (count > 1)}; framepack-relax plan {out} shows them", soft_wrap=True)


@app.command()
def export(
    film: Run,
    otio: Annotated[Path, typer.Option(help="timeline to write: .otio, .edl or .fcpxml", show_default=False)],
) -> None:
    """Write a film's timeline for an editor: a clip a scene, a marker a section border, coloured by its jump."""
    console.print(str(api.export_timeline(film, otio)), soft_wrap=True)


@app.command()
def publish(
    film: Run,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder, or .zip; default: NAME-published", show_default=False)
    ] = None,
) -> None:
    """Put film, contact sheet, board, images, sound and manifest (hashes, seeds, licence) into one folder or zip."""
    console.print(str(api.publish(film, out, on_note=warn)), soft_wrap=True)
