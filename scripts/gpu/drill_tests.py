"""The drill's first part: the tests marked `gpu`, their outcomes as they come.

python scripts/gpu/drill_tests.py RESULT.json [--cpu]
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from drill_record import Record

TESTS = Path(__file__).parents[2] / "tests" / "test_gpu.py"


class Outcomes:
    """A plugin of pytest."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.passed:
            return
        name = report.nodeid.split("::")[-1]
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""  # (file, line, reason) of a skip
        self.record.put(name, {"outcome": report.outcome, "seconds": round(report.duration, 2), "why": why})
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.record.fail(name, str(crash.message if crash else report.longrepr).splitlines()[0])


def main(file: str, *options: str) -> int:
    device = "cpu" if "--cpu" in options else "cuda"
    record = Record(Path(file), torch.device(device))
    words = [str(TESTS), "-m", "gpu", "--device", device, "--no-showlocals", "-p", "no:cacheprovider"]
    status = pytest.main(words, plugins=[Outcomes(record)])
    return record.finish() or int(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
