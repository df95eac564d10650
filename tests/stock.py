"""Tiny diffusers pipelines of each kind that can be relaxed, how it is called, and that loop with a falling scale."""

import copy
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import (
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HeliosPipeline,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    SkyReelsV2DiffusionForcingImageToVideoPipeline,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from PIL import Image
from training.parts import Sizes, build_pipeline, build_vae
from wan_folders import SHAPE, VAE, WIDE, parts

STEPS, WIDTH, HEIGHT, S = 3, 64, 32, 5.0
WORDS = 6  # tokens of a prompt
PICTURE = Image.radial_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")
HUNYUAN = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1,
    "num_single_layers": 1, "num_refiner_layers": 1, "text_embed_dim": 16, "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 6, 6),
}  # fmt: skip
EMBEDDED = {"guidance=guidance,": "guidance=torch.full_like(guidance, eq2(self, t, guidance_scale)) * 1000.0,"}


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def eq2(pipe: Any, t: torch.Tensor, scale: float, beta: float = 0.75, p: float = 0.7) -> Any:
    """1 + (S - 1) (1 - beta sigma^p) at a timestep, or of each frame."""
    sigmas = dict(zip(pipe.scheduler.timesteps.tolist(), pipe.scheduler.sigmas.tolist(), strict=False))
    made = [1 + (scale - 1) * (1 - beta * sigmas.get(x, 0.0) ** p) for x in t.flatten().tolist()]
    return made[0] if t.ndim == 0 else torch.tensor(made).view(1, 1, -1, 1, 1)


def falls(argument: str, t: str = "t") -> dict[str, str]:
    return {f"{argument} * (": f"eq2(self, {t}, {argument}) * ("}


@dataclass
class Case:
    """`scales` are the arguments of its call that a target relaxes; `source` what its loop reads with eq. 2 instead."""

    pipe: Any
    given: dict[str, Any]
    scales: dict[str, str]
    source: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pipe.set_progress_bar_config(disable=True)

    def __call__(self, **changed: Any) -> torch.Tensor:
        """Latents."""
        with torch.random.fork_rng():  # where a pipeline draws without its generator
            torch.manual_seed(0)
            given = {"num_inference_steps": STEPS, "output_type": "latent", **self.given, **changed}
            frames = self.pipe(**given, generator=torch.Generator().manual_seed(3)).frames
        return frames[-1] if isinstance(frames, list) else frames

    def only(self, target: str) -> dict[str, Any]:
        """The scales of other targets off."""
        return {argument: 1.0 for name, argument in self.scales.items() if name != target}

    def by_hand(self, target: str) -> torch.Tensor:
        """The pipeline's own `__call__`, in whose source these places alone are changed, with eq. 2 in the scale's."""
        kind = next(kind for kind in type(self.pipe).__mro__ if kind.__module__.startswith("diffusers."))
        text = inspect.cleandoc("\n" + inspect.getsource(kind.__call__))
        for old, new in self.source[target].items():
            assert old in text
            text = text.replace(old, new)
        names = {**vars(sys.modules[kind.__module__]), "eq2": eq2}
        exec(text, names)
        other = copy.copy(self.pipe)
        if hasattr(other, "guider"):
            other.guider = other.guider.new()
        other.__class__ = type("ByHand", (type(other),), {"__call__": names["__call__"]})
        return replace(self, pipe=other)(**self.only(target))


def strong(module: Any) -> Any:
    """Weights so large that conditions matter."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
    return module


def words(prefix: str, seed: int, text: int = 16) -> dict[str, torch.Tensor]:
    return {f"{prefix}prompt_embeds": drawn(1, WORDS, text, seed=seed)}


def hunyuan_words() -> dict[str, Any]:
    def said(prefix: str, seed: int) -> dict[str, Any]:
        pooled, mask = drawn(1, 8, seed=seed), torch.ones(1, WORDS)
        return {**words(prefix, seed), f"{prefix}pooled_prompt_embeds": pooled, f"{prefix}prompt_attention_mask": mask}

    return {**said("", 1), **said("negative_", 2)}


def hunyuan(kind: type, **config: Any) -> Case:
    empty = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    vae = build_vae(Sizes.tiny())
    given = {**hunyuan_words(), "width": WIDTH, "height": HEIGHT, "num_frames": 9, "true_cfg_scale": S}
    if kind is HunyuanVideoImageToVideoPipeline:
        empty["image_processor"], given["image"] = None, PICTURE
    transformer = strong(HunyuanVideoTransformer3DModel(**HUNYUAN, **config))
    pipe = kind(transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0), **empty)
    scales = {"embedded": "guidance_scale", "text": "true_cfg_scale"}
    return Case(pipe, {**given, "guidance_scale": S}, scales, {"embedded": EMBEDDED, "text": falls("true_cfg_scale")})


def framepack() -> Case:
    pipe = build_pipeline(Sizes.tiny(), seed=5)
    strong(pipe.transformer)
    given = {
        **hunyuan_words(), "image": PICTURE, "width": WIDTH, "height": HEIGHT, "num_frames": 66,
        "sampling_type": "vanilla", "guidance_scale": S, "true_cfg_scale": S,
    }  # fmt: skip
    scales = {"embedded": "guidance_scale", "text": "true_cfg_scale"}
    return Case(pipe, given, scales, {"embedded": EMBEDDED, "text": falls("true_cfg_scale")})


def wan(kind: type, *, expand: bool = False, experts: bool = False) -> Case:
    image = kind is WanImageToVideoPipeline
    wide = 2 * SHAPE["in_channels"] + 4 if image and not expand else SHAPE["in_channels"]
    shape = {**SHAPE, "num_layers": 1, "in_channels": wide, "attention_head_dim": 16, "rope_max_seq_len": 64}
    made = parts(WanTransformer3DModel(**shape), WIDE if expand else VAE)
    made["scheduler"] = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, num_train_timesteps=1000
    )
    if image:
        made |= {"image_encoder": None, "image_processor": None}
    if experts:
        made |= {"transformer_2": strong(WanTransformer3DModel(**shape)), "boundary_ratio": 0.9}
    given = {
        **words("", 1), **words("negative_", 2), "width": WIDTH, "height": HEIGHT, "num_frames": 9, "guidance_scale": S
    }  # fmt: skip
    given |= {"image": PICTURE} if image else {}
    given |= {"guidance_scale_2": 3.0} if experts else {}
    return Case(
        kind(**made, expand_timesteps=expand),
        given,
        {"text": "guidance_scale"},
        {"text": falls("current_guidance_scale")},
    )


def helios() -> Case:
    from diffusers import HeliosScheduler, HeliosTransformer3DModel

    made = parts(HeliosTransformer3DModel(**{**SHAPE, "num_layers": 1}, attention_head_dim=12, rope_dim=(4, 4, 4)), VAE)
    pipe = HeliosPipeline(**made, scheduler=HeliosScheduler(stages=1, use_dynamic_shifting=True))
    given = {
        **words("", 1), **words("negative_", 2), "width": WIDTH, "height": HEIGHT, "num_frames": 66, "guidance_scale": S
    }  # fmt: skip
    return Case(pipe, given, {"text": "guidance_scale"}, {"text": falls("guidance_scale")})


def skyreels(kind: type = SkyReelsV2DiffusionForcingPipeline, **given: Any) -> Case:
    transformer = strong(
        SkyReelsV2Transformer3DModel(
            **{**SHAPE, "num_layers": 1}, attention_head_dim=16, rope_max_seq_len=64, inject_sample_info=True
        )
    )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0)
    vae = parts(transformer, VAE)["vae"]
    pipe = kind(tokenizer=None, text_encoder=None, transformer=transformer, vae=vae, scheduler=scheduler)
    given = {
        **words("", 1), **words("negative_", 2), "width": WIDTH, "height": HEIGHT, "num_frames": 17,
        "base_num_frames": 17, "guidance_scale": S, **given,
    }  # fmt: skip
    given |= {"image": PICTURE} if kind is SkyReelsV2DiffusionForcingImageToVideoPipeline else {"prompt": None}
    return Case(pipe, given, {"text": "guidance_scale"}, {"text": falls("guidance_scale", "timestep")})


class Shown(HunyuanVideo15ImageToVideoPipeline):
    """An image that no encoder is needed for."""

    def encode_image(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return drawn(1, 7, 16, seed=6)

    def prepare_cond_latents_and_mask(self, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return drawn(*latents.shape, seed=7), torch.ones_like(latents[:, :1])


def hunyuan15(kind: type, guider: Any = None) -> Case:
    from diffusers import AutoencoderKLHunyuanVideo15

    transformer = strong(
        HunyuanVideo15Transformer3DModel(
            in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1,
            num_refiner_layers=1, text_embed_dim=16, text_embed_2_dim=16, image_embed_dim=16, rope_axes_dim=(4, 6, 6),
            target_size=64,
        )
    )  # fmt: skip
    vae = AutoencoderKLHunyuanVideo15(latent_channels=4, block_out_channels=(4, 4, 4, 4, 4), layers_per_block=1)
    names = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    empty = dict.fromkeys((*names, "image_encoder", "feature_extractor") if kind is Shown else names)
    pipe = kind(
        transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        guider=guider or ClassifierFreeGuidance(guidance_scale=S), **empty,
    )  # fmt: skip
    given: dict[str, Any] = {"num_frames": 9}
    for prefix, seed in (("", 1), ("negative_", 2)):
        mask = torch.ones(1, WORDS, dtype=torch.long)
        mask[:, 4:] = 0
        given |= {**words(prefix, seed), f"{prefix}prompt_embeds_mask": mask}
        given |= {f"{prefix}prompt_embeds_2": drawn(1, 3, 16, seed=seed + 9)}
        given |= {f"{prefix}prompt_embeds_mask_2": torch.ones(1, 3, dtype=torch.long)}
    given |= {"image": PICTURE} if kind is Shown else {"width": WIDTH, "height": HEIGHT}
    state = "self.guider.set_state(step=i, num_inference_steps=num_inference_steps, timestep=t)"
    falling = {state: f"{state}; self.guider.guidance_scale = eq2(self, t, {S})"}
    return Case(pipe, given, {}, {"text": falling})


CASES: dict[str, Callable[[], Case]] = {
    "HunyuanVideo": lambda: hunyuan(HunyuanVideoPipeline),
    "HunyuanVideo image": lambda: hunyuan(HunyuanVideoImageToVideoPipeline, image_condition_type="token_replace"),
    "FramePack F1": framepack,
    "Wan": lambda: wan(WanPipeline),
    "Wan, two experts": lambda: wan(WanPipeline, experts=True),
    "Wan image": lambda: wan(WanImageToVideoPipeline),
    "Wan TI2V": lambda: wan(WanPipeline, expand=True),
    "Wan TI2V image": lambda: wan(WanImageToVideoPipeline, expand=True),
    "Helios": helios,
    "SkyReels-V2": skyreels,
    "SkyReels-V2, asynchronous": lambda: skyreels(ar_step=2, causal_block_size=1),
    "SkyReels-V2, long": lambda: skyreels(num_frames=33, overlap_history=5, addnoise_condition=20),
    "SkyReels-V2 image": lambda: skyreels(SkyReelsV2DiffusionForcingImageToVideoPipeline),
    "HunyuanVideo-1.5": lambda: hunyuan15(HunyuanVideo15Pipeline),
    "HunyuanVideo-1.5 image": lambda: hunyuan15(Shown),
}
