"""How much memory a forward pass takes, by estimate: what a message about a full GPU can say. And giving it back."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from ..errors import RenderError
from ..plan.history import HistorySlots
from .layout import packed_segments
from .video_model import VideoModel

# Vectors of the model's width alive per token at a single block's widest point; FramePack at 640x608 in bf16: 2.2 GB
# counted over the block's tensors.
ROWS = 20
USABLE = 0.95  # of a GPU's memory; the rest is CUDA's own
GIB = 2**30


def forward_bytes(model: VideoModel, slots: HistorySlots, size: tuple[int, int]) -> int:
    """Weights of transformer and VAE and the working memory of one pass over a section of (width, height) px."""
    weights = sum(p.numel() * p.element_size() for part in (model.transformer, model.vae) for p in part.parameters())
    tokens = sum(segment.tokens for segment in packed_segments(slots, size[1] // 8, size[0] // 8))
    config = model.transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    return int(weights + tokens * width * ROWS * model.dtype.itemsize)


def size_that_fits(model: VideoModel, slots: HistorySlots, size: tuple[int, int], total: int) -> tuple[int, int] | None:
    """The largest smaller size of about the same shape whose pass fits into `total` bytes; None if none does."""
    for height in range(size[1] - 16, 63, -16):
        smaller = max(64, round(size[0] * height / size[1] / 16) * 16), height
        if forward_bytes(model, slots, smaller) <= USABLE * total:
            return smaller
    return None


@contextmanager
def enough_memory(what: str, model: VideoModel, slots: HistorySlots, size: tuple[int, int]) -> Iterator[None]:
    """Turns a full GPU into one RenderError with the estimate and what would fit; `what` says what was under way."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        fact = str(error).split(". GPU")[0].rstrip(".")
        total = torch.cuda.mem_get_info(model.device)[1] if model.device.type == "cuda" else None
        raise RenderError(
            f"{what}: the GPU's memory is full ({fact}). {_advice(model, slots, size, total)}. What is finished is kept"
        ) from error


def _advice(model: VideoModel, slots: HistorySlots, size: tuple[int, int], total: int | None) -> str:
    needed = forward_bytes(model, slots, size)
    said = f"A forward pass at {size[0]}x{size[1]} takes about {needed / GIB:.1f} GiB"
    if total is None or needed <= USABLE * total:
        return f"{said}: close what else uses the GPU, and run the same command again"
    said += f" and the GPU has {total / GIB:.1f}"
    smaller = size_that_fits(model, slots, size, total)
    if smaller is None:
        return f"{said}, too little at any size: choose another --device or model"
    return f"{said}: `size: [{smaller[0]}, {smaller[1]}]` fits"


def give_back() -> None:
    """Returns freed main memory to the system: glibc keeps it in pieces, by which a long film grows (LOG.md)."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
