"""How well frames fit a prompt: cosines of a CLIP model (arXiv 2103.00020).

N frames, P prompts, D embedding; frames are uint8 RGB [N, H, W, 3]
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from ..families.components import PLAIN
from ..families.fingerprint import fingerprint
from .frames import Clip

BATCH = 32  # frames


class TextJudge:
    """A CLIPModel in a folder; `name` is what to call it."""

    def __init__(self, folder: Path, *, name: str = "", device: str = "cpu") -> None:
        self.name, self.weights = name or str(folder), fingerprint({"text": folder})
        self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32, **PLAIN).to(device).eval()
        self.processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    @torch.no_grad()
    def cosines(self, frames: Clip, prompts: Sequence[str]) -> NDArray[np.float32]:
        """[N, P] float32 in -1..1."""
        words = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        words = {name: words[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        texts = self.model(pixel_values=self._pixels(frames[:1]), **words).text_embeds.float().cpu().numpy()
        cosines: NDArray[np.float32] = self.embed(frames) @ texts.T
        return cosines

    @torch.no_grad()
    def embed(self, frames: Clip) -> NDArray[np.float32]:
        """Unit vectors [N, D]; their products say how alike frames are."""
        parts = [self._pixels(frames[first : first + BATCH]) for first in range(0, len(frames), BATCH)]
        made = [self.model.visual_projection(self.model.vision_model(pixels).pooler_output) for pixels in parts]
        vectors: NDArray[np.float32] = normalize(torch.cat(made)).float().cpu().numpy()
        return vectors

    def _pixels(self, frames: Clip) -> Tensor:
        pixels: Tensor = self.processor(list(frames), return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.device)
