"""AutoencoderKLWan: latents as its pipelines normalise them, and a decode that goes on from section to section.

    C channels, T latent frames, h and w latent height and width; N frames, H and W their height and width

Its decoder looks only back, through the cache that diffusers (0.42.1) fills frame by frame and clears around every
call. Kept between calls instead, it makes a decode by sections the decode of the whole, to the bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from torch import Tensor

from .hunyuan_video.stream import to_uint8

PIECE = 3  # latent frames decoded at once: their pixels alone are held
# Inputs of the last block, of one frame, that a decode holds, by `patch_size`: peaks of live tensors of the real
# configurations of Wan 2.1 and 2.2 on torch's meta device, and a few per cent more.
DECODED = {None: 54, 2: 88}
OVERLAPPING = (256 / 192) ** 2  # what tiles cover of a picture, several times where they overlap


def statistics(vae: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    """Mean of the latents, and one over their deviation, each [1, C, 1, 1, 1] in the VAE's dtype."""
    mean, deviation = (
        torch.tensor(values).view(1, -1, 1, 1, 1).to(vae.device, vae.dtype)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, 1.0 / deviation


@contextmanager
def untiled(vae: AutoencoderKLWan) -> Iterator[None]:
    """Within it the VAE works on whole pictures, whatever the memory."""
    tiled, vae.use_tiling = vae.use_tiling, False
    try:
        yield
    finally:
        vae.use_tiling = tiled


@torch.no_grad()
def encode(vae: AutoencoderKLWan, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
    """Pixels [1, 3, N, H, W] in -1..1, N = 4k + 1 -> normalised latents [1, C, k + 1, h, w] in the VAE's dtype.

    A sample drawn by the generator, the mode without one. Never in tiles, so that no latent depends on the memory.
    """
    mean, scale = statistics(vae)
    with untiled(vae):
        found = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    return ((found.mode() if generator is None else found.sample(generator=generator)) - mean) * scale


def decode_bytes(vae: AutoencoderKLWan, size: tuple[int, int], *, tiled: bool) -> int:
    """An estimate of what a decode of (width, height) px works with."""
    patch, held = vae.config.patch_size or 1, DECODED[vae.config.patch_size]
    tile = (vae.tile_sample_min_width, vae.tile_sample_min_height) if tiled else size
    pixels = min(size[0], tile[0]) * min(size[1], tile[1]) // patch**2
    several = size[0] > tile[0] or size[1] > tile[1]
    beside = OVERLAPPING * 3 * 4 * PIECE * size[0] * size[1] if several else 0  # frames of the tiles before
    values = pixels * (vae.config.decoder_base_dim or vae.config.base_dim) * held + beside
    return int(values * vae.dtype.itemsize)


class WanDecoder:
    """Decodes a shot in film order; between calls the VAE is as it was.

    What is kept between calls waits on the device `rest`. Sections that are clips of their own are decoded `apart`; all
    but the first begin with `again` latent frames that have been shown.
    """

    def __init__(
        self, vae: AutoencoderKLWan, *, rest: torch.device | None = None, apart: bool = False, again: int = 0
    ) -> None:
        self.vae, self.rest, self.apart = vae, rest or vae.device, apart
        self.shown, self.again = 0, max(0, 4 * again - 3)  # frames to be dropped: now, and from the next section on
        self.tiles: list[list[Any]] = []

    @torch.no_grad()
    def push(self, latents: Tensor) -> NDArray[np.uint8]:
        """Takes normalised latents [1, C, T, h, w]; gives frames [N, H, W, 3], of a clip's first latent one, then four.

        Raises NonFinitePixels.
        """
        mean, scale = statistics(self.vae)
        z = latents.to(self.vae.device, self.vae.dtype) / scale + mean
        with going_on(self.vae, [] if self.apart else self.tiles, self.rest) as turn:
            frames = np.concatenate([to_uint8(turn(piece)) for piece in z.split(PIECE, dim=2)])
        shown, self.shown = self.shown, self.again
        return frames[shown:]


@contextmanager
def going_on(vae: AutoencoderKLWan, tiles: list[list[Any]], rest: torch.device) -> Iterator[Any]:
    """Gives a `vae.decode` whose caches go on from `tiles`, in the order of its tiles, and stay there."""
    turn = count()
    stock = vae.decoder.forward

    def clear_cache() -> None:
        """What the VAE calls before every tile and after the last."""
        number = next(turn)
        if number:
            tiles[number - 1][:] = [x.to(rest) if isinstance(x, Tensor) else x for x in tiles[number - 1]]
        if number == len(tiles):
            tiles.append([None] * vae._cached_conv_counts["decoder"])
        vae._feat_map, vae._conv_idx = tiles[number], [0]

    def forward(x: Tensor, feat_cache: Any, feat_idx: Any, first_chunk: bool = False) -> Any:
        return stock(x, feat_cache=feat_cache, feat_idx=feat_idx, first_chunk=first_chunk and feat_cache[0] is None)

    def decode(z: Tensor) -> Tensor:
        nonlocal turn
        turn = count()
        pixels: Tensor = vae.decode(z, return_dict=False)[0]
        return pixels

    hooked = vars(vae.decoder).get("forward")
    vae.clear_cache, vae.decoder.forward = clear_cache, forward
    try:
        yield decode
    finally:
        del vae.clear_cache, vae.decoder.forward
        if hooked is not None:
            vae.decoder.forward = hooked
        vae.clear_cache()
