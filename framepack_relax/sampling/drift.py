"""Drift of colours over a long shot, held by matching statistics of latents.

Source: adaptive instance normalisation (Huang and Belongie, arXiv 1703.06868, eq. 8), per channel over a section.
"""

from torch import Tensor


def match_statistics(latents: Tensor, reference: Tensor, strength: float) -> Tensor:
    """Latents [1, C, T, h, w] whose mean and deviation per channel go `strength` (0..1) of the way to the reference's.

    0 gives the latents themselves, 1 exactly the reference's statistics.
    """
    if strength == 0:
        return latents
    over = (2, 3, 4)
    mean, deviation = latents.mean(over, keepdim=True), latents.std(over, keepdim=True)
    matched = (latents - mean) / deviation.clamp_min(1e-6) * reference.std(over, keepdim=True)
    return latents.lerp(matched + reference.mean(over, keepdim=True), strength)
