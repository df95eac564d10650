"""Temporal unlearning (eq. 3): keys and values smoothed over time, K~_t = sum_j G(j - t; sigma_blur) K_j.

And its comparator, a gain on the weights of the past's keys.

    B batch, L tokens of the packed video sequence, N heads, H head dim, F frames of a segment

A packed FramePack sequence is a run of segments [4x | 2x | 1x | section], each a grid of tokens per frame. Frames of
segments with equal grids mix by their frame index; positions never mix, and neither do grids of different sizes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad

from ..storyboard.fields import GainOn

FramePart = Literal["history", "reference", "section"]
SMALLEST_WEIGHT = 1e-6
ALIGNED = 8  # elements: xformers takes a bias only if its strides are multiples of this


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A run of token frames: `frames` are their RoPE indices (means, where a kernel joins several latent frames)."""

    parts: tuple[FramePart, ...]  # one per frame
    frames: tuple[float, ...]
    height: int  # tokens
    width: int

    @property
    def tokens(self) -> int:
        return len(self.frames) * self.height * self.width


def token_frames(segments: Sequence[Segment]) -> Iterator[tuple[Segment, FramePart, float, int]]:
    """Every frame of a layout in order: its segment, part and index, and its first token."""
    first = 0
    for segment in segments:
        for part, frame in zip(segment.parts, segment.frames, strict=True):
            yield segment, part, frame, first
            first += segment.height * segment.width


def mixing_matrix(frames: Sequence[float], sigma_blur: float) -> Tensor:
    """Row-stochastic Gaussian [F, F] over frame indices, `sigma_blur` in latent frames; 0 is the identity.

    Weights under 1e-6 are cut and each row is renormalised, so that constants survive at the ends too.
    """
    at = torch.tensor(frames, dtype=torch.float64)
    if sigma_blur <= 0:
        return torch.eye(len(at), dtype=torch.float64)
    weights = torch.exp(-0.5 * ((at[:, None] - at[None, :]) / sigma_blur) ** 2)
    weights[weights < SMALLEST_WEIGHT] = 0
    return weights / weights.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Blur:
    """Eq. 3 on a packed sequence; rows outside the scope are handed through bit for bit."""

    # runs of frames: tokens that are read [first, end), those of them that are rewritten, their weights [rows, F]
    groups: tuple[tuple[slice, slice, Tensor], ...]

    @staticmethod
    def over(
        segments: Sequence[Segment],
        *,
        sigma_blur: float,
        scope: str,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> "Blur":
        """The blur of a layout: `scope` says whose rows are rewritten; they may read all frames of their grid beside.

        Weights wait where, and as what, keys and values will be.
        """
        groups = []
        for _, grid in groupby(token_frames(segments), key=lambda frame: (frame[0].height, frame[0].width)):
            found = list(grid)
            first, each = found[0][3], found[0][0].height * found[0][0].width
            weights = mixing_matrix([frame for _, _, frame, _ in found], sigma_blur).to(device, dtype)
            read = slice(first, first + len(found) * each)
            for wanted, run in groupby(range(len(found)), key=lambda n: scope in (found[n][1], "all")):
                if wanted and sigma_blur > 0:
                    rows = list(run)
                    written = slice(first + rows[0] * each, first + (rows[-1] + 1) * each)
                    groups.append((read, written, weights[rows]))
        return Blur(tuple(groups))

    def __call__(self, x: Tensor) -> Tensor:
        """Keys or values [B, L', N, H] whose first L tokens are the packed sequence; the input stays as it is.

        One matrix on a view of whole frames.
        """
        out = x.clone()
        for read, written, weights in self.groups:
            frames = rearrange(x[:, read], "b (f t) n h -> b f (t n h)", f=weights.shape[1])
            out[:, written] = (weights.to(x.device, x.dtype) @ frames).view_as(out[:, written])
        return out


@dataclass(frozen=True, kw_only=True)
class KeyBias:
    """log-gamma on keys for the section's queries, packed tokens [first, end).

    A tensor [K] of the first K keys, the others having none, so that what is compiled holds for every gain and prompt.
    """

    keys: Tensor
    queries: tuple[int, int]

    @staticmethod
    def of(
        runs: Sequence[tuple[int, int, float]],
        queries: tuple[int, int],
        *,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> "KeyBias | None":
        """Of runs of keys [first, end) with their gammas, which multiply where runs overlap; None where none is."""
        if not runs:
            return None
        keys = torch.zeros(max(end for _, end, _ in runs), dtype=dtype)
        for first, end, gamma in runs:
            keys[first:end] += math.log(gamma)
        return KeyBias(keys=keys.to(device), queries=queries)

    @staticmethod
    def over(segments: Sequence[Segment], *, gamma: float, on: GainOn, **where: Any) -> "KeyBias | None":
        """The bias of a layout: gamma multiplies the weights of these keys before they are normalised."""
        biased = ("history", "reference") if on == "all" else (on,)
        spans = [(part, first, first + seg.height * seg.width) for seg, part, _, first in token_frames(segments)]
        section = [(first, end) for part, first, end in spans if part == "section"]
        runs = [(first, end, gamma) for part, first, end in spans if part in biased]
        return KeyBias.of(runs, (section[0][0], section[-1][1]), **where)

    def beside(self, other: "KeyBias") -> "KeyBias":
        """With another one's, for the same queries."""
        most = max(len(self.keys), len(other.keys))
        first, second = (pad(bias.keys, (0, most - len(bias.keys))) for bias in (self, other))
        return replace(self, keys=first + second)

    def added(self, keys: int, batch: int = 1, **where: Any) -> Tensor:
        """To the logits of so many keys, [batch, 1, 1, keys]; its rows are aligned."""
        bias = torch.zeros(batch, 1, 1, -(-keys // ALIGNED) * ALIGNED, **where)[..., :keys]
        bias[..., : len(self.keys)] = self.keys
        return bias
