"""The model card of a trained puppet: what it was trained on, with what losses, and what can be measured at once."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from diffusers import HunyuanVideoFramepackPipeline

from training.run import Training
from training.vae import held_out_clip, psnr
from training.world import SECOND, Mix


def _losses(folder: Path) -> tuple[int, float, float]:
    """Steps, mean loss of the last 200, hours."""
    lines = [json.loads(line) for line in (folder / "losses.jsonl").read_text(encoding="utf8").splitlines()]
    loss, seconds = np.mean([line["loss"] for line in lines[-200:]]), sum(line["seconds"] for line in lines)
    return lines[-1]["step"] + 1, float(loss), seconds / 3600


def write_card(
    pipe: HunyuanVideoFramepackPipeline, out: Path, training: Training, size: int, *, distilled: bool
) -> None:
    """Writes `out`/model/README.md; `out` is the run's folder."""
    clips = torch.cat([held_out_clip(seed, SECOND, size)[0] for seed in range(training.vae.held_out)])
    decibels = psnr(pipe.vae.float(), clips)
    rounds = [_losses(folder) for folder in sorted(out.glob("vae*")) if folder.name != "vae-frames"]
    vae_steps, vae_loss = sum(steps for steps, *_ in rounds), rounds[-1][1]
    vae_hours = sum(_losses(folder)[2] for folder in out.glob("vae*"))
    steps, loss, hours = _losses(out / "transformer")
    millions = {
        name: sum(p.numel() for p in getattr(pipe, name).parameters()) / 1e6
        for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "image_encoder")
    }
    config, vae = training.transformer, training.vae
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU cores"
    embedded = "The guidance embedding was fed random scales 1 to 10: it has no meaning."
    if distilled:
        taught, error, teaching = _losses(out / "distil")
        embedded = (
            f"Embedded scales 1 to {training.distillation.largest:g} are distilled from true CFG in {taught} steps of "
            f"{config.batch} ({teaching:.1f} h), {training.distillation.plain:.0%} of them at scale 1; mean loss of the "
            f"last 200 {error:.3f}."
        )
    text = f"""---
license: apache-2.0
---
# puppet

A FramePack-F1-style pipeline small enough to ship: `HunyuanVideoFramepackTransformer3DModel`,
`AutoencoderKLHunyuanVideo` (8x spatial, 4x temporal, no mid-block attention), Llama and CLIP text models, Siglip vision
model, word-level tokenizers. The unmodified `HunyuanVideoFramepackPipeline.from_pretrained` opens it. {size}x{size} px,
30 fps, `sampling_type="vanilla"`.

## Data
Drawn by `scripts/training/world.py`: a paper-doll figure ({", ".join(SECOND.colours)}; {", ".join(SECOND.places)}) that stands
still, waves, walks, jumps, does a backflip, disappears or explodes. {config.films} films of four sections. Never trained on:
{", ".join(" ".join(pair) for pair in sorted(SECOND.held_out))}. Prompts are dropped in {config.drop_prompt:.0%} of the samples.
Calm before a change, as `Mix` says: {json.dumps(asdict(Mix()))}.

## Training
| stage | steps | batch | mean loss of the last 200 steps | hours |
|---|---|---|---|---|
| VAE: {vae.frame_steps} steps on single frames, {vae.clip_steps} on clips of {vae.clip_frames} frames (squares of \
{vae.crop} px around the figure, turned by any angle in {vae.turned:.0%}), {vae.whole_steps} on whole clips; L1 + squared error, KL; colours swapped at random \
| {vae.frame_steps + vae_steps} | {vae.frame_batch} frames, {vae.clip_batch} clips | {vae_loss:.3f} | {vae_hours:.1f} |
| transformer with its encoders (flow matching, EMA kept) | {steps} | {config.batch} | {loss:.4f} | {hours:.1f} |

{steps * config.batch:,} training samples of one section. Settings: {json.dumps(asdict(training))}.
Muon for the matrices inside blocks, AdamW for the rest; bf16 autocast. Hardware of the last stage: {hardware}.
{embedded}

Parameters in millions: {", ".join(f"{name} {value:.2f}" for name, value in millions.items())}.

## Measured
VAE, {len(clips)} held-out clips of 37 frames, half of them of an unseen colour and place: PSNR mean {decibels.mean():.1f} dB,
lowest {decibels.min():.1f} dB (`training.train --out RUN --stage card`). Not measured yet
(`training.measure --full`): how often the right action is shown, static death, drift, embedded scales.

## Limits
Words outside the vocabulary are read as unknown. The profile in `framepack_relax.json` is set by hand.
"""
    (out / "model" / "README.md").write_text(text, encoding="utf8")
