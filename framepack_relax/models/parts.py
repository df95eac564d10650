"""Parts of a model: loaded by the class that the stock pipeline uses, safetensors only; and where their weights lie."""

from pathlib import Path
from typing import Any, Literal, get_args

import torch
import transformers
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel
from diffusers.hooks import apply_group_offloading
from safetensors import SafetensorError
from torch import nn

from ..errors import ModelError
from .catalog import Source
from .main_memory import check_room, free_memory, pinned_bytes

# full: everything on the device. tiled: the VAE decodes in tiles, and what it keeps between sections waits in main
# memory. offload: tiled, and the weights of transformer and encoders wait in main memory too.
Preset = Literal["full", "tiled", "offload"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

MODULES = {
    "transformer": HunyuanVideoFramepackTransformer3DModel,
    "vae": AutoencoderKLHunyuanVideo,
    "text_encoder": transformers.LlamaModel,
    "text_encoder_2": transformers.CLIPTextModel,
    "image_encoder": transformers.SiglipVisionModel,
}


def load_part(source: Source, part: str, dtype: torch.dtype) -> Any:
    """One component; whatever the libraries say against it becomes a ModelError that names the folder.

    The transformer's last layer is float32 whatever its `dtype`, as FramePack has it.
    """
    folder = source.parts[part]
    try:
        if part == "feature_extractor":  # Pillow's: torchvision's resize overshoots
            return transformers.SiglipImageProcessorPil.from_pretrained(folder, local_files_only=True)
        if part.startswith("tokenizer"):
            return _tokenizer(folder)
        check_room(folder, part, dtype)
        options = {"use_safetensors": True, "local_files_only": True, "dtype": dtype, "output_loading_info": True}
        module, told = MODULES[part].from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ArithmeticError, SafetensorError) as error:
        reason = str(error).strip().splitlines() or [repr(error)]
        raise ModelError(f"{folder}: the {part} cannot be loaded: {reason[0]}; download it again") from error
    # the libraries only warn of these and fill them with random numbers
    if wrong := sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in told[kind]):
        raise ModelError(
            f"{folder}: {len(wrong)} weights of the {part} are missing or of another shape than its config.json says "
            f"({wrong[0]}); download both again"
        )
    if part == "transformer":
        module.proj_out.float().register_forward_pre_hook(lambda layer, given: (given[0].float(),))
    return module


def _tokenizer(folder: Path) -> Any:
    """By its own file where there is one: the fast tokenizer needs no network and no extra package."""
    if (folder / "tokenizer.json").is_file():
        return transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def put(module: nn.Module, device: torch.device, *, streamed: bool = False) -> None:
    """Moves a module to the device as a whole; or, `streamed`, each layer's weights for its turn, the next meanwhile.

    Streaming gives the same bits and stays: there is no way back. It is diffusers' group offloading at leaf level.
    """
    if any(hasattr(part, "_diffusers_hook") for part in module.modules()):
        return  # its weights already come by themselves
    if streamed:
        stream = device.type == "cuda"
        apply_group_offloading(
            module, onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level",
            use_stream=stream, record_stream=stream,  # else every layer waits for the device
            low_cpu_mem_usage=pinned_bytes(module) > free_memory(),  # then each layer is pinned in its turn: slower
        )  # fmt: skip
    else:
        module.to(device)
