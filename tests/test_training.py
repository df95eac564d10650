"""The training script end to end at smoke size: it learns, resumes, and writes a folder that the pipeline opens."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoFramepackPipeline
from training.distil import Pool, Taught, spread_scales
from training.drawing import draw, painted
from training.parts import Sizes, build_vae
from training.run import VaeTraining, attention
from training.vae import HunyuanVideoCausalConv3d, clips_batch, of_one_frame, pixel_loss, weighted
from training.world import FIRST, SECOND, SECTION_FRAMES, Film, Mix, act, caption, sample_film

from framepack_relax.families.catalog import read_family

TRAIN = [sys.executable, "-m", "training.train"]
SCRIPTS = Path(__file__).parents[1] / "scripts"


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "losses.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_training_learns_resumes_and_exports(tmp_path):
    command = [*TRAIN, "--smoke", "--device", "cpu", "--out", tmp_path]
    subprocess.run(command, cwd=SCRIPTS, check=True, capture_output=True)
    frames, clips, transformer = (losses(tmp_path / stage) for stage in ("vae-frames", "vae", "transformer"))
    assert np.mean(frames[140:]) < 0.8 * np.mean(frames[:20])
    assert np.mean(transformer[-10:]) < 0.9 * np.mean(transformer[:10])
    distil = losses(tmp_path / "distil")
    assert np.mean(distil[-8:]) < 0.9 * np.mean(distil[:8]), "one pass comes nearer to true CFG"
    assert HunyuanVideoFramepackPipeline.from_pretrained(tmp_path / "model").vae.config.scaling_factor > 0
    assert read_family(tmp_path / "model").embedded_guidance
    assert not [f for f in (tmp_path / "model").rglob("*.json") if str(tmp_path) in f.read_text()], "no machine's paths"
    stages = ["--stage", "vae", "--stage", "export"]
    again = subprocess.run([*command, *stages], cwd=SCRIPTS, check=True, capture_output=True, text=True)
    assert read_family(tmp_path / "model").embedded_guidance, "restored as distilled as it was"
    assert losses(tmp_path / "vae-frames") == frames, "a finished stage is not trained again"
    assert losses(tmp_path / "vae") == clips and len(clips) == 10
    assert "restored" in again.stderr


@pytest.mark.slow
def test_a_stop_of_all_stages_saves_the_step_under_way_and_the_next_start_goes_on_from_it(tmp_path):
    run, options = tmp_path / "puppet", ["--smoke", "--device", "cpu", "--stage", "vae"]
    done, saved = run / "vae-frames" / "losses.jsonl", run / "vae-frames" / "last.pt"
    command = [SCRIPTS / "training" / "all.sh", tmp_path, *options]
    training = subprocess.Popen(command, env={**os.environ, "PYTHON": sys.executable}, stderr=subprocess.DEVNULL)
    while not done.exists() and training.poll() is None:
        time.sleep(0.1)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    assert training.wait(60) == 143
    steps = len(losses(run / "vae-frames"))
    assert torch.load(saved, weights_only=True)["step"] == steps - 1 < 159
    subprocess.run([*TRAIN, *options, "--out", run], cwd=SCRIPTS, check=True, capture_output=True)
    assert len(losses(run / "vae-frames")) == 160, "no step is done twice"


@pytest.mark.slow
def test_training_goes_on_from_shipped_weights_alone(tiny, tmp_path):
    command = [*TRAIN, "--smoke", "--device", "cpu", "--out", tmp_path, "--start", tiny, "--steps", "2"]
    stages = ["--stage", "latents", "--stage", "transformer", "--stage", "export"]
    subprocess.run([*command, *stages], cwd=SCRIPTS, check=True, capture_output=True)
    assert read_family(tiny).embedded_guidance and not read_family(tmp_path / "model").embedded_guidance, "trained anew"
    before, after = (HunyuanVideoFramepackPipeline.from_pretrained(folder).vae for folder in (tiny, tmp_path / "model"))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


WORLDS = pytest.mark.parametrize("world", [FIRST, SECOND], ids=["first", "second"])


@WORLDS
def test_films_hold_long_calm_stretches_and_whole_sections(world):
    films = [sample_film(np.random.default_rng(k), 4, Mix(), world=world) for k in range(300)]
    assert all(len(film.pose) == 4 * SECTION_FRAMES + 1 for film in films)
    assert all(end % SECTION_FRAMES == 1 for film in films for _, _, end in film.segments)
    assert not {(film.colour, film.place) for film in films} & world.held_out
    assert {a for film in films for a, _, _ in film.segments} == {"stand", *world.actions}
    waits = []
    for film in films:
        for action, first, end in film.segments:
            moving = np.abs(np.diff(film.pose[first:end], axis=0)).max(1) > 0.02
            if action != "stand":
                waits.append(int(np.argmax(moving)) if moving.any() else end - first)
    late = np.mean([wait > 30 for wait in waits])
    assert 0.2 < late < 0.6, "a good part of the captions stand over calm before anything happens"


@WORLDS
def test_what_is_drawn_is_what_the_film_says(world):
    for colour in world.colours:
        for place in world.places:
            film = film_of("backflip", colour, place, world)
            frames = draw([(film, np.arange(37))])
            assert frames.shape == (37, 3, 96, 96) and frames.min() >= -1 and frames.max() <= 1
            torso = frames[0, :, int(world.body.middle * 96), int(film.pose[0, 0] * 96)]
            assert torso.tolist() == pytest.approx([2 * v - 1 for v in world.colours[colour]], abs=0.02)
            assert (frames[16] - frames[0]).abs().mean() > 3 * (frames[36] - frames[0]).abs().mean()
    assert caption(None, film, "backflip") == f"a {colour} figure does a backflip in the {place}"


def film_of(action, colour="red", place="beach", world=SECOND):
    """37 frames; the action starts in the fifth."""
    starts = [] if action == "stand" else [4]
    pose, segments = act(np.random.default_rng(0), [(action, 37)], Mix(), starts=[starts], world=world)
    return Film(world=world, colour=colour, place=place, pose=pose, segments=segments)


def test_the_second_figure_stays_in_the_picture_and_stands_out_from_every_place():
    for place in SECOND.places:
        for colour in SECOND.colours:
            for action in ("jump", "backflip"):
                film = film_of(action, colour, place)
                film.pose[:, 0] = 0.5
                frames, behind = painted([(film, np.arange(37))], 96, "cpu")
                figure = (frames - behind).abs().amax(1) > 0.04
                edge = figure[:, 0].any() or figure[:, :, 0].any() or figure[:, :, -1].any()
                assert not edge, "a flip or a jump from the middle does not leave the picture"
                gap = (frames - behind).abs().amax(1)[figure]
                assert (gap > 0.2).float().mean() > 0.85, (colour, place)


def test_limbs_are_as_wide_as_the_codec_needs():
    assert min(SECOND.body.half_widths.values()) * 2 * 96 >= 8
    assert len(SECOND.held_out) >= 8
    assert {c for c, _ in SECOND.held_out} == set(SECOND.colours) and {p for _, p in SECOND.held_out} == set(
        SECOND.places
    )


def test_an_explosion_covers_the_figure_and_leaves_soot_where_vanishing_leaves_nothing():
    blast, gone = (draw([(film_of(action), np.arange(37))]) for action in ("explode", "vanish"))
    empty = painted([(film_of("vanish"), np.arange(1))], 96, "cpu")[1][0]
    changed = (blast - empty).abs().amax(1) > 0.2
    assert changed[16].float().mean() > 2 * changed[0].float().mean()
    assert torch.equal(gone[36], empty)
    assert changed[36, 80:].any(), "soot"


def test_squares_are_cut_from_the_whole_picture():
    film = film_of("walk")
    whole, place = painted([(film, np.arange(3))], 96, "cpu")
    square, behind = painted([(film, np.arange(3))], 96, "cpu", corners=[(20, 30)], crop=48)
    assert torch.allclose(square, whole[:, :, 30:78, 20:68], atol=1e-5)
    assert torch.equal(behind, place[:, :, 30:78, 20:68])


def test_the_codec_looks_at_the_figure_however_it_lies():
    film = film_of("stand")
    film.pose[:, 0], film.pose[:, 2] = 0.5, np.pi / 2  # on its side, in the middle
    made = weighted([(film, np.arange(1))], 96, "cpu")
    weights, row = made[0, 3, 0], int(SECOND.body.middle * 96)
    assert (weights[row, 36:60] == 4).all() and (weights[:8] == 1).all() and (weights[:, :4] == 1).all()
    off = made[:, :3].clone()
    off[..., row, 48] += 0.1
    far = made[:, :3].clone()
    far[..., 4, 4] += 0.1
    assert pixel_loss(off, made) == pytest.approx(4 * pixel_loss(far, made).item(), rel=1e-4)
    crops = clips_batch(np.random.default_rng(1), VaeTraining(), "cpu", whole=False)
    assert crops.shape == (2, 4, 17, 64, 64) and set(crops[:, 3].unique().tolist()) == {1.0, 4.0}
    assert 0.1 < (crops[:, 3] == 4).float().mean() < 0.7 and crops[:, :3].abs().max() <= 1


def test_a_single_frame_costs_the_codec_a_picture_and_gives_the_same():
    torch.manual_seed(0)
    vae, frame = build_vae(Sizes.tiny()).eval().double(), torch.rand(2, 3, 1, 32, 32, dtype=torch.double)
    with torch.no_grad():
        before = vae.encode(frame).latent_dist.mode()
        with patch.object(HunyuanVideoCausalConv3d, "forward", of_one_frame):
            after = vae.encode(frame).latent_dist.mode()
            flat = vae.decode(after).sample
        decoded = vae.decode(after).sample
    for one, other in ((before, after), (flat, decoded)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_attention_by_matrix_products_is_pytorchs_but_for_bf16():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 300, 16) for _ in range(3))
    mask = torch.rand(2, 1, 1, 300) < 0.7
    for given in (mask, torch.where(mask, 0.0, -1e4), None):
        fused = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=given)
        assert torch.allclose(attention(query, key, value, attn_mask=given).float(), fused, atol=0.02)
    causal = attention(query, key, value, is_causal=True)
    assert torch.equal(causal, torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True))


def test_a_guidance_embedder_begun_anew_ignores_the_scale_and_can_tell_it(tiny):
    transformer = HunyuanVideoFramepackPipeline.from_pretrained(tiny).transformer
    projection, embedder = transformer.time_text_embed.time_proj, transformer.time_text_embed.guidance_embedder
    scales = projection(1000 * torch.linspace(1, 8, 71))
    before = embedder(scales)[0]
    spread_scales(transformer, 8.0)
    assert torch.allclose(embedder(scales), before.expand(71, -1), atol=1e-6)
    hidden = embedder.linear_1(scales)
    steps = hidden.diff(dim=0).norm(dim=1) / hidden.std(0).norm()
    assert 0.01 < steps.min() and steps.max() < 0.1, "no two scales look alike, near ones nearly"


def test_the_pool_draws_what_guidance_changes_and_keeps_the_mean():
    changes = torch.tensor([0.01, 0.04, 1.0, 0.09])

    def taught(number):
        one, cond = torch.zeros(1, 1, 1, 1, 1), changes[number].sqrt().reshape(1, 1, 1, 1, 1)
        rest = {"pixels": one, "start": one, "history": one, "section": one, "guidance": one[0, 0, 0, 0]}
        return Taught(
            prompts=[str(number)], sigma=changes[[number]], noisy=one, cond=cond, uncond=torch.zeros_like(cond), **rest
        )

    pool = Pool(3)
    for number in (0, 1, 2, 3):
        pool.add(taught(number))
    assert pool.full() and [row.prompts for row in pool.rows] == [["1"], ["2"], ["3"]], "the oldest made room"
    drawn, weights = pool.draw(np.random.default_rng(0), 4000)
    assert Counter(drawn.prompts)["2"] > 2 * Counter(drawn.prompts)["1"]
    assert (weights * drawn.change()).sum() == pytest.approx(1.0, rel=0.05), "in shares of the mean change"
    assert (weights * drawn.sigma).sum() == pytest.approx(1.0, rel=0.05)
