"""Name -> loaded model."""

from typing import Literal

import torch

from ..errors import ModelError
from .backend import Backend, Preset
from .catalog import find_family
from .components import PRESETS


def load(
    name: str, *, device: str | None = None, dtype: str | None = None, memory: Preset | Literal["auto"] = "auto"
) -> Backend:
    """A model by catalogue name, folder or hub id.

    `device` is cuda where there is one, else cpu; `dtype` bfloat16 on CUDA, else float32; `memory` the fastest preset
    that fits (parts.py). Its weights wait in their files until the encoders are gone. Raises ModelError.
    """
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    if memory not in (*PRESETS, "auto"):
        raise ModelError(f"memory={memory}: unknown; use {', '.join(PRESETS)} or auto")
    family = find_family(name)
    return family.backend().open(family, name=name, device=where, dtype=kind, memory=memory)


def pick_device(name: str | None) -> torch.device:
    """The device of that name, cuda where there is one if None. Raises ModelError for what cannot be rendered on."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or not (number.isdecimal() or name == kind):
        raise ModelError(f"device={name}: no such device; use cpu, cuda or cuda:1")
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if there == 0:
        raise ModelError(f"device={name}: PyTorch sees no CUDA device here; use cpu")
    if int(number or 0) >= there:
        raise ModelError(f"device={name}: there is no such one; the last is {kind}:{there - 1}")
    return torch.device(kind, int(number)) if number else torch.device(kind)


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The dtype of that name, bfloat16 on CUDA and float32 elsewhere if None. Raises ModelError."""
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name == "float16":
        raise ModelError(f"dtype={name}: no transformer here is made for its range (NaN); use bfloat16")
    if name not in names:
        raise ModelError(f"dtype={name}: unknown; use {' or '.join(names)}")
    return names[name]
