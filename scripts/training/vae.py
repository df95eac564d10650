"""Trains the puppet's VAE: single frames first, then clips decoded from any latent frame on.

B batch, C channels, T frames, H height, W width; pixels in -1..1.
"""

import logging
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import HunyuanVideoCausalConv3d
from torch import Tensor, nn

from training.drawing import draw, painted
from training.run import VaeTraining, train
from training.world import SECOND, SECTION_FRAMES, Film, Mix, World, sample_film

log = logging.getLogger("puppet.vae")
SHADE = 0.04  # of the range: what differs by more from the place behind it is the figure


def frames_batch(rng: np.random.Generator, config: VaeTraining, device: str) -> Tensor:
    """Single frames [B, 4, 1, H, W], most of them from the middle of something happening, cropped to the figure."""
    picks = []
    for _ in range(config.frame_batch):
        film = _turned(rng, sample_film(rng, 3, Mix(), world=SECOND), config)
        busy = np.flatnonzero(np.abs(np.diff(film.pose, axis=0)).max(1) > 0.02)
        moving = len(busy) and rng.random() < 0.7
        picks.append((film, np.array([rng.choice(busy) if moving else rng.integers(len(film.pose))])))
    return _recoloured(rng, _squares(rng, picks, config, device), config)


def clips_batch(rng: np.random.Generator, config: VaeTraining, device: str, *, whole: bool) -> Tensor:
    """Clips [B, 4, T, H, W], most of them turning or exploding; `whole` pictures, one at a time, or crops."""
    picks: list[tuple[Film, np.ndarray]] = []
    while len(picks) < (1 if whole else config.clip_batch):
        film = sample_film(rng, 3, Mix(), world=SECOND)
        start = int(rng.integers(0, 3 * SECTION_FRAMES + 2 - config.clip_frames))
        change = np.abs(np.diff(film.pose[start : start + config.clip_frames], axis=0)).max(0)
        hard = change[2] > 0.02 or change[12] > 0  # turning, exploding
        share = 1.0 if hard else 0.25 if change.max() > 0.02 else 0.03  # moving, still
        if rng.random() < share:
            shown = film if whole else _turned(rng, film, config)
            picks.append((shown, np.arange(start, start + config.clip_frames)))
    clips = weighted(picks, config.size, device) if whole else _squares(rng, picks, config, device)
    return _recoloured(rng, clips, config)


def _turned(rng: np.random.Generator, film: Film, config: VaeTraining) -> Film:
    """A share of the films with the figure at any angle throughout: a flip is upside down for a third of a second only,
    and a codec that hardly sees that blurs it."""
    if rng.random() >= config.turned:
        return film
    pose = film.pose.copy()
    pose[:, 2] += rng.uniform(-np.pi, np.pi)
    return replace(film, pose=pose)


def _squares(
    rng: np.random.Generator, picks: list[tuple[Film, np.ndarray]], config: VaeTraining, device: str
) -> Tensor:
    """A square of each clip around the middle of its figure, off by up to a quarter of the square."""
    corners = []
    for film, frames in picks:
        middle = (film.pose[frames, :2].mean(0) + np.array([0, film.world.body.middle])) * config.size
        corner = middle + (rng.uniform(-0.25, 0.25, 2) - 0.5) * config.crop
        x, y = np.clip(corner, 0, config.size - config.crop).astype(int)
        corners.append((int(x), int(y)))
    return weighted(picks, config.size, device, corners=corners, crop=config.crop)


def _recoloured(rng: np.random.Generator, clips: Tensor, config: VaeTraining) -> Tensor:
    """A share of the clips with their channels exchanged: a codec must not know which colours go together."""
    share = config.recoloured
    return torch.stack([clip[[*rng.permutation(3), 3]] if rng.random() < share else clip for clip in clips])


def weighted(
    picks: list[tuple[Film, np.ndarray]],
    size: int,
    device: str,
    *,
    corners: list[tuple[int, int]] | None = None,
    crop: int | None = None,
) -> Tensor:
    """Pictures [B, 4, T, h, w] of equally many frames of films, or squares of them; the fourth channel is their weight.

    The figure and two pixels around it, where it would leave ghosts, weigh four times as much as what lies behind.
    """
    frames, behind = painted(picks, size, device, corners=corners, crop=crop)
    figure = ((frames - behind).abs().amax(1, keepdim=True) > SHADE).float()
    around = nn.functional.max_pool2d(figure, 5, stride=1, padding=2)
    return torch.cat([frames, 1 + 3 * around], dim=1).unflatten(0, (len(picks), -1)).transpose(1, 2)


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


def of_one_frame(layer: HunyuanVideoCausalConv3d, x: Tensor) -> Tensor:
    """What the layer gives for a single frame [B, C, 1, H, W], by half the work: its past is padding of itself, so one
    kernel over the picture, the sum over time, does the same."""
    x = nn.functional.pad(x[:, :, 0], layer.time_causal_padding[:4], mode="replicate")
    conv = layer.conv
    return nn.functional.conv2d(x, conv.weight.sum(2), conv.bias, conv.stride[1:])[:, :, None]


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
    """Trains in place: on single frames in `folder`/vae-frames, then on clips in `folder`/vae, in as many rounds as it
    takes to reach `config.wanted`, each of them with a learning rate that rises and falls anew."""
    vae.use_framewise_encoding = vae.use_framewise_decoding = False

    def frames_loss(_: int, rng: np.random.Generator) -> Tensor:
        return step_loss(vae, frames_batch(rng, config, device), rng, config.kl_weight)

    def clips_loss(step: int, rng: np.random.Generator) -> Tensor:
        clips = clips_batch(rng, config, device, whole=step >= config.clip_steps)
        return step_loss(vae, clips, rng, config.kl_weight)

    shared = {"device": device, "weight_decay": 1e-3, "ema": 0.998}
    if config.frame_steps:
        with patch.object(HunyuanVideoCausalConv3d, "forward", of_one_frame):
            train(
                vae, frames_loss, folder / "vae-frames",
                steps=config.frame_steps, lr=config.lr, seed=config.seed, **shared,
            )  # fmt: skip
        inflate(vae)
    for number in range(config.rounds):
        train(
            vae, clips_loss, folder / round_name(number), steps=config.clip_steps + config.whole_steps,
            lr=config.lr / (1 + number), seed=config.seed + 100 * number, **shared,
        )  # fmt: skip
        clips = torch.cat([held_out_clip(seed, SECOND, config.size)[0] for seed in range(config.held_out)])
        decibels = psnr(vae.to("cpu").eval(), clips)
        log.info("held-out clips: %.1f dB, lowest %.1f", decibels.mean(), decibels.min())
        if decibels.mean() >= config.wanted[0] and decibels.min() >= config.wanted[1]:
            break


def round_name(number: int) -> str:
    """Folder of a round's checkpoints."""
    return f"vae-{number + 1}" if number else "vae"


def held_out_clip(seed: int, world: World, size: int = 96) -> tuple[Tensor, str]:
    """A clip [1, 3, 37, H, W] and its action; every other one of a colour and place never trained on."""
    film = sample_film(np.random.default_rng((4242, seed)), 1, Mix(), held_out=seed % 2 == 0, world=world)
    return draw([(film, np.arange(SECTION_FRAMES + 1))], size).transpose(0, 1)[None], film.segments[-1][0]


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
