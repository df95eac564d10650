"""The packaged model: opened by the unmodified pipeline, small, and doing what a viewer must at least see."""

import json

import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoFramepackPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import DEFAULT_PROMPT_TEMPLATE
from PIL import Image

import framepack_relax as fr
from framepack_relax.families.catalog import PUPPET
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
