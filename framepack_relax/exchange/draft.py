"""A board on its way from another program's file: scenes as they are found, and what of the file is left behind."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import Problem, StoryboardError
from ..families.catalog import CATALOG
from ..storyboard.images import ImageError, decode_image
from ..storyboard.messages import printable
from ..storyboard.reader import LONGEST_LIST
from ..storyboard.schema import Storyboard, build_storyboard
from ..video.contact import png
from .source import Foreign, Source

NOTHING: tuple[Any, ...] = ("", 0, False, -1, [], {})  # values of a setting that is not used
SHARED = ("negative_prompt", "seed", "steps", "guidance")  # which the board says for its scenes
MOST_PLACES = 3  # told of one kind
MOST_SCENES = LONGEST_LIST
UNTOLD = "what the image shows moves"  # the prompt of files that have images alone
GRID = 16  # px that a film's sides are multiples of


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A checked board, its images as PNG by their path on it, and what was not carried over, a line each."""

    story: Storyboard
    pictures: Mapping[str, bytes]
    told: tuple[str, ...]


@dataclass(kw_only=True)
class Draft:
    """`stem` names the folder of its images, `unsaid` are the seconds of a scene of which the file says none."""

    source: Source
    stem: str
    unsaid: float
    board: dict[str, Any] = field(default_factory=dict)
    scenes: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)  # of the scenes in the file
    pictures: dict[str, bytes] = field(default_factory=dict)
    ends: dict[int, str | bytes] = field(default_factory=dict)  # images that scenes end on, by their number
    told: dict[str, list[str]] = field(default_factory=dict)  # where each fact holds
    pictured: bool = False  # some scene has an image

    def leave(self, place: str, fact: str) -> None:
        """Tells what is not carried over, or how it was taken."""
        self.told.setdefault(fact, []).append(place)

    def rest(self, place: str, part: Foreign, quiet: Collection[str] = ()) -> None:
        """Tells of settings that nothing here has a use for, but for a program's `quiet` bookkeeping."""
        for name, value in (part.model_extra or {}).items():
            if name not in quiet and value not in NOTHING:
                self.leave(place, f"`{printable(name)}` is not carried over")

    def scene(
        self,
        place: str,
        prompt: str,
        seconds: float | None = None,
        *,
        name: str = "",
        image: str | bytes | None = None,
        cut: bool = False,
        **fields: Any,
    ) -> None:
        """Adds a scene; an `image`, its bytes or its name in the file or beside it, begins a shot."""
        if len(self.scenes) == MOST_SCENES:
            self.source.refuse(f"holds more than {MOST_SCENES} scenes; import it in parts")
        if not seconds:
            self.leave(place, f"no length is said; {self.unsaid:g} s are taken")
        made: dict[str, Any] = {"id": self._id(name), "prompt": prompt.strip(), "seconds": seconds or self.unsaid}
        made |= {key: value for key, value in fields.items() if value not in (None, "", {})}
        self.scenes.append(made)
        self.places.append(place)
        if image and (path := self._picture(place, made["id"], image)):
            made["image"], cut = path, True
        if cut and len(self.scenes) > 1:
            made["transition"] = "cut"

    def end(self, image: str | bytes | None) -> None:
        """The scene that was added last ends on an image."""
        if image and self.scenes:
            self.ends[len(self.scenes) - 1] = image

    def _id(self, name: str) -> str:
        """A name of its own for a scene."""
        stem = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-._")[:50]
        taken, number = {scene["id"] for scene in self.scenes}, len(self.scenes) + 1
        wanted = stem or f"scene-{number}"
        return wanted if wanted not in taken else f"{wanted}-{number}"

    def _picture(self, place: str, name: str, image: str | bytes) -> str | None:
        """The path on the board of an image; None, and told, where it is none."""
        self.pictured = True
        data = self.source.picture(image) if isinstance(image, str) else image
        shown = printable(image) if isinstance(image, str) else "the image"
        if data is None:
            where = "in the archive" if self.source.archive else "beside the file, or in folders below"
            self.leave(place, f"{shown} is not {where}: copy it to the board and name it there as `image:`")
            return None
        try:
            made = png(decode_image(data))
        except ImageError as error:
            self.leave(place, f"{shown}: {error}")
            return None
        same = next((path for path, other in self.pictures.items() if other == made), None)
        path = same or f"{self.stem}-images/{name}.png"
        self.pictures[path] = made
        return path

    def agree(self, place: str, name: str, value: Any) -> None:
        """A field of the board, of the first scene that says it."""
        if self.board.setdefault(name, value) != value:
            self.leave(place, f"its {name} is another than the first one's, which is the film's")

    def size(self, place: str, width: int, height: int) -> None:
        """The film's, of the first scene that says one; sides are rounded to what models take."""
        size = tuple(max(GRID, round(side / GRID) * GRID) for side in (width, height))
        if size != (width, height):
            self.leave(place, f"its size of {width}x{height} px is made {size[0]}x{size[1]}")
        self.agree(place, "size", size)

    def finish(self) -> Imported:
        """The board. Raises StoryboardError with every mistake, each with its place in the file."""
        if not any(scene["prompt"] for scene in self.scenes):
            if not self.pictured:
                self.source.refuse("holds no prompt; a storyboard is made of prompts")
            self.scenes[0]["prompt"] = UNTOLD
            self.leave(self.places[0], f"nothing has a prompt; `{UNTOLD}` stands there: write what happens")
        said = [scene["prompt"] for scene in self.scenes]
        for number, (scene, place) in enumerate(zip(self.scenes, self.places, strict=True)):
            if not scene["prompt"]:
                self.leave(place, "has no prompt; that of a scene beside it is taken")
                scene["prompt"] = next(filter(None, (*reversed(said[:number]), *said[number:])))
        for name in SHARED:
            values = [scene.get(name) for scene in self.scenes]
            if values[0] is not None and all(value == values[0] for value in values):
                self.board[name] = values[0]
                self.scenes = [{k: v for k, v in scene.items() if k != name} for scene in self.scenes]
        if self.scenes[0].get("image"):
            self.board["image"] = self.scenes[0].pop("image")
        for number, image in self.ends.items():
            self._end(number, image)
        if "model" not in self.board:
            self.leave("", "names no model that is known here: say `--model NAME`, or write `model:` into the board")
        try:
            story = build_storyboard({**self.board, "scenes": tuple(self.scenes)})
        except StoryboardError as error:
            raise StoryboardError([self._located(problem) for problem in error.problems]) from None
        return Imported(story=story, pictures=self.pictures, told=tuple(map(self._in_words, self.told.items())))

    def _end(self, number: int, image: str | bytes) -> None:
        """Puts the image that a scene ends on to it, where the board can say it and its model comes to it."""
        entry, scene, place = CATALOG.get(self.board.get("model", "")), self.scenes[number], self.places[number]
        if any(after.get("transition") != "cut" for after in self.scenes[number + 1 : number + 2]):
            self.leave(place, "its end image is not carried over: the shot goes on after it")
        elif not (entry and entry.family and "end" in entry.family.anchors):
            self.leave(place, "its end image is not carried over: the board's model comes to none")
        elif path := self._picture(place, f"{scene['id']}-end", image):
            scene["end_image"] = path

    def _located(self, problem: Problem) -> Problem:
        """With the place in the file instead of the scene's on the board that is not there."""
        found = re.match(r"scenes\[(\d+)\]\.?", problem.path)
        place = self.places[int(found[1])] if found else ""
        path = ".".join(filter(None, (place, problem.path[found.end() :] if found else problem.path)))
        return replace(problem, file=self.source.file, path=path)

    def _in_words(self, told: tuple[str, list[str]]) -> str:
        fact, places = told
        named = [place for place in dict.fromkeys(places) if place]
        more = f" and {len(named) - MOST_PLACES} more" if len(named) > MOST_PLACES else ""
        where = ", ".join(named[:MOST_PLACES]) + more
        return ": ".join(filter(None, (self.source.file, where, fact)))
