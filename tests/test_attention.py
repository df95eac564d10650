"""The context is kept, off is off, and everything can be taken out again, on a real small transformer."""

import math

import pytest
import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn

import framepack_relax.families.attention as attention
from framepack_relax.families.attention import AttentionEdit, attention_edit
from framepack_relax.families.backend import Given, Start
from framepack_relax.families.base import Step
from framepack_relax.families.framepack.backend import packed_segments
from framepack_relax.families.framepack.history import slots
from framepack_relax.families.hunyuan_video.attention import EditedProcessor, edited_attention
from framepack_relax.relax.guidance import Branch
from framepack_relax.relax.profile import paper_profile
from framepack_relax.relax.unlearning import Blur

GRID = (6, 10)  # latent pixels whose 2x and 4x grids need padding


@pytest.fixture(scope="module")
def call(model):
    """A forward pass with everything in it; section 2 of a forward shot."""
    generator = torch.Generator().manual_seed(0)

    def noise(frames):
        return torch.randn(1, model.latent_channels, frames, *GRID, generator=generator)

    start = Start(latent=noise(1), embeds=torch.randn(1, 4, 16, generator=generator))
    text = model.encode_prompts(["a red figure jumps"])["a red figure jumps"]
    x, step = noise(9), Step(index=0, sigma=0.8, timestep=800.0, scales={"embedded": 6.0})
    given = Given(
        noise=x, context=slots("forward", 2, 4), steps=[step], past={0: noise(9), 1: noise(9)}, start=start,
        prompt=text, negative=text, options={"order": "forward", "adain": 0.0},
    )  # fmt: skip
    inputs = model.begin(given)

    def run(edit=None):
        with edited_attention(model.transformer, edit):
            return model.predict(x, step, Branch(name="cond"), inputs)

    return run


@pytest.fixture(scope="module")
def segments():
    return packed_segments(slots("forward", 2, 4), *GRID)


def edit_at(relaxation, segments, sigma):
    return attention_edit(relaxation.effects(sigma), segments)


def edits(segments):
    blur = Blur.over(segments, sigma_blur=0.6, scope="section")
    relaxation = paper_profile(embedded=True).relaxation(1.0)
    return {
        "blur": AttentionEdit(blur=blur),
        "pre_rope": AttentionEdit(blur=blur, space="pre_rope"),
        "bias": edit_at(_with(relaxation, blur=0.0, history_gain=0.5), segments, 0.9),
    }


def _with(relaxation, **fields):
    from dataclasses import replace

    return replace(relaxation, **fields)


def test_the_layout_counts_the_tokens_of_the_transformer(model, call, segments):
    seen = []
    hook = model.transformer.transformer_blocks[0].register_forward_pre_hook(lambda m, a: seen.append(a[0].shape[1]))
    call()
    hook.remove()
    assert seen == [sum(segment.tokens for segment in segments)]


def test_an_empty_edit_gives_the_stock_processors_bits(call):
    assert torch.equal(call(AttentionEdit()), call())


@pytest.mark.parametrize("name", ["blur", "pre_rope", "bias"])
def test_an_edit_acts_and_leaves_nothing_behind(model, call, segments, name):
    before = call()
    processors = [m.processor for m in model.transformer.modules() if hasattr(m, "processor")]
    edited = call(edits(segments)[name])
    assert not torch.equal(edited, before) and torch.isfinite(edited).all()
    assert all(a is b for a, b in zip(processors, _processors(model), strict=True))
    assert torch.equal(call(), before)


def test_an_error_inside_leaves_nothing_behind(model, segments):
    processors = _processors(model)
    with pytest.raises(ZeroDivisionError), edited_attention(model.transformer, edits(segments)["blur"]):
        assert any(isinstance(p, EditedProcessor) for p in _processors(model))
        raise ZeroDivisionError
    assert all(a is b for a, b in zip(processors, _processors(model), strict=True))


def _processors(model):
    return [m.processor for m in model.transformer.modules() if hasattr(m, "processor")]


@pytest.mark.parametrize("space", ["post_rope", "pre_rope"])
def test_context_and_text_keys_and_values_are_bit_equal_with_blur_on_and_off(model, call, segments, space, monkeypatch):
    """Per block, for the same input hidden states: each block is run twice on what it is given."""
    blur = Blur.over(segments, sigma_blur=0.6, scope="section")
    section = segments[-1].tokens
    video = sum(segment.tokens for segment in segments)
    caught = []

    def spy(query, key, value, **options):
        caught.append((key, value))
        return dispatch_attention_fn(query, key, value, **options)

    monkeypatch.setattr(attention, "dispatch_attention_fn", spy)
    compared = 0

    def twice(module, args, kwargs):
        nonlocal compared
        results = []
        for edit in (AttentionEdit(), AttentionEdit(blur=blur, space=space)):
            caught.clear()
            EditedProcessor(edit, stock)(module, *args, **kwargs)
            results.append(caught[0])
        for off, on in zip(*results, strict=True):
            context = [slice(0, video - section), slice(video, None)]
            assert all(torch.equal(off[:, rows], on[:, rows]) for rows in context)
            assert not torch.equal(off[:, video - section : video], on[:, video - section : video])
        compared += 1

    blocks = [*model.transformer.transformer_blocks, *model.transformer.single_transformer_blocks]
    stock = blocks[0].attn.processor
    hooks = [block.attn.register_forward_pre_hook(twice, with_kwargs=True) for block in blocks]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    assert compared == len(blocks) >= 2


def test_keys_and_values_can_be_blurred_alone(call, segments):
    blur = Blur.over(segments, sigma_blur=0.6, scope="section")
    made = {of: call(AttentionEdit(blur=blur, blur_of=of)) for of in ("kv", "k", "v")}
    plain = call()
    seen = [plain, *made.values()]
    assert all(not torch.equal(a, b) for n, a in enumerate(seen) for b in seen[:n])
    assert torch.equal(made["kv"], call(AttentionEdit(blur=blur)))


def test_a_bias_holds_for_the_keys_that_it_names(segments):
    def keys(on):
        relaxation = _with(paper_profile(embedded=True).relaxation(1.0), blur=0.0, history_gain=0.3, gain_on=on)
        row = edit_at(relaxation, segments, 0.9).bias.keys
        assert set(row.tolist()) <= {0.0, math.log(0.3)}
        return set(row.nonzero().flatten().tolist())

    near = segments[-2]
    step = near.height * near.width
    first = segments[0].tokens + segments[1].tokens
    assert keys("reference") == {*range(first, first + step)}, "the start image"
    assert keys("all") == keys("history") | keys("reference") and not keys("history") & keys("reference")
    assert len(keys("all")) == first + 2 * step


@pytest.mark.parametrize("words", range(8))
def test_bias_equals_the_softmax_with_log_gamma_added(segments, words, monkeypatch):
    """And its strides are what xformers takes, whatever the number of keys."""
    biases = []

    def spy(query, key, value, attn_mask, **options):
        if attn_mask is not None:  # as the xformers backend hands it on
            biases.append(attn_mask.expand(1, query.shape[2], query.shape[1], key.shape[1]))
        return dispatch_attention_fn(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(attention, "dispatch_attention_fn", spy)
    edit = edit_at(_with(paper_profile(embedded=True).relaxation(1.0), blur=0.0, history_gain=0.3), segments, 0.9)
    video = sum(segment.tokens for segment in segments)
    q, k, v = (torch.randn(1, video + words, 2, 8, dtype=torch.float64) for _ in range(3))
    stock = type("Stock", (), {"_attention_backend": None, "_parallel_config": None})
    made = EditedProcessor(edit, stock).attend(q, k, v, None)
    logits = torch.einsum("blnh,bmnh->bnlm", q, k) / math.sqrt(8)
    section = slice(video - segments[-1].tokens, video)
    near = slice(section.start - segments[-1].height * segments[-1].width, section.start)
    coarse = slice(0, near.start - segments[-1].height * segments[-1].width)
    for keys in (near, coarse):
        logits[:, :, section, keys] += math.log(0.3)
    wanted = torch.einsum("bnlm,bmnh->blnh", logits.softmax(-1), v)
    assert torch.allclose(made, wanted, atol=1e-10)
    assert len(biases) == 1 and all(stride % 8 == 0 for stride in biases[0].stride()[:-1])
    assert biases[0].stride(-1) == 1 and biases[0].data_ptr() % 16 == 0


def test_a_bias_and_a_mask_leave_what_a_sequence_without_the_masked_keys_gives(segments):
    """In a batch whose texts differ in length each clip is the one that is made alone."""
    edit = edit_at(_with(paper_profile(embedded=True).relaxation(1.0), blur=0.0, history_gain=0.3), segments, 0.9)
    video = sum(segment.tokens for segment in segments)
    stock = type("Stock", (), {"_attention_backend": None, "_parallel_config": None})
    q, k, v = (torch.randn(2, video + 6, 2, 8, dtype=torch.float64) for _ in range(3))
    mask = torch.ones(2, 1, 1, video + 6, dtype=torch.bool)
    mask[1, ..., video + 4 :] = False
    made = EditedProcessor(edit, stock).attend(q, k, v, mask)
    for clip, length in ((0, video + 6), (1, video + 4)):
        alone = EditedProcessor(edit, stock).attend(*(x[clip : clip + 1, :length] for x in (q, k, v)), None)
        assert torch.allclose(made[clip : clip + 1, :length], alone, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "sigma", "acts"),
    [
        ({"blur": 0.0}, 0.9, False),
        ({"blur": 0.6}, 0.9, True),
        ({"blur": 0.6, "over_steps": "follow"}, 1e-4, False),
        ({"blur": 0.0, "history_gain": 0.5, "history_gain_above": 0.7}, 0.9, True),
        ({"blur": 0.0, "history_gain": 0.5, "history_gain_above": 0.7}, 0.7, False),
    ],
)
def test_attention_is_edited_only_while_there_is_something_to_do(segments, fields, sigma, acts):
    relaxation = _with(paper_profile(embedded=True).relaxation(1.0), **fields)
    edit = edit_at(relaxation, segments, sigma)
    assert (
        (edit is not None and edit.blur is not None and not _identity(edit.blur, segments))
        or (edit is not None and edit.bias is not None)
        if acts
        else edit is None or _identity(edit.blur, segments)
    )


def _identity(blur, segments):
    x = torch.randn(1, sum(segment.tokens for segment in segments), 1, 2)
    return blur is None or torch.equal(blur(x), x)
