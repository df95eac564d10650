"""Trains the puppet's transformer with its text and image encoders on films encoded once by the trained VAE.

    B batch, C latent channels, T latent frames, h and w latent height and width

Flow matching: x_sigma = (1 - sigma) x + sigma noise, the velocity is noise - x. History and frame indices are those of
FramePack-F1 (forward order): start image at 0, 16 + 2 + 1 latent frames before the section at 1..19, section at 20..28.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_framepack import DEFAULT_PROMPT_TEMPLATE
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.drawing import draw
from training.run import TransformerTraining, train
from training.world import SECOND, Film, Mix, caption, sample_film

log = logging.getLogger("puppet.transformer")
SECTIONS, WINDOW, HISTORY = 4, 9, 19  # per film; latent frames of a section and of its history
SHARD = 40  # films


def encode_films(
    vae: AutoencoderKLHunyuanVideo, folder: Path, config: TransformerTraining, size: int, device: str
) -> None:
    """Writes the films' latents (unscaled means, whole-shot, the start image encoded alone) in shards; resumes."""
    folder.mkdir(parents=True, exist_ok=True)
    vae.to(device).eval()
    vae.use_framewise_encoding = False
    begun = time.time()
    for first in range(0, config.films, SHARD):
        file = folder / f"{first:05d}.safetensors"
        if file.exists():
            continue
        films = [_film(config.seed, number) for number in range(first, min(first + SHARD, config.films))]
        with torch.autocast(device, dtype=torch.bfloat16):
            made = [encode_film(vae, film, size, device).cpu().half() for film in films]
        save_file({"latents": torch.cat(made)}, f"{file}.part")
        Path(f"{file}.part").replace(file)
        log.info("latents of %d/%d films %.0fs", first + len(made), config.films, time.time() - begun)


@torch.no_grad()
def encode_film(vae: AutoencoderKLHunyuanVideo, film: Film, size: int, device: str) -> Tensor:
    """Unscaled latents [1, C, T, h, w]: the start image encoded alone, then the film's."""
    x = draw([(film, np.arange(len(film.pose)))], size, device).transpose(0, 1)[None]
    start = vae.encode(x[:, :, :1]).latent_dist.mode()
    return torch.cat([start, vae.encode(x).latent_dist.mode()[:, :, 1:]], dim=2)


def _film(seed: int, number: int) -> Film:
    return sample_film(np.random.default_rng((seed, number)), SECTIONS, Mix(), world=SECOND)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Every film's latents [films, C, 37, h, w] (scaled), start pixels [films, 3, H, W], and what happens in it."""

    films: list[Film]
    latents: Tensor
    starts: Tensor


def load_examples(folder: Path, config: TransformerTraining, size: int) -> tuple[Examples, float]:
    """The encoded films, and the scaling factor that gives their latents unit standard deviation."""
    latents = torch.cat([load_file(file)["latents"] for file in sorted(folder.glob("*.safetensors"))]).float()
    scale = 1 / latents.std().item()
    films = [_film(config.seed, number) for number in range(len(latents))]
    starts = torch.cat([draw([(film, np.array([0]))], size) for film in films])
    return Examples(films=films, latents=latents * scale, starts=starts), scale


def _window(rng: np.random.Generator, film: Film) -> tuple[int, str]:
    """First latent frame and action of a section that lies under one caption, most often on the 36-frame grid."""
    action, first, end = film.segments[rng.integers(len(film.segments))]
    low, high = (first + 3) // 4 if first else 1, (end - 1) // 4 - WINDOW + 1
    grid = [g for g in range(1, high + 1, WINDOW) if g >= low]
    return int(rng.choice(grid) if rng.random() < 0.6 else rng.integers(low, high + 1)), action


class Trained(nn.Module):
    """The parts that learn together, and the loss of a batch."""

    def __init__(self, pipe: HunyuanVideoFramepackPipeline) -> None:
        super().__init__()
        self.transformer, self.llama, self.clip = pipe.transformer, pipe.text_encoder, pipe.text_encoder_2
        self.vision = pipe.image_encoder
        self.tokenizer, self.tokenizer_2 = pipe.tokenizer, pipe.tokenizer_2

    def encode(self, prompts: list[str], device: str) -> dict[str, Tensor]:
        """What the pipeline's encode_prompt gives, padded to the longest prompt instead of to 256 tokens."""
        template, crop = DEFAULT_PROMPT_TEMPLATE["template"], DEFAULT_PROMPT_TEMPLATE["crop_start"]
        text = self.tokenizer([template.format(p) for p in prompts], padding=True, return_tensors="pt").to(device)
        hidden = self.llama(text.input_ids, text.attention_mask, output_hidden_states=True).hidden_states[-3]
        pooled = self.tokenizer_2(prompts, padding=True, return_tensors="pt").to(device)
        return {
            "encoder_hidden_states": hidden[:, crop:],
            "encoder_attention_mask": text.attention_mask[:, crop:],
            "pooled_projections": self.clip(pooled.input_ids).pooler_output,
        }

    def loss(self, batch: "Batch", device: str) -> Tensor:
        section = batch.section.to(device)
        noise = torch.randn_like(section)
        velocity = self.velocity(batch.mixed(noise), batch, batch.guidance, batch.prompts, device)
        return (velocity - (noise - section)).square().mean()

    def velocity(self, mixed: Tensor, batch: "Batch", guidance: Tensor, prompts: list[str], device: str) -> Tensor:
        """Of sections [B, C, 9, h, w] at the batch's noise, under these embedded scales [B] and prompts."""
        history, index = batch.history.to(device), torch.arange(1 + HISTORY + WINDOW)
        return self.transformer(
            hidden_states=mixed,
            timestep=batch.sigma.to(device) * 1000,
            guidance=guidance.to(device) * 1000,
            image_embeds=self.vision(batch.pixels.to(device)).last_hidden_state,
            indices_latents=index[20:],
            latents_clean=torch.cat([batch.start.to(device), history[:, :, -1:]], dim=2),
            indices_latents_clean=index[[0, 19]],
            latents_history_2x=history[:, :, 16:18],
            indices_latents_history_2x=index[17:19],
            latents_history_4x=history[:, :, :16],
            indices_latents_history_4x=index[1:17],
            return_dict=False,
            **self.encode(prompts, device),
        )[0].float()


@dataclass(frozen=True, kw_only=True)
class Batch:
    prompts: list[str]
    pixels: Tensor  # [B, 3, H, W]
    start: Tensor  # [B, C, 1, h, w]
    history: Tensor  # [B, C, 19, h, w], zeros before the start of the film
    section: Tensor  # [B, C, 9, h, w]
    sigma: Tensor  # [B] 0..1
    guidance: Tensor  # [B] 1..10, without meaning until it is distilled

    def mixed(self, noise: Tensor) -> Tensor:
        """The sections with their share of `noise`, on its device."""
        section, sigma = self.section.to(noise), self.sigma.to(noise)
        return torch.lerp(section, noise, sigma[:, None, None, None, None])


def sample_batch(rng: np.random.Generator, data: Examples, config: TransformerTraining) -> Batch:
    """A batch of sections, each with what came before it and the caption that it stands under."""
    prompts, picks, histories, sections = [], [], [], []
    for _ in range(config.batch):
        pick = int(rng.integers(len(data.films)))
        film, latents = data.films[pick], data.latents[pick]
        first, action = _window(rng, film)
        past = latents[:, max(0, first - HISTORY) : first]
        past = past + float(rng.uniform(0, config.history_noise)) * torch.randn_like(past)
        histories.append(nn.functional.pad(past, (0, 0, 0, 0, HISTORY - past.shape[1], 0)))
        sections.append(latents[:, first : first + WINDOW])
        prompts.append("" if rng.random() < config.drop_prompt else caption(rng, film, action))
        picks.append(pick)
    z = rng.normal(0.8, 1.2, config.batch)  # logit-normal, leaning to high noise as the shifted sampler does
    return Batch(
        prompts=prompts,
        pixels=data.starts[picks],
        start=data.latents[picks, :, :1],
        history=torch.stack(histories),
        section=torch.stack(sections),
        sigma=torch.tensor(1 / (1 + np.exp(-z)), dtype=torch.float32),
        guidance=torch.tensor(rng.uniform(1, 10, config.batch), dtype=torch.float32),
    )


def train_transformer(
    pipe: HunyuanVideoFramepackPipeline, folder: Path, config: TransformerTraining, size: int, device: str
) -> None:
    """Trains in place and sets the VAE's scaling factor; resumes from `folder`."""
    data, scale = load_examples(folder / "latents", config, size)
    pipe.vae.register_to_config(scaling_factor=scale)
    parts = Trained(pipe)
    train(
        parts, lambda _, rng: parts.loss(sample_batch(rng, data, config), device), folder / "transformer",
        steps=config.steps, lr=config.lr, seed=config.seed, device=device, weight_decay=1e-2,
    )  # fmt: skip
