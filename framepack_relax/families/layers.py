"""Which layers of a network a LoRA's file is for, whatever tool wrote it: by names and shapes alone, no torch.

A file names layers as diffusers does, or as the model's first programs do, whose layers may be several of diffusers' in
one (`img_attn_qkv`); with `.` (PEFT, ComfyUI's `diffusion_model.`) or with `_` (kohya's sd-scripts and musubi-tuner:
`lora_unet_`). A network is known by its layers: names and shapes of their weights.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .weights import Shape, tensors

Layers = Mapping[str, Shape]  # out x in, and a kernel
Original = Mapping[tuple[str, str], Mapping[str, str]]  # prefixes (theirs, diffusers'); theirs -> diffusers', by rows
PREFIX = re.compile(r"^(base_model\.model\.)?((model\.)?diffusion_model\.|transformer\.|lora_unet_|lora_transformer_)?")
NUMBER = re.compile(r"\.(\d+)\.")  # of a block
KINDS = {  # of a layer's tensors, by how their names go on after its own; diff_b is a bias that alpha does not touch
    "down": re.compile(r"[._]lora(_A(\.default)?|_down|\.down)\.weight$"),
    "up": re.compile(r"[._]lora(_B(\.default)?|_up|\.up)\.weight$"),
    "bias": re.compile(r"\.lora_B(\.default)?\.bias$"),
    "diff_b": re.compile(r"\.diff_b$"),
    "alpha": re.compile(r"\.alpha$"),
}


@dataclass(frozen=True, kw_only=True)
class Match:
    """A file beside a network, by the file's names of layers."""

    layers: Mapping[str, tuple[str, ...]]  # that act: the network's, in the order of their rows
    tensors: Mapping[str, Mapping[str, str]]  # of every layer: its tensors' names, by kind
    left: Mapping[str, str]  # that do not act, and why

    @property
    def changed(self) -> list[str]:
        """Layers of the network."""
        return sorted({name for names in self.layers.values() for name in names})


def layers_in(folder: Path, original: Original) -> Layers:
    """Of the network whose weights lie there, by diffusers' names, whatever names their files have."""
    return {name: shape for name, _, shape in _laid_out(folder, original)}


def types_in(folder: Path, original: Original) -> Mapping[str, str]:
    """In which their weights lie, by the same names."""
    return {name: kind for name, kind, _ in _laid_out(folder, original)}


def _laid_out(folder: Path, original: Original) -> Iterator[tuple[str, str, Shape]]:
    there = {name.removesuffix(".weight"): x for name, x in tensors(folder).items() if name.endswith(".weight")}
    known = dict(_originals(there, original))
    for name, (kind, shape) in there.items():
        if len(shape) > 1:
            parts, (rows, columns, *kernel) = known.get(_flat(name), (name,)), shape
            heights = [rows] if len(parts) == 1 else [columns] * 3 + [rows - 3 * columns]  # q, k, v; the rest
            for part, height in zip(parts, heights, strict=False):
                yield part, kind, (height, columns, *kernel)


def match(shapes: Layers, layers: Layers, original: Original) -> Match:
    """A LoRA's tensors, by their shapes, beside a network's layers."""
    found: dict[str, dict[str, str]] = {}
    for name in shapes:
        layer, kind = _parted(name)
        found.setdefault(layer, {})[kind] = name
    places, act, left = _places(layers, original), dict[str, tuple[str, ...]](), dict[str, str]()
    for layer, own in found.items():
        parts = places.get(_flat(layer), ())
        if why := _why_not({kind: shapes[name] for kind, name in own.items()}, [layers[part] for part in parts]):
            left[layer] = why
        else:
            act[layer] = parts
    return Match(layers=act, tensors=found, left=left)


def _parted(name: str) -> tuple[str, str]:
    """A tensor's layer and kind."""
    for kind, ending in KINDS.items():
        if ending.search(name):
            return ending.sub("", name), kind
    layer, _, kind = name.removesuffix(".weight").rpartition(".")
    return layer or name, kind


def _why_not(own: Mapping[str, Shape], parts: Sequence[Shape]) -> str:
    """Why a layer with tensors of these shapes does not act on these parts; empty if it does."""
    if odd := sorted(own.keys() - KINDS.keys()):
        return f"{odd[0]} is not read"
    if not {"down", "up"} <= own.keys() or min(len(own["down"]), len(own["up"])) < 2:
        return "it has no two matrices"
    if not parts:
        return "there is no such layer"
    (rank, wide), (high, inner) = own["down"][:2], own["up"][:2]
    if rank != inner or {wide} != {part[1] for part in parts} or high != sum(part[0] for part in parts):
        return f"it is for {high} x {wide} weights, which are {sum(part[0] for part in parts)} x {parts[0][1]} here"
    return ""


def _flat(name: str) -> str:
    return PREFIX.sub("", name).replace(".", "_")


def _places(layers: Layers, original: Original) -> dict[str, tuple[str, ...]]:
    """The network's layers by every name that files have for them, with `_` for each dot."""
    others = {name: parts for name, parts in _originals(layers, original) if all(part in layers for part in parts)}
    return {**others, **{_flat(name): (name,) for name in layers}}


def _originals(layers: Iterable[str], original: Original) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The first program's names with `_`, for blocks of these numbers, and diffusers' names of their parts."""
    numbers = sorted({found[1] for name in layers if (found := NUMBER.search(name))})
    for (theirs, ours), names in original.items():
        for number in numbers if "#" in theirs else [""]:
            for name, parts in names.items():
                placed = tuple((ours + part).replace("#", number) for part in parts.split())
                yield _flat((theirs + name).replace("#", number)), placed
