"""HunyuanVideo's attention with an edit.

B batch, L video tokens, M text tokens, N heads, H head dim
"""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0
from einops import rearrange
from torch import Tensor

from ...relax.unlearning import KeyBias
from ..attention import AttentionEdit, Editing, processors

if TYPE_CHECKING:
    from .ulysses import Tokens


def edited_attention(
    transformer: Any, edit: AttentionEdit | None, tokens: "Tokens | None" = None, words: KeyBias | None = None
) -> AbstractContextManager[None]:
    """Every double and single block attends with `edit` inside the block; afterwards all processors are the old ones.

    `tokens` are those of the ranks that share the passes, `words` a bias on keys of the text: what acts already goes
    on. The token refiner is left alone: it sees text only.
    """

    def made(old: Any) -> EditedProcessor:
        own = edit or getattr(old, "edit", None) or AttentionEdit()
        return EditedProcessor(own.biased(words), old, tokens or getattr(old, "tokens", None))

    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    return processors([block.attn for block in blocks], made if edit or tokens or words else None)


class EditedProcessor(Editing, HunyuanVideoAttnProcessor2_0):
    """HunyuanVideoAttnProcessor2_0 (diffusers 0.42.1) with an edit."""

    def __init__(self, edit: AttentionEdit, replaced: Any, tokens: "Tokens | None" = None) -> None:
        super().__init__(edit, replaced)
        self.tokens = tokens

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
        video, key = len(rotary[0]), self.blurred("k", key, "pre_rope")
        query, key = (
            torch.cat([apply_rotary_emb(x[:, :video], rotary, sequence_dim=1), x[:, video:]], dim=1)
            for x in (query, key)
        )
        key, value = self.blurred("k", key, "post_rope"), self.blurred("v", value, self.edit.space)
        return self.attend(query, key, value, mask)


class EditedProcessor15(EditedProcessor):
    """HunyuanVideo15AttnProcessor2_0 (diffusers 0.42.1) with an edit; padding neither attends nor is attended to."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> tuple[Tensor, Tensor]:
        assert attention_mask is not None  # of the text [B, M]
        there = torch.nn.functional.pad(attention_mask.bool(), (hidden_states.shape[1], 0), value=True)
        mask = there[:, None, :, None] & there[:, None, None, :]
        return super().__call__(attn, hidden_states, encoder_hidden_states, mask, image_rotary_emb)
