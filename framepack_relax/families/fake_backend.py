"""The arithmetic of `fake`: a velocity towards a number of the prompt, the past and the effects that act.

What no past holds swings, so that a film moves the more the more its context is loosened.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..relax.effects import Effect
from ..relax.guidance import Branch
from .backend import Backend, Frames, Given, Need, Placement, Solve, Start
from .base import Context, Size, Step, noise_table
from .fake import Fake
from .fingerprint import fingerprint

SWING = 8.0  # from frame to frame, of what no past holds


def number(text: str) -> float:
    """0..1, another one for every text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32


class FakeDecoder:
    """A latent frame is four frames, the first of a shot that has not `begun` in a film one."""

    def __init__(self, begun: bool) -> None:
        self.begun = begun

    def push(self, latents: Tensor) -> Frames:
        levels = latents[0, :3].sigmoid().mul(255).round().byte().permute(1, 2, 3, 0).numpy()
        frames = levels.repeat(8, axis=1).repeat(8, axis=2).repeat(4, axis=0)
        frames, self.begun = frames[0 if self.begun else 3 :], True
        return np.ascontiguousarray(frames)


@dataclass(kw_only=True)
class FakeBackend(Backend):
    """On the CPU whatever the device."""

    weights: str = fingerprint({})  # it has no files
    latent_channels: int = 4
    acts: tuple[Effect, ...] = ()

    @classmethod
    def open(cls, family: Fake, *, dtype: torch.dtype, stored: str, **where: Any) -> "FakeBackend":
        return cls(family=family, device=torch.device("cpu"), dtype=dtype, stored=stored)

    def place(self) -> None:
        pass

    def need(self, context: Context, latents: int, size: Size, preset: Placement) -> Need:
        return Need(weights=0, forward=0, decode=4 * 4 * latents * size[0] * size[1])

    def encode_prompts(self, prompts: Iterable[str]) -> Mapping[str, float]:
        return {prompt: number(prompt) for prompt in prompts}

    def blended(self, one: float, other: float, weight: float) -> float:
        return one if one == other else (1 - weight) * one + weight * other

    def text_vector(self, text: float) -> Tensor:
        return torch.tensor([text, 1 - text])

    def encode_starts(self, images: Mapping[Any, tuple[Image.Image, int]]) -> Mapping[Any, Start]:
        means = {
            shot: float(np.asarray(image).mean()) / 255 + number(str(seed)) for shot, (image, seed) in images.items()
        }
        return {shot: Start(latent=torch.full((1, 4, 1, 1, 1), mean), embeds=mean) for shot, mean in means.items()}

    def encode_film(self, frames: Sequence[Image.Image], seed: int) -> Start:
        last = self.encode_starts({0: (frames[-1], seed)})[0]
        return replace(last, latent=last.latent.expand(-1, -1, 2, -1, -1))

    def begin(self, given: Given) -> dict[str, Any]:
        first = given.start.embeds if given.start else 0.0
        seen = [latents[:, :, -1].mean().item() for latents in given.past.values()]
        contexts = {"full": sum(seen, first), "context": first}
        return {"positive": given.prompt, "negative": given.negative, **contexts, "anchors": given.anchors}

    def solver(self, sampler: str, steps: Sequence[Step]) -> Solve:
        sigmas = [*noise_table(steps), 0.0]
        return lambda index, velocity, x: x + (sigmas[index + 1] - sigmas[index]) * velocity

    def predict(self, x: Tensor, step: Step, branch: Branch, inputs: dict[str, Any]) -> Tensor:
        seen = inputs.get(branch.context, inputs["full"])  # it has nothing to low-pass
        push = inputs[branch.prompt] + seen + sum(number(repr(effect)) for effect in self.acts)
        swing = torch.tensor([SWING, -SWING] * x.shape[2])[: x.shape[2]].view(-1, 1, 1)
        return x - (push + swing * (branch.context == "context")) * step.timestep / 1000

    @contextmanager
    def acting(self, effects: tuple[Effect, ...], inputs: dict[str, Any]) -> Iterator[None]:
        self.acts = effects
        try:
            yield
        finally:
            self.acts = ()

    def finish(self, latents: Tensor, inputs: dict[str, Any]) -> Tensor:
        """It comes to an anchor at once."""
        for number, anchor in inputs["anchors"].items():
            latents[:, :, number] = anchor.embeds
        return latents

    def decoder(self, how: str, start: Tensor | None, sections: int, options: Mapping[str, Any]) -> FakeDecoder:
        return FakeDecoder(start is not None and start.shape[2] > 1)
