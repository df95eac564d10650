"""Parts of a model: loaded by the class that the stock pipeline uses, safetensors only; and where their weights lie."""

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel
from diffusers.hooks import apply_group_offloading
from torch import nn
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

# full: everything on the device. tiled: the VAE decodes in tiles, and what it keeps between sections waits in main
# memory. offload: tiled, and the weights of transformer and encoders wait in main memory too.
Preset = Literal["full", "tiled", "offload"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

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


def put(module: nn.Module, device: torch.device) -> None:
    """Moves a module to the device as a whole, unless its weights already come there by themselves."""
    if not _streamed(module):
        module.to(device)


def stream_weights(module: nn.Module, device: torch.device) -> None:
    """From now on each layer's weights come to the device for its turn, the next while it works, and go again.

    The results are the same bits. There is no way back. diffusers' group offloading at leaf level.
    """
    if not _streamed(module):
        apply_group_offloading(
            module,
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=device.type == "cuda",
        )


def _streamed(module: nn.Module) -> bool:
    return any(hasattr(part, "_diffusers_hook") for part in module.modules())
