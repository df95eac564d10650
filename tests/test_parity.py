"""Off means off: with nothing relaxed our loop gives the bits of diffusers' HunyuanVideoFramepackPipeline."""

import pytest
import torch
from diffusers import HunyuanVideoFramepackPipeline
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from framepack_relax.models.video_model import StartCondition
from framepack_relax.plan.history import render_order, slots
from framepack_relax.plan.planner import make_plan
from framepack_relax.sampling.section import gather_history, sample_section
from framepack_relax.storyboard import Scene, storyboard_from_scenes
from framepack_relax.video.decode import BlendDecoder

PROMPT = "a red figure waves on the beach"
TYPES = {"forward": "vanilla", "inverted": "inverted_anti_drifting"}


@pytest.fixture(scope="module")
def pipe(tiny):
    pipe = HunyuanVideoFramepackPipeline.from_pretrained(tiny, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def image():
    return Image.radial_gradient("L").resize((32, 32)).convert("RGB")


def stock(pipe, image, order, sections, text_scale, output):
    return pipe(
        image=image, prompt=PROMPT, negative_prompt="", height=32, width=32, num_frames=33 * sections,
        num_inference_steps=3, guidance_scale=6.0, true_cfg_scale=text_scale, sampling_type=TYPES[order],
        generator=torch.Generator().manual_seed(3), output_type=output,
    ).frames  # fmt: skip


def ours(model, image, tmp_path, order, sections, text_scale):
    """Start condition and section latents in film order, the generator replayed as the pipeline draws from it."""
    image.save(tmp_path / "start.png")
    scene = Scene(id="a", prompt=PROMPT, seconds=1.2 * sections, guidance={"text": text_scale})
    board = storyboard_from_scenes([scene], image=str(tmp_path / "start.png"), steps=3, sampler="euler", order=order)
    plan = make_plan(board, model.facts)
    generator = torch.Generator().manual_seed(3)
    texts, _ = model.encode_texts([PROMPT, ""])
    start = replay_start(model, image, generator)
    latents, made = {0: start.latent}, {}
    for place in render_order(order, sections):
        section = plan.sections[place]
        noise = randn_tensor((1, model.latent_channels, 9, 4, 4), generator=generator, dtype=torch.float32)
        history = gather_history(slots(order, place, sections), latents, start.latent)
        made[place] = sample_section(
            model, section, sampler="euler", order=order, noise=noise, start=start, text=texts[PROMPT],
            negative=texts[""], history=history,
        )  # fmt: skip
        latents |= {9 * place + 1 + k: frame for k, frame in enumerate(made[place].latents.split(1, dim=2))}
    return start, made


def replay_start(model, image, generator) -> StartCondition:
    with model._pipeline("image_encoder", "feature_extractor") as pipe:
        pixels = pipe.video_processor.preprocess(image, 32, 32)
        latent = pipe.prepare_image_latents(pixels, dtype=torch.float32, device="cpu", generator=generator)
        return StartCondition(latent=latent, tokens=pipe.encode_image(pixels, device="cpu"))


@pytest.mark.parametrize("order", ["forward", "inverted"])
@pytest.mark.parametrize(("sections", "text_scale"), [(1, 1.0), (3, 1.0), (6, 1.0), (3, 4.0)])
def test_latents_at_rest_are_the_pipelines_bit_for_bit(pipe, model, image, tmp_path, order, sections, text_scale):
    theirs = stock(pipe, image, order, sections, text_scale, "latent")[-1]
    start, made = ours(model, image, tmp_path, order, sections, text_scale)
    film = torch.cat([start.latent, *(made[place].latents for place in range(sections))], dim=2)
    assert film.shape == theirs.shape == (1, 4, 9 * sections + 1, 4, 4)
    assert torch.equal(film, theirs)
    passes = made[0].forwards
    assert passes == {"cond": 3, "uncond": 3 if text_scale > 1 else 0, "free": 0}


@pytest.mark.parametrize("order", ["forward", "inverted"])
@pytest.mark.parametrize("sections", [1, 2, 4])
def test_frames_are_the_pipelines(pipe, model, image, tmp_path, order, sections):
    """uint8 frames within one level: fp32 sums may round the other way at a half."""
    theirs = stock(pipe, image, order, sections, 1.0, "np")[0]
    start, made = ours(model, image, tmp_path, order, sections, 1.0)
    decoder = BlendDecoder(model.vae, order=order, start=start.latent, sections=sections)
    pushed = [decoder.push(made[place].latents) for place in render_order(order, sections)]
    frames = torch.cat([torch.from_numpy(chunk) for chunk in pushed])
    assert frames.shape == (36 * sections + 1, 32, 32, 3) == theirs.shape
    assert (frames.float() - torch.from_numpy(theirs * 255)).abs().max() <= 0.5 + 1e-3
