"""FramePack's decode and blend, a section at a time, equal to the frames of HunyuanVideoFramepackPipeline.

    C latent channels, T latent frames, h and w latent height and width; N frames, H and W their height and width

Every section is decoded together with the one rendered before it (18 latent frames), and the 33 frames that both
decodes share are cross-faded. So only 33 frames at the side of the next section are open; the others are final.
Latents come in as the sampler leaves them: multiplied by the VAE's scaling factor.
"""

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from numpy.typing import NDArray
from torch import Tensor

from ..plan.grid import LATENT_FRAMES, SECTION_FRAMES, SECTION_LATENTS
from ..plan.history import Order

OVERLAP = LATENT_FRAMES * (SECTION_LATENTS - 1) + 1  # frames


class BlendDecoder:
    """Decodes one shot of `sections` sections; `start` [1, C, 1, h, w] is its start latent.

    Forward order holds 9 latents and 33 frames, however long the shot is; inverted order the shot in uint8 besides.
    """

    def __init__(self, vae: AutoencoderKLHunyuanVideo, *, order: Order, start: Tensor, sections: int) -> None:
        self.vae, self.order, self.start, self.left = vae, order, start, sections
        self.neighbour: Tensor | None = None  # latents rendered before, [1, C, 9, h, w]
        self.open: Tensor | None = None  # [1, 3, 33, H, W], the frames that the next section still changes
        self.film: NDArray[np.uint8] | None = None  # inverted order: the shot, final from `begun` on
        self.begun = SECTION_FRAMES * sections + 1

    def push(self, latents: Tensor) -> NDArray[np.uint8]:
        """Takes a section [1, C, 9, h, w] in rendering order; gives the frames [N, H, W, 3] that follow in the film.

        Forward: 4, then 36 at a time, 69 at the end. Inverted: none before the last section, then the whole shot.
        """
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
        self.open = frames[:, :, final:].clone()  # a view would keep all that was decoded
        return to_uint8(frames[:, :, :final])

    def _inverted(self, latents: Tensor) -> NDArray[np.uint8]:
        first = [self.start] if not self.left else []
        after = [] if self.neighbour is None else [self.neighbour]
        frames = decode(self.vae, torch.cat([*first, latents, *after], dim=2))
        if self.open is not None:
            frames = soft_append(frames, self.open, OVERLAP)
        self.neighbour = latents
        self.open = frames[:, :, :OVERLAP].clone()
        final = to_uint8(frames[:, :, OVERLAP:] if self.left else frames)
        if self.film is None:
            self.film = np.empty((self.begun, *final.shape[1:]), np.uint8)
        end, self.begun = self.begun, self.begun - len(final)
        self.film[self.begun : end] = final
        return self.film[:0] if self.left else self.film


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
