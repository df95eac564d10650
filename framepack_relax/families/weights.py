"""Files of weights, by their headers alone: safetensors and GGUF; no torch.

A transformer's are diffusers' own, or lie in one file as the model's first program or another tool has written them.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from safetensors import safe_open

from ..errors import ModelError

Shape = tuple[int, ...]
WEIGHTS = (".safetensors", ".gguf")
OWN = "diffusion_pytorch_model"  # with which the names of diffusers' files begin


def header(file: Path) -> tuple[dict[str, tuple[str, Shape]], Mapping[str, str]]:
    """A file's tensors by name, (type, shape) each, and a safetensors file's metadata; the weights are not read.

    Raises ModelError where GGUF cannot be read here.
    """
    if file.suffix == ".gguf":
        if find_spec("gguf") is None:
            fact = "GGUF needs a package that is not installed; pip install 'framepack-relax[gguf]'"
            raise ModelError(f"{file}: {fact}")
        from gguf import GGUFReader

        return {t.name: (t.tensor_type.name, tuple(map(int, t.shape[::-1]))) for t in GGUFReader(file).tensors}, {}
    with safe_open(file, framework="np") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}
        return {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}, opened.metadata() or {}


def weight_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in WEIGHTS)


def tensors(folder: Path) -> dict[str, tuple[str, Shape]]:
    """Of all its files: type and shape by name."""
    return {name: said for file in weight_files(folder) for name, said in header(file)[0].items()}


def single_file(folder: Path) -> Path | None:
    """The one file of a transformer's weights; None where they are diffusers' own. Raises ModelError if both are there,
    or several."""
    files = weight_files(folder)
    others = [file for file in files if not file.name.startswith(OWN)]
    if others and len(files) > 1:
        names = " and ".join(file.name for file in (others[0], next(file for file in files if file != others[0])))
        raise ModelError(f"{folder}: holds {names}; keep diffusers' files ({OWN}*), or one other file, alone")
    return others[0] if others else None
