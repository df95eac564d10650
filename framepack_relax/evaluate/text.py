"""How well frames fit a prompt: cosines of a CLIP model (arXiv 2103.00020).

N frames, P prompts; frames are uint8 RGB [N, H, W, 3]
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

BATCH = 32  # frames


class TextJudge:
    """A CLIPModel in a folder or on the hub."""

    def __init__(self, name: str | Path, *, device: str = "cpu") -> None:
        self.name = str(name)
        self.model = CLIPModel.from_pretrained(name, dtype=torch.float32).to(device).eval()
        self.processor = CLIPImageProcessor.from_pretrained(name)
        self.tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)

    @torch.no_grad()
    def cosines(self, frames: NDArray[np.uint8], prompts: Sequence[str]) -> NDArray[np.float32]:
        """[N, P] float32 in -1..1."""
        words = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        words = {name: words[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        made = []
        for first in range(0, len(frames), BATCH):
            pixels = self.processor(list(frames[first : first + BATCH]), return_tensors="pt")["pixel_values"]
            out = self.model(pixel_values=pixels.to(self.model.device), **words)
            made.append((out.image_embeds @ out.text_embeds.T).float().cpu().numpy())
        return np.concatenate(made)
