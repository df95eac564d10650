"""The boards that a service was given, in DIR/.boards so that a restart goes on, and the thread that renders them."""

import json
import os
import re
import shutil
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, RLock, Thread
from typing import Any

from ..errors import Problem, RelaxError, StoryboardError
from ..families.adapters import outside
from ..families.catalog import CATALOG
from ..families.loader import Loading
from ..files import make_folder, read_file, sync
from ..planning.draft import DRAFT, as_draft
from ..planning.planner import make_plan
from ..planning.renderplan import RenderPlan
from ..rendering.folder import writing
from ..rendering.mark import CANCELLED, STORY, Note, call_off
from ..rendering.session import USUAL, Options
from ..rendering.status import read_status
from ..storyboard import Storyboard, read_storyboard
from .batch import Batch, Progress, run, told_json
from .engines import Workers
from .films import Film, find_films
from .ledger import Entry, read_entry, read_ledger
from .records import LOGS, Logs

BOARDS, ORDER = ".boards", "order.json"
NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"  # of a board and its film: a folder, a part of a URL, the same on every disk
RENDERED = rf"{NAME[:-1]}(\.(draft|takes))?$"  # of what is rendered of it, too: no board is called so
IMAGE = re.compile(r"[^./\\][^/\\]{0,99}\.(png|jpe?g|webp|bmp|tiff?|gif|ppm)", re.IGNORECASE)
PAIR = re.compile(rb"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)  # one sign in JSON, none in YAML
KEPT = 2000  # events of a film that one who comes back can hear again


class Refusal(Exception):
    """A request that is not fulfilled: a status of HTTP, and the fact with its cure."""

    def __init__(self, status: int, fact: str) -> None:
        super().__init__(fact)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a service takes: bytes of a request, films that wait, images of a board, bytes of each."""

    body: int = 64 << 20
    waiting: int = 1000
    images: int = 64
    image: int = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Posted:
    """A storyboard's text and its images by name; `seed` stands in for the storyboard's, the highest `priority` is
    first."""

    text: bytes
    images: Mapping[str, bytes] = field(default_factory=dict)
    seed: int | None = None
    priority: float = 0.0


class Journal:
    """The newest events of a film as JSON, by numbers that go on counting."""

    def __init__(self) -> None:
        self.lines: deque[tuple[int, str]] = deque(maxlen=KEPT)
        self.last = 0

    def add(self, line: str) -> None:
        self.lines.append((self.last + 1, line))
        self.last += 1

    def after(self, number: int) -> list[tuple[int, str]] | None:
        """What came after an event; None where some of it is gone, or the number is none of ours."""
        lines = list(self.lines)
        known = (lines[0][0] if lines else self.last + 1) - 1 <= number <= self.last
        return [line for line in lines if line[0] > number] if known else None


class Queue:
    """Takes boards, says how films stand, cancels them; between `start` and `stop` a thread renders them.

    `models` are those that boards may name, the first is taken where one names none. `crash` is what ended
    the thread. Raises RenderError for a folder in which nothing can be kept, or workers that cannot be.
    """

    def __init__(
        self,
        out: Path,
        workers: Workers,
        *,
        models: tuple[str, ...] = (),
        limits: Limits = Limits(),
        options: Options = USUAL,
        note: Note = lambda note: None,
    ) -> None:
        self.out, self.limits, self.options, self.note = out, limits, options, note
        self.executor = workers.executor(out / LOGS)
        self.loading = workers.loading(self.executor.device)
        self.models = models or tuple(CATALOG)
        self.boards = out / BOARDS
        with writing(self.boards, "cannot be made a folder for boards", "choose another folder"):
            make_folder(self.boards)
        self.logs = Logs(out / LOGS)
        self.batch = Batch([], max_retries=workers.max_retries, more=list)
        self.journals: defaultdict[str, Journal] = defaultdict(Journal)
        self.resting: dict[str, Entry] = {}  # boards that can no longer be read
        self.settled: set[str] = set()  # films that are over, with all events told
        self.leaving = Event()
        self.crash: Exception | None = None
        self._lock = RLock()
        self.run = f"{time.time_ns():x}"  # its events are no one else's
        self._recover()

    def start(self, ended: Callable[[], None] = lambda: None) -> None:
        """`ended` is called in its thread, after a crash too."""
        self._thread = Thread(target=self._work, args=[ended], name="queue")
        self._thread.start()

    def stop(self) -> None:
        """Workers keep what is finished."""
        self.leaving.set()
        self._thread.join()

    def _recover(self) -> None:
        """Takes up what was posted before; what was cancelled stays so."""
        for rest in self.boards.glob(".*"):
            shutil.rmtree(rest, ignore_errors=True)
        for folder in sorted(filter(Path.is_dir, self.boards.iterdir()), key=os.path.getmtime):
            try:
                film = self._film(folder, folder.name).planned()
            except RelaxError as error:
                self.note(str(error))
                self.resting[folder.name] = Entry(name=folder.name, state="failed", done=0, sections=0, why=str(error))
                continue
            self.batch.add([film])
            if (film.out / CANCELLED).exists():
                self.batch.cancel(film.name)
        self._settle()

    def _work(self, ended: Callable[[], None]) -> None:
        try:
            with closing(run(self.batch, self.executor)) as events:
                for told in events:
                    if told:
                        self.logs.hear(told)
                        self.journals[told.unit.film].add(json.dumps(told_json(told)))
                    if told is None or told.event.step is None:
                        self._settle()
                    if self.leaving.is_set():
                        return
        except Exception as error:
            self.crash = error
        finally:
            ended()

    def _settle(self) -> None:
        with self._lock:
            self.settled = {name for name, film in self.batch.progress.items() if film.over and not film.running}

    # --- boards -------------------------------------------------------------------------------------------------------

    def plan(self, board: Posted, name: str | None = None) -> RenderPlan:
        """What a render would do; images of the film `name` need not be posted again. Raises as `put` does."""
        with self._staged(board, name) as folder:
            film = self._film(folder, name or "film")
            film.session()
            return make_plan(film.story, film.loading.family)

    def put(self, board: Posted, name: str | None = None) -> str:
        """Takes a board in, under a free name of its title, or anew under that of a film that is over; gives the name.

        Images that the film has need not be posted again. Raises StoryboardError with every mistake, or Refusal.
        """
        with self._staged(board, name) as folder:
            self._film(folder, name or "film").session()
            with self._lock:
                if sum(film.state == "waiting" for film in self.batch.progress.values()) >= self.limits.waiting:
                    raise Refusal(429, f"{self.limits.waiting} films wait already; come back later, or cancel one")
                name = name or self._free(_title(folder))
                self._check_free(name)
                return self._begin(self._replace(folder, name))

    def planned(self, file: Path) -> Film:
        """The film of a board that lies elsewhere, and what is left of it to do. Raises StoryboardError."""
        return find_films([file], self.out, loading=self._given, options=self.options)[0]

    def drafted(self, file: Path) -> Film:
        """The same for its draft, which is called NAME.draft."""
        story, name = read_storyboard(file), f"{file.stem}{DRAFT}"
        loading = Loading(name=story.model, **self._given)
        draft = as_draft(story, loading.family, make_plan(story, loading.family).size)
        return Film(name=name, story=draft, out=self.out / name, loading=loading, options=self.options).planned()

    @property
    def _given(self) -> dict[str, Any]:
        """How models of boards from elsewhere are loaded."""
        return {**self.loading, "download": False}

    def render(self, film: Film) -> str:
        """Takes in a film whose board stays where it is, and goes on from what is there of it; gives its name.

        Raises Refusal where it waits or is at work already.
        """
        with self._lock:
            self._check_over(film.name)
            return self._begin(film)

    def _begin(self, film: Film) -> str:
        call_off(film.out, False)
        self.settled.discard(film.name)
        self.resting.pop(film.name, None)
        self.batch.add([film])
        return film.name

    @contextmanager
    def _staged(self, board: Posted, name: str | None) -> Iterator[Path]:
        """A folder with the board, the images that it has, and those of `name`; in messages it does not appear."""
        with TemporaryDirectory(prefix=".new-", dir=self.boards, ignore_cleanup_errors=True) as place:
            folder = Path(place, "board")
            if name and (self.boards / name).is_dir():
                shutil.copytree(self.boards / name, folder)
            folder.mkdir(exist_ok=True)
            self._check_images(board.images, folder)
            for image, data in board.images.items():
                (folder / image).write_bytes(data)
            order = {"seed": board.seed, "priority": board.priority}
            for file, data in {STORY: _as_yaml(board.text), ORDER: json.dumps(order).encode()}.items():
                (folder / file).write_bytes(data)
            try:
                yield folder
            except RelaxError as error:
                found = error.problems if isinstance(error, StoryboardError) else [Problem(message=str(error))]
                said = [problem.message.replace(f"{folder}{os.sep}", "") for problem in found]
                told = [replace(p, file=STORY, message=text) for p, text in zip(found, said, strict=True)]
                raise StoryboardError(told) from error

    def _check_images(self, images: Mapping[str, bytes], folder: Path) -> None:
        there = {file.name.casefold() for file in folder.iterdir()} - {STORY, ORDER}
        if len(there | {name.casefold() for name in images}) > self.limits.images:
            raise Refusal(413, f"the film has more than {self.limits.images} images; post fewer")
        if len({name.casefold() for name in images}) < len(images):
            raise Refusal(422, "two images have names that some disks do not tell apart; rename one")
        for name, data in images.items():
            if not IMAGE.fullmatch(name) or not name.isprintable() or len(name.encode()) > 200:
                raise Refusal(
                    422, f"{name[:60]!r}: is no name of an image; write one such as hero.png, without folders"
                )
            if len(data) > self.limits.image:
                raise Refusal(413, f"{name}: is larger than {self.limits.image} bytes; make it smaller")

    def _film(self, folder: Path, name: str) -> Film:
        """The film of a board that lies in a folder. Raises RelaxError."""
        story = read_storyboard(folder / STORY)
        if found := [story.located(problem) for problem in (*outside(story), *_drafts(story))]:
            raise StoryboardError(found)
        try:
            order = json.loads(read_file(folder / ORDER))
        except (OSError, ValueError):
            order = {"seed": None, "priority": 0.0}
        if "model" not in story.model_fields_set:
            story = story.changed(model=self.models[0])
        if story.model not in self.models:
            fact = f"is {story.model[:60]!r}, which this service does not have; it has {', '.join(self.models)}"
            raise StoryboardError([story.located(Problem(path="model", message=fact))])
        if order["seed"] is not None:
            story = story.changed(seed=order["seed"])
        loading = Loading(name=story.model, **self._given)
        out = self.out / name
        return Film(name=name, story=story, out=out, loading=loading, options=self.options, priority=order["priority"])

    def _free(self, title: str) -> str:
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:50].strip("-") or "film"
        names = chain([stem], (f"{stem}-{number}" for number in count(2)))
        return next(name for name in names if name != LOGS and not self._taken(name))

    def _taken(self, name: str) -> bool:
        return any(os.path.lexists(place / name) for place in (self.out, self.boards))

    def _check_free(self, name: str) -> None:
        """For a board that is put under a name. Raises Refusal."""
        self._check_over(name)
        if name == LOGS or (self._taken(name) and not (self.boards / name).is_dir()):
            raise Refusal(409, f"{name}: is the name of something that was not posted here; take another name")

    def _check_over(self, name: str) -> None:
        there = self.batch.progress.get(name)
        if there and (not there.over or there.running):
            raise Refusal(409, f"{name}: is {there.state}; wait until it is over, or cancel it")

    def _replace(self, folder: Path, name: str) -> Film:
        """Moves a staged board to its place; one that is refused after all is not there, and the older one is."""
        for file in (*folder.iterdir(), folder):
            sync(file)
        place, older = self.boards / name, folder.with_name("older")
        if place.exists():
            os.rename(place, older)
        os.rename(folder, place)
        try:
            film = self._film(place, name).planned()
        except BaseException:
            os.rename(place, folder)
            if older.exists():
                os.rename(older, place)
            raise
        sync(self.boards)
        return film

    # --- films --------------------------------------------------------------------------------------------------------

    def films(self) -> list[Entry]:
        """All that lie in the folder, and those that wait."""
        there = {entry.name: entry for entry in read_ledger(self.out)}
        ours = {name: _entry(film) for name, film in list(self.batch.progress.items())}
        return list((there | self.resting | ours).values())

    def film(self, name: str) -> Entry:
        """Raises Refusal where there is none."""
        ours = self.batch.progress.get(name)
        found = _entry(ours) if ours else self.resting.get(name) or read_entry(self.out, name)
        if found is None:
            raise Refusal(404, f"{name[:64]}: there is no such film")
        return found

    def scenes(self, name: str) -> list[tuple[str, int, int]]:
        """Of a film each scene, its sections that are there, and in all; empty where nothing is known of it."""
        try:
            return list(read_status(self.out / name).scenes)
        except RelaxError:
            film = self.batch.progress.get(name)
            plan = make_plan(film.film.story, film.film.loading.family) if film else None
            return [(scene.scene, 0, len(scene.sections)) for scene in plan.scenes] if plan else []

    def cancel(self, name: str) -> None:
        """Calls a film off; what is finished of it stays. Raises Refusal."""
        if self.film(name).state == "done":
            raise Refusal(409, f"{name}: is done")
        folder = self.out / name
        if name in self.batch.progress:
            folder = self.batch.progress[name].film.out
            self.batch.cancel(name)
        make_folder(folder)
        call_off(folder)


def _entry(film: Progress) -> Entry:
    counts = {"done": film.done, "sections": film.film.sections}
    return Entry(name=film.film.name, state=film.state, who=", ".join(film.running.values()), why=film.why, **counts)


def _title(folder: Path) -> str:
    return read_storyboard(folder / STORY).title


def _as_yaml(text: bytes) -> bytes:
    """JSON is YAML, but for signs that are written as two."""
    if not text.lstrip().startswith(b"{"):
        return text
    return PAIR.sub(lambda pair: json.loads(b'"' + pair[0] + b'"').encode("utf8"), text)


def _drafts(story: Storyboard) -> Iterator[Problem]:
    """Folders of drafts, which a board of somebody else's must not name."""
    starts = {"start_from": story.start_from}
    starts |= {f"scenes[{index}].start_from": scene.start_from for index, scene in enumerate(story.scenes)}
    for path, start in starts.items():
        if start and start.folder:
            yield Problem(path=f"{path}.folder", message="names a folder, and a board that is posted may name none")
