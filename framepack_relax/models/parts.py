"""Loads one part of a model with the class that the stock pipeline uses; safetensors only."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel
from transformers import (
    AutoTokenizer,
    CLIPTextModel,
    LlamaModel,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipVisionModel,
)

from ..errors import ModelError
from .catalog import Source

MODULES = {
    "transformer": HunyuanVideoFramepackTransformer3DModel,
    "vae": AutoencoderKLHunyuanVideo,
    "text_encoder": LlamaModel,
    "text_encoder_2": CLIPTextModel,
    "image_encoder": SiglipVisionModel,
}


def load_part(source: Source, part: str, dtype: torch.dtype) -> Any:
    """One component; whatever the libraries say against it becomes a ModelError that names the folder."""
    folder = source.parts[part]
    try:
        if part == "feature_extractor":
            return SiglipImageProcessor.from_pretrained(folder)
        if part.startswith("tokenizer"):
            return _tokenizer(folder)
        options = {"use_safetensors": True, "local_files_only": True, "dtype": dtype, "output_loading_info": True}
        module, told = MODULES[part].from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines() or [repr(error)]
        raise ModelError(f"{folder}: the {part} cannot be loaded: {reason[0]}; download it again") from error
    # the libraries only warn of these and fill them with random numbers
    if wrong := sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in told[kind]):
        raise ModelError(
            f"{folder}: {len(wrong)} weights of the {part} are missing or of another shape than its config.json says "
            f"({wrong[0]}); download both again"
        )
    return module


def _tokenizer(folder: Path) -> Any:
    """By its own file where there is one: the fast tokenizer needs no network and no extra package."""
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
