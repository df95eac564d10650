"""How much memory a render takes, by estimate: which preset fits, what a message about a full GPU can say."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import RenderError
from ..plan.grid import Size
from ..plan.history import HistorySlots
from .layout import packed_segments
from .main_memory import main_memory_is_full
from .parts import PRESETS, Preset
from .video_model import VideoModel

# Peaks of live tensors of the real configurations on torch's meta device: a forward pass holds 18 vectors of the
# model's width per token, the streaming decoder 6.2 times the input of its last block for the 13 frames of a piece.
ROWS, DECODED, FRAMES = 20, 6.5, 13
USABLE = 0.95  # of a GPU's memory; the rest is CUDA's own
GIB = 2**30


def peak_bytes(model: VideoModel, preset: Preset, slots: HistorySlots, size: Size) -> int:
    """Weights on the device, and the larger of what a pass and what a decode of (width, height) px work with."""
    config, vae = model.transformer.config, model.vae
    tokens = sum(segment.tokens for segment in packed_segments(slots, size[1] // 8, size[0] // 8))
    forward = tokens * config.num_attention_heads * config.attention_head_dim * ROWS
    tile = size if preset == "full" else (vae.tile_sample_min_width, vae.tile_sample_min_height)
    pixels = min(size[0], tile[0]) * min(size[1], tile[1])
    decode = FRAMES * pixels * vae.config.block_out_channels[1] * DECODED
    sizes = [p.numel() * p.element_size() for p in model.transformer.parameters()]
    transformer = 2 * max(sizes) if preset == "offload" else sum(sizes)  # a layer at work and the next one
    weights = transformer + sum(p.numel() * p.element_size() for p in vae.parameters())
    return int(weights + max(forward, decode) * model.dtype.itemsize)


def preset_that_fits(model: VideoModel, slots: HistorySlots, size: Size, total: int) -> Preset | None:
    """The fastest preset that stays within `total` bytes; None if none does."""
    return next((p for p in PRESETS if peak_bytes(model, p, slots, size) <= USABLE * total), None)


def size_that_fits(model: VideoModel, preset: Preset, slots: HistorySlots, size: Size, total: int) -> Size | None:
    """The largest smaller size of about the same shape that stays within `total` bytes; None if none does."""
    for height in range(size[1] - 16, 63, -16):
        smaller = max(64, round(size[0] * height / size[1] / 16) * 16), height
        if peak_bytes(model, preset, slots, smaller) <= USABLE * total:
            return smaller
    return None


def choose_preset(model: VideoModel, slots: HistorySlots, size: Size) -> Preset:
    """The one that was asked for; `auto` is the fastest that fits the GPU, the smallest if none does."""
    if model.memory != "auto":
        return model.memory
    if model.device.type != "cuda":
        return "full"
    total = torch.cuda.mem_get_info(model.device)[1]
    return preset_that_fits(model, slots, size, total) or PRESETS[-1]


@contextmanager
def enough_memory(what: str, model: VideoModel, slots: HistorySlots, size: Size) -> Iterator[None]:
    """Turns a full GPU into one RenderError with the estimate and what would fit; `what` says what was under way."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError):
            if not main_memory_is_full(error):
                raise
            fact = str(error).strip().splitlines()[0] if str(error) else "no more is given"
            raise RenderError(
                f"{what}: the main memory is full ({fact}); close what else uses it, or take a smaller size. What is "
                "finished is kept"
            ) from error
        fact = str(error).split(". GPU")[0].rstrip(".")
        total = torch.cuda.mem_get_info(model.device)[1] if model.device.type == "cuda" else None
        raise RenderError(
            f"{what}: the GPU's memory is full ({fact}). {advice(model, slots, size, total)}. What is finished is kept"
        ) from error


def advice(model: VideoModel, slots: HistorySlots, size: Size, total: int | None) -> str:
    """What to do on a GPU of `total` bytes (None: not known) that the render as it was placed has filled."""
    now = model.preset
    said = f"{size[0]}x{size[1]} with memory={now} takes about {peak_bytes(model, now, slots, size) / GIB:.1f} GiB"
    smaller_presets = PRESETS[PRESETS.index(now) + 1 :]
    if total is not None:
        said += f" and the GPU has {total / GIB:.1f}"
    for preset in smaller_presets:
        needed = peak_bytes(model, preset, slots, size)
        if total is None or needed <= USABLE * total:
            return f"{said}: memory={preset} takes about {needed / GIB:.1f} GiB"
    if total is None or peak_bytes(model, now, slots, size) <= USABLE * total:
        return f"{said}: close what else uses the GPU, and run the same command again"
    smaller = size_that_fits(model, PRESETS[-1], slots, size, total)
    if smaller is None:
        return f"{said}, too little at any size: choose another device or model"
    return f"{said}: memory={PRESETS[-1]} and `size: [{smaller[0]}, {smaller[1]}]` fit"
