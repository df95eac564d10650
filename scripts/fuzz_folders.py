"""Damages run folders in every way: each is a film to the bit, or one message; soon, and what is not ours stays.

Part of scripts/fuzz.py. Every fifth folder is rendered; whatever was put there or edited must be in it afterwards.
"""

import json
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save
from tally import Tally
from training.parts import Sizes, build_pipeline, save_folder

import framepack_relax as fr
from framepack_relax.cli.tables import report_table, status_table, status_text
from framepack_relax.families.backend import Backend
from framepack_relax.rendering.loop import RenderedFilm
from framepack_relax.rendering.mark import MARK
from framepack_relax.rendering.stored import read_tags, unpack
from framepack_relax.video.reader import film_digest, read_frames, read_metadata
from framepack_relax.video.writer import Mp4Writer

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


def latents(out: Path) -> set[str]:
    """What is said of the sections' latents, where a section is whole."""
    files = [file for file in out.glob("shots/*/*.safetensors") if file.is_file() and not file.is_symlink()]
    stored = [unpack(file.read_bytes()) for file in files]
    return {section.digest for section in stored if section}


def contents(out: Path) -> set[bytes]:
    """Of all files but those by which renders know one another."""
    files = [file for file in out.rglob("*") if file.is_file() and not file.is_symlink()]
    return {file.read_bytes() for file in files if not file.name.startswith((".", MARK.partition(".")[0]))}


def edit(file: Path) -> bytes:
    """The file as its maker works on it: still of its kind, and with all that it said of itself; gives its contents."""
    if file.suffix == ".json":
        file.write_text(json.dumps({**json.loads(file.read_text()), "my note": 1}))
    elif file.suffix == ".png":
        image = Image.open(file).convert("RGB")
        image.putpixel((3, 3), (255, 0, 255))
        image.save(file)
    elif file.suffix == ".mp4":
        frames, tags = list(read_frames(file)), read_metadata(file)
        with Mp4Writer(file, fps=30, size=(32, 32), crf=40, metadata=tags) as writer:
            for frame in frames:
                writer.write(frame[None])
    elif file.suffix == ".yaml":
        file.write_text("# mine\n" + file.read_text())
    return file.read_bytes()


def change_edit(file: Path, rng: random.Random) -> None:
    edit(file)


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
    change_bytes, change_json, change_tensor, change_kind, change_place, change_edit, change_edit,
)  # fmt: skip


class Late(BaseException):
    """An input that took too long; no OSError, which would become a message."""


def late(number: int, frame: Any) -> None:
    raise Late


def limit(soon: float, latest: int) -> None:
    signal.setitimer(signal.ITIMER_PROF, soon)
    signal.alarm(latest)


def change(out: Path, number: int) -> set[bytes]:
    """Harms a run folder in one to three places; gives what its maker has in it now that no render wrote."""
    rng, before = random.Random(number), contents(out)
    (out / ".lease").write_text('{"pid": 1, "host": "h", "since": 0, "on": ""}')
    os.utime(out / ".lease", (0, 0))
    names = sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
    names += [MARK, "plan.json", "video.mp4", "report.json", "shots/00/001.safetensors"]
    for name in dict.fromkeys(rng.sample(names, rng.randint(1, 3))):
        if (out / name).is_file() and not (out / name).is_symlink():
            rng.choice(CHANGES)(out / name, rng)
    return contents(out) - before


def walk(story: Path, out: Path, model: Backend, *, rendered: bool) -> RenderedFilm | None:
    """All that is done with a run folder; the film, if that is asked for and comes."""

    def film() -> RenderedFilm:
        made = fr.render(story, out=out, model=model)
        report_table(made.plan, made.report)
        return made

    def status() -> None:
        said = fr.status(out)
        status_table(said), status_text(said, time.time())

    acts: list[Callable[[], Any]] = [
        status,
        lambda: fr.preview(story, out=out, model=model),
        lambda: fr.restore(out / "video.mp4", out.parent / "restored"),
    ]
    made = None
    for act in [*acts, film] if rendered else acts:
        begun = time.process_time()
        limit(SOON, LATEST)
        try:
            made = act()
        except fr.RelaxError as error:
            assert str(error).isprintable() or "\x1b" not in str(error), repr(str(error))
        finally:
            limit(0, 0)
        assert time.process_time() - begun < SOON
    return made if isinstance(made, RenderedFilm) else None


def run(inputs: int, start: int = 0) -> Tally:
    """Tries `inputs` damaged folders."""
    tally = Tally()
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, late)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        story, out, precious = make_story(folder), folder / "tried", folder / "precious"
        model = fr.load(str(folder / "tiny"), device="cpu")
        fr.render(story, out=folder / "out", model=model)
        truth, packets = latents(folder / "out"), film_digest(folder / "out/video.mp4")[0]
        precious.write_text("mine")
        for number in range(start, start + inputs):
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(folder / "out", out)
            begun = time.process_time()
            try:
                mine = change(out, number)
                film = walk(story, out, model, rendered=number % 5 == 0)
                assert precious.read_text() == "mine" and mine <= contents(out), "something of the maker's is lost"
                assert latents(out) <= truth and (not film or film_digest(film.path)[0] == packets), "another film"
                end = "works" if film or number % 5 else "located errors"
            except (Exception, Late) as error:
                at = traceback.extract_tb(error.__traceback__)[-1]
                end = f"{type(error).__name__}: {str(error)[:200]} at {Path(at.filename).name}:{at.lineno}"
            tally.add(end, time.process_time() - begun, f"folder {number}")
    return tally
