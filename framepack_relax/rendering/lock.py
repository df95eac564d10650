"""One render at a time in a folder, and who it is."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import RenderError
from ..files import open_file, read_file, write_file
from ..storyboard.messages import printable

LOCK, OWNER = ".lock", ".owner.json"
LOOKING = 1.0  # seconds


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Raises RenderError that names the owner if another process holds the folder.

    The lock goes with the process that holds it, however it ends.
    """
    if (folder / LOCK).is_symlink():
        raise RenderError(f"{folder / LOCK}: is a link, which no render makes; remove it")
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=LOOKING)  # somebody may look whether it is held
    except Timeout:
        raise RenderError(
            f"{folder}: another render is at work in this folder ({_owner(folder)}); wait for it, stop it, or choose "
            "another folder"
        ) from None
    except OSError as error:
        raise RenderError(f"{folder}: cannot be locked ({error.strerror}); choose another folder") from error
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
    try:
        try:
            write_file(folder / OWNER, json.dumps(who).encode("utf8"))
        except OSError as error:
            raise RenderError(
                f"{folder / OWNER}: cannot be written ({error.strerror}); mend that and run the same command again"
            ) from error
        yield
    finally:
        with suppress(OSError):  # a disk that has turned read-only; what is under way says so
            (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def holder(folder: Path) -> str | None:
    """Who renders in the folder now, in words; None if nobody does."""
    if not (folder / LOCK).is_file() or (folder / LOCK).is_symlink():
        return None
    try:
        with FileLock(folder / LOCK, timeout=0):
            return None
    except Timeout:
        return _owner(folder)
    except OSError:  # it may not be written to; to share a lock, reading is enough
        return _owner(folder) if _is_held(folder / LOCK) else None


def _is_held(lock: Path) -> bool:
    """Whether a lock file that may only be read is locked; False where that cannot be known."""
    with suppress(ImportError, OSError), open_file(lock) as file:
        import fcntl  # not on Windows

        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _owner(folder: Path) -> str:
    try:
        who = json.loads(read_file(folder / OWNER))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(who["since"]))
        return f"process {printable(str(who['pid']))} on {printable(str(who['host']))}, since {since}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "which does not say who it is"
