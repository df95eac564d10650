"""Prompts as Wan's pipelines and those made after them encode them: UMT5, 512 tokens, zeros after the last."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor

from .base import Size
from .loaded import LoadedModel
from .wan_vae import decode_bytes

TOKENS = 512  # that a prompt is padded or cut to; max_sequence_length of the pipelines' calls


@dataclass(kw_only=True)
class UMT5Model(LoadedModel):
    """A model with this text encoder and AutoencoderKLWan; the encoder in the transformer's type, the VAE in float32.

    In float16 UMT5 leaves its range; the VAE's makers run it in float32.
    """

    pipeline: ClassVar[Any] = WanPipeline  # Helios' own needs ftfy to encode; with it the bits are the same
    prompt_tokens = TOKENS - 1  # and </s>
    vae_dtype = torch.float32

    @staticmethod
    def beside(dtype: torch.dtype, device: torch.device) -> torch.dtype:
        return dtype

    def encode_text(self, pipe: Any, prompt: str) -> Tensor:
        """[1, 512, D], cleaned as the pipeline does it (`prompt_clean`: white space, HTML, broken Unicode)."""
        embeds, _ = pipe.encode_prompt(
            prompt, do_classifier_free_guidance=False, max_sequence_length=TOKENS, device=self.device
        )
        return embeds.to(self.dtype)

    def readable(self, text: str) -> str:
        return prompt_clean(text)

    def blended(self, one: Tensor, other: Tensor, weight: float) -> Tensor:
        """Where one of them has no token there are zeros, as after the last token of any prompt."""
        return one.lerp(other, weight)

    def text_vector(self, text: Tensor) -> Tensor:
        return text[0, text[0].any(dim=1)].float().mean(dim=0)

    def decode_bytes(self, size: Size, *, tiled: bool) -> int:
        return decode_bytes(self.vae, size, tiled=tiled)
