"""Draws scripts/measured/clips.gif: every action of the first seed that leads, the plain model above loosened context.

python scripts/clips.py        # renders ten short films with the packaged model and goes on where it was stopped

Neither the seed nor an action is chosen: each is the sweep's first of its kind, as the table counts it.
"""

import argparse
from pathlib import Path

import numpy as np
from claims import CALLED
from PIL import Image, ImageDraw, ImageFont

from framepack_relax.evaluate.film import read_film
from framepack_relax.evaluate.spec import Job, jobs, read_sweep
from framepack_relax.families.backend import Frames
from framepack_relax.families.loader import load
from framepack_relax.rendering.loop import render
from framepack_relax.rendering.session import Options

SWEEP, ARMS = "headline", ("vanilla", "context")
FILE = Path(__file__).parent / "measured" / "clips.gif"
CALM, EVERY = 18, 3  # frames shown of the calm before; of all frames every third
HEAD, GAP, COLOURS = 18, 4, 64
PAPER, INK = (250, 250, 248), (40, 40, 46)


def wanted(sweep: str, arms: tuple[str, ...]) -> list[Job]:
    """The sweep's films of its first seed, arm by arm."""
    spec = read_sweep(sweep)
    first = jobs(spec.model_copy(update={"seeds": 1}))
    return [job for arm in arms for job in first if job.arm.id == arm]


def shown(job: Job, folder: Path, **how: object) -> Frames:
    """Frames [N, H, W, 3] of its film, rendered if it is not there: the end of the calm and what comes then."""
    film = read_film(render(job.story, out=folder / job.arm.id / job.event.id, **how).path)
    return np.asarray(film.frames[film.scenes[-1].frames[0] - CALM :: EVERY])


def pages(films: list[Frames], captions: list[str], rows: list[str]) -> list[Image.Image]:
    """A picture a frame: films, all [N, H, W, 3], in rows under their labels; the captions stand over the columns."""
    height, width = films[0].shape[1:3]
    across, line = len(captions), height + HEAD + GAP
    sheet = Image.new("RGB", (across * (width + GAP) + GAP, HEAD + len(rows) * line), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for column, caption in enumerate(captions):
        pen.text((GAP + column * (width + GAP), 2), caption, fill=INK, font=font)
    for row, label in enumerate(rows):
        pen.text((GAP, HEAD + row * line + 2), label, fill=INK, font=font)
    made = []
    for frames in zip(*films, strict=True):
        page = sheet.copy()
        for number, pixels in enumerate(frames):
            row, column = divmod(number, across)
            page.paste(Image.fromarray(pixels), (GAP + column * (width + GAP), HEAD + row * line + HEAD))
        made.append(page)
    return made


def save(made: list[Image.Image], file: Path, fps: float) -> None:
    """A GIF that goes round for ever, in one palette, so that only what moves is stored."""
    common = Image.fromarray(np.concatenate([np.asarray(page) for page in made[:: max(1, len(made) // 4)]]))
    palette = common.quantize(COLOURS, dither=Image.Dither.NONE)
    first, *others = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in made]
    first.save(file, save_all=True, append_images=others, duration=round(1000 * EVERY / fps), loop=0, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/clips"), help="where the films are rendered")
    out = parser.parse_args().out
    films, model = wanted(SWEEP, ARMS), load("puppet", device="cpu", dtype="bfloat16")
    how = {"model": model, "options": Options(store=out / "store")}
    (out / "store").mkdir(parents=True, exist_ok=True)
    frames = [shown(job, out, **how) for job in films]
    names = list(dict.fromkeys(job.event.id for job in films))
    save(pages(frames, names, [CALLED[arm] for arm in ARMS]), FILE, model.family.fps)
