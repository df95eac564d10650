"""LoRA of a board: the bits of diffusers' own loader, part of every key, and off again without a trace."""

import json

import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline
from faults import here
from peft import LoraConfig
from PIL import Image
from safetensors.torch import load_file, save_file
from test_wan import PROMPTS, SIZE, STEPS, planned, sampled, stock
from wan_folders import experts_folder, wan_folder

import framepack_relax as fr
from framepack_relax.errors import ModelError, StoryboardError
from framepack_relax.families.adapters import Adapter, Fit
from framepack_relax.families.loader import load

pytestmark = pytest.mark.usefixtures("one_thread")


def lora_file(transformer, file, seed=3, *, layers=("to_q", "to_v"), rank=2):
    """Of queries and of values, with strong random weights, as diffusers writes it."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=[*layers], init_lora_weights=False)
    transformer.add_adapter(config)
    transformer.save_lora_adapter(file.parent, weight_name=file.name)
    transformer.unload_lora()
    return file


def adapter(file, scale=1.0, network="transformer", digest="d"):
    fit = Fit(file=file.name, network=network)
    return Adapter(place="lora[0].file", file=file, digest=digest, scale=scale, fit=fit)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = wan_folder(tmp_path_factory.mktemp("models") / "wan", expand=False)
    made = load(str(folder), device="cpu")
    return folder, made, lora_file(made.transformer, tmp_path_factory.mktemp("lora") / "a.safetensors")


def with_lora(kind, folder, files, **given):
    """What the stock pipeline makes with these: (file, scale, whether it is the second transformer's)."""

    class Loaded(kind):
        def __call__(self, *args, **kwargs):
            for nth, (file, scale, second) in enumerate(files):
                network = self.transformer_2 if second else self.transformer
                network.load_lora_adapter(str(file), prefix=None, adapter_name=f"{nth}", use_safetensors=True)
                network.set_adapters([f"{nth}"], [scale])
            return super().__call__(*args, **kwargs)

    return stock(Loaded, folder, **given)


@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_a_lora_gives_the_bits_of_diffusers_and_none_are_left_when_it_is_off(model, scale):
    folder, wan, file = model
    plan, identity = planned(wan, 1.0), wan.identity
    plain, noise = sampled(wan, plan)
    wan.adapters = (adapter(file, scale),)
    wan.place()
    made = sampled(wan, plan)[0]
    wanted = with_lora(WanPipeline, folder, [(file, scale, False)], num_frames=plan.frames, latents=noise[0])
    assert torch.equal(made[0].latents, wanted) and not torch.equal(made[0].latents, plain[0].latents)
    wan.adapters = ()
    wan.place()
    assert torch.equal(sampled(wan, plan)[0][0].latents, plain[0].latents) and wan.identity == identity


def test_a_file_with_the_makers_own_names_as_diffsynth_writes_them_is_the_same(model, tmp_path):
    _, wan, file = model
    names = {
        "transformer.": "",
        ".attn1.to_": ".self_attn.",
        ".attn2.to_": ".cross_attn.",
        ".weight": ".default.weight",
    }
    said = load_file(file)
    for theirs, own in names.items():
        said = {key.replace(theirs, own): x for key, x in said.items()}
    assert "blocks.0.self_attn.q.lora_A.default.weight" in said
    save_file(said, tmp_path / "own.safetensors")
    plan, made = planned(wan, 1.0), []
    for each, scale in ((file, 0.5), (tmp_path / "own.safetensors", 1.0)):  # which knows nothing of the alpha, 2 r
        wan.adapters = (adapter(each, scale, digest=each.stem),)
        wan.place()
        made.append(sampled(wan, plan)[0][0].latents)
    wan.adapters = ()
    wan.place()
    assert torch.equal(*made)


def test_an_identity_is_the_models_own_while_a_lora_is_on(model):
    _, wan, file = model
    wan.adapters = (adapter(file),)
    wan.place()
    assert wan.identity == wan.weights and not hasattr(wan.transformer, "peft_config")
    wan.adapters = ()


@pytest.mark.parametrize("preset", ["offload", 0, 1])
def test_weights_that_come_for_their_turn_have_it_too(model, preset):
    folder, wan, file = model
    plan = planned(wan, 1.0)
    other = load(str(folder), device="cpu")
    other.preset = preset
    other.encode_prompts(PROMPTS)
    other.place()
    other.adapters = wan.adapters = (adapter(file),)
    for each in (other, wan):
        each.place()
    assert torch.equal(sampled(other, plan)[0][0].latents, sampled(wan, plan)[0][0].latents)
    wan.adapters = ()
    wan.place()


def test_each_expert_takes_its_own(tmp_path):
    folder = experts_folder(tmp_path / "wan", image=True)
    wan = load(str(folder), device="cpu")
    files = [lora_file(wan.transformer, tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    Image.radial_gradient("L").resize(SIZE).convert("RGB").save(tmp_path / "hero.png")
    hero = Image.open(tmp_path / "hero.png")
    plan = planned(wan, 1.0, image=hero.filename, steps=STEPS)
    wan.adapters = (adapter(files[0], 0.7), adapter(files[1], 1.2, "transformer_2"))
    wan.place()
    made, noise = sampled(wan, plan, hero)
    put = [(files[0], 0.7, False), (files[1], 1.2, True)]
    given = {"image": hero, "num_frames": plan.frames, "latents": noise[0]}
    assert torch.equal(made[0].latents, with_lora(WanImageToVideoPipeline, folder, put, **given))


def test_a_film_with_a_lora_is_kept_by_the_files_bytes_and_scale(model, tmp_path):
    _, wan, file = model
    (tmp_path / "a.safetensors").write_bytes(file.read_bytes())
    scenes = [fr.Scene(id="a", prompt=PROMPTS[0], seconds=0.5)]
    notes = []

    def render(**fields):
        return fr.render(scenes, model=wan, out=tmp_path / "out", size=SIZE, steps=2, on_note=notes.append, **fields)

    plain = render()
    lora = [{"file": str(tmp_path / "a.safetensors"), "scale": 0.5}]
    first = render(lora=lora)
    assert plain.report["lora"] == [] and first.report["lora"][0]["changed"] == 8
    assert first.report["sections"][0]["lora"] == [{"file": lora[0]["file"], "scale": 0.5, "expert": None}]
    assert not first.report["sections"][0]["reused"]
    assert not any("layers of the transformer" in note for note in notes), "nothing is wrong"
    assert render(lora=lora).report["sections"][0]["reused"]
    (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    moved = [{"file": str(tmp_path / "b.safetensors"), "scale": 0.5}]
    assert render(lora=moved).report["sections"][0]["reused"], "the bytes are the same"
    assert not render(lora=[{**moved[0], "scale": 0.6}]).report["sections"][0]["reused"]


def board(tmp_path, lora):
    (tmp_path / "story.yaml").write_text(f"lora:\n  - {lora}\nscenes:\n  - {{id: a, prompt: x, seconds: 1}}\n")
    return tmp_path / "story.yaml"


def test_what_is_wrong_with_a_lora_is_one_message_at_its_place(model, tmp_path, monkeypatch):
    folder, _, file = model
    save_file({"transformer.other.to_q.lora_A.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "a.ckpt").write_text("a pickle")
    broken = load_file(tmp_path / file)
    next(iter(broken.values()))[0, 0] = torch.nan
    save_file(broken, tmp_path / "nan.safetensors")
    for lora, told in (
        ("{file: gone.safetensors}", "story.yaml:2:12: lora[0].file: gone.safetensors: no such file"),
        ("{file: a.ckpt}", "lora[0].file: a.ckpt: is no .safetensors file"),
        (f"{{file: {file}, expert: low}}", "lora[0].expert: "),
        ("{file: gone.safetensors, expert: low}", "lora[0].expert: "),
        ("{file: other.safetensors}", "lora[0].file: other.safetensors: matches no layer of the transformer"),
        ("{file: text.safetensors}", "lora[0].file: text.safetensors: "),
        ("{file: nan.safetensors}", "nan.safetensors holds NaN or infinity, and so would the film"),
    ):
        with pytest.raises((ModelError, StoryboardError)) as caught:
            fr.render(board(tmp_path, lora), model=str(folder), out=tmp_path / "out", size=SIZE, steps=2)
        two = "gone" in lora and "low" in lora  # mistakes
        assert told in str(caught.value) and len(str(caught.value).splitlines()) == 1 + two
    with pytest.raises(StoryboardError, match="fake has no weights"):
        fr.plan(board(tmp_path, "{file: other.safetensors}"), model="fake")
    monkeypatch.setattr("framepack_relax.families.adapters.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"lora\[0\].file: LoRA need PEFT"):
        fr.render(board(tmp_path, f"{{file: {file}}}"), model=str(folder), out=tmp_path / "out")


def test_a_lora_that_is_nowhere_ends_with_code_2(model, tmp_path):
    done = here("render", board(tmp_path, "{file: gone.safetensors}"), "--model", model[0], "--out", tmp_path / "out")
    assert done.returncode == 2 and "lora[0].file: gone.safetensors: no such file" in done.stderr
    assert json.loads(json.dumps(done.stderr)).count("Traceback") == 0
