"""Commands for films: plan, render, rerun, status; what models and fields there are."""

from __future__ import annotations

import time
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .. import api
from ..errors import RelaxError
from ..families.quiet import quietly
from . import tables
from .app import STOPPED, Device, Dtype, Memory, Model, OnNan, Out, app, console, dim, errors, print_json, warn

if TYPE_CHECKING:
    from ..families.loading import Loading
    from ..planning.renderplan import RenderPlan
    from ..rendering.loop import RenderedFilm
    from ..rendering.session import Options
    from ..storyboard import Storyboard

Board = Annotated[Path, typer.Argument(help="storyboard (YAML)", show_default=False)]
Seed = Annotated[int | None, typer.Option(help="seed, instead of the storyboard's")]
Steps = Annotated[int | None, typer.Option(help="denoising steps, instead of the storyboard's and its scenes'")]
Into = Annotated[Path | None, typer.Option("--out", help="say too what a render into it keeps", show_default=False)]
Anew = Annotated[bool | None, typer.Option("--fresh/--strict", help="keep nothing / nothing of other versions")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be kept and why not the rest; write nothing")]
Draft = Annotated[bool, typer.Option("--draft", help="a third of the steps, for a first look")]
DRAFT = 3  # a draft takes a third of the steps
KEEPING: dict[bool | None, dict[str, bool]] = {None: {}, True: {"fresh": True}, False: {"strict": True}}


@app.command()
def render(
    story: Board,
    out: Out = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = "auto",
    steps: Steps = None,
    seed: Seed = None,
    draft: Draft = False,
    anew: Anew = None,
    dry_run: DryRun = False,
    on_nan: OnNan = "stop",
) -> None:
    """Render a storyboard; what is on disk already, made by the same settings, is kept and not rendered again."""
    board = _board(story, model, steps, seed, draft)
    if dry_run:
        return _preview(board, out, device=device, dtype=dtype, **KEEPING[anew])
    loading = {"device": device, "dtype": dtype, "memory": memory}
    _render(board, api.folder_for(board, out), loading, {"on_nan": on_nan, **KEEPING[anew]})


@app.command()
def rerun(
    film: Annotated[Path, typer.Argument(help="an mp4 that framepack-relax wrote", show_default=False)],
    out: Out = None,
    device: Device = None,
    dtype: Dtype = None,
    memory: Memory = "auto",
    anew: Anew = None,
    on_nan: OnNan = "stop",
) -> None:
    """Render a film again from the storyboard and start images that it carries."""
    film = api.meant(film)
    name = film.absolute().parent.name if film.name == "video.mp4" else film.stem
    folder = api.output_folder(out or Path("out", f"{name}-again"))
    with quietly:
        from ..families.loader import pick_device, pick_dtype
        from ..rendering.carry import provenance
    pick_dtype(dtype, pick_device(device))  # mistakes of these are told before anything is written
    board = api.read(api.restore(film, folder, on_note=warn))
    as_then = {f"torch.{name}": name for name in ("float32", "bfloat16")}.get(str(provenance(film).get("dtype")))
    loading = {"device": device, "dtype": dtype or as_then, "memory": memory}
    _render(board, folder, loading, {"on_nan": on_nan, **KEEPING[anew]}, again=film)


@app.command()
def status(out: Annotated[Path, typer.Argument(help="folder of a render", show_default=False)]) -> None:
    """Show how far the render in a folder has come, and when it will be done."""
    said = api.status(out)
    console.print(tables.status_table(said))
    console.print(tables.status_text(said, time.time()), soft_wrap=True)


def _render(
    board: Storyboard, folder: Path, loading: dict[str, Any], options: dict[str, Any], again: Path | None = None
) -> None:
    """Loads the model, renders with a bar, prints the table; `again`: the film that should come out the same."""
    plan = api.plan(board)
    warn(*plan.warnings)
    with quietly:
        from ..families.loading import Loading
        from ..rendering.carry import what_differs
        from ..rendering.session import Options
    loaded = Loading(name=board.model, **loading)
    if again and (line := what_differs(again, loaded)):
        warn(f"the film was made otherwise and will not come out the same to the bit: {line}")
    film = _with_bar(board, folder, loaded, plan, Options(**options))
    console.print(tables.report_table(film.plan, film.report))
    console.print(f"{film.path}  {tables.totals_text(film.report['totals'])}", soft_wrap=True)


def _preview(board: Storyboard, out: Path | None, **given: Any) -> None:
    """What a render would keep."""
    folder = api.folder_for(board, out)
    line = tables.verdict_line(api.preview(board, out=folder, on_note=warn, **given)) or "nothing is there yet"
    console.print(f"{folder}: {line}", soft_wrap=True)


@quietly
def _with_bar(board: Storyboard, folder: Path, model: Loading, plan: RenderPlan, options: Options) -> RenderedFilm:
    """Renders with a bar; where nobody sees one, with a line for every section."""
    from ..rendering.events import Event
    from ..rendering.folder import Verdict
    from ..rendering.loop import render

    section = TextColumn("section {task.fields[section]} of {task.fields[sections]}")
    step, left = TextColumn("step {task.completed}/{task.total}"), TextColumn("ETA")
    times = TimeElapsedColumn(), left, TimeRemainingColumn()
    watched = console.is_interactive and console.file.isatty()  # FORCE_COLOR makes no terminal of a log
    bar = Progress(section, dim("scene"), BarColumn(), step, *times, console=console, disable=not watched)
    done, total, clock = 0, len(plan.sections), time.monotonic()
    try:
        with bar:
            task = bar.add_task("", total=plan.steps, section=1, sections=total, scene="loading the model")
            begins: dict[int, int] = {}  # step at which each section that is to be rendered begins

            def on_event(event: Event) -> None:
                nonlocal done
                section = plan.sections[event.section or 0]
                match event.kind:
                    case "note" | "warning":
                        warn(event.text)
                    case "verdicts":
                        verdicts = [Verdict(plan.sections[index], why, note) for index, why, note in event.verdicts]
                        if line := tables.verdict_line(verdicts):
                            console.aside(line, soft_wrap=True)
                        anew = {section.index: len(section.steps) for section, why, _ in verdicts if why is not None}
                        begins.update(zip(anew, accumulate(anew.values(), initial=0), strict=False))
                        bar.update(task, total=sum(anew.values()))
                    case "step" if event.step is not None:
                        bar.update(task, completed=begins[section.index] + event.step + 1, scene=section.scene)
                    case "section":
                        done += 1
                        bar.update(task, section=min(done + 1, total))
                        if done == total:
                            bar.update(task, scene="writing the film")
                        if not watched and section.index in begins:
                            spent = tables.duration(time.monotonic() - clock)
                            console.aside(f"section {done} of {total}: scene {section.scene}, {spent}", soft_wrap=True)
                        if event.seed != section.seed:
                            console.aside(f"section {section.index} took another seed: its latents were not finite")

            return render(board, out=folder, model=model, options=options, on_event=on_event)
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
def plan(
    story: Board,
    as_json: Annotated[bool, typer.Option("--json", help="print plan.json")] = False,
    out: Into = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    steps: Steps = None,
    seed: Seed = None,
    draft: Draft = False,
) -> None:
    """Show what a render would do: scenes on the grid, every rounding, settings; needs no weights and no torch."""
    board = _board(story, model, steps, seed, draft)
    made = api.plan(board)
    if as_json:
        return print_json(made.to_json())
    console.print(tables.plan_table(made), tables.prompts_table(made))
    console.print(tables.crops_text(made), soft_wrap=True)
    warn(*made.warnings)
    if out:
        _preview(board, out, device=device, dtype=dtype)


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


def _board(story: Path, model: str | None, steps: int | None, seed: int | None, draft: bool) -> Storyboard:
    """The storyboard with the command line's changes; its `steps` stand in for those of scenes, too."""
    board = api.read(story)
    options = {"model": model, "seed": seed, "steps": steps}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    own = [None if steps is not None else scene.steps for scene in board.scenes]
    if draft:
        own, given["steps"] = list(map(_fewer, own)), _fewer(given.get("steps", board.steps))
    if draft or steps is not None:
        pairs = zip(board.scenes, own, strict=True)
        given["scenes"] = tuple(scene.model_copy(update={"steps": count}) for scene, count in pairs)
    return board.changed(**given) if given else board


def _fewer(steps: int | None) -> int | None:
    return steps and max(1, -(-steps // DRAFT))
