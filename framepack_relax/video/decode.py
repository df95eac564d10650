"""FramePack's decode and blend, a section at a time, equal to the frames of HunyuanVideoFramepackPipeline.

    C latent channels, T latent frames, h and w latent height and width; N frames, H and W their height and width

Every section is decoded together with the one rendered before it (18 latent frames), and the 33 frames that both
decodes share are cross-faded. So all but the last 33 frames of a shot are final, and only these are kept.
"""

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from numpy.typing import NDArray
from torch import Tensor

from ..plan.grid import LATENT_FRAMES, SECTION_LATENTS
from ..plan.history import Order

OVERLAP = LATENT_FRAMES * (SECTION_LATENTS - 1) + 1  # frames


class BlendDecoder:
    """Decodes one shot of `sections` sections; `start` [1, C, 1, h, w] is its start latent."""

    def __init__(self, vae: AutoencoderKLHunyuanVideo, *, order: Order, start: Tensor, sections: int) -> None:
        self.vae, self.order, self.start, self.left = vae, order, start, sections
        self.neighbour: Tensor | None = None  # latents rendered before, [1, C, 9, h, w]
        self.open: Tensor | None = None  # the frames that the next section still changes
        self.later: list[NDArray[np.uint8]] = []  # inverted order: final frames, the last of the film first

    def push(self, latents: Tensor) -> NDArray[np.uint8]:
        """Takes a section [1, C, 9, h, w] in rendering order; gives the frames [N, H, W, 3] that are final now."""
        self.left -= 1
        return self._forward(latents) if self.order == "forward" else self._inverted(latents)

    def _forward(self, latents: Tensor) -> NDArray[np.uint8]:
        before = self.start if self.neighbour is None else self.neighbour
        frames = decode(self.vae, torch.cat([before, latents], dim=2))
        if self.open is not None:
            frames = soft_append(self.open, frames, OVERLAP)
        # only a whole section is ever decoded again: the start latent leaves after the second section
        self.neighbour = latents
        final = frames.shape[2] - (OVERLAP if self.left else 0)
        self.open = frames[:, :, final:]
        return to_uint8(frames[:, :, :final])

    def _inverted(self, latents: Tensor) -> NDArray[np.uint8]:
        first = [self.start] if not self.left else []
        after = [] if self.neighbour is None else [self.neighbour]
        frames = decode(self.vae, torch.cat([*first, latents, *after], dim=2))
        if self.open is not None:
            frames = soft_append(frames, self.open, OVERLAP)
        self.neighbour = latents
        self.open = frames[:, :, :OVERLAP]
        self.later.append(to_uint8(frames[:, :, OVERLAP:] if self.left else frames))
        if self.left:
            return self.later[0][:0]
        return np.concatenate(self.later[::-1])


@torch.no_grad()
def decode(vae: AutoencoderKLHunyuanVideo, latents: Tensor) -> Tensor:
    """Scaled latents [1, C, T, h, w] -> pixels [1, 3, 4T - 3, 8h, 8w], about -1..1, in the VAE's dtype."""
    return vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]


def soft_append(before: Tensor, after: Tensor, overlap: int) -> Tensor:
    """Joins two clips that share `overlap` frames with linear weights (`_soft_append` of the pipeline)."""
    weights = torch.linspace(1, 0, overlap, dtype=before.dtype, device=before.device).view(1, 1, -1, 1, 1)
    shared = weights * before[:, :, -overlap:] + (1 - weights) * after[:, :, :overlap]
    return torch.cat([before[:, :, :-overlap], shared, after[:, :, overlap:]], dim=2).to(before)


def to_uint8(pixels: Tensor) -> NDArray[np.uint8]:
    """[1, 3, N, H, W] in -1..1 -> [N, H, W, 3], rounded as diffusers' VideoProcessor does."""
    unit = (pixels[0].permute(1, 2, 3, 0) * 0.5 + 0.5).clamp(0, 1)
    return (unit.float().cpu().numpy() * 255).round().astype(np.uint8)
