"""Helios, loaded: its packed past, its attention, its solver.

B batch (1), C latent channels, T latent frames, h and w latent height and width; L tokens, N heads, H head dim
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import HeliosScheduler
from diffusers.models.transformers.transformer_helios import (
    HeliosAttention,
    HeliosAttnProcessor,
    apply_rotary_emb_transposed,
)
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch import Tensor

from ...relax.effects import Effect, LowPass
from ...relax.guidance import Branch
from ...relax.latents import low_pass
from ..attention import Editing, edited, weighted, word_bias
from ..backend import Decoder, Given, Solve, Start
from ..base import Context, Size, Step, noise_table
from ..framepack.backend import begun_with, gather_history, initial_history, packed_segments
from ..framepack.history import SECTION_LATENTS, HistorySlots
from ..hunyuan_video.backend import SectionInputs
from ..umt5 import UMT5Model
from ..wan_vae import WanDecoder, encode
from .family import Helios

NOISE = (0.111, 0.135)  # sigmas between which the pipeline noises what it makes of a start image
ROWS = 34  # vectors of the model's width per token that a forward pass holds; by count 31 (LOG.md)
STILL = 33  # frames of the still clip, of which the past of a film with a start image is the last latent one
PACKED = {  # the transformer's names for FramePack's packed history
    "latents_clean": "latents_history_short",
    "latents_history_2x": "latents_history_mid",
    "latents_history_4x": "latents_history_long",
    "indices_latents": "indices_hidden_states",
    "indices_latents_clean": "indices_latents_history_short",
    "indices_latents_history_2x": "indices_latents_history_mid",
    "indices_latents_history_4x": "indices_latents_history_long",
}


@dataclass(kw_only=True)
class HeliosBackend(UMT5Model):
    """Words, or an image besides, and the past to the next section, as HeliosPipeline (diffusers 0.42.1)."""

    def encode_starts(self, images: Mapping[Any, tuple[Image.Image, int]]) -> Mapping[Any, Start]:
        """Latents [1, C, 2, h, w]: the image, which stays in sight, and the still past; noised as the pipeline does."""
        if images:
            self.vae.to(self.device)
        made = {}
        for shot, (image, seed) in images.items():
            pixels = VideoProcessor().preprocess(image, image.height, image.width)[:, :, None]
            generator = torch.Generator("cpu").manual_seed(seed)  # from the CPU whatever the device
            seen = encode(self.vae, pixels, generator)
            past = encode(self.vae, pixels.expand(-1, -1, STILL, -1, -1), generator)[:, :, -1:]
            made[shot] = Start(latent=torch.cat([noised(x.float(), generator) for x in (seen, past)], 2), embeds=None)
        return made

    def encode_film(self, frames: Sequence[Image.Image], seed: int) -> Start:
        """Latents [1, C, 1 + 9k, h, w] as of the pipeline's `video`: of the first frame, then of k clips of 33."""
        self.vae.to(self.device)
        pixels, generator = VideoProcessor().preprocess_video(list(frames)), torch.Generator("cpu").manual_seed(seed)
        parts = [encode(self.vae, x, generator).float() for x in (pixels[:, :, :1], *pixels.split(STILL, dim=2))]
        return Start(latent=torch.cat([noised(x, generator) for x in parts], dim=2), embeds=None)

    def begin(self, given: Given) -> SectionInputs:
        slots = given.context
        assert isinstance(slots, HistorySlots)
        frames = {0: torch.zeros_like(given.noise[:, :, :1], device=self.device)}
        for place, section in given.past.items():
            frames |= {SECTION_LATENTS * place + 1 + k: frame for k, frame in enumerate(section.split(1, dim=2))}
        kept = frames[0 if slots.initial else 1]  # of a film without a start image its first latent frame
        if given.start is not None:
            kept, before = begun_with(given.start.latent)
            frames |= before
        full = gather_history(slots, frames, kept)
        contexts = {"full": full, "context": initial_history(slots, kept, "inverted")}
        if given.options["no_past"] == "none":
            contexts["context"] = {"indices_latents": full["indices_latents"]}
        for effect in {effect for step in given.steps for effect in step.effects if isinstance(effect, LowPass)}:
            contexts["low_pass"] = {**full, "latents_clean": low_pass(full["latents_clean"], effect.factor)}
        return SectionInputs(
            prompts={
                name: {"encoder_hidden_states": said}
                for name, said in (("positive", given.prompt), ("negative", given.negative))
            },
            contexts={name: self._arguments(history) for name, history in contexts.items()},
            segments=packed_segments(slots, given.noise.shape[3], given.noise.shape[4]),
            words=given.words,
        )

    def _arguments(self, history: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kind: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        return {PACKED[name]: x.to(**kind) if name.startswith("latents") else x[None] for name, x in history.items()}

    def solver(self, sampler: str, steps: Sequence[Step]) -> Solve:
        assert isinstance(self.family, Helios)
        scheduler = HeliosScheduler(stages=1, scheduler_type=sampler, **self.family.schedule.solver)
        sigmas = noise_table(steps)
        scheduler.set_timesteps(len(sigmas), sigmas=np.array(sigmas))
        scheduler._step_index = steps[0].index  # its UniPC does not ask what set_begin_index says
        return lambda index, v, x: scheduler.step(v, scheduler.timesteps[index], x, return_dict=False)[0]

    @torch.no_grad()
    def predict(self, x: Tensor, step: Step, branch: Branch, inputs: SectionInputs) -> Tensor:
        """The arguments are those of the pipeline's call."""
        bias = word_bias(step, branch, inputs.words, **self.where)
        with weighted([block.attn2 for block in self.transformer.blocks], bias):
            return self.transformer(
                hidden_states=x.to(self.dtype),
                timestep=torch.tensor([step.timestep], dtype=torch.float32, device=self.device),
                **inputs.prompts[branch.prompt],
                **inputs.contexts[branch.context],
                return_dict=False,
            )[0].float()

    def acting(self, effects: tuple[Effect, ...], inputs: SectionInputs) -> AbstractContextManager[None]:
        """With a past in sight and, should that be how it is without one, with the section alone."""
        attentions = [block.attn1 for block in self.transformer.blocks]
        return edited(attentions, HeliosProcessor, effects, (inputs.segments, inputs.segments[-1:]), **self.where)

    def decoder(self, how: str, start: Tensor | None, sections: int, options: Mapping[str, Any]) -> Decoder:
        return WanDecoder(self.vae, rest=self.resting, apart=True)

    def forward_bytes(self, context: Context, latents: int, size: Size) -> int:
        config = self.transformer.config
        width = config.num_attention_heads * config.attention_head_dim
        return int(self.tokens(context, size) * width * ROWS * self.dtype.itemsize)

    def pass_flops(self, context: Context, latents: int, size: Size) -> int:
        """Of all blocks: 6 D^2 + 2 D F multiplications a token, and attention of all to all; text is not counted."""
        config, tokens = self.transformer.config, self.tokens(context, size)
        width = config.num_attention_heads * config.attention_head_dim
        return int(config.num_layers * width * tokens * (12 * width + 4 * config.ffn_dim + 4 * tokens))

    def tokens(self, context: Context, size: Size) -> int:
        """Of a pass, the past among them."""
        assert isinstance(context, HistorySlots)
        return sum(segment.tokens for segment in packed_segments(context, size[1] // 8, size[0] // 8))


def noised(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Latents [1, C, T, h, w] with a share of noise that the generator draws, one a frame, and the noise."""
    drawn = torch.rand(latents.shape[2], generator=generator).view(1, 1, -1, 1, 1)
    share = (drawn * (NOISE[1] - NOISE[0]) + NOISE[0]).to(latents.device)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    return share * noise + (1 - share) * latents


class HeliosProcessor(Editing, HeliosAttnProcessor):
    """HeliosAttnProcessor (diffusers 0.42.1) with an edit, for self-attention."""

    def __call__(
        self,
        attn: HeliosAttention,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        rotary_emb: Any = None,
        original_context_length: int = 0,
    ) -> Tensor:
        query, key, value = (project(hidden_states) for project in (attn.to_q, attn.to_k, attn.to_v))
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (attn.norm_q(query), attn.norm_k(key), value))
        key = self.blurred("k", key, "pre_rope")
        query, key = (apply_rotary_emb_transposed(x, rotary_emb) for x in (query, key))
        key, value = self.blurred("k", key, "post_rope"), self.blurred("v", value, self.edit.space)
        out = self.attend(query, key, value, None).flatten(2, 3).type_as(query)
        return attn.to_out[1](attn.to_out[0](out))
