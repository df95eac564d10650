"""Timelines of editors, by OpenTimelineIO (the extra `otio`): .otio is read; .otio, .edl and .fcpxml are written.

A clip is a scene. What the film knows of it lies in the clip's metadata, so that a timeline that comes back is the same
board, but for lengths and prompts that were changed in the editor.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from ..errors import ModelError, RenderError
from ..families.catalog import find_family
from ..files import read_file
from ..planning.ladder import asked_of, written_out
from ..planning.lexicon import intensity_of
from ..planning.settings import choose_profile, relax_scene
from ..relax.profile import Profile, Relaxation, written
from ..rendering.folder import writing
from ..rendering.mark import PLAN
from ..rendering.takes import TAKES, names_of
from ..storyboard import Relax, Scene, Storyboard
from .draft import Draft
from .finished import FinishedFilm
from .source import Source

OURS = "framepack_relax"  # metadata of clips and markers
EXTRA = "pip install 'framepack-relax[otio]'"
ADAPTERS = {".otio": "otio_json", ".edl": "cmx_3600", ".fcpxml": "fcpx_xml"}
JUMPS = ((4.0, "RED"), (2.0, "YELLOW"), (0.0, "GREEN"))  # report.json's `seam` from which on a border has a colour
OTHER = re.compile(r"^\d{3,6}[ \t]+\S{1,99}[ \t]+\w{1,9}[ \t]+[CDKW]|^[ \t]*<fcpxml", re.MULTILINE)  # EDL, FCPXML
FILES = (
    "audio keyframes from lora take lock start_from finish".split()
)  # which a timeline does not hold, or lead to some
APART = {
    *FILES,
    *"version scenes id prompt seconds image end_image".split(),
}  # of our fields, those that are not taken over


def claims(source: Source) -> bool:
    return (isinstance(source.json, dict) and "OTIO_SCHEMA" in source.json) or bool(OTHER.search(source.text))


def library() -> ModuleType:
    """OpenTimelineIO. Raises RenderError where it is not installed."""
    try:
        import opentimelineio
    except ModuleNotFoundError as error:
        raise RenderError(f"{error.name} is not installed, and timelines need it: {EXTRA}") from error
    return opentimelineio


def read(draft: Draft) -> None:
    if OTHER.search(draft.source.text) and draft.source.json is None:
        draft.source.refuse("is an EDL or FCPXML, in which no prompts are; save the cut as .otio, and import that")
    otio = library()
    try:
        made = otio.adapters.read_from_string(draft.source.text, "otio_json")
        tracks = list(made.video_tracks())
        items = [item for track in tracks[:1] for item in track.find_children()]
        clips = [_Clip.of(item) for item in items if isinstance(item, otio.schema.Clip)]
        lost = list(_lost(otio, items))
    except Exception as error:  # whatever OpenTimelineIO raises on damaged files
        draft.source.refuse(f"cannot be read as a timeline ({type(error).__name__}: {str(error)[:200]})")
    if len(tracks) > 1:
        draft.leave("", f"of its {len(tracks)} video tracks the first is taken")
    if made.audio_tracks():
        draft.leave("", "its sound is not carried over")
    for place, fact in lost:
        draft.leave(place, fact)
    board = _plain(made.metadata.get(OURS, {}))
    board = board if isinstance(board, dict) else {}
    draft.board |= _ours(draft, "", board, Storyboard)
    for number, clip in enumerate(clips, 1):
        place, ours = f"clip {number}", clip.ours
        fields, asked = _ours(draft, place, ours, Scene), ours.get("seconds")
        if not isinstance(asked, (int, float)) or ours.get("frames") != round(clip.seconds * clip.rate):
            asked = round(clip.seconds, 3)
        prompt, transition = clip.said or str(ours.get("prompt") or clip.name), fields.pop("transition", "")
        fields |= {"transition": transition} if isinstance(transition, dict) and draft.scenes else {}
        image = ours.get("image") or (board.get("image") if number == 1 else None)
        fields |= {"image": image if isinstance(image, str) else None, "cut": transition == "cut"}
        draft.scene(place, prompt, float(asked), name=clip.name, **fields)
        draft.end(end if isinstance(end := ours.get("end_image"), str) else None)


def _ours(draft: Draft, place: str, said: Mapping[str, Any], part: type[BaseModel]) -> dict[str, Any]:
    """What a film of ours knows of itself or a clip, as fields of a board or a scene; tells what files it leaves."""
    for name in FILES:
        if said.get(name):
            draft.leave(place, f"`{name}` is not carried over: copy its files to the board, and write it anew")
    return {name: said[name] for name in part.model_fields if name not in APART and said.get(name) is not None}


def _lost(otio: ModuleType, items: list[Any]) -> Iterator[tuple[str, str]]:
    """Where on a track something is that a film here has not, and what."""
    number = 0
    for item in items:
        number += isinstance(item, otio.schema.Clip)
        if isinstance(item, otio.schema.Gap):
            yield f"after clip {number}", f"a gap of {item.duration().to_seconds():.3g} s is left out"
        elif isinstance(item, otio.schema.Transition):
            fact = "a dissolve is left out: `transition: {blend: 2}` mixes the prompts of two scenes instead"
            yield f"after clip {number}", fact


@dataclass(frozen=True)
class _Clip:
    """`said` is what somebody wrote on it, `ours` what a film of ours knows of it."""

    name: str
    seconds: float
    rate: float
    said: str
    ours: dict[str, Any]

    @classmethod
    def of(cls, clip: Any) -> "_Clip":
        length, ours = clip.trimmed_range().duration, _plain(clip.metadata.get(OURS, {}))
        comments = [marker.comment for marker in clip.markers if OURS not in marker.metadata]
        written = [clip.metadata.get(name) for name in ("comment", "Comments", "comments")]
        texts = [text.strip() for text in (*comments, *written) if isinstance(text, str) and text.strip()]
        ours = ours if isinstance(ours, dict) else {}
        return cls(clip.name, length.to_seconds(), length.rate, " ".join(texts), ours)


def _plain(value: Any) -> Any:
    """OpenTimelineIO's mappings and lists as Python's."""
    if hasattr(value, "items"):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if hasattr(value, "__iter__") and not isinstance(value, str) else value


def adapter_of(out: Path) -> str | None:
    """OpenTimelineIO's name for the kind of a file."""
    return ADAPTERS.get(out.suffix.lower())


def export_timeline(film: FinishedFilm, out: Path) -> None:
    """Writes the film's timeline for an editor; the suffix of `out` says which kind. Raises RenderError."""
    otio = library()
    adapter = adapter_of(out)
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
    rate, report, plain = film.rate, film.report, out.suffix.lower() != ".otio"

    def span(first: int, end: int) -> Any:
        return otio.opentime.TimeRange(_time(first), _time(end - first))

    def _time(frames: int) -> Any:
        return otio.opentime.RationalTime(frames, rate)

    def way(path: Path) -> str:
        return Path(os.path.relpath(path, out.parent)).as_posix()

    def marker(row: Mapping[str, Any], cut: bool) -> Any:
        name, begins = f"section {row['index']}", row["frames"][0]
        colour = "WHITE" if cut else next(name for least, name in JUMPS if row["seam"] >= least)
        said = "cut" if cut else f"{name}: the change at its first frame is {row['seam']:.1f} of the usual"
        name = f"{name}: {said.removeprefix(f'{name}: ')} ({colour.lower()})" if plain else name
        made = otio.schema.Marker(name=name, marked_range=span(begins, begins), color=colour, comment=said)
        made.metadata[OURS] = {"seam": row["seam"], "motion": row["motion"]}
        return made

    line = otio.schema.Timeline(name=film.story.title or film.folder.name, global_start_time=_time(0))
    story, scenes = _asked(film)
    line.metadata[OURS] = story.model_dump(mode="json", exclude_unset=True, exclude={"scenes", "image"})
    track = otio.schema.Track(name="film", kind=otio.schema.TrackKind.Video)
    line.tracks.append(track)
    url = way(film.film) if adapter_of(out) == "cmx_3600" else quote(way(film.film))
    for scene, timing in zip(scenes, report["scenes"], strict=True):
        first, end = timing["frames"]
        sections = [row for row in report["sections"] if row["scene"] == scene["id"]]
        clip = otio.schema.Clip(name=scene["id"], source_range=span(first, end))
        files = {name: way(story.resolve(scene[name])) for name in ("image", "end_image") if scene.get(name)}
        clip.metadata[OURS] = {**scene, **files, "frames": end - first, "rendered": list(map(_rendered, sections))}
        whole = otio.schema.ExternalReference(target_url=url, available_range=span(0, report["totals"]["frames"]))
        takes = {}  # `pick` makes one the film's
        for name in names_of(film.folder, scene["id"]):
            latents = {"latents": way(film.folder / TAKES.format(scene["id"]) / name)}
            takes[name] = otio.schema.MissingReference(name=name, metadata={OURS: latents})
        clip.set_media_references({(key := otio.schema.Clip.DEFAULT_MEDIA_KEY): whole, **takes}, key)
        before = {row["index"]: row["shot"] for row in report["sections"]}
        for row in sections:
            clip.markers.append(marker(row, before.get(row["index"] - 1, row["shot"]) != row["shot"]))
        track.append(clip)
    return line


def _rendered(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a section was rendered with. Seeds are texts, for half of them are larger than what timelines hold."""
    names = ("index", "beta", "p", "blur", "target", "at_rest")
    return {**{name: row[name] for name in names}, "seed": str(row["seed"])}


def _asked(film: FinishedFilm) -> tuple[Storyboard, list[dict[str, Any]]]:
    """The board and its scenes as their maker asked for them, each shot with its image; for the folder's own has what
    the profile gave written out in every scene. Where the model cannot be found that stays."""
    story = film.story
    scenes = list(story.scenes)
    try:
        family = find_family(story.model).configured(story)
    except ModelError:
        family = None
    if family:
        paper = json.loads(read_file(film.folder / PLAN))["profile"] == "paper"
        here, usual = choose_profile(story, family), choose_profile(story.changed(profile="auto"), family)
        story, usual = (story, here) if paper else (story.changed(profile="auto"), usual)
        scenes = [_without(usual, relax_scene(scene, here), scene, story) for scene in scenes]
    dumped = [scene.model_dump(mode="json", exclude_unset=True) for scene in scenes]
    for number, (scene, said) in enumerate(zip(scenes, dumped, strict=True)):
        if story.image and not scene.image and (number == 0 or scene.transition == "cut"):
            said["image"] = story.image
    return story, dumped


def _without(profile: Profile, relax: Relaxation, scene: Scene, story: Storyboard) -> Scene:
    """The scene without what the profile gives for its intensity, and without the board's `ensure`."""
    made = {"relax": Relax(**written(relax, profile.relaxation(intensity_of(scene))))}
    asked = scene.model_copy(update=made)
    if ensure := scene.ensure:
        short = ensure.model_copy(update={"ladder": None})
        same = written_out(asked_of(story, asked.model_copy(update={"ensure": short}), relax, profile)) == ensure
        asked = asked.model_copy(update={"ensure": (None if short == story.ensure else short) if same else ensure})
    return asked
