"""Which action a film shows: a VideoMAE classifier (arXiv 2203.12602) over windows of 16 frames.

N frames, W windows, L labels; frames are uint8 RGB [N, H, W, 3]
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from .windows import window_frames

STATIC = "static"
SHOWN = 6  # labels, of those that a judge has


@dataclass(frozen=True, kw_only=True)
class ActionScores:
    """`windows` [W, L] float32: the probability of each label in each window."""

    labels: tuple[str, ...]
    windows: NDArray[np.float32]

    def mean(self, label: str) -> float:
        """Over the film, as a single score of a whole clip would be."""
        return float(self.windows[:, self.labels.index(label)].mean())

    def best(self, label: str) -> float:
        """In the window that shows it best: an event of less than a second counts in full."""
        return float(self.windows[:, self.labels.index(label)].max())

    def named(self) -> str:
        """The label of the film: what is most certain in any window, and static only where nothing else is."""
        best = {label: self.best(label) for label in self.labels if label != STATIC}
        label = max(best, key=best.__getitem__)
        return label if best[label] > 0.5 or STATIC not in self.labels else STATIC


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
    def score(self, frames: Clip, fps: float) -> ActionScores:
        """Every window of a film, one forward pass each."""
        windows = [self._window(frames[numbers]) for numbers in window_frames(len(frames), fps)]
        return ActionScores(labels=self.labels, windows=np.concatenate(windows))

    def _window(self, frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = self.processor(list(frames), return_tensors="pt")["pixel_values"].to(self.model.device)
        made: NDArray[np.float32] = self.model(pixel_values=pixels).logits.float().softmax(-1).cpu().numpy()
        return made
