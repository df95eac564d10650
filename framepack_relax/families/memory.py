"""How much memory a render takes, and how much there is: how it fits, and what a full memory can be told.

A control group, as containers have, may hold less main memory than the machine. Weights that are used in the type in
which they are stored take none: they are mapped from their files.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

from ..errors import MemoryFullError, ModelError
from .backend import PRESETS, Backend, Need, Placement
from .base import Context, Size
from .loader import memory_bytes
from .single import parts_of
from .weights import tensors

USABLE = 0.95  # of a GPU's memory; the rest is CUDA's own
LESS = 0.9  # of what has filled it, to be tried next
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

    def need(self, placement: Placement, size: Size | None = None) -> Need:
        return self.model.need(self.context, self.latents, size or self.size, placement)

    def fits(self, placement: Placement, limit: int | None, size: Size | None = None) -> bool:
        """Whether it stays within so many bytes of the device (None: not known, so that it may)."""
        return limit is None or self.need(placement, size).total <= limit


def placement_that_fits(demand: Demand, limit: int) -> Placement | None:
    """The fastest that stays within so many bytes of the device, with as many blocks there as they take; else None."""
    for preset in PRESETS[:-1]:
        if demand.fits(preset, limit):
            return preset
    most = bisect_right(range(demand.model.blocks), limit, key=lambda blocks: demand.need(blocks).total) - 1
    return most if most >= 0 else PRESETS[-1] if demand.fits(PRESETS[-1], limit) else None


def size_that_fits(demand: Demand, placement: Placement, limit: int) -> Size | None:
    """The largest smaller size of about the same shape that stays within so many bytes; None if none does."""
    size, side = demand.size, 2 * demand.model.family.spatial
    for height in range(size[1] // side * side - side, 63, -side):
        smaller = max(64, round(size[0] * height / size[1] / side) * side), height
        if demand.fits(placement, limit, smaller):
            return smaller
    return None


def budget(model: Backend) -> int | None:
    """Bytes of the device that a render may take: as was asked for, or what a GPU has; None: as many as it wants."""
    asked = memory_bytes(model.memory)
    if asked is None and model.device.type == "cuda":
        return int(USABLE * torch.cuda.mem_get_info(model.device)[1])
    return asked


def choose_placement(demand: Demand) -> Placement:
    """As was asked for: a preset, or the fastest that fits. Raises MemoryFullError for bytes that are too few."""
    model, limit = demand.model, budget(demand.model)
    for preset in PRESETS:
        if model.memory == preset:
            return preset
    found = PRESETS[0] if limit is None else placement_that_fits(demand, limit)
    if found is None and memory_bytes(model.memory) is not None:
        raise MemoryFullError(f"memory={model.memory}: {_least(demand, limit)}")
    return PRESETS[-1] if found is None else found


def in_words(placement: Placement, blocks: int) -> str:
    """Of a model with so many blocks."""
    return f"{placement} of {blocks} blocks" if isinstance(placement, int) else placement


@contextmanager
def enough_memory(what: str, demand: Demand) -> Iterator[None]:
    """Turns a full GPU into one message with the estimate and what would fit; `what` says what was under way."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        fact = str(error).split(". GPU")[0].rstrip(".")
        raise MemoryFullError(
            f"{what}: the GPU's memory is full ({fact}). {advice(demand)}. What is finished is kept"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not main_memory_is_full(error):
            raise
        fact = str(error).strip().splitlines()[0] if str(error) else "no more is given"
        cure = "close what else uses it, or take a smaller size. What is finished is kept"
        raise MemoryFullError(f"{what}: the main memory is full ({fact}); {cure}") from error


def advice(demand: Demand) -> str:
    """What to do on a GPU that the render as it was placed has filled."""
    model, size, limit = demand.model, demand.size, budget(demand.model)
    now = demand.need(model.preset).total
    said = f"{size[0]}x{size[1]} with memory={in_words(model.preset, model.blocks)} takes about {now / GIB:.1f} GiB"
    if limit is not None:
        said += f" and may take {limit / GIB:.1f}"
    smaller = placement_that_fits(demand, min(int(LESS * now), now if limit is None else limit))
    if smaller is not None:
        least = demand.need(smaller).total / GIB
        return f"{said}: {_asking_for(smaller, least)} takes about {least:.1f} GiB"
    if limit is None or now <= limit:
        return f"{said}: close what else uses the GPU, and run the same command again"
    return f"{said}: {_least(demand, limit)}"


def _asking_for(placement: Placement, gibibytes: float) -> str:
    return f"memory={placement}" if isinstance(placement, str) else f"memory={gibibytes + 0.05:.1f}GiB"


def _least(demand: Demand, limit: int | None) -> str:
    """What fits where nothing else does: another size."""
    least = PRESETS[-1]
    smaller = size_that_fits(demand, least, limit or 0)
    fact = f"memory={least} takes about {demand.need(least).total / GIB:.1f} GiB at {demand.size[0]}x{demand.size[1]}"
    if smaller is None:
        return f"{fact}, too much at any size: give it more, or choose another model"
    return f"{fact}; `size: [{smaller[0]}, {smaller[1]}]` fits"


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
    parts = [part for weight in module.parameters() for part in parts_of(weight)]
    return sum(1 << (part.numel() * part.element_size() - 1).bit_length() for part in parts)


def weights_in(folder: Path) -> dict[str, tuple[torch.dtype | None, torch.Size]]:
    """The weights in a folder's files by name: type and shape, read from the headers alone."""
    return {name: (STORED.get(kind), torch.Size(shape)) for name, (kind, shape) in tensors(folder).items()}


def converted_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Of the weights in a folder, what those take that become others in `dtype`."""
    changed = [shape.numel() for kind, shape in weights_in(folder).values() if kind not in (None, dtype)]
    return sum(changed) * dtype.itemsize


def check_room(folder: Path, part: str, dtype: torch.dtype) -> None:
    """Raises ModelError where the weights of a part become others in `dtype` and these do not fit."""
    taken, room = converted_bytes(folder, dtype), free_memory()
    if taken > room:
        name = str(dtype).removeprefix("torch.")
        raise ModelError(
            f"{folder}: in {name} the {part} takes {taken / GIGABYTE:.1f} GB of main memory, and {room / GIGABYTE:.1f} "
            "are free; close what else uses it, or choose the dtype in which it is stored"
        )
