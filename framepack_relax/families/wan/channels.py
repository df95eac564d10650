"""Wan 2.2 I2V-A14B, loaded: what is seen stands beside the noise, in channels; the latents are normalised.

C latent channels, T latent frames, h and w latent height and width
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch import Tensor

from ...relax.effects import LowPass, MotionAmplitude
from ...relax.latents import amplified, low_pass
from ..backend import Decoder, Given
from ..base import Size, Step
from ..wan_vae import WanDecoder, encode, statistics, untiled
from .backend import SectionInputs, WanBackend, before, layout, of_a_film
from .configs import MASK
from .family import UNIT


@dataclass(kw_only=True)
class WanI2VBackend(WanBackend):
    """An image to a clip, as WanImageToVideoPipeline with transformer_2 (diffusers 0.42.1)."""

    def begin(self, given: Given) -> SectionInputs:
        frames = given.noise.shape[2]
        see, sharp = PASTS[given.options.get("past", "frame")]
        seen = dict(see(self, given))
        for effect in {effect for step in given.steps for effect in step.effects if isinstance(effect, LowPass)}:
            image = seen["full"][:, MASK:].clone()
            image[:, :, :sharp] = low_pass(image[:, :, :sharp], effect.factor)
            seen["low_pass"] = torch.cat([seen["full"][:, :MASK], image], dim=1)
        return SectionInputs(
            prompts={"positive": given.prompt, "negative": given.negative},
            clean=dict.fromkeys(seen, given.noise[:, :, :0].to(self.device)),
            beside=seen,
            layouts=(layout(["section"] * frames, given.noise),),
            words=given.words,
        )

    def seen(self, beside: Tensor, step: Step) -> Tensor:
        """With the step's amplitude on latents as the VAE gives them, as the node's are; of no image there is none, nor
        of anchors."""
        factors = [effect.factor for effect in step.effects if isinstance(effect, MotionAmplitude)]
        if not factors or not beside[:, :MASK].any():
            return beside
        mean, scale = statistics(self.vae)
        latents, shown = amplified(beside[:, MASK:] / scale + mean, factors[0]), beside[:, MASK - 1 : MASK]
        latents = (latents - mean) * scale
        if shown[:, :, 1:].any():
            latents = torch.where(shown > 0, beside[:, MASK:], latents)
        return torch.cat([beside[:, :MASK], latents], dim=1)

    def clip(self, first: Tensor, rest: Tensor, given: Given) -> Tensor:
        """Latents [1, C, T, h, w] float32 of the section's clip of a picture and then another, [1, 3, 1, H, W] each."""
        pixels = torch.cat([first, rest.repeat_interleave(UNIT * (given.noise.shape[2] - 1), dim=2)], dim=2)
        for latent, anchor in given.anchors.items():  # the last of its frames, as the pipeline's last_image
            pixels[:, :, UNIT * latent] = anchor.embeds[:, :, 0]
        return encode(self.vae, pixels, None).float()

    def last_frame(self, given: Given) -> Tensor:
        """Of the clip before, as the film shows it; of a shot's first clip the start image."""
        assert given.start is not None
        if not given.past:
            return given.start.embeds
        with untiled(self.vae):
            frames = WanDecoder(self.vae, apart=True).push(given.past[given.context.needs[0]])
        return preprocessed(Image.fromarray(frames[-1]))

    def decoder(self, how: str, start: Tensor | None, sections: int, options: Mapping[str, Any]) -> Decoder:
        made = WanDecoder(self.vae, rest=self.resting, apart=True, again=1 + options.get("carry", 0))
        made.shown = made.again if of_a_film(start) else 0
        return made

    def decode_bytes(self, size: Size, *, tiled: bool) -> int:
        """Never in tiles: what the next clip begins with must not depend on the memory."""
        return super().decode_bytes(size, tiled=False)


def preprocessed(image: Image.Image) -> Tensor:
    """Pixels [1, 3, 1, H, W] in -1..1."""
    return VideoProcessor().preprocess(image).unsqueeze(2)


def masked(latents: Tensor, frames: int, anchors: Iterable[int] = ()) -> Tensor:
    """The mask of a clip of which so many latent frames are seen, and of `anchors` the last frame; and its latents.

    Gives [1, MASK + C, T, h, w].
    """
    mask = torch.zeros_like(latents[:, :1]).repeat_interleave(MASK, dim=1)
    mask[:, :, :frames] = 1
    mask[:, -1, list(anchors)] = 1
    return torch.cat([mask, latents], dim=1)


def of_the_frame(model: WanI2VBackend, given: Given) -> Mapping[str, Tensor]:
    """As the stock pipeline does it: the frame, anchors, and grey in place of others; the frame may be grey, too."""
    frame = model.last_frame(given)
    grey = torch.zeros_like(frame)
    full = masked(model.clip(frame, grey, given), 1, given.anchors)
    return {"full": full, "context": masked(model.clip(grey, grey, given), 0, given.anchors) if given.past else full}


def of_svi(model: WanI2VBackend, given: Given) -> Mapping[str, Tensor]:
    """SVI 2.0: the frame, and the anchor in place of all others. Without the anchor it is the stock condition, without
    the motion that of a shot's first clip."""
    assert given.start is not None
    frame, anchor = model.last_frame(given), given.start.embeds
    pairs = {"full": (frame, anchor), "anchor": (frame, torch.zeros_like(frame)), "motion": (anchor, anchor)}
    return {name: masked(model.clip(*pair, given), 1) for name, pair in pairs.items()}


def of_svi_pro(model: WanI2VBackend, given: Given) -> Mapping[str, Tensor]:
    """SVI 2.0 Pro: latents of the anchor and of the clip before, then zeros; the mask is of the anchor alone.

    Without the motion it is the condition of a shot's first clip. Nothing has been trained without the anchor.
    """
    assert given.start is not None
    none = torch.zeros_like(given.noise, device=model.device)
    anchor, motion, past = given.start.latent[:, :, :1].to(model.device), none[:, :, :0], before(given)
    if past is not None:
        motion = past[:, :, -given.options["carry"] :].to(model.device)

    def clip(first: Tensor, then: Tensor) -> Tensor:
        return torch.cat([first, then, none[:, :, 1 + then.shape[2] :]], dim=2)

    return {
        "full": masked(clip(anchor, motion), 1),
        "anchor": masked(clip(none[:, :, :1], motion), 0),
        "motion": masked(clip(anchor, none[:, :, :0]), 1),
    }


# by a board's `wan.past`: what is seen, by context; how many of its latent frames are of images, None: all
PASTS: Mapping[str, tuple[Callable[[WanI2VBackend, Given], Mapping[str, Tensor]], int | None]] = {
    "frame": (of_the_frame, 1),
    "svi": (of_svi, None),
    "svi-pro": (of_svi_pro, None),
}
