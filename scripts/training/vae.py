"""Trains the puppet's VAE: single frames first, then clips decoded from any latent frame on.

B batch, C channels, T frames, H height, W width; pixels in -1..1.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor, nn

from training.run import VaeTraining, train
from training.world import SECTION_FRAMES, Film, Mix, draw, sample_film

NOBODY = np.arange(12) != 3  # all of a pose but its alpha


def frames_batch(rng: np.random.Generator, config: VaeTraining, device: str) -> Tensor:
    """Single frames [B, 4, 1, H, W], most of them from the middle of something happening, cropped to the figure."""
    picks = []
    for _ in range(config.frame_batch):
        film = _turned(rng, sample_film(rng, 3, Mix()), config)
        busy = np.flatnonzero(np.abs(np.diff(film.pose, axis=0)).max(1) > 0.02)
        moving = len(busy) and rng.random() < 0.7
        picks.append((film, np.array([rng.choice(busy) if moving else rng.integers(len(film.pose))])))
    return _recoloured(rng, _cropped(rng, picks, weighted(picks, config.size, device), config))


def clips_batch(rng: np.random.Generator, config: VaeTraining, device: str, *, whole: bool) -> Tensor:
    """Clips [B, 4, T, H, W], half in a flip, a third in other motion; `whole` pictures, one at a time, or crops."""
    picks: list[tuple[Film, np.ndarray]] = []
    while len(picks) < (1 if whole else config.clip_batch):
        film = sample_film(rng, 3, Mix())
        start = int(rng.integers(0, 3 * SECTION_FRAMES + 2 - config.clip_frames))
        change = np.abs(np.diff(film.pose[start : start + config.clip_frames], axis=0)).max(0)
        share = 1.0 if change[2] > 0.02 else 0.25 if change.max() > 0.02 else 0.03  # turning, moving, still
        if rng.random() < share:
            shown = film if whole else _turned(rng, film, config)
            picks.append((shown, np.arange(start, start + config.clip_frames)))
    clips = weighted(picks, config.size, device)
    return _recoloured(rng, clips if whole else _cropped(rng, picks, clips, config))


def _turned(rng: np.random.Generator, film: Film, config: VaeTraining) -> Film:
    """A share of the films with the figure at any angle throughout: a flip is upside down for a third of a second only,
    and a codec that hardly sees that blurs it."""
    if rng.random() >= config.turned:
        return film
    pose = film.pose.copy()
    pose[:, 2] += rng.uniform(-np.pi, np.pi)
    return replace(film, pose=pose)


def _cropped(
    rng: np.random.Generator, picks: list[tuple[Film, np.ndarray]], clips: Tensor, config: VaeTraining
) -> Tensor:
    """A square of each clip around the middle of its figure, off by up to a quarter of the square."""
    made = []
    for (film, frames), clip in zip(picks, clips, strict=True):
        middle = (film.pose[frames, :2].mean(0) + np.array([0, 0.58])) * config.size
        corner = middle + (rng.uniform(-0.25, 0.25, 2) - 0.5) * config.crop
        x, y = np.clip(corner, 0, config.size - config.crop).astype(int)
        made.append(clip[:, :, y : y + config.crop, x : x + config.crop])
    return torch.stack(made)


def _recoloured(rng: np.random.Generator, clips: Tensor) -> Tensor:
    """Half of the clips with their channels exchanged: a codec must not know which colours go together."""
    return torch.stack([clip[[*rng.permutation(3), 3]] if rng.random() < 0.5 else clip for clip in clips])


def weighted(picks: list[tuple[Film, np.ndarray]], size: int, device: str) -> Tensor:
    """Whole pictures [B, 4, T, H, W] of equally many frames of films; the fourth channel is their weight.

    The figure and two pixels around it, where it would leave ghosts, weigh four times as much as what lies behind.
    """
    clips = draw(picks, size, device).unflatten(0, (len(picks), -1)).transpose(1, 2)
    places = [(replace(film, pose=film.pose * NOBODY), frames[:1]) for film, frames in picks]
    behind = draw(places, size, device)[:, :, None]
    figure = ((clips - behind).abs().amax(1, keepdim=True) > 0.04).float()
    around = nn.functional.max_pool3d(figure, (1, 5, 5), stride=1, padding=(0, 2, 2))
    return torch.cat([clips, 1 + 3 * around], dim=1)


def pixel_loss(made: Tensor, real: Tensor) -> Tensor:
    """L1 plus squared error of pixels [B, 3, T, H, W] against pixels and their weights [B, 4, T, H, W]."""
    gap = (made - real[:, :3]).float()
    return (real[:, 3:] * (gap.abs() + 2 * gap.square())).mean()


def step_loss(vae: AutoencoderKLHunyuanVideo, x: Tensor, rng: np.random.Generator, kl_weight: float) -> Tensor:
    """Reconstruction and KL of a batch; half the clips are decoded from a later latent frame on, as tiles are."""
    posterior = vae.encode(x[:, :3]).latent_dist
    z = posterior.sample()
    latent_frames = z.shape[2]
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
    if latent_frames > 2 and rng.random() < 0.5:
        first = int(rng.integers(1, latent_frames - 1))
        made = vae.decode(z[:, :, first:]).sample[:, :, 1:]
        return pixel_loss(made, x[:, :, 4 * first + 1 :]) + kl_weight * kl
    return pixel_loss(vae.decode(z).sample, x) + kl_weight * kl


def inflate(vae: nn.Module) -> None:
    """After single frames: every temporal kernel sees the current frame alone.

    Trained on single frames, whose past is padding of themselves, only the sum of a kernel over time is known; all of
    it on the newest tap gives a VAE that holds every fourth frame. Left spread out, the same weights smear motion over
    three frames a layer, and what clips then teach is differences that add up to ghosts.
    """
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
                module.weight[:, :, -1] = module.weight.sum(dim=2)
                module.weight[:, :, :-1] = 0


def train_vae(vae: AutoencoderKLHunyuanVideo, folder: Path, config: VaeTraining, device: str) -> None:
    """Trains in place, on single frames in `folder`/vae-frames and then on clips in `folder`/vae."""
    vae.use_framewise_encoding = vae.use_framewise_decoding = False

    def frames_loss(_: int, rng: np.random.Generator) -> Tensor:
        return step_loss(vae, frames_batch(rng, config, device), rng, config.kl_weight)

    def clips_loss(step: int, rng: np.random.Generator) -> Tensor:
        clips = clips_batch(rng, config, device, whole=step >= config.clip_steps)
        return step_loss(vae, clips, rng, config.kl_weight)

    shared = {"lr": config.lr, "seed": config.seed, "device": device, "weight_decay": 1e-3, "ema": 0.998}
    if config.frame_steps:
        train(vae, frames_loss, folder / "vae-frames", steps=config.frame_steps, **shared)
        inflate(vae)
    train(vae, clips_loss, folder / "vae", steps=config.clip_steps + config.whole_steps, **shared)


@torch.no_grad()
def reconstructed(vae: AutoencoderKLHunyuanVideo, clip: Tensor) -> Tensor:
    """A clip [1, 3, T, H, W] encoded and decoded as a whole, framewise tiling off."""
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    made: Tensor = vae.decode(vae.encode(clip).latent_dist.mode()).sample
    return made.clamp(-1, 1)


def psnr(vae: AutoencoderKLHunyuanVideo, clips: Tensor) -> Tensor:
    """PSNR in dB [B] of reconstructed clips [B, 3, T, H, W]."""
    made = torch.cat([reconstructed(vae, clip[None]) for clip in clips])
    error = ((made - clips) / 2).square().mean(dim=(1, 2, 3, 4))
    return -10 * torch.log10(error)
