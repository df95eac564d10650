"""Main memory: what there is, what weights would take, and that what does not fit is said before it is loaded."""

import pytest
import torch

from framepack_relax.errors import ModelError
from framepack_relax.families import components as parts
from framepack_relax.families import memory
from framepack_relax.families.catalog import find
from framepack_relax.families.components import load_part
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


def test_the_transformer_makes_way_for_the_encoders_where_there_is_no_room_for_both(tiny):
    placed = load(str(tiny), device="cpu")
    weights = {name: tensor.clone() for name, tensor in placed.transformer.state_dict().items()}
    placed.preset = "tiled"
    placed.place()
    with placed.encoders("image_encoder", "feature_extractor"):
        assert all(parameter.is_meta for parameter in placed.transformer.parameters())
    placed.place()
    again = placed.transformer.state_dict()
    assert again.keys() == weights.keys() and all(torch.equal(again[name], weights[name]) for name in weights)
