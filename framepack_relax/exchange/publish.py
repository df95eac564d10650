"""A film as it is given away: with its contact sheet, board, manifest and sums, the same bytes every time."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .._version import __version__
from ..errors import ModelError, RenderError
from ..families.catalog import entry_of
from ..files import open_file, settle
from ..rendering.films import is_whole
from ..rendering.folder import writing
from ..rendering.mark import FILM, FINISHED, STORY, Note, free_name
from ..storyboard.messages import printable
from .finished import FinishedFilm

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
ALWAYS = (FILM, "contact.png", STORY)
UNKNOWN = "not known here: ask whoever made the model"
ROW = ("index", "shot", "scene", "frames", "seed", "target", "beta", "p", "blur", "scope", "at_rest", "lora")


def publish(film: FinishedFilm, out: Path, note: Note = lambda note: None) -> None:
    """Writes a film into the folder `out`, or the zip where its name ends so; `note` hears what is left out of it.

    Raises RenderError if it is there. What the board names lies in the run folder, which `finished` has seen to.
    """
    if out.exists():
        raise RenderError(f"{out}: is there already; publish to another name, such as {free_name(out)}")
    finished = is_whole(film.folder / FINISHED, film.report["film"], "of")
    files = {name: film.folder / name for name in (*ALWAYS, *film.story.media, *[FINISHED][:finished])}
    for name in _apart(film):
        note(f"{printable(name)}: is named by the board and not given away; whoever renders that needs it, too")
    with writing(out, "cannot be written", "make room or choose another place"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as place:
            sums = {name: _sum(file) for name, file in files.items()}
            made = Path(place, "made")
            made.mkdir()
            files[MANIFEST], files[SUMS] = made / MANIFEST, made / SUMS
            files[MANIFEST].write_text(json.dumps(_manifest(film, sums), indent=1, ensure_ascii=False) + "\n", "utf8")
            sums[MANIFEST] = _sum(files[MANIFEST])
            files[SUMS].write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), "utf8")
            whole = Path(place, "whole")
            if out.suffix.lower() == ".zip":
                _pack(whole, out.stem, files)
                settle(whole, out)
            else:
                for name, file in files.items():
                    (whole / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, whole / name)
                whole.rename(out)


def _apart(film: FinishedFilm) -> list[str]:
    """What lies on this machine and the film is rendered with: LoRA, a film that it goes on from, drafts."""
    story = film.story
    parts = [lora.file for loras in (story.lora, *(s.lora for s in story.scenes)) for lora in loras or ()]
    drafts = [start.folder for scene in story.scenes if (start := story.start_of(scene)) and start.folder]
    named = filter(None, dict.fromkeys([*parts, *drafts, story.before]))
    return [name for name in named if story.resolve(name).exists()]


def _sum(file: Path) -> str:
    with open_file(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _pack(place: Path, stem: str, files: Mapping[str, Path]) -> None:
    """A zip in which neither times nor the order of a folder show; films and PNG do not get smaller by packing."""
    with zipfile.ZipFile(place, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{stem}/{name}")  # of 1980
            entry.create_system, entry.external_attr, entry.file_size = 3, 0o100644 << 16, files[name].stat().st_size
            with open_file(files[name]) as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target)


def _manifest(film: FinishedFilm, sums: Mapping[str, str]) -> dict[str, Any]:
    report = film.report
    try:
        licence = entry_of(report["model"]["name"]).licence
    except ModelError:
        licence = UNKNOWN
    return {
        "title": film.story.title,
        "made_by": f"framepack-relax {report['versions'].get('framepack-relax', __version__)}",
        "film": {"frames": report["totals"]["frames"], "fps": film.story.fps, "size": film.story.size},
        "model": {**report["model"], "licence_of_the_weights": licence},
        "lora": report.get("lora", []),
        "device": report["device"],
        "versions": report["versions"],
        "sections": [{name: row.get(name) for name in ROW} for row in report["sections"]],
        "sha256": dict(sorted(sums.items())),
        "verify": f"sha256sum -c {SUMS}",
        "rerun": f"framepack-relax rerun {FILM} --out again",
    }
