"""What sampling, video and rendering ask of a loaded model.

C latent channels, T latent frames, h and w latent height and width; N frames, H and W their height and width
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from textwrap import shorten
from threading import RLock
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..relax.effects import Effect
from ..relax.guidance import Branch
from .adapters import Adapter
from .base import Context, Family, Size, Step

# full: everything on the device. tiled: the VAE decodes in tiles, and what it keeps between sections waits in main
# memory. offload: tiled, and the weights of transformer and encoders wait in main memory too, each layer for its turn.
Preset = Literal["full", "tiled", "offload"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
Placement = Preset | int  # a number: tiled, so many blocks of the transformers stay, and each other one has its turn
Solve = Callable[[int, Tensor, Tensor], Tensor]  # index of the step, velocity, x -> x at the next sigma
Frames = NDArray[np.uint8]  # [N, H, W, 3], RGB


class NonFinitePixels(ArithmeticError):
    """A VAE that makes NaN or infinity of latents; as bytes they would be black."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a shot begins with, or comes to: a latent [1, C, T, h, w] float32 of an image, kept with the sections, and
    the backend's own. Of a film's last frames T is greater than of an image."""

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
    prompt: Any  # as the backend encodes it
    negative: Any
    options: Mapping[str, Any]
    words: Mapping[str, Sequence[int]] = field(default_factory=dict)  # the prompt's tokens of words that have a gain
    anchors: Mapping[int, Start] = field(default_factory=dict)  # by the latent frame


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes of the device by estimate: weights that lie there, what a forward pass and what a decode work with."""

    weights: int
    forward: int
    decode: int

    @property
    def total(self) -> int:
        return self.weights + max(self.forward, self.decode)


class Decoder(Protocol):
    """Turns one shot's latents into frames, in film order."""

    def push(self, latents: Tensor) -> Frames:
        """Takes the next section [1, C, T, h, w]; gives the frames that are final with it.

        Raises NonFinitePixels.
        """
        ...


@dataclass(kw_only=True)
class GoingOn:
    """A decoder of what goes on from a film, whose latents [1, C, T, h, w] it decodes first and does not show."""

    decoder: Decoder
    film: Tensor | None

    def push(self, latents: Tensor) -> Frames:
        if self.film is not None:
            self.decoder.push(self.film)
            self.film = None
        return self.decoder.push(latents)


@dataclass(kw_only=True)
class Backend(ABC):
    """A loaded model. Threads that share one take its `lock` for as long as they need its weights placed."""

    family: Family
    device: torch.device
    dtype: torch.dtype  # of the transformer, as it works
    stored: str = ""  # what its weights lie in between, where that is another: fp8
    memory: str = "auto"  # as asked for: auto, a preset, or bytes of the device such as 20GiB
    attention: str | None = None  # the kernels of its transformers, by diffusers' name; None: PyTorch chooses
    compile: bool = False  # their blocks, as far as weights stay on the device
    preset: Placement = "full"  # where weights lie from the next `place` or encoding on
    adapters: tuple[Adapter, ...] = ()  # LoRA that are on from the next `place` on, each at its scale
    notes: tuple[str, ...] = ()  # what a user should know before rendering
    lock: Any = field(default_factory=RLock, repr=False, compare=False)
    ranks: Any = field(default=None, repr=False, compare=False)  # that share its passes (ranks.py), where there are any

    @classmethod
    @abstractmethod
    def open(
        cls, family: Any, *, name: str, device: torch.device, dtype: torch.dtype, stored: str, **asked: Any
    ) -> "Backend":
        """Loads a model of its family by name; `asked` are memory, attention and compile. Raises ModelError."""

    def load(self) -> Self:
        """Itself; see Loading."""
        return self

    @property
    @abstractmethod
    def weights(self) -> str:
        """A fingerprint of its files alone."""

    @property
    def identity(self) -> str:
        """A fingerprint of its files, and of what was changed in memory since they were loaded."""
        return self.weights

    @property
    def precision(self) -> str:
        """What of numbers is part of every key."""
        return self.stored or str(self.dtype)

    @property
    def kind(self) -> str:
        """Of its device: cpu or cuda."""
        return self.device.type

    @property
    def where(self) -> dict[str, Any]:
        """Of what a pass computes."""
        return {"device": self.device, "dtype": self.dtype}

    @property
    def compiled(self) -> bool | None:
        """Whether its blocks are, or will be; None where that is not known before they are placed."""
        return self.compile

    @property
    def hardware(self) -> str:
        return hardware(self.device, self.ranks.size if self.ranks else 1)

    @property
    @abstractmethod
    def latent_channels(self) -> int: ...

    def wear(self) -> None:
        """Puts its `adapters` on, as `place` does, so that they are counted among its weights. Raises ModelError."""
        assert not self.adapters, "planning refuses them for a model without weights"

    @abstractmethod
    def place(self) -> None:
        """Moves what sampling and decoding need to the device, as `preset` has it."""

    @property
    def blocks(self) -> int:
        """How many of its transformers' there are to stay or to be streamed."""
        return 0

    def moving(self, placement: Placement) -> list[nn.Module]:
        """What of them waits in main memory for its turn."""
        return []

    @abstractmethod
    def need(self, context: Context, latents: int, size: Size, preset: Placement) -> Need:
        """What a section of so many latent frames, of (width, height) px, takes of the device."""

    def pass_flops(self, context: Context, latents: int, size: Size) -> int:
        """Operations of one forward pass, by count of the matrix products; 0 where they do not matter."""
        return 0

    @abstractmethod
    def encode_prompts(self, prompts: Iterable[str]) -> Mapping[str, Any]:
        """Each distinct prompt, encoded as the stock pipeline does."""

    @abstractmethod
    def blended(self, one: Any, other: Any, weight: float) -> Any:
        """Two encoded prompts mixed with a `weight` (0..1) of the other's.

        0 is the one and 1 the other, bit for bit, and equal ones stay as they are.
        """

    @abstractmethod
    def text_vector(self, text: Any) -> Tensor:
        """An encoded prompt as one vector [D]: the mean over its tokens, without padding."""

    def word_tokens(self, prompt: str, words: Iterable[str]) -> Mapping[str, Sequence[int]]:
        """By words of a prompt, which of its tokens that are attended to are theirs; none where they are not read."""
        return {each: [0] for each in words}

    def unread(self, prompts: Iterable[str]) -> dict[str, list[str]]:
        """What of each prompt is not read, where anything is not; without encoding it."""
        return {}

    def encode_starts(self, images: Mapping[Any, tuple[Image.Image, int]]) -> Mapping[Any, Start]:
        """Images by any name, of the film's size, each with the seed that draws its latent."""
        assert not images, "the planner refuses images for a family that takes none"
        return {}

    def encode_film(self, frames: Sequence[Image.Image], seed: int) -> Start:
        """The last frames of a film, one of the family's `past_frames`, as what a shot begins with."""
        raise AssertionError("the planner refuses films for a family that cannot go on from one")

    def noise(self, latents: int, size: Size, seed: int, *, draw: int = 0) -> Tensor:
        """Noise [1, C, T, h, w] float32 for size (width, height) px, drawn on the CPU so that devices agree.

        `draw` counts from 0 the draws from a generator with that seed; those before it are made and dropped.
        """
        ratio = self.family.spatial
        shape = (1, self.latent_channels, latents, size[1] // ratio, size[0] // ratio)
        generator = torch.Generator("cpu").manual_seed(seed)
        for _ in range(draw):
            torch.randn(shape, generator=generator)
        return torch.randn(shape, generator=generator)

    @abstractmethod
    def begin(self, given: Given) -> Any:
        """What `predict` needs of a section besides x, opaque."""

    @abstractmethod
    def solver(self, sampler: str, steps: Sequence[Step]) -> Solve: ...

    @abstractmethod
    def predict(self, x: Tensor, step: Step, branch: Branch, inputs: Any) -> Tensor:
        """One forward pass: x [1, C, T, h, w] float32 -> its velocity, float32."""

    def passes(self, x: Tensor, step: Step, inputs: Any) -> Mapping[str, Tensor]:
        """The velocity of each of the step's passes by name."""
        if self.ranks and step.passes:
            return self.ranks.lead(self, x, step, inputs)
        return {branch.name: self.predict(x, step, branch, inputs) for branch in step.passes}

    @abstractmethod
    def acting(self, effects: tuple[Effect, ...], inputs: Any) -> AbstractContextManager[None]:
        """Within it `predict` has these effects; after it all is as before, bit for bit."""

    def sharing(self, group: Any) -> AbstractContextManager[None]:
        """Within it `predict` is shared by a process group, all of whose ranks call it alike; None: by nobody."""
        return nullcontext()

    def finish(self, latents: Tensor, inputs: Any) -> Tensor:
        """What the section is left as, of what the last step gave."""
        return latents

    @abstractmethod
    def decoder(self, how: str, start: Tensor | None, sections: int, options: Mapping[str, Any]) -> Decoder:
        """For a shot of so many sections; `how` and `options` are the plan's, `start` is the latent of its image."""


def hardware(device: torch.device, ranks: int = 1) -> str:
    """What a film is rendered on, in words."""
    name = f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
    return f"{ranks} x {name}" if ranks > 1 else name


def unread_notes(unread: Mapping[str, list[str]]) -> list[str]:
    """What is not read of prompts, a line each."""
    return [f"the model {' and '.join(parts)} in {shorten(prompt, 60)!r}" for prompt, parts in unread.items()]
