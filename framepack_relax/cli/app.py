"""What all commands share: the consoles, the options, how warnings and JSON are printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.progress import TextColumn
from rich.text import Text

from .. import api
from .._version import __version__
from ..errors import RelaxError
from .screen import Screen

HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, context_settings=HELP)
MEMORY_FULL, STOPPED = 3, 4  # exit codes besides 0, 1 (some films of a batch failed) and 2 (bad input)
console, errors = Screen(), Screen(stderr=True, soft_wrap=True)

Model = Annotated[str | None, typer.Option(help="model name, folder or hub id, instead of the storyboard's")]
Out = Annotated[Path | None, typer.Option(help="folder for the film; default: out/NAME", show_default=False)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; default: cuda where there is one")]
OnNan = Annotated[api.OnNan, typer.Option(help="latents with NaN: stop, or retry with another seed, three times")]


DTYPE = "float32, bfloat16 (default on CUDA); fp8, int8: bfloat16 with smaller weights"
Dtype = Annotated[str | None, typer.Option(help=DTYPE)]
Attention = Annotated[str | None, typer.Option(help="kernels: native, xformers, flash, sage, ..")]
Compile = Annotated[bool, typer.Option("--compile", help="compile the transformer's blocks")]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """How a model is loaded."""

    device: Device = None
    dtype: Dtype = None
    memory: Annotated[
        str, typer.Option(help="20GiB of the GPU; or full: all there, tiled: VAE in tiles, offload: weights elsewhere")
    ] = "auto"
    attention: Attention = None
    compile: Compile = False


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command each of whose dataclasses stands for its fields: options that belong together are one argument."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = list[Parameter]()
    for name, given in signature(command).parameters.items():
        if name in groups:
            types = get_type_hints(groups[name], include_extras=True)
            for part in fields(groups[name]):
                default = part.default_factory() if part.default_factory is not MISSING else part.default
                kind = Parameter.POSITIONAL_OR_KEYWORD
                parameters.append(Parameter(part.name, kind, default=default, annotation=types[part.name]))
        else:
            parameters.append(given.replace(annotation=hints[name]))

    @wraps(command)
    def called(**given: Any) -> None:
        made = {
            name: kind(**{part.name: given.pop(part.name) for part in fields(kind)}) for name, kind in groups.items()
        }
        command(**given, **made)

    called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def processes() -> int:
    """How many torchrun has started for what this one does; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def warn(*texts: str) -> None:
    for text in texts:
        errors.aside(Text.assemble(("warning: ", "yellow"), text))


def dim(field: str) -> TextColumn:
    return TextColumn(f"{{task.fields[{field}]}}", style="dim", markup=False)


def print_json(data: Any) -> None:
    if sys.stdout is None:
        raise RelaxError("standard output is closed; send it to a file or leave it open")
    sys.stdout.write(json.dumps(data, indent=1) + "\n")


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"framepack-relax {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    """Render storyboards to FramePack video, plan them, and measure what the films show."""
