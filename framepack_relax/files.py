"""Files that appear whole or not at all, also after a power cut; and reads that never wait for a pipe or a device."""

import errno
import hashlib
import os
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

LARGEST = 1 << 28  # bytes that are read of a file


def read_file(path: Path, first: int = LARGEST + 1) -> bytes:
    """The contents of a regular file, or its `first` bytes. Raises OSError, also for what is not a regular file."""
    with open_file(path) as stream:
        data = stream.read(first)
    if len(data) > LARGEST:
        raise OSError(errno.EFBIG, f"it is larger than {LARGEST >> 20} MiB", str(path))
    return data


def open_file(path: Path) -> BufferedReader:
    """A regular file, opened. Raises OSError, also for a device, or a pipe, which would wait for its writer."""
    stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return stream


def digest_of(data: bytes) -> str:
    """A hash of the contents of a file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_of_file(path: Path) -> str:
    """The same of a regular file of any length. Raises OSError."""
    with open_file(path) as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def write_file(path: Path, data: bytes) -> None:
    """Writes a file that appears whole or not at all; the unfinished one never follows a link. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    with suppress(FileNotFoundError):
        os.unlink(part)
    opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with open(opened, "wb") as stream:
            stream.write(data)
        settle(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def settle(part: Path, path: Path) -> None:
    """Gives a finished file its name, for good: bytes and name survive a power cut. Raises OSError."""
    sync(part)
    os.replace(part, path)
    sync(path.parent)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, for good. Raises OSError."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk. Raises OSError."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():  # some network disks sync no folders
            raise
    finally:
        os.close(opened)
