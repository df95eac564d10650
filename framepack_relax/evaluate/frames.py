"""The frames of a film that may be too long for memory: what is asked for again is decoded again.

N frames, H and W their height and width; uint8 RGB
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import FilmError
from ..families.heap import give_back
from ..video.reader import read_frames

SIDE = 256  # px of the short side: larger frames are made as small when they are read
BLOCK = 32  # frames that are kept or dropped together
KEPT_BYTES = 2**29  # of all films that are measured together
Pixels = NDArray[np.uint8]


class Frames:
    """[N, H, W, 3], to be iterated, cut by slices (which decodes nothing), and asked for frames by number."""

    def __init__(self, source: "Source", numbers: range) -> None:
        self.source, self.numbers = source, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *self.source.size)

    def __iter__(self) -> Iterator[Pixels]:
        return map(self.source.frame, self.numbers)

    @overload
    def __getitem__(self, wanted: slice) -> "Frames": ...
    @overload
    def __getitem__(self, wanted: int | np.integer | Sequence[int] | NDArray[np.integer]) -> Pixels: ...
    def __getitem__(self, wanted: Any) -> "Frames | Pixels":
        if isinstance(wanted, slice):
            return Frames(self.source, self.numbers[wanted])
        if isinstance(wanted, (int, np.integer)):
            return self.source.frame(self.numbers[wanted])
        return np.stack([self.source.frame(self.numbers[number]) for number in wanted])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Pixels:
        return np.stack(list(self)) if len(self) else np.empty(self.shape, np.uint8)


Clip = Frames | Pixels


class Kept:
    """The blocks of frames that were asked for last, of all films, up to `limit` bytes."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.left, self.blocks = limit, OrderedDict[tuple[Path, int], Pixels]()

    def get(self, key: tuple[Path, int]) -> Pixels | None:
        if key in self.blocks:
            self.blocks.move_to_end(key)
        return self.blocks.get(key)

    def put(self, key: tuple[Path, int], block: Pixels) -> None:
        self.left -= block.nbytes
        if key in self.blocks:
            self.left += self.blocks.pop(key).nbytes
        self.blocks[key] = block
        while self.left < 0 and len(self.blocks) > 1:
            self.left += self.blocks.popitem(last=False)[1].nbytes


class Source:
    """A film's small frames by number; `size` [H, W, 3] is that of the first. Raises FilmError.

    Films are decoded onwards; what is neither kept nor to come means once more from the beginning.
    """

    def __init__(self, path: Path, kept: Kept) -> None:
        self.path, self.kept, self.next = path, kept, 0
        self.size: tuple[int, ...] = ()
        self.coming = self._blocks()
        self.count = sum(len(block) for block in self.coming)

    def frame(self, number: int) -> Pixels:
        index, place = divmod(number, BLOCK)
        block = self.kept.get((self.path, index))
        if block is None:
            block = self._decode(index)
        if place >= len(block):
            raise self._changed()
        return np.asarray(block[place])

    def _decode(self, index: int) -> Pixels:
        if index < self.next:
            self.coming = self._blocks()
        for block in self.coming:
            if self.next > index:
                return block
        raise self._changed()

    def _blocks(self) -> Iterator[Pixels]:
        self.next = 0
        frames = map(self._small, read_frames(self.path))
        while chunk := list(islice(frames, BLOCK)):
            block = np.stack(chunk)
            self.kept.put((self.path, self.next), block)
            self.next += 1
            give_back()  # what came and went between the blocks that stay
            yield block

    def _small(self, frame: Pixels) -> Pixels:
        small = bring_to(frame, SIDE) if min(frame.shape[:2]) > SIDE else frame
        self.size = self.size or small.shape
        if small.shape != self.size:  # the film changes its size, which players do not show
            small = np.asarray(cv2.resize(small, self.size[1::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
        return small

    def _changed(self) -> FilmError:
        return FilmError(f"{self.path}: changed while it was measured; do it again when it is whole")


def bring_to(frame: Pixels, side: int, *, larger: int = cv2.INTER_AREA) -> Pixels:
    """A frame with a short side of `side` px; `larger` is how it is interpolated where it must grow."""
    scale = side / min(frame.shape[:2])
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    way = cv2.INTER_AREA if scale < 1 else larger
    return np.asarray(cv2.resize(frame, size, interpolation=way), dtype=np.uint8)
