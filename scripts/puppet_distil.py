"""Distils guidance into the puppet's guidance embedding: one pass at embedded scale s learns true CFG at s.

After Meng et al., arXiv 2210.03142. The teacher is the network as it was trained; at scale 1 the student stays as the
teacher is, so that true CFG works on it as before.
"""

import copy
import logging
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import HunyuanVideoFramepackPipeline
from puppet_run import Checkpoints, MuonAdamW, Training, cosine, seed_everything
from puppet_transformer import Batch, Trained, load_examples, sample_batch
from torch import Tensor

log = logging.getLogger("puppet.distil")


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
    rng = seed_everything(config.seed)
    data, _ = load_examples(folder / "latents", training.transformer, size)
    student = Trained(pipe).to(device).train()
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    optimizer = MuonAdamW(student, lr=config.lr, weight_decay=0.0)
    keep = Checkpoints(folder / "distil", student, optimizer, ema=0.999)
    begun, first = time.time(), keep.resume()
    rng = np.random.default_rng((config.seed, first))
    for step in range(first, config.steps):
        batch = sample_batch(rng, data, training.transformer)
        drawn = rng.uniform(1, config.largest, len(batch.prompts))
        scales = torch.tensor(np.where(rng.random(len(drawn)) < config.plain, 1, drawn), dtype=torch.float32)
        with torch.autocast(device, dtype=torch.bfloat16):
            mixed = batch.mixed(torch.randn_like(batch.section.to(device)))
            wanted = guided(teacher, mixed, batch, scales, device)
            loss = (student.velocity(mixed, batch, scales, batch.prompts, device) - wanted).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step(config.lr * cosine(step, config.steps, warmup=min(100, config.steps // 10)))
        keep.after(step, loss)
        if step % 50 == 0 or step == config.steps - 1:
            log.info("distil step %d/%d loss %.4f %.0fs", step, config.steps, keep.loss, time.time() - begun)
    keep.finish(config.steps)
