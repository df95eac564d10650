"""Decodes every latent frame of a shot once: what the causal decoder needs of the past is kept, not decoded again.

    C channels, T frames (latent or not), h and w latent height and width; N frames, H and W their height and width

FramePack decodes each section together with the one before and cross-fades 33 frames. But the decoder of
AutoencoderKLHunyuanVideo (diffusers 0.42.1) looks only back: a convolution needs the last two frames of its input, an
upsampler must know that it is not at the shot's first frame, the middle block's attention needs past keys and values.
Its GroupNorms pool over all frames they are given, so that no decode by sections equals the whole shot's bit for bit;
here their statistics are those of all frames so far, the best of what was measured (LOG.md).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import (
    HunyuanVideoCausalConv3d,
    HunyuanVideoUpsampleCausal3D,
)
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from ..backend import NonFinitePixels

PIECE = 3  # latent frames decoded at once: a third of the memory of whole sections in the same time (LOG.md)
COPIED = 1 << 25  # elements of half precision that are copied to float32 at once, 128 MiB
WINDOW = 9  # latent frames of the past that the middle block's attention sees


@dataclass
class Memory:
    """What one spatial tile keeps between sections, by module."""

    rest: torch.device  # where it waits for the next section
    kept: dict[nn.Module, Any] = field(default_factory=dict)
    begun: bool = False  # the shot's first frame is behind
    frames: int = 0  # latent frames of the section that is being decoded


class StreamDecoder:
    """Decodes a shot in film order; `start` [1, C, 1, h, w] is the latent before its first section, if there is one.

    Between calls the VAE is as it was.

    What is kept between calls waits on the device `rest`: 3.5 GB for FramePack at 640x608 in bf16, 5.7 GB in tiles.
    """

    def __init__(
        self, vae: AutoencoderKLHunyuanVideo, *, start: Tensor | None, rest: torch.device | None = None
    ) -> None:
        self.vae, self.start, self.rest = vae, start, rest or vae.device
        self.tiles: list[Memory] = []

    def push(self, latents: Tensor) -> NDArray[np.uint8]:
        """Takes a section [1, C, T, h, w]; gives its frames [N, H, W, 3], of the shot's first latent one, then four."""
        made = []
        for piece in latents.split(PIECE, dim=2):
            now = piece if self.tiles or self.start is None else torch.cat([self.start, piece], dim=2)
            with streaming(self.vae, self.tiles, self.rest):
                made.append(to_uint8(decode(self.vae, now)))
        return np.concatenate(made)


@contextmanager
def streaming(vae: AutoencoderKLHunyuanVideo, tiles: list[Memory], rest: torch.device) -> Iterator[None]:
    """The VAE's decoder goes on from `tiles`, in the order in which it is called, and leaves its new state there."""
    turn = count()
    memory = Memory(rest=rest)

    def decoder(z: Tensor) -> Tensor:
        nonlocal memory
        number = next(turn)
        if number == len(tiles):
            tiles.append(Memory(rest=rest))
        memory = tiles[number]
        memory.frames = z.shape[2]
        pixels: Tensor = type(vae.decoder).forward(vae.decoder, z)
        memory.begun = True
        return pixels

    steps: dict[type[nn.Module], Callable[..., Tensor]] = {
        HunyuanVideoCausalConv3d: _convolve,
        HunyuanVideoUpsampleCausal3D: _upsample,
        nn.GroupNorm: _normalise,
        Attention: _attend,
    }

    def bound(step: Callable[..., Tensor], module: nn.Module) -> Callable[..., Tensor]:
        return lambda x, **given: step(module, x, memory)

    changed = [module for module in vae.decoder.modules() if type(module) in steps]
    before = {module: vars(module).get("forward") for module in (vae.decoder, *changed)}  # what hooks have put there
    framewise = vae.use_framewise_decoding
    try:
        vae.use_framewise_decoding = False
        vae.decoder.forward = decoder
        for module in changed:
            module.forward = bound(steps[type(module)], module)
        yield
    finally:
        vae.use_framewise_decoding = framewise
        for module, forward in before.items():
            vars(module).pop("forward", None)
            if forward is not None:
                module.forward = forward


def _convolve(module: HunyuanVideoCausalConv3d, x: Tensor, memory: Memory) -> Tensor:
    """The newest frames of the input before stand where the first frame would be repeated."""
    reach = module.conv.kernel_size[0] - 1
    kept = memory.kept.get(module)
    past = x[:, :, :1].expand(-1, -1, reach, -1, -1) if kept is None else kept
    x = torch.cat([past.to(x.device), x], dim=2)
    newest = x[:, :, x.shape[2] - reach :]
    if kept is None:
        memory.kept[module] = newest.to(memory.rest, copy=True)
    else:
        kept.copy_(newest)  # in its own place: new ones among the working buffers make main memory grow (LOG.md)
    x = F.pad(x, (*module.time_causal_padding[:4], 0, 0), mode=module.pad_mode)
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return module.conv(x)
    # with time as the last axis: PyTorch takes oneDNN's kernels by the size of the others (LOG.md)
    weight, bias = module.conv.weight.permute(0, 1, 3, 4, 2), module.conv.bias
    return F.conv3d(x.permute(0, 1, 3, 4, 2), weight, bias).permute(0, 1, 4, 2, 3).contiguous()


def _upsample(module: HunyuanVideoUpsampleCausal3D, x: Tensor, memory: Memory) -> Tensor:
    """Only the shot's first frame is not doubled in time."""
    if not memory.begun:
        return HunyuanVideoUpsampleCausal3D.forward(module, x)
    return module.conv(F.interpolate(x.contiguous(), scale_factor=module.upsample_factor, mode="nearest"))


def _normalise(module: nn.GroupNorm, x: Tensor, memory: Memory) -> Tensor:
    """With the mean and variance of each group over all frames of the shot so far."""
    mean, variance = _statistics(module, x)
    frames = x.shape[2] if x.ndim == 5 else memory.frames
    seen, old_mean, old_variance = memory.kept.get(module, (0, mean, variance))
    share = frames / (seen + frames)
    new = old_mean.lerp(mean, share)
    spread = (old_variance + (old_mean - new) ** 2).lerp(variance + (mean - new) ** 2, share)
    memory.kept[module] = (seen + frames, new, spread)
    return F.batch_norm(x, new, spread, module.weight.float(), module.bias.float(), training=False, eps=module.eps)


def _statistics(module: nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel's group, [C] float32; some groups at a time: copies of halves stay small.

    By sums and norms: on CPUs torch.var_mean takes thirty times as long.
    """
    groups = x.reshape(module.num_groups, -1)
    size, sums, norms = groups.shape[1], [], []
    for rows in groups.split(max(1, COPIED // size)):
        values = rows.float()
        sums.append(values.sum(dim=1))
        norms.append(torch.linalg.vector_norm(values, dim=1))
    mean = torch.cat(sums).double() / size
    spread = (torch.cat(norms).double() ** 2 / size - mean**2).clamp_min(0)
    channels = module.num_channels // module.num_groups
    return mean.float().repeat_interleave(channels), spread.float().repeat_interleave(channels)


def _attend(module: Attention, x: Tensor, memory: Memory) -> Tensor:
    """Causal attention of [1, T h w, C]: a frame sees itself, the frames before it here, and the window kept.

    Source: AttnProcessor2_0 (diffusers) with the mask of prepare_causal_attention_mask.
    """
    normed = module.group_norm(x.transpose(1, 2)).transpose(1, 2)
    query, key, value = (
        rearrange(project(normed), "b l (n h) -> b n l h", n=module.heads)
        for project in (module.to_q, module.to_k, module.to_v)
    )
    past_key, past_value = memory.kept.get(module, (key[:, :, :0], value[:, :, :0]))
    key, value = (torch.cat([p.to(x.device), n], dim=2) for p, n in ((past_key, key), (past_value, value)))
    area = x.shape[1] // memory.frames
    seen = []
    for number, rows in enumerate(query.split(area, dim=2)):
        end = past_key.shape[2] + (number + 1) * area
        seen.append(F.scaled_dot_product_attention(rows, key[:, :, :end], value[:, :, :end]))
    recent = slice(max(0, key.shape[2] - WINDOW * area), None)
    memory.kept[module] = tuple(rows[:, :, recent].to(memory.rest, copy=True) for rows in (key, value))
    out = module.to_out[0](rearrange(torch.cat(seen, dim=2), "b n l h -> b l (n h)"))
    return (out + x) / module.rescale_output_factor


@torch.no_grad()
def decode(vae: AutoencoderKLHunyuanVideo, latents: Tensor) -> Tensor:
    """Scaled latents [1, C, T, h, w] -> pixels [1, 3, 4T - 3, 8h, 8w], about -1..1, in the VAE's dtype."""
    return vae.decode((latents / vae.config.scaling_factor).to(vae.dtype), return_dict=False)[0]


def to_uint8(pixels: Tensor) -> NDArray[np.uint8]:
    """[1, 3, N, H, W] in -1..1 -> [N, H, W, 3], rounded as diffusers' VideoProcessor does. Raises NonFinitePixels."""
    if not torch.isfinite(pixels).all():
        raise NonFinitePixels
    unit = (rearrange(pixels, "1 c n h w -> n h w c") * 0.5 + 0.5).clamp(0, 1)
    return (unit.float().cpu().numpy() * 255).round().astype(np.uint8)
