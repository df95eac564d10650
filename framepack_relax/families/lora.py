"""LoRA put on transformers, switched, and taken off again: diffusers' loading, PEFT's layers."""

import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ModelError
from .adapters import Adapter
from .components import as_it_works, told_as
from .layers import PREFIX, Layers, Match, Original, match
from .single import shape_of
from .weights import header

LORA_METADATA = "lora_adapter_metadata"  # in which diffusers keeps PEFT's settings of a file
STRENGTH: dict[str, Any] = {"lora_alpha": 0, "alpha_pattern": {}, "use_rslora": False}  # those of its strength


def put_on(networks: Mapping[str, Any], adapters: Iterable[Adapter], original: Original, dtype: torch.dtype) -> None:
    """Each to its network; none acts yet. `original` are the names that other tools have. Raises ModelError."""
    layers = {name: _layers(network) for name, network in networks.items()}
    for adapter in adapters:
        name = adapter.fit.network
        with told_as(f"{adapter.place}: {adapter.file} cannot be put on the {name}", "download it again, or another"):
            tensors = load_file(adapter.file)
            found = match({key: tuple(x.shape) for key, x in tensors.items()}, layers[name], original)
            weights, settings = converted(found, tensors, layers[name])
            said = json.loads(header(adapter.file)[1].get(LORA_METADATA, "{}"))
            said = {PREFIX.sub("", key): value for key, value in said.items()}
            settings |= {key: said.get(key) or usual for key, usual in STRENGTH.items() if "lora_alpha" in said}
            weights = {key: x.to(dtype) for key, x in weights.items()}
            alphas = [*settings["alpha_pattern"].values(), settings["lora_alpha"]]
            if not all(map(math.isfinite, alphas)) or not all(x.isfinite().all() for x in weights.values()):
                fact = f"{adapter.place}: {adapter.file} holds NaN or infinity, and so would the film"
                raise ModelError(f"{fact}; take another, of an earlier step of its training")
            weights = {key: x.to(networks[name].device) for key, x in weights.items()}
            with as_it_works(networks[name], dtype), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second one is meant
                networks[name].load_lora_adapter(weights, prefix=None, adapter_name=adapter.digest, metadata=settings)


def converted(found: Match, tensors: Mapping[str, Tensor], layers: Layers) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A file's weights by PEFT's names of a network's layers, and its LoraConfig, which says how they are scaled."""
    made, ranks, alphas = dict[str, Tensor](), dict[str, int](), dict[str, float]()
    for layer, parts in found.layers.items():
        own = {kind: tensors[name] for kind, name in found.tensors[layer].items()}
        rank = own["down"].shape[0]
        alpha = own["alpha"].item() if "alpha" in own else float(rank)
        bias = own["diff_b"] * (rank / alpha) if "diff_b" in own else own.get("bias")
        rows = [layers[part][0] for part in parts]
        for nth, part in enumerate(parts):
            made[f"{part}.lora_A.weight"] = own["down"]
            made[f"{part}.lora_B.weight"] = own["up"].split(rows)[nth]
            if bias is not None:
                made[f"{part}.lora_B.bias"] = bias.split(rows)[nth]
            ranks[part], alphas[part] = rank, alpha
    usual, strength = (Counter(table.values()).most_common(1)[0][0] for table in (ranks, alphas))
    settings = {
        "r": usual,
        "lora_alpha": strength,
        "rank_pattern": {f"^{re.escape(part)}": rank for part, rank in ranks.items() if rank != usual},
        "alpha_pattern": {f"^{re.escape(part)}": alpha for part, alpha in alphas.items() if alpha != strength},
        "target_modules": list(ranks),
        "lora_bias": any(name.endswith(".bias") for name in made),
    }
    return made, settings


def _layers(network: Any) -> Layers:
    kinds, modules = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d), network.named_modules()
    return {name: tuple(shape_of(m.weight)) for name, m in modules if isinstance(m, kinds)}


def switch(networks: Mapping[str, Any], adapters: Iterable[Adapter]) -> None:
    """Those of a scale other than 0 act at it from now on, the others not at all."""
    for name, network in networks.items():
        on = {a.digest: a.scale for a in adapters if a.fit.network == name and a.scale}
        network.set_adapters([*on], [*on.values()])


def take_off(networks: Mapping[str, Any]) -> None:
    """The networks are then as they were, to the bit."""
    for network in networks.values():
        network.unload_lora()
