"""Limits of the paper's equations (reference values: s_base 6, s_min 1) and of the blur on packed layouts."""

import math
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.free_init_utils import FreeInitMixin

from framepack_relax.families.framepack.backend import packed_segments
from framepack_relax.families.framepack.history import slots
from framepack_relax.relax.effects import ASKING
from framepack_relax.relax.guidance import branches, combine, relaxed_scale
from framepack_relax.relax.latents import SIGNAL, faded, low_pass, renewed
from framepack_relax.relax.profile import Profile, Relaxation, paper_profile, written
from framepack_relax.relax.unlearning import Blur, Segment, mixing_matrix
from framepack_relax.storyboard import Relax
from framepack_relax.storyboard.curves import CURVES, Steps
from framepack_relax.storyboard.reader import parse_as
from framepack_relax.storyboard.schema import Experimental


def eq2(sigma, *, beta, p, base=6.0, minimum=1.0):
    return relaxed_scale(sigma**p, base=base, minimum=minimum, beta=beta)


@pytest.mark.parametrize(("beta", "start"), [(0, 6), (0.5, 3.5), (0.75, 2.25), (1, 1), (-0.5, 8.5), (-1, 11)])
def test_eq2_begins_and_ends_where_the_paper_says(beta, start):
    for p in (0.7, 1.0, 2.1):
        assert eq2(1.0, beta=beta, p=p) == start
        assert eq2(0.0, beta=beta, p=p) == 6.0


def test_eq2_with_beta_0_is_the_identity_bit_for_bit():
    base = 0.1 + 0.2
    assert all(eq2(s, base=base, minimum=0.7, beta=0, p=0.3) == base for s in np.linspace(0, 1, 77))


def test_eq2_falls_with_sigma_and_p_orders_the_relaxation():
    grid = np.linspace(0, 1, 101)
    curves = [[eq2(s, beta=0.75, p=p) for s in grid] for p in (0.7, 1.0, 2.1)]
    for curve in curves:
        assert all(a >= b for a, b in pairwise(curve))
    assert all(a < b < c for a, b, c in list(zip(*curves, strict=True))[1:-1])


@pytest.mark.parametrize(
    ("beta", "p", "mean"), [(0.75, 0.7, 3.79), (1, 0.7, 3.06), (1, 1, 3.5), (1, 2.1, 4.39), (0.5, 0.7, 4.53)]
)
def test_the_mean_of_a_schedule_is_its_closed_form(beta, p, mean):
    middle = (np.arange(20_000) + 0.5) / 20_000
    average = np.mean([eq2(s, beta=beta, p=p) for s in middle])
    assert average == pytest.approx(6 - beta * (6 - 1) / (1 + p), abs=1e-5)
    assert average == pytest.approx(mean, abs=5e-3)


SIGMAS = [1.0, 0.9, 0.7, 0.4, 0.1]  # steps that cover .1, .2, .3, .3 and .1


def weights(schedule, p=2.0, interval=(0.0, 1.0)):
    return CURVES[schedule](Steps(at=SIGMAS, sigmas=SIGMAS, p=p, interval=interval))


@pytest.mark.parametrize("schedule", CURVES)
def test_a_curve_has_a_weight_a_step_from_0_to_1(schedule):
    made = weights(schedule, interval=(0.3, 0.8))
    assert len(made) == len(SIGMAS) and all(0 <= weight <= 1 for weight in made)
    said = Relax.model_validate({"experimental": {"schedule": schedule}}).said
    assert Relaxation(target=("text",), beta=1.0, p=2.0, interval=(0.3, 0.8), **said).weights(SIGMAS, SIGMAS) == made


def test_every_number_of_a_curve_can_be_said():
    numbers = {field.name for field in fields(Steps)} - {"at", "sigmas"}
    said = Relax.model_fields.keys() | Experimental.model_fields.keys()
    assert numbers <= said & {field.name for field in fields(Relaxation)}


@pytest.mark.parametrize("kind", ASKING)
def test_a_scene_that_asks_for_an_effect_is_not_at_rest_and_says_why(kind):
    field, off = ASKING[kind]
    rest, asking = (Relaxation(target=(), beta=0.0, p=1.0, **{field: value}) for value in (off, off + 1))
    assert rest.at_rest and rest.in_words() == "at rest"
    assert not asking.at_rest and asking.in_words() not in ("", "at rest")


def test_the_controls_are_constant_at_the_means_of_the_papers_schedule():
    assert weights("power") == pytest.approx([1, 0.81, 0.49, 0.16, 0.01])
    assert weights("mean") == pytest.approx([(1 + 0.81 + 0.49 + 0.16 + 0.01) / 5] * 5)
    assert weights("area") == pytest.approx([0.1 + 0.2 * 0.81 + 0.3 * 0.49 + 0.3 * 0.16 + 0.1 * 0.01] * 5)


def test_cosine_and_interval_have_their_limits():
    assert CURVES["cosine"](Steps(at=[1, 0.5, 0], sigmas=[1, 0.5, 0], p=9)) == pytest.approx([1, 0.5, 0])
    assert weights("interval", interval=(0.4, 0.9)) == [1, 0, 0, 0, 1]
    assert weights("interval", interval=(0.0, 1.0)) == [0] * 5, "everywhere inside: nothing is relaxed"


def test_low_pass_keeps_constants_and_slow_waves_and_takes_what_is_fine():
    x = torch.full((1, 2, 3, 8, 12), 3.0)
    assert torch.allclose(low_pass(x, 0.4), x) and low_pass(x, 1.0) is x
    checks = torch.tensor([1.0, -1.0]).repeat(6).expand(1, 1, 2, 8, 12)
    assert low_pass(checks, 0.5).abs().max() < 0.3
    ramp = torch.linspace(0, 1, 12).expand(1, 1, 2, 8, 12)
    assert (low_pass(ramp, 0.5) - ramp).abs().max() < 0.1
    frames = torch.stack([x[0], 5 * x[0]])
    assert torch.allclose(low_pass(frames, 0.5), frames), "frames and batches do not mix"


def test_a_profiles_levels_hold_from_their_intensity_on():
    profile = Profile(
        name="steps", threshold=0.2, points=((0.2, 0.0), (1.0, 0.8)), p=1.0, blur=0.0, target=("context",),
        levels=((0.6, Relax(history_gain=0.5, history_gain_above=0.7)), (0.9, Relax(beta=1.0, history_gain_above=0.0))),
    )  # fmt: skip
    assert profile.relaxation(0.2).at_rest
    assert [profile.relaxation(x).history_gain for x in (0.5, 0.6, 1.0)] == [1.0, 0.5, 1.0], "the last level alone"
    assert [profile.relaxation(x).beta for x in (0.6, 0.9)] == [pytest.approx(0.4), 1.0]
    assert [profile.relaxation(x).history_gain_above for x in (0.6, 0.9)] == [0.7, 0.0]


def test_a_profiles_file_speaks_as_a_storyboard_does():
    profile = parse_as(Profile, "name: mine\ntarget: context\np: sustained\nlevels: [[0.5, {p: rapid}]]", file="p")
    assert (profile.target, profile.p, profile.relaxation(0.5).p) == (("context",), 0.7, 2.1)


def test_what_is_written_of_a_relaxation_reads_back_to_it():
    made = replace(paper_profile(embedded=False).relaxation(0.6), min=1.2, history_gain=0.5, interval=(0.2, 0.9))
    assert Relaxation(**Relax(**written(made)).said) == made


VECTORS = {"cond": torch.tensor([3.0]), "uncond": torch.tensor([1.0]), "context": torch.tensor([7.0])}
ALG = VECTORS | {"sharp": torch.tensor([2.0])}


@pytest.mark.parametrize(
    ("text", "context", "value", "passes"),
    [
        (1.0, 1.0, 3.0, ("cond",)),
        (1.0 + 9e-4, 1.0, 3.0, ("cond",)),
        (4.0, 1.0, 1 + 4 * 2, ("cond", "uncond")),
        (1.0, 0.25, 3 + 0.75 * 4, ("cond", "context")),
        (1.0, 0.985, 3.0, ("cond",)),
        (4.0, 0.0, 1 + 4 * 2 + 4, ("cond", "uncond", "context")),
    ],
)
def test_guidance_composes_and_runs_only_passes_with_weight(text, context, value, passes):
    scales = {"embedded": 6, "text": text, "context": context}
    assert names(scales) == passes
    assert combine({name: VECTORS[name] for name in passes}, scales).item() == pytest.approx(value)


def names(scales, **options):
    return tuple(branch.name for branch in branches(scales, **options))


def test_a_restraint_that_a_model_has_not_takes_no_pass():
    assert names({}) == names({"embedded": 6}) == ("cond",)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_grips_loosens_apart_each_with_a_pass_of_its_own(count):
    """Whatever a family calls them; they add up in any order, and one at rest has no pass."""
    scales = {"embedded": 6, "text": 1.0, **{f"g{n}": 0.5 / (n + 1) for n in range(count)}, "whole": 1.0}
    asked = branches(scales)
    assert [branch.context for branch in asked] == ["full", *(f"g{n}" for n in range(count))]
    assert [branch.kind for branch in asked] == ["cond", *["free"] * count]
    made = {branch.name: torch.tensor([float(n * n)]) for n, branch in enumerate(asked)}
    wanted = sum((1 - 0.5 / (n + 1)) * (n + 1) ** 2 for n in range(count))
    assert combine(made, scales).item() == pytest.approx(wanted)
    back = dict(reversed(scales.items()))
    assert combine(made, back).item() == pytest.approx(wanted)


def test_guidance_is_linear_in_the_text_scale():
    at = [combine({n: VECTORS[n] for n in ("cond", "uncond")}, {"text": s}).item() for s in (2.0, 3.0, 4.0)]
    assert at[1] - at[0] == at[2] - at[1] == 2.0


def test_alg_adds_the_low_passed_guidance_to_the_sharp_prediction():
    asked = branches({"text": 4.0}, low_passed=True)
    assert [(b.name, b.prompt, b.context) for b in asked] == [
        ("cond", "positive", "low_pass"), ("uncond", "negative", "low_pass"), ("sharp", "negative", "full"),
    ]  # fmt: skip
    assert combine({b.name: ALG[b.name] for b in asked}, {"text": 4.0}).item() == 2 + 4 * (3 - 1)
    assert names({"text": 1.0}, low_passed=True) == ("cond",)


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.6, 1.0, 3.0, 8.0])
def test_the_mixing_matrix_is_row_stochastic_and_keeps_constants(sigma):
    matrix = mixing_matrix([0, 19, 20, 21, 22.5, 28], sigma)
    assert torch.allclose(matrix.sum(1), torch.ones(6, dtype=torch.float64), atol=1e-12)
    assert (matrix >= 0).all() and not ((matrix > 0) & (matrix < 1e-7)).any()


def test_the_mixing_matrix_has_its_limits():
    assert torch.equal(mixing_matrix(range(9), 0.0), torch.eye(9, dtype=torch.float64))
    assert torch.equal(mixing_matrix(range(9), 0.15), torch.eye(9, dtype=torch.float64))  # neighbours under 1e-6
    wide = mixing_matrix(range(9), 1e4)
    assert torch.allclose(wide, torch.full_like(wide, 1 / 9), atol=1e-6)
    middle = mixing_matrix(range(9), 0.6)[4]
    assert middle[4:7].tolist() == pytest.approx([0.6638, 0.1655, 0.0026], abs=2e-4)  # method.md, A13


def layout(order, latent_height, latent_width, section=2):
    return packed_segments(slots(order, section, 4), latent_height, latent_width)


@pytest.mark.parametrize("order", ["forward", "inverted"])
@pytest.mark.parametrize("grid", [(12, 12), (14, 18), (60, 104), (80, 76)])
@pytest.mark.parametrize("scope", ["section", "history", "reference", "all"])
def test_blur_keeps_constants_and_rows_out_of_scope_on_any_grid(order, grid, scope):
    segments = layout(order, *grid)
    tokens = sum(segment.tokens for segment in segments)
    blur = Blur.over(segments, sigma_blur=0.6, scope=scope)
    constant = torch.full((1, tokens + 5, 2, 1), 3.0, dtype=torch.float64)
    assert torch.allclose(blur(constant), constant, atol=1e-12)
    x = torch.randn(1, tokens + 5, 2, 1, dtype=torch.float64)
    before = x.clone()
    out = blur(x)
    assert torch.equal(x, before), "the input is not changed"
    assert torch.equal(out[:, tokens:], x[:, tokens:]), "text is never touched"
    first = 0
    for segment in segments:
        for part in segment.parts:
            end = first + segment.height * segment.width
            if scope not in (part, "all"):
                assert torch.equal(out[:, first:end], x[:, first:end])
            elif part == "section":
                assert not torch.equal(out[:, first:end], x[:, first:end])
            first = end


def test_blur_equals_the_sum_of_eq3_written_out_and_never_mixes_positions():
    segments = (Segment(parts=("section",) * 5, frames=tuple(range(5)), height=2, width=3),)
    x = torch.randn(1, 30, 2, 4, dtype=torch.float64)
    out = Blur.over(segments, sigma_blur=1.0, scope="section")(x).view(1, 5, 6, 2, 4)
    frames = x.view(1, 5, 6, 2, 4)
    for t in range(5):
        weights = [math.exp(-0.5 * (j - t) ** 2) for j in range(5)]
        wanted = sum(w * frames[:, j] for j, w in enumerate(weights)) / sum(weights)
        assert torch.allclose(out[:, t], wanted, atol=1e-12)
    lone = torch.zeros(1, 30, 1, 1)
    lone[0, 7] = 1  # frame 1, position 1
    touched = Blur.over(segments, sigma_blur=1.0, scope="section")(lone).view(5, 6).nonzero()[:, 1]
    assert set(touched.tolist()) == {1}


def test_the_section_reads_the_newest_history_frame_but_not_the_distant_start_image():
    segments = layout("forward", 12, 12)
    tokens = sum(segment.tokens for segment in segments)
    blur = Blur.over(segments, sigma_blur=0.6, scope="section")
    start, near, first_row = tokens - 11 * 36, tokens - 10 * 36, tokens - 9 * 36
    for position, weight in ((start, 0.0), (near, 0.1655)):
        x = torch.zeros(1, tokens, 1, 1)
        x[0, position : position + 36] = 1
        at_start = 1.0 if position == start else 0.0
        assert blur(x)[0, first_row, 0, 0].item() == pytest.approx(weight, abs=2e-3)
        assert blur(x)[0, start, 0, 0].item() == at_start


def test_the_papers_profile():
    profile = paper_profile(embedded=True)
    assert [profile.beta(x) for x in (0, 0.1, 0.25, 0.375, 0.5, 0.75, 1)] == [0, 0, 0, 0.25, 0.5, 0.625, 0.75]
    assert profile.relaxation(0.25).at_rest and not profile.relaxation(0.26).at_rest
    assert profile.target == ("embedded",) and paper_profile(embedded=False).target == ("text",)


def noises(count, shape=(1, 2, 8, 6, 10)):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1)).unbind()


def test_freeinit_of_all_frequencies_keeps_the_noise_and_of_none_takes_fresh_noise():
    noise, fresh = noises(2)
    still = torch.zeros_like(noise)
    torch.testing.assert_close(renewed(still, noise, fresh, stop=1e6), (1 - SIGNAL) ** 0.5 * noise)
    assert torch.equal(renewed(still, noise, fresh, stop=0), fresh)
    kept = renewed(still, noise, fresh)
    spectra = [torch.fft.fftn(x, dim=(2, 3, 4)) for x in (kept, noise, fresh)]
    mean, highest = [(0, 0, 0, 0, 0), (0, 0, 4, 3, 5)]
    assert abs(spectra[0][mean] - (1 - SIGNAL) ** 0.5 * spectra[1][mean]) < 1e-3
    assert abs(spectra[0][highest] - spectra[2][highest]) < 1e-2


def test_freeinit_is_that_of_diffusers_where_lengths_are_even():
    """FreeInitMixin's frequencies are those of the transform for even lengths alone; its noise is a scheduler's."""
    film, noise, fresh = noises(3)
    theirs = FreeInitMixin()
    low = theirs._get_free_init_freq_filter(film.shape, "cpu", "butterworth", 4, 0.25, 0.25)
    alphas = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    assert alphas[-1].item() == pytest.approx(SIGNAL, abs=5e-5)
    mixed = theirs._apply_freq_filter(SIGNAL**0.5 * film + (1 - SIGNAL) ** 0.5 * noise, fresh, low)
    torch.testing.assert_close(renewed(film, noise, fresh), mixed, atol=1e-5, rtol=1e-5)


def test_a_ramp_rises_away_from_the_past():
    assert faded(5, 4, past_after=False).flatten().tolist() == [0.25, 0.5, 0.75, 1, 1]
    assert faded(5, 4, past_after=True).flatten().tolist() == [1, 1, 0.75, 0.5, 0.25]
    assert faded(3, 1, past_after=False).eq(1).all()
    made = {"cond": torch.zeros(1, 1, 5, 1, 1), "context": torch.ones(1, 1, 5, 1, 1)}
    ramp = faded(5, 4, past_after=False)
    torch.testing.assert_close(combine(made, {"context": 0.25}, ramp), 0.75 * ramp)
    assert torch.equal(combine(made, {"context": 0.25}, torch.ones(1)), combine(made, {"context": 0.25}))
