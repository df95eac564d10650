"""Prompts that are mixed around a border, and words that are attended to more: what passes see, limits, mistakes."""

import json
import re
from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from faults import here
from test_backend import PROMPTS, Shots, board, same

import framepack_relax as fr
from framepack_relax.families import attention
from framepack_relax.families.loader import load
from framepack_relax.planning.planner import make_plan
from framepack_relax.relax.effects import KeyGain, KVBlur, WordGain
from framepack_relax.relax.guidance import Branch
from framepack_relax.rendering.keys import section_keys
from framepack_relax.storyboard import storyboard_from_scenes
from framepack_relax.storyboard.words import find_words

NETWORKS = ("framepack", "hunyuanvideo", "wan", "wan experts", "helios")
SHORT, LONG = "a red figure waves", "a blue figure does a backflip on the beach, then a figure jumps"
COND, UNCOND = Branch(name="cond"), Branch(name="uncond", prompt="negative")


@pytest.fixture(scope="module", params=(*NETWORKS, "fake"))
def backend(request, folder_of):
    return load(folder_of(request.param), device="cpu")


@pytest.fixture
def shots(backend, tmp_path):
    return Shots(backend, board(tmp_path, backend, 1))


def tensors(text):
    return list(text.values()) if isinstance(text, dict) else [torch.as_tensor(text)]


def alike(one, other):
    return all(torch.equal(*pair) for pair in zip(tensors(one), tensors(other), strict=True))


def test_limits_of_a_mixture(backend):
    encoded = backend.encode_prompts([SHORT, LONG])
    for one, other in ((SHORT, LONG), (LONG, SHORT)):
        one, other = encoded[one], encoded[other]
        assert alike(backend.blended(one, other, 0), one) and alike(backend.blended(one, other, 1), other)
        for weight in (0.1, 1 / 3, 0.5, 0.9):
            assert alike(backend.blended(one, one, weight), one)
            mixed = backend.blended(one, other, weight)
            assert not alike(mixed, one) and not alike(mixed, other)
            swapped = zip(tensors(mixed), tensors(backend.blended(other, one, 1 - weight)), strict=True)
            assert all(torch.allclose(*pair, atol=1e-6) for pair in swapped), "who is first does not matter"


def passed(shots, text, effects=(), branch=COND, words=None):
    """One pass's velocity that reads this text, as the backend encodes it."""
    section = shots.plan.sections[0]
    noise, steps = shots.noise(section), [replace(step, effects=tuple(effects)) for step in section.steps]
    shots.prompts = {**shots.prompts, section.prompt: text}
    inputs = shots.begin(section, noise, {}, steps)
    inputs = inputs if words is None else replace(inputs, words=words)
    with shots.model.acting(tuple(effects), inputs):
        return shots.model.predict(noise, steps[0], branch, inputs)


@pytest.mark.parametrize("backend", ["framepack", "hunyuanvideo"], indirect=True)
def test_a_mixture_reads_no_padding_and_all_words(backend, shots):
    encoded = backend.encode_prompts([SHORT, LONG])
    lengths = {text: int(said["encoder_attention_mask"].sum()) for text, said in encoded.items()}
    assert 0 < lengths[SHORT] < lengths[LONG]

    def mixed(change=lambda embeds, length: None):
        texts = []
        for text in (SHORT, LONG):
            said = {name: x.clone() for name, x in encoded[text].items()}
            change(said["encoder_hidden_states"][0], lengths[text])
            texts.append(said)
        return backend.blended(*texts, 1 / 3)

    assert int(mixed()["encoder_attention_mask"].sum()) == lengths[LONG]
    plain = passed(shots, mixed())
    assert torch.equal(plain, passed(shots, mixed(lambda embeds, length: embeds[length:].fill_(9.0))))
    for token in range(lengths[LONG]):
        change = passed(shots, mixed(lambda embeds, n, at=token: embeds[at].add_(n == lengths[LONG])))
        assert not torch.equal(plain, change), token


@pytest.mark.parametrize("backend", NETWORKS, indirect=True)
def test_words_are_found_where_the_encoder_reads_them(backend):
    tokenizer = load_tokenizer(backend)
    text = "a figure waves,  then A  Red figure jumps; red flags"
    found = backend.word_tokens(text, ["red", "figure", "a red figure", "flags"])
    before, after = backend.template.split("{}")
    ids = tokenizer(before + backend.readable(text) + after).input_ids[backend.cropped :]
    known = {name: [tokenizer.convert_ids_to_tokens(ids[token]) for token in at] for name, at in found.items()}
    assert known["figure"] == ["figure"] * 2 and known["red"] == ["red"] * 2
    assert known["a red figure"] == ["a", "red", "figure"] and len(known["flags"]) == 1
    assert backend.word_tokens("x " * 600 + "jumps", ["jumps"]) == {"jumps": []}


def load_tokenizer(backend):
    from framepack_relax.families.components import load_part

    return load_part(backend.source, "tokenizer", backend.dtype)


@pytest.mark.parametrize("backend", ["framepack", "hunyuanvideo"], indirect=True)
def test_in_joint_attention_the_sections_queries_attend_as_without_the_words_when_their_gain_is_0(
    backend, shots, monkeypatch
):
    """The keys whose weight goes to nothing are the words': text stands at the end of all keys."""
    seen = []

    def spy(query, key, value, attn_mask=None, **options):
        if attn_mask is not None and attn_mask.is_floating_point():
            biased = attn_mask[0, 0, 0] < -50
            there = attn_mask[0, 0, 0] > -torch.inf
            seen.append((biased & there).nonzero().flatten().tolist())
            keep = ~biased
            return dispatch_attention_fn(query, key[:, keep], value[:, keep], attn_mask=None, **options)
        return dispatch_attention_fn(query, key, value, attn_mask=attn_mask, **options)

    text = shots.prompts[PROMPTS[0]]
    gone = passed(shots, text, [WordGain(words="waves", gain=1e-30)])
    plain = passed(shots, text)
    monkeypatch.setattr(attention, "dispatch_attention_fn", spy)
    assert torch.allclose(gone, passed(shots, text, [WordGain(words="waves", gain=1e-30)]), atol=1e-5)
    assert not torch.allclose(gone, plain, atol=1e-3)
    (token,) = backend.word_tokens(PROMPTS[0], ["waves"])["waves"]
    section, mask = shots.plan.sections[0], text["encoder_attention_mask"]
    video = backend.tokens(section.context, section.latents, shots.plan.size)
    images = 0 if backend.family.kind == "hunyuanvideo" else shots.starts[0].embeds.shape[1]
    assert int(mask.sum()) > token and {tuple(keys) for keys in seen} == {(video + images + token,)}


@pytest.mark.parametrize("backend", ["wan", "wan experts", "helios"], indirect=True)
def test_in_cross_attention_words_of_gain_0_are_as_if_they_were_not_there(backend, shots):
    text = shots.prompts[PROMPTS[0]]
    (token,) = backend.word_tokens(PROMPTS[0], ["waves"])["waves"]
    gone = passed(shots, text, [WordGain(words="waves", gain=1e-30)])
    without = torch.cat([text[:, :token], text[:, token + 1 :]], dim=1)
    assert torch.allclose(gone, passed(shots, without), atol=1e-5)
    assert not torch.allclose(gone, passed(shots, text), atol=1e-3)


@pytest.mark.parametrize("backend", NETWORKS, indirect=True)
def test_gains_act_on_the_prompt_alone_and_beside_other_effects(backend, shots):
    text, gain = shots.prompts[PROMPTS[0]], WordGain(words="waves", gain=4.0)
    assert torch.equal(passed(shots, text, branch=UNCOND), passed(shots, text, [gain], branch=UNCOND))
    acting = (KVBlur(sigma=0.6), KeyGain(gain=0.5)) if backend.family.kind == "framepack" else (KVBlur(sigma=0.6),)
    for other in (acting[:1], acting):
        both = passed(shots, text, [*other, gain])
        assert all(not torch.equal(both, passed(shots, text, one)) for one in ([], other, [gain]))
    twice = [replace(gain, gain=2.0), WordGain(words="figure waves", gain=2.0)]
    words = {"waves": [3], "figure waves": [3]}
    made = passed(shots, text, twice, words=words), passed(shots, text, [gain], words=words)
    assert torch.allclose(*made, atol=1e-5), "gains of one token multiply"


BOARD = """\
model: fake
negative_prompt: blurry
scenes:
- {id: a, prompt: a man stands, seconds: 1}
- {id: b, prompt: a man runs far, seconds: 1, transition: {blend: 2}}
- {id: c, prompt: a man jumps, seconds: 0.9}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "story.yaml"
    path.write_text(BOARD)
    return path


def keys(file):
    plan = fr.plan(file)
    return [key.key for _, key in sorted(section_keys(plan, {}, "w", "float32").items())]


def test_the_plan_says_what_is_read_and_how_much_of_it(file):
    text = BOARD.replace("seconds: 1", "seconds: 4").replace("blend: 2", "blend: 4")
    file.write_text(text)
    rows = json.loads(here("plan", file, "--json").stdout)["sections"]
    mixed = {row["index"]: row["blend"] for row in rows if "blend" in row}
    first = min(row["index"] for row in rows if row["scene"] == "b")
    assert {index - first: round(blend["weight"], 3) for index, blend in mixed.items()} == {
        -2: 0.2, -1: 0.4, 0: 0.4, 1: 0.2,
    }  # fmt: skip
    assert {blend["prompt"] for index, blend in mixed.items() if index < first} == {"a man runs far"}
    assert {blend["prompt"] for index, blend in mixed.items() if index >= first} == {"a man stands"}
    assert all(blend["negative_prompt"] == "blurry" for blend in mixed.values())
    assert re.search(r"60% of this, 40% of: a man runs far", here("plan", file).stdout)


def test_what_is_not_used_changes_no_key(file):
    blended, plain = keys(file), BOARD.replace(", transition: {blend: 2}", "")
    file.write_text(plain)
    usual = keys(file)
    assert len(usual) == len(blended) and usual[0] != blended[0] and usual[1] != blended[1]
    file.write_text(plain.replace("seconds: 0.9", "seconds: 0.9, emphasis: [{words: jumps, gain: 1}]"))
    assert keys(file) == usual and fr.plan(file).passes == (before := fr.plan(file)).passes
    file.write_text(plain.replace("seconds: 0.9", "seconds: 0.9, emphasis: [{words: Jumps, gain: 2.5}]"))
    made = fr.plan(file)
    assert [one == other for one, other in zip(keys(file), usual, strict=True)] == [True, True, False]
    assert made.passes == before.passes and made.sections[-1].emphasis == {"Jumps": 2.5}
    same_words = BOARD.replace("a man runs far", "a man stands")
    file.write_text(same_words)
    assert all(section.blend is None for section in fr.plan(file).sections), "both say the same"


def test_a_film_of_them_resumes_and_reports(file, tmp_path):
    file.write_text(BOARD.replace("seconds: 0.9", "seconds: 0.9, intensity: 0.9, emphasis: [{words: jumps, gain: 2}]"))
    assert here("render", file, "--out", tmp_path / "out").returncode == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())["sections"]
    assert [row.get("blend", {}).get("prompt") for row in report] == ["a man runs far", "a man stands", None]
    assert report[-1]["emphasis"] == {"jumps": 2} and "emphasis" not in report[0]
    again = here("render", file, "--out", tmp_path / "out", "--dry-run")
    assert "3 of 3 sections are kept" in again.stdout
    assert "x 2" in here("plan", file).stdout
    file.write_text((tmp_path / "out" / "story.yaml").read_text())
    assert "{blend" in file.read_text().replace('"', "") or "blend: 2" in file.read_text()
    assert fr.plan(file).sections[0].blend == fr.plan(tmp_path / "out" / "story.yaml").sections[0].blend


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("a man stands, ", "a man stands, transition: {blend: 2}, ", r"4:45: scenes\[0\].transition: the first scene"),
        ("blend: 2", "blend: 3", r"blend: is 3; half of them are on each side of the border: write 2 or 4"),
        ("blend: 2", "blend: 0", r"blend: is 0; must be between 2 and 100"),
        ("{blend: 2}", "3", r"transition: is .3.; known are continue, cut, \{blend: 2\}"),
        ("{blend: 2}", "blend", r"transition: is 'blend'; known are continue, cut, \{blend: 2\}"),
        ("blend: 2", "blend: 4", r"scenes\[1\].transition.blend: of scene a blends take 2 sections, and it has 1"),
        ("{blend: 2}", "{blend: 2, cut: 1}", r"transition.cut: unknown field"),
        ("seconds: 0.9", "seconds: 0.9, transition: {blend: 2}", r"transition.blend: of scene b blends take 2"),
        ("far, ", "far, image: x.png, ", r"scenes\[1\].image: an image starts a new shot; add `transition: cut`"),
        ("model: fake", "model: hunyuanvideo", r"scenes\[1\].transition: .* write `transition: cut`"),
        ("seconds: 0.9", "seconds: 0.9, blend: 2", r"blend: unknown field; write `transition: \{blend: ..\}`"),
        ("seconds: 0.9", "seconds: 0.9, emphasis: [{words: jump, gain: 2}]", r"6:.*jump. is not .* mean 'jumps'"),
        ("seconds: 0.9", "seconds: 0.9, emphasis: [{words: zebra, gain: 2}]", r"write words as they stand in it"),
        ("seconds: 0.9", "seconds: 0.9, emphasis: [{words: jumps, gain: 0}]", r"gain: is 0; must be above 0"),
    ],
)  # fmt: skip
def test_mistakes_are_located(file, old, new, said):
    assert BOARD.count(old) == 1 or old == "seconds: 0.9"
    file.write_text(BOARD.replace(old, new))
    done = here("plan", file)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(said, " ".join(done.stderr.split())), done.stderr


def test_a_blend_too_long_for_both_scenes_is_one_message(file):
    file.write_text(BOARD.replace("blend: 2", "blend: 20"))
    (line,) = here("plan", file).stderr.splitlines()
    assert "of scene a blends take 10 sections, and it has 1; of scene b blends take 10 sections" in line


def test_words_that_are_not_read_are_told(board, tmp_path, model):
    file = board(
        "  - {id: a, prompt: %s jumps, seconds: 1.2, emphasis: [{words: jumps, gain: 2}]}\n" % ("waves " * 300)
    )
    told = []
    fr.render(file, out=tmp_path / "out", model=model, on_note=told.append)
    assert any(re.search("scene a: emphasis: 'jumps' stands where the model no longer reads", text) for text in told)


def test_kernels_without_weights_of_keys_are_refused(file):
    file.write_text(BOARD.replace("seconds: 0.9", "seconds: 0.9, emphasis: [{words: jumps, gain: 2}]"))
    model = replace(load("fake"), attention="_native_flash")
    with pytest.raises(fr.ModelError, match="attention=_native_flash does not go with emphasis"):
        fr.render(file, model=model, out=file.parent / "out")


@pytest.mark.parametrize(
    ("text", "words", "found"),
    [
        ("A backflip, then a Flip", "flip", ["Flip"]),
        ("男がジャンプする", "ジャンプ", ["ジャンプ"]),
        ("turns  around. TURNS AROUND", "turns around", ["turns  around", "TURNS AROUND"]),
        ("3.5 (x)", "(x)", ["(x)"]),
        ("no such", "word", []),
    ],
)
def test_words_in_a_text(text, words, found):
    assert [text[first:end] for first, end in find_words(text, words)] == found


def test_sampled_sections_read_the_mixture(tmp_path, model):
    """A section with its neighbour's prompt mixed in is another than without, and the outer ones are the same."""
    story = board(tmp_path, model, 2)
    other = story.scenes[1].model_copy(update={"prompt": "a red figure jumps"})
    plain = storyboard_from_scenes([story.scenes[0], other], size=story.size, steps=1, image=story.image)
    made = storyboard_from_scenes(
        [story.scenes[0], fr.Scene(**{**dict(other), "transition": {"blend": 2}})], size=story.size, steps=1,
        image=story.image,
    )  # fmt: skip
    films = [list(fr.stream(each, model=model, out=tmp_path / name)) for name, each in (("a", plain), ("b", made))]
    assert not torch.equal(films[0][0].latents, films[1][0].latents)
    assert not same(*({i: f.latents for i, f in enumerate(film)} for film in films))
    assert make_plan(made, model.family).sections[0].blend.weight == pytest.approx(1 / 3)
