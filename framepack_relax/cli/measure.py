"""Commands that measure: eval, sweep, calibrate."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .. import api
from . import tables
from .app import Device, Loaded, Model, Out, app, console, dim, errors, print_json, spread, warn
from .farm import Crew

if TYPE_CHECKING:
    from ..evaluate.sweep import Outcome

Quick = Annotated[bool, typer.Option("--quick", help="one seed, two scenes, half the steps: a look")]
Action = Annotated[str | None, typer.Option(help="action judge: packaged, videomae, folder or hub id")]
TextJudge = Annotated[str | None, typer.Option(help="text judge: packaged, clip, folder or hub id")]


@dataclass(frozen=True, kw_only=True)
class Makers(Crew):
    """Who makes the films of a sweep: this process, unless workers are asked for."""

    gpus: Annotated[int | None, typer.Option(help="a worker on each of so many; default: one process")] = None
    workers: Annotated[int | None, typer.Option(help="so many on the CPU; default: one process")] = None

    def given(self) -> dict[str, Any]:
        """For `api.sweep`."""
        loaded = {field.name: getattr(self, field.name) for field in fields(Loaded)}
        return loaded if self == Makers(**loaded) else {"workers": api.workers(**vars(self))}


@app.command("eval")
def evaluate(
    films: Annotated[list[Path], typer.Argument(help="films (mp4 and others)", show_default=False)],
    prompt: Annotated[str | None, typer.Option(help="what they should show; default: their scenes' own")] = None,
    target_class: Annotated[list[str], typer.Option(help="the action judge's label for it; may be repeated")] = [],  # noqa: B006
    reference: Annotated[Path | None, typer.Option(help="a film to compare with, frame by frame")] = None,
    action: Action = None,
    text: TextJudge = None,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything, with the series")] = False,
) -> None:
    """Measure what films show: motion, action, fit to the prompt, stability, drift."""
    with errors.status("looking at the films", spinner="line"):
        judges: dict[str, Any] = {"action": action, "text": text, "device": device}
        rows, notes = api.evaluate(films, prompt=prompt, target_classes=target_class, reference=reference, **judges)
    warn(*notes)
    if as_json:
        return print_json(rows)
    console.print(tables.evaluation_table(rows))


@app.command()
@spread
def sweep(
    spec: Annotated[str, typer.Argument(help="headline, ablation, wan2.2-5b, helios, .. or a YAML file")],
    makers: Makers,
    out: Out = None,
    quick: Quick = False,
    model: Model = None,
    action: Action = None,
    text: TextJudge = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what it will take, in passes and GPU hours")] = False,
) -> None:
    """Compare settings on the same films; a sweep that was stopped goes on where it was."""
    if dry_run:
        return console.print(tables.ahead_table(api.sweep_plan(spec, model=model, quick=quick)))
    options = {"action": action, "text": text, "model": model, **makers.given()}
    place = out or Path("out", Path(spec).stem + "-quick" * quick)
    console.print(str(_compare(spec, place, quick=quick, **options).page), soft_wrap=True)


@app.command()
@spread
def calibrate(
    makers: Makers,
    spec: Annotated[str, typer.Argument(help="a sweep (YAML) with images of the model's kind")] = "calibration",
    out: Out = None,
    model: Model = None,
    action: Action = None,
    text: TextJudge = None,
    prompts: Annotated[
        list[Path], typer.Option(help="fit intensity to the prompts of these logs (films.jsonl, folders) instead")
    ] = [],  # noqa: B006
) -> None:
    """Find, for each level of intensity, the settings that serve a model best, and write them as a profile."""
    if prompts:
        return _fit(prompts, out or Path("out", "prompts.safetensors"), model)
    if spec == "calibration" and model not in (None, "puppet"):
        warn(
            "the sweep that comes along shows the packaged model's figures; write one with images of this model's kind"
        )
    options = {"action": action, "text": text, "model": model, **makers.given()}
    place = out or Path("out", f"calibration-{Path(model or 'own').name}")
    done = _compare(spec, place, calibrate=True, **options)
    use = 'for `profile:` of storyboards; the model\'s framepack_relax.json takes the same, in JSON, as "profile"'
    console.print(f"{done.profile}: {use}", soft_wrap=True)


@app.command("calibrate-speed")
@spread
def calibrate_speed(
    story: Annotated[Path, typer.Argument(help="a storyboard with calm scenes (YAML)", show_default=False)],
    loaded: Loaded,
    model: Model = None,
    share: Annotated[float, typer.Option(min=0.05, max=1, help="of the steps, those that ask the network")] = 0.5,
) -> None:
    """Find the steps that a model's calm scenes can spare, for `speed:` of storyboards."""
    with errors.status("rendering in full", spinner="line"):
        pace = api.pace(story, share=share, **({"model": model} if model else {}), **vars(loaded))
    console.print(f'speed: "{pace.pattern}"', soft_wrap=True)
    fact = f"measured on {pace.sections} calm sections: astray by about {pace.astray:.2%} of the way"
    console.print(f'{fact}. The model\'s framepack_relax.json takes it as "fast"', soft_wrap=True)


def _fit(logs: list[Path], file: Path, model: str | None) -> None:
    """A ridge of the prompts of logs."""
    with errors.status("reading the prompts", spinner="line"):
        ridge = api.fit_prompts(logs, out=file, model=model)
    fact = (
        f"{ridge.prompts} prompts; one that is left out is missed by {ridge.error:.3f}, by their mean {ridge.plain:.3f}"
    )
    use = "for `suggest --ridge`" if ridge.sure else "not sure enough: `suggest` will not ask it"
    console.print(f"{file}: {fact}; {use}", soft_wrap=True)


def _compare(spec: str, folder: Path, **options: Any) -> Outcome:
    """A sweep with a bar and its table."""
    film = TextColumn("film {task.completed} of {task.total}")
    times, watched = (TimeElapsedColumn(), TimeRemainingColumn()), errors.is_terminal
    bar = Progress(film, dim("arm"), BarColumn(), *times, console=errors, disable=not watched)
    count = 0
    with bar:
        task = bar.add_task("", arm="", visible=False)

        def on_film(row: dict[str, Any], total: int) -> None:
            nonlocal count
            count += 1
            if not watched:
                errors.print(f"film {count} of {total}: {row['arm']}")
            bar.update(task, advance=1, total=total, arm=row["arm"], visible=True)

        done = api.sweep(spec, out=folder, on_film=on_film, on_note=warn, **options)
    console.print(tables.sweep_table(done.cells))
    return done
