"""What a section will show, while it is sampled: its latents as small pictures, by a linear map of the film's own.

The map is fitted by least squares to what the film has in both forms: its start images, then each section that is
decoded. Before there is any, the first three principal components stand for red, green and blue.
"""

import io
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..files import read_file, write_file
from ..planning.renderplan import SectionPlan
from .events import Event
from .folder import RunFolder

PREVIEW = "preview.png"
EVERY = 2.0  # seconds between two at least
SHOWN, TALL, PER_LATENT = 9, 96, 4  # pictures in the strip, px of their height about; frames of a latent frame
WHOSE = b"framepack-relax preview"  # stands in the file, so that one of somebody else's is known
FITTED = "colours fitted to frames that this film has"
GUESSED = "in false colours, of principal components: this film has no frames yet"

Floats = NDArray[np.float64]


class LatentPreview:
    """Draws `preview.png` in the folder, in a thread of its own; a drawing that is late is left out."""

    def __init__(self, folder: Path, every: float = EVERY) -> None:
        self.file, self.every = folder / PREVIEW, every
        self.sums: list[Floats] = []  # of least squares, [C + 1, C + 1] and [C + 1, 3], a pair
        self.next = 0.0
        self.drawing: Thread | None = None
        self.told: Event | None = None

    def settle(self, folder: RunFolder) -> None:
        """Puts aside what lies there and is no preview."""
        with suppress(OSError):  # what cannot be read cannot be written over, and that is told
            if WHOSE not in read_file(self.file, first=1 << 10):
                folder.put_aside(PREVIEW)

    def learn(self, latents: Tensor, frames: NDArray[np.uint8]) -> None:
        """Latents [1, C, T, h, w] and what they show, frames [N, H, W, 3], of which the last belong to the last.

        A single frame is what each latent frame shows.
        """
        per = min(PER_LATENT, len(frames))
        frames = np.repeat(frames, latents.shape[2], axis=0) if per == 1 else frames
        groups = frames[len(frames) % per :].reshape(-1, per, *frames.shape[1:])[-latents.shape[2] :]
        chosen, (height, width) = _some(len(groups)), latents.shape[3:]
        x = _columns(latents[:, :, -len(groups) :][:, :, chosen])
        times = frames.shape[2] // width, frames.shape[1] // height
        small = [[np.asarray(Image.fromarray(frame).reduce(times)) for frame in groups[n]] for n in chosen]
        y = np.mean(small, axis=1).reshape(-1, 3)
        new = [x.T @ x, x.T @ y]
        self.sums = [a + b for a, b in zip(self.sums, new, strict=True)] if self.sums else new

    def offer(self, section: SectionPlan, step: int, x0: Callable[[], Tensor], *, last: bool) -> Event | None:
        """Draws a step's prediction, which `x0` gives, [1, C, T, h, w], unless it is too early; `last` always.

        Gives what was drawn before, to be told.
        """
        now = time.monotonic()
        late = now < self.next or (self.drawing and self.drawing.is_alive())
        if late and not last:
            return None
        before, self.next = self.take(), now + self.every
        if self.next == math.inf:  # it cannot be written
            return before
        text = f"{self.file}: {FITTED if self.sums else GUESSED}"
        told = Event(kind="preview", shot=section.shot, section=section.index, step=step, text=text)
        self.drawing = Thread(target=self._draw, args=(x0().float().cpu(), self.sums, told))
        self.drawing.start()
        return before

    def take(self) -> Event | None:
        """What was drawn since; waits for it."""
        if self.drawing:
            self.drawing.join()
        told, self.told, self.drawing = self.told, None, None
        return told

    def _draw(self, latents: Tensor, sums: Sequence[Floats], told: Event) -> None:
        height, width = latents.shape[3:]
        x = _columns(latents[:, :, _some(latents.shape[2])])
        colours = x @ np.linalg.lstsq(sums[0], sums[1])[0] if sums else _components(x)
        strip = colours.reshape(-1, height, width, 3).clip(0, 255).astype(np.uint8).transpose(1, 0, 2, 3)
        image = Image.fromarray(strip.reshape(height, -1, 3))
        times = max(1, TALL // height)
        text, buffer = PngInfo(), io.BytesIO()
        text.add_text("Software", WHOSE.decode())
        text.add_text("Description", FITTED if sums else GUESSED)
        image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST).save(
            buffer, format="PNG", pnginfo=text
        )
        try:
            write_file(self.file, buffer.getvalue())
            self.told = told
        except OSError as error:  # the film goes on without it
            self.every = math.inf
            why = f"{self.file}: cannot be written ({error.strerror or error})"
            self.told = Event(kind="warning", text=why)


def _some(count: int) -> list[int]:
    """Of so many latent frames those that stand for all."""
    return np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int).tolist()


def _columns(latents: Tensor) -> Floats:
    """[T h w, C + 1], the last 1."""
    x = latents[0].movedim(0, -1).flatten(0, 2).cpu().double().numpy()
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _components(x: Floats) -> Floats:
    """[N, 3] in 0..255: three principal components of x [N, C + 1], each from its 1st to its 99th percentile."""
    x = x - x.mean(axis=0)
    _, axes = np.linalg.eigh(x.T @ x)
    axes = axes[:, -3:][:, ::-1]
    made = x @ (axes * np.sign(axes.sum(axis=0)))
    low, high = np.percentile(made, (1, 99), axis=0)
    return 255 * (made - low) / np.maximum(high - low, 1e-9)
