"""Renders the demo, and sweeps a little, with the lowest and the newest versions that pyproject.toml allows, each anew.

python scripts/versions.py              # both; make test-versions
python scripts/versions.py lowest

Some gigabytes are downloaded; PIP_EXTRA_INDEX_URL may name an index with PyTorch's CPU builds, which are smaller.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BOARD = ROOT / "storyboards" / "backflip.yaml"
SWEEP = """
title: needs what the extra `eval` brings
model: fake
sampler: euler
steps: 2
seeds: 1
seconds: 1.2
starts: [{image: red-beach.png, who: a red figure, where: on the beach}]
scenes: [{id: wave, prompt: "{who} waves {where}", target: wave}]
arms: [{id: plain, intensity: 0}, {id: moved, intensity: 1}]
"""
TOLD = """
import json, sys
from importlib.metadata import version
from pathlib import Path
from framepack_relax.video.reader import read_frames
out, names = Path(sys.argv[1]), sys.argv[2:]
totals = json.loads((out / "report.json").read_text())["totals"]
assert sum(1 for _ in read_frames(out / "video.mp4")) == totals["frames"]
print("Python", sys.version.split()[0], *(f"{name} {version(name)}," for name in names), end=" ")
print(totals["sections"], "sections,", totals["frames"], "frames rendered and read again")
"""


def lower_bounds() -> dict[str, str]:
    """The lowest version of each direct dependency, those of `eval` too, by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["eval"]]
    return dict(requirement.split(">=") for requirement in needed)


def attempt(kind: str, folder: Path) -> bool:
    """Installs, renders, and prints what was installed; false where one of these fails."""
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    bounds = lower_bounds()
    exact = [f"{name}=={version}" for name, version in bounds.items()] if kind == "lowest" else list(bounds)
    film = [BOARD, "--steps", "2", "--device", "cpu", "--out", folder / "out"]
    arms = [folder.parent / "sweep.yaml", "--device", "cpu", "--out", folder / "sweep"]
    arms[0].write_text(SWEEP, encoding="utf8")
    shutil.copy(BOARD.with_name("red-beach.png"), folder.parent)
    steps = (
        [sys.executable, "-m", "venv", folder],
        [python, "-m", "pip", "install", "--quiet", "--upgrade", f"{ROOT}[eval]", *exact],
        [python, "-m", "framepack_relax", "render", *film],
        [python, "-m", "framepack_relax", "sweep", *arms, "--action", "packaged", "--text", "packaged"],
        [python, "-c", TOLD, folder / "out", *bounds],
    )
    print(f"{kind}: ", end="", flush=True)
    for step in steps:
        done = subprocess.run(step, cwd=folder.parent, capture_output=True, text=True, encoding="utf8")
        if done.returncode:
            print(f"{' '.join(map(str, step[1:4]))} fails\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
            return False
    print(done.stdout.strip(), flush=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="lowest|newest", help="default: both")
    kinds = parser.parse_args().kinds or ["lowest", "newest"]
    if unknown := set(kinds) - {"lowest", "newest"}:
        parser.error(f"{', '.join(sorted(unknown))}: lowest or newest")
    with tempfile.TemporaryDirectory() as name:
        worked = [attempt(kind, Path(name, kind)) for kind in kinds]
    sys.exit(not all(worked))


if __name__ == "__main__":
    main()
