"""What all commands share: the consoles, the options, how warnings and JSON are printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import TextColumn
from rich.text import Text

from .. import api
from .._version import __version__
from ..errors import RelaxError
from .tables import Screen

HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, context_settings=HELP)
MEMORY_FULL, STOPPED = 3, 4  # exit codes besides 0, 1 (some films of a batch failed) and 2 (bad input)
console, errors = Screen(), Screen(stderr=True, soft_wrap=True)

Model = Annotated[str | None, typer.Option(help="model name, folder or hub id, instead of the storyboard's")]
Out = Annotated[Path | None, typer.Option(help="folder for the film; default: out/NAME", show_default=False)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; default: cuda where there is one")]
Dtype = Annotated[str | None, typer.Option(help="float32 or bfloat16; default: bfloat16 on CUDA")]
Memory = Annotated[
    api.Memory, typer.Option(help="full: all on the GPU; tiled: VAE in tiles; offload: weights elsewhere")
]
OnNan = Annotated[api.OnNan, typer.Option(help="latents with NaN: stop, or retry with another seed, three times")]


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
