"""Damages a tiny model folder in every way and takes it through a render's calls: it works, or a ModelError names it.

Run by scripts/fuzz.py models.
"""

import copy
import gc
import json
import os
import random
import shutil
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from forked import run_forked
from PIL import Image
from tally import Tally
from training.parts import Sizes, build_pipeline, save_folder

from framepack_relax.errors import ModelError
from framepack_relax.families.backend import Given, Start
from framepack_relax.families.base import Step
from framepack_relax.families.catalog import card
from framepack_relax.families.framepack.history import slots
from framepack_relax.families.hunyuan_video.stream import StreamDecoder
from framepack_relax.families.loader import load
from framepack_relax.relax.guidance import Branch

FACTS = {"order": "forward", "fps": 30, "size": [32, 32], "guidance": {"embedded": 6.0}, "embedded_guidance": True}
WRONG: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 16, 17, 77, 255, 4096, 2**31, 2**63, 10**9, 10**400, 0.0, 0.5, -0.5, 1e-30,
    1e300, 1e999, float("nan"), "", "a", "16", "none", "../x", "/dev/zero", "evil/kernel", "cuda", "float16", [], [1],
    [1, 2, 3], ["a"] * 5, [[1]], [1] * 4, {}, {"a": 1}, {"height": 1}, {"type": "x"},
    {"rope_type": "yarn", "factor": 0},
)  # fmt: skip
ADDED = {
    "quantization_config": {"quant_method": "gptq", "bits": 4},
    "_attn_implementation": "evil/kernel",
    "attn_implementation": "flash_attention_2",
    "auto_map": {"AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]},
    "transformers_weights": "../vae/diffusion_pytorch_model.safetensors",
    "fusion_config": {"a": 1},
    "tokenizer_file": "/dev/zero",
    "vocab_file": "/dev/zero",
    "truncation": {"direction": "Right", "max_length": 10**15, "strategy": "LongestFirst", "stride": 10**15},
    "padding": {"strategy": {"Fixed": 10**15}, "direction": "Right", "pad_to_multiple_of": 0, "pad_id": 0,
                "pad_type_id": 0, "pad_token": "<pad>"},
    "rope_scaling": {"rope_type": "dynamic", "factor": "x"},
    "output_hidden_states": False, "return_dict": False, "torchscript": True, "dtype": "float8", "torch_dtype": "int4",
    "is_decoder": True, "use_cache": "x", "chunk_size_feed_forward": -1, "tie_word_embeddings": True,
    "id2label": "x", "num_labels": -1, "extra_special_tokens": 5, "added_tokens_decoder": {"x": 5}, "crop_size": 5,
}  # fmt: skip
SPECIAL: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": lambda place: place.mkdir(),
    "dangling": lambda place: place.symlink_to("nowhere"),
    "loop": lambda place: place.symlink_to(place.name),
    "zeros": lambda place: place.symlink_to("/dev/zero"),
    "null": lambda place: place.symlink_to("/dev/null"),
    "full": lambda place: place.symlink_to("/dev/full"),
    "empty": lambda place: place.write_bytes(b""),
    "nothing": lambda place: None,
}
NAMES = ("config.json", "model.safetensors.index.json", "adapter_config.json", "x.json", "x.safetensors", "x.txt",
         "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "merges.txt", "chat_template.jinja",
         "diffusion_pytorch_model.safetensors.index.json", "processor_config.json",
         "generation_config.json")  # fmt: skip


def make_folder(folder: Path) -> Path:
    """The folder that is damaged."""
    save_folder(build_pipeline(Sizes.tiny(), seed=5), folder, FACTS)
    return folder


def walk(folder: Path, part: str = "") -> None:
    """What `models` and a render ask of a model, once; if `part` is named, of a render's calls those that use it."""
    card(str(folder))
    model = load(str(folder), device="cpu")
    assert len(model.weights) == 32
    if part in ("", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"):
        model.encode_prompts(["a red figure waves", ""])
    if part in ("", "image_encoder", "feature_extractor", "vae"):
        model.encode_starts({0: (Image.new("RGB", (32, 32), "red"), 7)})
    if part in ("", "transformer"):
        start = torch.zeros(1, model.latent_channels, 1, 4, 4)
        zeros = {"encoder_hidden_states": torch.zeros(1, 8, 16), "pooled_projections": torch.zeros(1, 8)}
        text = {**zeros, "encoder_attention_mask": torch.ones(1, 8)}
        x, step = (
            torch.zeros(1, model.latent_channels, 9, 4, 4),
            Step(index=0, sigma=0.9, timestep=900.0, scales={"embedded": 6.0}),
        )
        given = Given(
            noise=x, context=slots("forward", 0, 1), steps=[step], past={}, prompt=text, negative=text,
            start=Start(latent=start, embeds=torch.zeros(1, 4, 16)), options={"order": "forward", "adain": 0.0},
        )  # fmt: skip
        inputs = model.begin(given)
        model.predict(x, step, Branch(name="cond"), inputs)
    if part in ("", "vae"):
        start = torch.zeros(1, model.latent_channels, 1, 4, 4)
        StreamDecoder(model.vae, start=start).push(start.expand(-1, -1, 3, -1, -1))


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, part in inner for path in ((*here, key), *places(part, (*here, key)))]


def change_value(file: Path, rng: random.Random) -> None:
    """One to three values of a JSON file replaced, moved, removed or added."""
    data = json.loads(file.read_text(encoding="utf8"))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        paths = places(data)
        if not paths:
            break
        *outer, key = rng.choice(paths)
        owner = data
        for part in outer:
            owner = owner[part]
        how = rng.random()
        if how < 0.1:
            del owner[key]
        elif how < 0.25 and isinstance(data, dict):
            name = rng.choice(list(ADDED))
            data[name] = copy.deepcopy(ADDED[name])
        elif how < 0.4 and type(owner[key]) in (int, float):
            owner[key] = rng.choice((owner[key] + 1, owner[key] - 1, owner[key] * 2, owner[key] // 2, -owner[key]))
        elif how < 0.5:
            owner[key] = copy.deepcopy(rng.choice([data, owner]))
        else:
            owner[key] = copy.deepcopy(rng.choice(WRONG))
    file.write_text(json.dumps(data), encoding="utf8")


def damage(file: Path, rng: random.Random) -> None:
    """Bytes of a file changed, doubled, inserted or cut off; of weights above all in their header."""
    data = bytearray(file.read_bytes())
    most = len(data)
    if file.suffix == ".safetensors" and rng.random() < 0.7:
        most = min(most, 8 + int.from_bytes(data[:8], "little"))
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(most)
        kind = rng.randrange(5)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place] = rng.choice(b'0123456789-{}[],.:"e\0\xff')
        elif kind == 2:
            data[place:place] = rng.choice((b"[" * 100_000, b"\xff\xfe", b"9" * 400, b'"', b"{", data[:place]))
        elif kind == 3:
            del data[place : place + rng.choice((1, 8, 1000))]
        else:
            del data[place:]
        most = min(most, len(data)) or 1
        if not data:
            break
    file.write_bytes(data)


def change_header(file: Path, rng: random.Random) -> None:
    """One entry of a weight file's header, with values of other types, sizes and places."""
    data = file.read_bytes()
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    name = rng.choice(list(header))
    if rng.random() < 0.2:
        header[rng.choice(("extra.weight", "lm_head.weight", name + ".weight"))] = header.pop(name)
    else:
        entry = header[name]
        field = rng.choice(list(entry))
        fields = {
            "dtype": ("F64", "I8", "BOOL", "F8_E4M3", "X", "F16", "F32", "BF16"),
            "shape": ([], [0], [1], [-1], [2**62, 4], entry.get("shape", [])[::-1]),
            "data_offsets": ([0, 0], [0, 2**62], [8, 4], [-1, 1]),
        }
        entry[field] = rng.choice(fields.get(field, WRONG))  # fmt: skip
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[size:])


def mutate(folder: Path, rng: random.Random) -> str:
    """Damages the folder once; says how."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    kind = rng.random()
    if kind < 0.6:
        file = rng.choice([file for file in files if file.suffix == ".json" and file.name != "model_index.json"])
        change_value(file, rng)
        return f"{file.relative_to(folder)}: value"
    if kind < 0.85:
        file = rng.choice(files)
        (change_header if file.suffix == ".safetensors" and rng.random() < 0.5 else damage)(file, rng)
        return f"{file.relative_to(folder)}: bytes"
    name = rng.choice(list(SPECIAL))
    if rng.random() < 0.2:
        place = rng.choice([part for part in folder.iterdir() if part.is_dir()])
        shutil.rmtree(place)
    else:
        place = rng.choice(files)
        place = rng.choice([place, place, place.parent / rng.choice(NAMES)])
        place.unlink(missing_ok=True)
    SPECIAL[name](place)
    return f"{place.relative_to(folder)}: {name}"


def case(whole: Path, folder: Path, number: int) -> tuple[str, str]:
    """How it ended and what was done; the folder is whole before."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    done = mutate(folder, random.Random(number))
    try:
        walk(folder, done.split("/")[0] if "/" in done else "scheduler")
        return "works", done
    except ModelError as error:
        named = str(folder) in str(error) and "\x1b" not in str(error)
        return ("located errors" if named else f"unlocated error: {error}"), done
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(f.filename).name}:{f.lineno}" for f in frame if "framepack_relax" in f.filename]
        return f"traceback: {type(error).__name__}: {str(error)[:200]} at {ours[-1:]}", done


def run(inputs: int, start: int = 0) -> Tally:
    """Tries `inputs` damaged folders."""
    with tempfile.TemporaryDirectory() as name:
        whole, folder = make_folder(Path(name, "whole")), Path(name, "model")
        walk(whole)
        return run_forked(partial(case, whole, folder), inputs, start, begin=settle)


def settle() -> None:
    """What a process does before its first case."""
    torch.set_num_threads(1)
    gc.freeze()  # a model gone is looked for among what has come since
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the libraries' notes, and Rust's panics
