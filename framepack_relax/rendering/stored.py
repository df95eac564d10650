"""The files in which latents lie: safetensors, under the key of what they were made from, sealed to the last bit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..files import read_file
from .keys import hash_of

LATENTS, SEALED = "latents", ".safetensors"
HEADER = 1 << 20  # bytes in which the header of such a file ends
Latents = NDArray[np.float32]
DAMAGE = (SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Latents from disk, the key and the inputs that they were made from, by whom (`made`), and with which seed.

    `digest` is that of the latents; `after` is that of the section rendered before, the past of these; `tries` are what
    an ensured section was sampled with, and what that showed.
    """

    latents: Latents
    key: str
    after: str
    inputs: Mapping[str, Any]
    made: Mapping[str, Any]
    seed: int
    digest: str
    tries: Sequence[Mapping[str, Any]] = ()


def pack(
    latents: Latents,
    *,
    key: str,
    seed: int = 0,
    after: str = "",
    inputs: Mapping[str, Any] = {},
    made: Mapping = {},
    tries: Sequence[Mapping[str, Any]] = (),
) -> tuple[bytes, str]:
    """The bytes of such a file, and the digest of its latents."""
    latents = np.ascontiguousarray(latents)
    said = {"inputs": json.dumps(inputs), "made": json.dumps(made), "digest": _digest(latents)}
    said |= {"tries": json.dumps(tries)} if tries else {}
    tags = {"key": key, "after": after, "seed": str(seed), **said}
    data = save({LATENTS: latents}, metadata={**tags, "seal": _seal(latents, tags)})
    return data, tags["digest"]


def unpack(data: bytes) -> Stored | None:
    """None if anything of it is damaged, or if it is no such file."""
    try:
        latents, tags = load(data)[LATENTS], dict(_header(data)["__metadata__"])
        if tags.pop("seal") != _seal(latents, tags) or tags["digest"] != _digest(latents):
            return None
        inputs, made = json.loads(tags.pop("inputs")), json.loads(tags.pop("made"))
        tries = json.loads(tags.pop("tries", "[]"))
        if not (isinstance(inputs, dict) and isinstance(made, dict) and isinstance(tries, list)):
            return None
        return Stored(latents=latents, inputs=inputs, made=made, seed=int(tags.pop("seed")), tries=tries, **tags)
    except DAMAGE:
        return None


def read_tags(path: Path) -> dict[str, str]:
    """What a file says of itself, without reading its latents; empty if it is not there or not as long as it says.

    Raises OSError where it cannot be read.
    """
    try:
        header = _header(read_file(path, first=HEADER))
        if path.stat().st_size == header.pop("__end__") + max(row["data_offsets"][1] for row in _tensors(header)):
            return {name: str(value) for name, value in header["__metadata__"].items()}
    except (FileNotFoundError, NotADirectoryError, *DAMAGE):
        pass
    return {}


def _tensors(header: Mapping[str, Any]) -> list[Any]:
    return [row for name, row in header.items() if name != "__metadata__"]


def _header(data: bytes) -> dict[str, Any]:
    """The JSON header, and where it ends (safetensors: its length in 8 bytes, header, data)."""
    end = 8 + int.from_bytes(data[:8], "little")
    return {**json.loads(data[8:end]), "__end__": end}


def _digest(latents: Latents) -> str:
    return blake2b(latents.tobytes(), digest_size=16).hexdigest()


def _seal(latents: Latents, tags: Mapping[str, str]) -> str:
    """A hash over all but the latents themselves, whose digest is one of the tags."""
    return hash_of([str(latents.dtype), latents.shape, tags])
