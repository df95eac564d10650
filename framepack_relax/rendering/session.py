"""What is known of a render before it needs torch: its plan, its folder, which sections are kept and why others not."""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from PIL import Image

from ..errors import FilmError, ModelError, Problem, RenderError, StoryboardError
from ..families.adapters import Adapter, find_adapters, relocated
from ..families.base import Family
from ..families.engine import check_together, engine_of
from ..families.loader import Loading
from ..files import read_file
from ..planning.lexicon import intensity_of
from ..planning.planner import make_plan
from ..planning.renderplan import RenderPlan, SectionPlan, ShotPlan
from ..planning.settings import settle_profile
from ..storyboard import Storyboard, dump_storyboard
from ..storyboard.images import ImageError, fit_image, read_image
from ..storyboard.messages import printable
from ..storyboard.reader import LARGEST_BYTES
from ..storyboard.schema import StartFrom
from ..video.contact import png
from .before import Before, read_before
from .drafts import Draft, find_drafts, open_drafts
from .ensure import Judge, wanted
from .films import is_anothers, is_whole
from .folder import BROKEN, FOLLOWS, FRESH, RunFolder, Verdict
from .keys import SectionKey, difference, film_key, hash_of, picture_digest, section_keys, start_inputs, versions
from .mark import (
    FILM,
    MADE,
    PARTS,
    PICTURES,
    PLAN,
    REPORT,
    START_FILE,
    STORY,
    Mark,
    Note,
    mark_of,
    read_mark,
    section_file,
    settle_owner,
)
from .stored import Stored
from .takes import locked_sections, with_files, with_words

if TYPE_CHECKING:
    from ..families.backend import Backend
    from ..video.sound import Sound

AnyModel = Union[Loading, "Backend"]
TOO_LONG = (
    f"with all its settings the storyboard takes more than the {LARGEST_BYTES >> 10} KiB that are read: the film does "
    "not carry it; keep it"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to render, besides what: nothing here changes a section whose latents are finite.

    `fresh` renders all sections, `strict` also those that another version or device has made; `on_nan` says what to do
    when latents are not finite: stop, or retry with another seed, at most three times. `store` is a folder in which
    renders share their sections; `judge` gives what sees actions of a family's films, for scenes that ensure one.
    `commands` lets a board's `finish` run; `preview` draws what is sampled.
    """

    fresh: bool = False
    strict: bool = False
    store: Path | None = None
    commands: bool = False
    on_nan: Literal["stop", "retry"] = "stop"
    judge: Callable[[Family], Judge] | None = None
    preview: bool = False


USUAL = Options()


@dataclass(frozen=True, kw_only=True)
class Session:
    """A render before its first step: the keys of its sections and of its shots' start latents; the film's in the mark.

    No model, and no open file: it can be pickled.
    """

    story: Storyboard
    plan: RenderPlan
    family: Family
    options: Options
    out: Path
    mark: Mark
    images: Mapping[str, Image.Image]  # by their path in the storyboard, each of the film's size
    before: Before | None  # the film that it goes on from
    sound: "Sound | None"
    weights: str
    dtype: str
    adapters: tuple[Adapter, ...]
    drafts: Mapping[int, Draft]  # that sections start from, by index
    keys: Mapping[int, SectionKey]
    starts: Mapping[int, str]
    made: Mapping[str, Any]  # provenance of what is rendered now
    notes: tuple[str, ...]  # of takes that are not taken

    def folder(self, note: Note) -> RunFolder:
        """`note` hears what is put aside in it."""
        return RunFolder(self.out, self.mark, store=self.options.store, note=note)

    def verdicts(self, folder: RunFolder, shots: Sequence[ShotPlan] = ()) -> list[Verdict]:
        """A verdict per section in rendering order, of these shots or of all."""
        fresh, strict, said = self.options.fresh, self.options.strict, list[Verdict]()
        for shot in shots or self.plan.shots:
            before: Stored | None = None
            follows = False
            for index in shot.sections:
                section, key = self.plan.sections[index], self.keys[index]
                stored, why = folder.look(section, key)
                note = difference(stored.made, self.made) if stored and why is None else ""
                if section.lock:
                    if stored is None or why:
                        fact = "was removed or damaged during the render"
                        raise RenderError(f"{self.out / section.file}: {fact}; run the same command again")
                    other = follows or (before is not None and stored.after != before.digest)
                    said.append(Verdict(section, None, _locked(section, stored, key, other)))
                    before, follows = stored, False
                    continue
                if stored and why is None and before and stored.after != before.digest:
                    why = FOLLOWS
                why = why or (FRESH if fresh else note if strict and note else FOLLOWS if follows else None)
                said.append(Verdict(section, why, "" if why else note))
                before, follows = stored, why is not None
        return said

    def finished(self, folder: RunFolder, verdicts: list[Verdict]) -> dict[str, Any] | None:
        """The report of the film, if both are whole, whatever became of its sections since; these are called reused.

        What `fresh` or `strict` would render anew is not finished.
        """
        if (self.options.fresh or self.options.strict) and any(why is not None for _, why, _ in verdicts):
            return None
        data = folder.recall(REPORT)
        report: dict[str, Any] = json.loads(data) if data else {"film": None}
        there = all((self.out / name).is_file() for name in PICTURES)
        if report["film"] != self.mark.film or not there or not is_whole(self.out / FILM, self.mark.film):
            return None
        return {**report, "sections": [{**section, "reused": True} for section in report["sections"]]}

    def has_begun(self) -> bool:
        """The folder is marked with this very film. Raises RenderError."""
        there = read_mark(self.out)
        return there is not None and (there.sections, there.film) == (self.mark.sections, self.mark.film)

    def begin(self, folder: RunFolder) -> None:
        """Marks the folder, and writes the plan, and the storyboard unless it is the folder's own."""
        names = {section_file(section) for section in self.plan.sections}
        names |= {START_FILE.format(shot) for shot in self.starts}
        plan = {PLAN: json.dumps(self.plan.to_json()).encode("utf8")}
        if not (self.is_own or self.carried):
            folder.note(TOO_LONG)
        folder.begin({*names, *MADE, *PARTS}, plan | ({} if self.is_own else self.carried))
        for name in PARTS:
            if is_anothers(folder.path / name):
                folder.put_aside(name)

    @cached_property
    def carried(self) -> dict[str, bytes]:
        """A storyboard that renders the same film from a folder or a film alone, and its images as PNG, by name.

        Empty where the storyboard's text is longer than what is read.
        """
        story = relocated(settle_profile(self.story, self.family), self.out)
        plan, names = self.plan, self.picture_names
        speeds: dict[str | None, str] = {"fast": self.family.fast}  # as it is now
        own: list[dict[str, Any]] = [
            {
                "image": names.get(s.image or ""),
                "end_image": names.get(s.end_image or ""),
                "keyframes": tuple(k.model_copy(update={"image": names[k.image]}) for k in s.keyframes or ()) or None,
                "speed": speeds.get(s.speed, s.speed),
                "intensity": intensity_of(s),
                "start_from": self._anywhere(s.start_from),
            }
            for s in story.scenes
        ]
        scenes = tuple(scene.model_copy(update=said) for scene, said in zip(story.scenes, own, strict=True))
        settled = {"model": plan.model, "size": plan.size, "fps": plan.fps, "sampler": plan.sampler}
        settled["speed"] = speeds.get(story.speed, story.speed)
        settled |= story.block(plan.kind, plan.options)
        track = self.sound
        heard = {f"sound/{track.digest[:12]}{plain_suffix(track.path)}": track.path} if track else {}
        settled |= {"audio": next(iter(heard), None), "finish": None}  # whoever renders it again says what to run
        settled["from"] = str(self.before.path.absolute()) if self.before else None
        settled["start_from"] = self._anywhere(story.start_from)
        whole = story.changed(**settled, image=names.get(story.image or ""), scenes=scenes)
        text = dump_storyboard(whole).encode("utf8")
        if len(text) > LARGEST_BYTES:
            return {}
        pictures = {names[path]: png(image) for path, image in self.images.items()}
        return {**pictures, **{name: read_file(file) for name, file in heard.items()}, STORY: text}

    def _anywhere(self, start: StartFrom | None) -> StartFrom | None:
        """With the path of its folder as it is found from anywhere."""
        folder = self.story.resolve(start.folder).absolute() if start and start.folder else None
        return start and start.model_copy(update={"folder": folder and str(folder)})

    @property
    def picture_names(self) -> dict[str, str]:
        """Where the folder's own storyboard has its start images, by their path in this one: named by their content."""
        return {path: f"images/{picture_digest(image)[:12]}.png" for path, image in self.images.items()}

    @property
    def is_own(self) -> bool:
        """The storyboard is the folder's own, which stays as its maker has edited it."""
        file, own = self.story.file, self.out / STORY
        return file is not None and file.exists() and own.exists() and file.samefile(own)


def settle(story: Storyboard, out: Path, model: AnyModel, options: Options) -> Session:
    """Plans, reads the start images, makes the keys; nothing is written. Raises StoryboardError or ModelError."""
    family = model.family
    begun, absent = open_drafts(story, out)
    plan = make_plan(story, family, absent)
    check_commands(story, options.commands)
    if family.unread:
        cure = f"`framepack-relax models {family.name}` says how to get it"
        raise ModelError(f"{family.unread}, so that its noise levels are not known; {cure}")
    check_together(model, plan.effects)
    images, before, sound = read_images(story, plan), read_before(story, plan, family), film_sound(story)
    plan = replace(plan, warnings=(*plan.warnings, *(before.told if before else ())))
    made, dtype = provenance(model), model.precision  # slips of device and dtype are told before weights are read
    weights = model.identity
    pictures = {path: picture_digest(image) for path, image in images.items()}
    if before:
        pictures[str(story.before)] = before.digest
    adapters = find_adapters(story, family, download=getattr(model, "download", True))
    takes = locked_sections(story, plan, out, weights)
    plan = with_words(plan, takes)
    own = {index: stored.key for index, stored in takes.items()}
    drafts = find_drafts(story, plan, begun)
    digests = {index: draft.digest for index, draft in drafts.items()}
    keys = section_keys(plan, pictures, weights, dtype, adapters, _judge(plan, family, options), own, digests)
    plan, notes = with_files(plan, keys, out, takes, options.fresh or options.strict)
    asks = {
        "sections": {str(i): key.key for i, key in keys.items()},
        "film": film_key(plan, story, keys, sound.digest if sound else None),
    }
    return Session(
        story=story,
        plan=plan,
        family=family,
        options=options,
        out=out,
        mark=mark_of(out, story).model_copy(update=asks),
        images=images,
        sound=sound,
        before=before,
        weights=weights,
        dtype=dtype,
        adapters=adapters,
        drafts=drafts,
        keys=keys,
        starts={s.index: hash_of(start_inputs(s, plan, pictures, weights, dtype)) for s in plan.shots if s.image},
        made=made,
        notes=tuple(notes),
    )


def _locked(section: SectionPlan, stored: Stored, key: SectionKey, other_past: bool) -> str:
    """How a locked section would be made otherwise now; empty if it would not."""
    changes = ", ".join(filter(None, (difference(stored.inputs, key.inputs), "another past" * other_past)))
    return f"take {section.take} is locked ({changes})" if changes else ""


def _judge(plan: RenderPlan, family: Family, options: Options) -> str | None:
    """What sees actions, by its weights; None where none is asked for. Raises RenderError or EvaluationError."""
    asking = [section for section in plan.sections if section.ensure and section.ensure.action and not section.lock]
    if not asking:
        return None
    if options.judge is None:
        raise RenderError(f"scene {asking[0].scene}: ensure.action: nothing here sees actions; remove it")
    judge = options.judge(family)
    for section in asking:
        wanted(section, judge)
    return judge.weights


@contextmanager
def opened(session: Session, note: Note, patience: float = 0.0) -> Iterator[RunFolder]:
    """Holds and marks the folder. Raises RenderError; where another holds it, after `patience` seconds."""
    with session.folder(note).held(patience) as folder:
        session.begin(folder)
        yield folder


def preview(
    story: Storyboard, out: Path, model: AnyModel, options: Options = USUAL, note: Note = lambda note: None
) -> list[Verdict]:
    """What a render would keep of the folder `out`, and why not the rest; writes nothing.

    `note` hears what would be put aside. Raises RenderError for a folder that it would refuse.
    """
    session = settle(story, out, model, options)
    for text in session.notes:
        note(text)
    folder = session.folder(note)
    folder.mark = settle_owner(out, folder.mark)
    verdicts = session.verdicts(folder)
    session.begin(folder)
    if session.finished(folder, verdicts):
        return [verdict._replace(why=None) for verdict in verdicts]
    folder.claim(dict.fromkeys(MADE, "not known yet"))
    broken = [section_file(section) for section, why, _ in verdicts if why == BROKEN]
    for name in [*broken, *map(START_FILE.format, session.starts)]:
        folder.put_aside_broken(name)
    return verdicts


def provenance(model: AnyModel) -> dict[str, Any]:
    """What else is told of a section: where it was rendered, by which versions and kernels."""
    return {"device": model.hardware, "versions": versions(), **engine_of(model)}


def made_with(model: AnyModel, weights: str, adapters: Iterable[Adapter]) -> dict[str, Any]:
    """What made a film."""
    lora = sorted({adapter.digest for adapter in adapters})
    return {"weights": weights, "lora": lora, "dtype": model.precision, **provenance(model)}


def check_commands(story: Storyboard, allowed: bool) -> None:
    """Raises StoryboardError where the board's commands may not be run, or are not here."""
    found = []
    for number, step in enumerate(story.finish or ()):
        name, path = printable(step.run[0]), f"finish[{number}].run"
        if not allowed:
            cure = "say --allow-commands (commands=True) if you trust it"
            found.append(Problem(path=path, message=f"wants to run {name}, which no board does by itself; {cure}"))
        elif shutil.which(step.run[0]) is None:
            found.append(Problem(path=path, message=f"{name}: no such command here; install it, or name its path"))
    if found:
        raise StoryboardError([story.located(problem) for problem in found])


def plain_suffix(path: Path) -> str:
    """Where it is one that every disk takes."""
    return path.suffix if re.fullmatch(r"\.\w{1,5}", path.suffix, re.ASCII) else ""


def film_sound(story: Storyboard) -> "Sound | None":
    """The track that the board names, read through. Raises StoryboardError."""
    if story.audio is None:
        return None
    from ..video.sound import read_sound  # needs PyAV

    try:
        return read_sound(story.resolve(story.audio))
    except FilmError as error:
        raise StoryboardError([story.located(Problem(path="audio", message=str(error)))]) from error


def read_images(story: Storyboard, plan: RenderPlan) -> dict[str, Image.Image]:
    """The start images of all shots, and the anchors, by their path in the storyboard, each of the film's size."""
    starts = [shot.image for shot in plan.shots if shot.image and (shot.index or not story.before)]
    anchors = [anchor.image for section in plan.sections for anchor in section.anchors]
    images = {}
    for path in dict.fromkeys([*starts, *anchors]):
        try:
            images[path] = fit_image(read_image(story.resolve(path)), plan.size)
        except (OSError, ImageError) as error:
            raise RenderError(f"{story.resolve(path)}: {error}") from error
    return images
