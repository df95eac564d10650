"""What every training shares: sizes, the loop with its optimizer and learning-rate curve, checkpoints with an EMA."""

import copy
import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

log = logging.getLogger("training")


@dataclass(frozen=True, kw_only=True)
class VaeTraining:
    seed: int = 1
    size: int = 96  # px
    crop: int = 64  # px, a square with most of the figure in it: most steps see no more than that
    frame_steps: int = 3000
    clip_steps: int = 9000
    whole_steps: int = 1000  # clips of the whole picture, at the end
    rounds: int = 3  # of clips, at most
    wanted: tuple[float, float] = (34.0, 30.0)  # dB of held-out clips, mean and lowest
    held_out: int = 48  # of them
    turned: float = 0.5  # share of frames and cropped clips with the figure at any angle
    recoloured: float = 0.15  # share with red, green and blue exchanged
    frame_batch: int = 8
    clip_batch: int = 2
    clip_frames: int = 17
    lr: float = 2e-3
    kl_weight: float = 3e-4


@dataclass(frozen=True, kw_only=True)
class TransformerTraining:
    seed: int = 2
    films: int = 1600  # encoded once, four sections each
    steps: int = 10_400
    batch: int = 16
    lr: float = 1e-3
    drop_prompt: float = 0.12  # prompts replaced by "", so that true CFG has an unconditional branch
    history_noise: float = 0.15  # largest standard deviation added to the history, against drift


@dataclass(frozen=True, kw_only=True)
class Distillation:
    seed: int = 3
    steps: int = 5000
    lr: float = 3e-4
    largest: float = 8.0  # embedded scales from 1 to this, uniform in their logarithm
    plain: float = 0.25  # share at scale 1, where the network is held to what it was; half of it without a prompt
    pool: int = 3000  # sections with the teacher's answers to draw from
    renew: int = 4  # steps from one batch of new answers to the next


@dataclass(frozen=True, kw_only=True)
class Training:
    """A whole run, of hours on two cores; `smoke` is the size that a test can afford, `large` is for a GPU."""

    vae: VaeTraining = field(default_factory=VaeTraining)
    transformer: TransformerTraining = field(default_factory=TransformerTraining)
    distillation: Distillation = field(default_factory=Distillation)

    @staticmethod
    def large() -> "Training":
        """Twice the clips and ten times the sections; by estimate twenty minutes on a data-centre GPU."""
        vae = VaeTraining(frame_steps=3000, clip_steps=10_000, whole_steps=1000, frame_batch=64, clip_batch=8)
        return Training(vae=vae, transformer=TransformerTraining(films=4000, steps=8000, batch=64))

    @staticmethod
    def smoke() -> "Training":
        vae = VaeTraining(
            size=32,
            crop=24,
            frame_steps=160,
            clip_steps=8,
            whole_steps=2,
            rounds=1,
            held_out=2,
            frame_batch=8,
            clip_batch=1,
            clip_frames=9,
        )
        transformer = TransformerTraining(films=3, steps=40, batch=4)
        return Training(vae=vae, transformer=transformer, distillation=Distillation(steps=30, lr=3e-3, pool=16))


def seed_everything(seed: int, step: int = 0) -> np.random.Generator:
    """Of torch and of what is returned; a run that goes on from a later `step` draws anew."""
    torch.manual_seed(seed + 1000 * step)
    return np.random.default_rng((seed, step))


def cosine(step: int, total: int, *, warmup: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1, (step - warmup) / max(1, total - warmup))))


class MuonAdamW:
    """Muon for the matrices inside blocks (a convolution is a matrix [out, in * taps]), AdamW for everything else.

    Both take steps of the same size for the same learning rate. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
    """

    def __init__(self, model: nn.Module, *, lr: float, weight_decay: float) -> None:
        named = list(model.named_parameters())
        inner = ("blocks.", "layers.", "layer.")
        self._matrices = [p for name, p in named if p.ndim > 1 and any(word in name for word in inner)]
        self._views = [p.detach().flatten(1) for p in self._matrices]  # share their memory
        chosen = {id(p) for p in self._matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        self._parts = (
            torch.optim.Muon(self._views, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay),
        )

    def step(self, lr: float) -> None:
        for view, matrix in zip(self._views, self._matrices, strict=True):
            view.grad = None if matrix.grad is None else matrix.grad.flatten(1)
            matrix.grad = None
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr
            part.step()
            part.zero_grad()

    def state_dict(self) -> list[dict[str, object]]:
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: list[dict[str, object]]) -> None:
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


class Checkpoints:
    """Weights, their EMA and the optimizer on disk, by write-then-rename; `resume` gives the step to go on from."""

    def __init__(
        self, path: Path, model: nn.Module, optimizer: MuonAdamW, *, ema: float, every_seconds: float = 120
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

    def after(self, step: int, loss: Tensor, seconds: float) -> None:
        """Counts one step in: EMA of the weights (short at first) and of the loss; saves when it is time."""
        value = loss.item()
        self.loss = value if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * value
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        with open(self.path / "losses.jsonl", "a", encoding="utf8") as file:
            file.write(json.dumps({"step": step, "loss": round(value, 5), "seconds": round(seconds, 2)}) + "\n")
        if time.time() - self.saved > self.every_seconds:
            self.save(step)

    def save(self, step: int) -> None:
        state = {"model": self.model.state_dict(), "average": self.average.state_dict()}
        torch.save({**state, "optimizer": self.optimizer.state_dict(), "step": step}, self.path / "last.pt.part")
        os.replace(self.path / "last.pt.part", self.path / "last.pt")
        self.saved = time.time()

    def finish(self, done: int) -> None:
        """Saves after `done` steps and leaves the averaged weights in the model."""
        self.save(done - 1)
        self.model.load_state_dict(self.average.state_dict())


FUSED = nn.functional.scaled_dot_product_attention
LONG = 256  # tokens


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **rest: Any) -> Tensor:
    """PyTorch's attention, where it is long and bidirectional by matrix products in bf16 (a step of the transformer
    then takes three quarters of the time: on CPUs the fused kernel is slow backwards)."""
    if query.shape[-2] < LONG or rest.get("is_causal") or rest.get("enable_gqa"):
        return FUSED(query, key, value, attn_mask=attn_mask, **rest)
    query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
    logits = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
    return logits.softmax(-1, dtype=torch.bfloat16) @ value


@contextmanager
def finishing_the_step() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set the event instead of stopping in the middle of a step."""
    asked = threading.Event()
    before = {name: signal.signal(name, lambda *_: asked.set()) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def train(
    module: nn.Module,
    loss_of: Callable[[int, np.random.Generator], Tensor],
    folder: Path,
    *,
    steps: int,
    lr: float,
    seed: int,
    device: str,
    weight_decay: float,
    ema: float = 0.999,
    largest_gradient: float = 1.0,
) -> None:
    """Trains in place on the loss of (step, rng) in bf16 autocast; resumes from `folder`, leaves averaged weights.

    Raises SystemExit after Ctrl-C or SIGTERM, when the step under way is done and saved.
    """
    module.to(device).train()
    optimizer = MuonAdamW(module, lr=lr, weight_decay=weight_decay)
    keep = Checkpoints(folder, module, optimizer, ema=ema)
    begun, first = time.time(), keep.resume()
    rng = seed_everything(seed, first)
    chosen = attention if device == "cpu" else FUSED
    with patch.object(nn.functional, "scaled_dot_product_attention", chosen), finishing_the_step() as asked:
        for step in range(first, steps):
            started = time.time()
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = loss_of(step, rng)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), largest_gradient)
            optimizer.step(lr * cosine(step, steps, warmup=min(100, steps // 10)))
            keep.after(step, loss, time.time() - started)
            if step % 50 == 0 or step == steps - 1:
                log.info("%s step %d/%d loss %.4f %.0fs", folder.name, step, steps, keep.loss, time.time() - begun)
            if asked.is_set():
                keep.save(step)
                raise SystemExit(f"{folder}: stopped after step {step}; the same command goes on from there")
    keep.finish(max(first, steps))
