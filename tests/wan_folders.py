"""Tiny folders of Wan's layouts, written by tests: random weights, strong enough that conditions matter."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from training.parts import word_tokenizer
from training.world import vocabulary
from transformers import UMT5Config, UMT5EncoderModel

VAE = {"base_dim": 4, "z_dim": 8, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
WIDE = {  # the layout of Wan 2.2's
    **VAE, "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16,
}  # fmt: skip


def wan_folder(
    folder: Path, *, expand: bool, seed: int = 7, shift: float = 5.0, size: tuple[int, int] = (64, 32)
) -> Path:
    """Of Wan 2.2 TI2V if `expand`, else of Wan 2.1 T2V."""
    torch.manual_seed(7)
    tokenizer = word_tokenizer(vocabulary(), prefix_tokens=0, suffix="</s>", max_length=512)
    channels = VAE["z_dim"]
    text = UMT5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=channels, out_channels=channels, text_dim=16,
        freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=64,
    )  # fmt: skip
    statistics = {"latents_mean": [0.1] * channels, "latents_std": [1.3] * channels}
    vae = AutoencoderKLWan(**(WIDE if expand else VAE), **statistics)
    with torch.no_grad():
        for part in (transformer, vae):
            for parameter in part.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(2.0)
    WanPipeline(
        tokenizer=tokenizer, text_encoder=UMT5EncoderModel(text), vae=vae, transformer=transformer,
        expand_timesteps=expand,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000
        ),
    ).save_pretrained(folder)  # fmt: skip
    (folder / "framepack_relax.json").write_text(json.dumps({"family": "wan", "size": [64, 32]}))
    return folder
