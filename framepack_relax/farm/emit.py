"""The same units for farms that exist: one command a line, an OpenJD bundle, a Flamenco job.

Each command is idempotent and knows its output beforehand; lines may run in any order, at the same time and again. Of
the shots of a film who comes last makes the film. Paths are relative to the folder where the batch was planned.
"""

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import RenderError
from ..files import make_folder, write_file
from ..rendering.folder import writing
from .films import Film

TEMPLATE, PARAMETERS, ASSETS, COMMANDS = (
    "template.yaml",
    "parameter_values.yaml",
    "asset_references.yaml",
    "commands.txt",
)
RUN = """set -e
cd "$1"
sed -n "${3}p" "$2" | sh -e
"""


def commands(films: Iterable[Film], more: Sequence[str] = ()) -> list[str]:
    """A line of shell for each shot that is not done, the highest priority first; `more` are options of `render`.

    Raises RenderError where a line cannot say it.
    """
    lines = [shlex.join(words) for words in _words(films, more)]
    if broken := next((line for line in lines if len(line.splitlines()) != 1), None):
        raise RenderError(f"emit: a command is a line, and {broken!r} has several; rename the file")
    return lines


def _words(films: Iterable[Film], more: Sequence[str]) -> Iterable[list[str]]:
    for film in sorted(films, key=lambda film: -film.priority):
        given = {"--out": _relative(film.out), "--seed": film.story.seed, "--model": film.story.model}
        given |= {f"--{name}": value for name, value in film.loading.asked.items() if name != "compile"}
        given |= {"--on-nan": film.options.on_nan, "--steps": film.board.get("steps")}
        if others := sorted(set(film.board) - {"model", "steps"}):
            raise RenderError(f"emit: no command can say {', '.join(others)}; write it in the storyboards")
        options = [str(word) for pair in given.items() if pair[1] is not None for word in pair]
        options += ["--compile"] * film.loading.compile
        shots = [shot for shot, left in enumerate(film.left) if left] or [0][: not film.whole]
        for shot in shots:
            place = ["--shot", str(shot)] if len(film.left) > 1 else []
            yield ["framepack-relax", "render", _relative(film.story.file or film.out), *options, *place, *more]


def _relative(path: Path) -> str:
    name = Path(os.path.relpath(path)).as_posix()
    return f"./{name}" if name.startswith("-") else name  # it is no option


def openjd(films: Iterable[Film], folder: Path, name: str) -> Path:
    """Writes a bundle for `openjd run` and `deadline bundle submit`: a task for each command. Raises RenderError."""
    films = list(films)
    lines = commands(films, ["--openjd"])
    if not lines:
        raise RenderError("openjd: all films are there; nothing is left for a farm")
    outs = sorted({os.path.abspath(film.out) for film in films})
    boards = sorted({os.path.abspath(film.story.file) for film in films if film.story.file})
    parameters = [{"name": "Folder", "value": os.getcwd()}]
    assets = {"inputs": {"filenames": boards, "directories": []}, "outputs": {"directories": outs}}
    on_gpus = any(film.loading.device != "cpu" for film in films)
    files = {TEMPLATE: _template(name, len(lines), on_gpus), PARAMETERS: {"parameterValues": parameters}}
    files[ASSETS] = {"assetReferences": {**assets, "referencedPaths": []}}
    with writing(folder, "cannot be made a bundle", "choose another folder"):
        make_folder(folder)
        write_file(folder / COMMANDS, ("\n".join(lines) + "\n").encode("utf8"))
        for file, data in files.items():
            write_file(folder / file, yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode("utf8"))
    return folder


def _template(name: str, lines: int, on_gpus: bool) -> dict[str, Any]:
    """As the Open Job Description specification 2023-09 has it."""
    where = {"name": "Folder", "type": "PATH", "objectType": "DIRECTORY", "dataFlow": "INOUT"}
    what = {"name": "Commands", "type": "PATH", "objectType": "FILE", "dataFlow": "IN", "default": COMMANDS}
    given = ["{{Task.File.Run}}", "{{Param.Folder}}", "{{Param.Commands}}", "{{Task.Param.Line}}"]
    action = {"command": "bash", "args": given, "cancelation": {"mode": "NOTIFY_THEN_TERMINATE"}}
    script = {
        "embeddedFiles": [{"name": "Run", "type": "TEXT", "filename": "run.sh", "data": RUN}],
        "actions": {"onRun": action},
    }
    step: dict[str, Any] = {
        "name": "Render",
        "parameterSpace": {"taskParameterDefinitions": [{"name": "Line", "type": "INT", "range": f"1-{lines}"}]},
        "script": script,
    }
    if on_gpus:
        step["hostRequirements"] = {"amounts": [{"name": "amount.worker.gpu", "min": 1}]}
    return {
        "specificationVersion": "jobtemplate-2023-09",
        "name": name,
        "parameterDefinitions": [where, what],
        "steps": [step],
    }


def flamenco(films: Iterable[Film], name: str) -> str:
    """A job to be sent to Flamenco's manager (POST /api/v3/jobs), whose type is in scripts/deploy/flamenco."""
    films = list(films)
    settings = {"folder": os.getcwd(), "commands": json.dumps(list(_words(films, [])))}
    job = {"name": name, "type": "framepack-relax", "priority": 50, "settings": settings}
    return json.dumps({**job, "submitter_platform": "linux"}, indent=1)
