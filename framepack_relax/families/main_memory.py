"""How much main memory there is for weights; a control group, as containers have, may hold less than the machine.

Weights that are used in the type in which they are stored take none: they are mapped from their files.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from safetensors import safe_open
from torch import nn

from ..errors import ModelError

GIGABYTE = 10**9
STORED = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
# by version: where control groups lie, what a group may use, what it uses, and what of it are files that can go
GROUPS = (
    ("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that can be taken without anything being killed for it."""
    return min([psutil.virtual_memory().available, *_rooms(root)])


def _rooms(root: Path) -> Iterator[int]:
    """What each control group that this process is in may still take."""
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        groups = {kind: name for _, kind, name in (line.split(":", 2) for line in lines)}
        for kind, top, most, now, files in GROUPS:
            place = root / top / groups.get(kind, "").strip("/")
            for folder in (place, *place.parents):
                with suppress(OSError, ValueError, KeyError):
                    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    used = int((folder / now).read_text()) - int(stat[files])
                    yield int((folder / most).read_text()) - used  # "max" is no number


def main_memory_is_full(error: BaseException) -> bool:
    """Whether that is what an error says; PyTorch has no class of its own for it."""
    return isinstance(error, MemoryError) or (type(error) is RuntimeError and "DefaultCPUAllocator" in str(error))


def pinned_bytes(module: nn.Module) -> int:
    """What a module takes where transfers may read it; CUDA rounds every tensor up to a power of two."""
    return sum(1 << (p.numel() * p.element_size() - 1).bit_length() for p in module.parameters())


def stored(folder: Path) -> dict[str, tuple[torch.dtype | None, torch.Size]]:
    """The weights in a folder's files by name: type and shape, read from the headers alone."""
    found: dict[str, tuple[torch.dtype | None, torch.Size]] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}
            found |= {name: (STORED.get(s.get_dtype()), torch.Size(s.get_shape())) for name, s in slices.items()}
    return found


def check_room(folder: Path, part: str, dtype: torch.dtype) -> None:
    """Raises ModelError where the weights of a part become others in `dtype` and these do not fit."""
    changed = [shape.numel() for kind, shape in stored(folder).values() if kind not in (None, dtype)]
    taken, room = sum(changed) * dtype.itemsize, free_memory()
    if taken > room:
        name = str(dtype).removeprefix("torch.")
        raise ModelError(
            f"{folder}: in {name} the {part} takes {taken / GIGABYTE:.1f} GB of main memory, and {room / GIGABYTE:.1f} "
            "are free; close what else uses it, or choose the dtype in which it is stored"
        )
