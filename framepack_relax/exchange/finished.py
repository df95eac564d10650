"""A film that is done, with what its run folder says of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RenderError, StoryboardError
from ..files import read_file
from ..rendering.films import ODD
from ..rendering.mark import FILM, REPORT, STORY, unreadable
from ..rendering.status import read_status
from ..storyboard import Storyboard, read_storyboard
from ..storyboard.fields import exact_rate


@dataclass(frozen=True, kw_only=True)
class FinishedFilm:
    """`report` is the contents of report.json; `story` the board with all its settings, as it lies in the folder."""

    folder: Path
    story: Storyboard
    report: dict[str, Any]

    @property
    def film(self) -> Path:
        return self.folder / FILM

    @property
    def rate(self) -> float:
        """Frames a second."""
        return float(exact_rate(self.story.fps or 0))


def finished(folder: Path) -> FinishedFilm:
    """The film in a run folder. Raises RenderError where it is not done, or not the one that the folder speaks of."""
    status = read_status(folder)
    if status.film is None:
        fact = f"{status.done} of {status.total} sections are there" if status.done < status.total else "no film yet"
        raise RenderError(f"{folder}: {fact}; render it to its end first")
    try:
        report = json.loads(read_file(folder / REPORT))
        story = read_storyboard(folder / STORY)
        names = [scene["scene"] for scene in report["scenes"]]
        if names != [scene.id for scene in story.scenes]:
            raise ValueError("its scenes are others than the board's")
    except FileNotFoundError as error:
        raise RenderError(f"{error.filename}: is not there; render the film again, which writes it anew") from error
    except OSError as error:
        raise unreadable(Path(error.filename or folder), error) from error
    except (StoryboardError, *ODD) as error:
        raise RenderError(f"{folder}: {REPORT} or {STORY} is damaged ({error}); render it again") from error
    return FinishedFilm(folder=folder, story=story, report=report)
