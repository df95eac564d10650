"""A model folder may be wrong in every way: the message names the file and the field, and nothing hangs or is run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from faults import TOOL
from safetensors.torch import load_file, save_file

import framepack_relax as fr
from framepack_relax.errors import ModelError
from framepack_relax.evaluate.evaluation import JUDGES, gather
from framepack_relax.families.catalog import (
    FAMILIES,
    FIGURES,
    card,
    find,
    find_checkpoint,
    read_family,
    what_is_missing,
)
from framepack_relax.families.components import load_part
from framepack_relax.families.configs import FIT, SIDECAR, Config, check_configs, read_config
from framepack_relax.families.framepack.family import FramePack
from framepack_relax.families.loader import load
from framepack_relax.families.wan.family import WanI2V

PUPPET = Path(fr.__file__).parent / "puppet"


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "copy")


KINDS = {part: kind for part, kind in FramePack.parts.items() if kind is not Config}


def edit(file: Path, **said: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **said}))


def fields():
    for part, kind in KINDS.items():
        yield from ((part, field) for field in kind.model_fields if field != "quantization_config")


NO_VALUE = ("x", "../../etc/passwd", 10**400, -(10**400), [[]], [{}], {"a": float("nan")})


@pytest.mark.parametrize(("part", "field"), list(fields()))
def test_every_field_that_a_network_is_made_of_is_checked_and_named(copy, part, field):
    file = copy / part / KINDS[part].file
    whole, refused = file.read_text(), 0
    for value in NO_VALUE:
        if isinstance(value, dict) and field in ("rope_parameters", "rope_scaling"):
            continue  # which the library checks
        edit(file, **{field: value})
        with pytest.raises(ModelError, match=rf"^{re.escape(str(file))}: {field}"):
            read_config(KINDS[part], copy / part)
        file.write_text(whole)
        refused += 1
    assert refused >= len(NO_VALUE) - 1


WRONG = (None, True, 0, 1, -1, 3, 17, 10**9, 10**400, 0.5, 1e999, float("nan"), "", "x", [], [1], {}, {"a": 1})


@pytest.mark.parametrize("name", ["transformer/config.json", "vae/config.json", "text_encoder/config.json",
    "text_encoder_2/config.json", "image_encoder/config.json", "feature_extractor/preprocessor_config.json",
    "scheduler/scheduler_config.json", "framepack_relax.json"])  # fmt: skip
def test_any_value_in_any_field_is_read_or_refused_by_file(copy, name):
    file = copy / name
    said = json.loads(file.read_text())
    ends = {True: 0, False: 0}
    for field in (*said, "quantization_config", "_attn_implementation", "auto_map", "transformers_weights"):
        for change in [{field: value} for value in WRONG] + [None]:
            rest = {key: value for key, value in said.items() if key != field}
            file.write_text(json.dumps(rest if change is None else {**rest, **change}))
            try:
                read_family(copy)
                find(str(copy))
                ends[True] += 1
            except ModelError as error:
                assert all(str(file) in line for line in str(error).splitlines())
                ends[False] += 1
    assert min(ends.values()) > 5
    file.write_bytes(bytes(9))
    with pytest.raises(ModelError, match=rf"^{re.escape(str(file))}: .*JSON"):
        read_family(copy)
        find(str(copy))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("transformer/config.json", {"num_layers": 10**9}, "num_layers: is 1000000000; must be between 1 and 256"),
        ("transformer/config.json", {"num_single_layers": 0}, "num_single_layers: is 0; must be between 1 and 256"),
        ("transformer/config.json", {"has_image_proj": False}, "has_image_proj: is False"),
        ("transformer/config.json", {"rope_axes_dim": [4, 6, 8]}, "rope_axes_dim [4, 6, 8] must be even and add up"),
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor: is 0; must be between 0.001 and 1000"),
        ("vae/config.json", {"spatial_compression_ratio": 4}, "spatial_compression_ratio: is 4"),
        ("vae/config.json", {"norm_num_groups": 3}, "norm_num_groups 3 must divide block_out_channels"),
        ("text_encoder/config.json", {"num_hidden_layers": 1}, "num_hidden_layers: is 1; must be between 3 and 256"),
        ("text_encoder/config.json", {"num_attention_heads": 3}, "num_attention_heads 3 must divide hidden_size 16"),
        ("text_encoder/config.json", {"pad_token_id": 4000}, "pad_token_id 4000 is none of the"),
        ("text_encoder/config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantised weights are not"),
        ("vae/config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised weights are not"),
        ("text_encoder_2/config.json", {"max_position_embeddings": 76}, "is 76; must be between 77 and"),
        ("image_encoder/config.json", {"patch_size": 64}, "patch_size 64 is larger than image_size 32"),
        ("feature_extractor/preprocessor_config.json", {"size": 32}, "size: is 32; write a mapping of fields"),
        ("feature_extractor/preprocessor_config.json", {"image_std": [0, 1, 1]}, "image_std[0]: is 0; must be above 0"),
        ("scheduler/scheduler_config.json", {"base_image_seq_len": 4096}, "must be below max_image_seq_len"),
        ("scheduler/scheduler_config.json", {"max_image_seq_len": 10**400}, "max_image_seq_len: is 1000"),
        ("transformer/config.json", {"in_channels": 8}, "in_channels: is 8, and latent_channels in"),
        ("transformer/config.json", {"text_embed_dim": 32}, "text_embed_dim: is 32, and hidden_size in"),
        ("image_encoder/config.json", {"image_size": 48}, "size: is 32x32, and image_size in"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_a_weight_is_read(copy, file, change, said):
    edit(copy / file, **change)
    for weights in copy.rglob("*.safetensors"):
        weights.write_bytes(b"")
    with pytest.raises(ModelError) as caught:
        load(str(copy), device="cpu")
    assert said in str(caught.value) and str(caught.value).startswith(str(copy))


def test_all_mistakes_of_all_parts_are_told_at_once(copy):
    edit(copy / "vae/config.json", layers_per_block=0, latent_channels="4")
    edit(copy / "image_encoder/config.json", hidden_act="exec")
    with pytest.raises(ModelError) as caught:
        find(str(copy))
    assert len(str(caught.value).splitlines()) == 3


def test_every_number_that_parts_share_is_compared(tiny):
    parts = find(str(tiny)).parts
    for part, field, other, same in FIT:
        assert any(
            {part, other} <= kinds.keys() and field in kinds[part].model_fields and same in kinds[other].model_fields
            for kinds in (KINDS, WanI2V.parts, *(family.parts for family in FAMILIES.values()))
        )
    check_configs(parts, FramePack.parts)
    assert all(isinstance(read_config(kind, parts[part]), Config) for part, kind in KINDS.items())


SPECIAL = {
    "pipe": os.mkfifo,
    "loop": lambda place: place.symlink_to(place.name),
    "dangling": lambda place: place.symlink_to("nowhere"),
    "zeros": lambda place: place.symlink_to("/dev/zero"),
    "folder": lambda place: place.mkdir(),
}


@pytest.mark.parametrize("name", ["x.json", "config.json", "model.safetensors", "tokenizer.model", "merges.txt"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_never_opened(copy, kind, name):
    """A pipe would be waited for: the test would not end."""
    for part in ("transformer", "text_encoder", "tokenizer"):
        place = copy / part / name
        before = place.read_bytes() if place.exists() else None
        place.unlink(missing_ok=True)
        SPECIAL[kind](place)
        said = "cannot be read" if kind in ("loop", "dangling") else "is a (pipe|device|folder), where a file is wanted"
        with pytest.raises(ModelError, match=f"{part}/{name}: {said}"):
            load(str(copy), device="cpu")
        assert f"{part}/{name}" in what_is_missing(str(copy))
        with pytest.raises(ModelError, match=said):
            find_checkpoint(str(copy / part))
        place.rmdir() if kind == "folder" else place.unlink()
        if before is not None:
            place.write_bytes(before)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["framepack_relax.json", "scheduler/scheduler_config.json"])
def test_nor_is_a_sidecar(copy, kind, name):
    (copy / name).unlink()
    SPECIAL[kind](copy / name)
    with pytest.raises(
        ModelError, match=r"is missing|has no framepack_relax\.json|is a (pipe|device|folder); name a file"
    ):
        read_family(copy)
    assert isinstance(card(str(copy)), dict)


@pytest.mark.parametrize("name", [SIDECAR, FIGURES])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "is a list; write a mapping of fields"),
        ("null", "is empty; write a mapping of fields"),
        ("5", "is 5; write a mapping of fields"),
        ("{", "is not JSON: EOF"),
        ('{"a": ' * 100_000, "is larger than 512 KiB|is not JSON: recursion"),
        ('{"a": ' * 3_000 + "1" + "}" * 3_000, "is not JSON: recursion"),
        (f'{{"a": {"9" * 5_000}}}', "is not JSON: number out of range"),
    ],
)
def test_a_card_of_what_is_no_mapping_is_refused_at_the_file(copy, name, text, said):
    (copy / name).write_text(text)
    with pytest.raises(ModelError, match=rf"{name}: ({said})"):
        card(str(copy))


def test_a_card_tells_every_mistake_of_its_sidecar(copy):
    edit(copy / SIDECAR, profile=5, fps="fast")
    with pytest.raises(ModelError) as caught:
        card(str(copy))
    profile, fps = sorted(str(caught.value).splitlines(), reverse=True)
    assert profile == f"{copy / SIDECAR}: profile: is 5; write a mapping of fields"
    assert fps.startswith(f"{copy / SIDECAR}: fps: is 'fast'; ")
    done = subprocess.run([TOOL, "models", copy], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr and str(caught.value) in done.stderr


def test_what_a_folder_says_of_itself_steers_no_terminal(copy):
    evil = "\x1b[2J\x1b]0;x\x07"
    edit(copy / SIDECAR, profile={"name": "mine", "figures": {"x": 1}})
    (copy / FIGURES).write_text(json.dumps({evil: evil, "y": [evil]}))
    done = subprocess.run([TOOL, "models", copy], capture_output=True, text=True)
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
    assert "\\x1b[2J" in done.stdout and "mine" in done.stdout and "figures" not in done.stdout


def test_weights_that_a_config_leaves_out_are_refused_and_those_of_other_networks_are_not(copy):
    source = find(str(copy))
    edit(copy / "text_encoder/config.json", num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"text_encoder: 9 weights of the text_encoder have no place in the network"):
        load_part(source, "text_encoder", torch.float32)
    edit(copy / "transformer/config.json", guidance_embeds=False)
    with pytest.raises(ModelError, match=r"transformer: \d+ weights of the transformer have no place"):
        load_part(source, "transformer", torch.float16)
    edit(copy / "text_encoder_2/config.json", num_hidden_layers=1)
    with pytest.raises(ModelError, match="text_encoder_2: 16 weights"):
        load_part(source, "text_encoder_2", torch.float32)
    file = copy / "image_encoder/model.safetensors"
    others = {"logit_scale": torch.zeros(1), "vision_model.embeddings.position_ids": torch.zeros(1, 4).long()}
    save_file({**load_file(file), **others}, file, metadata={"format": "pt"})
    load_part(source, "image_encoder", torch.float32)


def test_a_config_names_no_kernel_no_code_and_no_other_file(copy):
    (copy / "evil.safetensors").write_bytes(b"")
    evil = {"_attn_implementation": "evil/kernel", "attn_implementation": "evil/kernel", "transformers_weights":
            "../evil.safetensors", "auto_map": {"AutoModel": "evil.Evil"}, "fusion_config": {"evil": 1},
            "return_dict": False, "output_hidden_states": False}  # fmt: skip
    for part in ("text_encoder", "text_encoder_2", "image_encoder"):
        before = load_part(find(str(copy)), part, torch.float32).state_dict()
        edit(copy / part / "config.json", **evil)
        made = load_part(find(str(copy)), part, torch.float32)
        assert made.config._attn_implementation == "sdpa" and made.config.return_dict
        assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    (copy / "text_encoder/adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
    with pytest.raises(ModelError, match=r"adapter_config\.json: names another model"):
        find(str(copy))


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("text_encoder", "num_hidden_layers", 256),
        ("text_encoder", "vocab_size", 1 << 22),
        ("text_encoder", "intermediate_size", 1 << 17),
        ("text_encoder_2", "vocab_size", 41),
        ("image_encoder", "patch_size", 8),
        ("image_encoder", "num_hidden_layers", 3),
    ],
)
def test_a_size_that_the_weights_do_not_have_is_named(copy, part, field, value):
    edit(copy / part / "config.json", **{field: value})
    with pytest.raises(
        ModelError, match=rf"{part}/config\.json: {field}: is {value}, and .* in the weights|weights hold"
    ):
        load_part(find(str(copy)), part, torch.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"added_tokens": [{"id": 500, "content": "<far>", "special": True}]}, "tokenizer"),
        ({"model": {"type": "WordLevel", "vocab": {"<s>": 4000}, "unk_token": "<s>"}}, "tokenizer"),
        ({"model": {"type": "WordLevel", "vocab": {}, "unk_token": "<unk>"}}, "tokenizer"),
        ({"model": None}, "tokenizer"),
        ({"post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {
            "SpecialToken": {"id": "<gone>", "type_id": 0}}], "pair": [], "special_tokens": {}}}, "tokenizer"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_is_broken_or_of_another_model_is_refused(copy, change, said):
    """Some of them end in a panic of the library, which is no Exception."""
    edit(copy / "tokenizer/tokenizer.json", **change)
    loaded = load(str(copy), device="cpu")
    with pytest.raises(ModelError, match=said) as caught:
        loaded.encode_prompts(["a red figure waves"])
    assert str(copy) in str(caught.value)


def test_the_image_processor_is_the_one_that_its_file_describes(tiny):
    from transformers import SiglipImageProcessorPil

    for folder in (tiny, PUPPET):
        made = load_part(find(str(folder)), "feature_extractor", torch.float32)
        whole = SiglipImageProcessorPil.from_pretrained(folder / "feature_extractor")
        pixels = torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        same = [processor(images=pixels.numpy(), return_tensors="np").pixel_values for processor in (made, whole)]
        assert (same[0] == same[1]).all() and same[0].shape[-1] == read_config(
            KINDS["image_encoder"], folder / "image_encoder"
        ).image_size


def test_encoders_are_the_ones_that_their_files_describe(tiny):
    from framepack_relax.families.components import CLASSES

    for part in ("text_encoder", "text_encoder_2", "image_encoder"):
        for folder in (tiny, PUPPET):
            made = load_part(find(str(folder)), part, torch.float32).config.to_dict()
            whole = CLASSES[KINDS[part]].from_pretrained(folder / part, dtype=torch.float32).config.to_dict()
            given = {"_name_or_path", "architectures", "transformers_version", "dtype"}
            assert {key: made[key] for key in made if key not in given} == {
                key: whole[key] for key in whole if key not in given
            }


OFFLINE = """
import pathlib, shutil, socket, sys
def refuse(*words, **named):
    print("asked", words[:2], flush=True)
    raise OSError("no network here")
socket.socket.connect = socket.getaddrinfo = refuse
from PIL import Image
from framepack_relax.errors import ModelError
from framepack_relax.families.loader import load
whole = pathlib.Path(sys.argv[1])
for number, missing in enumerate(sys.argv[2:]):
    folder = pathlib.Path(shutil.copytree(whole, f"{whole}-{number}"))
    place = folder / missing
    if missing:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    try:
        model = load(str(folder), device="cpu")
        model.encode_prompts(["a red figure waves"])
        model.encode_starts({0: (Image.new("RGB", (32, 32), "red"), 7)})
        print("works", missing)
    except ModelError as error:
        print("refused", missing)
"""


def test_the_hub_is_never_asked_about_a_folder(copy):
    files = ["tokenizer/tokenizer.json", "tokenizer_2/tokenizer.json", "text_encoder/config.json", "text_encoder",
             "feature_extractor/preprocessor_config.json", "image_encoder/model.safetensors"]  # fmt: skip
    words = [sys.executable, "-c", OFFLINE, str(copy), "", *files]
    done = subprocess.run(words, env={**os.environ, "HF_HUB_OFFLINE": "0"}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["works ", *(f"refused {file}" for file in files)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: is 1000000000; must be between 1 and 256"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised weights are not read"),
        ({"hidden_act": 5}, "cannot be loaded"),
        ({"_attn_implementation": "evil/kernel"}, ""),
    ],
)
def test_a_judge_that_is_wrong_is_said_and_the_others_measure(tmp_path, change, said):
    folder = shutil.copytree(JUDGES / "action", tmp_path / "action")
    edit(folder / "config.json", **change)
    made = gather(action=str(folder), text="packaged", distance=lambda a, b: a.mean())
    assert made.text is not None and (made.action is None) == bool(said)
    assert any(said in note and str(folder) in note for note in made.notes) if said else not made.notes


@pytest.mark.slow
def test_damaged_folders_of_every_kind_work_or_are_refused(pytestconfig):
    """See scripts/fuzz_models.py; LOG.md has the counts of a long run."""
    script = pytestconfig.rootpath / "scripts/fuzz.py"
    words = [sys.executable, str(script), "models", "--inputs", "60", "--seed", "7"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "models: 60 inputs, 0 tracebacks" in done.stdout, done.stdout
