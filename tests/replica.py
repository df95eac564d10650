"""A tiny model in the layout of the three repositories that FramePack-F1 is loaded from, as their files stand there.

The transformer lies at a repository's root in bfloat16, in three shards, under FramePack's own class name; encoders
and VAE are float16, the Llama in shards; CLIP and Siglip have the key names of transformers 4, Llama its config; the
CLIP tokenizer is a vocabulary and merges without a tokenizer.json. Source: the convert script of
hunyuanvideo-community/HunyuanVideo, lllyasviel/FramePack_F1_I2V_HY_20250503, lllyasviel/flux_redux_bfl.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from framepack_relax.families.catalog import find
from framepack_relax.families.components import load_part

TRANSFORMER = "lllyasviel/FramePack_F1_I2V_HY_20250503"
HUNYUAN, REDUX = "hunyuanvideo-community/HunyuanVideo", "lllyasviel/flux_redux_bfl"


def write_replica(tiny: Path, root: Path, transformer: str = TRANSFORMER) -> None:
    """The folder `tiny` anew as the repositories' folders `root`/owner/name."""
    source, hunyuan, redux = find(str(tiny)), root / HUNYUAN, root / REDUX
    network = load_part(source, "transformer", torch.bfloat16)
    network.proj_out.to(torch.bfloat16)
    _in_shards(network, root / transformer, 3)
    _edit(root / transformer / "config.json", _class_name="HunyuanVideoTransformer3DModelPacked")
    _in_shards(load_part(source, "text_encoder", torch.float16), hunyuan / "text_encoder", 4)
    _edit(hunyuan / "text_encoder/config.json", rope_theta=10000.0, torch_dtype="float16", rope_parameters=None)
    shutil.copytree(tiny / "tokenizer", hunyuan / "tokenizer")
    load_part(source, "vae", torch.float16).save_pretrained(hunyuan / "vae")
    _clip(hunyuan, network.config.pooled_projection_dim)
    load_part(source, "image_encoder", torch.float16).save_pretrained(redux / "image_encoder")
    _prefix(redux / "image_encoder", "vision_model.")
    shutil.copytree(tiny / "feature_extractor", redux / "feature_extractor")


def _in_shards(module: torch.nn.Module, folder: Path, count: int) -> None:
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    largest = max(p.numel() * p.element_size() for p in module.parameters())
    for bound in range(max(largest, size // count), size, max(1, size // 200)):
        shutil.rmtree(folder, ignore_errors=True)
        module.save_pretrained(folder, max_shard_size=bound)
        if len(list(folder.glob("*.safetensors"))) == count:
            return
    raise AssertionError(f"{type(module).__name__} does not fall into {count} shards")


def _clip(hunyuan: Path, width: int) -> None:
    """A CLIP text encoder whose vocabulary is single letters, which end a word or do not."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    torch.manual_seed(5)
    config = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=width, intermediate_size=2 * width, projection_dim=width,
        num_hidden_layers=2, num_attention_heads=2, bos_token_id=len(tokens) - 2, eos_token_id=len(tokens) - 1,
    )  # fmt: skip
    CLIPTextModel(config).half().save_pretrained(hunyuan / "text_encoder_2")
    _prefix(hunyuan / "text_encoder_2", "text_model.")
    folder = hunyuan / "tokenizer_2"
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    ends = {"bos_token": tokens[-2], "eos_token": tokens[-1], "unk_token": tokens[-1], "pad_token": tokens[-1]}
    said = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **ends}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))


def _prefix(folder: Path, prefix: str) -> None:
    """The names that transformers 4 gave a text or vision model's weights."""
    file = folder / "model.safetensors"
    weights = {f"{prefix}{key.removeprefix(prefix)}": value for key, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def _edit(file: Path, **said: object) -> None:
    config = {**json.loads(file.read_text()), **said}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
