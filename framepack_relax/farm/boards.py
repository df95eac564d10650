"""A folder of storyboards that people edit, here and in other programs at once: nobody's change is lost."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from threading import Lock

from ..errors import ModelError, Problem, RelaxError, StoryboardError
from ..families.catalog import find_family
from ..files import digest_of, read_file, write_file
from ..planning.planner import make_plan
from ..planning.renderplan import RenderPlan
from ..rendering.mark import free_name
from ..storyboard.edit import rewrite
from ..storyboard.images import FORMATS, ImageError, decode_image
from ..storyboard.reader import LARGEST_BYTES, parse_storyboard, read_text
from .films import SUFFIXES, no_board
from .queue import IMAGE, NAME, Refusal

STARTER = Path(__file__).parents[1] / "studio" / "starter"


class Boards:
    """The storyboards in a folder, by the stems of their files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._lock = Lock()
        self._known: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def versions(self) -> dict[str, str]:
        """A hash of the contents of each board, by its name."""
        return {name: version for name, (_, version) in self._found()[0].items()}

    def left_out(self) -> dict[str, str]:
        """Of storyboards that are not shown why, with the cure, by the names of their files."""
        return self._found()[1]

    def _found(self) -> tuple[dict[str, tuple[Path, str]], dict[str, str]]:
        """The file of each board with a hash of its contents, by name; and what is left out."""
        found, left = dict[str, tuple[Path, str]](), dict[str, str]()
        for file in sorted(self.folder.iterdir()):
            if file.suffix in SUFFIXES and not file.name.startswith("."):
                try:
                    stat = file.stat()
                    looks, known = (stat.st_mtime_ns, stat.st_size, stat.st_ino), self._known.get(file)
                    if known is None or known[0] != looks:
                        known = looks, "" if no_board(file) else digest_of(read_file(file))
                        self._known[file] = known
                except OSError:
                    continue
                if known[1] and not re.fullmatch(NAME, file.stem):
                    name = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:64].strip("-") or "film"
                    left[file.name] = f"names are of a-z, 0-9 and -, up to 64; rename it, to {name}{file.suffix} say"
                elif known[1] and found.setdefault(file.stem, (file, known[1]))[0] != file:
                    left[file.name] = f"{found[file.stem][0].name} has the same name; rename one"
        return found, left

    def file(self, name: str) -> Path:
        """Raises Refusal where there is none."""
        for suffix in SUFFIXES:
            if (file := self.folder / f"{name}{suffix}").is_file():
                return file
        raise Refusal(404, f"{name}: there is no such storyboard in {self.folder}")

    def read(self, name: str) -> tuple[str, str]:
        """A board's text and its version. Raises StoryboardError where it is no text."""
        file = self.file(name)
        return read_text(file), digest_of(read_file(file))

    @contextmanager
    def held(self, name: str, version: str) -> Iterator[tuple[Path, str]]:
        """A board that is of this version, its file and text, while nobody else writes it here. Raises Refusal."""
        with self._lock:
            text, now = self.read(name)
            if now != version:
                fact = "has changed meanwhile, nothing was written"
                raise Refusal(409, f"{name}: {fact}; look at it and do it again")
            yield self.file(name), text

    def write(self, name: str, version: str, change: Callable[[str], str]) -> tuple[str, str]:
        """Writes what `change` makes of the text of a board that is of this version; gives text and version as they
        are then. Raises Refusal."""
        with self.held(name, version) as (file, text):
            changed = change(text)
            try:
                size = len(changed.encode("utf8"))
            except UnicodeEncodeError as error:
                fact = f"sign {error.start + 1} is half of one (a lone surrogate), which no file holds; take it out"
                raise Refusal(422, f"{name}: {fact}") from error
            if size > LARGEST_BYTES:
                raise Refusal(413, f"{name}: a storyboard has at most {LARGEST_BYTES >> 10} KiB; make it smaller")
            if changed != text:
                rewrite(file, changed)
            return self.read(name)

    def begin(self) -> str:
        """A first board, which the packaged model renders; gives its name."""
        image, board = STARTER / "beach.png", STARTER / "film.yaml"
        name = self.add_image(image.name, read_file(image))
        with self._lock:
            place = self.folder / board.name
            place = free_name(place) if place.exists() else place
            write_file(place, read_file(board).replace(image.name.encode(), name.encode()))
        return place.stem

    def add_image(self, name: str, data: bytes) -> str:
        """Stores an image beside the boards, under a name that is free; gives that. Raises Refusal."""
        if not IMAGE.fullmatch(name) or not name.isprintable() or len(name.encode()) > 200:
            kinds = f"take a {', '.join(FORMATS)} file"
            raise Refusal(422, f"{name[:60]!r}: is no name of an image; {kinds}, with a name such as hero.png")
        try:
            decode_image(data)
        except ImageError as error:
            raise Refusal(422, f"{name}: {error}") from error
        with self._lock:
            stem, dot, suffix = name.rpartition(".")
            names = chain([name], (f"{stem}-{number}{dot}{suffix}" for number in count(2)))
            place = next(place for other in names if not _is_another(place := self.folder / other, data))
            if not place.exists():
                write_file(place, data)
        return place.name

    def image(self, path: str) -> Path:
        """An image under the folder. Raises Refusal."""
        file = (self.folder / path).resolve() if path.isprintable() else self.folder
        if not file.is_relative_to(self.folder) or not IMAGE.fullmatch(file.name) or not file.is_file():
            raise Refusal(404, f"{path[:60]}: there is no such image")
        return file

    def plan(self, name: str, text: str) -> tuple[RenderPlan | None, tuple[Problem, ...]]:
        """What a render of this text would do, or every mistake in it."""
        file = self.file(name)
        try:
            story = parse_storyboard(text, file=file.name, folder=self.folder)
            try:
                return make_plan(story, find_family(story.model)), ()
            except ModelError as error:
                return None, (story.located(Problem(path="model", message=str(error))),)
        except StoryboardError as error:
            return None, error.problems
        except RelaxError as error:
            return None, (Problem(message=str(error)),)


def _is_another(place: Path, data: bytes) -> bool:
    """Whether something else than this lies there."""
    return os.path.lexists(place) and not (place.is_file() and read_file(place) == data)
