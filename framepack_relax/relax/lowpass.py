"""ALG's filter (Choi et al., arXiv 2506.08456): a picture without its fine detail holds a film back less."""

from torch import Tensor
from torch.nn.functional import interpolate


def low_pass(latents: Tensor, factor: float) -> Tensor:
    """Latent frames [B, C, T, h, w] made `factor` (0..1] as large and as large as before again; 1 is the identity."""
    if factor == 1:
        return latents
    frames = latents.transpose(1, 2).flatten(0, 1)
    height, width = frames.shape[-2:]
    small = (max(1, round(factor * height)), max(1, round(factor * width)))
    for size in (small, (height, width)):
        frames = interpolate(frames, size=size, mode="bilinear", antialias=True)
    return frames.unflatten(0, (latents.shape[0], latents.shape[2])).transpose(1, 2)
