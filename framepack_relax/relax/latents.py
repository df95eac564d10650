"""What is done to latents themselves: fine detail taken off, drifting colours held, a draft's noised again."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

STOP, ORDER = 0.25, 4  # of FreeInit's filter, as in diffusers' FreeInitMixin
SIGNAL = 0.0047  # alpha bar after the last of Stable Diffusion's 1000 steps


def low_pass(latents: Tensor, factor: float) -> Tensor:
    """Latent frames [B, C, T, h, w] made `factor` (0..1] as large and as large as before again; 1 is the identity.

    ALG's filter (Choi et al., arXiv 2506.08456): a picture without its fine detail holds a film back less.
    """
    if factor == 1:
        return latents
    frames = rearrange(latents, "b c t h w -> (b t) c h w")
    height, width = frames.shape[-2:]
    small = (max(1, round(factor * height)), max(1, round(factor * width)))
    for size in (small, (height, width)):
        frames = interpolate(frames, size=size, mode="bilinear", antialias=True)
    return rearrange(frames, "(b t) c h w -> b c t h w", b=len(latents))


def amplified(latents: Tensor, amplitude: float) -> Tensor:
    """A VAE's latents [1, C, T, h, w] of an image and grey frames after it, these set further from the image.

    Of each frame's difference from the image, what is not its mean over channels and pixels becomes `amplitude` times
    as large, within -6..6; 1 is the identity. Source: the PainterI2V node
    (princepainter/ComfyUI-PainterI2V, 2025-11).
    """
    if amplitude == 1:
        return latents
    image, grey = latents[:, :, :1], latents[:, :, 1:]
    apart = grey - image
    mean = apart.mean(dim=(1, 3, 4), keepdim=True)
    return torch.cat([image, (image + (apart - mean) * amplitude + mean).clamp(-6, 6)], dim=2)


def match_statistics(latents: Tensor, reference: Tensor, strength: float) -> Tensor:
    """Latents [1, C, T, h, w] whose mean and deviation per channel go `strength` (0..1) of the way to the reference's.

    0 gives the latents themselves, 1 exactly the reference's statistics. Source: adaptive instance normalisation (Huang
    and Belongie, arXiv 1703.06868, eq. 8), per channel over a section.
    """
    if strength == 0:
        return latents
    over = (2, 3, 4)
    mean, deviation = latents.mean(over, keepdim=True), latents.std(over, keepdim=True)
    matched = (latents - mean) / deviation.clamp_min(1e-6) * reference.std(over, keepdim=True)
    return latents.lerp(matched + reference.mean(over, keepdim=True), strength)


def faded(frames: int, over: int, *, past_after: bool) -> Tensor:
    """Weights [1, 1, frames, 1, 1] of a section's latent frames, rising away from the past: k / over of the k-th, at
    most 1; with `over` 0 all are 1."""
    rising = (torch.arange(1, frames + 1) / max(1, over)).clamp_max(1)
    return (rising.flip(0) if past_after else rising).view(1, 1, -1, 1, 1)


def renewed(latents: Tensor, noise: Tensor, fresh: Tensor, stop: float = STOP) -> Tensor:
    """FreeInit's next beginning: the low frequencies of `latents`, noised with their own `noise`, and the high ones of
    `fresh` noise; all are [1, C, T, h, w].

    The filter is a Butterworth one of order 4 in time and space, `stop` of the highest frequency being passed half; 0
    passes none of the latents. Source: Wu et al., arXiv 2312.07537. They noise to a diffusion model's last step, at
    which a share SIGNAL of the variance is still the film's. A flow begins at pure noise, which keeps nothing, so that
    the same share is kept here.
    """
    kept = SIGNAL**0.5 * latents + (1 - SIGNAL) ** 0.5 * noise
    if not stop:
        return fresh
    axes = [2 * torch.fft.fftfreq(length, device=latents.device) for length in latents.shape[2:]]
    squares = sum(part**2 for part in torch.meshgrid(*axes, indexing="ij"))
    low = 1 / (1 + (squares / stop**2) ** ORDER)
    over = (2, 3, 4)
    return fresh + torch.fft.ifftn(torch.fft.fftn(kept - fresh, dim=over) * low, dim=over).real


def noised(latents: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """(1 - sigma) latents + sigma noise, as flows mix them; `latents` are resized, frame by frame, to those of `noise`.

    Both are [1, C, T, h, w] with h and w of their own.
    """
    frames, size = rearrange(latents, "1 c t h w -> t c h w"), noise.shape[-2:]
    frames = interpolate(frames, size=size, mode="bicubic", antialias=True) if frames.shape[-2:] != size else frames
    return (1 - sigma) * rearrange(frames, "t c h w -> 1 c t h w") + sigma * noise
