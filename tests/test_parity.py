"""Off means off: with nothing relaxed our loop gives the bits of diffusers' HunyuanVideoFramepackPipeline."""

from dataclasses import dataclass

import pytest
import torch
from diffusers import HunyuanVideoFramepackPipeline
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from shots import sample_shot

from framepack_relax.families.backend import Start
from framepack_relax.families.catalog import PUPPET
from framepack_relax.families.framepack.backend import FramePackBackend
from framepack_relax.families.framepack.blend import BlendDecoder
from framepack_relax.families.loader import load
from framepack_relax.planning.planner import make_plan
from framepack_relax.storyboard import Scene, storyboard_from_scenes

PROMPT = "a red figure waves on the beach"
TYPES = {"forward": "vanilla", "inverted": "inverted_anti_drifting"}


@dataclass
class Pair:
    """The same folder opened by diffusers and by us."""

    stock: HunyuanVideoFramepackPipeline
    ours: FramePackBackend
    size: int  # px

    @property
    def image(self) -> Image.Image:
        return Image.radial_gradient("L").resize((self.size, self.size)).convert("RGB")


@pytest.fixture(scope="module", params=["tiny", pytest.param("puppet", marks=pytest.mark.slow)])
def pair(request, tiny):
    folder = tiny if request.param == "tiny" else PUPPET
    pipe = HunyuanVideoFramepackPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    model = load(str(folder), device="cpu")
    return Pair(pipe, model, model.family.size[0])


def theirs(pair, order, sections, text_scale, output):
    return pair.stock(
        image=pair.image, prompt=PROMPT, negative_prompt="", height=pair.size, width=pair.size,
        num_frames=33 * sections, num_inference_steps=3, guidance_scale=6.0, true_cfg_scale=text_scale,
        sampling_type=TYPES[order], generator=torch.Generator().manual_seed(3), output_type=output,
    ).frames  # fmt: skip


def ours(pair, tmp_path, order, sections, text_scale):
    """Start and section results by place, one generator replayed as the pipeline draws from it."""
    model, image = pair.ours, pair.image
    image.save(tmp_path / "start.png")
    scene = Scene(
        id="a", prompt=PROMPT, seconds=1.2 * sections, guidance={"text": text_scale, "embedded": 6.0}
    )  # fmt: skip
    own = {"image": str(tmp_path / "start.png"), "framepack": {"order": order}}
    board = storyboard_from_scenes([scene], steps=3, sampler="euler", **own)
    plan = make_plan(board, model.family)
    generator = torch.Generator().manual_seed(3)
    texts = model.encode_prompts([PROMPT, ""])
    start = replay_start(model, image, generator)
    shape = (1, model.latent_channels, 9, pair.size // 8, pair.size // 8)
    return start, sample_shot(
        model, plan, start=start, prompt=texts[PROMPT], negative=texts[""],
        noise=lambda section: randn_tensor(shape, generator=generator, dtype=torch.float32),
    )  # fmt: skip


def replay_start(model, image, generator) -> Start:
    with model.encoders("image_encoder", "feature_extractor") as pipe:
        pixels = pipe.video_processor.preprocess(image, image.height, image.width)
        latent = pipe.prepare_image_latents(pixels, dtype=torch.float32, device="cpu", generator=generator)
        return Start(latent=latent, embeds=pipe.encode_image(pixels, device="cpu"))


@pytest.mark.parametrize("order", ["forward", "inverted"])
@pytest.mark.parametrize(("sections", "text_scale"), [(1, 1.0), (6, 1.0), (3, 4.0)])
def test_latents_at_rest_are_the_pipelines_bit_for_bit(pair, tmp_path, order, sections, text_scale):
    wanted = theirs(pair, order, sections, text_scale, "latent")[-1]
    start, made = ours(pair, tmp_path, order, sections, text_scale)
    film = torch.cat([start.latent, *(made[place].latents for place in range(sections))], dim=2)
    assert film.shape == wanted.shape and film.shape[2] == 9 * sections + 1
    assert torch.equal(film, wanted)
    assert made[0].forwards == {"cond": 3, "uncond": 3 if text_scale > 1 else 0, "sharp": 0, "free": 0}


@pytest.mark.parametrize("order", ["forward", "inverted"])
@pytest.mark.parametrize("sections", [1, 2])
def test_frames_are_the_pipelines(pair, tmp_path, order, sections):
    """uint8 frames within half a level of the pipeline's floats."""
    wanted = theirs(pair, order, sections, 1.0, "np")[0]
    start, made = ours(pair, tmp_path, order, sections, 1.0)
    decoder = BlendDecoder(pair.ours.vae, order=order, start=start.latent, sections=sections)
    pushed = [decoder.push(made[place].latents) for place in range(sections)]
    frames = torch.cat([torch.from_numpy(chunk) for chunk in pushed])
    assert frames.shape == (36 * sections + 1, pair.size, pair.size, 3) == wanted.shape
    assert (frames.float() - torch.from_numpy(wanted * 255)).abs().max() <= 0.5 + 1e-3
