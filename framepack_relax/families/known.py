"""What the configs of the catalogue's models say besides the defaults of configs.py, by model and part; no torch.

For what is told of a model that is not on this machine. As published; their weights are counted in a test.
"""

from collections.abc import Mapping
from typing import Any

UMT5 = {"vocab_size": 256_384, "d_model": 4096, "d_kv": 64, "d_ff": 10_240, "num_layers": 24, "num_heads": 64}
HUNYUAN: Mapping[str, Mapping[str, Any]] = {
    "text_encoder": {"vocab_size": 128_320, "intermediate_size": 14_336, "num_key_value_heads": 8},
    "text_encoder_2": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}
FRAMEPACK: Mapping[str, Mapping[str, Any]] = {
    **HUNYUAN,
    "transformer": {"has_image_proj": True, "has_clean_x_embedder": True},
    "image_encoder": {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
        "image_size": 384, "patch_size": 14,
    },
}  # fmt: skip
EXPERT = {"in_channels": 36, "out_channels": 16}
A14B: Mapping[str, Mapping[str, Any]] = {"text_encoder": UMT5, "transformer": EXPERT, "transformer_2": EXPERT}
KNOWN: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "framepack-f1": FRAMEPACK,
    "framepack": FRAMEPACK,
    "hunyuanvideo": HUNYUAN,
    "wan2.2-5b": {
        "text_encoder": UMT5,
        "transformer": {
            "num_attention_heads": 24, "in_channels": 48, "out_channels": 48, "ffn_dim": 14_336, "num_layers": 30,
        },
        "vae": {
            "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12,
            "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16, "latents_mean": (0.0,) * 48,
            "latents_std": (1.0,) * 48,
        },
    },
    "wan2.2-a14b": A14B,
    "wan2.2-svi-pro": A14B,
    "wan2.2-svi": A14B,
    "wan2.1-1.3b": {
        "text_encoder": UMT5,
        "transformer": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    },
    "helios": {"text_encoder": UMT5},
}  # fmt: skip
