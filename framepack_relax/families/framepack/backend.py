"""FramePack, loaded: HunyuanVideo with a start image and a packed history.

B batch (1), C latent channels, T latent frames, h and w latent height and width
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from diffusers import HunyuanVideoFramepackPipeline, UniPCMultistepScheduler
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch import Tensor

from ...relax.effects import LowPass
from ...relax.latents import low_pass, match_statistics
from ...relax.unlearning import FramePart, Segment
from ...storyboard.fields import Order
from ..backend import Decoder, Given, GoingOn, Solve, Start
from ..base import Context, Size, Step, noise_table
from ..hunyuan_video.backend import HunyuanVideoBackend, SectionInputs, euler, on_table
from .blend import BlendDecoder
from .history import SECTION_LATENTS, HistorySlots


def gather_history(slots: HistorySlots, latents: Mapping[int, Tensor], start: Tensor) -> dict[str, Tensor]:
    """The packed past by the transformer's names; `latents_clean` [1, C, 2, h, w] is start image and 1x slot.

    Fills the slots from a shot's latent frames (position -> [1, C, 1, h, w]); what is not there is zeros, as is what
    lies before a short film.
    """

    def fill(positions: Sequence[int | None]) -> Tensor:
        gone = torch.zeros_like(start)
        return torch.cat([gone if p is None or (p < 0 and p not in latents) else latents[p] for p in positions], dim=2)

    return {
        "latents_clean": torch.cat([start, fill(slots.near)], dim=2),
        "latents_history_2x": fill(slots.mid),
        "latents_history_4x": fill(slots.far),
        "indices_latents": torch.tensor(slots.section_index),
        "indices_latents_clean": torch.tensor([0, *slots.near_index]),
        "indices_latents_history_2x": torch.tensor(slots.mid_index),
        "indices_latents_history_4x": torch.tensor(slots.far_index),
    }


def begun_with(latents: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """The frame that stays in sight, of latents [1, C, T, h, w] of a shot's start, and those of its past by position.

    Those are all others, the last at position 0, or of an image it itself.
    """
    first, *past = latents.split(1, dim=2)
    return first, {k + 1 - len(past): frame for k, frame in enumerate(past)} or {0: first}


def initial_history(slots: HistorySlots, start: Tensor, order: Order) -> dict[str, Tensor]:
    """h0, the history that a shot's first section has: zeros, and in forward order the start image in the 1x slot."""
    near = (0 if order == "forward" else None,)
    empty = replace(slots, near=near, mid=(None,) * len(slots.mid), far=(None,) * len(slots.far))
    return gather_history(empty, {0: start}, start)


def packed_segments(slots: HistorySlots, latent_height: int, latent_width: int) -> tuple[Segment, ...]:
    """Segments of a section of latent_height x latent_width latent pixels, in token order."""
    clean = (0, *slots.near_index)
    return packed(slots.far_index, slots.mid_index, clean, slots.section_index, (latent_height, latent_width))


def packed(
    far: Sequence[int], mid: Sequence[int], clean: Sequence[int], section: Sequence[int], size: tuple[int, int]
) -> tuple[Segment, ...]:
    """Segments [4x | 2x | 1x | section] by their RoPE indices, of latents of a size (height, width).

    As HunyuanVideoFramepackTransformer3DModel._pack_history_states (diffusers 0.42.1) lays them out: patch convolutions
    (1, 2, 2), (2, 4, 4) and (4, 8, 8) on latents padded up to whole kernels. Of the clean frames that of index 0 is the
    start image.
    """

    def segment(part: FramePart, index: Sequence[int], kernel: int = 1, first: FramePart | None = None) -> Segment:
        """The kernel joins so many frames, and twice as many latent pixels each way."""
        runs = [index[k : k + kernel] for k in range(0, len(index), kernel)]
        height, width = (-(-side // (2 * kernel)) for side in size)
        parts = (first or part, *[part] * (len(runs) - 1))
        return Segment(parts=parts, frames=tuple(sum(run) / len(run) for run in runs), height=height, width=width)

    shown: FramePart = "history" if clean[0] else "reference"
    past = segment("history", far, 4), segment("history", mid, 2), segment("history", clean, first=shown)
    return *past, segment("section", section)


@dataclass(kw_only=True)
class FramePackBackend(HunyuanVideoBackend):
    """An image and the past to the next section, as HunyuanVideoFramepackPipeline (diffusers 0.42.1)."""

    pipeline: ClassVar[Any] = HunyuanVideoFramepackPipeline

    def encode_starts(self, images: Mapping[Any, tuple[Image.Image, int]]) -> Mapping[Any, Start]:
        made: dict[int, Start] = {}
        if not images:
            return made
        with self.encoders("image_encoder", "feature_extractor") as pipe:
            self.vae.to(self.device)
            self.vae.use_tiling = False  # a single frame; the start latent must not depend on the preset
            for shot, (image, seed) in images.items():
                pixels = pipe.video_processor.preprocess(image, image.height, image.width)
                noise = torch.Generator("cpu").manual_seed(seed)  # from the CPU whatever the device
                latent = pipe.prepare_image_latents(pixels, dtype=torch.float32, device=self.device, generator=noise)
                seen = pipe.feature_extractor(images=image, return_tensors="pt")  # the picture, not its floats
                seen = seen.to(device=self.device, dtype=pipe.image_encoder.dtype)
                embeds = pipe.image_encoder(**seen).last_hidden_state.to(self.dtype)
                made[shot] = Start(latent=latent, embeds=embeds)
        return made

    def encode_film(self, frames: Sequence[Image.Image], seed: int) -> Start:
        """Latents [1, C, 1 + k, h, w] of 1 + 4k frames: of the first, which stands for the start image, and a past."""
        start = self.encode_starts({0: (frames[0], seed)})[0]
        pixels = VideoProcessor().preprocess_video(list(frames)).to(self.device, self.vae.dtype)
        with torch.no_grad():
            seen = self.vae.encode(pixels).latent_dist.sample(torch.Generator("cpu").manual_seed(seed))
        return replace(start, latent=seen.float() * self.vae.config.scaling_factor)

    def begin(self, given: Given) -> SectionInputs:
        assert isinstance(given.context, HistorySlots) and given.start is not None
        start, frames = begun_with(given.start.latent)
        for place, section in given.past.items():
            frames |= {SECTION_LATENTS * place + 1 + k: frame for k, frame in enumerate(section.split(1, dim=2))}
        full = gather_history(given.context, frames, start)
        for end in given.anchors.values():  # as the pipeline's last_image, seen by the section before it alone
            full["latents_clean"] = torch.cat([start, end.latent.to(start)], dim=2)
        contexts = {"full": full, "context": initial_history(given.context, start, given.options["order"])}
        for effect in {effect for step in given.steps for effect in step.effects if isinstance(effect, LowPass)}:
            contexts["low_pass"] = {**full, "latents_clean": low_pass(full["latents_clean"], effect.factor)}
        return SectionInputs(
            prompts={
                name: {**said, "image_embeds": given.start.embeds}
                for name, said in (("positive", given.prompt), ("negative", given.negative))
            },
            contexts={name: self._arguments(history) for name, history in contexts.items()},
            segments=packed_segments(given.context, given.noise.shape[3], given.noise.shape[4]),
            words=given.words,
            opening=given.past.get(given.context.opening),
            drift=given.options["adain"],
        )

    def _arguments(self, history: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kind: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        return {name: x.to(**kind) if name.startswith("latents") else x for name, x in history.items()}

    def solver(self, sampler: str, steps: Sequence[Step]) -> Solve:
        return make_solver(sampler, noise_table(steps), self.dtype, steps[0].index)

    def finish(self, latents: Tensor, inputs: SectionInputs) -> Tensor:
        """Colours pulled towards those of the section that was rendered first, as `drift` says."""
        return latents if inputs.opening is None else match_statistics(latents, inputs.opening, inputs.drift)

    def decoder(self, how: str, start: Tensor | None, sections: int, options: Mapping[str, Any]) -> Decoder:
        assert start is not None
        if how == "blend":
            return BlendDecoder(self.vae, order=options["order"], start=start, sections=sections)
        if start.shape[2] > 1:
            return GoingOn(decoder=super().decoder(how, None, sections, options), film=start)
        return super().decoder(how, start, sections, options)

    def tokens(self, context: Context, latents: int, size: Size) -> int:
        assert isinstance(context, HistorySlots)
        return sum(segment.tokens for segment in packed_segments(context, size[1] // 8, size[0] // 8))


def make_solver(name: str, sigmas: Sequence[float], dtype: torch.dtype = torch.float32, first: int = 0) -> Solve:
    """A section's solver, (index of sigma, velocity, x) -> x at the next sigma, all [1, C, T, h, w] float32.

    `unipc` is FramePack's, `euler` that of HunyuanVideoFramepackPipeline; both take the shifted table [steps] as it
    is, and begin at index `first`. `dtype` is the transformer's, in which it saw x.
    """
    return euler(sigmas, first) if name == "euler" else on_table(FramePackUniPC.of(len(sigmas), dtype), sigmas, first)


class FramePackUniPC(UniPCMultistepScheduler):
    """diffusers' UniPC with what FramePack does otherwise: to the bit the solver of its programs.

    lambda is -log sigma (alpha is 1), the order stays 3 to the end, the last step gives the last x0, and x0 is taken
    from x as the transformer saw it. Source: what diffusers_helper/k_diffusion of lllyasviel/FramePack computes.
    """

    seen: torch.dtype = torch.float32

    @classmethod
    def of(cls, steps: int, seen: torch.dtype) -> "FramePackUniPC":
        made = cls(
            solver_order=max(1, min(3, steps - 1)), solver_type="bh1", prediction_type="flow_prediction",
            use_flow_sigmas=True, flow_shift=1.0, lower_order_final=False,
        )  # fmt: skip
        made.seen = seen
        return made

    def _sigma_to_alpha_sigma_t(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(sigma), sigma

    def convert_model_output(self, model_output: Tensor, *args: Any, sample: Tensor, **kwargs: Any) -> Tensor:
        return sample.to(self.seen).float() - self.sigmas[self.step_index] * model_output

    def multistep_uni_p_bh_update(self, model_output: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.sigmas[self.step_index + 1] == 0:
            return self.model_outputs[-1]
        return super().multistep_uni_p_bh_update(model_output, *args, **kwargs)
