"""Wan's self-attention with an edit.

B batch, L video tokens, N heads, H head dim
"""

import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from torch import Tensor

from ..attention import Editing


class EditedProcessor(Editing, WanAttnProcessor):
    """WanAttnProcessor and SkyReelsV2AttnProcessor (diffusers 0.42.1) of video tokens alone, with an edit."""

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        text: None,
        mask: Tensor | None,
        rotary_emb: tuple[Tensor, Tensor],
    ) -> Tensor:
        query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (attn.norm_q(query), attn.norm_k(key), value))
        key = self.blurred("k", key, "pre_rope")
        query, key = rotated(query, *rotary_emb), rotated(key, *rotary_emb)
        key, value = self.blurred("k", key, "post_rope"), self.blurred("v", value, self.edit.space)
        made: Tensor = attn.to_out[0](self.attend(query, key, value, mask).flatten(2, 3).type_as(query))
        return attn.to_out[1](made)


def rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """RoPE on pairs of neighbours of [B, L, N, H], as the stock processor does it."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cosines[..., 0::2], sines[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).type_as(x)
