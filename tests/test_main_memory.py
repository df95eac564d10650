"""Main memory: what there is, what weights would take, and that what does not fit is said before it is loaded."""

from dataclasses import replace

import pytest
import torch
from transformers import CLIPTextModel, LlamaModel

from framepack_relax.errors import ModelError
from framepack_relax.families import components as parts
from framepack_relax.families import loaded, memory
from framepack_relax.families.catalog import find
from framepack_relax.families.components import load_part
from framepack_relax.families.loaded import bytes_of
from framepack_relax.families.loader import load
from framepack_relax.families.memory import free_memory, pinned_bytes

GROUPS = {  # by version: /proc/self/cgroup, and the files of a group
    1: ("5:cpu:/\n4:memory:/jobs/mine\n0::/\n", "sys/fs/cgroup/memory", "memory.limit_in_bytes",
        "memory.usage_in_bytes", "total_inactive_file"),
    2: ("0::/jobs/mine\n", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
}  # fmt: skip


@pytest.mark.parametrize("version", GROUPS)
@pytest.mark.parametrize(("limits", "room"), [((900, 700), 500), ((400, 700), 200), ((None, None), None)])
def test_the_narrowest_control_group_counts_and_files_in_memory_can_go(tmp_path, version, limits, room):
    said, top, most, now, files = GROUPS[version]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(said)
    for folder, limit in zip(("jobs", "jobs/mine"), limits, strict=True):
        place = tmp_path / top / folder
        place.mkdir(parents=True)
        (place / most).write_text(f"{limit or 'max'}\n")
        (place / now).write_text("300\n")
        (place / "memory.stat").write_text(f"cache 200\n{files} 100\n")
    whole = free_memory(tmp_path / "nowhere")
    assert whole > 100 << 20
    assert free_memory(tmp_path) == room if room else free_memory(tmp_path) > 100 << 20


def test_weights_that_become_others_need_room_and_weights_that_stay_need_none(tiny, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    source = find(str(tiny))  # transformer and VAE are stored in float16, the encoders in float32
    load_part(source, "vae", torch.float16)
    with pytest.raises(ModelError, match=r"vae: in bfloat16 the vae takes 0\.0 GB of main memory, and 0\.0 are free"):
        load_part(source, "vae", torch.bfloat16)
    load_part(source, "text_encoder", torch.float32)
    with pytest.raises(ModelError, match="the dtype in which it is stored"):
        load_part(source, "text_encoder", torch.bfloat16)


def test_mapped_weights_take_no_memory(tmp_path):
    """Why nothing is asked of main memory for them: of a VAE of over 50 MB less than a tenth becomes the process's."""
    from diffusers import AutoencoderKLHunyuanVideo

    def own():
        lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
        return int(lines["RssAnon"].split()[0]) << 10

    pytest.importorskip("resource")
    vae = AutoencoderKLHunyuanVideo(block_out_channels=(64, 128, 256, 256), layers_per_block=2).to(torch.float16)
    size = sum(p.numel() * p.element_size() for p in vae.parameters())
    vae.save_pretrained(tmp_path)
    del vae
    before = own()
    again = AutoencoderKLHunyuanVideo.from_pretrained(tmp_path, dtype=torch.float16)
    assert size > 50e6 and own() - before < size / 10 and again.dtype == torch.float16


def test_pinned_weights_are_counted_in_powers_of_two():
    with torch.device("meta"):
        layer = torch.nn.Linear(1000, 3)
    assert pinned_bytes(layer) == (1 << 14) + 16


@pytest.mark.parametrize(("room", "each_in_its_turn"), [(1 << 40, False), (0, True)])
def test_weights_that_cannot_all_be_pinned_are_pinned_in_their_turn(model, monkeypatch, room, each_in_its_turn):
    asked = {}
    monkeypatch.setattr(parts, "free_memory", lambda: room)
    monkeypatch.setattr(parts, "apply_group_offloading", lambda module, **options: asked.update(options))
    parts.stream(model.vae, torch.device("cuda"))
    assert asked["use_stream"] and asked["record_stream"] and asked["low_cpu_mem_usage"] == each_in_its_turn


@pytest.mark.parametrize("spare", [-1, 0])
def test_encoders_come_layer_by_layer_where_there_is_no_room_for_them_beside_the_rest(tiny, monkeypatch, spare):
    """The same bits; what they stand beside stays where it is. The image encoder is too small to be streamed."""
    model, streamed = load(str(tiny), device="cpu"), []
    plain = model.encode_prompts(["a red figure waves"])
    model.place()
    encoders = [load_part(model.source, part, torch.float32) for part in ("text_encoder", "text_encoder_2")]
    model.memory = f"{model.weight_bytes('full') + sum(map(bytes_of, encoders)) + spare}B"
    monkeypatch.setattr(
        loaded, "stream", lambda part, device: streamed.append(type(part)) or parts.stream(part, device)
    )
    again = replace(model, texts={}).encode_prompts(["a red figure waves"])
    assert streamed == ([] if spare == 0 else [LlamaModel, CLIPTextModel])
    assert all(torch.equal(x, again[prompt][name]) for prompt, text in plain.items() for name, x in text.items())
    assert model.placed == "full" and not any(hasattr(part, "_diffusers_hook") for part in model.transformer.modules())
