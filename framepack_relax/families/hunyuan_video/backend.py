"""HunyuanVideo, loaded: its text encoders, its transformer, its VAE; what FramePack has of it too.

B batch (1), C latent channels, T latent frames, h and w latent height and width
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import Tensor

from ...relax.effects import Effect
from ...relax.guidance import Branch
from ...relax.unlearning import FramePart, Segment
from ..attention import attention_edit, word_bias
from ..backend import Decoder, Given, Solve
from ..base import Context, Size, Step, noise_table
from ..loaded import LoadedModel
from .attention import edited_attention
from .stream import StreamDecoder

# Peaks of live tensors of the real configurations, and up to a tenth more: a forward pass holds 18 vectors of the
# model's width per token, the streaming decoder 6.2 times the input of its last block for the 13 frames of a piece; in
# tiles, of which only the one at work has its state there, 5.3 times.
ROWS, DECODED, IN_TILES, FRAMES = 20, 6.5, 5.5, 13


@dataclass(frozen=True, kw_only=True)
class SectionInputs:
    """What a section's passes need besides x: arguments of the transformer by prompt and by context."""

    prompts: Mapping[str, Mapping[str, Tensor]]  # positive, negative
    contexts: Mapping[str, Mapping[str, Tensor]]  # full, context, low_pass
    segments: tuple[Segment, ...]
    words: Mapping[str, Sequence[int]]  # tokens of the prompt
    opening: Tensor | None = None  # the first section of the shot to be rendered, if this is another
    drift: float = 0.0  # how strongly colours are pulled towards that one's


@dataclass(kw_only=True)
class HunyuanVideoBackend(LoadedModel):
    """Text to one clip a shot, as HunyuanVideoPipeline (diffusers 0.42.1)."""

    pipeline: ClassVar[Any] = HunyuanVideoPipeline
    text_parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    prompt_tokens = 256  # encode_prompt's max_sequence_length
    template = DEFAULT_PROMPT_TEMPLATE["template"]
    cropped = int(DEFAULT_PROMPT_TEMPLATE["crop_start"])

    def encode_text(self, pipe: Any, prompt: str) -> dict[str, Tensor]:
        embeds, pooled, mask = (x.to(self.dtype) for x in pipe.encode_prompt(prompt, device=self.device))
        return {"encoder_hidden_states": embeds, "encoder_attention_mask": mask, "pooled_projections": pooled}

    def blended(self, one: Mapping[str, Tensor], other: Mapping[str, Tensor], weight: float) -> Mapping[str, Tensor]:
        """As long as the longer: where one of them has no token there are zeros, and its padding is never read."""
        if weight in (0, 1):
            return other if weight else one
        masks = [text["encoder_attention_mask"] for text in (one, other)]
        longest = max(int(mask.sum()) for mask in masks)
        embeds = [text["encoder_hidden_states"].clone() for text in (one, other)]
        for states, mask in zip(embeds, masks, strict=True):
            states[:, int(mask.sum()) : longest] = 0
        return {
            "encoder_hidden_states": embeds[0].lerp(embeds[1], weight),
            "encoder_attention_mask": torch.maximum(*masks),
            "pooled_projections": one["pooled_projections"].lerp(other["pooled_projections"], weight),
        }

    def text_vector(self, text: Mapping[str, Tensor]) -> Tensor:
        return text["encoder_hidden_states"][text["encoder_attention_mask"].bool()].float().mean(dim=0)

    def begin(self, given: Given) -> SectionInputs:
        frames, height, width = given.noise.shape[2], -(-given.noise.shape[3] // 2), -(-given.noise.shape[4] // 2)
        parts = tuple[FramePart, ...](["section"] * frames)
        section = Segment(parts=parts, frames=tuple(map(float, range(frames))), height=height, width=width)
        return SectionInputs(
            prompts={"positive": given.prompt, "negative": given.negative},
            contexts={"full": {}},
            segments=(section,),
            words=given.words,
        )

    def solver(self, sampler: str, steps: Sequence[Step]) -> Solve:
        return euler(noise_table(steps), steps[0].index)

    @torch.no_grad()
    def predict(self, x: Tensor, step: Step, branch: Branch, inputs: SectionInputs) -> Tensor:
        """The arguments are those of the pipeline's call; the timestep is rounded to the transformer's dtype."""
        kind: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        read, video = inputs.prompts[branch.prompt], sum(segment.tokens for segment in inputs.segments)
        first = video + (read["image_embeds"].shape[1] if "image_embeds" in read else 0)
        queries = video - inputs.segments[-1].tokens, video
        bias = word_bias(step, branch, inputs.words, first=first, queries=queries, **self.where)
        with edited_attention(self.transformer, None, words=bias):
            return self.transformer(
                hidden_states=x.to(self.dtype),
                timestep=torch.tensor([step.timestep], dtype=torch.float32, device=self.device).to(self.dtype),
                guidance=torch.tensor([step.scales["embedded"]], **kind) * 1000.0,
                **read,
                **inputs.contexts[branch.context],
                return_dict=False,
            )[0].float()

    def acting(self, effects: tuple[Effect, ...], inputs: SectionInputs) -> AbstractContextManager[None]:
        return edited_attention(self.transformer, attention_edit(effects, inputs.segments, **self.where))

    def sharing(self, group: Any) -> AbstractContextManager[None]:
        if group is None:
            return nullcontext()
        from .ulysses import shared_passes  # needs torch.distributed

        return shared_passes(self.transformer, group)

    def decoder(self, how: str, start: Tensor | None, sections: int, options: Mapping[str, Any]) -> Decoder:
        return StreamDecoder(self.vae, start=start, rest=self.resting)

    def forward_bytes(self, context: Context, latents: int, size: Size) -> int:
        config = self.transformer.config
        width = config.num_attention_heads * config.attention_head_dim
        return int(self.tokens(context, latents, size) * width * ROWS * self.dtype.itemsize)

    def decode_bytes(self, size: Size, *, tiled: bool) -> int:
        vae = self.vae
        tile = (vae.tile_sample_min_width, vae.tile_sample_min_height) if tiled else size
        pixels = min(size[0], tile[0]) * min(size[1], tile[1])
        held = IN_TILES if tiled else DECODED
        return int(FRAMES * pixels * vae.config.block_out_channels[1] * held * vae.dtype.itemsize)

    def pass_flops(self, context: Context, latents: int, size: Size) -> int:
        """Of all blocks: 12 D^2 multiplications a token, and attention of all tokens to all; text is not counted."""
        config, tokens = self.transformer.config, self.tokens(context, latents, size)
        width = config.num_attention_heads * config.attention_head_dim
        return int((config.num_layers + config.num_single_layers) * width * tokens * (24 * width + 4 * tokens))

    def tokens(self, context: Context, latents: int, size: Size) -> int:
        """Video tokens of a pass."""
        return latents * -(-size[1] // 16) * -(-size[0] // 16)


def euler(sigmas: Sequence[float], first: int = 0) -> Solve:
    """The Euler solver of diffusers' flow-matching pipelines on shifted sigmas [steps]: (index, velocity, x) -> x."""
    return on_table(FlowMatchEulerDiscreteScheduler(shift=1.0), sigmas, first)


def on_table(scheduler: Any, sigmas: Sequence[float], first: int = 0) -> Solve:
    """Steps of a diffusers scheduler on these very sigmas [steps], to which it does nothing more, from `first` on."""
    table = np.array(sigmas, dtype=np.float32)
    scheduler.set_timesteps(sigmas=table.copy())
    scheduler.sigmas[0] = table[0].item()  # diffusers' UniPC moves a first sigma of 1
    scheduler.set_begin_index(first)
    return lambda index, velocity, x: scheduler.step(velocity, scheduler.timesteps[index], x, return_dict=False)[0]
