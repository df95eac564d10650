"""Name -> model, which is loaded when something must be rendered; until then no torch, unless for the device."""

import re
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pydantic import ByteSize, TypeAdapter, ValidationError

from ..errors import ModelError
from .base import Family
from .catalog import find, find_family
from .engine import STORED, check_attention, check_together, will_compile

if TYPE_CHECKING:
    import torch

    from .backend import Backend

MEMORY = ("auto", "full", "tiled", "offload")  # or bytes
AMOUNT = re.compile(r"\d*\.?\d+ ?[A-Za-z]+", re.ASCII)
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What `load` is to be given. A loaded model answers to the same names."""

    name: str
    device: str | None = None
    dtype: str | None = None
    memory: str = "auto"
    attention: str | None = None
    compile: bool = False
    download: bool = True  # what is not on this machine
    away: bool = False  # it is loaded on other machines, whose devices this one need not have
    ranks: int = 1  # processes that torchrun has started for it, of which this is the first

    def __post_init__(self) -> None:
        memory_bytes(self.memory)
        check_dtype(self.dtype, away=self.away)
        check_attention(self.attention, away=self.away)

    @property
    def asked(self) -> dict[str, Any]:
        """What `load` is to be given besides the name."""
        return {name: getattr(self, name) for name in ("device", "dtype", "memory", "attention", "compile")}

    @property
    def family(self) -> Family:
        return find_family(self.name)

    @cached_property
    def identity(self) -> str:
        """The fingerprint of its files. Raises ModelError where they are not on this machine."""
        return find(self.name, download=self.download).fingerprint()

    @property
    def precision(self) -> str:
        """The dtype, as torch calls it."""
        known = self.dtype
        if known in STORED:
            return known
        if known is None and (self.away or self.device == "cpu"):
            known = "float32" if self.device == "cpu" else "bfloat16"
        return f"torch.{known}" if known in DTYPES else str(pick_dtype(self.dtype, pick_device(self.device)))

    @property
    def kind(self) -> str:
        """Of its device: cpu or cuda."""
        return str(self.device or ("cuda" if self.away else pick_device(None))).partition(":")[0]

    @property
    def compiled(self) -> bool | None:
        """Whether its blocks will be; None where that is not known before it is loaded."""
        return will_compile(self)

    @property
    def hardware(self) -> str:
        """What it runs on."""
        if self.device and self.ranks == 1 and (self.away or self.device == "cpu"):
            return self.device
        from .backend import hardware

        return hardware(pick_device(self.device), self.ranks)

    def load(self) -> "Backend":
        if self.ranks > 1:
            from .ranks import lead

            return lead(self)
        return load(self.name, **self.asked)


def load(
    name: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    memory: str = "auto",
    attention: str | None = None,
    compile: bool = False,
) -> "Backend":
    """A model by catalogue name, folder or hub id.

    `device` is cuda where there is one, else cpu; `dtype` bfloat16 on CUDA, else float32; fp8 and int8 are bfloat16 of
    which the transformers' weights lie in float8 (e4m3) or in torchao's int8, which changes the film; `memory` the
    fastest that fits (memory.py); `attention` and `compile` are told by engine.py. Its weights wait in their files
    until the encoders are gone. Raises ModelError.
    """
    engine: dict[str, Any] = {"memory": memory, "attention": attention, "compile": compile}
    asked = Loading(name=name, device=device, dtype=dtype, **engine)
    where = pick_device(device)
    kind, family = pick_dtype(dtype, where), asked.family
    check_together(asked, ())
    stored = next((name for name in STORED if name == dtype), "")
    return family.backend().open(family, name=name, device=where, dtype=kind, stored=stored, **engine)


def memory_bytes(memory: str) -> int | None:
    """Those of the device that it allows a render; None for a word, which names none. Raises ModelError."""
    if memory in MEMORY:
        return None
    if str(memory).isdecimal():
        raise ModelError(f"memory={memory}: has no unit; write {memory}{'GiB' if int(memory) < 1024 else 'B'}")
    try:
        return TypeAdapter(ByteSize).validate_python(AMOUNT.fullmatch(str(memory)) and memory)  # it reads no further
    except ValidationError:
        raise ModelError(f"memory={memory}: unknown; use {', '.join(MEMORY)}, or an amount such as 20GiB") from None


def pick_device(name: str | None) -> "torch.device":
    """The device of that name, cuda where there is one if None. Raises ModelError for what cannot be rendered on."""
    import torch

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


def check_dtype(name: str | None, *, away: bool = False) -> None:
    """Raises ModelError for what a pass cannot work in, or lacks its package here unless it works `away`."""
    if name == "float16":
        raise ModelError(f"dtype={name}: no transformer here is made for its range (NaN); use bfloat16")
    if name is not None and name not in (*DTYPES, *STORED):
        raise ModelError(f"dtype={name}: unknown; use one of {', '.join((*DTYPES, *STORED))}")
    if name in STORED and not away and not find_spec(package := STORED[name]):
        raise ModelError(f"dtype={name}: {package} is not installed; pip install 'framepack-relax[quant]'")


def pick_dtype(name: str | None, device: "torch.device") -> "torch.dtype":
    """The dtype of that name, in which a pass works; bfloat16 on CUDA, float32 elsewhere if None. Raises ModelError."""
    import torch

    check_dtype(name)
    if name in STORED:
        return torch.bfloat16
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    made: torch.dtype = getattr(torch, name)
    return made
