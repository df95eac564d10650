"""A model without its weights: networks on torch's meta device, of their configs alone; and what it will take.

A model that is not on this machine is drawn by what the catalogue knows of it.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn

from ..errors import ModelError
from .adapters import Adapter
from .backend import PRESETS, Backend, Need, Placement
from .base import Context, Family, Size
from .catalog import Source, find, find_family
from .components import CLASSES, as_it_lies, told_as
from .configs import Config, read_config
from .engine import STORED
from .known import KNOWN
from .layers import types_in
from .loaded import LoadedModel, bytes_of
from .loader import load, pick_dtype
from .lora import put_on
from .memory import USABLE, Demand, converted_bytes, in_words, pinned_bytes, placement_that_fits
from .single import pack
from .weights import single_file

CARDS = (6, 8, 12, 16, 24, 32, 48, 80)  # gigabytes of a GPU
GPU = torch.device("cuda")  # that a sketch is for, whether there is one or not


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a render takes by estimate, in bytes: of a card with so many gigabytes, or of any (None).

    `memory` is in words, None where nothing fits. The text encoders are on the GPU before the rest, whole or, where
    they are `streamed`, layer by layer. `main` is main memory that the process needs for itself.
    """

    dtype: str
    card: int | None
    memory: str | None
    need: Need | None
    encoders: int
    streamed: bool
    main: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"total": self.need.total if self.need else None}


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """A model, its text encoders, and what of its weights lies in main memory until it is placed, being converted."""

    model: Backend
    encoders: tuple[nn.Module, ...] = ()
    waiting: int = 0

    def choices(self, context: Context, latents: int, size: Size) -> Iterator[Choice]:
        """Each preset, then each card."""
        demand = Demand(model=self.model, context=context, latents=latents, size=size)
        for preset in PRESETS:
            yield self._choice(demand, preset, None)
        for card in CARDS:
            yield self._choice(demand, placement_that_fits(demand, int(USABLE * card * 10**9)), card)

    def _choice(self, demand: Demand, placement: Placement | None, card: int | None) -> Choice:
        need = None if placement is None else demand.need(placement)
        encoders, limit = sum(map(bytes_of, self.encoders)), float("inf") if card is None else USABLE * card * 10**9
        streamed = placement == "offload" or encoders > limit
        again = streamed or (need is not None and need.weights + encoders > limit)  # those of another film, beside it
        pinned = [pinned_bytes(part) for part in self.model.moving(placement)] if placement is not None else []
        return Choice(
            dtype=self.model.precision.removeprefix("torch."),
            card=card,
            memory=None if placement is None else in_words(placement, self.model.blocks),
            need=need,
            encoders=encoders,
            streamed=streamed,
            main=max(self.waiting, sum(pinned)) + again * sum(map(pinned_bytes, self.encoders)),
        )


def sketch(name: str, dtype: str, adapters: Iterable[Adapter] = ()) -> Sketch:
    """Of a model by name, as it is on a GPU with these LoRA on. Raises ModelError where its configs are not known."""
    family, working = find_family(name), pick_dtype(dtype, GPU)
    if not family.parts:
        return Sketch(model=load(name, device="cpu", dtype=dtype))
    made = cast(type[LoadedModel], family.backend())
    stored, beside = dtype if dtype in STORED else "", made.beside(working, GPU)
    configs, folders = _configs(name, family)
    wanted = [part for part in configs if part.startswith("transformer")]
    networks, waiting = {part: _drawn(configs[part], working) for part in wanted}, 0
    for part in wanted:
        if part in folders:
            waiting += _read(networks[part], part, folders[part], family, working)
        as_it_lies(networks[part], working, stored)
    encoders = tuple(_drawn(configs[part], beside) for part in made.text_parts if part in configs)
    model = made(
        family=family,
        source=Source(name=name, parts={}, kinds=family.parts, stamp=()),
        reading=Future(),
        **networks,
        vae=_drawn(configs["vae"], made.vae_dtype or beside),
        device=torch.device("cpu"),
        dtype=working,
        stored=stored,
        encoder_dtype=beside,
    )
    lying = sum(map(bytes_of, networks.values())) if stored else 0
    put_on(networks, adapters, family.original, working)
    return Sketch(model=model, encoders=encoders, waiting=max(waiting, lying))


def _configs(name: str, family: Family) -> tuple[dict[str, Config], dict[str, Path]]:
    """Of each network, by part, and the folder of each that is on this machine. Raises ModelError."""
    kinds = {part: kind for part, kind in family.parts.items() if kind in CLASSES}
    try:
        folders = dict(find(name, download=False).parts)
        return {part: read_config(kind, folders[part]) for part, kind in kinds.items()}, folders
    except ModelError:
        if name not in KNOWN:
            raise
        return {part: kind.model_validate(KNOWN[name].get(part, {})) for part, kind in kinds.items()}, {}


def _read(network: nn.Module, part: str, folder: Path, family: Family, working: torch.dtype) -> int:
    """Draws what lies in GGUF so; gives the bytes that are converted to `working`. Raises ModelError for damage."""
    with told_as(f"{folder}: the {part} cannot be read", "download it again"):
        if (file := single_file(folder)) and file.suffix == ".gguf":
            pack(network, types_in(folder, family.original))
        return converted_bytes(folder, working)


def _drawn(config: Config, dtype: torch.dtype) -> Any:
    """The network of a config, on the meta device."""
    network = CLASSES[type(config)]
    said = config.model_dump(mode="json", exclude_unset=True, exclude={"quantization_config"})
    encoder = issubclass(network, transformers.PreTrainedModel)  # else diffusers', which keeps some in float32
    with torch.device("meta"):
        made = network(network.config_class(**said)) if encoder else network(**said)
    precise = set(() if encoder else network._keep_in_fp32_modules or ())
    for key, weights in made.named_parameters():
        weights.data = weights.data.to(torch.float32 if precise & {*key.split(".")} else dtype)
    return made
