"""Who is at work: a file in a folder that is there while somebody works in it, and that its owner keeps touching.

It is made exclusively and goes with its owner. One that was left behind counts no more as soon as its process is gone
from this machine, or when nobody has touched it for a minute: the clocks of machines that share a disk must agree to
half of that. Whoever only looks takes nothing.
"""

import json
import os
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple, Self

import psutil

from ..errors import BusyError, RenderError
from ..files import read_file
from ..storyboard.messages import printable

LEASE = ".lease"
BEAT, EXPIRY = 10.0, 60.0  # seconds from one touch to the next; without one, after which a lease counts no more
LOOK = 0.2  # seconds from one look to the next, within which two that take over one lease see each other


class Found(NamedTuple):
    """A lease that somebody has or, where `left`, has left behind; `here` says that it is of this machine."""

    who: str
    since: str
    here: bool
    left: bool
    touched: float


def look(file: Path) -> Found | None:
    """None where there is no such file. Raises OSError."""
    try:
        touched = os.lstat(file).st_mtime
        said = json.loads(read_file(file))
        since = time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(said["since"]))
        who, here = f"process {printable(str(said['pid']))} on {printable(str(said['host']))}", said["on"] == _machine()
        gone = here and not _runs(said["pid"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        who, since, here, gone = "which does not say who it is", "", False, False
    return Found(who, since, here, gone or time.time() - touched > EXPIRY, touched)


def at_work(folder: Path) -> str | None:
    """Who renders in a run folder now, in words; None if nobody does. Raises OSError."""
    files = [folder / LEASE, *sorted(folder.glob(f"shots/*/{LEASE}"))]
    found = [one for file in files if _is_file(file) and (one := look(file)) and not one.left]
    return "; ".join({one.who: one.who + one.since for one in reversed(found)}.values()) or None


class Lease:
    """The lease of `folder`, for as long as its `with` lasts.

    Raises BusyError that names the owner if another has it, and keeps it for `patience` seconds; of an owner on
    another machine it waits to see a sign. Raises OSError too.
    """

    def __init__(self, folder: Path, patience: float = 0.0) -> None:
        self.folder, self.file, self.patience = folder, folder / LEASE, patience
        self._over = Event()

    def __enter__(self) -> Self:
        self._take()
        # an open file can be touched wherever its folder is moved
        self._touched: Any = self._opened if os.utime in os.supports_fd else self.file
        self._thread = Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        mine = False
        with suppress(OSError):  # a disk that has turned read-only; what is under way says so
            os.utime(self._touched, (0, 0))
            mine = self.is_held()
        os.close(self._opened)
        with suppress(OSError):
            if mine:
                self.file.unlink()

    def is_held(self) -> bool:
        """Whether it lies where it was made, and no other in its place. Raises OSError."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return os.path.samestat(os.fstat(self._opened), os.lstat(self.file))
        return False

    def _keep(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):
                os.utime(self._touched)

    def _take(self) -> None:
        begun, touched = time.monotonic(), None
        while not self._make():
            if not _is_file(self.file):
                raise RenderError(f"{self.file}: is a folder, a link or a pipe, which no render makes; remove it")
            found = look(self.file)
            if found and found.left:
                self.file.unlink(missing_ok=True)
                if self._make():
                    time.sleep(LOOK)
                    if self.is_held():
                        return
                    os.close(self._opened)
            elif found and time.monotonic() - begun >= self.patience:
                if found.here or touched not in (None, found.touched):
                    raise BusyError(
                        f"{self.folder}: another render is at work in this folder ({found.who}{found.since}); wait for "
                        "it, stop it, or choose another folder"
                    )
                touched = found.touched
            time.sleep(LOOK)

    def _make(self) -> bool:
        """Makes it, unless there is one."""
        said = {"pid": os.getpid(), "host": socket.gethostname(), "on": _machine(), "since": time.time()}
        try:
            self._opened = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(self._opened, json.dumps(said).encode("utf8"))
        except OSError:
            os.close(self._opened)
            self.file.unlink()
            raise
        return True


def _is_file(file: Path) -> bool:
    """Or nothing; no folder, link or pipe."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return stat.S_ISREG(os.lstat(file).st_mode)
    return True


def _machine() -> str:
    """Where a process has its number: containers on one machine count them apart."""
    with suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _runs(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
