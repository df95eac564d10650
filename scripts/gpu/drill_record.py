"""What a part of the drill leaves: a JSON file that is whole after every measurement; and how it takes the time."""

import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

T = TypeVar("T")
PACKAGES = ("torch", "diffusers", "transformers", "accelerate")


class Record:
    """Results by name in `file`; a measurement that fails is noted and lets the next ones run."""

    def __init__(self, file: Path, device: torch.device) -> None:
        self.file, self.begun = file, time.perf_counter()
        self.content: dict[str, Any] = {
            "machine": machine(device), "date": datetime.now(UTC).date().isoformat(),
            "rehearsal": device.type == "cpu", "finished": False, "seconds": 0.0, "results": {}, "failures": {},
        }  # fmt: skip
        self._save()

    def put(self, name: str, value: Any) -> None:
        self.content["results"][name] = value
        self._save()
        print(f"{self.content['seconds']:.1f} s: {name}")

    def fail(self, name: str, why: str) -> None:
        self.content["failures"][name] = why
        self._save()

    def measure(self, name: str, work: Callable[[], Any]) -> None:
        """Puts what `work` gives, or notes what it raises."""
        try:
            self.put(name, work())
        except Exception as error:
            self.fail(name, f"{type(error).__name__}: {error}".splitlines()[0])

    def finish(self) -> int:
        """All has been tried; gives the part's exit status."""
        self.content["finished"] = True
        self._save()
        return 1 if self.content["failures"] else 0

    def _save(self) -> None:
        self.content["seconds"] = round(time.perf_counter() - self.begun, 1)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf8")
        os.replace(part, self.file)


class Stopwatch:
    """Moments in the device's own time: CUDA events on a GPU, the clock elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.cuda, self.moments = device.type == "cuda", []  # type: ignore[var-annotated]

    def mark(self) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.moments.append(event)
        else:
            self.moments.append(time.perf_counter())

    def laps(self) -> list[float]:
        """Seconds from each moment to the next."""
        if self.cuda:
            torch.cuda.synchronize()
            return [before.elapsed_time(after) / 1000 for before, after in pairwise(self.moments)]
        return [after - before for before, after in pairwise(self.moments)]


def laps(work: Callable[[], object], times: int, device: torch.device) -> list[float]:
    """Seconds of each call after a first one that warms up."""
    work()
    watch = Stopwatch(device)
    watch.mark()
    for _ in range(times):
        work()
        watch.mark()
    return watch.laps()


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"seconds": median(seconds), "least": min(seconds), "most": max(seconds)}


def with_peak(work: Callable[[], T], device: torch.device) -> tuple[T, dict[str, int] | None]:
    """What `work` gives, and the bytes of the GPU that lived and that were held at the most; None without a GPU."""
    if device.type != "cuda":
        return work(), None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    made = work()
    return made, {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}


def machine(device: torch.device) -> dict[str, Any]:
    """Hardware and versions."""
    facts: dict[str, Any] = {"hardware": platform.machine(), "cores": os.cpu_count()}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        facts |= {"hardware": card.name, "bytes": card.total_memory, "capability": f"{card.major}.{card.minor}"}
    libraries = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {**facts, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}, **libraries}
