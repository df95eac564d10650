"""Streaming decode and FramePack's decode and blend against the whole-shot decode, on films of the puppet world.

python scripts/measure_decode.py --model framepack_relax/puppet --out decode.png

Films of 12 sections are drawn by the world and encoded by the model's VAE. For each choice of where GroupNorm's
statistics come from: PSNR to the whole-shot decode, and how far the difference to it jumps from frame to frame, at
section borders (a seam) and inside. Draws both for the first film.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from numpy.typing import NDArray
from torch import Tensor, nn
from training.drawing import draw
from training.world import SECTION_FRAMES, Film, Mix, sample_film

from framepack_relax.families.framepack import blend
from framepack_relax.families.framepack.blend import BlendDecoder, decode
from framepack_relax.families.hunyuan_video import stream

SECTIONS, LATENTS = 12, 9
BORDERS = list(range(0, SECTION_FRAMES * SECTIONS, SECTION_FRAMES))
Frames = NDArray[np.float32]


def busy_films(count: int) -> Iterator[Film]:
    """Films of the world in which the figure moves in most sections and is always in the picture."""
    rng = np.random.default_rng(7)
    while count:
        film = sample_film(rng, SECTIONS, Mix(calm_only=0.0))
        still = [np.ptp(film.pose[first : first + SECTION_FRAMES], axis=0).max() < 0.05 for first in BORDERS]
        seen = film.pose[:, 3].min() > 0.5 and 0.1 < film.pose[:, 0].min() < film.pose[:, 0].max() < 0.9
        if seen and sum(still) <= len(still) // 3:
            count -= 1
            yield film


def film_latents(vae: AutoencoderKLHunyuanVideo, film: Film, sections: int = SECTIONS) -> Tensor:
    """Latents [1, C, 9n + 1, h, w] of a film: the start image, then a section after the one before it."""
    parts = []
    for k in range(sections):
        first = max(0, SECTION_FRAMES * (k - 1))
        pixels = draw([(film, np.arange(first, SECTION_FRAMES * (k + 1) + 1))]).transpose(0, 1)[None]
        latents = vae.encode(pixels).latent_dist.mode()
        parts.append(latents if k == 0 else latents[:, :, -LATENTS:])
    return torch.cat(parts, dim=2) * vae.config.scaling_factor


def by_sections(push: Callable[[Tensor], Any], latents: Tensor) -> Frames:
    """Frames before they are rounded."""
    with patch.object(stream, "to_uint8", levels), patch.object(blend, "to_uint8", levels):
        return np.concatenate([push(part) for part in latents[:, :, 1:].split(LATENTS, dim=2)])


def streamed(vae: AutoencoderKLHunyuanVideo, latents: Tensor, normalise: Callable[..., Tensor]) -> Frames:
    with patch.object(stream, "_normalise", normalise):
        return by_sections(stream.StreamDecoder(vae, start=latents[:, :, :1]).push, latents)


def blended(vae: AutoencoderKLHunyuanVideo, latents: Tensor) -> Frames:
    decoder = BlendDecoder(vae, order="forward", start=latents[:, :, :1], sections=SECTIONS)
    return by_sections(decoder.push, latents)


def first_section(module: nn.GroupNorm, x: Tensor, memory: stream.Memory) -> Tensor:
    """The first section's statistics, from then on."""
    if module not in memory.kept:
        memory.kept[module] = stream._statistics(module, x)
    return _apply(module, x, *memory.kept[module])


def newest(sections: int) -> Callable[..., Tensor]:
    """Statistics over this section and those before it, so many in all."""

    def normalise(module: nn.GroupNorm, x: Tensor, memory: stream.Memory) -> Tensor:
        kept = [*memory.kept.get(module, []), stream._statistics(module, x)][-sections:]
        memory.kept[module] = kept
        means, variances = (torch.stack(values) for values in zip(*kept, strict=True))
        mean = means.mean(0)
        return _apply(module, x, mean, (variances + (means - mean) ** 2).mean(0))

    return normalise


def ramped(module: nn.GroupNorm, x: Tensor, memory: stream.Memory) -> Tensor:
    """From the statistics of the section before to this section's own, frame by frame."""
    own = stream._statistics(module, x)
    before = memory.kept.get(module, own)
    memory.kept[module] = own
    if x.ndim < 5:
        return _apply(module, x, *own)
    frames = x.unbind(2)
    weights = [(n + 1) / len(frames) for n in range(len(frames))]
    each = [
        _apply(module, frame, *(a.lerp(b, weight) for a, b in zip(before, own, strict=True)))
        for frame, weight in zip(frames, weights, strict=True)
    ]
    return torch.stack(each, dim=2)


def _apply(module: nn.GroupNorm, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return nn.functional.batch_norm(x, mean, variance, module.weight.float(), module.bias.float(), eps=module.eps)


def levels(pixels: Tensor) -> Frames:
    """[1, 3, N, H, W] in -1..1 -> [N, H, W, 3] in 0..255, not rounded: rounding alone is 56 dB."""
    return np.asarray((pixels[0].permute(1, 2, 3, 0).clamp(-1, 1) * 127.5 + 127.5).float())


def psnr(a: Frames, b: Frames) -> NDArray[np.float64]:
    """Per frame, dB of 255."""
    return 10 * np.log10(255**2 / np.maximum(((a - b) ** 2).mean((1, 2, 3), dtype=np.float64), 1e-4))


def overall(a: Frames, b: Frames) -> float:
    return float(10 * np.log10(255**2 / ((a - b) ** 2).mean(dtype=np.float64)))


def jumps(a: Frames, b: Frames) -> NDArray[np.float64]:
    """How far the difference of two films jumps from frame to frame, levels; a seam stands out at its border."""
    return np.abs(np.diff(a - b, axis=0)).mean((1, 2, 3), dtype=np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="framepack_relax/puppet")
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--out", type=Path, help="PNG of the first film")
    words = parser.parse_args()
    vae = AutoencoderKLHunyuanVideo.from_pretrained(words.model, subfolder="vae").float().eval()
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    ways: dict[str, Any] = {
        "blend": blended,
        "stream, all sections so far": lambda v, z: streamed(v, z, stream._normalise),
        "stream, the first section's": lambda v, z: streamed(v, z, first_section),
        "stream, each section's own": lambda v, z: streamed(v, z, newest(1)),
        "stream, ramp to each section's own": lambda v, z: streamed(v, z, ramped),
        "stream, newest two sections'": lambda v, z: streamed(v, z, newest(2)),
    }
    rows: dict[str, list[list[float]]] = {}
    for film in busy_films(words.films):
        with torch.no_grad():
            latents = film_latents(vae, film)
            whole = levels(decode(vae, latents))
        made = {name: way(vae, latents) for name, way in ways.items()}
        for name, frames in made.items():
            jump = jumps(frames, whole)
            inside = np.delete(jump, BORDERS)
            figures = [overall(frames, whole), psnr(frames, whole).min(), jump[BORDERS[1:]].mean(), inside.mean()]
            rows.setdefault(name, []).append(figures)
        if words.out and len(rows["blend"]) == 1:
            plot(made, whole, words.out)
    print(f"{'':34} {'dB to whole':>12} {'lowest film':>12} {'worst frame':>12} {'jump at borders':>16} {'inside':>7}")
    for name, films in rows.items():
        mean, low = np.mean(films, 0), np.min(films, 0)
        print(f"{name:34} {mean[0]:12.1f} {low[0]:12.1f} {low[1]:12.1f} {mean[2]:16.3f} {mean[3]:7.3f}", flush=True)


def plot(made: Mapping[str, Frames], whole: Frames, path: Path) -> None:
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(12, 7), sharex=True)
    for name, frames in made.items():
        top.plot(psnr(frames, whole), label=name, linewidth=1)
        bottom.plot(jumps(frames, whole), label=name, linewidth=0.8)
    for axis, label in ((top, "PSNR to the whole-shot decode, dB"), (bottom, "jump of the difference to it, levels")):
        axis.set_ylabel(label)
        for border in BORDERS:
            axis.axvline(border, color="0.85", linewidth=0.6, zorder=0)
    top.legend(fontsize=8)
    bottom.set_xlabel("frame; grey lines: section borders")
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
