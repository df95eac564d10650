"""Which action a film shows: a VideoMAE classifier (arXiv 2203.12602) over windows of 16 frames.

A film is resampled by time, not by number, as action recognisers were trained: VideoMAE's Kinetics protocol, 16 frames
with stride 4 at 30 fps. The overlap is ours, so that an action of less than a second is in the middle of some window.

N frames, W windows, L labels; frames are uint8 RGB [N, H, W, 3]
"""

from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import VideoMAEForVideoClassification, VideoMAEImageProcessorPil

from ..errors import EvaluationError
from ..families.components import PLAIN
from ..families.fingerprint import fingerprint
from ..storyboard.messages import printable
from .frames import Clip

STATIC = "static"
FRAMES = 16  # of a window
SPAN_SECONDS, STEP_SECONDS = 64 / 30, 16 / 30  # of a window, and from window to window
SHOWN = 6  # labels, of those that a judge has


Scores = dict[str, NDArray[np.float32]]  # by label: its probability in each window [W]


def named(scores: Scores) -> str:
    """The label of a film: what is most certain in any window, and static only where nothing else is."""
    best = {label: windows.max() for label, windows in scores.items() if label != STATIC}
    label = max(best, key=best.__getitem__)
    return label if best[label] > 0.5 or STATIC not in scores else STATIC


class ActionJudge:
    """A VideoMAEForVideoClassification in a folder; `name` is what to call it."""

    def __init__(self, folder: Path, *, name: str = "", device: str = "cpu") -> None:
        self.name, self.weights = name or str(folder), fingerprint({"action": folder})
        made = VideoMAEForVideoClassification.from_pretrained(folder, dtype=torch.float32, **PLAIN)
        self.model = made.to(device).eval()
        self.processor = VideoMAEImageProcessorPil.from_pretrained(folder, local_files_only=True)
        names: dict[int, str] = self.model.config.id2label
        self.labels = tuple(printable(str(names[number]), 200) for number in sorted(names))

    def known(self, label: str) -> str:
        """The label as this judge spells it; EvaluationError names those near it, else the first."""
        spelt, wanted = {name.casefold(): name for name in self.labels}, label.casefold()
        if wanted in spelt:
            return spelt[wanted]
        near = [name for name in spelt if wanted in name] or get_close_matches(wanted, spelt)
        names = ", ".join(spelt[name] for name in (near or sorted(spelt))[:SHOWN])
        more = f" and {len(spelt) - SHOWN} more" if len(spelt) > SHOWN else ""
        cure = f"did you mean {names}?" if near else f"it has {names}{more}"
        raise EvaluationError(f"{label}: the action judge has no such label; {cure}")

    @torch.no_grad()
    def score(self, frames: Clip, fps: float) -> Scores:
        """Every window of a film, one forward pass each."""
        made = []
        for numbers in window_frames(len(frames), fps):
            pixels = self.processor(list(frames[numbers]), return_tensors="pt")["pixel_values"].to(self.model.device)
            made.append(self.model(pixel_values=pixels).logits.float().softmax(-1).cpu().numpy())
        return dict(zip(self.labels, np.concatenate(made).T, strict=True))


def window_frames(frames: int, fps: float) -> list[list[int]]:
    """Frame numbers of each window; the last one ends with the film, and in a shorter film holds the last frame."""
    span, step = SPAN_SECONDS * fps, STEP_SECONDS * fps
    spare = max(0.0, frames - span)
    offsets = np.linspace(0, span - 1, FRAMES)
    starts = [number * step for number in range(1 + int(spare / step + 1e-9))]
    if spare - starts[-1] >= 0.5:
        starts.append(spare)
    return [[min(frames - 1, round(start + offset)) for offset in offsets] for start in starts]
