"""HunyuanVideo, loaded: its text encoders, its transformer, its VAE; what FramePack has of it too.

B batch (1), C latent channels, T latent frames, h and w latent height and width
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from diffusers import HunyuanVideoPipeline
from PIL import Image
from torch import Tensor

from ...relax.effects import Effect
from ...relax.guidance import Branch
from ...relax.unlearning import FramePart, Segment
from ..backend import Decoder, Given, Preset, Prompt, Solve, Start
from ..base import Context, Size, Step
from ..components import load_part
from ..loaded import LoadedModel
from ..tokens import unread_parts
from .attention import attention_edit, edited_attention
from .euler import euler
from .stream import StreamDecoder

# Peaks of live tensors of the real configurations on torch's meta device: a forward pass holds 18 vectors of the
# model's width per token, the streaming decoder 6.2 times the input of its last block for the 13 frames of a piece.
ROWS, DECODED, FRAMES = 20, 6.5, 13


@dataclass(frozen=True, kw_only=True)
class SectionInputs:
    """What a section's passes need besides x: arguments of the transformer by prompt and by context."""

    prompts: Mapping[str, Mapping[str, Tensor]]  # positive, negative
    contexts: Mapping[str, Mapping[str, Tensor]]  # full, initial, low_pass
    segments: tuple[Segment, ...]
    opening: Tensor | None = None  # the first section of the shot to be rendered, if this is another
    drift: float = 0.0  # how strongly colours are pulled towards that one's


@dataclass(kw_only=True)
class HunyuanVideoBackend(LoadedModel):
    """Text to one clip a shot, as HunyuanVideoPipeline (diffusers 0.42.1)."""

    texts: dict[str, Prompt] = field(default_factory=dict)  # of the film before

    pipeline: ClassVar[Any] = HunyuanVideoPipeline

    def encode_prompts(self, prompts: Iterable[str]) -> Mapping[str, Prompt]:
        """Each distinct prompt encoded with the pipeline's own `encode_prompt`.

        The encoders are loaded for this call and dropped after it; what the call before encoded is taken from there.
        """
        wanted = dict.fromkeys(prompts)
        known = self.texts | self._encode_new([prompt for prompt in wanted if prompt not in self.texts])
        self.texts = {prompt: known[prompt] for prompt in wanted}
        return self.texts

    def unread(self, prompts: Iterable[str]) -> dict[str, list[str]]:
        tokenizer = load_part(self.source, "tokenizer", self.dtype)
        return {prompt: parts for prompt in dict.fromkeys(prompts) if (parts := unread_parts(tokenizer, prompt))}

    def _encode_new(self, prompts: list[str]) -> dict[str, Prompt]:
        made: dict[str, Prompt] = {}
        if not prompts:
            return made
        with self.encoders("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2") as pipe:
            for prompt in prompts:
                embeds, pooled, mask = (x.to(self.dtype) for x in pipe.encode_prompt(prompt, device=self.device))
                names = ("encoder_hidden_states", "encoder_attention_mask", "pooled_projections")
                arguments = dict(zip(names, (embeds, mask, pooled), strict=True))
                made[prompt] = Prompt(embeds=arguments)
        return made

    def encode_starts(self, images: Mapping[int, tuple[Image.Image, int]]) -> Mapping[int, Start]:
        assert not images, "the planner refuses images for a family that takes none"
        return {}

    def begin(self, given: Given) -> SectionInputs:
        frames, height, width = given.noise.shape[2], -(-given.noise.shape[3] // 2), -(-given.noise.shape[4] // 2)
        parts = tuple[FramePart, ...](["section"] * frames)
        section = Segment(parts=parts, frames=tuple(map(float, range(frames))), height=height, width=width)
        return SectionInputs(
            prompts={"positive": given.prompt.embeds, "negative": given.negative.embeds},
            contexts={"full": {}},
            segments=(section,),
        )

    def solver(self, sampler: str, steps: Sequence[Step]) -> Solve:
        return euler([step.sigma for step in steps])

    @torch.no_grad()
    def predict(self, x: Tensor, step: Step, branch: Branch, inputs: SectionInputs) -> Tensor:
        """The arguments are those of the pipeline's call; the timestep is rounded to the transformer's dtype."""
        kind: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        return self.transformer(
            hidden_states=x.to(self.dtype),
            timestep=torch.tensor([step.timestep], dtype=torch.float32, device=self.device).to(self.dtype),
            guidance=torch.tensor([step.scales["embedded"]], **kind) * 1000.0,
            **inputs.prompts[branch.prompt],
            **inputs.contexts[branch.context],
            return_dict=False,
        )[0].float()

    @contextmanager
    def acting(self, effects: tuple[Effect, ...], inputs: SectionInputs) -> Iterator[None]:
        with edited_attention(self.transformer, attention_edit(effects, inputs.segments)):
            yield

    def finish(self, latents: Tensor, inputs: SectionInputs) -> Tensor:
        return latents

    def decoder(self, how: str, start: Tensor | None, sections: int, options: Mapping[str, Any]) -> Decoder:
        return StreamDecoder(self.vae, start=start, rest=self.resting)

    def peak_bytes(self, context: Context, latents: int, size: Size, preset: Preset) -> int:
        """Weights on the device, and the larger of what a pass and what a decode of (width, height) px work with."""
        config, vae = self.transformer.config, self.vae
        tokens = self.tokens(context, latents, size)
        forward = tokens * config.num_attention_heads * config.attention_head_dim * ROWS
        tile = size if preset == "full" else (vae.tile_sample_min_width, vae.tile_sample_min_height)
        pixels = min(size[0], tile[0]) * min(size[1], tile[1])
        decode = FRAMES * pixels * vae.config.block_out_channels[1] * DECODED
        sizes = [p.numel() * p.element_size() for p in self.transformer.parameters()]
        transformer = 2 * max(sizes) if preset == "offload" else sum(sizes)  # a layer at work and the next one
        weights = transformer + sum(p.numel() * p.element_size() for p in vae.parameters())
        return int(weights + max(forward, decode) * self.dtype.itemsize)

    def tokens(self, context: Context, latents: int, size: Size) -> int:
        """Video tokens of a pass."""
        return latents * -(-size[1] // 16) * -(-size[0] // 16)
