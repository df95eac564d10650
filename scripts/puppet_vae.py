"""Trains the puppet's VAE: single frames first, then clips decoded from any latent frame on.

B batch, C channels, T frames, H height, W width; pixels in -1..1.
"""

import logging
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from puppet_run import Checkpoints, VaeTraining, cosine, seed_everything
from puppet_world import SECTION_FRAMES, Film, Mix, draw, sample_film
from torch import Tensor, nn

log = logging.getLogger("puppet.vae")


def frames_batch(rng: np.random.Generator, count: int, size: int, device: str) -> Tensor:
    """Single frames [B, 3, 1, H, W], half of them from the middle of something happening."""
    picks = []
    for _ in range(count):
        film = sample_film(rng, 3, Mix())
        busy = np.flatnonzero(np.abs(np.diff(film.pose, axis=0)).max(1) > 0.02)
        moving = len(busy) and rng.random() < 0.7
        picks.append((film, np.array([rng.choice(busy) if moving else rng.integers(len(film.pose))])))
    return draw(picks, size, device)[:, :, None]


def clips_batch(rng: np.random.Generator, count: int, frames: int, size: int, device: str) -> Tensor:
    """Clips [B, 3, T, H, W], most of them with the figure in motion."""
    picks: list[tuple[Film, np.ndarray]] = []
    while len(picks) < count:
        film = sample_film(rng, 3, Mix())
        start = int(rng.integers(0, 3 * SECTION_FRAMES + 2 - frames))
        moved = np.abs(np.diff(film.pose[start : start + frames], axis=0)).max()
        if moved > 0.02 or rng.random() < 0.15:
            picks.append((film, np.arange(start, start + frames)))
    return draw(picks, size, device).unflatten(0, (count, frames)).transpose(1, 2)


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
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=1e-3)
    keep = Checkpoints(folder / "vae", vae, optimizer, ema=0.998)
    total, begun = config.frame_steps + config.clip_steps, time.time()
    for step in range(keep.resume(), total):
        clips = step >= config.frame_steps
        if step == config.frame_steps:
            inflate(vae)
            inflate(keep.average)
            optimizer.state.clear()
        for group in optimizer.param_groups:
            group["lr"] = config.lr * cosine(step, total, warmup=min(100, total // 10))
        if clips:
            x = clips_batch(rng, config.clip_batch, config.clip_frames, config.size, device)
        else:
            x = frames_batch(rng, config.frame_batch, config.size, device)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = step_loss(vae, x, rng, config.kl_weight)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        keep.after(step, loss)
        if step % 50 == 0 or step == total - 1:
            kind = "clips" if clips else "frames"
            log.info("vae %s step %d/%d loss %.4f %.0fs", kind, step, total, keep.loss, time.time() - begun)
    keep.finish(total)


def psnr(vae: AutoencoderKLHunyuanVideo, clips: Tensor) -> Tensor:
    """PSNR in dB [B] of whole-clip reconstructions, framewise tiling off."""
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    with torch.no_grad():
        made = torch.cat([vae.decode(vae.encode(c[None]).latent_dist.mode()).sample for c in clips])
    error = ((made.clamp(-1, 1) - clips) / 2).square().mean(dim=(1, 2, 3, 4))
    return -10 * torch.log10(error)
