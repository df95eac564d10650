"""How much pictures differ to the eye: LPIPS (Zhang et al., arXiv 1801.03924) between frames of a film.

P pairs of frames, N frames, H and W height and width; frames are uint8 RGB [N, H, W, 3]
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import EvaluationError

RATE = 8  # frames a second that are compared
BATCH = 16  # pairs
UNMEASURED = "films are compared neither from frame to frame nor with a reference"
Distance = Callable[[Tensor, Tensor], Tensor]  # two batches [P, 3, H, W] in -1..1 -> [P]


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Means over a film; `reference` is None where there is no film to compare with."""

    adjacent: float  # from frame to frame
    first: float  # to the first frame
    reference: float | None  # to the same moment of the reference


def measure_stability(
    frames: NDArray[np.uint8], fps: float, distance: Distance, reference: NDArray[np.uint8] | None = None
) -> Stability:
    """Compared about 8 times a second; `reference` has the frame rate and the size of `frames`."""
    every = max(1, round(fps / RATE))
    seen = frames[::every]
    other = None if reference is None else reference[::every][: len(seen)]
    return Stability(
        adjacent=_mean(seen[:-1], seen[1:], distance),
        first=_mean(np.broadcast_to(seen[:1], seen[1:].shape), seen[1:], distance),
        reference=None if other is None or not len(other) else _mean(seen[: len(other)], other, distance),
    )


@torch.no_grad()
def _mean(a: NDArray[np.uint8], b: NDArray[np.uint8], distance: Distance) -> float:
    if a.shape[1:] != b.shape[1:]:
        sizes = [f"{width}x{height}" for height, width in (b.shape[1:3], a.shape[1:3])]
        raise EvaluationError(f"the reference has frames of {sizes[0]}, the film of {sizes[1]}; they must be as large")
    values = [
        distance(_pixels(a[first : first + BATCH]), _pixels(b[first : first + BATCH])).flatten()
        for first in range(0, len(a), BATCH)
    ]
    return float(torch.cat(values).mean()) if values else 0.0


def _pixels(frames: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def lpips_distance() -> Distance:
    """The lpips package's AlexNet distance. Raises EvaluationError where it or its weights are not there."""
    try:
        import lpips

        network = lpips.LPIPS(net="alex", verbose=False).eval()
    except ImportError as error:
        cure = "pip install 'framepack-relax[lpips]'"
        raise EvaluationError(f"lpips is not installed, so {UNMEASURED}: {cure}") from error
    except (OSError, RuntimeError) as error:
        reason = f"lpips cannot load AlexNet's weights ({error}), so {UNMEASURED}"
        raise EvaluationError(f"{reason}; it downloads them from pytorch.org") from error
    return lambda a, b: network(a, b)
