"""Files as people name them: what stands there instead of one, and what may be wrong with a path that leads nowhere."""

import os
import re
import stat
import unicodedata
from contextlib import suppress
from pathlib import Path

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
QUOTES = "\"'\u2018\u2019\u201c\u201d"
SPACES = "\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000\ufeff"  # but the plain one, as a class of signs
WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # a drive or a share
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # of the web, also as paths write it, with one slash
ESCAPE = "in double quotes a backslash begins an escape; write / in paths, or take single quotes"


def expand(path: str | Path) -> Path:
    """The path that a person means: `~` in front is the home, and quotes around it are those of another shell."""
    name = os.fspath(path)
    if len(name) > 2 and name[0] in QUOTES and name[-1] in QUOTES and not os.path.lexists(name):
        name = name[1:-1]
    return Path(os.path.expanduser(name))


def not_a_file(path: Path) -> str:
    """What stands at `path` instead of a regular file; empty for a regular file. Raises OSError where nothing stands.

    Ask before opening: to open a pipe may wait forever, and a device has no end.
    """
    mode = path.stat().st_mode
    return "" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "no file")


def refusal(path: Path) -> str:
    """What to say of a path where no regular file stands; else as `not_a_file`."""
    kind = not_a_file(path)
    return f"is {kind}; name a file{' in it' if path.is_dir() else ''}" if kind else ""


def path_cure(name: str, path: Path | None = None) -> str:
    """What to change in a path that leads nowhere; empty where nothing is odd about it.

    Where it was looked for, at `path`, a name may stand that differs in case, in spaces around it or in coding only.
    """
    if name.startswith("~"):
        return f"; {name.split('/')[0]} is nobody's home; write the whole path"
    if not all(map(str.strip, Path(name).parts)):
        return "; a name of spaces alone is none; write another"
    if ADDRESS.match(name):
        return "; that is an address: download the file first, and write its path here"
    if name and {name[0], name[-1]} & set(QUOTES):
        return "; write it without these quotes"
    if os.sep == "/" and ("\\" in name or WINDOWS.match(name)):
        return "; name a place on this machine, with /" if WINDOWS.match(name) else "; write folders with /"
    cure = ESCAPE if re.search(r"[\x00-\x1f\x7f-\x9f]", name) else odd_space(name) or (_alike(path) if path else "")
    return f"; {cure}" if cure else ""


def _alike(path: Path) -> str:
    with suppress(OSError, ValueError):
        for other in sorted(os.listdir(path.parent)):
            if _plain(other) == _plain(path.name):
                return f"did you mean {other!r}?"
    return ""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def leaves(name: str) -> bool:
    """Whether a path begins at another root than where it is named: a home, a drive, the root itself."""
    bare = name.lstrip(QUOTES)
    return os.path.isabs(name) or bare.startswith("~") or bool(WINDOWS.match(bare))


def odd_space(text: str) -> str:
    """What to do about the first sign that looks like a plain space and is none; empty where there is none."""
    found = re.search(f"[{SPACES}]", text)
    name = f"U+{ord(found[0]):04X} ({unicodedata.name(found[0]).lower()})" if found else ""
    return f"holds the sign {name}; write a plain space" if found else ""
