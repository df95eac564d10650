"""What the studio's page asks besides a service's films: the boards in a folder, read, edited, planned and watched."""

import asyncio
import json
import mimetypes
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from ..errors import Problem, RelaxError, StoryboardError
from ..families.catalog import find_family
from ..planning.draft import DRAFT
from ..planning.renderplan import RenderPlan, SectionPlan
from ..rendering.retake import pick_take
from ..rendering.takes import STRIP, names_of
from ..storyboard.fields import ID, TAKE
from ..storyboard.patch import Value, insert_scene, move_scene, remove_scene, set_fields, tree_of
from .boards import Boards
from .costs import costs
from .queue import NAME, Refusal
from .service import BEAT, SILENCE, UNKEPT, Events, Here, Mistake, Shown, shown, told_as
from .takes import SUFFIX, takes_of

PAGE = Path(__file__).parents[1] / "studio" / "static"
SAFE = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Change(BaseModel, extra="forbid", frozen=True):
    """Of a field, by its `path`, to `value`, null to remove it; or of a scene, by its place: one that is put in, taken
    out, or moved."""

    path: str = ""
    value: Value = None
    insert: int | None = Field(None, ge=0)
    scene: dict[str, Value] = {}
    remove: int | None = Field(None, ge=0)
    move: int | None = Field(None, ge=0)
    to: int = Field(0, ge=0)

    def of(self, text: str) -> str:
        if self.insert is not None:
            return insert_scene(text, self.insert, self.scene)
        if self.remove is not None:
            return remove_scene(text, self.remove)
        if self.move is not None:
            return move_scene(text, self.move, self.to)
        return set_fields(text, {self.path: self.value})


class Changes(BaseModel, extra="forbid"):
    """Of a board that is of this `version` still; `dry` ones are planned and not written."""

    version: str
    changes: list[Change] = Field(min_length=1, max_length=1000)
    dry: bool = False


class Text(BaseModel, extra="forbid"):
    version: str
    text: str


class Planned(BaseModel):
    """A scene on the grid; sigmas and scales are those of its last section, a number a step."""

    scene: str
    shot: int
    sections: int
    frames: tuple[int, int]
    asked_seconds: float
    real_seconds: float
    intensity: float
    at_rest: bool
    relaxed: str
    sigmas: list[float]
    scales: dict[str, list[float]]


class Plan(BaseModel):
    """`step_seconds` is what scene ends snap to."""

    model: str
    size: tuple[int, int]
    fps: float
    frames: int
    seconds: float
    step_seconds: float
    sections: int
    passes: tuple[int, int]
    warnings: list[str]
    scenes: list[Planned]


class Board(BaseModel):
    """A storyboard as it lies on the disk: `fields` are its own, numbers as they are written; where it has mistakes
    there is no plan. `takes` are those of its scenes, by scene. `busy` is the name of what is rendered of it here, or
    waits for that: the film, its draft, or takes."""

    name: str
    version: str
    text: str
    fields: Any
    problems: list[Mistake]
    plan: Plan | None
    film: Shown | None
    draft: Shown | None
    takes: dict[str, list[str]]
    busy: str


class Pick(BaseModel, extra="forbid"):
    """A take by its name, null for what is rendered of the scene now."""

    version: str
    take: str | None = None
    lock: bool = False


class Left(BaseModel):
    """Of a film what is there, `whole` or not, and what is left: sections, passes, an H200's seconds by estimate (null
    where the model cannot be asked)."""

    whole: bool
    kept: int
    sections: int
    passes: tuple[int, int]
    seconds: tuple[float, float] | None


def _boards(request: Request) -> Boards:
    boards: Boards = request.app.state.boards
    return boards


Plans = tuple[RenderPlan | None, tuple[Problem, ...]]
There = Annotated[Boards, Depends(_boards)]
Name = Annotated[str, InPath(pattern=NAME, description="of a storyboard")]
Scene = Annotated[str, InPath(pattern=f"^{ID.pattern}$")]
Take = Annotated[str, InPath(pattern=f"^{TAKE.pattern}$")]
Count = Annotated[int, Query(ge=1, le=99, description="of them, besides the film's own")]
router = APIRouter()


@router.get("/boards", responses=told_as())
def list_boards(boards: There) -> dict[str, str]:
    """The version of each storyboard in the folder, by its name."""
    return boards.versions()


@router.post("/boards", status_code=201, responses=told_as(400))
def new_board(queue: Here, boards: There) -> Board:
    """A first storyboard, with its image, which the packaged model renders."""
    return _board(queue, boards, boards.begin())


@router.get("/boards/{name}", responses=told_as(404))
def get_board(queue: Here, boards: There, name: Name) -> Board:
    """A storyboard with its plan, or every mistake."""
    return _board(queue, boards, name)


@router.patch("/boards/{name}", responses=told_as(400, 404, 409, 413))
def change_board(queue: Here, boards: There, name: Name, asked: Changes) -> Board:
    """Changes fields and scenes in the file; comments and order stay. What would make a new mistake is not written."""

    planned = {}

    def change(text: str) -> str:
        changed = text
        for one in asked.changes:
            changed = one.of(changed)
        planned[changed] = boards.plan(name, changed)
        problems = planned[changed][1]
        if Counter(map(_kind, problems)) - Counter(map(_kind, boards.plan(name, text)[1] if problems else ())):
            raise StoryboardError(problems)
        return changed

    if asked.dry:
        text, version = boards.read(name)
        read = change(text), version
    else:
        read = boards.write(name, asked.version, change)
    return _board(queue, boards, name, read, planned.get(read[0]))


@router.put("/boards/{name}", responses=told_as(400, 404, 409, 413))
def put_board(queue: Here, boards: There, name: Name, asked: Text) -> Board:
    """Gives a storyboard another text, with mistakes in it or without."""
    return _board(queue, boards, name, boards.write(name, asked.version, lambda text: asked.text))


@router.put("/images/{name}", status_code=201, responses=told_as(400, 413))
def put_image(queue: Here, boards: There, name: str, data: Annotated[bytes, Body(media_type="image/*")]) -> str:
    """Stores an image beside the storyboards, and gives the name that it has there."""
    if len(data) > queue.limits.image:
        raise Refusal(413, f"{name[:60]}: is larger than {queue.limits.image} bytes; make it smaller")
    return boards.add_image(name, data)


@router.get("/images/{path:path}", response_class=FileResponse, responses=told_as(404))
def get_image(boards: There, path: str) -> FileResponse:
    """An image that a storyboard may name."""
    file = boards.image(path)
    return FileResponse(file, media_type=mimetypes.guess_type(file.name)[0], headers={**SAFE, **UNKEPT})


@router.get("/boards/{name}/left", responses=told_as(404, 409))
def get_left(queue: Here, boards: There, name: Name) -> Left:
    """What a render would keep, and what the rest takes."""
    film = queue.planned(boards.file(name))
    shots = list(costs([film]))
    seconds = [cost.seconds for cost in shots]
    return Left(
        whole=film.whole,
        kept=film.sections - sum(film.left),
        sections=film.sections,
        passes=(sum(cost.passes[0] for cost in shots), sum(cost.passes[1] for cost in shots)),
        seconds=None if None in seconds else (sum(s[0] for s in seconds if s), sum(s[1] for s in seconds if s)),
    )


@router.post("/boards/{name}/film", status_code=201, responses=told_as(404, 409))
def render_board(queue: Here, boards: There, name: Name) -> Shown:
    """Renders a storyboard, or goes on with it; the film is called as the storyboard."""
    return shown(queue, queue.render(queue.planned(boards.file(name))))


@router.post("/boards/{name}/draft", status_code=201, responses=told_as(404, 409))
def draft_board(queue: Here, boards: There, name: Name) -> Shown:
    """Renders a storyboard small and in few steps; the film is called NAME.draft. One that is accepted stands in the
    storyboard as `start_from: {folder: out/NAME.draft}`."""
    return shown(queue, queue.render(queue.drafted(boards.file(name))))


@router.post("/boards/{name}/takes/{scene}", status_code=201, responses=told_as(404, 409))
def render_takes(queue: Here, boards: There, name: Name, scene: str, count: Count = 3) -> Shown:
    """Renders takes of a scene, other noise on the same past; what is rendered is called NAME.takes."""
    return shown(queue, queue.render(takes_of(queue.planned(boards.file(name)), scene, count)))


@router.get("/boards/{name}/takes/{scene}/{take}.png", response_class=FileResponse, responses=told_as(404))
def get_take(queue: Here, name: Name, scene: Scene, take: Take) -> FileResponse:
    """A take as a strip of pictures."""
    file = queue.out / name / STRIP.format(scene, take)
    if not file.is_file():
        raise Refusal(404, f"{name}: there is no picture of take {take} of scene {scene}")
    return FileResponse(file, media_type="image/png", headers={**SAFE, **UNKEPT})


@router.put("/boards/{name}/takes/{scene}", responses=told_as(400, 404, 409))
def pick_scene(queue: Here, boards: There, name: Name, scene: str, asked: Pick) -> Board:
    """Writes into the file which take a scene is, and with `lock` that it stays so."""
    with boards.held(name, asked.version) as (file, _):
        film = queue.planned(file)
        given: dict[str, Any] = {"out": film.out, "model": film.loading, "options": film.options}
        pick_take(film.story, scene, asked.take, lock=asked.lock, **given)
        read = boards.read(name)
    return _board(queue, boards, name, read)


@router.get("/changes", response_class=Events, responses=told_as())
async def hear_boards(queue: Here, boards: There) -> Events:
    """Server-sent events: what `GET /boards` gives, at once and whenever a storyboard has changed; and as `left-out`
    why files are not shown, by their names."""

    async def events() -> AsyncIterator[str]:
        told, left, at = None, dict[str, str](), time.monotonic()
        while not queue.leaving.is_set():
            now, out = await run_in_threadpool(lambda: (boards.versions(), boards.left_out()))
            if out != left:
                left = out
                yield f"event: left-out\ndata: {json.dumps(out)}\n\n"
            if now != told:
                told, at = now, time.monotonic()
                yield f"data: {json.dumps(now)}\n\n"
            elif time.monotonic() - at > SILENCE:
                at = time.monotonic()
                yield ": nothing new\n\n"
            await asyncio.sleep(2 * BEAT)

    return Events(events(), headers=UNKEPT)


def _kind(problem: Problem) -> str:
    """A mistake wherever its scene stands."""
    return re.sub(r"\[\d+\]", "[]", problem.path) + problem.message


def _board(
    queue: Here, boards: Boards, name: str, read: tuple[str, str] | None = None, planned: Plans | None = None
) -> Board:
    """A board as it was read, with the plan of that; what is not given is found here."""
    try:
        text, version = read or boards.read(name)
    except StoryboardError as error:  # no text: it is told, and can be written anew
        text, version, problems, made = "", boards.versions().get(name, ""), error.problems, None
    else:
        made, problems = planned or boards.plan(name, text)
    try:
        fields = tree_of(text)
    except StoryboardError:
        fields = None
    going = ((other, queue.batch.progress.get(other)) for other in (name, name + DRAFT, name + SUFFIX))
    ids = [scene.scene for scene in made.scenes] if made else []
    return Board(
        name=name,
        version=version,
        text=text,
        fields=fields,
        problems=[Mistake(message=p.message, path=p.path, line=p.line, column=p.column) for p in problems],
        plan=made and _plan(made),
        film=_film(queue, name),
        draft=_film(queue, name + DRAFT),
        takes={scene: names for scene in ids if (names := _takes(queue.out / name, scene))},
        busy=next((other for other, progress in going if progress and not progress.over), ""),
    )


def _film(queue: Here, name: str) -> Shown | None:
    try:
        return shown(queue, name)
    except (Refusal, RelaxError):
        return None


def _takes(folder: Path, scene: str) -> list[str]:
    """Those that one can look at."""
    return [take for take in names_of(folder, scene) if (folder / STRIP.format(scene, take)).is_file()]


def _plan(plan: RenderPlan) -> Plan:
    scenes = [
        _planned(plan.sections[timing.sections[-1]], **{**vars(timing), "sections": len(timing.sections)})
        for timing in plan.scenes
    ]
    step = float(find_family(plan.model).grid.unit_frames / plan.rate)
    asked = ((name, getattr(plan, name, None)) for name in Plan.model_fields)
    facts: dict[str, Any] = {name: value for name, value in asked if value is not None}
    facts |= {"scenes": scenes, "sections": len(plan.sections), "step_seconds": step, "warnings": list(plan.warnings)}
    return Plan(**facts)


def _planned(section: SectionPlan, **timing: Any) -> Planned:
    scales = {name: _short(values) for name, values in section.scales.items()}
    facts = {"intensity": section.intensity, "at_rest": section.relaxation.at_rest, "relaxed": section.in_words()}
    return Planned(sigmas=_short(section.sigmas), scales=scales, **facts, **timing)


def _short(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


class _Page(StaticFiles):
    def file_response(self, *args: Any, **more: Any) -> Response:
        made = super().file_response(*args, **more)
        made.headers.update(SAFE)
        return made


def add_studio(app: FastAPI, boards: Boards) -> None:
    """Gives a service the routes of the studio, and its page."""
    app.state.boards = boards
    app.include_router(router)
    app.mount("/", _Page(directory=PAGE, html=True))
