"""The packaged model: opened by the unmodified pipeline, small, and doing what a viewer must at least see."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoFramepackPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import DEFAULT_PROMPT_TEMPLATE
from PIL import Image
from training.measure import KINDS, Measured, figures

import framepack_relax as fr
from framepack_relax.evaluate.rows import read_rows
from framepack_relax.families.catalog import FIGURES, PUPPET, find
from framepack_relax.video.reader import read_frames


@pytest.fixture(scope="module")
def stock():
    pipe = HunyuanVideoFramepackPipeline.from_pretrained(PUPPET)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_unmodified_pipeline_opens_and_renders_it(stock, pytestconfig):
    image = Image.open(pytestconfig.rootpath / "storyboards" / "red-beach.png")
    frames = stock(
        image=image, prompt="a red figure stands still on the beach", height=96, width=96, num_frames=33,
        num_inference_steps=6, guidance_scale=2.0, sampling_type="vanilla", output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).frames[0]  # fmt: skip
    assert frames.shape == (37, 96, 96, 3)
    difference = np.abs(frames[-1] - np.asarray(image) / 255)
    assert difference.mean() < 0.08, "a calm figure stays what it is"


def test_the_default_template_has_the_95_prefix_tokens_that_the_pipeline_crops(stock):
    prefix, suffix = DEFAULT_PROMPT_TEMPLATE["template"].split("{}")
    assert len(stock.tokenizer(prefix).input_ids) == 95 == DEFAULT_PROMPT_TEMPLATE["crop_start"]
    ids = stock.tokenizer(prefix + "a red figure" + suffix).input_ids
    assert len(ids) == 95 + 3 + 1 and stock.tokenizer.unk_token_id not in ids[95:]


def test_the_folder_is_small_and_holds_no_pickle():
    files = [file for file in PUPPET.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 40 * 2**20
    assert not [file for file in files if file.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}]
    assert json.loads((PUPPET / "framepack_relax.json").read_text())["order"] == "forward"


@pytest.mark.slow
def test_a_moving_scene_moves_and_a_calm_one_does_not(pytestconfig, tmp_path):
    """Seen from outside, on a few steps: more change under 'walks' than under 'stands still', same colours."""
    board = pytestconfig.rootpath / "storyboards" / "red-beach.png"
    scenes = [
        fr.Scene(id="calm", prompt="a red figure stands still on the beach", seconds=1.2),
        fr.Scene(id="walk", prompt="a red figure walks on the beach", seconds=2.4, intensity=0.9),
    ]
    film = fr.render(scenes, image=str(board), out=tmp_path, steps=10)
    calm, first, second = (section["motion"] for section in film.report["sections"])
    assert calm < 0.02 < first + second and first + second > 3 * calm
    frames = np.stack(list(read_frames(film.path)))
    assert np.abs(frames[30].astype(float) - frames[0]).mean() < 12


def test_what_was_measured_is_of_these_weights_and_good_enough_to_judge_the_method_on():
    rows = read_rows(PUPPET / "measurements.jsonl", Measured)
    assert {row["weights"] for row in rows} == {find("puppet").fingerprint()}, "run training.measure --full"
    assert Counter(row["kind"] for row in rows) == {kind: full for kind, (_, full, _) in KINDS.items()}
    said = figures(rows)
    assert json.loads((PUPPET / FIGURES).read_text(encoding="utf8")) == said
    assert said["vae_psnr"]["clips"] == 48 and said["vae_psnr"]["mean"] >= 30
    assert said["right_action"]["films"] == 120 and said["right_action"]["share"] >= 0.85
    assert said["right_colour_and_place"] >= 0.95
    assert 0.2 <= said["static_death"]["share"] <= 0.8
    assert max(said["embedded_error"][scale] for scale in ("2", "4", "8")) < 1, "nearer to true CFG than no guidance"
    assert said["action_judge"]["share"] >= 0.97 and said["mib"]["model"] <= 40 and said["mib"]["judges"] <= 15
    assert said["seconds_per_section"] <= 12


def test_the_card_says_what_was_measured():
    said = " ".join((PUPPET / "README.md").read_text(encoding="utf8").split())
    figures = json.loads((PUPPET / "figures.json").read_text(encoding="utf8"))
    assert f"PSNR mean {figures['vae_psnr']['mean']:.1f} dB, lowest {figures['vae_psnr']['lowest']:.1f} dB" in said
    for name, words in (("right_action", "names it in"), ("static_death", "embedded scale 2,")):
        found = figures[name]
        assert f"{words} {found.pop('share'):.0%} of {found.pop('films')} films" in said
        assert all(f"{action} {share:.0%}" in said for action, share in found.items())
    assert f"{figures['right_colour_and_place']:.0%}" in said
    assert f"takes {figures['seconds_per_section']:.1f} s" in said
