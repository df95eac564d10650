"""Streaming decode and FramePack's decode and blend against the whole-shot decode, on films of the puppet world.

python scripts/measure_decode.py --model framepack_relax/models/puppet --out decode.png

Prints, for films of 12 sections that the world draws and the model's VAE encodes: PSNR to the whole-shot decode, the
change at section borders over the change inside (1: no seam), and for each choice of where GroupNorm's statistics come
from. Draws PSNR per frame and the change from frame to frame.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from numpy.typing import NDArray
from puppet_world import SECTION_FRAMES, Mix, draw, sample_film
from torch import Tensor, nn

from framepack_relax.video import stream
from framepack_relax.video.decode import BlendDecoder, decode, to_uint8

SECTIONS, LATENTS = 12, 9


def film_latents(vae: AutoencoderKLHunyuanVideo, seed: int) -> Tensor:
    """Latents [1, C, 109, h, w] of a film of 12 sections: the start image alone, then section by section."""
    film = sample_film(np.random.default_rng((7, seed)), SECTIONS, Mix(calm_only=0.0))
    parts = []
    for k in range(SECTIONS):  # as training does: a section with what the causal encoder reaches back to
        first = max(0, SECTION_FRAMES * (k - 1))
        pixels = draw([(film, np.arange(first, SECTION_FRAMES * (k + 1) + 1))]).transpose(0, 1)[None]
        latents = vae.encode(pixels).latent_dist.mode()
        parts.append(latents if k == 0 else latents[:, :, -LATENTS:])
    return torch.cat(parts, dim=2) * vae.config.scaling_factor


def by_sections(push: Callable[[Tensor], NDArray[np.uint8]], latents: Tensor) -> NDArray[np.uint8]:
    return np.concatenate([push(part) for part in latents[:, :, 1:].split(LATENTS, dim=2)])


def streamed(vae: AutoencoderKLHunyuanVideo, latents: Tensor, normalise: Callable[..., Tensor]) -> NDArray[np.uint8]:
    with patch.object(stream, "_normalise", normalise):
        return by_sections(stream.StreamDecoder(vae, start=latents[:, :, :1]).push, latents)


def blended(vae: AutoencoderKLHunyuanVideo, latents: Tensor) -> NDArray[np.uint8]:
    decoder = BlendDecoder(vae, order="forward", start=latents[:, :, :1], sections=SECTIONS)
    return by_sections(decoder.push, latents)


def cumulative(module: nn.GroupNorm, x: Tensor, memory: stream.Memory) -> Tensor:
    """Statistics over all frames so far."""
    mean, variance = stream._statistics(module, x)
    frames = x.shape[2] if x.ndim == 5 else memory.frames
    seen, old_mean, old_variance = memory.kept.get(module, (0, mean, variance))
    share = frames / (seen + frames)
    new = old_mean + share * (mean - old_mean)
    variance = (1 - share) * (old_variance + (old_mean - new) ** 2) + share * (variance + (mean - new) ** 2)
    memory.kept[module] = (seen + frames, new, variance)
    return _apply(module, x, new, variance)


def newest(sections: int) -> Callable[..., Tensor]:
    """Statistics over this section and those before it, so many in all."""

    def normalise(module: nn.GroupNorm, x: Tensor, memory: stream.Memory) -> Tensor:
        kept = [*memory.kept.get(module, []), stream._statistics(module, x)][-sections:]
        memory.kept[module] = kept
        means, variances = (torch.stack(values) for values in zip(*kept, strict=True))
        mean = means.mean(0)
        return _apply(module, x, mean, (variances + (means - mean) ** 2).mean(0))

    return normalise


def _apply(module: nn.GroupNorm, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return nn.functional.batch_norm(x, mean, variance, module.weight.float(), module.bias.float(), eps=module.eps)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Per frame, dB of 255; 60 where frames are equal."""
    error = ((a.astype(np.float64) - b) ** 2).mean((1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 255**2 / 1e6))


def overall(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(np.float64) - b) ** 2).mean()))


def changes(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.abs(np.diff(frames.astype(np.float64), axis=0)).mean((1, 2, 3))


def seam(frames: NDArray[np.uint8]) -> float:
    """Mean change into each section's first frame over the mean of the four changes around it."""
    change = changes(frames)
    borders = range(SECTION_FRAMES, len(change) - 2, SECTION_FRAMES)
    around = [change[[b - 2, b - 1, b + 1, b + 2]].mean() for b in borders]
    return float(change[list(borders)].mean() / np.mean(around))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="framepack_relax/models/puppet")
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--out", type=Path, help="PNG of the first film")
    words = parser.parse_args()
    vae = AutoencoderKLHunyuanVideo.from_pretrained(words.model, subfolder="vae").float().eval()
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    ways: dict[str, Any] = {
        "blend": blended,
        "stream, first section's statistics": lambda v, z: streamed(v, z, stream._normalise),
        "stream, cumulative": lambda v, z: streamed(v, z, cumulative),
        **{f"stream, newest {n} sections": lambda v, z, n=n: streamed(v, z, newest(n)) for n in (1, 2, 3, 4)},
    }
    rows: dict[str, list[tuple[float, float, float]]] = {}
    with torch.no_grad():
        for seed in range(words.films):
            latents = film_latents(vae, seed)
            whole = to_uint8(decode(vae, latents))
            made = {"whole shot": whole, **{name: way(vae, latents) for name, way in ways.items()}}
            for name, frames in made.items():
                likeness = (
                    (float("inf"),) * 2 if frames is whole else (overall(frames, whole), psnr(frames, whole).min())
                )
                rows.setdefault(name, []).append((*likeness, seam(frames)))
            if seed == 0 and words.out:
                plot(made, words.out)
    print(f"{'':40} {'dB to whole':>12} {'lowest film':>12} {'worst frame':>12} {'seam':>6}")
    for name, figures in rows.items():
        table = np.array(figures)
        print(
            f"{name:40} {table[:, 0].mean():12.1f} {table[:, 0].min():12.1f} {table[:, 1].min():12.1f} "
            f"{table[:, 2].mean():6.2f}"
        )


def plot(made: dict[str, NDArray[np.uint8]], path: Path) -> None:
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(12, 7), sharex=True)
    for name, frames in made.items():
        if name != "whole shot":
            top.plot(psnr(frames, made["whole shot"]), label=name, linewidth=1)
        bottom.plot(changes(frames), label=name, linewidth=0.8)
    for axis, label in ((top, "PSNR to the whole-shot decode, dB"), (bottom, "change from frame to frame, levels")):
        axis.set_ylabel(label)
        for border in range(SECTION_FRAMES, SECTION_FRAMES * SECTIONS, SECTION_FRAMES):
            axis.axvline(border, color="0.85", linewidth=0.6, zorder=0)
    top.legend(fontsize=8)
    bottom.set_xlabel("frame; grey lines: section borders")
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
