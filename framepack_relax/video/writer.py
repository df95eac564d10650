"""H.264 by PyAV: every chunk of frames has an encoder of its own, so the packets of a section depend on it alone.

While it is written the film is a fragmented mp4 beside its final name, playable up to the last chunk whatever happens;
at the end its packets are copied into an ordinary mp4 with the index in front.

Colours are converted to and tagged as BT.709: untagged, players guess the matrix by the height of the film.
PyAV's errors leave this module as OSError.
"""

import errno
import heapq
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FilmError
from ..files import settle
from .reader import PacketDigest, av, film_digest, sound_digest

KEY_EVERY = 1.2  # seconds from one key frame to the next, at most
DISK = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES)  # what a disk says
BEST_CRF = 1  # 0 is lossless, in a profile (High 4:4:4 Predictive) that browsers and QuickTime do not play
THREADS = 1  # more would slice frames by the machine's core count and change the bits
# no look-ahead: with it one encode in 150 of the same frames gave other packets (LOG.md)
X264 = "open-gop=0:sync-lookahead=0:rc-lookahead=0:mbtree=0:range=tv:colorprim=bt709:transfer=bt709:colormatrix=bt709"


class WriteError(OSError):
    """The film cannot be written; no error of whoever makes its frames."""


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """The disk's and FFmpeg's errors, of which not all are OSErrors, under the same number, with the same words."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise WriteError(error.errno, error.strerror or str(error), error.filename) from error


class Mp4Writer:
    """Writes uint8 RGB frames [N, H, W, 3] to `NAME.part.mp4`, which becomes `NAME.mp4` when the film is whole.

    After an exception, and after a kill, the part stays and can be played; the next writer lets it stand until it has
    written as much itself. No frame is kept in memory.
    `sound` is an mp4 of the film's length that the whole film takes its sound from.
    `crf` is H.264's quality, 1..51 (0 is taken for 1); `metadata` may hold any keys and any text, and the film has it
    as it is at the end. `settle` gives the whole film (its first argument) its name.
    """

    @_as_os_errors()
    def __init__(
        self,
        path: Path,
        *,
        fps: int | Fraction,
        size: tuple[int, int],
        crf: int,
        metadata: Mapping[str, str],
        settle: Callable[[Path, Path], None] = settle,
        sound: bytes = b"",
    ) -> None:
        self.settle, self.sound = settle, sound
        self.path, self.part = path, path.with_name(f"{path.stem}.part{path.suffix}")
        self.again = path.with_name(f"{path.stem}.part-again{path.suffix}")
        self.growing = self.again if self.part.exists() else self.part
        self.fps, self.size, self.crf = fps, size, crf
        self.frames = 0
        self.packets = PacketDigest()
        # a fragment for every frame, on disk as soon as the next frame comes
        options = {"movflags": "use_metadata_tags+empty_moov+default_base_moof+frag_every_frame", "flush_packets": "1"}
        place = str(self.growing.absolute())  # FFmpeg takes what stands before a colon for a protocol
        self.container: av.container.OutputContainer = av.open(place, "w", format="mp4", options=options)
        self.metadata = dict(metadata)
        self.container.metadata.update(metadata)
        self.stream = self.container.add_stream("libx264", rate=fps, options=self._options())
        self._set_up(self.stream.codec_context)

    @property
    def digest(self) -> str:
        """As `film_digest` gives it of the whole film."""
        return " ".join([self.packets.digest, *([sound_digest(self.sound)] if self.sound else [])])

    def _options(self) -> dict[str, str]:
        # no B-frames: presentation order is decoding order, so that chunks can be joined
        fixed = {"preset": "medium", "bf": "0", "x264-params": X264}
        return {**fixed, "crf": str(max(self.crf, BEST_CRF)), "g": str(round(KEY_EVERY * self.fps))}

    def _set_up(self, codec: av.video.codeccontext.VideoCodecContext) -> None:
        codec.width, codec.height = self.size
        codec.pix_fmt = "yuv420p"
        codec.time_base = Fraction(1, self.fps)
        codec.thread_count = THREADS

    @_as_os_errors()
    def write(self, frames: NDArray[np.uint8]) -> None:
        """Appends frames; the first of them becomes a key frame."""
        for packet in self._encode(frames):
            assert packet.pts is not None
            self.packets.add_raw(bytes(packet))
            packet.pts = packet.dts = packet.pts + self.frames
            packet.time_base = Fraction(1, self.fps)
            packet.stream = self.stream
            self.container.mux_one(packet)
        self.frames += len(frames)
        if self.growing != self.part and self.growing.stat().st_size >= self.part.stat().st_size:
            with suppress(OSError):  # where open files cannot be renamed it goes on under its own name
                os.replace(self.growing, self.part)
                self.growing = self.part

    def _encode(self, frames: NDArray[np.uint8]) -> Iterator[av.Packet]:
        encoder = av.video.codeccontext.VideoCodecContext.create("libx264", "w")
        self._set_up(encoder)
        encoder.framerate = Fraction(self.fps)
        encoder.options = self._options()
        encoder.flags |= 1 << 22  # AV_CODEC_FLAG_GLOBAL_HEADER: parameter sets live in the container
        reformatter = av.video.reformatter
        to_yuv = reformatter.VideoReformatter()  # one for each frame takes longer
        for number, pixels in enumerate(frames):
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = to_yuv.reformat(rgb, format="yuv420p", dst_colorspace=reformatter.Colorspace.ITU709)
            frame.pts, frame.time_base = number, Fraction(1, self.fps)
            yield from encoder.encode(frame)
        yield from encoder.encode(None)

    def __enter__(self) -> "Mp4Writer":
        return self

    @_as_os_errors()
    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes the part; unless there was an exception it becomes the film."""
        if kind is None:
            self.container.close()
            self._put_index_in_front()
            for file in (self.part, self.again):
                file.unlink(missing_ok=True)
        else:
            with suppress(av.FFmpegError, OSError):  # the error that is under way says more
                self.container.close()

    def _put_index_in_front(self) -> None:
        """Copies the packets of the fragmented mp4 into an ordinary one, which must hold all that were written.

        A part that was changed under way, a disk that was full on closing: what cannot be read again is no film.
        """
        part, whole = self.growing, self.path.with_name(f"{self.path.stem}.whole{self.path.suffix}")
        try:
            try:
                _copy(part, whole, self.metadata, self.sound)
                same = film_digest(whole)[0] == self.digest
            except (FilmError, av.FFmpegError, IndexError) as error:  # nothing in it that can be read
                if getattr(error, "errno", None) in DISK:
                    raise
                same = False
            if not same:
                raise OSError(None, f"{part.name} does not hold what was written to it; was it changed?", str(part))
            self.settle(whole, self.path)
        finally:
            with suppress(OSError):
                whole.unlink(missing_ok=True)


def _copy(part: Path, whole: Path, metadata: Mapping[str, str], sound: bytes) -> None:
    """Copies packets as they are, in the order of their times."""
    there, here = str(part.absolute()), str(whole.absolute())
    options = {"movflags": "use_metadata_tags+faststart"}
    with ExitStack() as stack, av.open(there, "r") as old, av.open(here, "w", format="mp4", options=options) as new:
        new.metadata.update(metadata)
        beside = stack.enter_context(av.open(io.BytesIO(sound), "r")) if sound else None
        sources: list[Any] = [(old, old.streams.video[0]), *([(beside, beside.streams.audio[0])] if beside else [])]
        targets = [new.add_stream_from_template(source) for _, source in sources]
        taken = [(packet for packet in file.demux(source) if packet.size) for file, source in sources]
        for packet in heapq.merge(*taken, key=lambda packet: (packet.dts or 0) * packet.time_base):
            packet.stream = targets[packet.stream.type == "audio"]
            new.mux_one(packet)
