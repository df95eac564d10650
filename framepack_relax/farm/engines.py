"""Which workers there are: an executor by its name."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import RenderError
from .executor import Executor
from .local import Local

Engine = Literal["local"]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who renders a batch, where, and how each loads its model.

    `gpus` have a worker each, by default all that are visible; without any, `workers` are on the CPU with `threads`
    each, by default as many as cores allow. A worker that dies has its work begun again, `max_retries` times a film.
    """

    engine: Engine = "local"
    gpus: int | None = None
    workers: int | None = None
    threads: int = 1
    device: str | None = None
    dtype: str | None = None
    memory: Literal["auto", "full", "tiled", "offload"] = "auto"
    max_retries: int = 2

    def executor(self, logs: Path) -> Executor:
        """Raises RenderError for workers that cannot be."""
        for name in ("gpus", "workers", "threads"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise RenderError(f"{name}: is {value}; at least 1 must be at work")
        if self.gpus is not None and self.workers is not None:
            raise RenderError("gpus and workers: workers are for the CPU; say one of both")
        visible = () if self.workers else visible_gpus()
        if self.gpus is not None and self.gpus > len(visible):
            fact = f"{self.gpus} are asked for, and PyTorch sees {len(visible)} here"
            raise RenderError(f"gpus: {fact}; say how many it may take")
        cores = max(1, (os.cpu_count() or 1) // self.threads)
        return Local(logs=logs, gpus=visible[: self.gpus], processes=self.workers or cores, threads=self.threads)

    def loading(self, device: str | None = None) -> dict[str, Any]:
        """How a model is loaded, on `device` where nobody has said another."""
        return {"device": self.device or device, "dtype": self.dtype, "memory": self.memory}


def visible_gpus() -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that PyTorch sees."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in named.split(",") if name.strip()]
    count = torch.cuda.device_count()
    return tuple(names[:count] if names else map(str, range(count)))
