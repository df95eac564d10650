"""The command line: a few lines over the Python API for each command."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import api, tables
from ._version import __version__
from .errors import RelaxError
from .models.catalog import CATALOG, WEIGHTS_VARIABLE, card, entry_of, on_disk
from .plan.renderplan import RenderPlan
from .storyboard import Storyboard, storyboard_schema

if TYPE_CHECKING:
    from .render import FinishedSection, RenderedFilm

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
console, errors = Console(), Console(stderr=True, soft_wrap=True)
DRAFT = 3  # a draft takes a third of the steps

Board = Annotated[Path, typer.Argument(help="storyboard (YAML)", show_default=False)]
Model = Annotated[str | None, typer.Option(help="model name, folder or hub id, instead of the storyboard's")]
Seed = Annotated[int | None, typer.Option(help="seed, instead of the storyboard's")]
Steps = Annotated[int | None, typer.Option(help="denoising steps, instead of the storyboard's and its scenes'")]
Draft = Annotated[bool, typer.Option("--draft", help="a third of the steps, for a first look")]


@app.command()
def render(
    story: Board,
    out: Annotated[Path | None, typer.Option(help="folder for the film; default: out/NAME")] = None,
    model: Model = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; default: cuda where there is one")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: bfloat16 on CUDA")] = None,
    steps: Steps = None,
    seed: Seed = None,
    draft: Draft = False,
) -> None:
    """Render a storyboard; what is on disk already is kept and not rendered again."""
    board = _board(story, model, steps, seed, draft)
    folder = out or Path("out") / story.stem
    plan = api.plan(board)
    for warning in plan.warnings:
        errors.print(f"[yellow]warning:[/] {warning}", highlight=False)
    _quiet()
    with console.status("loading the model and encoding prompts"):
        loaded = api.load(board.model, device=device, dtype=dtype)
    film = _render(board, folder, loaded, plan)
    for prompt, words in film.report["unknown_words"].items():
        errors.print(f"[yellow]warning:[/] the model does not know {', '.join(words)} in {prompt!r}", highlight=False)
    console.print(tables.report_table(film.plan, film.report))
    totals = film.report["totals"]
    console.print(
        f"{film.path}  {totals['film_seconds']:.2f} s, {totals['frames']} frames, rendered in "
        f"{totals['seconds']:.0f} s, peak {totals['peak_bytes'] / 2**30:.1f} GB",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _quiet() -> None:
    """Keeps the libraries' own bars and notes out of ours."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()


def _render(board: Storyboard, folder: Path, model: Any, plan: RenderPlan) -> "RenderedFilm":
    from .render import render

    bar = Progress(
        TextColumn("section {task.fields[section]} of {task.fields[sections]}"),
        TextColumn("[dim]{task.fields[scene]}"),
        BarColumn(),
        TextColumn("step {task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
    )
    done, total, steps = 0, len(plan.sections), plan.steps
    try:
        with bar:
            task = bar.add_task("", total=steps, section=1, sections=total, scene="")

            def on_section(finished: "FinishedSection") -> None:
                nonlocal done
                done += 1
                taken = done * steps // total
                bar.update(task, completed=max(taken, int(bar.tasks[0].completed)), section=min(done + 1, total))

            return render(
                board,
                out=folder,
                model=model,
                on_step=lambda section, step: bar.update(task, advance=1, scene=section.scene),
                on_section=on_section,
            )
    except KeyboardInterrupt:
        errors.print(f"stopped: {done} of {total} sections are kept in {folder}; the same command goes on from there")
        raise typer.Exit(130) from None


@app.command()
def plan(
    story: Board,
    as_json: Annotated[bool, typer.Option("--json", help="print plan.json")] = False,
    model: Model = None,
    steps: Steps = None,
    seed: Seed = None,
    draft: Draft = False,
) -> None:
    """Show what a render would do: scenes on the grid, every rounding, settings; needs no weights and no torch."""
    made = api.plan(_board(story, model, steps, seed, draft))
    if as_json:
        sys.stdout.write(json.dumps(made.to_json(), indent=1) + "\n")
        return
    console.print(tables.plan_table(made))
    for warning in made.warnings:
        errors.print(f"[yellow]warning:[/] {warning}", highlight=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of storyboards, for editors."""
    sys.stdout.write(json.dumps(storyboard_schema(), indent=2) + "\n")


@app.command()
def models(name: Annotated[str | None, typer.Argument(help="one model, in full")] = None) -> None:
    """List the models: where they come from, size, licence, and whether they are on disk."""
    if name is None:
        console.print(tables.models_table([(entry, on_disk(entry.name)) for entry in CATALOG.values()]))
        console.print(f"A diffusers folder or a hub id works too; offline folders: {WEIGHTS_VARIABLE}.", style="dim")
        return
    console.print(tables.model_text(entry_of(name), on_disk(name), card(name)), soft_wrap=True)


def _board(story: Path, model: str | None, steps: int | None, seed: int | None, draft: bool) -> Storyboard:
    """The storyboard with the command line's changes."""
    board = api.read(story)
    given: dict[str, Any] = {
        key: value for key, value in {"model": model, "seed": seed, "steps": steps}.items() if value is not None
    }
    if steps is not None:
        given["scenes"] = tuple(scene.model_copy(update={"steps": None}) for scene in board.scenes)
    if draft:
        scenes = given.get("scenes", board.scenes)
        given["steps"] = _fewer(given.get("steps", board.steps))
        given["scenes"] = tuple(s.model_copy(update={"steps": s.steps and _fewer(s.steps)}) for s in scenes)
    return board.changed(**given) if given else board


def _fewer(steps: int) -> int:
    return max(1, -(-steps // DRAFT))


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"framepack-relax {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: what a user can mend is printed without a traceback, exit code 2."""
    try:
        app()
    except RelaxError as error:
        errors.print(str(error), markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
