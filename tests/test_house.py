"""Rooms import to the left only, and importing the package does no work."""

import ast
import subprocess
import sys
from pathlib import Path

import framepack_relax

PACKAGE = Path(framepack_relax.__file__).parent
ROOMS = (
    "errors",
    "files",
    "storyboard",
    "relax",
    "families",
    "planning",
    "sampling",
    "video",
    "rendering",
    "evaluate",
    "api",
    "tables",
    "cli",
)


def imported(file: Path):
    """Dotted names, relative to the package, that a file imports."""
    inside = file.relative_to(PACKAGE).with_suffix("").parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = inside[: len(inside) - node.level]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (".".join((*base, name)) for name in names)


def test_imports_point_left():
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).with_suffix("").parts[0]
        for name in imported(file):
            other = name.split(".")[0]
            if room in ROOMS and other in ROOMS and ROOMS.index(other) > ROOMS.index(room):
                wrong.append(f"{file.name}: {room} imports {other}")
    assert wrong == [] and any("families" in name for name in imported(PACKAGE / "planning" / "planner.py"))


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, framepack_relax as fr\n"
        "assert callable(fr.plan) and callable(fr.render), (fr.plan, fr.render)\n"
        "assert not {'torch', 'diffusers', 'av'} & set(sys.modules)\n"
        "import framepack_relax.rendering, framepack_relax.planning.grid\n"
        "assert callable(fr.plan) and callable(fr.render), 'the functions stay the functions'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_loads_no_library_that_only_work_needs():
    code = (
        "import sys\n"
        "from framepack_relax import cli\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'huggingface_hub', 'av', 'numpy', 'pydantic', 'yaml', 'PIL'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert "Usage: " in done.stdout and done.returncode == 0, done.stderr
