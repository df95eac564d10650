"""The drill's last part: trains the large puppet for a while; what it left the next run goes on from.

python scripts/gpu/drill_training.py RESULT.json SECONDS [--cpu]
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from drill_record import Record

SCRIPTS = Path(__file__).parents[1]
RUN = SCRIPTS.parent / "runs" / "large"  # not with the results: its checkpoints are too large to come back
GRACE = 20  # s for the checkpoint


def progress(run: Path) -> dict[str, Any]:
    """Of each stage: steps done, loss and seconds a step over the last hundred."""
    found = {}
    for file in sorted(run.glob("*/losses.jsonl")):
        rows = [json.loads(line) for line in file.read_text(encoding="utf8").splitlines() if line.endswith("}")]
        if rows:
            figures = {name: round(mean(row[name] for row in rows[-100:]), 4) for name in ("loss", "seconds")}
            found[file.parent.name] = {"steps": rows[-1]["step"] + 1, **figures}
    return found


def main(file: str, seconds: str, *options: str) -> int:
    cpu = "--cpu" in options
    record = Record(Path(file), torch.device("cpu" if cpu else "cuda"))
    run = Path(file).parent / "training" if cpu else RUN
    size = ["--smoke", "--device", "cpu"] if cpu else ["--large", "--device", "cuda"]
    end = time.monotonic() + float(seconds) - GRACE
    command = [sys.executable, "-m", "training.train", "--out", str(run.resolve()), *size]
    training = subprocess.Popen(command, cwd=SCRIPTS)
    while training.poll() is None:
        time.sleep(1)
        record.put("stages", progress(run))
        if time.monotonic() > end:
            training.send_signal(signal.SIGINT)  # it finishes its step and saves
            training.wait()
    record.put("stages", progress(run))
    stopped = time.monotonic() > end
    record.put("ended", "stopped in time, goes on when started again" if stopped else "all stages done")
    if not stopped and training.returncode:
        record.fail("training", f"exit status {training.returncode}")
    return record.finish()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
