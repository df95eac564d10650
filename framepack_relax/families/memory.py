"""How much memory a render takes, by estimate: which preset fits, what a message about a full GPU can say."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..errors import MemoryFullError
from .backend import Backend, Preset
from .base import Context, Size
from .components import PRESETS
from .main_memory import main_memory_is_full

USABLE = 0.95  # of a GPU's memory; the rest is CUDA's own
GIB = 2**30


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


def preset_that_fits(demand: Demand, total: int) -> Preset | None:
    """The fastest preset that stays within `total` bytes; None if none does."""
    return next((p for p in PRESETS if demand.bytes(p) <= USABLE * total), None)


def size_that_fits(demand: Demand, preset: Preset, total: int) -> Size | None:
    """The largest smaller size of about the same shape that stays within `total` bytes; None if none does."""
    size = demand.size
    for height in range(size[1] - 16, 63, -16):
        smaller = max(64, round(size[0] * height / size[1] / 16) * 16), height
        if demand.bytes(preset, smaller) <= USABLE * total:
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
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError):
            if not main_memory_is_full(error):
                raise
            fact = str(error).strip().splitlines()[0] if str(error) else "no more is given"
            raise MemoryFullError(
                f"{what}: the main memory is full ({fact}); close what else uses it, or take a smaller size. What is "
                "finished is kept"
            ) from error
        fact = str(error).split(". GPU")[0].rstrip(".")
        device = demand.model.device
        total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else None
        raise MemoryFullError(
            f"{what}: the GPU's memory is full ({fact}). {advice(demand, total)}. What is finished is kept"
        ) from error


def advice(demand: Demand, total: int | None) -> str:
    """What to do on a GPU of `total` bytes (None: not known) that the render as it was placed has filled."""
    now, size = demand.model.preset, demand.size
    said = f"{size[0]}x{size[1]} with memory={now} takes about {demand.bytes(now) / GIB:.1f} GiB"
    smaller_presets = PRESETS[PRESETS.index(now) + 1 :]
    if total is not None:
        said += f" and the GPU has {total / GIB:.1f}"
    for preset in smaller_presets:
        needed = demand.bytes(preset)
        if total is None or needed <= USABLE * total:
            return f"{said}: memory={preset} takes about {needed / GIB:.1f} GiB"
    if total is None or demand.bytes(now) <= USABLE * total:
        return f"{said}: close what else uses the GPU, and run the same command again"
    smaller = size_that_fits(demand, PRESETS[-1], total)
    if smaller is None:
        return f"{said}, too little at any size: choose another device or model"
    return f"{said}: memory={PRESETS[-1]} and `size: [{smaller[0]}, {smaller[1]}]` fit"
