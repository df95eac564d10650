"""FramePack's decode and blend, in film order, equal to the frames of HunyuanVideoFramepackPipeline.

    C latent channels, T latent frames, h and w latent height and width; N frames, H and W their height and width

Every section is decoded together with the one rendered before it (18 latent frames), in inverted order the next in the
film, and the 33 frames that two decodes share are cross-faded. So only 33 frames at the end are open.
Latents come in as the sampler leaves them: multiplied by the VAE's scaling factor.
"""

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from numpy.typing import NDArray
from torch import Tensor

from ...storyboard.fields import Order
from ..hunyuan_video.stream import decode, to_uint8
from .family import LATENT_FRAMES
from .history import SECTION_LATENTS

OVERLAP = LATENT_FRAMES * (SECTION_LATENTS - 1) + 1  # frames


class BlendDecoder:
    """Decodes one shot of `sections` sections, in film order; `start` [1, C, 1, h, w] is its start latent.

    Holds at most 19 latents and 33 frames, however long the shot is.
    """

    def __init__(self, vae: AutoencoderKLHunyuanVideo, *, order: Order, start: Tensor, sections: int) -> None:
        self.vae, self.order, self.left = vae, order, sections
        self.before = start  # latents that the next section is decoded together with
        self.begun = False
        self.open: Tensor | None = None  # [1, 3, 33, H, W], the frames that the next decode still changes

    def push(self, latents: Tensor) -> NDArray[np.uint8]:
        """Takes the film's next section [1, C, 9, h, w]; gives the frames [N, H, W, 3] that are final with it.

        Forward order: 4, then 36 at a time, 69 at the end. Inverted order: none, 40, then 36 at a time, 69 at the end.
        """
        self.left -= 1
        windows = [torch.cat([self.before, latents], dim=2)]
        self.before = latents
        if self.order == "inverted" and not self.begun:  # the start latent is decoded with the first two sections
            self.before = windows.pop()
        if self.order == "inverted" and not self.left:  # the section rendered first had none beside it
            windows.append(self.before)
        self.begun = True
        made = [self._join(z, last=not self.left and z is windows[-1]) for z in windows]
        return np.concatenate([np.empty((0, *(8 * side for side in latents.shape[3:]), 3), np.uint8), *made])

    def _join(self, latents: Tensor, *, last: bool) -> NDArray[np.uint8]:
        frames = decode(self.vae, latents)
        if self.open is not None:
            frames = soft_append(self.open, frames, OVERLAP)
        final = frames.shape[2] - (0 if last else OVERLAP)
        self.open = frames[:, :, final:].clone()  # a view would keep all that was decoded
        return to_uint8(frames[:, :, :final])


def soft_append(before: Tensor, after: Tensor, overlap: int) -> Tensor:
    """Joins two clips that share `overlap` frames with linear weights (`_soft_append` of the pipeline)."""
    weights = torch.linspace(1, 0, overlap, dtype=before.dtype, device=before.device).view(1, 1, -1, 1, 1)
    shared = weights * before[:, :, -overlap:] + (1 - weights) * after[:, :, :overlap]
    return torch.cat([before[:, :, :-overlap], shared, after[:, :, overlap:]], dim=2).to(before)
