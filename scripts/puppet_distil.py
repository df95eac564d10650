"""Distils guidance into the puppet's guidance embedding: one pass at embedded scale s learns true CFG at s.

After Meng et al., arXiv 2210.03142. The teacher is the network as it was trained; at scale 1 the student stays as the
teacher is, so that true CFG works on it as before. What true CFG changes grows with s - 1: errors count in shares of s,
and scales are drawn evenly in their logarithm, or the largest would be all that is learnt.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from diffusers import HunyuanVideoFramepackPipeline
from puppet_run import Training, train
from puppet_transformer import Batch, Trained, load_examples, sample_batch
from torch import Tensor


@torch.no_grad()
def guided(teacher: Trained, mixed: Tensor, batch: Batch, scales: Tensor, device: str) -> Tensor:
    """True CFG of the teacher at `scales` [B], eq. 1: v(neg) + s (v(c) - v(neg)), neg the empty prompt."""
    ones = torch.ones_like(scales)
    cond = teacher.velocity(mixed, batch, ones, batch.prompts, device)
    uncond = teacher.velocity(mixed, batch, ones, [""] * len(batch.prompts), device)
    return uncond + scales.to(device)[:, None, None, None, None] * (cond - uncond)


def distil(pipe: HunyuanVideoFramepackPipeline, folder: Path, training: Training, size: int, device: str) -> None:
    """Trains in place, starting from the teacher's weights; resumes from `folder`."""
    config = training.distillation
    data, _ = load_examples(folder / "latents", training.transformer, size)
    student = Trained(pipe).to(device)
    teacher = copy.deepcopy(student).eval().requires_grad_(False)

    def loss(_: int, rng: np.random.Generator) -> Tensor:
        batch = sample_batch(rng, data, training.transformer)
        drawn = config.largest ** rng.random(len(batch.prompts))
        scales = torch.tensor(np.where(rng.random(len(drawn)) < config.plain, 1, drawn), dtype=torch.float32)
        mixed = batch.mixed(torch.randn_like(batch.section.to(device)))
        wanted = guided(teacher, mixed, batch, scales, device)
        gap = (student.velocity(mixed, batch, scales, batch.prompts, device) - wanted).square().mean((1, 2, 3, 4))
        return (gap / scales.to(device).square()).mean()

    train(
        student, loss, folder / "distil",
        steps=config.steps, lr=config.lr, seed=config.seed, device=device, weight_decay=0.0,
    )  # fmt: skip
