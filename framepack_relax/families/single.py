"""A transformer from a single file, safetensors or GGUF, by diffusers' converters; its config.json lies beside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import GGUFQuantizationConfig
from diffusers.loaders.single_file_model import (
    SINGLE_FILE_LOADABLE_CLASSES,
    _get_single_file_loadable_mapping_class,
)
from diffusers.loaders.single_file_utils import load_single_file_checkpoint
from torch import nn

from ..errors import ModelError
from .weights import OWN


def load_single(network: Any, file: Path, dtype: torch.dtype) -> tuple[Any, dict[str, list[str]]]:
    """A network of this class, quantised layers left as they are, and what diffusers' from_pretrained tells of others.

    Where that is anything, there is no network. Raises ModelError.
    """
    if (kind := _get_single_file_loadable_mapping_class(network)) is None:
        fact = f"diffusers reads no single file of a {network.__name__}"
        cure = f"call it {OWN}.safetensors if its weights have diffusers' names, else put the model's own {OWN}* here"
        raise ModelError(f"{file}: {fact}; {cure}")
    config, weights = network.load_config(file.parent), load_single_file_checkpoint(str(file))
    with torch.device("meta"):
        wanted = network.from_config(config).state_dict()
    if weights.keys() != wanted.keys():
        convert = SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"]
        both = weights, convert(checkpoint=dict(weights), config=config)
        weights = min(both, key=lambda named: len(named.keys() ^ wanted.keys()))
    told = {
        "missing_keys": [name for name in wanted if name not in weights],
        "unexpected_keys": [name for name in weights if name not in wanted],
        "mismatched_keys": [n for n, x in wanted.items() if n in weights and shape_of(weights[n]) != x.shape],
    }
    if any(told.values()):
        return None, told
    packed = GGUFQuantizationConfig(compute_dtype=dtype) if file.suffix == ".gguf" else None
    options = {"config": str(file.parent), "local_files_only": True, "quantization_config": packed}
    made = network.from_single_file(weights, dtype=dtype, **options)
    for layer in made.modules():
        for name, x in layer.named_parameters(recurse=False, remove_duplicate=False):
            setattr(layer, name, x if isinstance(x, nn.Parameter) else nn.Parameter(x, requires_grad=False))
    return made, told


def pack(network: Any, types: Mapping[str, str]) -> Any:
    """A network on the meta device, its layers packed as a GGUF file has them, whose types these are by layer."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    precise = {*(network._keep_in_fp32_modules or ())}
    for name, layer in network.named_modules():
        kind = types.get(name, "F32")
        linear = isinstance(layer, nn.Linear) and name != "proj_out"  # which is unpacked
        if linear and kind not in ("F32", "F16") and not precise & {*name.split(".")}:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
            shape = layer.out_features, layer.in_features // block * size
            packed: Any = nn.Parameter(torch.empty(shape, dtype=torch.uint8, device="meta"), requires_grad=False)
            packed.quant_shape, layer.weight = torch.Size((layer.out_features, layer.in_features)), packed
    return network


def shape_of(weight: Any) -> torch.Size:
    """Of what is packed, too."""
    return torch.Size(getattr(weight, "quant_shape", weight.shape))


def parts_of(weight: Any) -> list[torch.Tensor]:
    """The plain tensors of which it is made: of a quantised one its integers and its scales."""
    names = weight.__tensor_flatten__()[0] if hasattr(weight, "__tensor_flatten__") else ()
    return [getattr(weight, name) for name in names] or [weight]


def unpacked(layer: Any) -> nn.Linear:
    """A linear layer in float32, also if it is quantised."""
    if not hasattr(layer.weight, "quant_type"):
        return layer.float()
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    weights = {"weight": dequantize_gguf_tensor(layer.weight), "bias": layer.bias}
    made = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, dtype=torch.float32)
    made.load_state_dict({name: x for name, x in weights.items() if x is not None})
    return made.requires_grad_(False)
