"""What sampling, video and rendering ask of a loaded model.

C latent channels, T latent frames, h and w latent height and width; N frames, H and W their height and width
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..relax.effects import Effect
from ..relax.guidance import Branch
from .base import Context, Family, Size, Step

# full: everything on the device. tiled: the VAE decodes in tiles, and what it keeps between sections waits in main
# memory. offload: tiled, and the weights of transformer and encoders wait in main memory too.
Preset = Literal["full", "tiled", "offload"]
Solve = Callable[[int, Tensor, Tensor], Tensor]  # index of the step, velocity, x -> x at the next sigma
Frames = NDArray[np.uint8]  # [N, H, W, 3], RGB


class NonFinitePixels(ArithmeticError):
    """A VAE that makes NaN or infinity of latents; as bytes they would be black."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """An encoded prompt; `embeds` are the backend's own."""

    embeds: Any


@dataclass(frozen=True, kw_only=True)
class Start:
    """The encoded image of a shot: a latent [1, C, T, h, w] float32, kept with the sections, and the backend's own."""

    latent: Tensor
    embeds: Any


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a section is made from: `past` are the latents that its context `needs`, by place; `options` the plan's."""

    noise: Tensor
    context: Context
    steps: Sequence[Step]
    past: Mapping[int, Tensor]
    start: Start | None
    prompt: Prompt
    negative: Prompt
    options: Mapping[str, Any]


class Decoder(Protocol):
    """Turns one shot's latents into frames, in film order."""

    def push(self, latents: Tensor) -> Frames:
        """Takes the next section [1, C, T, h, w]; gives the frames that are final with it.

        Raises NonFinitePixels.
        """
        ...


class Backend(Protocol):
    """A loaded model. Threads that share one take its `lock` for as long as they need its weights placed."""

    @property
    def family(self) -> Family: ...

    device: torch.device
    dtype: torch.dtype  # of the transformer
    memory: Preset | Literal["auto"]  # as asked for
    preset: Preset  # where weights lie from the next `place` or encoding on
    notes: tuple[str, ...]  # what a user should know before rendering
    lock: Any

    @property
    def identity(self) -> str:
        """A fingerprint of its files, and of what was changed in memory since they were loaded."""
        ...

    @property
    def weights(self) -> str:
        """A fingerprint of its files alone."""
        ...

    @property
    def precision(self) -> str: ...
    @property
    def hardware(self) -> str: ...
    @classmethod
    def open(cls, family: Any, *, name: str, device: torch.device, dtype: torch.dtype, memory: Any) -> "Backend":
        """Loads a model of its family by name. Raises ModelError."""
        ...

    def load(self) -> "Backend":
        """Itself; see Loading."""
        ...

    def place(self) -> None:
        """Moves what sampling and decoding need to the device, as `preset` has it."""
        ...

    def peak_bytes(self, context: Context, latents: int, size: Size, preset: Preset) -> int:
        """An estimate of what a section of so many latent frames takes of the device, weights and decode included."""
        ...

    def encode_prompts(self, prompts: Iterable[str]) -> Mapping[str, Prompt]:
        """Each distinct prompt, encoded as the stock pipeline does."""
        ...

    def unread(self, prompts: Iterable[str]) -> dict[str, list[str]]:
        """What of each prompt is not read, where anything is not; without encoding it."""
        ...

    def encode_starts(self, images: Mapping[int, tuple[Image.Image, int]]) -> Mapping[int, Start]:
        """Images by shot, of the film's size, each with the seed that draws its latent."""
        ...

    def noise(self, latents: int, size: Size, seed: int, *, draw: int = 0) -> Tensor:
        """[1, C, T, h, w] float32 from a CPU generator; `draw` counts the draws from 0."""
        ...

    def begin(self, given: Given) -> Any:
        """What `predict` needs of a section besides x, opaque."""
        ...

    def solver(self, sampler: str, steps: Sequence[Step]) -> Solve: ...
    def predict(self, x: Tensor, step: Step, branch: Branch, inputs: Any) -> Tensor:
        """One forward pass: x [1, C, T, h, w] float32 -> its velocity, float32."""
        ...

    def acting(self, effects: tuple[Effect, ...], inputs: Any) -> AbstractContextManager[None]:
        """Within it `predict` has these effects; after it all is as before, bit for bit."""
        ...

    def finish(self, latents: Tensor, inputs: Any) -> Tensor:
        """What the section is left as, of what the last step gave."""
        ...

    def decoder(self, how: str, start: Tensor | None, sections: int, options: Mapping[str, Any]) -> Decoder:
        """For a shot of so many sections; `how` and `options` are the plan's, `start` is the latent of its image."""
        ...
