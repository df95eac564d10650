"""Ulysses (arXiv 2309.14509): ranks share a pass, each with its tokens, in attention with its heads of all tokens.

R ranks, l a rank's tokens (video, then text), L all tokens (all video, then all text), N heads, n a rank's, H head dim

diffusers' own context parallelism has no plan for FramePack's transformer, works on no CPU, and edits of keys and
values would see tokens in the ranks' order. Here tokens and heads need not divide by R.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..ranks import heard
from .attention import edited_attention


@contextmanager
def shared_passes(transformer: Any, group: dist.ProcessGroup) -> Iterator[None]:
    """Passes inside the block are shared by `group`, whose ranks give the same arguments and get the same result."""
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    tokens = Tokens(group, transformer.config.num_attention_heads)
    hooks = [
        blocks[0].register_forward_pre_hook(lambda _, given: (*tokens.begin(*given[:2]), *given[2:])),
        blocks[-1].register_forward_hook(lambda _, given, made: (tokens.join(made[0]), *made[1:])),
    ]
    try:
        with edited_attention(transformer, None, tokens):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def shares(count: int, ranks: int) -> list[int]:
    """`count` in as many parts, the first ones larger by one where it does not divide."""
    return [count // ranks + (rank < count % ranks) for rank in range(ranks)]


class Tokens:
    """Which rank has how many tokens and heads, and their exchange."""

    video: list[int]
    text: list[int]

    def __init__(self, group: dist.ProcessGroup, heads: int) -> None:
        self.group, self.rank = group, dist.get_rank(group)
        self.heads = shares(heads, dist.get_world_size(group))

    def begin(self, video: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """This rank's part of the tokens [1, all, D] of both."""
        self.video, self.text = (shares(x.shape[1], len(self.heads)) for x in (video, text))
        return video.split(self.video, 1)[self.rank], text.split(self.text, 1)[self.rank]

    def join(self, video: Tensor) -> Tensor:
        """All video tokens [1, all, D] of each rank's."""
        shapes = [(1, length, video.shape[2]) for length in self.video]
        return torch.cat(self._exchange([video] * len(shapes), shapes), dim=1)

    def whole(self, *mine: Tensor) -> Sequence[Tensor]:
        """This rank's tokens, [1, l, N, H] each -> all tokens of its heads, [1, L, n, H] each."""
        x, heads = torch.stack(mine), self.heads[self.rank]
        lengths = [video + text for video, text in zip(self.video, self.text, strict=True)]
        shapes = [(len(mine), 1, length, heads, x.shape[4]) for length in lengths]
        got = self._exchange(x.split(self.heads, 3), shapes)
        parts = [part.split([video, part.shape[2] - video], 2) for part, video in zip(got, self.video, strict=True)]
        return torch.cat([part for kind in zip(*parts, strict=True) for part in kind], dim=2).unbind()

    def own(self, x: Tensor) -> Tensor:
        """All tokens of this rank's heads [1, L, n, H] -> its tokens [1, l, N, H]."""
        video, text = x.split([sum(self.video), sum(self.text)], 1)
        parts = zip(video.split(self.video, 1), text.split(self.text, 1), strict=True)
        length = self.video[self.rank] + self.text[self.rank]
        shapes = [(1, length, heads, x.shape[3]) for heads in self.heads]
        return torch.cat(self._exchange([torch.cat(part, dim=1) for part in parts], shapes), dim=2)

    def _exchange(self, parts: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Sends a part to each rank, and gets one of a shape from each."""
        sent, sizes = torch.cat([part.flatten() for part in parts]), [prod(shape) for shape in shapes]
        got = sent.new_empty(sum(sizes))
        with heard():
            dist.all_to_all_single(got, sent, sizes, [part.numel() for part in parts], group=self.group)
        return [part.view(shape) for part, shape in zip(got.split(sizes), shapes, strict=True)]
