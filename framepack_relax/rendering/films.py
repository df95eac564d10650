"""Whether an mp4 in a run folder is the film that its plan asks for, whole; whether an unfinished one is a render's."""

import errno
import json
from pathlib import Path

from ..errors import FilmError
from ..files import read_file
from .mark import FACTS_TAG, unreadable

DISK = (errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT)  # others come of damaged films too
ODD = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)  # JSON of other types


def is_whole(film: Path, key: str, fact: str = "film") -> bool:
    """Whether a film is the one with this key, to the last packet. Raises RenderError for an error of the disk.

    Under `fact` it says its key; a finished film says under `of` that of the film that it was made of.
    """
    from ..video.reader import film_digest  # needs PyAV

    try:
        digest, tags = film_digest(film)
        facts = json.loads(tags[FACTS_TAG])
        return bool(facts[fact] == key != "" and facts["packets"] == digest)
    except FilmError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in DISK:
            raise unreadable(film, cause) from error
        return False
    except ODD:
        return False


def is_anothers(part: Path) -> bool:
    """Whether what lies under the name of an unfinished film is something else: no mp4, or one without tags of ours.

    What is cut off before it can play is taken for a render's. Raises RenderError where it cannot be read.
    """
    try:
        head = read_file(part, first=8)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(part, error) from error
    if head[4:] != b"ftyp":
        return head != b""
    from ..video.reader import read_header  # needs PyAV

    try:
        return FACTS_TAG not in read_header(part)[0]
    except FilmError:
        return False
