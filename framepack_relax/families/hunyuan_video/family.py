"""HunyuanVideo without torch: text to one clip of 4k + 1 frames, without a past."""

from dataclasses import dataclass, replace
from typing import ClassVar

from ...relax.effects import ANYWHERE
from ..base import TEXT, Family, GuidanceTerm, Image, Size, TimeGrid
from ..configs import ClipFields, Config, HunyuanVideoTransformer, HunyuanVideoVae, LlamaFields, PartKinds
from ..flow import FlowShift, Levels, sigma_table

LONGEST = 129  # frames of a clip
SEVEN = FlowShift(shift=7.0)
UNIT = 4  # frames a latent frame gives, but the first
ORIGINAL = {  # Tencent's names of layers
    ("double_blocks.#.", "transformer_blocks.#."): {
        "img_attn_qkv": "attn.to_q attn.to_k attn.to_v",
        "img_attn_proj": "attn.to_out.0",
        "img_mod.linear": "norm1.linear",
        "img_mlp.fc1": "ff.net.0.proj",
        "img_mlp.fc2": "ff.net.2",
        "txt_attn_qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
        "txt_attn_proj": "attn.to_add_out",
        "txt_mod.linear": "norm1_context.linear",
        "txt_mlp.fc1": "ff_context.net.0.proj",
        "txt_mlp.fc2": "ff_context.net.2",
    },
    ("single_blocks.#.", "single_transformer_blocks.#."): {
        "linear1": "attn.to_q attn.to_k attn.to_v proj_mlp",
        "linear2": "proj_out",
        "modulation.linear": "norm.linear",
    },
    ("txt_in.individual_token_refiner.blocks.#.", "context_embedder.token_refiner.refiner_blocks.#."): {
        "self_attn_qkv": "attn.to_q attn.to_k attn.to_v",
        "self_attn_proj": "attn.to_out.0",
        "mlp.fc1": "ff.net.0.proj",
        "mlp.fc2": "ff.net.2",
        "adaLN_modulation.1": "norm_out.linear",
    },
    ("time_in.mlp.", "time_text_embed.timestep_embedder."): {"0": "linear_1", "2": "linear_2"},
    ("guidance_in.mlp.", "time_text_embed.guidance_embedder."): {"0": "linear_1", "2": "linear_2"},
    ("vector_in.", "time_text_embed.text_embedder."): {"in_layer": "linear_1", "out_layer": "linear_2"},
    ("txt_in.t_embedder.mlp.", "context_embedder.time_text_embed.timestep_embedder."): {
        "0": "linear_1",
        "2": "linear_2",
    },
    ("txt_in.c_embedder.", "context_embedder.time_text_embed.text_embedder."): {
        "linear_1": "linear_1",
        "linear_2": "linear_2",
    },
    ("", ""): {
        "img_in.proj": "x_embedder.proj",
        "txt_in.input_embedder": "context_embedder.proj_in",
        "final_layer.linear": "proj_out",
    },
}


@dataclass(frozen=True, kw_only=True)
class HunyuanVideo(Family):
    """Tencent's text-to-video model, on which the paper was tried: 13B, guidance distilled at scale 6."""

    size: Size | None = (1280, 720)
    fps: float = 24
    embedded: float = 6.0  # base of the embedded guidance scale
    embedded_guidance: bool = True  # the embedded scale is trained (distilled), so relaxing it means something
    shift: FlowShift = SEVEN

    kind = "hunyuanvideo"
    masks = True  # its text
    grid = TimeGrid(unit_frames=UNIT, unit_latents=1, most_units=LONGEST // UNIT, past=False)
    effects = frozenset(ANYWHERE)
    image: ClassVar[Image] = "refused"
    renderer = "hunyuan_video.backend:HunyuanVideoBackend"
    original = ORIGINAL
    parts: ClassVar[PartKinds] = {
        "transformer": HunyuanVideoTransformer,
        "vae": HunyuanVideoVae,
        "text_encoder": LlamaFields,
        "tokenizer": Config,
        "text_encoder_2": ClipFields,
        "tokenizer_2": Config,
    }

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        return (
            GuidanceTerm(name="embedded", base=self.embedded, floor=1.0, trained=self.embedded_guidance),
            replace(TEXT, base=self.text),
        )

    def levels(self, steps: int, size: Size, sampler: str) -> Levels:
        return sigma_table(steps, self.shift, self.shift.shift, sampler=sampler)
