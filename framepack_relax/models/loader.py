"""Loads a model's parts with the classes that the stock pipeline uses; safetensors only."""

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
from .catalog import Source, find, model_facts
from .video_model import VideoModel

MODULES = {
    "transformer": HunyuanVideoFramepackTransformer3DModel,
    "vae": AutoencoderKLHunyuanVideo,
    "text_encoder": LlamaModel,
    "text_encoder_2": CLIPTextModel,
    "image_encoder": SiglipVisionModel,
}


def load(name: str, *, device: str | None = None, dtype: str | None = None) -> VideoModel:
    """A model by catalogue name, folder or hub id.

    `device` is cuda where there is one, else cpu; `dtype` bfloat16 on CUDA, else float32. Raises ModelError.
    """
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    facts, source = model_facts(name), find(name)
    transformer, vae = (load_part(source, part, kind) for part in ("transformer", "vae"))
    return VideoModel(
        facts=facts,
        source=source,
        transformer=transformer.to(where).eval(),
        vae=vae.to(where).eval(),
        device=where,
        dtype=kind,
    )


def load_part(source: Source, part: str, dtype: torch.dtype) -> Any:
    """One component; whatever the libraries say against it becomes a ModelError that names the folder."""
    folder = source.parts[part]
    try:
        if part == "feature_extractor":
            return SiglipImageProcessor.from_pretrained(folder)
        if part.startswith("tokenizer"):
            return _tokenizer(folder)
        return MODULES[part].from_pretrained(folder, use_safetensors=True, local_files_only=True, dtype=dtype)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines() or [repr(error)]
        raise ModelError(f"{folder}: the {part} cannot be loaded: {reason[0]}; download it again") from error


def _tokenizer(folder: Any) -> Any:
    """By its own file where there is one: the fast tokenizer needs no network and no extra package."""
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def pick_device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"--device {name}: no such device; use cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"--device {name}: PyTorch sees no CUDA device here; use --device cpu")
    return device


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in names:
        raise ModelError(f"--dtype {name}: unknown; use {', '.join(names)}")
    return names[name]
