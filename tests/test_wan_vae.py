"""Wan's VAE by sections is the VAE on the whole, to the bit, in tiles too."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.video_processor import VideoProcessor

from framepack_relax.families.backend import NonFinitePixels
from framepack_relax.families.wan_vae import WanDecoder, encode, statistics

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
WIDE = {  # the layout of Wan 2.2's
    **SMALL, "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16,
}  # fmt: skip


@pytest.fixture(scope="module", params=[SMALL, WIDE], ids=["wan2.1", "wan2.2"])
def vae(request):
    torch.manual_seed(0)
    made = AutoencoderKLWan(**request.param, temperal_downsample=[False, True, True]).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0 if parameter.ndim > 1 else 1.0)
    return made


def latents(frames, side=4):
    return torch.randn(1, 16, frames, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def stock(vae, z):
    """What the pipelines do with the latents of a clip."""
    mean, scale = statistics(vae)
    video = vae.decode(z / scale + mean, return_dict=False)[0]
    return np.stack([np.asarray(image) for image in VideoProcessor().postprocess_video(video, output_type="pil")[0]])


@pytest.mark.parametrize(("sections", "tiled"), [((7,), False), ((1, 4, 2), False), ((3, 4), False), ((1, 1, 2), True)])
def test_frames_of_sections_are_those_of_the_whole(vae, sections, tiled):
    z = latents(sum(sections), 20 if tiled else 4)
    ratio = vae.config.scale_factor_spatial
    vae.use_tiling = tiled
    vae.tile_sample_min_height = vae.tile_sample_min_width = 16 * ratio
    vae.tile_sample_stride_height = vae.tile_sample_stride_width = 12 * ratio
    decoder = WanDecoder(vae)
    frames = [decoder.push(section) for section in z.split(list(sections), dim=2)]
    whole = stock(vae, z)
    assert [len(made) for made in frames] == [4 * t - 3 * (not n) for n, t in enumerate(sections)]
    assert np.array_equal(np.concatenate(frames), whole) and whole.std() > 1
    assert len({tuple(map(tuple, frame.reshape(-1, 3)[:50])) for frame in whole}) > 1, "a picture that moves"
    assert np.array_equal(stock(vae, z), whole), "the VAE is as it was"


def test_sections_apart_are_clips_of_their_own(vae):
    vae.use_tiling = False
    decoder, parts = WanDecoder(vae, apart=True), latents(6).split(3, dim=2)
    assert all(np.array_equal(decoder.push(part), stock(vae, part)) for part in parts)


def test_two_shots_do_not_disturb_each_other(vae):
    vae.use_tiling = False
    one, two = WanDecoder(vae), WanDecoder(vae)
    z, other = latents(4), latents(4).flip(2)
    mixed = [(one.push(a), two.push(b)) for a, b in zip(z.split(2, dim=2), other.split(2, dim=2), strict=True)]
    for made, film in zip(zip(*mixed, strict=True), (z, other), strict=True):
        assert np.array_equal(np.concatenate(made), stock(vae, film))


def test_a_latent_that_is_nan_is_told(vae):
    vae.use_tiling = False
    with pytest.raises(NonFinitePixels):
        WanDecoder(vae).push(latents(2) * torch.nan)
    assert np.array_equal(WanDecoder(vae).push(latents(2)), stock(vae, latents(2)))


@torch.no_grad()
def test_an_image_is_encoded_as_the_pipelines_do_whatever_the_memory(vae):
    pixels = torch.rand(1, 3, 5, 512, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    mean, scale = statistics(vae)
    vae.use_tiling = False
    wanted = (vae.encode(pixels).latent_dist.sample(generator=torch.Generator().manual_seed(3)) - mean) * scale
    vae.use_tiling = True
    made = encode(vae, pixels, torch.Generator().manual_seed(3))
    assert torch.equal(made, wanted) and vae.use_tiling
    assert not torch.equal(encode(vae, pixels, None), made), "the mode is no sample"
