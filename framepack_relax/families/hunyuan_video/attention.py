"""The one place that touches attention: a processor that edits keys, values and weights, put in and taken out again.

B batch, L video tokens, M text tokens, N heads, H head dim
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0
from einops import rearrange
from torch import Tensor

from ...relax.effects import Effect, KeyGain, KVBlur
from ...relax.unlearning import Blur, KeyBias, Segment
from ...storyboard.schema import BlurOf, Space

if TYPE_CHECKING:
    from .ulysses import Tokens

ALIGNED = 8  # elements: xformers takes a bias only if its strides are multiples of this


@dataclass(frozen=True, kw_only=True)
class AttentionEdit:
    """What is done to self-attention in one forward pass."""

    blur: Blur | None = None
    blur_of: BlurOf = "kv"
    space: Space = "post_rope"
    bias: KeyBias | None = None


def attention_edit(effects: Sequence[Effect], segments: Sequence[Segment]) -> AttentionEdit | None:
    """What these effects do to attention over a layout, or None: then the stock processors run."""
    edit = AttentionEdit()
    for effect in effects:
        if isinstance(effect, KVBlur):
            blur = Blur.over(segments, sigma_blur=effect.sigma, scope=effect.scope)
            edit = replace(edit, blur=blur if blur.groups else None, blur_of=effect.of, space=effect.space)
        elif isinstance(effect, KeyGain):
            edit = replace(edit, bias=KeyBias.over(segments, gamma=effect.gain, on=effect.on))
    return edit if edit.blur or edit.bias else None


@contextmanager
def edited_attention(transformer: Any, edit: AttentionEdit | None, tokens: "Tokens | None" = None) -> Iterator[None]:
    """Every double and single block attends with `edit` inside the block; afterwards all processors are the old ones.

    `tokens` are those of the ranks that share the passes: an edit that acts already goes on. The token refiner is left
    alone: it sees text only.
    """
    if edit is None and tokens is None:
        yield
        return
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    before = [block.attn.processor for block in blocks]
    try:
        for block, old in zip(blocks, before, strict=True):
            block.attn.processor = EditedProcessor(edit or getattr(old, "edit", None) or AttentionEdit(), old, tokens)
        yield
    finally:
        for block, old in zip(blocks, before, strict=True):
            block.attn.processor = old


class EditedProcessor(HunyuanVideoAttnProcessor2_0):
    """HunyuanVideoAttnProcessor2_0 (diffusers 0.42.1) with an edit of K and V after QK-norm, and of the weights."""

    def __init__(self, edit: AttentionEdit, replaced: Any, tokens: "Tokens | None" = None) -> None:
        super().__init__()
        self.edit, self.tokens = edit, tokens
        self._attention_backend = replaced._attention_backend
        self._parallel_config = replaced._parallel_config

    # the signature is spelt out because Attention.forward passes on only what it finds there
    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> tuple[Tensor, Tensor]:
        assert encoder_hidden_states is not None and image_rotary_emb is not None
        split = [hidden_states.shape[1], encoder_hidden_states.shape[1]]
        joint = attn.add_q_proj is None  # single blocks project video and text with the same weights
        if joint:
            hidden_states = torch.cat([hidden_states, encoder_hidden_states], dim=1)

        def heads(x: Tensor, *projections: Any) -> list[Tensor]:
            return [rearrange(projection(x), "b l (n h) -> b l n h", n=attn.heads) for projection in projections]

        query, key, value = heads(hidden_states, attn.to_q, attn.to_k, attn.to_v)
        query, key = attn.norm_q(query), attn.norm_k(key)
        if not joint:
            states = encoder_hidden_states
            text_query, text_key, text_value = heads(states, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            query = torch.cat([query, attn.norm_added_q(text_query)], dim=1)
            key = torch.cat([key, attn.norm_added_k(text_key)], dim=1)
            value = torch.cat([value, text_value], dim=1)
        if self.tokens:
            query, key, value = self.tokens.whole(query, key, value)
        out = query  # a rank without heads has nothing to attend with
        if query.numel():
            out = self._edited(query, key, value, image_rotary_emb, attention_mask).to(query.dtype)
        if self.tokens:
            out = self.tokens.own(out)
        video_out, text_out = rearrange(out, "b l n h -> b l (n h)").split(split, dim=1)
        if getattr(attn, "to_out", None) is not None:
            video_out = attn.to_out[1](attn.to_out[0](video_out))
        if getattr(attn, "to_add_out", None) is not None:
            text_out = attn.to_add_out(text_out)
        return video_out, text_out

    def _edited(self, query: Tensor, key: Tensor, value: Tensor, rotary: Any, mask: Tensor | None) -> Tensor:
        """Attention [B, L + M, N, H] over all tokens, with the edit."""
        blur_key, blur_value = (self.edit.blur or _unchanged if x in self.edit.blur_of else _unchanged for x in "kv")
        if self.edit.space == "pre_rope":
            key = blur_key(key)
        video = len(rotary[0])
        query, key = (
            torch.cat([apply_rotary_emb(x[:, :video], rotary, sequence_dim=1), x[:, video:]], dim=1)
            for x in (query, key)
        )
        if self.edit.space == "post_rope":
            key = blur_key(key)
        return self._attend(query, key, blur_value(value), mask)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Joint attention [B, L + M, N, H]; the section's queries attend apart when their weights are biased."""

        def attend(rows: Tensor, bias: Tensor | None) -> Tensor:
            return dispatch_attention_fn(
                rows, key, value, attn_mask=mask if bias is None else bias, dropout_p=0.0, is_causal=False,
                backend=self._attention_backend, parallel_config=self._parallel_config,
            )  # fmt: skip

        if self.edit.bias is None:
            return attend(query, None)
        assert mask is None, "biased attention runs at batch 1, where the text is cropped instead of masked"
        keys = key.shape[1]
        bias = query.new_zeros(1, 1, 1, -(-keys // ALIGNED) * ALIGNED)[..., :keys]
        for first, end in self.edit.bias.keys:
            bias[..., first:end] = self.edit.bias.log_gamma
        first, end = self.edit.bias.queries
        parts = ((query[:, :first], None), (query[:, first:end], bias), (query[:, end:], None))
        return torch.cat([attend(rows, own) for rows, own in parts], dim=1)


def _unchanged(x: Tensor) -> Tensor:
    return x
