"""Finding, checking and assembling models, on tiny folders of the layouts that the real ones have."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel
from faults import packets, sections
from PIL import Image
from replica import write_replica
from safetensors.torch import load_file, save_file
from training.train import DISTILLED, FACTS

import framepack_relax as fr
from framepack_relax.errors import ModelError
from framepack_relax.families import catalog
from framepack_relax.families.backend import PRESETS
from framepack_relax.families.catalog import CATALOG, find, find_family, read_family, what_is_missing
from framepack_relax.families.components import load_part
from framepack_relax.families.framepack.history import slots
from framepack_relax.families.loaded import known_faults
from framepack_relax.families.loader import load
from framepack_relax.families.memory import GIB, Demand, advice, choose_placement, placement_that_fits, size_that_fits


@pytest.fixture
def weights(tiny, tmp_path, monkeypatch):
    """The three repositories of FramePack-F1 as folders, of tiny parts."""
    write_replica(tiny, tmp_path / "weights")
    monkeypatch.setenv(catalog.WEIGHTS_VARIABLE, str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_framepack_f1_is_assembled_from_its_three_repositories(weights):
    assert what_is_missing("framepack-f1") == "" and "hf download" in what_is_missing("framepack")
    model = load("framepack-f1", device="cpu")
    assert model.family.order == "forward" and model.family.embedded == 10.0 and model.latent_channels == 4
    texts = model.encode_prompts(["a red figure waves", "", "a red figure waves"])
    assert set(texts) == {"a red figure waves", ""}
    starts = model.encode_starts({0: (Image.new("RGB", (32, 32), "red"), 7)})
    assert starts[0].latent.shape == (1, 4, 1, 4, 4) and starts[0].latent.dtype == torch.float32


def test_the_repositories_layout_gives_the_networks_of_the_folder(weights, tiny):
    """Shards, key names of transformers 4, half precision: the same weights arrive, only the Llama's config is old."""
    there, here = find("framepack-f1"), find(str(tiny))
    for part in ("transformer", "text_encoder", "image_encoder", "vae"):
        wanted = load_part(here, part, torch.bfloat16 if part == "transformer" else torch.float16).state_dict()
        made = load_part(there, part, torch.float32).state_dict()
        assert set(made) == set(wanted)
        assert all(torch.equal(made[name], value.float()) for name, value in wanted.items())


@pytest.mark.parametrize("preset", ["full", "offload"])
def test_encoders_are_gone_after_encoding(model, preset):
    import gc

    from transformers import CLIPTextModel, LlamaModel

    replace(model, preset=preset, texts={}).encode_prompts(["a red figure waves"])
    assert not [o for o in gc.get_objects() if isinstance(o, (LlamaModel, CLIPTextModel))]


SOMERSAULT = {"a somersault": ["does not know somersault"]}


def test_a_film_takes_the_prompts_of_the_one_before_and_loads_the_encoders_for_new_ones(copy):
    loaded = load(str(copy), device="cpu")
    first = loaded.encode_prompts(["a red figure waves", "a somersault"])
    assert loaded.unread(first) == SOMERSAULT
    shutil.rmtree(copy / "text_encoder")
    again = loaded.encode_prompts(["a somersault", "a red figure waves"])
    assert set(again) == set(first) and all(again[prompt] is first[prompt] for prompt in first)
    with pytest.raises(ModelError, match="text_encoder"):
        loaded.encode_prompts(["a red figure waves", "a blue figure waves"])


def test_without_network_or_weights_the_error_says_what_to_download_and_where(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        find("framepack-f1")
    text = str(caught.value)
    assert "hf download lllyasviel/FramePack_F1_I2V_HY_20250503\n" in text
    assert "hf download hunyuanvideo-community/HunyuanVideo --include 'text_encoder/*' --include" in text
    assert "hf download lllyasviel/flux_redux_bfl --include 'feature_extractor/*' --include 'image_encoder/*'" in text
    assert catalog.WEIGHTS_VARIABLE in text and "European Union" in text


def test_what_the_encoder_cuts_off_a_long_prompt_is_said(model):
    long, longer = "a red figure " * 100, "a red figure " * 100 + "waves"
    texts, unread = replace(model, texts={}).encode_prompts([long, longer]), model.unread([long, longer])
    assert unread == {long: ["reads the first 256 of 300 tokens"], longer: ["reads the first 256 of 301 tokens"]}
    same = zip(texts[long].values(), texts[longer].values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError, match="pupet: no such model; known are puppet, framepack-f1, framepack"):
        find_family("pupet")


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "copy")


def test_incomplete_and_unsafe_folders_are_refused_by_name(copy):
    weights = next((copy / "transformer").glob("*.safetensors"))
    weights.rename(copy / "transformer" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"transformer: has only pytorch_model.bin, a pickle, which is never loaded"):
        load(str(copy), device="cpu")
    (copy / "transformer" / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"transformer: has no weights \(\*.safetensors\)"):
        load(str(copy), device="cpu")
    shutil.rmtree(copy / "vae")
    (copy / "transformer" / weights.name).write_bytes(b"")
    with pytest.raises(ModelError, match=r"vae: is missing; a model folder in diffusers format has a vae folder"):
        load(str(copy), device="cpu")


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "image_encoder", "vae"])
def test_damaged_parts_are_refused_by_name(copy, part):
    file = next((copy / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=f"{part}: the {part} cannot be loaded: .*; download it again"):
        load_part(find(str(copy)), part, torch.float32)


def test_a_config_that_divides_by_zero_is_refused_by_field(copy):
    config = copy / "vae/config.json"
    config.write_text(config.read_text().replace('"norm_num_groups": 4', '"norm_num_groups": 0'))
    with pytest.raises(ModelError, match=r"vae/config\.json: norm_num_groups: is 0; must be between"):
        load(str(copy), device="cpu")


def test_a_model_of_the_catalogue_takes_the_profile_beside_its_transformer(tmp_path, monkeypatch):
    folder = tmp_path / CATALOG["framepack-f1"].parts["transformer"][0]
    folder.mkdir(parents=True)
    monkeypatch.setenv(catalog.WEIGHTS_VARIABLE, str(tmp_path))
    assert find_family("framepack-f1").profile is None
    (folder / "framepack_relax.json").write_text('{"profile": {"name": "mine", "levels": [[0.5, {"beta": 0.3}]]}}')
    assert find_family("framepack-f1").profile.relaxation(0.9).beta == 0.3
    (folder / "framepack_relax.json").write_text('{"profile": {"nam": "mine"}}')
    with pytest.raises(ModelError, match=r"framepack_relax\.json: profile\.nam: unknown field; did you mean 'name'"):
        find_family("framepack-f1")


def test_a_truncated_weight_file_is_refused_by_name(copy):
    weights = next((copy / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"transformer: the transformer cannot be loaded: .*; download it again"):
        load(str(copy), device="cpu")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "text_encoder_2", "image_encoder"])
def test_weights_that_do_not_go_with_their_config_are_refused_not_filled_with_noise(copy, part):
    file = next((copy / part).glob("*.safetensors"))
    weights = load_file(file)
    name = max(weights, key=lambda key: weights[key].numel())
    save_file({key: value for key, value in weights.items() if key != name}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{part}.*{re.escape(name)}"):
        load_part(find(str(copy)), part, torch.float32)
    save_file({**weights, name: weights[name][:-1].clone()}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=part):
        load_part(find(str(copy)), part, torch.float32)


def test_code_beside_a_tokenizer_is_never_run(copy):
    folder = copy / "tokenizer"
    (folder / "tokenizer.json").unlink()
    (folder / "evil.py").write_text("raise SystemExit('run')")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}})
    )
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded"):
        load_part(find(str(copy)), "tokenizer", torch.float32)


def test_a_folder_needs_its_sidecar_to_be_told_apart(copy):
    (copy / "framepack_relax.json").unlink()
    with pytest.raises(ModelError, match="unknown whether the model renders forward or inverted; write one"):
        find_family(str(copy))


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("{", ["is not JSON: EOF while parsing an object at line 1 column 1"]),
        ("[]", ["is a list; write a mapping of fields"]),
        (
            '{"ordr": "forward"}',
            [
                "order: is missing; add it",
                "embedded_guidance: is missing; add it",
                "ordr: unknown field; did you mean 'order'?",
            ],
        ),
        (
            '{"order": "sideways", "size": [100, 90], "fps": 0, "guidance": {"embeded": 10}, "embedded_guidance": "no",'
            ' "profile": {"name": "own", "points": [[0, 2]]}}',
            [
                "size: width 100 and height 90 must be a multiple of 16 between 16 and 4096",
                "fps: is 0; must be between 1 and 240",
                "guidance.embeded: unknown field; did you mean 'embedded'?",
                "profile.points[0][1]: is 2; must be between -1 and 1",
                "order: is 'sideways'; known are forward, inverted",
                "embedded_guidance: is 'no'; write true or false",
            ],
        ),
    ],
)
def test_every_mistake_of_a_sidecar_is_told_in_our_words(copy, text, facts):
    file = copy / "framepack_relax.json"
    file.write_text(text)
    with pytest.raises(ModelError) as caught:
        read_family(copy)
    assert sorted(str(caught.value).splitlines()) == sorted(f"{file}: {fact}" for fact in facts)


def test_the_sidecars_that_training_writes_are_read(copy):
    for facts in (FACTS, FACTS | DISTILLED):
        (copy / "framepack_relax.json").write_text(json.dumps({**facts, "size": [96, 96]}))
        read = read_family(copy)
        assert (read.embedded, read.text) == tuple(facts["guidance"].values()) and read.size == (96, 96)
        assert read.embedded_guidance == facts["embedded_guidance"] and read.profile.name == "puppet-hand-set"


def test_a_sidecar_of_a_family_that_needs_none_counts_and_leaves_open_the_rest(copy):
    said = {"family": "hunyuanvideo", "fps": 30, "guidance": {"embedded": 4.0}, "embedded_guidance": False}
    (copy / "framepack_relax.json").write_text(json.dumps(said))
    read = read_family(copy)
    assert (read.kind, read.fps, read.size) == ("hunyuanvideo", 30, (1280, 720))
    assert [(term.name, term.base, term.trained) for term in read.terms] == [
        ("embedded", 4.0, False),
        ("text", 1.0, True),
    ]


def test_a_sidecar_may_bring_a_profile(copy):
    facts = json.loads((copy / "framepack_relax.json").read_text())
    profile = {
        "name": "own",
        "threshold": 0.1,
        "points": [[0.1, 0], [1, 0.6]],
        "p": 1,
        "blur": 0,
        "target": ["context"],
    }
    (copy / "framepack_relax.json").write_text(json.dumps({**facts, "profile": profile}))
    assert read_family(copy).profile.beta(0.55) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cuda:99", None), ("tpu9", None), ("mps", None), ("cpu:3", None), ("cpu", "float8"), ("cpu", "float16")],
)
def test_devices_and_dtypes_that_are_not_there(tiny, device, dtype):
    with pytest.raises(ModelError, match=r"(device|dtype)=\S+: "):
        load(str(tiny), device=device, dtype=dtype)


@pytest.mark.parametrize(
    ("torch_version", "cudnn", "dtype", "told"),
    [
        ("2.9.1+cu128", 91002, torch.bfloat16, ["three times the memory"]),
        ("2.9.1+cu128", 91002, torch.float16, ["three times the memory"]),
        ("2.9.1+cu128", 91501, torch.bfloat16, []),
        ("2.9.0+cu130", 92100, torch.float16, ["three times the memory"]),
        ("2.9.1+cu128", 91002, torch.float32, []),
        ("2.8.0+cu128", 91002, torch.bfloat16, ["cuDNN 9.10 may compute"]),
        ("2.8.0+cu128", 91002, torch.float16, []),
        ("2.7.1+cu128", 90701, torch.bfloat16, []),
        ("2.10.0+cu130", 91501, torch.bfloat16, []),
        ("2.13.0+cpu", None, torch.bfloat16, []),
    ],
)
def test_versions_that_convolve_wrongly_are_told_once_each(torch_version, cudnn, dtype, told):
    lines = list(known_faults(torch_version, cudnn, {dtype}))
    assert len(lines) == len(told) and all(fact in line for fact, line in zip(told, lines, strict=True))
    assert all("install PyTorch 2.10 or newer" in line for line in lines)


def test_words_outside_the_vocabulary_are_listed(model):
    made = model.unread(["a red figure does a somersault, Quickly", "a red figure waves"])
    assert made == {"a red figure does a somersault, Quickly": ["does not know somersault, Quickly"]}


def test_catalogue_facts_and_licences():
    assert set(CATALOG) == {
        "puppet", "framepack-f1", "framepack", "hunyuanvideo", "wan2.2-5b", "wan2.2-a14b", "wan2.1-1.3b",
        "wan2.2-svi-pro", "wan2.2-svi",
        "helios", "fake",
    }  # fmt: skip
    assert [CATALOG[n].family.order for n in ("framepack-f1", "framepack")] == ["forward", "inverted"]
    assert "United Kingdom" in CATALOG["framepack"].licence


@pytest.fixture
def big(model):
    """FramePack's shapes in bf16, without weights."""
    with torch.device("meta"):
        transformer = HunyuanVideoFramepackTransformer3DModel(has_image_proj=True, has_clean_x_embedder=True)
        vae = AutoencoderKLHunyuanVideo().to(torch.bfloat16)
    return replace(model, transformer=transformer.to(torch.bfloat16), vae=vae, dtype=torch.bfloat16)


def work(model, size=(640, 608)):
    return Demand(model=model, context=slots("forward", 3, 4), latents=9, size=size)


def test_the_memory_estimates_are_framepacks_counts(big):
    # live tensors counted on the meta device at 640x608: 25.75 GB of weights and 0.49 of VAE, 1.91 in a pass; in the
    # streaming decoder 16.1 whole, less than 2 in tiles whose state waits elsewhere
    at = {preset: work(big).need(preset).total / 1e9 for preset in PRESETS}
    assert at["full"] == pytest.approx(25.75 + 0.49 + 16.1, rel=0.03)
    assert 25.75 + 0.49 + 2 < at["tiled"] < 25.75 + 0.49 + 3
    assert 0.49 + 2 < at["offload"] < 5


@pytest.mark.parametrize(("gigabytes", "placement"), [(48, "full"), (30, "tiled"), (4, "offload"), (3, None)])
def test_the_fastest_that_fits_is_taken(big, gigabytes, placement):
    assert placement_that_fits(work(big), gigabytes * 10**9) == placement


def test_as_many_blocks_stay_as_the_memory_takes(big):
    """Of 20 double blocks and 40 single ones: 679.6 and 283.2 MB, what is in neither 0.83 GB."""
    stayed = []
    for limit in (6e9, 12e9, 20e9, 24e9):
        count = placement_that_fits(work(big), limit)
        assert work(big).need(count).total <= limit < work(big).need(count + 1).total
        blocks = [*big.transformer.transformer_blocks, *big.transformer.single_transformer_blocks]
        there = [block in big.staying(count) for block in blocks]
        assert sum(there) == count and abs(sum(there[:20]) - count / 3) < 1, "they are spread evenly"
        stayed.append(count)
    assert stayed == sorted(set(stayed)) and stayed[0] > 0
    assert work(big).need(0).weights / 1e9 == pytest.approx(0.49 + 0.83 + 2 * 0.68, rel=0.02)


def test_what_was_asked_for_is_taken_or_refused_with_what_fits(big):
    assert choose_placement(work(big)) == "full", "no GPU, no limit"
    assert choose_placement(work(replace(big, memory="tiled"))) == "tiled"
    assert choose_placement(work(replace(big, memory="44 GB"))) == "full"
    assert isinstance(choose_placement(work(replace(big, memory="20GiB"))), int)
    said = r"memory=3GB: memory=offload takes about 2\.9 GiB at 640x608; `size: \[(\d+), (\d+)\]` fits"
    with pytest.raises(fr.RenderError, match=said) as refused:
        choose_placement(work(replace(big, memory="3GB")))
    size = tuple(map(int, re.search(said, str(refused.value)).groups()))
    assert choose_placement(work(replace(big, memory="3GB"), size)) == "offload"
    with pytest.raises(fr.RenderError, match="too much at any size"):
        choose_placement(work(replace(big, memory="100MB")))


@pytest.mark.parametrize("memory", ["ful", "20 parsecs", "", "-3GB", "nanGB"])
def test_amounts_of_memory_that_are_none_are_refused(tiny, memory):
    with pytest.raises(
        ModelError, match=f"memory={memory}: unknown; use auto, full, tiled, offload, or an amount such"
    ):
        load(str(tiny), device="cpu", memory=memory)


@pytest.mark.parametrize(("memory", "cure"), [("20", "20GiB"), (20, "20GiB"), ("21474836480", "21474836480B")])
def test_an_amount_of_memory_without_a_unit_is_answered_with_one(tiny, memory, cure):
    with pytest.raises(ModelError, match=f"memory={memory}: has no unit; write {cure}$"):
        load(str(tiny), device="cpu", memory=memory)


def test_advice_on_a_full_gpu_names_what_fits(big):
    assert "memory=tiled takes about 26.7 GiB" in advice(work(big))
    told = advice(work(replace(big, memory="24GB", preset="tiled")))
    found = re.search(r"memory=(\S+GiB) takes about (\S+) GiB", told)
    again = choose_placement(work(replace(big, memory=found[1])))
    assert isinstance(again, int) and work(big).need(again).total / GIB == pytest.approx(float(found[2]), abs=0.06)
    assert "close what else uses the GPU" in advice(work(replace(big, memory="24GB", preset="offload")))
    wide = replace(big, memory="4GB", preset="offload")
    width, height = size_that_fits(work(wide, (1280, 720)), "offload", 4 * 10**9)
    assert f"`size: [{width}, {height}]` fits" in advice(work(wide, (1280, 720)))
    assert width % 16 == height % 16 == 0 and width / height == pytest.approx(1280 / 720, rel=0.1)
    assert "too much at any size" in advice(work(replace(big, memory="100MB", preset="offload")))


def test_no_weight_is_used_while_it_is_away(tiny, away):
    placed = load(str(tiny), device="cpu")
    placed.preset = "offload"
    looked_at = []

    def look(module, inputs, made):
        looked_at.append([tensor for tensor in made.values() if isinstance(tensor, torch.Tensor)])

    texts = placed.encode_prompts(["a red figure waves"])
    with placed.encoders("image_encoder", "feature_extractor") as pipe:
        pipe.image_encoder.register_forward_hook(look)
        pipe.encode_image(torch.rand(1, 3, 32, 32), device=placed.device)
    placed.place()
    assert any(torch.isnan(p).all() for p in placed.transformer.parameters()), "nothing is away"
    given = [tensor for text in texts.values() for tensor in text.values()]
    assert all(torch.isfinite(tensor).all() for tensor in (*given, *looked_at[0])) and len(looked_at[0]) == 2


def test_files_that_change_under_a_loaded_model_are_not_mixed_with_it(copy):
    loaded = load(str(copy), device="cpu")
    file = next((copy / "transformer").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ModelError, match="its files have changed since it was loaded; load it again"):
        loaded.encode_prompts(["a red figure waves"])


def test_weights_that_come_for_their_turn_give_the_same_film(board, model, tiny, tmp_path):
    story = board("  - {id: a, prompt: a red figure waves, seconds: 2.4, intensity: 0.9}", "size: [48, 32]")
    films = {}
    for preset in PRESETS:
        placed = fr.load(str(tiny), device="cpu", memory=preset)
        placed.vae.enable_tiling(tile_sample_min_height=32, tile_sample_min_width=32, tile_sample_stride_height=16,
                                 tile_sample_stride_width=16)  # fmt: skip
        films[preset] = fr.render(story, out=tmp_path / preset, model=placed)
        hooked = any(hasattr(part, "_diffusers_hook") for part in placed.transformer.modules())
        assert (films[preset].report["memory"], hooked) == (preset, preset == "offload")
    for preset in ("tiled", "offload"):
        assert sections(films[preset].folder) == sections(films["full"].folder)
    assert packets(films["tiled"].path) == packets(films["offload"].path) != packets(films["full"].path)
