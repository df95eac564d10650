"""A film's sound: a track of any kind that FFmpeg reads, cut or followed by silence to the film's length, as AAC.

All is made stereo at 48 kHz. Where it begins is exact: AAC's priming samples are in the mp4's edit list.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FilmError
from ..files import LARGEST, digest_of_file
from .reader import av, opened, told

RATE, BITS = 48_000, 192_000  # samples and bits a second
LONGEST = 7200  # seconds
FORMATS = "wav,w64,aiff,caf,mp3,flac,aac,ogg,mov,matroska"  # FFmpeg's words
KNOWN = "wav, aiff, caf, mp3, flac, aac, ogg, m4a, mp4 and mkv"


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A track that was read to its end; `digest` is of the file."""

    path: Path
    seconds: float
    digest: str


def read_sound(path: Path) -> Sound:
    """Reads a track once through. Raises FilmError where it holds no sound, is damaged, or too large."""
    samples = sum(block.shape[1] for block in _blocks(path))
    if not samples:
        raise FilmError(f"{path}: holds no sound; name a track that does")
    with told(path, what="sound"):
        if path.stat().st_size > LARGEST:
            raise FilmError(f"is larger than {LARGEST >> 20} MiB; save it as FLAC or AAC")
        return Sound(path=path, seconds=samples / RATE, digest=digest_of_file(path))


def encode_sound(sound: Sound, seconds: Fraction) -> bytes:
    """An mp4 of this length with the sound alone. Raises FilmError where the file has changed."""
    with told(sound.path, what="sound"):
        if digest_of_file(sound.path) != sound.digest:
            raise FilmError("has changed meanwhile; run the same command again")
    whole = io.BytesIO()
    with av.open(whole, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE, layout="stereo", options={"threads": "1"})
        stream.bit_rate = BITS
        at = 0
        for block in _fitted(_blocks(sound.path), round(seconds * RATE)):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
            at += block.shape[1]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return whole.getvalue()


def _fitted(blocks: Iterator[NDArray[np.float32]], left: int) -> Iterator[NDArray[np.float32]]:
    """So many samples of these, then of silence."""
    for block in blocks:
        yield block[:, :left]
        left -= block.shape[1]
        if left <= 0:
            return
    while left > 0:
        yield np.zeros((2, min(left, RATE)), np.float32)
        left -= RATE


def _blocks(path: Path) -> Iterator[NDArray[np.float32]]:
    """The samples [2, N] of the first track of sound."""
    count = 0
    with told(path, what="sound"), opened(path, FORMATS, KNOWN) as container:
        if not container.streams.audio:
            raise FilmError("holds no sound; name a track that does")
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=RATE)
        for frame in _frames(container):
            for made in resampler.resample(frame):
                count += made.samples
                if count > LONGEST * RATE:
                    raise FilmError(f"is longer than {LONGEST // 3600} hours; cut it")
                yield made.to_ndarray().astype(np.float32, copy=False)


def _frames(container: av.container.InputContainer) -> Iterator[av.AudioFrame | None]:
    yield from container.decode(container.streams.audio[0])
    yield None
