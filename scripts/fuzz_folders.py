"""Damages run folders in every way: each is a film to the bit, or one message; soon, and what is not ours stays.

python scripts/fuzz_folders.py                     # 2,000 damaged folders, every fifth of them rendered
python scripts/fuzz_folders.py --inputs 100
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save
from training.parts import Sizes, build_pipeline, save_folder

import framepack_relax as fr
from framepack_relax.render.mark import MARK
from framepack_relax.render.stored import read_tags
from framepack_relax.video.reader import film_digest

SOON, LATEST = 10, 300  # seconds of a processor, and of a clock: others may be at work
SCENES = "[{id: a, prompt: a red figure walks, seconds: 1.2}, {id: b, prompt: a blue figure waves, seconds: 1.2}]"
FACTS = {"order": "forward", "fps": 30, "size": [32, 32], "guidance": {"embedded": 6.0, "text": 1.0}}
ODD: list[Any] = [None, True, -1, 0, 2**70, 1e308, "", "x" * 5000, "\x1b[2J", "../..", "\0", [], {}, [[]], {"a": {}}]
SPECIAL = ("/dev/zero", "/dev/full", "/proc/self/mem", "/nowhere")


def make_story(folder: Path) -> Path:
    """A tiny model, a storyboard, and its film in `folder`/out."""
    torch.set_num_threads(1)
    save_folder(build_pipeline(Sizes.tiny(), seed=5), folder / "tiny", {**FACTS, "embedded_guidance": True})
    Image.radial_gradient("L").resize((32, 32)).convert("RGB").save(folder / "hero.png")
    file = folder / "story.yaml"
    file.write_text(f"model: {folder / 'tiny'}\nimage: hero.png\nsteps: 1\nscenes: {SCENES}\n")
    return file


def bits(out: Path) -> list[bytes | str]:
    """What a film is: its latents and its packets."""
    latents = [read_tags(file).get("digest", "") for file in sorted(out.glob("shots/*/0*.safetensors"))]
    return [*latents, film_digest(out / "video.mp4")[0]]


def change_bytes(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(rng.randint(1, 8)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    cut = rng.choice((len(data), rng.randrange(len(data) + 1), 0))
    file.write_bytes(bytes(data[:cut]) + rng.randbytes(rng.choice((0, 0, 7, 5000))))


def change_json(file: Path, rng: random.Random) -> None:
    """A value of another type somewhere; or a mapping without one of its keys."""
    if file.suffix != ".json":
        return change_bytes(file, rng)
    data = json.loads(file.read_text())
    node: Any = data
    while isinstance(node, (dict, list)) and node:
        name = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[name], (dict, list)) or rng.random() < 0.4:
            node[name] = rng.choice(ODD)
            if rng.random() < 0.3:
                del node[name]
            break
        node = node[name]
    file.write_text(rng.choice((json.dumps(data), json.dumps([data]), "[" * 100_000, json.dumps(rng.choice(ODD)))))


def change_tensor(file: Path, rng: random.Random) -> None:
    """As another program saves a section: with other shapes, types, names or metadata."""
    if file.suffix != ".safetensors":
        return change_json(file, rng)
    tags = {name: value if rng.random() < 0.8 else str(rng.choice(ODD)) for name, value in read_tags(file).items()}
    shape = rng.choice(((1, 4, 9, 4, 4), (0,), (1, 4, 9, 4, 8), (36, 16), (1,) * 40))
    latents = np.zeros(shape, rng.choice((np.float32, np.float16, np.int64, np.uint8)))
    file.write_bytes(save({rng.choice(("latents", "latents", "x")): latents}, metadata=rng.choice((tags, tags, {}))))


def change_kind(file: Path, rng: random.Random) -> None:
    """Something else than a file in its place."""
    file.unlink()
    kind = rng.randrange(5)
    if kind == 0:
        os.mkfifo(file)
    elif kind == 1:
        file.mkdir()
        (file / "mine").write_text("mine")
    elif kind == 2:
        file.symlink_to(file)
    else:
        file.symlink_to(rng.choice((*SPECIAL, file.parents[len(file.parents) - 3] / "precious")))


def change_place(file: Path, rng: random.Random) -> None:
    """A file that is gone, or lies where another should."""
    others = [other for other in file.parent.iterdir() if other.is_file() and not other.is_symlink()]
    data = rng.choice(others).read_bytes()
    file.unlink()
    if rng.random() < 0.5:
        file.write_bytes(data)


CHANGES: tuple[Callable[[Path, random.Random], None], ...] = (
    change_bytes, change_json, change_tensor, change_kind, change_place,
)  # fmt: skip


class Late(BaseException):
    """An input that took too long; no OSError, which would become a message."""


def late(number: int, frame: Any) -> None:
    raise Late


def limit(soon: float, latest: int) -> None:
    signal.setitimer(signal.ITIMER_PROF, soon)
    signal.alarm(latest)


def run(inputs: int, seed: int, folder: Path) -> Counter[str]:
    """Tries `inputs` folders; gives what came of them. Anything but a film or a RelaxError is raised."""
    story, ends, slowest = make_story(folder), Counter[str](), 0.0
    model = fr.load(str(folder / "tiny"), device="cpu")
    fr.render(story, out=folder / "out", model=model)
    truth, precious = bits(folder / "out"), folder / "precious"
    precious.write_text("mine")
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, late)
    for number in range(inputs):
        rng, out = random.Random(f"{seed} {number}"), folder / "tried"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder / "out", out)
        (out / ".owner.json").write_text('{"pid": 1, "host": "h", "since": 0}')
        names = sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
        for name in dict.fromkeys(
            rng.sample([*names, MARK, "plan.json", "shots/00/001.safetensors"], rng.randint(1, 3))
        ):
            if (out / name).is_file() and not (out / name).is_symlink():
                rng.choice(CHANGES)(out / name, rng)
        acts: list[Callable[[], Any]] = [
            lambda out=out: fr.status(out),
            lambda out=out: fr.preview(story, out=out, model=model),
            lambda out=out: fr.restore(out / "video.mp4", folder / "restored"),
        ]
        if number % 5 == 0:
            acts.append(lambda out=out: fr.render(story, out=out, model=model))
        for act in acts:
            begun = time.process_time()
            limit(SOON, LATEST)
            try:
                made = act()
                ends["answers"] += 1
                if isinstance(getattr(made, "report", None), dict):
                    assert bits(out) == truth, f"{seed} {number}: another film, and nothing was said"
                    ends["films"] += 1
            except fr.RelaxError as error:
                assert str(error).isprintable() or "\x1b" not in str(error), repr(str(error))
                ends["messages"] += 1
            finally:
                limit(0, 0)
            slowest = max(slowest, time.process_time() - begun)
        assert precious.read_text() == "mine"
        ends["folders"] += 1
        if (number + 1) % 200 == 0:
            print(f"{number + 1:>6} folders {dict(ends)} slowest {slowest:.1f} s", flush=True)
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        ends = run(words.inputs, words.seed, Path(name).resolve())
    print(f"run folders {ends['folders']}, tracebacks 0, over {SOON} s 0, {dict(ends)}")


if __name__ == "__main__":
    main()
