"""Streaming decode: the state between sections loses nothing, and the VAE is as it was."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo
from measure_decode import busy_films, film_latents, overall
from torch import nn

from framepack_relax.families.framepack.blend import decode, to_uint8
from framepack_relax.families.hunyuan_video import stream
from framepack_relax.families.hunyuan_video.stream import StreamDecoder, streaming

pytestmark = pytest.mark.usefixtures("one_thread")


class Same(nn.Module):
    def forward(self, x):
        return x


def small_vae(*, norms: bool, attention: bool = True):
    """With or without its GroupNorms, which are what pools over all frames."""
    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4,
        mid_block_add_attention=attention,
    ).eval()  # fmt: skip
    vae.use_framewise_decoding = False
    for parent in list(vae.decoder.modules()) if not norms else []:
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, Same())
    return vae


def latents(sections, size=4):
    return torch.randn(1, 4, 9 * sections + 1, size, size, generator=torch.Generator().manual_seed(1))


def parts(vae, z):
    """The pixels of a stream, in one tensor."""
    tiles, made = [], []
    for first in range(1, z.shape[2], 9):
        with torch.no_grad(), streaming(vae, tiles, torch.device("cpu")):
            made.append(decode(vae, z[:, :, first - (first == 1) : first + 9]))
    return torch.cat(made, dim=2)


@pytest.mark.parametrize("attention", [False, True])
def test_without_pooling_norms_a_stream_is_the_whole_decode(monkeypatch, attention):
    monkeypatch.setattr(stream, "WINDOW", 1000)
    vae, z = small_vae(norms=False, attention=attention), latents(4)
    whole = decode(vae, z)
    assert whole.std() > 0.01
    torch.testing.assert_close(parts(vae, z), whole, rtol=0, atol=1e-5)


def test_it_composes_with_spatial_tiles(monkeypatch):
    monkeypatch.setattr(stream, "WINDOW", 1000)
    vae, z = small_vae(norms=False), latents(2, size=10)
    untiled = parts(vae, z)
    vae.enable_tiling(tile_sample_min_height=64, tile_sample_min_width=64, tile_sample_stride_height=48,
                      tile_sample_stride_width=48)  # fmt: skip
    whole = decode(vae, z)
    assert (whole - untiled).abs().max() > 1e-4, "tiles were used"
    torch.testing.assert_close(parts(vae, z), whole, rtol=0, atol=1e-5)


def test_the_first_section_is_the_plain_decode():
    vae, z = small_vae(norms=True), latents(1)
    torch.testing.assert_close(parts(vae, z), decode(vae, z), rtol=0, atol=1e-4)


def test_statistics_are_groupnorms_own():
    norm = nn.GroupNorm(4, 16, eps=1e-6)
    x = 3 * torch.randn(1, 16, 9, 12, 12, generator=torch.Generator().manual_seed(0)) + 20
    torch.testing.assert_close(
        stream._normalise(norm, x, stream.Memory(rest=torch.device("cpu"))), norm(x), rtol=1e-4, atol=1e-4
    )
    memory = stream.Memory(rest=torch.device("cpu"))
    for part in x.split(3, dim=2):
        last = stream._normalise(norm, part, memory)
    torch.testing.assert_close(last, norm(x)[:, :, 6:], rtol=1e-4, atol=1e-4)


def test_the_attention_window_is_what_bounds_the_past(monkeypatch):
    vae, z = small_vae(norms=False), latents(6)
    far = z.clone()
    far[:, :, 1:10] += 1
    felt = {}
    for window in (9, 1000):
        monkeypatch.setattr(stream, "WINDOW", window)
        felt[window] = (parts(vae, z) - parts(vae, far))[:, :, -36:].abs().max()
    assert 100 * felt[9] < felt[1000], "what is left reaches there through the convolutions"


def test_frames_are_final_at_once_and_the_state_does_not_grow():
    vae, z = small_vae(norms=True), latents(6)
    decoder = StreamDecoder(vae, start=z[:, :, :1])
    sizes, frames = [], []
    for part in z[:, :, 1:].split(9, dim=2):
        frames.append(decoder.push(part))
        kept = [value for memory in decoder.tiles for value in memory.kept.values()]
        flat = [part for value in kept for part in (value if isinstance(value, tuple) else (value,))]
        sizes.append(sum(part.numel() for part in flat if torch.is_tensor(part)))
    assert [len(part) for part in frames] == [37, 36, 36, 36, 36, 36] and sizes[1:] == sizes[1:2] * 5
    assert all(part.dtype == np.uint8 for part in frames)


def test_the_vae_is_as_it_was_after_every_section_and_after_an_error():
    vae, z = small_vae(norms=True), latents(1)
    vae.use_framewise_decoding = True
    before = decode(vae, z)
    decoder = StreamDecoder(vae, start=z[:, :, :1])
    decoder.push(z[:, :, 1:])
    with pytest.raises(RuntimeError):
        decoder.push(torch.zeros(1, 5, 9, 4, 4))
    assert torch.equal(decode(vae, z), before) and vae.use_framewise_decoding
    assert not any("forward" in vars(module) for module in vae.modules())
    hooked = vae.decoder.conv_out
    hooked.forward = hook = type(hooked).forward.__get__(hooked)  # as offloading puts one there
    decoder.push(z[:, :, 1:])
    assert vars(hooked)["forward"] is hook


@pytest.mark.slow
def test_on_the_packaged_model_it_is_the_whole_decode_to_50_db(pytestconfig):
    folder = pytestconfig.rootpath / "framepack_relax/puppet"
    vae = AutoencoderKLHunyuanVideo.from_pretrained(folder, subfolder="vae").float().eval()
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    with torch.no_grad():
        z = film_latents(vae, next(busy_films(1)), sections=5)
        whole = to_uint8(decode(vae, z))
    decoder = StreamDecoder(vae, start=z[:, :, :1])
    streamed = np.concatenate([decoder.push(part) for part in z[:, :, 1:].split(9, dim=2)])
    assert overall(streamed.astype(float), whole.astype(float)) >= 50
