"""Tiny folders of Wan's and Helios' layouts, written by tests: random weights, strong enough that conditions matter."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    HeliosPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from training.parts import word_tokenizer
from training.world import vocabulary
from transformers import UMT5Config, UMT5EncoderModel

VAE = {"base_dim": 4, "z_dim": 8, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
WIDE = {  # the layout of Wan 2.2's
    **VAE, "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16,
}  # fmt: skip
CHANNELS = VAE["z_dim"]
SHAPE = {  # of a transformer
    "num_attention_heads": 2, "in_channels": CHANNELS, "out_channels": CHANNELS, "text_dim": 16, "freq_dim": 16,
    "ffn_dim": 32, "num_layers": 2,
}  # fmt: skip


def parts(transformer: Any, vae: dict[str, Any]) -> dict[str, Any]:
    """Of a pipeline, all but the scheduler."""
    tokenizer = word_tokenizer(vocabulary(), prefix_tokens=0, suffix="</s>", max_length=512)
    text = UMT5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    made = AutoencoderKLWan(**vae, latents_mean=[0.1] * CHANNELS, latents_std=[1.3] * CHANNELS)
    encoder = UMT5EncoderModel(text)
    return {"tokenizer": tokenizer, "text_encoder": encoder, "vae": strong(made), "transformer": strong(transformer)}


def strong(part: Any) -> Any:
    """With weights twice as large."""
    with torch.no_grad():
        for parameter in part.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
    return part


def wan_folder(folder: Path, *, expand: bool, shift: float = 5.0) -> Path:
    """Of Wan 2.2 TI2V if `expand`, else of Wan 2.1 T2V."""
    torch.manual_seed(7)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000
    )
    transformer = WanTransformer3DModel(**SHAPE, attention_head_dim=16, rope_max_seq_len=64)
    made = parts(transformer, WIDE if expand else VAE)
    WanPipeline(**made, expand_timesteps=expand, scheduler=scheduler).save_pretrained(folder)
    (folder / "framepack_relax.json").write_text(json.dumps({"family": "wan", "size": [64, 32]}))
    return folder


def experts_folder(folder: Path, *, image: bool, boundary: float = 0.9, shift: float = 5.0) -> Path:
    """Of Wan 2.2 A14B: I2V if `image`, else T2V."""
    torch.manual_seed(7)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    shape = {**SHAPE, "in_channels": 2 * CHANNELS + 4} if image else SHAPE
    made = parts(WanTransformer3DModel(**shape, attention_head_dim=16, rope_max_seq_len=64), VAE)
    made["transformer_2"] = strong(WanTransformer3DModel(**shape, attention_head_dim=16, rope_max_seq_len=64))
    kind = WanImageToVideoPipeline if image else WanPipeline
    kind(**made, boundary_ratio=boundary, scheduler=scheduler).save_pretrained(folder)
    (folder / "framepack_relax.json").write_text(json.dumps({"family": "wan", "size": [64, 32]}))
    return folder


def helios_folder(folder: Path, **scheduler: Any) -> Path:
    """As Helios-Base has it; its scheduler shifts dynamically unless told otherwise."""
    torch.manual_seed(7)
    transformer = HeliosTransformer3DModel(**SHAPE, attention_head_dim=12, rope_dim=(4, 4, 4))
    solver = HeliosScheduler(**{"stages": 1, "use_dynamic_shifting": True, **scheduler})
    HeliosPipeline(**parts(transformer, VAE), scheduler=solver).save_pretrained(folder)
    return folder
