"""Which workers there are: an executor by its name. Only here it is known what engines are called and need."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RenderError
from ..families.engine import check_attention
from ..families.loader import check_dtype, memory_bytes
from . import Engine
from .executor import Executor
from .local import Local


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who renders a batch, where, and how each loads its model.

    `gpus` have a worker each, by default all that are visible; without any, `workers` are on the CPU with `threads`
    each, by default as many as cores allow. A worker that dies has its work begun again, `max_retries` times a film.
    `commands` lets boards' `finish` run on them.

    `engine` ray has them on the nodes of the Ray cluster at `address` (HOST:PORT, "auto", ray://HOST:10001; None for
    RAY_ADDRESS, or one that is started here), slurm has a job for each of `gpus` or `workers`, with the options `slurm`
    of sbatch ("partition=gpu"). All machines must see the same files under the same paths.
    """

    engine: Engine = "local"
    gpus: int | None = None
    workers: int | None = None
    threads: int = 1
    device: str | None = None
    dtype: str | None = None
    memory: str = "auto"
    attention: str | None = None
    compile: bool = False
    max_retries: int = 2
    commands: bool = False
    address: str | None = None
    slurm: Sequence[str] = ()

    def check(self, away: bool = False) -> None:
        """Raises RelaxError for workers that cannot be, as far as it can be known without looking for them.

        `away`: they are none of this machine's, whatever the engine.
        """
        memory_bytes(self.memory)
        away = away or self.engine != "local"
        check_dtype(self.dtype, away=away)
        check_attention(self.attention, away=away)
        if self.max_retries < 0:
            raise RenderError(f"max_retries: is {self.max_retries}; give 0 or more")
        for name in ("gpus", "workers", "threads"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise RenderError(f"{name}: is {value}; at least 1 must be at work")
        if self.gpus is not None and self.workers is not None:
            raise RenderError("gpus and workers: workers are for the CPU; say one of both")
        for name, owner in {"address": "ray", "slurm": "slurm"}.items():
            if getattr(self, name) and self.engine != owner:
                raise RenderError(f"{name}: is not for the engine {self.engine}; choose {owner}, or leave it out")
        if self.engine not in ENGINES:
            raise RenderError(f"engine: there is no {self.engine!r}; use {', '.join(ENGINES)}")

    def executor(self, logs: Path) -> Executor:
        """Raises RelaxError for workers that cannot be."""
        self.check()
        try:
            return ENGINES[self.engine](self, logs)
        except ModuleNotFoundError as error:
            cure = f"pip install 'framepack-relax[{self.engine}]'"
            raise RenderError(f"engine {self.engine}: {error.name} is not installed: {cure}") from error

    def loading(self, device: str | None = None) -> dict[str, Any]:
        """How a model is loaded, on `device` where nobody has said another."""
        away = self.engine != "local"
        engine = {"attention": self.attention, "compile": self.compile}
        return {"device": self.device or device, "dtype": self.dtype, "memory": self.memory, "away": away, **engine}


def _local(asked: Workers, logs: Path) -> Executor:
    visible = () if asked.workers else visible_gpus()
    if asked.gpus is not None and asked.gpus > len(visible):
        fact = f"{asked.gpus} are asked for, and PyTorch sees {len(visible)} here"
        raise RenderError(f"gpus: {fact}; say how many it may take")
    cores = max(1, (os.cpu_count() or 1) // asked.threads)
    return Local(logs=logs, gpus=visible[: asked.gpus], processes=asked.workers or cores, threads=asked.threads)


def _ray(asked: Workers, logs: Path) -> Executor:
    from .ray_cluster import Ray

    return Ray(address=asked.address, gpus=asked.gpus, processes=asked.workers, threads=asked.threads)


def _slurm(asked: Workers, logs: Path) -> Executor:
    from .slurm import Slurm

    if not (jobs := asked.gpus or asked.workers):
        raise RenderError("slurm: say with gpus how many jobs there are, a GPU each, or with workers, for the CPU")
    options = dict(map(_option, asked.slurm))
    given: dict[str, Any] = {"threads": asked.threads, "sbatch": options, "max_retries": asked.max_retries}
    return Slurm(logs=logs, jobs=jobs, on_gpus=bool(asked.gpus), **given)


def _option(text: str) -> tuple[str, str]:
    name, _, value = text.removeprefix("--").partition("=")
    if not name or not value:
        raise RenderError(f"slurm: {text!r} is no option of sbatch; write NAME=VALUE, such as partition=gpu")
    return name, value


ENGINES: dict[Engine, Callable[[Workers, Path], Executor]] = {"local": _local, "ray": _ray, "slurm": _slurm}


def visible_gpus() -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that PyTorch sees."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in named.split(",") if name.strip()]
    count = torch.cuda.device_count()
    return tuple(names[:count] if names else map(str, range(count)))
