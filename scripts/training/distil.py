"""Distils guidance into the puppet's guidance embedding: one pass at embedded scale s learns true CFG at s.

After Meng et al., arXiv 2210.03142. The teacher is the network as it was trained; at scale 1 the student is
held to the teacher, with and without a prompt, so that true CFG still works on it. The text and image encoders are not
trained.

Most sections follow from their history, and on them guidance changes nothing: a tenth of the examples holds three
fifths of all that it changes. So the teacher's answers wait in a pool, and are drawn the more often the more guidance
changes them, with weights that keep the mean. What true CFG changes grows with s - 1: errors count in shares of s, and
scales are drawn evenly in their logarithm, or the largest would be all that is learnt.
"""

import copy
from collections import deque
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import torch
from diffusers import HunyuanVideoFramepackPipeline, HunyuanVideoFramepackTransformer3DModel
from torch import Tensor

from training.run import Training, seed_everything, train
from training.transformer import Batch, Trained, load_examples, sample_batch


@torch.no_grad()
def branches(teacher: Trained, mixed: Tensor, batch: Batch, device: str) -> tuple[Tensor, Tensor]:
    """The teacher's velocities v(c) under the batch's prompts and v(neg) under the empty prompt."""
    ones = torch.ones(len(batch.prompts))
    cond = teacher.velocity(mixed, batch, ones, batch.prompts, device)
    return cond, teacher.velocity(mixed, batch, ones, [""] * len(batch.prompts), device)


def guided(cond: Tensor, uncond: Tensor, scales: Tensor) -> Tensor:
    """True CFG at `scales` [B], eq. 1: v(neg) + s (v(c) - v(neg))."""
    return torch.lerp(uncond, cond, scales.to(cond)[:, None, None, None, None])


def spread_scales(transformer: HunyuanVideoFramepackTransformer3DModel, largest: float) -> None:
    """Begins the guidance embedder anew: smooth in the scale, bent at scales between 1 and `largest`, as yet constant.

    The embedder gets sines of 1000 s; most of them turn many times from one scale to the next and are noise to it.
    Those that turn by less than a radian get weights. Its output is at every scale what it was at scale 1.
    """
    projection, embedder = transformer.time_text_embed.time_proj, transformer.time_text_embed.guidance_embedder
    first, last = embedder.linear_1, embedder.linear_2
    half = projection.num_channels // 2
    turns = 1000 * torch.exp(-np.log(10_000) * torch.arange(half) / half).to(first.weight)  # rad per unit of scale
    bends = 1000 * largest ** torch.rand(first.out_features).to(first.weight)
    with torch.no_grad():
        last.bias.copy_(embedder(projection(torch.full((1,), 1000.0).to(first.weight)))[0])
        last.weight.zero_()
        first.weight.normal_().mul_((turns < 1).repeat(2))
        first.bias.copy_(-(first.weight * projection(bends)).sum(1))


@dataclass(frozen=True, kw_only=True)
class Taught(Batch):
    """Sections with noise, and what the teacher says of them."""

    noisy: Tensor  # [B, C, 9, h, w]
    cond: Tensor
    uncond: Tensor

    def rows(self) -> list[Self]:
        names = [field.name for field in fields(self)]
        return [type(self)(**{n: getattr(self, n)[k : k + 1] for n in names}) for k in range(len(self.prompts))]

    @classmethod
    def joined(cls, rows: list[Self]) -> Self:
        tensors = [field.name for field in fields(cls) if field.name != "prompts"]
        prompts = [prompt for row in rows for prompt in row.prompts]
        return cls(prompts=prompts, **{name: torch.cat([getattr(row, name) for row in rows]) for name in tensors})

    def change(self) -> Tensor:
        """What guidance changes [B]: the mean square of v(c) - v(neg)."""
        return (self.cond - self.uncond).square().mean((1, 2, 3, 4))


class Pool:
    """The teacher's last answers on single sections; the oldest make room."""

    def __init__(self, size: int) -> None:
        self.rows: deque[Taught] = deque(maxlen=size)
        self.changes: deque[float] = deque(maxlen=size)

    def full(self) -> bool:
        return len(self.rows) == self.rows.maxlen

    def add(self, taught: Taught) -> None:
        self.rows.extend(taught.rows())
        self.changes.extend(taught.change().tolist())

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Taught, Tensor]:
        """Sections, and weights [count]: a sum over them is a mean over the pool, in shares of the mean change."""
        changes = np.array(self.changes)
        shares = np.sqrt(changes) / np.sqrt(changes).mean() + 0.2
        shares /= shares.sum()
        picks = rng.choice(len(changes), count, p=shares)
        weights = 1 / (len(changes) * shares[picks] * count * changes.mean())
        return Taught.joined([self.rows[k] for k in picks]), torch.tensor(weights, dtype=torch.float32)


def distil(pipe: HunyuanVideoFramepackPipeline, folder: Path, training: Training, size: int, device: str) -> None:
    """Trains in place, starting from the teacher's weights; resumes from `folder`.

    The loss is in shares of what true CFG at scale 2 changes, over s squared: 0.3 if the scale is ignored.
    """
    config = training.distillation
    data, _ = load_examples(folder / "latents", training.transformer, size)
    teacher = Trained(pipe).to(device).eval().requires_grad_(False)
    student = Trained(pipe)
    student.transformer = copy.deepcopy(teacher.transformer).requires_grad_(True)
    seed_everything(config.seed)
    spread_scales(student.transformer, config.largest)
    pool = Pool(config.pool)

    def teach(rng: np.random.Generator) -> Taught:
        batch = sample_batch(rng, data, training.transformer)
        noisy = batch.mixed(torch.randn_like(batch.section))
        cond, uncond = branches(teacher, noisy.to(device), batch, device)
        return Taught(**vars(batch), noisy=noisy, cond=cond.cpu(), uncond=uncond.cpu())

    def loss(step: int, rng: np.random.Generator) -> Tensor:
        if step % config.renew == 0:
            pool.add(teach(rng))
        while not pool.full():
            pool.add(teach(rng))
        taught, weights = pool.draw(rng, training.transformer.batch)
        draws = rng.random(len(weights))
        empty, plain = draws < config.plain / 2, draws < config.plain  # wanted: v(neg); v(c); true CFG for the rest
        scales = torch.tensor(np.where(plain, 1, config.largest ** rng.random(len(weights))), dtype=torch.float32)
        prompts = ["" if e else prompt for e, prompt in zip(empty, taught.prompts, strict=True)]
        wanted = guided(taught.cond, taught.uncond, torch.where(torch.tensor(empty), 0, scales)).to(device)
        said = student.velocity(taught.noisy.to(device), taught, scales, prompts, device)
        gaps = (said - wanted).square().mean((1, 2, 3, 4))
        return (gaps * (weights / scales.square()).to(device)).sum()

    train(
        student, loss, folder / "distil",
        steps=config.steps, lr=config.lr, seed=config.seed, device=device, weight_decay=0.0,
    )  # fmt: skip
    pipe.transformer = student.transformer
