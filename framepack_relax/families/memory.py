"""How much memory a render takes, and how much there is: which preset fits, and what a full memory can be told.

A control group, as containers have, may hold less main memory than the machine. Weights that are used in the type in
which they are stored take none: they are mapped from their files.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors import safe_open
from torch import nn

from ..errors import MemoryFullError, ModelError
from .backend import PRESETS, Backend, Preset
from .base import Context, Size

USABLE = 0.95  # of a GPU's memory; the rest is CUDA's own
GIB, GIGABYTE = 2**30, 10**9
STORED = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
# by version: where control groups lie, what a group may use, what it uses, and what of it are files that can go
GROUPS = (
    ("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A section that a model is to render: what it sees, its latent frames, its (width, height) px."""

    model: Backend
    context: Context
    latents: int
    size: Size

    def bytes(self, preset: Preset, size: Size | None = None) -> int:
        """What it takes of the device, by estimate."""
        return self.model.peak_bytes(self.context, self.latents, size or self.size, preset)

    def fits(self, preset: Preset, total: int | None, size: Size | None = None) -> bool:
        """Whether it stays within a GPU of `total` bytes (None: not known, so that it may)."""
        return total is None or self.bytes(preset, size) <= USABLE * total


def preset_that_fits(demand: Demand, total: int) -> Preset | None:
    """The fastest preset that stays within `total` bytes; None if none does."""
    return next((p for p in PRESETS if demand.fits(p, total)), None)


def size_that_fits(demand: Demand, preset: Preset, total: int) -> Size | None:
    """The largest smaller size of about the same shape that stays within `total` bytes; None if none does."""
    size, side = demand.size, 2 * demand.model.family.spatial
    for height in range(size[1] // side * side - side, 63, -side):
        smaller = max(64, round(size[0] * height / size[1] / side) * side), height
        if demand.fits(preset, total, smaller):
            return smaller
    return None


def choose_preset(demand: Demand) -> Preset:
    """The one that was asked for; `auto` is the fastest that fits the GPU, the smallest if none does."""
    model = demand.model
    if model.memory != "auto":
        return model.memory
    if model.device.type != "cuda":
        return "full"
    total = torch.cuda.mem_get_info(model.device)[1]
    return preset_that_fits(demand, total) or PRESETS[-1]


@contextmanager
def enough_memory(what: str, demand: Demand) -> Iterator[None]:
    """Turns a full GPU into one message with the estimate and what would fit; `what` says what was under way."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        fact = str(error).split(". GPU")[0].rstrip(".")
        device = demand.model.device
        total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else None
        raise MemoryFullError(
            f"{what}: the GPU's memory is full ({fact}). {advice(demand, total)}. What is finished is kept"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not main_memory_is_full(error):
            raise
        fact = str(error).strip().splitlines()[0] if str(error) else "no more is given"
        cure = "close what else uses it, or take a smaller size. What is finished is kept"
        raise MemoryFullError(f"{what}: the main memory is full ({fact}); {cure}") from error


def advice(demand: Demand, total: int | None) -> str:
    """What to do on a GPU of `total` bytes (None: not known) that the render as it was placed has filled."""
    now, size = demand.model.preset, demand.size
    said = f"{size[0]}x{size[1]} with memory={now} takes about {demand.bytes(now) / GIB:.1f} GiB"
    if total is not None:
        said += f" and the GPU has {total / GIB:.1f}"
    if preset := next((p for p in PRESETS[PRESETS.index(now) + 1 :] if demand.fits(p, total)), None):
        return f"{said}: memory={preset} takes about {demand.bytes(preset) / GIB:.1f} GiB"
    if total is None or demand.fits(now, total):
        return f"{said}: close what else uses the GPU, and run the same command again"
    smaller = size_that_fits(demand, PRESETS[-1], total)
    if smaller is None:
        return f"{said}, too little at any size: choose another device or model"
    return f"{said}: memory={PRESETS[-1]} and `size: [{smaller[0]}, {smaller[1]}]` fit"


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
