"""Rooms import to the left only, and importing the package does no work."""

import ast
import re
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
    "exchange",
    "farm",
    "evaluate",
    "api",
    "cli",
    "comfyui",
)


def imported(file: Path):
    """Dotted names, relative to the package, that a file imports, whether it says so absolutely or relatively."""
    return names_in(ast.parse(file.read_text(encoding="utf8")), file)


def names_in(tree: ast.AST, file: Path):
    own, inside = f"{PACKAGE.name}.", file.relative_to(PACKAGE).with_suffix("").parts
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = inside[: len(inside) - node.level]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (".".join((*base, name)) for name in names)
        elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(own):
            yield from (f"{node.module}.{alias.name}".removeprefix(own) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix(own) for a in node.names if a.name.startswith(own))


def test_imports_point_left():
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).with_suffix("").parts[0]
        for name in imported(file):
            other = name.split(".")[0]
            if room in ROOMS and other in ROOMS and ROOMS.index(other) > ROOMS.index(room):
                wrong.append(f"{file.name}: {room} imports {other}")
    assert wrong == [] and any("families" in name for name in imported(PACKAGE / "planning" / "planner.py"))


def test_no_room_right_of_the_families_knows_what_belongs_to_one():
    words = re.compile(r"\b(history|start_image|HunyuanVideo\w*|FramePack|36)\b")
    rooms, said = ROOMS[ROOMS.index("families") + 1 : ROOMS.index("cli")], {}
    for file in PACKAGE.rglob("*.py"):
        if file.relative_to(PACKAGE).with_suffix("").parts[0] in rooms:
            text = "\n".join(line.split("#")[0] for line in file.read_text(encoding="utf8").splitlines())
            said |= {file.name: found} if (found := words.findall(text)) else {}
    assert said == {} and words.search((PACKAGE / "families/framepack/family.py").read_text(encoding="utf8"))


def test_imports_that_are_absolute_count():
    text = "from framepack_relax.rendering import loop\nimport framepack_relax.api\nfrom framepack_relax import video\n"
    assert list(names_in(ast.parse(text), PACKAGE / "planning" / "x.py")) == ["rendering.loop", "api", "video"]


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
        "heavy |= {'fastapi', 'uvicorn'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert "Usage: " in done.stdout and done.returncode == 0, done.stderr
