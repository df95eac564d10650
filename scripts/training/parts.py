"""The untrained parts of a puppet: the classes of the real FramePack folder in sizes that two CPU cores carry."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import DEFAULT_PROMPT_TEMPLATE
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from training.world import vocabulary

# "</s>" must not be number 2: CLIP then takes the largest token id for the end of the text
SPECIAL = ("<pad>", "<s>", "<unk>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Everything that fixes the shapes of a puppet."""

    image_px: int = 96
    latent_channels: int = 32
    vae_channels: tuple[int, ...] = (16, 32, 64, 96)
    vae_groups: int = 8
    heads: int = 4
    head_dim: int = 64
    rope_axes: tuple[int, int, int] = (16, 24, 24)
    dual_blocks: int = 2
    single_blocks: int = 4
    text_dim: int = 128
    pooled_dim: int = 128
    vision_dim: int = 64
    vision_patch_px: int = 32

    @staticmethod
    def tiny() -> "Sizes":
        """For tests: every class, hardly any weights."""
        return Sizes(
            image_px=32, latent_channels=4, vae_channels=(8, 8, 8, 8), vae_groups=4, heads=2, head_dim=16,
            rope_axes=(4, 6, 6), dual_blocks=1, single_blocks=1, text_dim=16, pooled_dim=8, vision_dim=16,
            vision_patch_px=16,
        )  # fmt: skip


def word_tokenizer(words: list[str], *, prefix_tokens: int, suffix: str, max_length: int) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that drops case and punctuation and puts `<s>` tokens in front."""
    vocabulary_ids = {word: index for index, word in enumerate([*SPECIAL, *words])}
    core = Tokenizer(models.WordLevel(vocabulary_ids, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(Regex(r"[.,;:!?\"'()]"), " ")])
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = " ".join(["<s>"] * prefix_tokens + ["$A"] + ([suffix] if suffix else []))
    ids = [(token, vocabulary_ids[token]) for token in ("<s>", "</s>")]
    core.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        additional_special_tokens=list(SPECIAL[4:]), model_max_length=max_length, padding_side="right",
    )  # fmt: skip


def llama_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """With it the pipeline's default template has exactly the 95 prefix tokens that the pipeline crops."""
    template, crop = DEFAULT_PROMPT_TEMPLATE["template"], DEFAULT_PROMPT_TEMPLATE["crop_start"]
    bare = word_tokenizer(words, prefix_tokens=0, suffix="", max_length=512)
    before = len(bare(template.split("{}")[0]).input_ids)
    return word_tokenizer(words, prefix_tokens=crop - before, suffix="", max_length=512)


def build_pipeline(sizes: Sizes, seed: int = 0) -> HunyuanVideoFramepackPipeline:
    """A whole pipeline with random weights drawn from `seed`."""
    torch.manual_seed(seed)
    words = vocabulary()
    tokenizer = llama_tokenizer(words)
    tokenizer_2 = word_tokenizer(words, prefix_tokens=1, suffix="</s>", max_length=77)
    pad, bos, eos = (SPECIAL.index(token) for token in ("<pad>", "<s>", "</s>"))
    ids = {"vocab_size": len(tokenizer), "pad_token_id": pad, "bos_token_id": bos, "eos_token_id": eos}
    wide = 2 * sizes.text_dim
    llama = LlamaModel(
        LlamaConfig(
            hidden_size=sizes.text_dim, intermediate_size=wide, num_hidden_layers=4, num_attention_heads=2,
            max_position_embeddings=512, **ids,
        )
    )  # fmt: skip
    clip = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=sizes.pooled_dim, intermediate_size=2 * sizes.pooled_dim, projection_dim=sizes.pooled_dim,
            num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77, **ids,
        )
    )  # fmt: skip
    vision = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=sizes.vision_dim, intermediate_size=2 * sizes.vision_dim, num_hidden_layers=2,
            num_attention_heads=2, image_size=sizes.image_px, patch_size=sizes.vision_patch_px,
        )
    )  # fmt: skip
    return HunyuanVideoFramepackPipeline(
        text_encoder=llama,
        tokenizer=tokenizer,
        text_encoder_2=clip,
        tokenizer_2=tokenizer_2,
        image_encoder=vision,
        feature_extractor=SiglipImageProcessor(size={"height": sizes.image_px, "width": sizes.image_px}),
        vae=build_vae(sizes),
        transformer=build_transformer(sizes),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=1.1, max_shift=1.1),
    )


def build_vae(sizes: Sizes) -> AutoencoderKLHunyuanVideo:
    return AutoencoderKLHunyuanVideo(
        latent_channels=sizes.latent_channels, block_out_channels=sizes.vae_channels, layers_per_block=1,
        norm_num_groups=sizes.vae_groups, mid_block_add_attention=False,
    )  # fmt: skip


def build_transformer(sizes: Sizes) -> HunyuanVideoFramepackTransformer3DModel:
    return HunyuanVideoFramepackTransformer3DModel(
        in_channels=sizes.latent_channels, out_channels=sizes.latent_channels, num_attention_heads=sizes.heads,
        attention_head_dim=sizes.head_dim, num_layers=sizes.dual_blocks, num_single_layers=sizes.single_blocks,
        num_refiner_layers=1, text_embed_dim=sizes.text_dim, pooled_projection_dim=sizes.pooled_dim,
        rope_axes_dim=sizes.rope_axes, guidance_embeds=True, has_image_proj=True, image_proj_dim=sizes.vision_dim,
        has_clean_x_embedder=True,
    )  # fmt: skip


def save_folder(pipeline: HunyuanVideoFramepackPipeline, folder: Path, facts: dict[str, object]) -> None:
    """A diffusers folder that the unmodified pipeline opens: fp16 transformer and VAE, fp32 encoders, and the sidecar.

    `PreTrainedTokenizerFast` and `SiglipImageProcessor` are written by those names: the ones that recent releases
    save by default do not reopen everywhere.
    """
    pipeline.save_pretrained(folder, safe_serialization=True)
    for part in (pipeline.transformer, pipeline.vae):
        name = "transformer" if part is pipeline.transformer else "vae"
        type(part).from_pretrained(folder / name, dtype=torch.float16).save_pretrained(folder / name)
        config_file = folder / name / "config.json"
        config = json.loads(config_file.read_text(encoding="utf8"))
        del config["_name_or_path"]  # where it lay on this machine
        config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf8")
    index_file = folder / "model_index.json"
    index = json.loads(index_file.read_text(encoding="utf8"))
    index["tokenizer"] = index["tokenizer_2"] = ["transformers", "PreTrainedTokenizerFast"]
    index["feature_extractor"] = ["transformers", "SiglipImageProcessor"]
    index_file.write_text(json.dumps(index, indent=2) + "\n", encoding="utf8")
    text = json.dumps(facts, indent=2) + "\n"
    (folder / "framepack_relax.json").write_text(text, encoding="utf8")
