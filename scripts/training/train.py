"""Trains the packaged puppet from nothing and writes its folder.

python -m training.train --out runs/puppet            # resumes where it stopped
python -m training.train --out runs/smoke --smoke     # a minute, for the test
python -m training.train --out runs/large --large     # on a GPU
python -m training.train --out runs/puppet --stage transformer --stage export

--start framepack_relax/puppet goes on from shipped weights instead of random ones.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import HunyuanVideoFramepackPipeline

from framepack_relax.families.catalog import read_family
from training.card import write_card
from training.distil import distil
from training.parts import Sizes, build_pipeline, save_folder
from training.run import Training
from training.transformer import Trained, encode_films, load_examples, train_transformer
from training.vae import round_name, train_vae

STAGES = ("vae", "latents", "transformer", "distil", "export", "card")
FACTS = {
    "order": "forward",
    "fps": 30,
    "guidance": {"embedded": 1.0, "text": 2.0},
    "embedded_guidance": False,
    "judges": "packaged",
    "profile": {
        "name": "puppet-hand-set",
        "threshold": 0.25,
        "points": [[0.25, 0.0], [0.5, 0.5], [0.9, 0.75], [1.0, 0.75]],
        "p": 0.7,
        "blur": 0.0,
        "target": ["context"],
    },
}


DISTILLED = FACTS | {"guidance": {"embedded": 2.0, "text": 1.0}, "embedded_guidance": True}  # the same in one pass


def restore(
    pipe: HunyuanVideoFramepackPipeline, folder: Path, sizes: Sizes, training: Training, names: Sequence[str]
) -> None:
    """Puts the averaged weights of the stages `names`, as far as they are done, into the pipeline."""
    trained = Trained(pipe)
    for name in names:
        rounds = [round_name(number) for number in range(training.vae.rounds)] if name == "vae" else [name]
        files = [file for part in rounds if (file := folder / part / "last.pt").exists()]
        module = pipe.vae if name == "vae" else trained
        for file in files[-1:]:
            module.load_state_dict(torch.load(file, weights_only=True)["average"])
            logging.info("restored %s", file)
    if any((folder / "latents").glob("*.safetensors")):
        _, scale = load_examples(folder / "latents", training.transformer, sizes.image_px)
        pipe.vae.register_to_config(scaling_factor=scale)


def leaves_distilled(stages: Sequence[str], folder: Path, start: Path | None) -> bool:
    """Whether the embedded scale means something in the weights that `stages` leave."""
    if {"transformer", "distil"} & set(stages):
        return "distil" in stages
    if (folder / "transformer" / "last.pt").exists():
        return (folder / "distil" / "last.pt").exists()
    return start is not None and read_family(start).embedded_guidance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stage", choices=STAGES, action="append", help="default: all, in order")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--smoke", action="store_true", help="a minute, for the test")
    size.add_argument("--large", action="store_true", help="for a GPU")
    parser.add_argument("--start", type=Path, help="folder of a puppet whose weights training begins with")
    parser.add_argument("--steps", type=int, help="transformer steps, if not the configured ones")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    training = Training.smoke() if args.smoke else Training.large() if args.large else Training()
    sizes = Sizes.tiny() if args.smoke else Sizes()
    if args.steps:
        training = replace(training, transformer=replace(training.transformer, steps=args.steps))
    if args.start:  # its VAE knows single frames
        training = replace(training, vae=replace(training.vae, frame_steps=0, lr=training.vae.lr / 2))
        pipe = HunyuanVideoFramepackPipeline.from_pretrained(args.start, dtype=torch.float32)
    else:
        pipe = build_pipeline(sizes, seed=training.vae.seed)
    stages = args.stage or STAGES
    done = ("vae", "transformer", "distil")
    if {"transformer", "distil"} & set(stages):  # both go on from what is not distilled
        done = done[:2]
    restore(pipe, args.out, sizes, training, done)
    distilled = leaves_distilled(stages, args.out, args.start)
    for stage in stages:
        if stage == "vae":
            train_vae(pipe.vae, args.out, training.vae, args.device)
        elif stage == "latents":
            encode_films(pipe.vae, args.out / "latents", training.transformer, sizes.image_px, args.device)
        elif stage == "transformer":
            train_transformer(pipe, args.out, training.transformer, sizes.image_px, args.device)
        elif stage == "distil":
            distil(pipe, args.out, training, sizes.image_px, args.device)
        elif stage == "card":
            write_card(pipe.to("cpu"), args.out, training, sizes.image_px, distilled=distilled)
        else:
            facts = (DISTILLED if distilled else FACTS) | {"size": [sizes.image_px, sizes.image_px]}
            save_folder(pipe.to("cpu"), args.out / "model", facts)


if __name__ == "__main__":
    main()
