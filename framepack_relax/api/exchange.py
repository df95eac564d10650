"""Boards of other programs in, films out: to editors, and published."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError, StoryboardError
from .films import plan
from .paths import Place, meant, output_folder

if TYPE_CHECKING:
    from ..storyboard import Storyboard


def import_board(
    file: Place,
    out: Place,
    *,
    kind: str | None = None,
    model: str | None = None,
    seconds: float = 4.0,
    on_note: Callable[[str], None] = lambda note: None,
) -> "Storyboard":
    """Writes the storyboard that another program's file holds to `out`, its images beside it, and gives it.

    `kind` names the format (docs/exchange.md), which is else found by what is in the file; `-` is standard input.
    `seconds` are those of a scene of which the file says none. `on_note` hears what is not carried over, and what is to
    be done until the board can be rendered. Raises StoryboardError with every mistake, RenderError where a file is
    there already.
    """
    from ..exchange import import_board, write_import

    place = meant(out)
    output_folder(place.parent)
    made = import_board(file, place, kind=kind, model=model, seconds=seconds)
    story = write_import(made, place)
    for told in made.told:
        on_note(told)
    try:
        plan(place)
    except StoryboardError as error:
        for problem in error.problems:
            on_note(f"to do: {problem}")
    except ModelError as error:
        on_note(f"to do: {error}")
    return story


def export_timeline(film: Place, out: Place) -> Path:
    """Writes the timeline of the film in a run folder for an editor: .otio, .edl or .fcpxml by the suffix of `out`.

    Needs the extra `otio`. Raises RenderError.
    """
    from ..exchange.finished import finished
    from ..exchange.timeline import export_timeline

    place = meant(out)
    export_timeline(finished(meant(film)), place)
    return place


def publish(film: Place, out: Place | None = None, *, on_note: Callable[[str], None] = lambda note: None) -> Path:
    """Writes the film in a run folder, its contact sheet, board and a manifest into the folder or .zip `out`.

    By default that is NAME-published beside the run folder NAME. `on_note` hears what the board names and is not given
    away: LoRA, drafts, the film that it goes on from. Raises RenderError.
    """
    from ..exchange.finished import finished
    from ..exchange.publish import publish

    folder = meant(film)
    place = meant(out) if out else folder.resolve().with_name(f"{folder.resolve().name}-published")
    publish(finished(folder), place, on_note)
    return place
