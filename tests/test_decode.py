"""The streaming decoder gives the frames of diffusers' whole-tensor decode and blend, and holds little."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackPipeline
from diffusers.video_processor import VideoProcessor

from framepack_relax.families.framepack.blend import OVERLAP, BlendDecoder, soft_append, to_uint8
from framepack_relax.families.framepack.family import FramePack

pytestmark = pytest.mark.usefixtures("one_thread")

blend = HunyuanVideoFramepackPipeline._soft_append


def small_vae():
    torch.manual_seed(0)
    sizes = {"latent_channels": 4, "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    return AutoencoderKLHunyuanVideo(**sizes).eval()


@pytest.fixture(scope="module")
def vae():
    return small_vae()


def shot(sections, seed=1):
    """Start latent and the sections of a shot in film order, for 32 x 32 px."""
    film = torch.randn(1, 4, 9 * sections + 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return film[:, :, :1], list(film[:, :, 1:].split(9, dim=2))


@torch.no_grad()
def stock(vae, start, latents, order):
    """The decode of HunyuanVideoFramepackPipeline.__call__ on whole tensors; returns [1, 3, 36n + 1, 32, 32]."""

    def decode(z):
        return vae.decode((z / vae.config.scaling_factor).to(vae.dtype), return_dict=False)[0]

    history, video = (start, None) if order == "forward" else (start[:, :, :0], None)
    for place in FramePack(name="x", order=order).render_order(len(latents)):
        last = place == 0
        if order == "forward":
            history = torch.cat([history, latents[place]], dim=2)
            video = decode(history) if video is None else blend(None, video, decode(history[:, :, -18:]), 33)
        else:
            history = torch.cat([*([start] if last else []), latents[place], history], dim=2)
            now = decode(history[:, :, : 19 if last else 18])
            video = now if video is None else blend(None, now, video, 33)
    return video


def ours(vae, start, latents, order):
    decoder = BlendDecoder(vae, order=order, start=start, sections=len(latents))
    return [decoder.push(section) for section in latents]


def as_pil(video):
    return np.stack([np.asarray(image) for image in VideoProcessor().postprocess_video(video, output_type="pil")[0]])


@pytest.mark.parametrize("order", ["forward", "inverted"])
@pytest.mark.parametrize("sections", [1, 2, 3, 5])
def test_frames_equal_the_whole_tensor_decode(vae, order, sections):
    start, latents = shot(sections)
    frames = np.concatenate(ours(vae, start, latents, order))
    assert frames.shape == (36 * sections + 1, 32, 32, 3) and frames.dtype == np.uint8
    video = stock(vae, start, latents, order)
    assert np.array_equal(frames, as_pil(video)) and video.std() > 0.01


@pytest.mark.parametrize("order", ["forward", "inverted"])
def test_frames_equal_in_half_precision(order):
    vae = small_vae().to(torch.bfloat16)
    start, latents = shot(2)
    frames = np.concatenate(ours(vae, start, latents, order))
    assert np.array_equal(frames, as_pil(stock(vae, start, latents, order)))


@pytest.mark.parametrize(("order", "frames"), [("forward", [4, 36, 36, 69]), ("inverted", [0, 40, 36, 69])])
def test_it_gives_final_frames_at_once_and_holds_33(vae, order, frames):
    start, latents = shot(4)
    decoder = BlendDecoder(vae, order=order, start=start, sections=4)
    given, held = [], []
    for section in latents:
        given.append(len(decoder.push(section)))
        held.append(0 if decoder.open is None else decoder.open.untyped_storage().nbytes() // (3 * 32 * 32 * 4))
        assert decoder.before.shape[2] <= 10
    assert given == frames and held == [OVERLAP if order == "forward" else 0, OVERLAP, OVERLAP, 0]


def test_forward_frames_do_not_depend_on_later_sections(vae):
    start, latents = shot(3)
    other = [*latents[:2], latents[2] + 1]
    a, b = ours(vae, start, latents, "forward"), ours(vae, start, other, "forward")
    assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) and not np.array_equal(a[2], b[2])


def test_soft_append_is_the_pipelines_and_changes_neither_clip():
    a, b = torch.randn(1, 3, 40, 4, 4), torch.randn(1, 3, 69, 4, 4)
    kept = a.clone(), b.clone()
    made = soft_append(a, b, 33)
    assert torch.equal(made, blend(None, a, b, 33)) and made.shape[2] == 76
    assert torch.equal(a, kept[0]) and torch.equal(b, kept[1])
    same = soft_append(a, torch.cat([a[:, :, -33:], b], dim=2), 33)
    assert torch.allclose(same[:, :, :40], a, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_uint8_is_diffusers_and_clamps(dtype):
    video = (2 * torch.randn(1, 3, 5, 8, 8)).to(dtype)
    assert np.array_equal(to_uint8(video), as_pil(video))
    assert to_uint8(torch.tensor([-9.0, -1, 0, 1, 9]).view(1, 1, 5, 1, 1)).ravel().tolist() == [0, 0, 128, 255, 255]
