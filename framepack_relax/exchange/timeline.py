"""Timelines of editors, by OpenTimelineIO (the extra `otio`): .otio is read; .otio, .edl and .fcpxml are written.

A clip is a scene. What the film knows of it lies in the clip's metadata, so that a timeline that comes back is the same
board, but for lengths and prompts that were changed in the editor.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from ..errors import RenderError
from ..rendering.folder import writing
from ..rendering.takes import TAKES, names_of
from .draft import Draft
from .finished import FinishedFilm
from .source import Source

OURS = "framepack_relax"  # metadata of clips and markers
EXTRA = "pip install 'framepack-relax[otio]'"
ADAPTERS = {".otio": "otio_json", ".edl": "cmx_3600", ".fcpxml": "fcpx_xml"}
JUMPS = ((4.0, "RED"), (2.0, "YELLOW"), (0.0, "GREEN"))  # report.json's `seam` from which on a border has a colour
BOARD = "title model size fps seed steps sampler speed noise style negative_prompt guidance".split()  # what comes back
SCENE = "negative_prompt seed steps speed intensity guidance relax transition".split()
FILES = "image end_image keyframes from audio lora".split()  # what does not, for a timeline holds no files


def claims(source: Source) -> bool:
    return isinstance(source.json, dict) and "OTIO_SCHEMA" in source.json


def library() -> ModuleType:
    """OpenTimelineIO. Raises RenderError where it is not installed."""
    try:
        import opentimelineio
    except ModuleNotFoundError as error:
        raise RenderError(f"{error.name} is not installed, and timelines need it: {EXTRA}") from error
    return opentimelineio


def takes_of(folder: Path, scene: str) -> Mapping[str, Path]:
    """The films of a scene's other takes, by name; a run folder keeps none."""
    return {}


def read(draft: Draft) -> None:
    otio = library()
    try:
        made = otio.adapters.read_from_string(draft.source.text, "otio_json")
        tracks = list(made.video_tracks())
        items = [(clip, clip.trimmed_range().duration) for track in tracks[:1] for clip in track.find_clips()]
        clips = [(clip.name, duration.to_seconds(), *_said(clip)) for clip, duration in items]
        rates = [0.0, *(duration.rate for _, duration in items)]
    except Exception as error:  # whatever OpenTimelineIO raises on damaged files
        draft.source.refuse(f"cannot be read as a timeline ({type(error).__name__}: {str(error)[:200]})")
    if len(tracks) > 1:
        draft.leave("", f"of its {len(tracks)} video tracks the first is taken")
    if made.audio_tracks():
        draft.leave("", "its sound is not carried over")
    board = _plain(made.metadata.get(OURS, {}))
    draft.board |= {name: board[name] for name in BOARD if isinstance(board, dict) and name in board}
    for number, (name, seconds, comment, ours) in enumerate(clips, 1):
        fields, place = {key: ours[key] for key in SCENE if key in ours}, f"clip {number}"
        frames, asked = round(seconds * rates[number]), ours.get("seconds")
        seconds = (
            float(asked) if isinstance(asked, (int, float)) and ours.get("frames") == frames else round(seconds, 3)
        )
        prompt, transition = comment or str(ours.get("prompt") or name), fields.pop("transition", "")
        fields |= {"transition": transition} if isinstance(transition, dict) and draft.scenes else {}
        draft.scene(place, prompt, seconds, name=name, cut=transition == "cut", **fields)
        _tell_files(draft, place, ours)
    _tell_files(draft, "", board if isinstance(board, dict) else {})


def _tell_files(draft: Draft, place: str, ours: Mapping[str, Any]) -> None:
    for name in FILES:
        if ours.get(name):
            draft.leave(place, f"`{name}` is not carried over: copy its files to the board, and write it anew")


def _said(clip: Any) -> tuple[str, dict[str, Any]]:
    """What somebody wrote on a clip, and what a film of ours knows of it."""
    ours = _plain(clip.metadata.get(OURS, {}))
    comments = [marker.comment for marker in clip.markers if OURS not in marker.metadata]
    written = [clip.metadata.get(name) for name in ("comment", "Comments", "comments")]
    texts = [text.strip() for text in (*comments, *written) if isinstance(text, str) and text.strip()]
    return " ".join(texts), ours if isinstance(ours, dict) else {}


def _plain(value: Any) -> Any:
    """OpenTimelineIO's mappings and lists as Python's."""
    if hasattr(value, "items"):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if hasattr(value, "__iter__") and not isinstance(value, str) else value


def export_timeline(film: FinishedFilm, out: Path) -> None:
    """Writes the film's timeline for an editor; the suffix of `out` says which kind. Raises RenderError."""
    otio = library()
    adapter = ADAPTERS.get(out.suffix.lower())
    if adapter is None:
        raise RenderError(f"{out}: is no kind of timeline that is written; name it {', '.join(ADAPTERS)}")
    if adapter not in otio.adapters.available_adapter_names():
        raise RenderError(f"{out}: OpenTimelineIO has no adapter for it here: {EXTRA}")
    with writing(out, "cannot be written", "choose another place"):
        out.parent.mkdir(parents=True, exist_ok=True)
    line = _timeline(otio, film, out)
    try:
        given = {"rate": film.rate} if adapter == "cmx_3600" else {}
        otio.adapters.write_to_file(line, str(out), adapter, **given)
    except OSError:
        raise
    except Exception as error:  # of the adapters, which know not all rates
        raise RenderError(f"{out}: OpenTimelineIO cannot write it ({str(error)[:200]}); write an .otio") from error


def _timeline(otio: ModuleType, film: FinishedFilm, out: Path) -> Any:
    rate, report = film.rate, film.report

    def span(first: int, end: int) -> Any:
        return otio.opentime.TimeRange(otio.opentime.RationalTime(first, rate), _time(end - first))

    def _time(frames: int) -> Any:
        return otio.opentime.RationalTime(frames, rate)

    def reference(path: Path, frames: int) -> Any:
        where = Path(os.path.relpath(path, out.parent)).as_posix()
        return otio.schema.ExternalReference(target_url=where, available_range=span(0, frames))

    def absent(scene: str, take: str) -> Any:
        where = Path(os.path.relpath(film.folder / TAKES.format(scene) / take, out.parent)).as_posix()
        return otio.schema.MissingReference(
            name=take, metadata={OURS: {"latents": where}}
        )  # `pick` makes it the film's

    line = otio.schema.Timeline(name=film.story.title or film.folder.name, global_start_time=_time(0))
    line.metadata[OURS] = film.story.model_dump(mode="json", exclude_unset=True, exclude={"scenes"})
    track = otio.schema.Track(name="film", kind=otio.schema.TrackKind.Video)
    line.tracks.append(track)
    for scene, timing in zip(film.story.scenes, report["scenes"], strict=True):
        first, end = timing["frames"]
        sections = [row for row in report["sections"] if row["scene"] == scene.id]
        clip = otio.schema.Clip(name=scene.id, source_range=span(first, end))
        clip.metadata[OURS] = _facts(scene, end - first, sections)
        takes = {name: absent(scene.id, name) for name in names_of(film.folder, scene.id)}
        key = otio.schema.Clip.DEFAULT_MEDIA_KEY
        clip.set_media_references({key: reference(film.film, report["totals"]["frames"]), **takes}, key)
        for row in sections:
            begins, cut = (
                row["frames"][0],
                row["index"] > 0 and row["shot"] != report["sections"][row["index"] - 1]["shot"],
            )
            colour = "WHITE" if cut else next(name for least, name in JUMPS if row["seam"] >= least)
            said = (
                "cut"
                if cut
                else f"section {row['index']}: the change at its first frame is {row['seam']:.1f} of the usual"
            )
            marker = otio.schema.Marker(
                name=f"section {row['index']}", marked_range=span(begins, begins), color=colour, comment=said
            )
            marker.metadata[OURS] = {"seam": row["seam"], "motion": row["motion"]}
            clip.markers.append(marker)
        track.append(clip)
    return line


def _facts(scene: BaseModel, frames: int, sections: list[dict[str, Any]]) -> dict[str, Any]:
    """A clip's metadata: the scene as the board says it, how long it is, what it was rendered with.

    Seeds are texts, for half of them are larger than what timelines hold.
    """
    names = ("index", "beta", "p", "blur", "target", "at_rest")
    rendered = [{**{name: row[name] for name in names}, "seed": str(row["seed"])} for row in sections]
    return {**scene.model_dump(mode="json", exclude_unset=True), "frames": frames, "rendered": rendered}
