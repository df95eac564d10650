"""What the JSON files of Wan's own parts may say."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ..configs import Config, Layers, Small, Width

MASK = 4  # channels that say which frames of a condition are seen: one for each frame of a latent one


class WanTransformer(Config):
    """Of noise alone; with an `image_dim`, as 2.1's image models have it, a CLIP is needed, which is not read here."""

    patch_size: tuple[Literal[1], Literal[2], Literal[2]] = (1, 2, 2)
    num_attention_heads: Layers = 40
    attention_head_dim: Width = 128
    in_channels: Width = 16
    out_channels: Width | None = 16
    text_dim: Width = 4096
    freq_dim: Width = 256
    ffn_dim: Width = 13_824
    num_layers: Layers = 40
    cross_attn_norm: bool = True
    qk_norm: Literal["rms_norm_across_heads"] | None = "rms_norm_across_heads"
    eps: Small = 1e-6
    image_dim: None = None
    added_kv_proj_dim: None = None
    rope_max_seq_len: Annotated[int, Field(ge=64, le=1 << 16)] = 1024
    pos_embed_seq_len: None = None

    @property
    def latents(self) -> int:
        """Channels of what it gives."""
        return self.out_channels or self.in_channels

    def mistakes(self) -> Iterator[str]:
        if self.in_channels != self.latents:
            yield "in_channels and out_channels differ, so an image enters by channels; only Wan 2.2's is known here"
        if self.attention_head_dim % 2:
            yield "attention_head_dim must be even"


class WanI2VTransformer(WanTransformer):
    """Of noise, and of a mask and latents of what is seen, beside it in channels."""

    in_channels: Width = 36

    def mistakes(self) -> Iterator[str]:
        if self.in_channels != 2 * self.latents + MASK:
            yield f"in_channels must be twice out_channels and {MASK} more"
        if self.attention_head_dim % 2:
            yield "attention_head_dim must be even"


class Inputs(Config):
    """How many channels a transformer takes and gives, of whichever kind it is."""

    in_channels: Width = 16
    out_channels: Width | None = 16


class PipelineIndex(Config):
    """What model_index.json says besides the parts."""

    file = "model_index.json"
    expand_timesteps: bool = False
    boundary_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
