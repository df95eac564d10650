"""What may stand in the place of sigma^p in eq. 2: every curve here is a value of `experimental.schedule`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A section's steps as a curve sees them, a value each, and below them the numbers of curves that a board says."""

    at: Sequence[float]  # the noise: sigmas, or unshifted times, as `coord` says; 1 is noise alone
    sigmas: Sequence[float]  # falling
    p: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)  # of sigmas


def power(steps: Steps) -> list[float]:
    """The paper's: sigma^p."""
    return [noise**steps.p for noise in steps.at]


def mean(steps: Steps) -> list[float]:
    """Its control: constant at its mean over the steps."""
    return [sum(power(steps)) / len(steps.at)] * len(steps.at)


def area(steps: Steps) -> list[float]:
    """Its control: constant at its mean over the sigma that each step covers."""
    covered = [sigma - lower for sigma, lower in zip(steps.sigmas, [*steps.sigmas[1:], 0.0], strict=True)]
    weighted = (weight * width for weight, width in zip(power(steps), covered, strict=True))
    return [sum(weighted) / sum(covered)] * len(steps.at)


def cosine(steps: Steps) -> list[float]:
    """(1 - cos(pi sigma)) / 2, after Wang et al., arXiv 2404.13040."""
    return [(1 - math.cos(math.pi * noise)) / 2 for noise in steps.at]


def interval(steps: Steps) -> list[float]:
    """1 outside the given sigmas and 0, guidance at its base, within (Kynkäänniemi et al., arXiv 2404.07724)."""
    low, high = steps.interval
    return [0.0 if low <= sigma <= high else 1.0 for sigma in steps.sigmas]


CURVES: dict[str, Callable[[Steps], list[float]]] = {
    curve.__name__: curve for curve in (power, mean, area, cosine, interval)
}
