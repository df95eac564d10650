"""The files and folders that a person means."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RelaxError, RenderError

if TYPE_CHECKING:
    from ..storyboard import Storyboard

Place = str | Path


def folder_for(story: "Storyboard", out: Place | None, draft: bool = False) -> Path:
    """The folder `out`, or that of the storyboard, or of its draft. Raises RenderError where it can be none."""
    from ..planning.draft import DRAFT
    from ..rendering.mark import default_out

    default = default_out(story)
    return output_folder(out or (default.with_name(default.name + DRAFT) if draft else default))


def output_folder(out: Place) -> Path:
    """The folder `out`, which need not be there yet. Raises RenderError where it can be none."""
    folder = meant(out)
    there = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), Path("/"))
    if not there.is_dir():
        raise RenderError(f"{there}: is no folder; choose another one for the film")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RenderError(f"{there}: nothing may be written there; choose another folder for the film")
    return folder


def meant(path: Place, error: type[RelaxError] = RenderError) -> Path:
    """The path that a person means; raises `error` for one that is none here, such as one of Windows."""
    from ..storyboard.messages import printable
    from ..storyboard.paths import expand, path_cure

    if not isinstance(path, Place):
        raise error(f"{path!r} is no path; write it as text")
    place = expand(path)
    if not os.path.lexists(place) and (cure := path_cure(str(place))):
        raise error(f"{printable(str(place))}: is not there{cure}")
    return place
