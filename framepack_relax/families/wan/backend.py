"""Wan, loaded: UMT5, the transformer, AutoencoderKLWan; the latents are normalised, as its pipelines keep them.

C latent channels, T latent frames, h and w latent height and width
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch import Tensor

from ...relax.effects import Effect, LowPass
from ...relax.guidance import Branch
from ...relax.latents import low_pass
from ...relax.unlearning import FramePart, Segment
from ..attention import edited, weighted, word_bias
from ..backend import Decoder, Given, GoingOn, Solve, Start
from ..base import Context, Size, Step, noise_table
from ..hunyuan_video.backend import euler, on_table
from ..umt5 import UMT5Model
from ..wan_vae import WanDecoder, encode
from .attention import EditedProcessor
from .family import Wan, WanExperts, WanTI2V

# Vectors of the model's width that a pass has per token, by peaks of live tensors of the real configurations and up to
# a tenth more: where it attends; where it is fed forward, in addition to twice the width there; of a timestep a token.
ATTENDING, FORWARD, TIMESTEPS = 12.5, 6, 21


@dataclass(frozen=True, kw_only=True)
class SectionInputs:
    """What a section's passes need besides x: prompts by name, and by context the clean frames that it begins with.

    The first `covered` of x's own frames are clean too, and stand for those.
    """

    prompts: Mapping[str, Tensor]  # positive, negative: [1, 512, D]
    clean: Mapping[str, Tensor]  # full, context, low_pass: [1, C, k, h, w]
    covered: int = 0
    beside: Mapping[str, Tensor] = field(default_factory=dict)  # by context too, where channels say what is seen
    layouts: tuple[tuple[Segment, ...], ...]  # of tokens, by context
    words: Mapping[str, Sequence[int]]  # tokens of the prompt


@dataclass(kw_only=True)
class WanBackend(UMT5Model):
    """Text, or text and clean first frames, to a clip: WanPipeline, WanImageToVideoPipeline (diffusers 0.42.1)."""

    family: Wan

    def encode_starts(self, images: Mapping[Any, tuple[Image.Image, int]]) -> Mapping[Any, Start]:
        """The mode of each image's latent, as the pipeline takes it: the seeds draw nothing."""
        if images:
            self.vae.to(self.device)
        pixels = {shot: VideoProcessor().preprocess(image).unsqueeze(2) for shot, (image, _) in images.items()}
        return {shot: Start(latent=encode(self.vae, x, None).float(), embeds=x) for shot, x in pixels.items()}

    def encode_film(self, frames: Sequence[Image.Image], seed: int) -> Start:
        """The modes of all latents, and the pixels of the last frame."""
        self.vae.to(self.device)
        pixels = VideoProcessor().preprocess_video(list(frames))
        return Start(latent=encode(self.vae, pixels, None).float(), embeds=pixels[:, :, -1:])

    def begin(self, given: Given) -> SectionInputs:
        kept, parts, past = given.noise[:, :, :0], list[FramePart](), before(given)
        if past is not None:
            kept = past[:, :, -given.options["carry"] :]
            parts = ["history"] * kept.shape[2]
        elif given.start is not None:
            kept, parts = given.start.latent, ["reference"]
        kept = kept.to(self.device)
        clean = {"full": kept, "context": kept if past is None else kept[:, :, :0]}
        for effect in {effect for step in given.steps for effect in step.effects if isinstance(effect, LowPass)}:
            clean["low_pass"] = low_pass(kept, effect.factor)
        covered = kept.shape[2] if past is None else 0
        new: list[FramePart] = ["section"] * (given.noise.shape[2] - covered)
        return SectionInputs(
            prompts={"positive": given.prompt, "negative": given.negative},
            clean=clean,
            covered=covered,
            layouts=tuple(layout([*before, *new], given.noise) for before in (parts, [])),
            words=given.words,
        )

    def solver(self, sampler: str, steps: Sequence[Step]) -> Solve:
        sigmas, first = noise_table(steps), steps[0].index
        if sampler == "euler":
            return euler(sigmas, first)
        flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}
        return on_table(UniPCMultistepScheduler(**flow, **self.family.schedule.solver), sigmas, first)

    @torch.no_grad()
    def predict(self, x: Tensor, step: Step, branch: Branch, inputs: SectionInputs) -> Tensor:
        """The arguments are those of the pipelines' calls: 2.2 5B has a timestep a token, 0 for clean frames."""
        clean = inputs.clean[branch.context]
        frames = torch.cat([clean, x[:, :, inputs.covered :]], dim=2)
        timestep = torch.tensor([step.timestep], device=self.device)
        if isinstance(self.family, WanTI2V):
            noisy = torch.ones_like(frames[0, 0, :, ::2, ::2])
            noisy[: clean.shape[2]] = 0
            timestep = (noisy * timestep).flatten().unsqueeze(0)
        if inputs.beside:
            frames = torch.cat([frames, self.seen(inputs.beside[branch.context], step)], dim=1)
        expert = self.expert(step)
        bias = word_bias(step, branch, inputs.words, **self.where)
        with weighted([block.attn2 for block in expert.blocks], bias):
            made: Tensor = expert(
                hidden_states=frames.to(self.dtype),
                timestep=timestep,
                encoder_hidden_states=inputs.prompts[branch.prompt],
                return_dict=False,
            )[0]
        return made[:, :, clean.shape[2] - inputs.covered :].float()

    def seen(self, beside: Tensor, step: Step) -> Tensor:
        """What stands beside the noise in this step."""
        return beside

    def expert(self, step: Step) -> Any:
        """The transformer that takes the step."""
        family = self.family
        low = isinstance(family, WanExperts) and step.timestep < family.boundary * 1000
        return self.transformer_2 if low else self.transformer

    @property
    def attentions(self) -> list[Any]:
        return [block.attn1 for network in self.networks.values() for block in network.blocks]

    def acting(self, effects: tuple[Effect, ...], inputs: SectionInputs) -> AbstractContextManager[None]:
        return edited(self.attentions, EditedProcessor, effects, inputs.layouts, **self.where)

    def finish(self, latents: Tensor, inputs: SectionInputs) -> Tensor:
        """With its clean frames as they were."""
        return torch.cat([inputs.clean["full"], latents[:, :, inputs.covered :]], dim=2) if inputs.covered else latents

    def decoder(self, how: str, start: Tensor | None, sections: int, options: Mapping[str, Any]) -> Decoder:
        return GoingOn(decoder=WanDecoder(self.vae, rest=self.resting), film=start if of_a_film(start) else None)

    def forward_bytes(self, context: Context, latents: int, size: Size) -> int:
        config = self.transformer.config
        width = config.num_attention_heads * config.attention_head_dim
        rows = max(ATTENDING, FORWARD + 2 * config.ffn_dim / width) + TIMESTEPS * isinstance(self.family, WanTI2V)
        return int(self.tokens(context, latents, size) * width * rows * self.dtype.itemsize)

    def pass_flops(self, context: Context, latents: int, size: Size) -> int:
        """Of all blocks by count: 8 D^2 + 2 D F multiplications a token, and attention of all tokens to all."""
        config, tokens = self.transformer.config, self.tokens(context, latents, size)
        width = config.num_attention_heads * config.attention_head_dim
        return int(2 * config.num_layers * width * tokens * (4 * width + 2 * config.ffn_dim + 2 * tokens))

    def tokens(self, context: Context, latents: int, size: Size) -> int:
        """Video tokens of a pass."""
        side = 2 * self.family.spatial
        carried = self.family.carry if isinstance(self.family, WanTI2V) and not context.initial else 0
        return (latents + carried) * (size[1] // side) * (size[0] // side)


def of_a_film(latent: Tensor | None) -> bool:
    """Whether a shot's start is not an image's."""
    return latent is not None and latent.shape[2] > 1


def before(given: Given) -> Tensor | None:
    """The latents that a section goes on from: of the section before it, or of a film."""
    if given.past:
        return given.past[given.context.needs[0]]
    return given.start.latent if given.start and of_a_film(given.start.latent) else None


def layout(parts: Sequence[FramePart], noise: Tensor) -> tuple[Segment, ...]:
    """Of a clip of these frames, of the height and width of `noise` [1, C, T, h, w]."""
    height, width = noise.shape[3] // 2, noise.shape[4] // 2
    return (Segment(parts=tuple(parts), frames=tuple(map(float, range(len(parts)))), height=height, width=width),)
