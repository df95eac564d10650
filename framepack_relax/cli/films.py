"""Commands for films: plan, render, rerun, status; what models and fields there are."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import api
from ..api.films import FROM_NOISE, draft_of, make_options, read_changed
from ..errors import RelaxError, RenderError
from ..families.quiet import quietly
from . import tables
from .app import (
    STOPPED,
    Attention,
    Compile,
    Device,
    Dtype,
    Loaded,
    Model,
    OnNan,
    Out,
    app,
    console,
    errors,
    print_json,
    processes,
    spread,
    warn,
)
from .bars import Bar

if TYPE_CHECKING:
    from ..planning.renderplan import RenderPlan
    from ..rendering.events import Hear
    from ..storyboard import Storyboard

Board = Annotated[Path, typer.Argument(help="storyboard (YAML)", show_default=False)]
Into = Annotated[Path | None, typer.Option("--out", help="say too what a render into it keeps", show_default=False)]
Anew = Annotated[bool | None, typer.Option("--fresh/--strict", help="keep nothing / none of other versions; last wins")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be kept and why not the rest; write nothing")]
PREVIEW = "draw what is sampled into preview.png in the film's folder; default: where a terminal shows the progress"
Preview = Annotated[bool | None, typer.Option("--preview/--no-preview", help=PREVIEW, show_default=False)]
FIRST_LOOK = "half the size, a third of the steps, calm scenes fast; into out/NAME.draft"
OPTIONS = {"folder": "--from", "strength": "--strength"}  # by what they are of `start_from`
KEEPING: dict[bool | None, dict[str, bool]] = {None: {}, True: {"fresh": True}, False: {"strict": True}}


@dataclass(frozen=True, kw_only=True)
class Farmed:
    """For a farm that renders a film in parts."""

    shot: Annotated[int | None, typer.Option(help="only this one, from 0; the last one makes the film")] = None
    openjd: Annotated[bool, typer.Option("--openjd", help="say progress as OpenJD reads it")] = False


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What is put to a film when its frames are there."""

    audio: Annotated[Path | None, typer.Option(help="sound of the film, instead of the storyboard's")] = None
    finish: Annotated[
        list[str] | None,
        typer.Option(help="command a shot, such as 'rife -i {input} -o {output}', instead of the storyboard's"),
    ] = None
    allow_commands: Annotated[bool, typer.Option("--allow-commands", help="run the storyboard's own `finish`")] = False

    def put_to(self, board: Storyboard) -> tuple[Storyboard, bool]:
        """The board with it, and whether its commands may be run. Raises RenderError or StoryboardError."""
        given: dict[str, Any] = {"audio": str(api.meant(self.audio).absolute())} if self.audio else {}
        try:
            words = [shlex.split(command) for command in self.finish or ()]
        except ValueError as error:
            raise RenderError(f"--finish: {error}; close the quotes") from error
        given |= {"finish": [{"run": command} for command in words]} if words else {}
        named = {name: f"--{name}" for name in given}
        return (board.changed(named, **given) if given else board), bool(words) or self.allow_commands


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a command changes of a storyboard."""

    model: Model = None
    steps: Annotated[int | None, typer.Option(help="denoising steps, instead of the storyboard's and its scenes'")] = (
        None
    )
    seed: Annotated[int | None, typer.Option(help="seed, instead of the storyboard's")] = None
    draft: Annotated[bool, typer.Option("--draft", help=FIRST_LOOK)] = False
    start: Annotated[
        Path | None, typer.Option("--from", help="folder of a draft to start from", show_default=False)
    ] = None
    strength: Annotated[float | None, typer.Option(help="most noise that its latents get, 0 to 1; default: 0.6")] = None

    def words(self) -> list[str]:
        """The options as they were given."""
        given: dict[str, object] = {"--model": self.model, "--steps": self.steps, "--seed": self.seed}
        given |= {"--from": self.start, "--strength": self.strength}
        said = [str(word) for name, value in given.items() if value is not None for word in (name, value)]
        return [*said, *["--draft"] * self.draft]

    def of(self, file: Path) -> Storyboard:
        """The storyboard with them; `steps` stand in for those of scenes, too."""
        board = read_changed(file, self._put_to)
        return draft_of(board) if self.draft else board

    def _put_to(self, board: Storyboard) -> Storyboard:
        options = {"model": self.model, "seed": self.seed, "steps": self.steps}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if self.steps is not None:
            given["scenes"] = tuple(scene.model_copy(update={"steps": None}) for scene in board.scenes)
        named = {name: f"--{name}" for name in options if name in given}
        start = {"folder": self.start and str(api.meant(self.start).absolute()), "strength": self.strength}
        if said := {name: value for name, value in start.items() if value is not None}:
            words = [OPTIONS[name] for name in said]
            if self.draft:
                raise RenderError(f"--draft and {' and '.join(words)}: {FROM_NOISE}")
            own = {name: value for name, value in board.start_from or () if value is not None}
            given["start_from"] = {**own, **said}
            mine = [name for name in OPTIONS if name in said or name not in own]
            named |= {f"start_from.{name}": OPTIONS[name] for name in mine}
            named |= {"start_from": words[0]} if "folder" in said or not own else {}
        return board.changed(named, **given) if given else board


@app.command()
@spread
def render(
    story: Board,
    loaded: Loaded,
    ending: Ending,
    farmed: Farmed,
    changes: Changes,
    out: Out = None,
    anew: Anew = None,
    dry_run: DryRun = False,
    on_nan: OnNan = "stop",
    preview: Preview = None,
) -> None:
    """Render a storyboard; what is on disk already, made by the same settings, is kept and not rendered again."""
    board, commands = ending.put_to(changes.of(story))
    folder = api.folder_for(board, out, changes.draft)
    if dry_run:
        return _preview(board, folder, **vars(loaded), **KEEPING[anew], commands=commands)
    shown = console.watched if preview is None else preview
    options = {"on_nan": on_nan, "commands": commands, "preview": shown, **KEEPING[anew]}
    _render(board, folder, loaded, options, **vars(farmed))


@app.command()
@spread
def rerun(
    film: Annotated[Path, typer.Argument(help="an mp4 that framepack-relax wrote", show_default=False)],
    loaded: Loaded,
    out: Out = None,
    anew: Anew = None,
    on_nan: OnNan = "stop",
) -> None:
    """Render a film again from the storyboard and start images that it carries."""
    film = api.meant(film)
    name = film.absolute().parent.name if film.name == "video.mp4" else film.stem
    folder = api.output_folder(out or Path("out", f"{name}-again"))
    with quietly:
        from ..families.engine import STORED
        from ..families.loader import DTYPES, pick_device, pick_dtype
        from ..rendering.carry import provenance
    pick_dtype(loaded.dtype, pick_device(loaded.device))  # mistakes of these are told before anything is written
    board = api.read(api.restore(film, folder, on_note=warn))
    said = str(provenance(film).get("dtype")).removeprefix("torch.")
    as_then = said if said in (*DTYPES, *STORED) else None
    _render(
        board, folder, replace(loaded, dtype=loaded.dtype or as_then), {"on_nan": on_nan, **KEEPING[anew]}, again=film
    )


@app.command()
def status(out: Annotated[Path, typer.Argument(help="folder of a render", show_default=False)]) -> None:
    """Show how far the render in a folder has come, and when it will be done."""
    said = api.status(out)
    console.print(tables.status_table(said))
    console.print(tables.status_text(said, time.time()), soft_wrap=True)


def _render(
    board: Storyboard,
    folder: Path,
    loaded: Loaded,
    options: dict[str, Any],
    *,
    again: Path | None = None,
    shot: int | None = None,
    openjd: bool = False,
) -> None:
    """Renders with a bar, prints the table; `again`: the film that should come out the same; `shot`: only this."""
    plan = api.plan(board)
    warn(*plan.warnings)
    with quietly:
        from ..families.engine import left_out
        from ..families.loader import Loading
        from ..rendering.carry import what_differs
        from ..rendering.loop import render, render_one_shot
    model = Loading(name=board.model, **vars(loaded), ranks=processes())
    warn(*left_out(model))
    if again and (line := what_differs(again, board, model)):
        warn(f"the film was made otherwise and will not come out the same to the bit: {line}")
    work = partial(render, board) if shot is None else partial(render_one_shot, board, shot)
    make = partial(work, out=folder, model=model, options=make_options(**options))
    film = with_bar(plan, folder, lambda hear: make(on_event=hear), openjd)
    if film is None:
        return console.print(f"{folder}: shot {shot} is there; who renders the last one makes the film", soft_wrap=True)
    console.print(tables.report_table(film.plan, film.report))
    if rows := film.report.get("takes"):
        console.print(tables.takes_text(rows), soft_wrap=True)
    console.print(f"{film.path}  {tables.totals_text(film.report['totals'])}", soft_wrap=True)
    if film.finished:
        console.print(f"{film.finished}: finished", soft_wrap=True)


def _preview(board: Storyboard, folder: Path, **given: Any) -> None:
    """What a render would keep, and which takes the film has that is there."""
    from ..rendering.takes import takes_told

    line = tables.verdict_line(api.preview(board, out=folder, on_note=warn, **given)) or "nothing is there yet"
    console.print(f"{folder}: {line}", soft_wrap=True)
    for text in takes_told(folder):
        console.print(f"in the film that is there {text}", soft_wrap=True)


@quietly
def with_bar(plan: RenderPlan, folder: Path, make: Callable[[Hear], Any], openjd: bool = False) -> Any:
    """What `make` renders, with a bar."""
    try:
        with Bar(plan, console, openjd=openjd) as bar:
            return make(bar.hear)
    except (KeyboardInterrupt, SystemExit) as stop:
        errors.aside(f"stopped: {_kept(folder)}; the same command goes on from there", soft_wrap=True)
        raise typer.Exit(STOPPED if isinstance(stop, SystemExit) else 130) from None


def _kept(folder: Path) -> str:
    try:
        status = api.status(folder)
    except RelaxError:
        return "nothing was rendered yet"
    return f"{status.done} of {status.total} sections are kept in {folder}"


@app.command()
@spread
def plan(
    story: Board,
    changes: Changes,
    as_json: Annotated[bool, typer.Option("--json", help="print plan.json")] = False,
    out: Into = None,
    device: Device = None,
    dtype: Dtype = None,
    attention: Attention = None,
    compile: Compile = False,
    memory: Annotated[bool, typer.Option("--memory", help="say what it takes of a GPU and of main memory")] = False,
) -> None:
    """Show what a render would do: scenes on the grid, every rounding, settings; needs no weights and no torch."""
    from ..families.engine import check_together, left_out
    from ..families.loader import Loading

    given: dict[str, Any] = {"device": device, "dtype": dtype, "attention": attention, "compile": compile}
    if as_json and out:
        raise RenderError("plan: --out is told in words, beside --json it would not be; leave one of both out")
    board = changes.of(story)
    model = Loading(name=board.model, **given)
    made, choices = api.plan(board), api.memory(board, dtype=dtype) if memory else []
    told = list[str]()
    if attention or compile:  # else there is nothing that could not go together, and no need of torch
        check_together(model, made.effects)
        told += left_out(model)
    if as_json:
        rows = {"memory": [choice.to_json() for choice in choices]} if memory else {}
        return print_json(made.to_json() | rows)
    if choices:
        console.print(tables.memory_table(made, choices))
    else:
        _show(board, made)
    from ..rendering.takes import locks_without_takes

    folder = api.folder_for(board, out, changes.draft)
    warn(*made.warnings, *told, *locks_without_takes(board, folder))
    if out:
        _preview(board, folder, **given)


def _show(board: Storyboard, made: RenderPlan) -> None:
    """The plan in tables."""
    console.print(tables.plan_table(made), tables.prompts_table(made))
    if by_words := [one for one in api.suggest(board) if one.said == "auto"]:
        console.print(tables.suggestions_table(by_words))
    console.print("\n".join(filter(None, (tables.crops_text(made), tables.lora_text(made)))), soft_wrap=True)


@app.command()
def suggest(
    story: Board,
    write: Annotated[
        bool, typer.Option("--write", help="write them into the file, where a scene has no number")
    ] = False,
    log: Annotated[
        list[Path], typer.Option(help="ask the model's own films: films.jsonl, or a film's folder; may be repeated")
    ] = [],  # noqa: B006
    ridge: Annotated[Path | None, typer.Option(help="what `calibrate --prompts` wrote", show_default=False)] = None,
) -> None:
    """Show the intensity that the words of each scene's prompt ask for, or what served films like it, and why."""
    made = api.suggest(story, write=write, logs=log, ridge=ridge, on_note=warn)
    console.print(tables.suggestions_table(made))
    if write:
        count = sum(one.said in ("auto", None) for one in made)
        kept = f", {len(made) - count} kept as they were" if count < len(made) else ""
        console.print(f"{story}: {count} of {len(made)} intensities written{kept}", soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of storyboards, for editors."""
    from ..storyboard import storyboard_schema

    print_json(storyboard_schema())


@app.command()
def models(name: Annotated[str | None, typer.Argument(help="one model, in full")] = None) -> None:
    """List the models: where they come from, size, licence, and whether they are on disk."""
    from ..families.catalog import CATALOG, WEIGHTS_VARIABLE, card, entry_of, what_is_missing

    if name is None:
        console.print(tables.models_table([(entry, not what_is_missing(entry.name)) for entry in CATALOG.values()]))
        console.print(f"A diffusers folder or a hub id works too; offline folders: {WEIGHTS_VARIABLE}.", style="dim")
        return
    missing = what_is_missing(name)
    console.print(tables.model_text(entry_of(name), not missing, card(name)), soft_wrap=True)
    if missing:
        console.print(missing, style="dim", soft_wrap=True)
