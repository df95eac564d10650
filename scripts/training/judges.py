"""Trains the packaged judges on clips of the puppet world and writes their folders.

python -m training.judges --out runs/judges           # resumes where it stopped
python -m training.judges --out runs/judges --smoke   # seconds, for the test

`action`: a small VideoMAEForVideoClassification, what 16 frames over 2.1 seconds show. `text`: a small CLIPModel, how
well a frame fits a caption. Both are folders that the classes' own from_pretrained opens, like the hub's.
"""

import argparse
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
)

from framepack_relax.evaluate.action import FRAMES, SPAN_SECONDS
from training.judge_data import captioned, clips, labels
from training.parts import word_tokenizer
from training.run import seed_everything, train
from training.world import PLACE_WORDS, POSE, SECOND, vocabulary

log = logging.getLogger("judges")
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SPAN = round(SPAN_SECONDS * 30)  # frames at the world's 30 fps


@dataclass(frozen=True, kw_only=True)
class JudgeTraining:
    size: int = 96  # px
    patch: int = 16
    width: int = 192
    layers: int = 6
    steps: int = 2500
    batch: int = 24
    text_steps: int = 1500
    text_batch: int = 60
    lr: float = 3e-3  # action
    text_lr: float = 1e-3
    held_out: int = 600  # clips, and frames

    @staticmethod
    def smoke() -> "JudgeTraining":
        return JudgeTraining(
            size=32, patch=16, width=64, layers=1, steps=32, batch=6, text_steps=32, text_batch=24, held_out=24
        )


def build_action(config: JudgeTraining) -> VideoMAEForVideoClassification:
    names = dict(enumerate(labels(SECOND)))
    return VideoMAEForVideoClassification(
        VideoMAEConfig(
            image_size=config.size, patch_size=config.patch, num_frames=FRAMES, tubelet_size=2,
            hidden_size=config.width, num_hidden_layers=config.layers, num_attention_heads=max(1, config.width // 64),
            intermediate_size=4 * config.width, id2label=names, label2id={v: k for k, v in names.items()},
        )
    )  # fmt: skip


def build_text(config: JudgeTraining) -> CLIPModel:
    tokenizer = word_tokenizer(vocabulary(), prefix_tokens=1, suffix="</s>", max_length=40)
    wide = {
        "hidden_size": config.width, "intermediate_size": 4 * config.width,
        "num_hidden_layers": max(1, config.layers - 2), "num_attention_heads": max(1, config.width // 64),
    }  # fmt: skip
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    text = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=40, **wide, **ids)
    vision = CLIPVisionConfig(image_size=config.size, patch_size=config.patch, **wide)
    parts = {"text_config": text.to_dict(), "vision_config": vision.to_dict()}
    return CLIPModel(CLIPConfig(**parts, projection_dim=config.width))


class PoseTeacher(nn.Module):
    """The action judge, and for its training a head that reads the figure's pose off every pair of frames.

    Six labels a batch tell too little of where to look: without poses, and at a third of the learning rate, the
    cross-entropy stays at chance for hundreds of steps (LOG.md).
    """

    def __init__(self, judge: VideoMAEForVideoClassification) -> None:
        super().__init__()
        self.judge, self.pair = judge, judge.config.tubelet_size
        self.pose = nn.Linear(judge.config.hidden_size, (POSE + 1) * self.pair)

    def forward(self, pixels: Tensor, labels: Tensor, poses: Tensor) -> Tensor:
        tokens = self.judge.videomae(pixel_values=pixels)[0]  # [B, pairs of frames * places, D]
        logits = self.judge.classifier(self.judge.fc_norm(tokens.mean(1)))
        pairs = self.pose(tokens.unflatten(1, (FRAMES // self.pair, -1)).mean(2))
        x, y, angle, rest = poses.split((1, 1, 1, POSE - 3), dim=2)
        wanted = torch.cat([4 * (x - 0.5), 4 * y, angle.sin(), angle.cos(), rest], 2).view_as(pairs)
        return F.cross_entropy(logits.float(), labels) + 3 * F.mse_loss(pairs.float(), wanted)


def action_loss(model: PoseTeacher, rng: np.random.Generator, config: JudgeTraining, device: str) -> Tensor:
    pixels, truths, poses = clips(rng, config.batch, frames=FRAMES, span=SPAN, size=config.size, world=SECOND)
    loss: Tensor = model(noisy(rng, pixels).to(device), truths.to(device), poses.to(device))
    return loss


def text_loss(model: CLIPModel, rng: np.random.Generator, config: JudgeTraining, device: str) -> Tensor:
    pixels, texts = captioned(rng, config.text_batch, config.size, SECOND)
    words = {name: ids.to(device) for name, ids in tokens(texts).items()}
    loss: Tensor = model(pixel_values=noisy(rng, pixels).to(device), **words, return_loss=True).loss
    return loss


def tokens(texts: list[str]) -> dict[str, Tensor]:
    tokenizer = word_tokenizer(vocabulary(), prefix_tokens=1, suffix="</s>", max_length=40)
    made = tokenizer(texts, padding=True, return_tensors="pt")
    return {"input_ids": made.input_ids, "attention_mask": made.attention_mask}


def noisy(rng: np.random.Generator, pixels: Tensor) -> Tensor:
    """A little blur and noise, as a codec leaves them: judges must not read single pixels."""
    amount = float(rng.uniform(0, 0.06))
    if rng.random() < 0.5:
        flat = pixels.flatten(0, -4)
        small = F.interpolate(flat, scale_factor=float(rng.uniform(0.6, 1)), mode="bilinear")
        pixels = F.interpolate(small, size=flat.shape[-2:], mode="bilinear").view(pixels.shape)
    return pixels + amount * torch.randn(pixels.shape)


@torch.no_grad()
def action_accuracy(model: VideoMAEForVideoClassification, config: JudgeTraining) -> dict[str, float]:
    """Share right on clips of other seeds, in all and per label."""
    rng = np.random.default_rng(99_991)
    names = labels(SECOND)
    right: dict[str, list[bool]] = {name: [] for name in names}
    for _ in range(config.held_out // config.batch):
        pixels, truths, _ = clips(rng, config.batch, frames=FRAMES, span=SPAN, size=config.size, world=SECOND)
        guesses = model(pixel_values=pixels).logits.argmax(1)
        for truth, guess in zip(truths.tolist(), guesses.tolist(), strict=True):
            right[names[truth]].append(truth == guess)
    every = [hit for hits in right.values() for hit in hits]
    return {"all": float(np.mean(every)), **{name: float(np.mean(hits)) for name, hits in right.items()}}


@torch.no_grad()
def text_accuracy(model: CLIPModel, config: JudgeTraining) -> dict[str, float]:
    """Share of frames of other seeds whose own caption is the nearest of 90; of captions right but for the action."""
    rng = np.random.default_rng(99_991)
    whole, scene = [], []
    for _ in range(max(1, config.held_out // config.text_batch)):
        pixels, texts = captioned(rng, config.text_batch, config.size, SECOND)
        guesses = model(pixel_values=pixels, **tokens(texts)).logits_per_image.argmax(1).tolist()
        for truth, guess in enumerate(guesses):
            whole.append(truth == guess)
            scene.append(scene_of(texts[truth]) == scene_of(texts[guess]))
    return {"caption": float(np.mean(whole)), "colour and place": float(np.mean(scene))}


def scene_of(text: str) -> tuple[str, str]:
    """The colour and the place that a caption names."""
    words = text.replace(",", "").split()
    return words[1], next(word for word in PLACE_WORDS if word in words)


def save(model: Any, folder: Path, config: JudgeTraining, processor: Any, figures: dict[str, float]) -> None:
    """A folder in the hub's layout, fp16, with the figures on held-out clips beside the weights."""
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "held_out.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf8")
    log.info("%s %s", folder, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    config = JudgeTraining.smoke() if words.smoke else JudgeTraining()
    seed_everything(10)
    sizes = {"size": {"shortest_edge": config.size}, "crop_size": {"height": config.size, "width": config.size}}
    action, text = build_action(config), build_text(config)
    shared = {"seed": 11, "device": words.device, "weight_decay": 0.05, "ema": 0.998, "largest_gradient": math.inf}
    teacher, runs = PoseTeacher(action), words.out / "runs"
    train(
        teacher, lambda _, rng: action_loss(teacher, rng, config, words.device), runs / "action",
        steps=config.steps, lr=config.lr, **shared,
    )  # fmt: skip
    processor = VideoMAEImageProcessor(**sizes, **HALF)
    save(action, words.out / "action", config, processor, action_accuracy(action.cpu().eval(), config))
    train(
        text, lambda _, rng: text_loss(text, rng, config, words.device), runs / "text",
        steps=config.text_steps, lr=config.text_lr, **shared,
    )  # fmt: skip
    figures = text_accuracy(text.cpu().eval(), config)
    save(text, words.out / "text", config, CLIPImageProcessor(**sizes, **HALF), figures)
    word_tokenizer(vocabulary(), prefix_tokens=1, suffix="</s>", max_length=40).save_pretrained(words.out / "text")


if __name__ == "__main__":
    main()
