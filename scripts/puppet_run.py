"""What both training stages share: sizes, seeds, checkpoints with an EMA, the learning-rate curve."""

import copy
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class VaeTraining:
    seed: int = 1
    size: int = 96  # px
    frame_steps: int = 1200
    clip_steps: int = 900
    frame_batch: int = 8
    clip_batch: int = 1
    clip_frames: int = 17
    lr: float = 2e-3
    kl_weight: float = 3e-4


@dataclass(frozen=True, kw_only=True)
class TransformerTraining:
    seed: int = 2
    films: int = 720  # encoded once, four sections each
    steps: int = 4000
    batch: int = 8
    lr: float = 5e-4
    drop_prompt: float = 0.12  # prompts replaced by "", so that true CFG has an unconditional branch
    history_noise: float = 0.15  # largest standard deviation added to the history, against drift


@dataclass(frozen=True, kw_only=True)
class Training:
    """A whole run; `smoke` is the size that a test can afford."""

    vae: VaeTraining = field(default_factory=VaeTraining)
    transformer: TransformerTraining = field(default_factory=TransformerTraining)

    @staticmethod
    def smoke() -> "Training":
        vae = VaeTraining(size=32, frame_steps=90, clip_steps=10, frame_batch=8, clip_batch=1, clip_frames=9)
        return Training(vae=vae, transformer=TransformerTraining(films=3, steps=40, batch=4))


def seed_everything(seed: int) -> np.random.Generator:
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


def cosine(step: int, total: int, *, warmup: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1, (step - warmup) / max(1, total - warmup))))


class Checkpoints:
    """Weights, their EMA and the optimizer on disk, by write-then-rename; `resume` gives the step to go on from."""

    def __init__(
        self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, ema: float, every_seconds: float = 120
    ) -> None:
        self.path, self.model, self.optimizer, self.decay = path, model, optimizer, ema
        self.every_seconds, self.saved, self.loss = every_seconds, time.time(), math.nan
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        path.mkdir(parents=True, exist_ok=True)

    def resume(self) -> int:
        file = self.path / "last.pt"
        if not file.exists():
            return 0
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"]) + 1

    def after(self, step: int, loss: Tensor) -> None:
        """Counts one step in: EMA of the weights (short at first) and of the loss; saves when it is time."""
        value = loss.item()
        self.loss = value if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * value
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        with open(self.path / "losses.jsonl", "a", encoding="utf8") as file:
            file.write(json.dumps({"step": step, "loss": round(value, 5)}) + "\n")
        if time.time() - self.saved > self.every_seconds:
            self.save(step)

    def save(self, step: int) -> None:
        state = {"model": self.model.state_dict(), "average": self.average.state_dict()}
        torch.save({**state, "optimizer": self.optimizer.state_dict(), "step": step}, self.path / "last.pt.part")
        os.replace(self.path / "last.pt.part", self.path / "last.pt")
        self.saved = time.time()

    def finish(self, total: int) -> None:
        """Saves and leaves the averaged weights in the model."""
        self.save(total - 1)
        self.model.load_state_dict(self.average.state_dict())
