"""Films from anywhere, opened by PyAV so that nothing else is: FFmpeg gets an open file and a list of containers.

It is told no name and no protocol, so a URL, a playlist, a list of pictures and a link inside a film lead nowhere.

H and W height and width
"""

import errno
import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FilmError, RenderError
from ..files import open_file

try:
    import av as av  # nothing but films needs it
except ModuleNotFoundError as error:
    raise RenderError(f"{error.name} is not installed, and films need it: pip install av") from error

FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,gif,h264,hevc"  # FFmpeg's words
KNOWN = "mp4, mov, mkv, webm, avi, ts, mpg, flv, ogv and gif"
RATES = (1, 1000)  # frames a second
MOST_PIXELS = 2**26  # 8192 x 8192
NARROWEST = 16  # a side may be so many times the other
MOST_FRAMES = 200_000  # almost two hours at 30 a second
START_CODE = re.compile(rb"\x00{2,}\x01")  # before each unit of a raw H.264 stream (Annex B)


class PacketDigest:
    """A running hash over the units of H.264 packets, the same for a raw stream and for one out of an mp4."""

    def __init__(self) -> None:
        self.count, self.state = 0, blake2b(digest_size=16)

    def add_raw(self, packet: bytes) -> None:
        """A packet as the encoder gives it."""
        self._add(filter(None, START_CODE.split(packet)))

    def add(self, packet: bytes) -> None:
        """A packet of an mp4, where each unit stands behind its length."""
        self._add(_units(packet))

    def add_whole(self, packet: bytes) -> None:
        """A packet of sound, which is one unit."""
        self._add([packet])

    def _add(self, units: Iterable[bytes]) -> None:
        self.count += 1
        for unit in units:
            unit = unit.rstrip(b"\x00")
            self.state.update(len(unit).to_bytes(4, "big") + unit)

    @property
    def digest(self) -> str:
        return f"{self.count} {self.state.hexdigest()}"


def _units(packet: bytes) -> Iterator[bytes]:
    while packet:
        end = 4 + int.from_bytes(packet[:4], "big")
        yield packet[4:end]
        packet = packet[end:]


def read_metadata(path: Path) -> dict[str, str]:
    """The tags of a film; bytes that are not UTF-8 are replaced. Raises FilmError."""
    with told(path), opened(path) as container:
        return dict(container.metadata)


def read_header(path: Path) -> tuple[dict[str, str], float]:
    """Its tags, and frames a second in the mean. Raises FilmError also where there is no video that can be measured."""
    with told(path), opened(path) as container:
        return dict(container.metadata), _rate(_video(container))


def film_digest(path: Path) -> tuple[str, dict[str, str]]:
    """A digest of the film's packets, those of its sound among them, and its tags. Raises FilmError."""
    made, heard = PacketDigest(), PacketDigest()
    with told(path), opened(path) as container:
        video, sound = _video(container), container.streams.audio[:1]
        for packet in container.demux(video, *sound):
            if packet.size and packet.stream.index == video.index:
                made.add(bytes(packet))
            elif packet.size:
                heard.add_whole(bytes(packet))
        return " ".join([made.digest, *(heard.digest for _ in sound)]), dict(container.metadata)


def sound_digest(sound: bytes) -> str:
    """The part of `film_digest` that is of an mp4 with the sound alone."""
    heard = PacketDigest()
    with av.open(io.BytesIO(sound), "r") as container:
        for packet in container.demux(container.streams.audio[0]):
            if packet.size:
                heard.add_whole(bytes(packet))
    return heard.digest


def read_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The frames of a film, upright, uint8 RGB [H, W, 3] each, at a constant rate: that of its header.

    Where frames do not come at a constant rate, each is shown until the next one's time: some come twice, some not at
    all. The size is that of the film at that place. Raises FilmError.
    """
    given = 0
    with told(path, lambda: f" from frame {given} on" if given else ""), opened(path) as container:
        rate = _rate(_video(container))
        shown: NDArray[np.uint8] | None = None
        for pixels, seconds in _decoded(container, 1 / rate):
            place = round(seconds * rate)
            if place > MOST_FRAMES:
                raise FilmError(f"is longer than {MOST_FRAMES:,} frames; cut it, or write it anew with right times")
            while shown is not None and given < place:
                yield shown
                given += 1
            shown = pixels
        if shown is None:
            raise FilmError("holds no frames; render it again")
        yield shown


def _decoded(container: av.container.InputContainer, usual: float) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Frames and the seconds since the first; a time that is missing or runs backwards is `usual` after the last."""
    video = _video(container)
    if video.codec_context is None:
        raise FilmError("holds video of a kind that this FFmpeg does not decode; save it as H.264")
    _check_size(video.codec_context.width, video.codec_context.height)
    video.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    seconds, last = -usual, None
    to_rgb = (
        av.video.reformatter.VideoReformatter()
    )  # making one for each frame takes longer than a small frame's conversion
    for frame in container.decode(video):
        _check_size(frame.width, frame.height)
        time = frame.time
        seconds += usual if time is None or last is None or time <= last else time - last
        last = time
        pixels = to_rgb.reformat(frame, format="rgb24").to_ndarray()
        yield np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90))), seconds


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS or max(width, height) > NARROWEST * min(width, height):
        most = f"of up to {MOST_PIXELS:,} pixels, one side at most {NARROWEST} times the other"
        raise FilmError(f"has frames of {width}x{height} px; films {most}, are read")


def _video(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """The first stream that is no picture attached to sound."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise FilmError("holds no video")


def _rate(video: av.video.stream.VideoStream) -> float:
    rate = float(video.average_rate or video.guessed_rate or 0)
    if not RATES[0] <= rate <= RATES[1]:
        raise FilmError(f"has {rate:g} frames a second; films of {RATES[0]} to {RATES[1]} are read")
    return rate


@contextmanager
def opened(path: Path, formats: str = FORMATS, known: str = KNOWN) -> Iterator[av.container.InputContainer]:
    """A file of one of these formats. Raises FilmError without the place, OSError, or what PyAV raises."""
    options = {"format_whitelist": formats, "protocol_whitelist": "none", "max_pixels": str(MOST_PIXELS)}
    if path.is_dir():
        raise FilmError("is a folder; name a file in it, such as its video.mp4")
    with open_file(path) as file:
        try:
            container = av.open(file, "r", options=options, metadata_errors="replace")
        except av.FFmpegError as error:
            if error.errno != errno.EINVAL:  # what it says of formats outside the list
                raise
            raise FilmError(f"cannot be read (is none of {known})") from error
        with container:
            yield container


@contextmanager
def told(path: Path, where: Callable[[], str] = str, what: str = "a film") -> Iterator[None]:
    """Whatever goes wrong as one FilmError with the place, the fact and the cure."""
    try:
        yield
    except FilmError as error:
        raise FilmError(f"{path}: {error}") from error
    except (OSError, av.FFmpegError, ValueError, ArithmeticError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FilmError(f"{path}: cannot be read as {what}{where()} ({reason})") from error
