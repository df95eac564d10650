"""Whether an mp4 in a run folder is the film that its plan asks for, whole."""

import errno
import json
from pathlib import Path

from ..errors import FilmError
from .mark import FACTS_TAG, unreadable

DISK = (errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT)  # others come of damaged films too
ODD = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)  # JSON of other types


def is_whole(film: Path, key: str) -> bool:
    """Whether a film is the one with this key, to the last packet. Raises RenderError for an error of the disk."""
    from ..video.reader import film_digest  # needs PyAV

    try:
        digest, tags = film_digest(film)
        facts = json.loads(tags[FACTS_TAG])
        return bool(facts["film"] == key != "" and facts["packets"] == digest)
    except FilmError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in DISK:
            raise unreadable(film, cause) from error
        return False
    except ODD:
        return False
