"""What a model's files hold, every byte of them: what a rendered section says it was made with."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from ..errors import ModelError
from ..files import digest_of_file, make_folder, write_file
from .weights import WEIGHTS

CACHE_VARIABLE = "FRAMEPACK_RELAX_CACHE"
READ = (*WEIGHTS, ".json", ".txt", ".model")  # files that decide what a network gives
NOT_OF_IT = ("framepack_relax.json", "figures.json", "held_out.json")  # what is said about a model
LARGE = 64 << 20  # bytes; larger files are read once, and their hash is remembered
SETTLED = 2.0  # seconds: the coarsest clock of a file system, within which a change may leave no trace
READERS = threading.Semaphore(4)
T = TypeVar("T")
Stamp = tuple[tuple[str, int, int], ...]


@contextmanager
def told() -> Iterator[None]:
    """What cannot be read of a model, or is gone, as a ModelError that names it."""
    try:
        yield
    except OSError as error:
        fact = f"cannot be read ({error.strerror}); mend that or download it again"
        raise ModelError(f"{error.filename}: {fact}") from error


@told()
def fingerprint(parts: Mapping[str, Path]) -> str:
    """blake2b of names, sizes and contents of weights, configs and vocabularies; of a large file of its own blake2b.

    Raises ModelError for a file that cannot be read.
    """
    digest = blake2b(digest_size=16)
    files = [(part, file, file.stat().st_size) for part, file in model_files(parts)]
    hashes = {file: in_background(partial(hash_of, file)) for _, file, size in files if size > LARGE}
    for part, file, size in files:
        digest.update(f"{part}/{file.name}:{size}\n".encode())
        digest.update(hashes[file].result().encode() if file in hashes else file.read_bytes())
    return digest.hexdigest()


def model_files(parts: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """(part, file) of all that decides what a network gives."""
    for part, folder in sorted(parts.items()):
        for file in sorted(folder.iterdir()):
            if file.suffix in READ and file.name not in NOT_OF_IT:
                yield part, file


@told()
def stamp_of(parts: Mapping[str, Path]) -> Stamp:
    """Paths, sizes and times of the same files: whether they are still the same. Raises ModelError."""
    stats = ((str(file), file.stat()) for _, file in model_files(parts))
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def hash_of(file: Path) -> str:
    """blake2b of a large file, remembered by its path, size, times and inode."""
    before = _identity(file)
    memory = cache_folder() / "hashes" / blake2b(repr(before).encode(), digest_size=16).hexdigest()
    with suppress(OSError, ValueError):
        known = memory.read_text("ascii")
        if len(bytes.fromhex(known)) == 16:
            return known
    with READERS:
        digest = digest_of_file(file)
    if before == _identity(file) and time.time() - file.stat().st_ctime > SETTLED:
        with suppress(OSError):  # where the cache cannot be written the next load takes longer; that is all
            make_folder(memory.parent)
            write_file(memory, digest.encode())
    return digest


def _identity(file: Path) -> tuple[str, int, int, int, int]:
    """By which a file is known again; ctime shows a change behind a restored mtime."""
    stat = file.stat()
    return str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def cache_folder() -> Path:
    """$FRAMEPACK_RELAX_CACHE, else framepack-relax in the user's cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get(CACHE_VARIABLE) or os.path.join(caches, "framepack-relax"))


def in_background(work: Callable[[], T]) -> Future[T]:
    """What `work` gives or raises, from a thread that ends with the program."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
