"""Files as people name them: what stands there instead of one, and what may be wrong with a path that leads nowhere."""

import os
import re
import stat
from pathlib import Path

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
QUOTES = "\"'\u2018\u2019\u201c\u201d"
OTHER_ROOT = re.compile(r"[A-Za-z]:[\\/]|\\\\|~")  # of Windows, or of a home


def expand(path: str | Path) -> Path:
    """The path with a `~` in front as the home that it stands for."""
    return Path(os.path.expanduser(path))


def not_a_file(path: Path) -> str:
    """What stands at `path` instead of a regular file; empty for a regular file. Raises OSError where nothing stands.

    Ask before opening: to open a pipe may wait forever, and a device has no end.
    """
    mode = path.stat().st_mode
    return "" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "no file")


def path_cure(name: str) -> str:
    """What to change in a path that leads nowhere; empty where nothing is odd about it."""
    if name[:1] in QUOTES or name[-1:] in QUOTES:
        return "; write it without these quotes"
    return "; write folders with /" if "\\" in name and os.sep == "/" else ""
