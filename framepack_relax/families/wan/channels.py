"""Wan 2.2 I2V-A14B, loaded: what is seen stands beside the noise, in channels; the latents are normalised.

C latent channels, T latent frames, h and w latent height and width
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch import Tensor

from ...relax.effects import LowPass, MotionAmplitude
from ...relax.latents import amplified, low_pass
from ..backend import Decoder, Given, Start
from ..base import Size, Step
from ..wan_vae import WanDecoder, encode, statistics, untiled
from .backend import SectionInputs, WanBackend, layout
from .configs import MASK
from .family import LONGEST, UNIT


@dataclass(kw_only=True)
class WanI2VBackend(WanBackend):
    """An image to a clip, as WanImageToVideoPipeline with transformer_2 (diffusers 0.42.1)."""

    def encode_starts(self, images: Mapping[int, tuple[Image.Image, int]]) -> Mapping[int, Start]:
        """Of each image what the longest clip is conditioned on; a shorter one takes its first latent frames."""
        if images:
            self.vae.to(self.device)
        return {
            shot: Start(latent=self._condition(preprocessed(image), 1 + LONGEST), embeds=None)
            for shot, (image, _) in images.items()
        }

    def begin(self, given: Given) -> SectionInputs:
        """A clip that goes on is conditioned on the last frame of the one before, as the film shows it."""
        assert given.start is not None
        frames = given.noise.shape[2]
        full = initial = masked(given.start.latent[:, :, :frames].to(self.device), 1)
        if given.past:
            pixels = preprocessed(self._last_frame(given.past[given.context.needs[0]]))
            full = masked(self._condition(pixels, frames), 1)
            initial = masked(self._condition(torch.zeros_like(pixels[:, :, :1]), frames), 0)
        seen = {"full": full, "initial": initial}
        for effect in {effect for step in given.steps for effect in step.effects if isinstance(effect, LowPass)}:
            image = torch.cat([full[:, :MASK, :1], low_pass(full[:, MASK:, :1], effect.factor)], dim=1)
            seen["low_pass"] = torch.cat([image, full[:, :, 1:]], dim=2)
        return SectionInputs(
            prompts={"positive": given.prompt, "negative": given.negative},
            clean=dict.fromkeys(seen, given.noise[:, :, :0].to(self.device)),
            beside=seen,
            layouts=(layout(["section"] * frames, given.noise),),
        )

    def seen(self, beside: Tensor, step: Step) -> Tensor:
        """With the step's amplitude on latents as the VAE gives them, as the node's are; of no image there is none."""
        factors = [effect.factor for effect in step.effects if isinstance(effect, MotionAmplitude)]
        if not factors or not beside[:, :MASK].any():
            return beside
        mean, scale = statistics(self.vae)
        latents = (amplified(beside[:, MASK:] / scale + mean, factors[0]) - mean) * scale
        return torch.cat([beside[:, :MASK], latents], dim=1)

    def _condition(self, pixels: Tensor, latents: int) -> Tensor:
        """[1, C, T, h, w] float32 of a clip of which these pixels [1, 3, 1, H, W] are seen; the rest is grey."""
        grey = torch.zeros_like(pixels).repeat_interleave(UNIT * (latents - 1), dim=2)
        return encode(self.vae, torch.cat([pixels, grey], dim=2), None).float()

    def _last_frame(self, latents: Tensor) -> Image.Image:
        """Of a clip."""
        with untiled(self.vae):
            return Image.fromarray(WanDecoder(self.vae, apart=True).push(latents)[-1])

    def decoder(self, how: str, start: Tensor | None, sections: int, options: Mapping[str, Any]) -> Decoder:
        return WanDecoder(self.vae, rest=self.resting, apart=True, again=self.family.grid.again_latents)

    def decode_bytes(self, size: Size, *, tiled: bool) -> int:
        """Never in tiles: what the next clip begins with must not depend on the memory."""
        return super().decode_bytes(size, tiled=False)


def preprocessed(image: Image.Image) -> Tensor:
    """Pixels [1, 3, 1, H, W] in -1..1."""
    return VideoProcessor().preprocess(image).unsqueeze(2)


def masked(latents: Tensor, frames: int) -> Tensor:
    """The mask of a clip of which so many latent frames are seen, and its latents: [1, MASK + C, T, h, w]."""
    mask = torch.zeros_like(latents[:, :1]).repeat_interleave(MASK, dim=1)
    mask[:, :, :frames] = 1
    return torch.cat([mask, latents], dim=1)
