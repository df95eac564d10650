"""Parts of a model: loaded by the class that the stock pipeline uses, safetensors only; and where their weights lie."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import transformers
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel
from diffusers.hooks import apply_group_offloading
from torch import nn

from ..errors import ModelError, RelaxError
from ..storyboard.messages import printable
from .catalog import Source
from .configs import check_shapes, read_config
from .main_memory import check_room, free_memory, main_memory_is_full, pinned_bytes, stored

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
# of transformers: no hub, no pickle, no kernel that a config names
PLAIN = {"local_files_only": True, "use_safetensors": True, "attn_implementation": "sdpa"}
# weights of the whole network that a text or image encoder is a part of, and buffers of older releases
OUTSIDE = re.compile(
    r"^(lm_head|text_projection|visual_projection|logit_scale|logit_bias)\b|\b(position_ids|rotary_emb\.inv_freq)$"
)


def load_part(source: Source, part: str, dtype: torch.dtype) -> Any:
    """One component. Raises ModelError, which names the folder, for whatever stands against it.

    The transformer's last layer is float32 whatever its `dtype`, as FramePack has it.
    """
    folder = source.parts[part]
    with told_as(f"{folder}: the {part} cannot be loaded", "download it again"):
        if part == "feature_extractor":  # Pillow's: torchvision's resize overshoots
            return transformers.SiglipImageProcessorPil(**_said(part, folder))
        if part.startswith("tokenizer"):
            return _tokenizer(source, part)
        check_room(folder, part, dtype)
        options = {"use_safetensors": True, "local_files_only": True, "dtype": dtype, "output_loading_info": True}
        if issubclass(MODULES[part], transformers.PreTrainedModel):
            check_shapes(part, folder, {name: shape for name, (_, shape) in stored(folder).items()})
            config = MODULES[part].config_class(**_said(part, folder))
            options |= {"config": config, **PLAIN}
        module, told = MODULES[part].from_pretrained(folder, **options)
    # the libraries only warn of these and fill them with random numbers
    if wrong := sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in told[kind]):
        raise ModelError(
            f"{folder}: {len(wrong)} weights of the {part} are missing or of another shape than its config.json says "
            f"({printable(wrong[0])}); download both again"
        )
    if left := sorted(key for key in told["unexpected_keys"] if not OUTSIDE.search(key)):
        fact = f"{len(left)} weights of the {part} have no place in the network that its config.json describes"
        raise ModelError(f"{folder}: {fact} ({printable(left[0])}); download both again")
    return float32_last_layer(module) if part == "transformer" else module


def float32_last_layer(transformer: Any) -> Any:
    """Makes the layer that gives the velocity, and what it is given, float32; gives the transformer."""
    transformer.proj_out.float().register_forward_pre_hook(lambda layer, given: (given[0].float(),))
    return transformer


@contextmanager
def told_as(fact: str, cure: str) -> Iterator[None]:
    """Whatever the libraries raise against a model's files as a ModelError; Rust's panics are no Exceptions."""
    try:
        yield
    except (RelaxError, torch.OutOfMemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if main_memory_is_full(error):
            raise
        reason = str(error).strip().splitlines() or [repr(error)]
        raise ModelError(f"{fact}: {printable(reason[0], 200)}; {cure}") from error


def _said(part: str, folder: Path) -> dict[str, Any]:
    """The fields of a part's config that are known, as it says them."""
    return read_config(part, folder).model_dump(exclude_unset=True, exclude={"quantization_config"})


def _tokenizer(source: Source, part: str) -> Any:
    """By its own file where there is one: the fast tokenizer needs no network and no extra package."""
    folder, encoder = source.parts[part], part.replace("tokenizer", "text_encoder")
    if (folder / "tokenizer.json").is_file():
        made = transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    else:
        made = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    largest, words = max(made.get_vocab().values()), read_config(encoder, source.parts[encoder]).vocab_size
    if largest >= words:
        fact = f"knows a token {largest}, and the {encoder} {words} tokens"
        raise ModelError(f"{folder}: {fact}; these parts are not of one model")
    return made


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
