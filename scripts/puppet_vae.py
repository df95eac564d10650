"""Trains the puppet's VAE: single frames first, then clips decoded from any latent frame on.

B batch, C channels, T frames, H height, W width; pixels in -1..1.
"""

import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from puppet_run import Checkpoints, MuonAdamW, VaeTraining, cosine, seed_everything
from puppet_world import SECTION_FRAMES, Film, Mix, draw, sample_film
from torch import Tensor, nn

log = logging.getLogger("puppet.vae")


def frames_batch(rng: np.random.Generator, config: VaeTraining, device: str) -> Tensor:
    """Single frames [B, 3, 1, H, W], most of them from the middle of something happening, cropped to the figure."""
    picks = []
    for _ in range(config.frame_batch):
        film = _turned(rng, sample_film(rng, 3, Mix()), config)
        busy = np.flatnonzero(np.abs(np.diff(film.pose, axis=0)).max(1) > 0.02)
        moving = len(busy) and rng.random() < 0.7
        picks.append((film, np.array([rng.choice(busy) if moving else rng.integers(len(film.pose))])))
    return _recoloured(rng, _cropped(rng, picks, draw(picks, config.size, device)[:, :, None], config))


def clips_batch(rng: np.random.Generator, config: VaeTraining, device: str, *, whole: bool) -> Tensor:
    """Clips [B, 3, T, H, W], most in motion, many in a flip; `whole` pictures, one at a time, or crops."""
    picks: list[tuple[Film, np.ndarray]] = []
    while len(picks) < (1 if whole else config.clip_batch):
        film = sample_film(rng, 3, Mix())
        start = int(rng.integers(0, 3 * SECTION_FRAMES + 2 - config.clip_frames))
        change = np.abs(np.diff(film.pose[start : start + config.clip_frames], axis=0)).max(0)
        share = 1.0 if change[2] > 0.02 else 0.4 if change.max() > 0.02 else 0.1  # turning, moving, still
        if rng.random() < share:
            shown = film if whole else _turned(rng, film, config)
            picks.append((shown, np.arange(start, start + config.clip_frames)))
    clips = draw(picks, config.size, device).unflatten(0, (len(picks), config.clip_frames)).transpose(1, 2)
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
    """A square of each clip around the middle of its figure, off by up to a sixth."""
    made = []
    for (film, frames), clip in zip(picks, clips, strict=True):
        middle = (film.pose[frames, :2].mean(0) + np.array([0, 0.58]) + rng.uniform(-1 / 6, 1 / 6, 2)) * config.size
        x, y = np.clip(middle - config.crop / 2, 0, config.size - config.crop).astype(int)
        made.append(clip[:, :, y : y + config.crop, x : x + config.crop])
    return torch.stack(made)


def _recoloured(rng: np.random.Generator, clips: Tensor) -> Tensor:
    """Half of the clips with their channels exchanged: a codec must not know which colours go together."""
    return torch.stack([clip[rng.permutation(3)] if rng.random() < 0.5 else clip for clip in clips])


def pixel_loss(made: Tensor, real: Tensor) -> Tensor:
    """L1 plus squared error; the figure, a tenth of the picture, weighs four times as much as what lies behind it."""
    behind = real.median(dim=-1, keepdim=True).values  # places are horizontal bands
    weight = 1 + 3 * ((real - behind).abs().amax(1, keepdim=True) > 0.04).float()
    gap = (made - real).float()
    return (weight * (gap.abs() + 2 * gap.square())).mean()


def step_loss(vae: AutoencoderKLHunyuanVideo, x: Tensor, rng: np.random.Generator, kl_weight: float) -> Tensor:
    """Reconstruction and KL of a batch; half the clips are decoded from a later latent frame on, as tiles are."""
    posterior = vae.encode(x).latent_dist
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
    """Trains in place; resumes from `folder`, writes a checkpoint every few minutes and at the end."""
    rng = seed_everything(config.seed)
    vae.to(device).train()
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    optimizer = MuonAdamW(vae, lr=config.lr, weight_decay=1e-3)
    keep = Checkpoints(folder / "vae", vae, optimizer, ema=0.998)
    total, begun = config.frame_steps + config.clip_steps + config.whole_steps, time.time()
    for step in range(keep.resume(), total):
        if step == config.frame_steps > 0:
            inflate(vae)
            inflate(keep.average)
            optimizer.forget()
        if step < config.frame_steps:
            kind, x = "frames", frames_batch(rng, config, device)
        else:
            whole = step >= config.frame_steps + config.clip_steps
            kind, x = "clips", clips_batch(rng, config, device, whole=whole)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = step_loss(vae, x, rng, config.kl_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step(config.lr * cosine(step, total, warmup=min(100, total // 10)))
        keep.after(step, loss)
        if step % 50 == 0 or step == total - 1:
            log.info("vae %s step %d/%d loss %.4f %.0fs", kind, step, total, keep.loss, time.time() - begun)
    keep.finish(total)


def psnr(vae: AutoencoderKLHunyuanVideo, clips: Tensor) -> Tensor:
    """PSNR in dB [B] of whole-clip reconstructions, framewise tiling off."""
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    with torch.no_grad():
        made = torch.cat([vae.decode(vae.encode(c[None]).latent_dist.mode()).sample for c in clips])
    error = ((made.clamp(-1, 1) - clips) / 2).square().mean(dim=(1, 2, 3, 4))
    return -10 * torch.log10(error)
