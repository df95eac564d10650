"""Runs the drill's parts one after another, each in its own process with its own time limit; see README.md beside this.

python scripts/gpu/drill.py [FOLDER] [--cpu] [--train]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
TOTAL = 465  # s; installing the wheels and the start come on top
LIMITS = {"tests": 150, "geometry": 300}  # s
REHEARSAL = {"tests": 600, "geometry": 600}  # s; two busy cores are slow
TRAINING = 40  # s in a rehearsal
LEAST = 60  # s that are worth training for


def run_part(command: Sequence[str], log: Path, limit: float) -> str:
    """Runs `command` with its output in `log`; '' if it went well, else how it ended. At the limit all of it ends."""
    with open(log, "wb") as output:
        part = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = part.wait(limit)
        except subprocess.TimeoutExpired:
            return f"stopped at its limit of {limit:.0f} s"
        finally:
            if part.poll() is None:
                os.killpg(part.pid, signal.SIGKILL)
                part.wait()
    return f"exit status {status}" if status else ""


def summary(file: Path, ended: str) -> list[str]:
    """A part in lines: how it ended, each result, each failure."""
    if not file.exists():
        return [f"{file.stem}: {ended or 'left nothing'}"]
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf8"))
    said = [f"{file.stem}: {ended or 'done'}, {content['seconds']:.0f} s, {content['machine']['hardware']}"]
    said += [f"  {name}: {in_words(value)}" for name, value in content["results"].items()]
    return said + [f"  FAILED {name}: {why}" for name, why in content["failures"].items()]


def in_words(value: Any) -> str:
    """JSON without its punctuation, floats to four digits."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(inner)}" for name, inner in value.items() if inner not in (None, ""))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(os.environ.get("OUT") or "out/gpu"))
    parser.add_argument("--cpu", action="store_true", help="a rehearsal at toy size")
    parser.add_argument("--train", action="store_true", help="train the large puppet in the time that is left")
    words = parser.parse_args()
    if not words.cpu and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here; --cpu rehearses without one")
    if missing := [name for name in ("diffusers", "pydantic", "transformers", "pytest") if find_spec(name) is None]:
        parser.error(f"{', '.join(missing)}: not here; run scripts/gpu/fetch_wheels.sh where there is a network")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that its part ends too
    words.folder.mkdir(parents=True, exist_ok=True)
    begun, ended, options = time.monotonic(), {}, ["--cpu"] * words.cpu
    files = {name: words.folder / f"{name}.json" for name in (*LIMITS, "training")}
    for file in files.values():
        file.unlink(missing_ok=True)  # of another run

    def run(name: str, limit: float, *more: str) -> None:
        print(f"{name}, at most {limit:.0f} s ...")
        command = [sys.executable, str(HERE / f"drill_{name}.py"), str(files[name]), *more, *options]
        ended[name] = run_part(command, files[name].with_suffix(".log"), limit)

    for name, limit in (REHEARSAL if words.cpu else LIMITS).items():
        run(name, limit)
    left = TRAINING if words.cpu else TOTAL - (time.monotonic() - begun)
    if words.train and left < LEAST and not words.cpu:
        print(f"training: only {left:.0f} s are left, no time for it")
    elif words.train:
        run("training", left, str(left - 5))
    for name, how in ended.items():
        print("\n".join(summary(files[name], how)))
    well = not any(ended.values())
    print(f"{'all went well' if well else 'NOT all went well'}; results and logs are in {words.folder}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
