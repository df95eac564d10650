"""Name -> loaded model."""

from collections.abc import Iterator
from typing import Any, Literal

import torch

from ..errors import ModelError
from .backend import Backend, Preset
from .catalog import find, find_family
from .components import PRESETS, load_part
from .fingerprint import in_background


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
    family, source = find_family(name), find(name)
    stamp = source.stamp()

    def read_all() -> str:
        weights = source.fingerprint()
        source.check(stamp)
        return weights

    reading, beside = in_background(read_all), encoder_dtype(kind, where)
    cudnn = torch.backends.cudnn.version() if where.type == "cuda" else None
    made: Any = family.backend()  # of the classes that hold what LoadedModel has
    return made(
        family=family,
        source=source,
        reading=reading,
        stamp=stamp,
        transformer=load_part(source, "transformer", kind).eval(),
        vae=load_part(source, "vae", beside).eval(),
        device=where,
        dtype=kind,
        encoder_dtype=beside,
        memory=memory,
        notes=tuple(known_faults(torch.__version__, cudnn, {kind, beside})),
    )


def encoder_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Of encoders and VAE: float16 beside a bfloat16 transformer, as FramePack has them.

    Not on a CPU, where the VAE is a hundred times slower in float16 than in bfloat16 (LOG.md).
    """
    return torch.float16 if dtype == torch.bfloat16 and device.type == "cuda" else dtype


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


def known_faults(torch_version: str, cudnn: int | None, dtypes: set[torch.dtype]) -> Iterator[str]:
    """What is wrong with 3D convolutions in `dtypes` on CUDA with these versions; cuDNN 9.10.2 is 91002.

    The VAE convolves, and so does the transformer where it takes up latents. Sources: pytorch issues 166643, 163539.
    """
    if cudnn is None or dtypes == {torch.float32}:
        return
    here, cure = f"cuDNN {cudnn // 10_000}.{cudnn // 100 % 100}", "install PyTorch 2.10 or newer"
    if torch_version.startswith("2.9.0") or (torch_version.startswith("2.9.") and cudnn < 91500):
        yield f"PyTorch {torch_version} with {here} decodes in about three times the memory: {cure}, or memory=tiled"
    elif 90800 <= cudnn < 91100 and torch.bfloat16 in dtypes:
        yield f"{here} may compute convolutions in bfloat16, and so the film, wrongly: {cure}"
