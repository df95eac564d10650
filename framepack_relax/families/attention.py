"""What every family does to attention the same way: an edit of keys, values and weights, put in and taken out again.

B batch, L tokens, N heads, H head dim
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor

from ..relax.effects import Effect, KeyGain, KVBlur, WordGain
from ..relax.guidance import Branch
from ..relax.unlearning import Blur, KeyBias, Segment
from ..storyboard.fields import BlurOf, Space
from .base import Step


@dataclass(frozen=True, kw_only=True)
class AttentionEdit:
    """What is done to self-attention in one forward pass."""

    blur: Blur | None = None
    blur_of: BlurOf = "kv"
    space: Space = "post_rope"
    bias: KeyBias | None = None

    def biased(self, bias: KeyBias | None) -> "AttentionEdit":
        """With one more, for the same queries."""
        return replace(self, bias=self.bias.beside(bias) if self.bias and bias else self.bias or bias)


def attention_edit(effects: Sequence[Effect], segments: Sequence[Segment], **where: Any) -> AttentionEdit | None:
    """What these effects do to attention over a layout, or None: then the stock processors run.

    `where` is the device and the dtype of keys and values.
    """
    edit = AttentionEdit()
    for effect in effects:
        if isinstance(effect, KVBlur):
            blur = Blur.over(segments, sigma_blur=effect.sigma, scope=effect.scope, **where)
            edit = replace(edit, blur=blur if blur.groups else None, blur_of=effect.of, space=effect.space)
        elif isinstance(effect, KeyGain):
            edit = edit.biased(KeyBias.over(segments, gamma=effect.gain, on=effect.on, **where))
    return edit if edit.blur or edit.bias else None


def word_bias(
    step: Step,
    branch: Branch,
    words: Mapping[str, Sequence[int]],
    *,
    first: int = 0,
    queries: tuple[int, int] = (0, 0),
    **where: Any,
) -> KeyBias | None:
    """What the step's gains of words do to the keys of a pass, if it reads the prompt.

    `words` are their tokens among those of the text, of which the `first` stands so far from the keys' beginning;
    `where` is as for `attention_edit`.
    """
    gains = [effect for effect in step.effects if isinstance(effect, WordGain) and branch.prompt == "positive"]
    places = [(first + token, effect.gain) for effect in gains for token in words[effect.words]]
    return KeyBias.of([(place, place + 1, gain) for place, gain in places], queries, **where)


def weighted(attentions: Iterable[Any], bias: KeyBias | None) -> AbstractContextManager[None]:
    """Within it these attend from all their queries to a text whose keys have a bias."""
    return processors(attentions, partial(Weighted, bias) if bias else None)


class Weighted:
    """A processor of cross-attention to a text whose keys have a bias."""

    def __init__(self, bias: KeyBias, replaced: Any) -> None:
        self.bias, self.replaced = bias, replaced

    def __call__(self, attn: Any, hidden_states: Tensor, text: Tensor, mask: None, *others: Any) -> Tensor:
        bias = self.bias.added(text.shape[1], device=hidden_states.device, dtype=hidden_states.dtype)
        made: Tensor = self.replaced(attn, hidden_states, text, bias, *others)
        return made


@contextmanager
def processors(attentions: Iterable[Any], made: Callable[[Any], Any] | None) -> Iterator[None]:
    """Within the block every attention has the processor `made` of its own; after it, its own again."""
    before = [(attention, attention.processor) for attention in attentions if made is not None]
    try:
        for attention, old in before:
            attention.processor = made(old)  # type: ignore[misc]
        yield
    finally:
        for attention, old in before:
            attention.processor = old


class Editing:
    """Of a processor with an edit of K and V after QK-norm, and of the weights; it stands in for `replaced`."""

    def __init__(self, edit: AttentionEdit, replaced: Any) -> None:
        super().__init__()
        self.edit = edit
        self._attention_backend = replaced._attention_backend
        self._parallel_config = replaced._parallel_config

    def blurred(self, of: Literal["k", "v"], x: Tensor, space: Space) -> Tensor:
        """Keys or values [B, L, N, H], blurred if they are to be, and here."""
        edit = self.edit
        return edit.blur(x) if edit.blur and of in edit.blur_of and space == edit.space else x

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attention [B, L, N, H]; the section's queries attend apart when their weights are biased.

        `mask` is True where there is something to attend to; with a bias it is [B, 1, 1, L].
        """

        def attend(rows: Tensor, bias: Tensor | None) -> Tensor:
            return dispatch_attention_fn(
                rows, key, value, attn_mask=mask if bias is None else bias, dropout_p=0.0, is_causal=False,
                backend=self._attention_backend, parallel_config=self._parallel_config,
            )  # fmt: skip

        if self.edit.bias is None:
            return attend(query, None)
        batch = 1 if mask is None else len(mask)
        bias = self.edit.bias.added(key.shape[1], batch, device=query.device, dtype=query.dtype)
        if mask is not None:
            bias.masked_fill_(~mask, -torch.inf)
        first, end = self.edit.bias.queries
        parts = ((query[:, :first], None), (query[:, first:end], bias), (query[:, end:], None))
        return torch.cat([attend(rows, own) for rows, own in parts], dim=1)


class ByLength:
    """A processor that edits each layout of tokens its own way: branches with and without a past differ in length."""

    def __init__(self, kind: type[Editing], edits: Mapping[int, AttentionEdit], replaced: Any) -> None:
        self.made: dict[int, Any] = {tokens: kind(edit, replaced) for tokens, edit in edits.items()}
        self.replaced = replaced

    def __call__(self, attn: Any, hidden_states: Tensor, *others: Any) -> Tensor:
        made: Tensor = self.made.get(hidden_states.shape[1], self.replaced)(attn, hidden_states, *others)
        return made


def edited(
    attentions: Iterable[Any],
    kind: type[Editing],
    effects: Sequence[Effect],
    layouts: Iterable[Sequence[Segment]],
    **where: Any,
) -> AbstractContextManager[None]:
    """Attention with these effects by processors of a `kind`, whichever of the layouts a pass has."""
    edits: dict[int, AttentionEdit] = {}
    for layout in layouts:
        if edit := attention_edit(effects, layout, **where):
            edits[sum(segment.tokens for segment in layout)] = edit
    return processors(attentions, partial(ByLength, kind, edits) if edits else None)
