"""Storyboards, folders and patterns -> films: all read and planned before anything is rendered, every mistake told."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from ..errors import CancelledError, Problem, RelaxError, RenderError, StoryboardError
from ..families.loader import Loading
from ..files import read_file
from ..rendering.events import Hear
from ..rendering.finish import is_finished
from ..rendering.jobs import ShotJob, make_jobs
from ..rendering.loop import render, render_part
from ..rendering.mark import CANCELLED, MARK, Note, call_off, settle_owner
from ..rendering.session import USUAL, Options, Session, settle
from ..storyboard import Storyboard, read_storyboard
from .executor import Models
from .records import RESERVED

SUFFIXES = (".yaml", ".yml")
MOST_SEEDS = 10_000
SETTLED = 1.0  # seconds since the last change of a board that is taken in


@dataclass(frozen=True, kw_only=True)
class Film:
    """A storyboard with one seed, and where it goes. `left` counts the sections to do of each shot."""

    name: str
    story: Storyboard
    out: Path
    loading: Loading
    options: Options
    board: Mapping[str, Any] = field(default_factory=dict)  # what is other than its storyboard says
    priority: float = 0.0
    left: tuple[int, ...] = ()
    sections: int = 0
    whole: bool = False

    def seeded(self, count: int) -> "list[Film]":
        """So many, with its seed, the next, and so on."""
        seeds = range(self.story.seed, self.story.seed + count)
        names = [f"{self.name}/seed-{seed}" for seed in seeds]
        outs, stories = [self.out / f"seed-{seed}" for seed in seeds], [self.story.changed(seed=seed) for seed in seeds]
        return [replace(self, name=n, out=o, story=s) for n, o, s in zip(names, outs, stories, strict=True)]

    def session(self) -> Session:
        return settle(self.story, self.out, self.loading, self.options)

    def planned(self) -> "Film":
        """With what a render would do, into a folder that it would not refuse. Raises RelaxError; writes nothing."""
        session = self.session()
        folder = session.folder(lambda note: None)
        folder.mark = settle_owner(self.out, folder.mark)
        verdicts = session.verdicts(folder)
        left = [0] * len(session.plan.shots)
        for section, why, _ in verdicts:
            left[section.shot] += why is not None
        whole = session.finished(folder, verdicts) is not None and is_finished(session)
        return replace(self, left=tuple(left), sections=len(verdicts), whole=whole)

    def jobs(self) -> list[ShotJob]:
        """One a shot. Raises RelaxError; CancelledError where it was called off."""
        if os.path.lexists(self.out / CANCELLED):
            raise CancelledError(f"{self.out}: the film was called off")
        session = self.session()
        return make_jobs(session, self.loading, session.verdicts(session.folder(lambda note: None)))

    def units(self) -> "list[ShotUnit]":
        """What is to be done for it, by shots. Raises as `jobs`."""
        units = [ShotUnit(film=self.name, job=job) for job in self.jobs()]
        if self.options.fresh or self.options.strict:  # a film of new shots alone: one worker renders it
            wanted = tuple(index for unit in units for index in unit.job.wanted)
            return [replace(units[0], job=replace(units[0].job, wanted=wanted))]
        return [unit for unit in units if unit.job.wanted] or units[:1]


@dataclass(frozen=True, kw_only=True)
class ShotUnit:
    """A shot of a film; the last one makes the film, too."""

    film: str
    job: ShotJob

    @property
    def name(self) -> str:
        return f"{self.film}, shot {self.job.shot}"

    def run(self, models: Models, tell: Hear) -> None:
        session, backend = self.job.session, models.get(self.job.loading)
        if session.options.fresh or session.options.strict:
            render(session.story, out=session.out, model=backend, options=session.options, on_event=tell)
        else:
            render_part(self.job, backend, tell)


def find_films(
    places: Sequence[Path | str],
    out: Path,
    *,
    seeds: int = 1,
    board: Mapping[str, Any] = {},
    loading: Mapping[str, Any] = {},
    options: Options = USUAL,
    priorities: Mapping[str, float] = {},
    note: Note = lambda note: None,
) -> list[Film]:
    """The films of all these boards, `seeds` of each, planned. Raises StoryboardError with every mistake of all.

    `board` changes fields of all of them; `loading` goes to `Loading`. A film goes to `out`/NAME, or where there are
    several seeds of it to `out`/NAME/seed-SEED. NAME is the stem of a file, and of what is found in a folder its path
    there. `priorities` are by patterns of names, the highest first. `note` hears what is left out.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise RenderError(f"seeds: is {seeds}; give 1 to {MOST_SEEDS}")
    films, problems, names = list[Film](), list[Problem](), dict[str, Path]()
    loaded = cache(lambda model: Loading(name=model, **loading))  # its files are read once
    for name, file in _files(places, out, problems, note):
        other = names.setdefault(name, file)
        if other is not file:
            if other.resolve() == file.resolve():
                continue
            above = os.path.commonpath([file.resolve().parent, other.resolve().parent])
            fact = f"its film is called {name!r}, as that of {other} is; give the folder {above}, or rename one"
            problems.append(Problem(file=str(file), message=fact))
            continue
        if name.split("/")[0] in RESERVED:
            problems.append(Problem(file=str(file), message=f"the folder {out / name} is the batch's own; rename it"))
            continue
        try:
            story = _changed(read_storyboard(file), board)
            priority = max((value for pattern, value in priorities.items() if fnmatchcase(name, pattern)), default=0.0)
            film = Film(
                name=name,
                story=story,
                out=out / name,
                loading=loaded(story.model),
                options=options,
                board=board,
                priority=priority,
            )
            films += [one.planned() for one in (film.seeded(seeds) if seeds > 1 else [film])]
        except StoryboardError as error:
            problems += error.problems
        except RelaxError as error:
            problems.append(Problem(file=str(file), message=str(error)))
    problems += _nested(films, out)
    if problems:
        raise StoryboardError(problems)
    for pattern in priorities:
        if not any(fnmatchcase(name, pattern) for name in names):
            note(f"priority {pattern}: no storyboard is called that")
    return films


def _changed(story: Storyboard, board: Mapping[str, Any]) -> Storyboard:
    """With these fields; `steps` stand in for those of scenes, too."""
    scenes = tuple(scene.model_copy(update={"steps": None}) for scene in story.scenes)
    return story.changed(**({"scenes": scenes} if "steps" in board else {}), **board) if board else story


def _nested(films: list[Film], out: Path) -> Iterator[Problem]:
    """A film's folder that would lie within another's, of this batch or of one before."""
    outs = {film.out for film in films}
    for film in films:
        inside = [place for place in film.out.parents if place.is_relative_to(out) and place != out]
        if above := next((place for place in inside if place in outs or (place / MARK).exists()), None):
            fact = f"its film would lie in the folder of another one, {above}; rename one, or choose another folder"
            yield Problem(file=str(film.story.file), message=fact)


def _files(places: Sequence[Path | str], out: Path, problems: list[Problem], note: Note) -> Iterator[tuple[str, Path]]:
    """Each board's name and file."""
    for place in map(str, places):
        if has_magic(place) and not os.path.lexists(place):
            root = Path(*_plain_parts(Path(place)))
            found = [Path(file) for file in sorted(glob(place, recursive=True)) if not os.path.isdir(file)]
        elif os.path.isdir(place):
            root = Path(place)
            found = [file for file in sorted(root.rglob("*")) if file.suffix in SUFFIXES and _is_shown(file, root)]
            others = {file: why for file in found if (why := no_board(file))}
            found = [file for file in found if file not in others]
            if others:
                shown = ", ".join(f"{file} ({why})" for file, why in list(others.items())[:3])
                note(f"{place}: left out: {shown}" + (f", and {len(others) - 3} more" if len(others) > 3 else ""))
        else:
            yield Path(place).stem, Path(place)
            continue
        if not found:
            problems.append(Problem(file=place, message="there is no storyboard; give files, folders or patterns"))
        yield from ((file.relative_to(root).with_suffix("").as_posix(), file) for file in found)


def _plain_parts(pattern: Path) -> Iterable[str]:
    for part in pattern.parts:
        if has_magic(part):
            return
        yield part


def _is_shown(file: Path, root: Path) -> bool:
    """No hidden one, and none that a render has left beside its film."""
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and not (file.parent / MARK).exists()


def no_board(file: Path) -> str:
    """What it is instead, at a glance; nothing where it may be one. What cannot be read is told when it is."""
    if not file.is_file():
        return "no file"
    try:
        fields = {line.split(b":")[0].strip(b"\"'") for line in read_file(file).splitlines() if b":" in line}
    except OSError:
        return ""
    return "a sweep or a profile" if fields & {b"arms", b"levels"} else ""


class Watch:
    """A folder in which boards appear or change: each is read as soon as nobody has written to it for a while.

    `films` are there already: no board takes the place of another one's film.
    """

    def __init__(
        self, folder: Path, find: Callable[[list[Path]], list[Film]], note: Note, films: Iterable[Film] = ()
    ) -> None:
        self.folder, self.find, self.note = folder, find, note
        self.seen: dict[Path, float] = {}
        self.files = {film.name: film.story.file for film in films}
        self.lost = False
        if not folder.is_dir():
            raise RenderError(f"{folder}: is no folder; make it, or watch another one")

    def __call__(self) -> list[Film]:
        """The films of what has come or changed; what cannot be read is told."""
        films = list[Film]()
        try:
            files = sorted(self.folder.iterdir())
        except OSError as error:
            if not self.lost:
                self.note(f"{self.folder}: cannot be read ({error.strerror}); it is looked at again and again")
            files, self.lost = [], True
        else:
            self.lost = False
        for file in files:
            if file.suffix in SUFFIXES and not file.name.startswith("."):
                with suppress(OSError):
                    changed = file.stat().st_mtime
                    if changed != self.seen.get(file) and abs(time.time() - changed) > SETTLED:
                        self.seen[file] = changed
                        films += self._read(file)
        return films

    def _read(self, file: Path) -> list[Film]:
        try:
            films = [] if no_board(file) else self.find([file])
            for film in films:
                other = self.files.setdefault(film.name, file)
                if other is None or other.resolve() != file.resolve():
                    raise RenderError(f"{file}: its film is called {film.name!r}, as that of {other} is; rename one")
                call_off(film.out, False)
            return films
        except RelaxError as error:
            self.note(str(error))
            return []
