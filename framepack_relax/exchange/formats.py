"""The formats that are read, by name, in the order in which a file is asked whether it is one of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ..errors import RenderError
from ..files import make_folder, write_file
from ..rendering.folder import writing
from ..rendering.mark import free_name
from ..storyboard.dump import dump_storyboard
from ..storyboard.messages import printable
from ..storyboard.reader import LARGEST_BYTES
from ..storyboard.schema import Storyboard
from . import eichi, fountain, fpstudio, helios_csv, ltx_director, musubi, storyboarder, timeline, wan2gp
from .draft import Draft, Imported
from .source import Source, open_source

USUAL_SECONDS = 4.0


class Format(Protocol):
    """A module that knows one."""

    def claims(self, source: Source) -> bool:
        """Whether the file is of this format, by what is in it."""

    def read(self, draft: Draft) -> None:
        """Adds the scenes of the draft's source, and tells what is left. Raises StoryboardError."""


FORMATS: Mapping[str, Format] = {
    "otio": timeline,
    "eichi": eichi,
    "wan2gp": wan2gp,
    "framepack-studio": fpstudio,
    "ltx-director": ltx_director,
    "storyboarder": storyboarder,
    "helios": helios_csv,
    "musubi": musubi,
    "fountain": fountain,
}


def import_board(
    place: Path | str,
    out: Path,
    *,
    kind: str | None = None,
    model: str | None = None,
    seconds: float = USUAL_SECONDS,
) -> Imported:
    """The board that another program's file holds, whose images are to lie beside `out`; nothing is written.

    `kind` is the name of its format; by default it is found by what is in the file. `seconds` are those of a scene of
    which the file says none. Raises StoryboardError with every mistake.
    """
    source = open_source(place)
    if kind is not None and kind not in FORMATS:
        source.refuse(f"{printable(kind)} is no format that is known; known are {', '.join(FORMATS)}")
    found = kind or next((name for name, known in FORMATS.items() if known.claims(source)), None)
    if found is None:
        if source.text.lstrip()[:1] in ("{", "["):
            source.loads()
        source.refuse(f"is of no format that is known; say which with --as: {', '.join(FORMATS)}")
    draft = Draft(source=source, stem=out.stem, unsaid=seconds)
    FORMATS[found].read(draft)
    if model:
        draft.board["model"] = model
    return draft.finish()


def write_import(made: Imported, out: Path) -> Storyboard:
    """Writes the board and its images. Raises RenderError where one of them is there already, or the board too long."""
    files = {out.parent / path: data for path, data in made.pictures.items()}
    files[out] = dump_storyboard(made.story, brief=True).encode("utf8")
    if len(files[out]) > LARGEST_BYTES:
        raise RenderError(
            f"{out}: would take more than the {LARGEST_BYTES >> 10} KiB that are read; import it in parts"
        )
    for file in files:
        if file.exists():
            raise RenderError(f"{file}: is there already; write to another file, such as {free_name(out)}")
    for file, data in files.items():
        with writing(file, "cannot be written", "choose another place"):
            make_folder(file.parent)
            write_file(file, data)
    return made.story
