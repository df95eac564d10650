"""The service: films over HTTP, for a page, a script or another machine. `openapi.json` describes it in full."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any, Literal

import python_multipart  # noqa: F401  FastAPI asks for it only when it reads a form
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, File, Form, Header, HTTPException, Request, UploadFile
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from .._version import __version__
from ..errors import RelaxError, RenderError, StoryboardError
from ..files import open_file
from ..rendering.latent_preview import PREVIEW
from ..rendering.mark import FILM, PARTS, PLAN, REPORT, STORY
from ..storyboard.messages import path_of
from .guard import Guard, is_loopback
from .ledger import Entry
from .queue import NAME, RENDERED, Posted, Queue, Refusal
from .sent import sent

END = "end"  # of the id of a film's last event
UNKEPT = {"Cache-Control": "no-store"}
SILENCE = 15.0  # seconds without events after which a line says so, or proxies hang up
BEAT = 0.2  # seconds between two looks for new events
GRACE = 5.0  # seconds for which a service tells of its crash before it ends
PICTURE, JSON = "image/png", "application/json"
FILES = {"contact.png": PICTURE, PREVIEW: PICTURE, REPORT: JSON, PLAN: JSON, STORY: "application/yaml"}
VARIABLE = "FRAMEPACK_RELAX_TOKEN"


class Mistake(BaseModel, frozen=True):
    """Of a storyboard, by its field; or of a request. Line and column count from 1."""

    message: str
    path: str = ""
    line: int | None = None
    column: int | None = None


class Mistakes(BaseModel):
    detail: list[Mistake]


class Refused(BaseModel):
    detail: str


class Listed(BaseModel):
    """A film: sections that are there and in all, who is at work, why it failed. `url` is null for one that lies in a
    folder that no URL names; a batch has rendered it."""

    name: str
    url: str | None
    state: Literal["done", "at work", "waiting", "failed", "cancelled", "damaged"]
    done: int
    sections: int
    who: str
    why: str


class Scene(BaseModel):
    scene: str
    done: int
    sections: int


class Shown(Listed):
    """A film with its scenes; `files` are URLs of what is there of it, by name."""

    scenes: list[Scene]
    files: dict[str, str]


class Health(BaseModel):
    state: Literal["ok", "crashed"]
    version: str


class Events(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


def _queue(request: Request) -> Queue:
    queue: Queue = request.app.state.queue
    return queue


Here = Annotated[Queue, Depends(_queue)]
Name = Annotated[str, InPath(pattern=NAME, description="of a film")]
Rendered = Annotated[str, InPath(pattern=RENDERED, description="of a film, or of a draft or takes of it")]
Made = Literal["contact.png", "preview.png", "report.json", "plan.json", "story.yaml"]
Story = Annotated[UploadFile, File(description="storyboard, YAML or JSON, UTF-8")]
Images = Annotated[list[UploadFile], File(description="its images, under the names that the storyboard has for them")]
Seed = Annotated[int | None, Form(ge=0, lt=1 << 63, description="instead of the storyboard's")]
Priority = Annotated[float, Form(ge=-1e9, le=1e9, description="the highest is rendered first")]


def _posted(
    storyboard: Story,
    images: Images = [],  # noqa: B006
    seed: Seed = None,
    priority: Priority = 0.0,
) -> Posted:
    named = [(image.filename or "", image.file.read()) for image in images]
    if len(dict(named)) < len(named):
        raise Refusal(422, "two images have the same name; rename one")
    return Posted(text=storyboard.file.read(), images=dict(named), seed=seed, priority=priority)


Board = Annotated[Posted, Depends(_posted)]


async def _after(queue: Here, name: Rendered, last_event_id: Annotated[str, Header()] = "") -> int | None:
    """The event after which somebody listens; None where we do not know it."""
    await run_in_threadpool(queue.film, name)
    run, _, number = last_event_id.rpartition("-")
    if run != queue.run:
        return None
    if number == END and (name in queue.settled or name not in queue.batch.progress):
        raise HTTPException(204)
    return int(number) if number.isdecimal() and len(number) < 20 else None


After = Annotated[int | None, Depends(_after)]


def told_as(*statuses: int) -> dict[int | str, dict[str, Any]]:
    kinds = {400: "cannot be read", 404: "no such film, or not that of it", 409: "what is there already is in the way"}
    kinds |= {413: "too large", 416: "no such range", 429: "too many films wait"}
    said: dict[int | str, dict[str, Any]] = {
        status: {"model": Refused, "description": kinds[status]} for status in statuses
    }
    return {**said, 422: {"model": Mistakes, "description": "mistakes, all of them"}}


def _json(told: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """Of a response that is no JSON: that its refusals are."""
    for said in told.values():
        schema = {"$ref": f"#/components/schemas/{said.pop('model').__name__}"}
        said["content"] = {"application/json": {"schema": schema}}
    return told


def kinds_of(kinds: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    binary = {"type": "string", "format": "binary"}
    content = {kind: {"schema": {} if kind.startswith("application") else binary} for kind in kinds.split()}
    said: dict[int | str, dict[str, Any]] = {status: {"content": content} for status in {200, *statuses} & {200, 206}}
    return told_as(*{409, *statuses} - {206}) | said


PARTS_OF_EVENT = {name: {"type": "string"} for name in ("id", "event", "data")}
EVENT = {"content": {Events.media_type: {"schema": {"type": "object", "properties": PARTS_OF_EVENT}}}}
router = APIRouter()


@router.get("/health", responses={503: {"model": Health, "description": "nothing is rendered any more"}})
def health(queue: Here, response: Response) -> Health:
    """Whether films are rendered; needs no token."""
    response.status_code = 503 if queue.crash else 200
    return Health(state="crashed" if queue.crash else "ok", version=__version__)


@router.post("/plan", responses=told_as(400, 413))
def plan(queue: Here, board: Board, film: Annotated[str | None, Form(pattern=NAME)] = None) -> dict[str, Any]:
    """What a render would do, as plan.json; nothing is kept. Images that `film` has need not be sent again."""
    return queue.plan(board, film).to_json()


@router.post("/films", status_code=201, responses=told_as(400, 409, 413, 429))
def post_film(queue: Here, board: Board, response: Response) -> Shown:
    """Renders a storyboard, under a name made of its title."""
    return shown(queue, queue.put(board), response)


@router.put("/films/{name}", status_code=201, responses=told_as(400, 409, 413, 429))
def put_film(queue: Here, name: Name, board: Board, response: Response) -> Shown:
    """Renders a storyboard under a name; a film of that name must be over. Sections that are still as the storyboard
    asks for are kept, and images that the film has need not be sent again."""
    return shown(queue, queue.put(board, name), response)


@router.get("/films", responses=told_as())
def list_films(queue: Here) -> list[Listed]:
    """All films in the folder."""
    return [Listed(**_listed(entry)) for entry in queue.films()]


@router.get("/films/{name}", responses=told_as(404))
def get_film(queue: Here, name: Rendered) -> Shown:
    """How far a film is."""
    return shown(queue, name)


@router.delete("/films/{name}", responses=told_as(404, 409))
def cancel_film(queue: Here, name: Rendered) -> Shown:
    """Calls a film off; what is finished of it stays in its folder, and is kept when it is put again."""
    queue.cancel(name)
    return shown(queue, name)


@router.get("/films/{name}/events", response_class=Events, responses={**_json(told_as(404, 409)), 200: EVENT, 204: {}})
async def hear_film(queue: Here, name: Rendered, after: After) -> Events:
    """What happens to a film: lines of `batch --json`, after an event `state` with what GET of the film gives, or from
    Last-Event-ID on. The last is `end`, with the same as `state`; who comes back after it is sent away with 204."""
    return Events(_events(queue, name, after), headers=UNKEPT)


async def _events(queue: Queue, name: str, after: int | None) -> AsyncIterator[str]:
    journal, told = queue.journals[name], time.monotonic()
    while not queue.leaving.is_set():
        over = name in queue.settled or name not in queue.batch.progress
        lines = None if after is None else journal.after(after)
        if lines is None:
            after = journal.last
            yield await _state(queue, name, "state", after)
        if lines:  # at once: a listener may be gone already
            yield "".join(f"id: {queue.run}-{number}\ndata: {line}\n\n" for number, line in lines)
            after = lines[-1][0]
        if over:
            yield await _state(queue, name, "end", END)
            return
        if lines:
            told = time.monotonic()
        elif time.monotonic() - told > SILENCE:
            told = time.monotonic()
            yield ": nothing new\n\n"
        await asyncio.sleep(BEAT)


async def _state(queue: Queue, name: str, event: str, number: int | str) -> str:
    film = await run_in_threadpool(shown, queue, name)
    return f"event: {event}\nid: {queue.run}-{number}\ndata: {film.model_dump_json()}\n\n"


@router.get(
    "/films/{name}/video", response_class=StreamingResponse, responses=kinds_of("video/mp4", 206, 400, 404, 416)
)
def get_video(
    queue: Here, name: Rendered, range: Annotated[str, Header()] = "", if_range: Annotated[str, Header()] = ""
) -> StreamingResponse:
    """The film; while it grows as much as there is, which can be played, and grows at its end only. Takes ranges."""
    return _file(queue, name, (PARTS[0], FILM), "video/mp4", range, if_range)


@router.get("/films/{name}/{file}", response_class=StreamingResponse, responses=kinds_of(" ".join(FILES.values()), 404))
def get_file(queue: Here, name: Rendered, file: Made) -> StreamingResponse:
    """The contact sheet, what is sampled now, the report, the plan, the storyboard with all its settings."""
    return _file(queue, name, (file,), FILES[file])


def _file(queue: Queue, name: str, files: Sequence[str], kind: str, *asked: str) -> StreamingResponse:
    queue.film(name)
    for file in (queue.out / name / file for file in files):
        with suppress(OSError):
            return sent(open_file(file), kind, UNKEPT, *asked)
    raise Refusal(404, f"{name}: there is no {files[-1]} yet")


def _listed(entry: Entry) -> dict[str, Any]:
    return {**vars(entry), "url": f"/films/{entry.name}" if re.fullmatch(RENDERED, entry.name) else None}


def shown(queue: Queue, name: str, made: Response | None = None) -> Shown:
    """A film; what was made tells its place in a header, too."""
    listed = _listed(queue.film(name))
    if made:
        made.headers["Location"] = listed["url"]
    scenes = [Scene(scene=scene, done=done, sections=all_) for scene, done, all_ in queue.scenes(name)]
    folder = queue.out / name
    files = {file: f"{listed['url']}/{file}" for file in FILES if (folder / file).is_file()}
    if any((folder / file).is_file() for file in (PARTS[0], FILM)):
        files["video"] = f"{listed['url']}/video"
    return Shown(**listed, scenes=scenes, files=files)


def make_app(queue: Queue, token: str = "") -> FastAPI:
    """The service of a queue, which somebody else starts and stops."""
    about = "Storyboards in, films out. With a token, all but /health wants `Authorization: Bearer TOKEN`."
    app = FastAPI(title="framepack-relax", version=__version__, description=about, docs_url=None, redoc_url=None)
    app.state.queue = queue
    app.include_router(router)
    app.add_middleware(Guard, token=token, most=queue.limits.body)

    def mistakes(problems: Iterable[Mistake]) -> JSONResponse:
        return JSONResponse({"detail": [problem.model_dump() for problem in dict.fromkeys(problems)]}, 422)

    @app.exception_handler(StoryboardError)
    def _(request: Request, error: StoryboardError) -> JSONResponse:
        return mistakes(Mistake(message=p.message, path=p.path, line=p.line, column=p.column) for p in error.problems)

    @app.exception_handler(RequestValidationError)
    def _(request: Request, error: RequestValidationError) -> JSONResponse:
        return mistakes(Mistake(message=said["msg"], path=path_of(said["loc"])) for said in error.errors())

    @app.exception_handler(Refusal)
    def _(request: Request, error: Refusal) -> JSONResponse:
        if error.status == 422:
            return mistakes([Mistake(message=str(error))])
        return JSONResponse({"detail": str(error)}, error.status)

    @app.exception_handler(RelaxError)
    def _(request: Request, error: RelaxError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    @app.exception_handler(OSError)
    def _(request: Request, error: OSError) -> JSONResponse:
        return JSONResponse({"detail": f"the disk of the service: {error.strerror}"}, 507)

    return app


class Server(uvicorn.Server):
    """Ends with its queue, and its queue with it."""

    def __init__(self, queue: Queue, app: FastAPI) -> None:
        super().__init__(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5, server_header=False))
        self.queue = queue

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.queue.leaving.set()  # ends what listens to events, too
        super().handle_exit(sig, frame)

    def end(self) -> None:
        """When the queue has crashed, which /health tells for a while."""
        if self.queue.crash:
            time.sleep(GRACE)
        self.should_exit = True


def listen(host: str, port: int, token: str) -> socket.socket:
    """Where a service is asked. Raises RenderError, also where others could ask without a token."""
    if not (token or is_loopback(host)):
        raise RenderError(f"host: others can reach {host}, which takes a token; say --token TOKEN, or set {VARIABLE}")
    if not re.fullmatch(r"[!-~]*", token):
        raise RenderError("token: holds signs that no header carries; take letters and figures")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise RenderError(f"{host}, port {port}: cannot be listened to ({error}); take another one") from error


def serve(
    queue: Queue,
    listening: socket.socket,
    token: str,
    told: Callable[[str], None],
    extend: Callable[[FastAPI], None] = lambda app: None,
) -> None:
    """Answers until it is stopped; `told` hears a URL by which this machine reaches it, `extend` may add routes. Raises
    what the queue has crashed with."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    with listening:
        app = make_app(queue, token)
        extend(app)
        server = Server(queue, app)
        queue.start(server.end)
        try:
            told(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            server.run(sockets=[listening])
        finally:
            queue.stop()
    if queue.crash:
        raise queue.crash
