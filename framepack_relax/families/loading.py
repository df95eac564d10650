"""A model by name, which is loaded when something must be rendered; until then no torch, unless for the device."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from .base import Family
from .catalog import find, find_family
from .quiet import quietly

if TYPE_CHECKING:
    from .backend import Backend

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What `load` is to be given. A loaded model answers to the same names."""

    name: str
    device: str | None = None
    dtype: str | None = None
    memory: Literal["full", "tiled", "offload", "auto"] = "auto"
    download: bool = True  # what is not on this machine

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
        if self.dtype in DTYPES:
            return f"torch.{self.dtype}"
        if self.dtype is None and self.device == "cpu":
            return "torch.float32"
        with quietly:
            from .loader import pick_device, pick_dtype

        return str(pick_dtype(self.dtype, pick_device(self.device)))

    @property
    def hardware(self) -> str:
        """What it runs on."""
        if self.device == "cpu":
            return self.device
        with quietly:
            from .identity import hardware
            from .loader import pick_device

        return hardware(pick_device(self.device))

    def load(self) -> "Backend":
        from .loader import load

        return load(self.name, device=self.device, dtype=self.dtype, memory=self.memory)
