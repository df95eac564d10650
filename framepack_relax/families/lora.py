"""LoRA put on transformers and taken off again: diffusers' loaders, PEFT's layers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from ..errors import ModelError
from .adapters import Adapter
from .components import as_it_works, told_as

READING = {"return_lora_metadata": True, "use_safetensors": True, "local_files_only": True}
OWN = re.compile(r"^transformer\.")  # what diffusers' loaders put before the names of layers


def put_on(networks: Mapping[str, Any], adapters: Sequence[Adapter], loader: Any, dtype: torch.dtype) -> Iterator[str]:
    """Says of each how many of its layers act. `loader` is the pipeline that reads them. Raises ModelError."""
    names: dict[str, list[str]] = {}
    for nth, adapter in enumerate(adapters):
        network, name = networks[adapter.network], f"board{nth}"
        with told_as(f"{adapter.place}: {adapter.file} cannot be read as a LoRA", "download it again, or another one"):
            said, metadata = loader.lora_state_dict(str(adapter.file), **READING)
            if any(".default." in key for key in said):  # DiffSynth-Studio's way to write the makers' own names
                named = {f"diffusion_model.{key.replace('.default.', '.')}": x for key, x in said.items()}
                said, metadata = loader.lora_state_dict(named, **READING)
        layers = {key: re.split(r"\.lora", OWN.sub("", key))[0] for key in said}
        there = {module for module, _ in network.named_modules()}
        kept = {OWN.sub("", key): said[key].to(dtype) for key, layer in layers.items() if layer in there}
        if not kept:
            raise ModelError(f"{adapter.place}: matches no layer of the {adapter.network}; it is for another model")
        with told_as(f"{adapter.place}: does not fit the {adapter.network}", "take one that was made for this model"):
            metadata = metadata and {OWN.sub("", key): value for key, value in metadata.items()}
            with as_it_works(network, dtype):
                network.load_lora_adapter(kept, prefix=None, adapter_name=name, metadata=metadata or None)
        names.setdefault(adapter.network, []).append(name)
        act, every = len(there & {*layers.values()}), len({*layers.values()})
        yield f"{adapter.place}: {act} of its {every} layers act on the {adapter.network}, at scale {adapter.scale:g}"
    scales = {f"board{nth}": adapter.scale for nth, adapter in enumerate(adapters)}
    for network_name, own in names.items():
        networks[network_name].set_adapters(own, [scales[name] for name in own])


def take_off(networks: Mapping[str, Any]) -> None:
    """The networks are then as they were, to the bit."""
    for network in networks.values():
        network.unload_lora()
