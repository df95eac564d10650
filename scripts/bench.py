"""Speed as ratios measured in one run, so that they mean the same on every machine.

python scripts/bench.py decode      # a section decoded as a stream against FramePack's 18 latents and blend
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor

from framepack_relax.families.framepack.blend import BlendDecoder
from framepack_relax.families.heap import give_back, keep_steady
from framepack_relax.families.hunyuan_video.stream import StreamDecoder

ROUNDS = 12


def seconds(push: Callable[[Tensor], object], latents: Tensor) -> float:
    """Of a section's decode as a render does it, main memory given back before."""
    give_back()
    begun = time.perf_counter()
    push(latents)
    return time.perf_counter() - begun


def decode(model: str) -> None:
    """Sections of one shot, the two ways in turn; both without framewise tiling, then the blend with it."""
    keep_steady()
    vae = AutoencoderKLHunyuanVideo.from_pretrained(model, subfolder="vae").float().eval()
    latents = torch.randn(1, vae.config.latent_channels, 9, 12, 12, generator=torch.Generator().manual_seed(0))
    start = latents[:, :, :1]
    for framewise in (False, True):
        vae.use_framewise_decoding = framewise
        stream = StreamDecoder(vae, start=start)
        blend = BlendDecoder(vae, order="forward", start=start, sections=ROUNDS + 3)
        for _ in range(2):  # the second of a shot is the first that has a whole section before it
            stream.push(latents), blend.push(latents)
        pairs = [(seconds(stream.push, latents), seconds(blend.push, latents)) for _ in range(ROUNDS)]
        ratios = np.array([a / b for a, b in pairs])
        times = np.median(pairs, axis=0)
        print(
            f"stream / blend{' with framewise tiling' if framewise else ''}: {np.median(ratios):.2f} "
            f"({ratios.min():.2f}..{ratios.max():.2f}, {times[0]:.2f} s against {times[1]:.2f} s a section)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["decode"])
    parser.add_argument("--model", default="framepack_relax/puppet")
    words = parser.parse_args()
    decode(words.model)


if __name__ == "__main__":
    main()
