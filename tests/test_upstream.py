"""As the original programs render: latents that lllyasviel/FramePack at 97fe5db made of the same inputs.

Its `HunyuanVideoTransformer3DModelPacked` and `sample_hunyuan` were run as demo_gradio_f1.py and demo_gradio.py run
them, in float32 without TeaCache, on the weights and inputs that `waves` gives here.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel
from PIL import Image
from shots import sample_shot
from transformers import SiglipImageProcessorPil

from framepack_relax.families.backend import Given, Start
from framepack_relax.families.base import Step
from framepack_relax.families.catalog import CATALOG
from framepack_relax.families.components import load_part
from framepack_relax.families.flow import FlowShift
from framepack_relax.families.framepack.history import slots
from framepack_relax.families.loaded import encoder_dtype
from framepack_relax.families.loader import load
from framepack_relax.planning.planner import make_plan
from framepack_relax.relax.guidance import Branch
from framepack_relax.storyboard import Scene, storyboard_from_scenes

CONFIG = dict(
    in_channels=16, out_channels=16, num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1,
    num_refiner_layers=1, text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=(4, 6, 6), guidance_embeds=True,
    has_image_proj=True, image_proj_dim=16, has_clean_x_embedder=True,
)  # fmt: skip
PLACES = [(0, 0, 0, 0), (3, 4, 1, 2), (9, 8, 3, 3), (15, 2, 2, 1)]  # channel, frame, row, column


def waves(*shape, phase=0.0):
    """Numbers that everybody can make: a slow wave whose frequencies do not meet."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(count * 1.7 + 0.01 * count**1.5 + phase).float().view(shape)


def make_transformer(kind):
    network = kind(**CONFIG).eval()
    with torch.no_grad():
        for number, (name, weight) in enumerate(sorted(network.named_parameters())):
            scale = 1.5 / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.1
            ones = 1.0 if name.endswith(("norm_q.weight", "norm_k.weight")) else 0.0
            weight.copy_(ones + scale * waves(*weight.shape, phase=number))
    return network


TEXT = {
    "encoder_hidden_states": waves(1, 12, 16, phase=1),
    "encoder_attention_mask": torch.ones(1, 12),
    "pooled_projections": waves(1, 8, phase=2),
}
START = Start(latent=waves(1, 16, 1, 4, 4, phase=3), embeds=waves(1, 4, 16, phase=4))


@pytest.fixture(scope="module")
def patterned(model):
    return replace(model, transformer=make_transformer(HunyuanVideoFramepackTransformer3DModel))


def render(model, tmp_path, order):
    """Latents [1, 16, 9, 4, 4] of two sections in film order: guidance 10, shift 7, five steps, seed 31337."""
    Image.new("RGB", (32, 32)).save(tmp_path / "start.png")
    scene = Scene(id="a", prompt="waves", seconds=2.4)
    board = storyboard_from_scenes(
        [scene], image=str(tmp_path / "start.png"), size=(32, 32), steps=5, noise="framepack"
    )  # fmt: skip
    family = CATALOG["framepack-f1" if order == "forward" else "framepack"].family
    plan = make_plan(board, replace(family, shift=FlowShift(shift=7.0)))
    made = sample_shot(
        model, plan, start=START, prompt=TEXT, negative=TEXT,
        noise=lambda section: model.noise(section.latents, plan.size, section.seed, draw=section.draw),
    )  # fmt: skip
    return [made[place].latents for place in sorted(made)]


FRAMEPACK = {  # of each section the latents at PLACES and their norm
    "forward": [
        (2.19606, 1.33312, -0.185644, 2.62833, 91.6991),
        (3.29938, 1.98026, -1.85009, 1.88599, 91.2479),
    ],
    "inverted": [
        (3.3406, 2.01426, -1.92399, 1.80684, 91.8187),
        (2.25989, 1.12573, -0.327171, 2.76585, 92.289),
    ],
}


@pytest.mark.parametrize("order", FRAMEPACK)
def test_the_latents_are_those_of_framepacks_own_programs(patterned, tmp_path, order):
    for latents, wanted in zip(render(patterned, tmp_path, order), FRAMEPACK[order], strict=True):
        made = [*(latents[0][place].item() for place in PLACES), latents.norm().item()]
        assert made == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_in_bfloat16_the_timestep_is_rounded_and_the_last_layer_is_float32(tiny):
    model, seen = load(str(tiny), device="cpu", dtype="bfloat16"), {}
    model.transformer.register_forward_pre_hook(lambda layer, args, given: seen.update(given), with_kwargs=True)
    model.transformer.proj_out.register_forward_hook(lambda layer, args, made: seen.update(made=made))
    text = model.encode_prompts(["a red figure waves"])["a red figure waves"]
    start = model.encode_starts({0: (Image.new("RGB", (32, 32), "red"), 7)})[0]
    x, step = waves(1, 4, 9, 4, 4), Step(index=0, sigma=0.99408, timestep=994.08, scales={"embedded": 10.0})
    given = Given(
        noise=x, context=slots("forward", 0, 1), steps=[step], past={}, start=start, prompt=text, negative=text,
        options={"order": "forward", "adain": 0},
    )  # fmt: skip
    inputs = model.begin(given)
    made = model.predict(x, step, Branch(name="cond"), inputs)
    assert seen["timestep"].item() == 996 and seen["hidden_states"].dtype == torch.bfloat16
    assert seen["made"].dtype == made.dtype == torch.float32
    assert not torch.equal(made, made.bfloat16().float()), "more than bfloat16 holds"


def test_encoders_and_vae_are_float16_beside_a_bfloat16_transformer_on_a_gpu(tiny):
    dtypes = torch.float32, torch.bfloat16
    assert [encoder_dtype(dtype, torch.device("cuda")) for dtype in dtypes] == [torch.float32, torch.float16]
    assert [encoder_dtype(dtype, torch.device("cpu")) for dtype in dtypes] == [*dtypes]
    model = load(str(tiny), device="cpu", dtype="bfloat16")
    half = replace(model, encoder_dtype=torch.float16, vae=load_part(model.source, "vae", torch.float16))
    start = half.encode_starts({0: (Image.new("RGB", (32, 32), "red"), 7)})[0]
    assert torch.equal(start.latent, start.latent.half().float()) and start.embeds.dtype == torch.bfloat16


def test_siglip_sees_the_picture_itself(model):
    """Levels 0..255 through Pillow's bicubic, whatever torchvision is there: an edge that overshoots is clamped."""
    picture = Image.new("RGB", (64, 64), "black")
    picture.paste("white", (29, 0, 64, 64))
    processor = load_part(model.source, "feature_extractor", torch.float32)
    assert type(processor) is SiglipImageProcessorPil
    levels = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC), np.float32)
    assert levels.max() == 255 and levels.min() == 0
    seen = processor(images=picture, return_tensors="pt")["pixel_values"]
    assert torch.allclose(seen[0], torch.from_numpy(levels / 127.5 - 1).permute(2, 0, 1), atol=1e-6)
    with model.encoders("image_encoder", "feature_extractor") as pipe, torch.no_grad():
        tokens = pipe.image_encoder(pixel_values=seen).last_hidden_state
    assert torch.equal(model.encode_starts({0: (picture, 7)})[0].embeds, tokens)
