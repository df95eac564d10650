"""Which workers there are: an executor by its name."""

import os
from pathlib import Path
from typing import Literal

from ..errors import RenderError
from .executor import Executor
from .local import Local

Engine = Literal["local"]


def make_executor(
    engine: Engine, *, logs: Path, gpus: int | None = None, workers: int | None = None, threads: int = 1
) -> Executor:
    """`gpus`, by default all that are visible, with a worker each; or `workers` on the CPU, by default one for as many
    cores as each has `threads`. Raises RenderError."""
    for name, value in {"gpus": gpus, "workers": workers, "threads": threads}.items():
        if value is not None and value < 1:
            raise RenderError(f"{name}: is {value}; at least 1 must be at work")
    if gpus is not None and workers is not None:
        raise RenderError("gpus and workers: workers are for the CPU; say one of both")
    visible = () if workers else visible_gpus()
    if gpus is not None and gpus > len(visible):
        raise RenderError(f"gpus: {gpus} are asked for, and PyTorch sees {len(visible)} here; say how many it may take")
    cores = max(1, (os.cpu_count() or 1) // threads)
    return Local(logs=logs, gpus=visible[:gpus], processes=workers or cores, threads=threads)


def visible_gpus() -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that PyTorch sees."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in named.split(",") if name.strip()]
    count = torch.cuda.device_count()
    return tuple(names[:count] if names else map(str, range(count)))
