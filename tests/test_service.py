"""The service: a film's whole life over HTTP, what outlives a restart, and what is refused."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI, Header
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from PIL import Image

import framepack_relax as fr
from framepack_relax.farm import service
from framepack_relax.farm.executor import Models, Told, perform
from framepack_relax.farm.queue import KEPT, Journal, Limits, Posted, Queue, Refusal
from framepack_relax.farm.sent import sent
from framepack_relax.farm.service import listen, make_app, serve
from framepack_relax.files import open_file
from framepack_relax.rendering.lease import at_work


@dataclass
class Held:
    """Workers that are their own executor, in this process. While `gate` is closed films stand still at a step."""

    gate: Event = field(default_factory=Event)
    workers: int = 1
    device: str = "cpu"
    max_retries: int = 2

    def executor(self, logs: Path) -> "Held":
        return self

    def loading(self, device: str) -> dict[str, str]:
        return {"device": device}

    def run(self, units):
        models, told, busy = Models(), SimpleQueue(), False
        while busy or not units.over:
            if not busy and (unit := units.take("here")):
                busy = True

                def tell(event, unit=unit):
                    told.put(Told("here", unit, event))
                    if event.kind == "step":
                        self.gate.wait()

                Thread(target=perform, args=[unit, models, tell], daemon=True).start()
            try:
                event = told.get(timeout=0.02)
            except Empty:
                yield None
                continue
            busy = event.event.kind != "ended"
            yield event


@dataclass
class Running:
    """A service on a port of its own."""

    queue: Queue
    client: httpx.Client
    raised: list[BaseException]

    def post(self, text: str, images: dict[str, bytes] | None = None, *, put: str = "", **form) -> httpx.Response:
        files = [("storyboard", ("story.yaml", text.encode())), *images_of(images)]
        method, url = ("PUT", f"/films/{put}") if put else ("POST", "/films")
        return self.client.request(method, url, files=files, data=form)

    def events(self, name: str, last: str = "") -> Iterator[dict[str, str]]:
        """Each event's fields; JSON under `said`."""
        headers = {"Last-Event-ID": last} if last else {}
        with self.client.stream("GET", f"/films/{name}/events", headers=headers) as response:
            assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                if line == "" and "data" in fields:
                    yield {"event": "message", **fields, "said": json.loads(fields["data"])}
                if line == "":
                    fields = {}
                elif not line.startswith(":"):
                    key, _, value = line.partition(": ")
                    fields[key] = value

    def until_held(self, name: str) -> None:
        """Until the film stands still at the closed gate."""
        next(event for event in self.events(name, f"{self.queue.run}-0") if event["said"].get("kind") == "step")

    def until_over(self, name: str) -> dict:
        """The film's last state."""
        *_, end = self.events(name)
        assert end["event"] == "end"
        return end["said"]


def images_of(images: dict[str, bytes] | None) -> list:
    return [("images", (name, data)) for name, data in (images or {}).items()]


def board(title: str = "A Film", *, shots: int = 2, more: str = "model: fake") -> str:
    scenes = [f"  - {{id: s{i}, prompt: scene {i}, seconds: 1.3, transition: cut}}" for i in range(shots)]
    return "\n".join([f"title: {title}", more, "steps: 2", "scenes:", *scenes])


@pytest.fixture(scope="session")
def png(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("image") / "hero.png"
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(file)
    return file.read_bytes()


@contextmanager
def running(
    out: Path, *, token: str = "", shut: bool = False, executor=None, port: int = 0, extend=lambda app: None, **more
) -> Iterator[Running]:
    executor = executor or Held()
    (executor.gate.clear if shut else executor.gate.set)()
    queue, urls, raised = Queue(out, executor, **more), SimpleQueue(), []

    def run():
        try:
            serve(queue, listen("127.0.0.1", port, token), token, urls.put, extend)
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=run)
    thread.start()
    try:
        with httpx.Client(base_url=urls.get(timeout=60), timeout=60, trust_env=False) as client:
            yield Running(queue, client, raised)
    finally:
        queue.leaving.set()
        executor.gate.set()
        thread.join(60)
        assert not thread.is_alive()


# --- a film's life ----------------------------------------------------------------------------------------------------


def test_a_board_that_is_posted_becomes_the_film_that_render_makes_of_it(tmp_path, png):
    text = board("Łódź, a *Film*!", more="model: fake\nimage: hero.png")
    with running(tmp_path / "out") as it:
        made = it.post(text, {"hero.png": png}, seed=7)
        assert made.status_code == 201 and made.json()["name"] == "d-a-film", made.text
        assert made.headers["location"] == made.json()["url"] == "/films/d-a-film"
        assert [scene["sections"] for scene in made.json()["scenes"]] == [2, 2]
        kinds = [(event["event"], event["said"].get("kind")) for event in it.events("d-a-film")]
        assert kinds[0][0] == "state" and kinds[-1][0] == "end"
        assert {"begun", "step", "section", "shot", "film", "ended"} == {kind for _, kind in kinds[1:-1]} - {"verdicts"}
        shown = it.client.get("/films/d-a-film").json()
        assert (shown["state"], shown["done"], shown["sections"]) == ("done", 4, 4)
        assert [(scene["done"], scene["sections"]) for scene in shown["scenes"]] == [(2, 2), (2, 2)]
        assert it.client.get("/films").json() == [{key: shown[key] for key in it.client.get("/films").json()[0]}]
        kinds = {name: it.client.get(url).headers["content-type"] for name, url in shown["files"].items()}
        video = it.client.get(shown["files"]["video"]).content
    assert kinds == {
        "video": "video/mp4",
        "contact.png": "image/png",
        "report.json": "application/json",
        "plan.json": "application/json",
        "story.yaml": "application/yaml",
    }
    (tmp_path / "alone.yaml").write_text(text)
    (tmp_path / "hero.png").write_bytes(png)
    alone = fr.render(tmp_path / "alone.yaml", out=tmp_path / "alone", seed=7)
    assert video == alone.path.read_bytes()


def test_plan_says_what_the_plan_of_the_board_does_or_every_mistake_at_its_place(tmp_path, png):
    text = board(more="model: fake\nimage: hero.png")
    (tmp_path / "story.yaml").write_text(text)
    (tmp_path / "hero.png").write_bytes(png)
    ask = lambda it, text, images=None, **form: it.client.post(  # noqa: E731
        "/plan", files=[("storyboard", ("s", text.encode())), *images_of(images)], data=form
    )
    with running(tmp_path / "out", shut=True) as it:
        assert ask(it, text, {"hero.png": png}).json() == fr.plan(tmp_path / "story.yaml").to_json()
        wrong = ask(it, text.replace("steps", "stps").replace("1.3", "-1"))
        assert wrong.status_code == 422
        found = {(m["path"], m["line"], m["column"]) for m in wrong.json()["detail"]}
        assert found == {
            ("image", 3, 8),
            ("stps", 4, 1),
            ("scenes[0].seconds", 6, 40),
            ("scenes[1].seconds", 7, 40),
        }
        assert str(tmp_path) not in wrong.text and it.client.get("/films").json() == []
        assert it.post(text, {"hero.png": png}).status_code == 201
        assert ask(it, text).status_code == 422 and ask(it, text, film="a-film").status_code == 200
        emoji = json.dumps(
            {"title": "\N{GRINNING FACE}", "model": "fake", "scenes": [{"id": "a", "prompt": "b", "seconds": 1}]}
        )
        assert "\\ud83d" in emoji and ask(it, emoji).json()["title"] == "\N{GRINNING FACE}"
    assert [path.name for path in (tmp_path / "out/.boards").iterdir()] == ["a-film"], "plans leave nothing"


def test_a_film_that_grows_can_be_read_from_where_one_was(tmp_path):
    text, sizes, got = board(shots=6), [], b""
    (tmp_path / "story.yaml").write_text(text)
    with running(tmp_path / "out") as it:

        def look(section, seed):
            nonlocal got
            answer = it.client.get("/films/story/video", headers={"Range": f"bytes={len(got)}-"})
            if answer.status_code == 206:
                part = (tmp_path / "out/story/video.part.mp4").read_bytes()
                begin, _, end = answer.headers["content-range"].removeprefix("bytes ").partition("/")
                assert begin.startswith(f"{len(got)}-") and answer.headers["content-type"] == "video/mp4"
                got += answer.content
                assert got == part[: int(end)]
                sizes.append(len(got))
            else:
                assert answer.status_code == (416 if sizes else 404)

        film = fr.render(tmp_path / "story.yaml", out=tmp_path / "out/story", on_section=look).path.read_bytes()
        assert len(sizes) >= 4 and sizes == sorted(set(sizes)), sizes
        ask = lambda span: it.client.get("/films/story/video", headers={"Range": span})  # noqa: E731
        assert ask("bytes=5-9").content == film[5:10] and ask("bytes=-7").content == film[-7:]
        assert ask(f"bytes={len(film)}-").status_code == 416 and ask("bytes=9-5").status_code in (400, 416)
        assert it.client.get("/films/story").json()["state"] == "done", "films that others make are shown, too"


def test_a_file_is_sent_as_it_was_though_it_grows_and_gets_another_name(tmp_path):
    app, file, data = FastAPI(), tmp_path / "film.part.mp4", bytes(range(256)) * 1000

    @app.get("/")
    def get(range: Annotated[str, Header()] = "") -> StreamingResponse:
        file.write_bytes(data)
        answer = sent(open_file(file), "video/mp4", {}, range)
        with open(file, "ab") as stream:
            stream.write(data)
        file.replace(tmp_path / "film.mp4")
        return answer

    with TestClient(app) as client:
        assert client.get("/").content == data
        assert client.get("/", headers={"Range": "bytes=99000-"}).content == data[99000:]


def test_who_comes_back_to_the_events_loses_none(tmp_path):
    with running(tmp_path / "out", shut=True) as it:
        it.post(board())
        first = []
        for event in it.events("a-film", last=f"{it.queue.run}-0"):
            first.append(event)
            if event["said"].get("kind") == "step":
                break
        again = next(iter(it.events("a-film")))
        assert again["event"] == "state" and again["said"]["state"] == "at work", "a reload begins with what is"
        it.queue.executor.gate.set()
        rest = list(it.events("a-film", last=first[-1]["id"]))
        assert rest[-1]["event"] == "end"
        lines = [event["said"] for event in first + rest[:-1]]
        heard = [json.loads(line) for _, line in it.queue.journals["a-film"].lines]
        assert lines == heard and lines[-1]["kind"] == "ended"
        answer = it.client.get("/films/a-film/events", headers={"Last-Event-ID": rest[-1]["id"]})
        assert answer.status_code == 204, "or a browser asks for ever"
        for unknown in ("x", "1-2", f"{it.queue.run}-", f"{it.queue.run}-99999", f"{it.queue.run}-²"):
            events = list(
                it.client.get("/films/a-film/events", headers={"Last-Event-ID": unknown.encode()}).text.split("\n\n")
            )
            assert "event: state" in events[0] and "event: end" in events[-2], unknown


def test_a_journal_keeps_the_newest_events_and_says_where_some_are_gone():
    journal = Journal()
    assert journal.after(0) == [] and journal.after(1) is None
    for number in range(KEPT + 5):
        journal.add(str(number))
    assert journal.after(3) is None and journal.after(journal.last) == []
    assert len(journal.after(5)) == KEPT and journal.after(KEPT + 4) == [(KEPT + 5, str(KEPT + 4))]


def test_a_film_is_called_off_before_it_has_begun_or_under_way_and_goes_on_when_it_is_put_again(tmp_path):
    with running(tmp_path / "out", shut=True) as it:
        for name in ("one", "two", "three"):
            assert it.post(board(name)).status_code == 201
        it.until_held("one")
        taken = it.post(board("one"), put="one")
        assert taken.status_code == 409 and "at work" in taken.json()["detail"]
        for name in ("one", "two", "two"):
            gone = it.client.delete(f"/films/{name}")
            assert gone.status_code == 200 and gone.json()["state"] == "cancelled", gone.text
        it.queue.executor.gate.set()
        states = {name: it.until_over(name)["state"] for name in ("one", "two", "three")}
        assert states == {"one": "cancelled", "two": "cancelled", "three": "done"}
        assert not (tmp_path / "out/two/shots").exists() and (tmp_path / "out/one").is_dir()
        assert it.client.delete("/films/three").status_code == 409
        for name in ("one", "two"):
            assert it.post(board(name), put=name).status_code == 201
            assert it.until_over(name)["state"] == "done"


def test_a_changed_board_keeps_the_sections_that_it_does_not_change(tmp_path):
    with running(tmp_path / "out") as it:
        it.post(board(shots=3))
        it.until_over("a-film")
        assert it.post(board(shots=3).replace("scene 2", "another"), put="a-film").status_code == 201
        it.until_over("a-film")
        report = it.client.get("/films/a-film/report.json").json()
    assert [row["reused"] for row in report["sections"]] == [True] * 4 + [False] * 2
    made = [json.loads(line) for _, line in it.queue.journals["a-film"].lines]
    anew = {line["section"] for line in made[len(made) // 2 :] if line["kind"] == "step"}
    assert anew == {4, 5}


def test_two_boards_of_one_title_that_come_at_once_are_two_films(tmp_path):
    with running(tmp_path / "out") as it, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: it.post(board(), seed=number), range(4)))
        names = {answer.json()["name"] for answer in answers}
        assert names == {"a-film", "a-film-2", "a-film-3", "a-film-4"}
        assert {it.until_over(name)["state"] for name in names} == {"done"}
    assert len({(tmp_path / "out" / name / "video.mp4").read_bytes() for name in names}) == 4


def test_priorities_come_first(tmp_path):
    with running(tmp_path / "out", shut=True) as it:
        it.post(board("first"))
        it.until_held("first")
        for name, priority in {"low": -1, "usual": 0, "high": 5}.items():
            it.post(board(name), priority=priority)
        it.queue.executor.gate.set()
        for name in ("low", "usual", "high"):
            it.until_over(name)
    times = {name: (tmp_path / f"out/{name}/video.mp4").stat().st_mtime_ns for name in ("low", "usual", "high")}
    assert sorted(times, key=times.__getitem__) == ["high", "usual", "low"]


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_a_restart_goes_on_with_what_is_not_finished_and_with_that_alone(tmp_path, png):
    out = tmp_path / "out"
    with running(out) as it:
        it.post(board("done"))
        it.until_over("done")
        it.queue.executor.gate.clear()
        it.post(board("half", shots=3, more="model: fake\nimage: a.png"), {"a.png": png}, seed=5)
        it.until_held("half")
        for name in ("waits", "off"):
            it.post(board(name))
        it.client.delete("/films/off")
    kept = fr.status(out / "half").done
    (out / ".boards/broken").mkdir()
    (out / ".boards/broken/story.yaml").write_text("title: x\n")
    (out / ".boards/.new-rest").mkdir()
    notes: list[str] = []
    with running(out, note=notes.append) as it:
        states = {name: it.until_over(name)["state"] for name in ("half", "waits")}
        listed = {film["name"]: film["state"] for film in it.client.get("/films").json()}
        steps = [json.loads(line) for _, line in it.queue.journals["half"].lines if '"step"' in line]
        broken = it.client.get("/films/broken").json()
        assert next(it.events("done"))["said"]["state"] == "done" and it.until_over("off")["state"] == "cancelled"
    assert states == {"half": "done", "waits": "done"}
    assert listed == {**states, "done": "done", "off": "cancelled", "broken": "failed"}
    assert "scenes" in broken["why"] and len(notes) == 1 and not (out / ".boards/.new-rest").exists()
    assert len(steps) == 2 * (6 - kept) and json.loads((out / "half/plan.json").read_text())["sections"][0]["seed"]


@pytest.mark.soak
def test_the_command_ends_with_4_by_sigterm_and_the_same_one_goes_on(tmp_path):
    out = tmp_path / "out"
    words = [sys.executable, "-m", "framepack_relax", "serve", "--out", str(out), "--port", "0", "--workers", "1"]
    for signal_, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 4)):
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            url = process.stdout.readline().split()[-1]
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                it = Running(None, client, [])
                if code == -9:
                    assert it.post(board(shots=80, more="model: fake\ncrf: 40")).status_code == 201
                seen = next(event for event in it.events("a-film") if event["said"].get("kind") == "section")
                process.send_signal(signal_)
                said = process.stderr.read()
            assert process.wait(60) == code and "Traceback" not in said, (seen, said)
        assert 0 < fr.status(out / "a-film").done < 160
    assert "goes on from there" in said and at_work(out / "a-film") is None
    with running(out) as it:
        assert it.until_over("a-film")["state"] == "done"


def test_a_crash_is_told_by_health_and_ends_the_service(tmp_path, monkeypatch):
    class Broken(Held):
        def run(self, units):
            self.gate.wait()
            raise ZeroDivisionError("of the executor")
            yield

    monkeypatch.setattr(service, "GRACE", 2.0)
    with running(tmp_path / "out", shut=True, executor=Broken()) as it:
        assert it.client.get("/health").json()["state"] == "ok"
        it.queue.executor.gate.set()
        it.queue._thread.join(1.0)
        answer = it.client.get("/health")
        assert answer.status_code == 503 and answer.json()["state"] == "crashed"
    assert [type(error) for error in it.raised] == [ZeroDivisionError]


# --- limits -----------------------------------------------------------------------------------------------------------


def test_every_limit_has_an_answer_and_leaves_nothing(tmp_path, png):
    limits = Limits(body=100_000, waiting=2, images=2, image=20_000)
    usual = board(more="model: fake\nimage: a.png")
    with running(tmp_path / "out", shut=True, limits=limits, models=("fake", "puppet")) as it:
        tries = {
            "images": (413, usual, {f"{i}.png": png for i in range(3)}),
            "larger than 20000 bytes": (413, usual, {"a.png": bytes(20_001)}),
            "more than 100000 bytes": (413, usual + "#" * 100_000, {}),
            "does not have": (422, board(more="model: framepack-f1"), {}),
            "it has fake, puppet": (422, board(more=f"model: {tmp_path}"), {}),
            "'someone/else'": (422, board(more="model: someone/else"), {}),
            "no such file": (422, usual, {}),
            "leaves the storyboard's folder": (422, board(more="model: fake\nimage: ../a.png"), {"a.png": png}),
            "cannot be read as an image": (422, usual, {"a.png": png[:99]}),
            "no image of a kind": (422, usual, {"a.png": b"text"}),
            "do not tell apart": (422, usual, {"a.png": png, "A.png": png}),
            "missing": (422, "title: x\n", {}),
            "UTF-8": (422, "title: x\n", {}),
        }
        for fact, (status, text, images) in tries.items():
            answer = (
                it.post(text, images) if fact != "UTF-8" else it.client.post("/films", files={"storyboard": b"\xff"})
            )
            assert answer.status_code == status and fact in answer.text, (fact, answer.text)
            assert str(tmp_path / "out") not in answer.text
        for form in ({"seed": -1}, {"seed": "x"}, {"priority": "nan"}, {"priority": "1e99"}):
            assert it.post(board(), **form).status_code == 422, form
        assert it.client.get("/films").json() == [] and not list((tmp_path / "out/.boards").iterdir())
        for number in range(3):
            assert it.post(board(str(number))).status_code == 201
            if number == 0:
                it.until_held("0")
        full = it.post(board())
        assert full.status_code == 429 and "2 films wait" in full.json()["detail"]


@pytest.mark.parametrize("place", ["/etc/passwd", "~/a.safetensors", "../a.safetensors", "x/../../a.safetensors"])
def test_a_posted_board_names_no_lora_by_its_place_on_the_services_machine(tmp_path, monkeypatch, place):
    """Whether such a file is there or not, the answer is the same, and every one is told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out/.boards").mkdir(parents=True)
    (tmp_path / "out/.boards/a.safetensors").write_bytes(b"x")
    scene = f"transition: cut, lora: [{{file: {place}}}]"
    text = board(more=f"model: puppet\nlora: [{{file: {place}}}]").replace("transition: cut", scene)
    with running(tmp_path / "out") as it:
        answer = it.post(text)
    fact = f"{place} leaves the storyboard's folder; name one of the hub: owner/name[@revision][/file.safetensors]"
    wanted = ["lora[0].file", "scenes[0].lora[0].file", "scenes[1].lora[0].file"]
    assert answer.status_code == 422
    assert [(said["path"], said["message"]) for said in answer.json()["detail"]] == [(path, fact) for path in wanted]
    assert all(said["line"] for said in answer.json()["detail"])


def test_a_posted_boards_lora_is_not_looked_for_where_the_service_runs(tmp_path, monkeypatch, png):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/name").mkdir(parents=True)
    (tmp_path / "owner/name/a.safetensors").write_bytes(b"x")
    more = "model: puppet\nimage: a.png\nlora: [{file: owner/name/a.safetensors}]"
    with running(tmp_path / "out") as it:
        answer = it.post(board(more=more), {"a.png": png})
    assert (
        answer.status_code == 422
        and "lora[0].file: owner/name/a.safetensors: is no file beside the storyboard" in answer.text
    )


def test_a_body_without_a_length_is_read_no_further_than_the_limit(tmp_path):
    queue = Queue(tmp_path, Held(), limits=Limits(body=1000))
    given = 0

    async def endless():
        nonlocal given
        yield b'--x\r\nContent-Disposition: form-data; name="storyboard"; filename="s"\r\n\r\n'
        while given < 1_000_000:
            given += 100
            yield b"x" * 100

    async def ask():
        transport = httpx.ASGITransport(app=make_app(queue))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            kind = {"Content-Type": "multipart/form-data; boundary=x"}
            return await client.post("/films", content=endless(), headers=kind)

    answer = asyncio.run(ask())
    assert answer.status_code == 413 and "1000 bytes" in answer.text and given <= 1100


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "%2e%2e",
        "%2e%2e%2fx",
        "..%5cx",
        "a%00b",
        "x" * 5000,
        "%F0%9F%98%80",
        "A",
        ".boards",
        "%ff",
        "-a",
        "con.",
        "a/../b",
    ],
)
def test_hostile_names_of_films_are_refused(tmp_path, name):
    (tmp_path / "x").mkdir()
    with running(tmp_path / "out", shut=True) as it:
        place = urlsplit(str(it.client.base_url)).netloc
        body = (
            b'--x\r\nContent-Disposition: form-data; name="storyboard"; filename="s"\r\n\r\n%b\r\n--x--\r\n'
            % board().encode()
        )
        for method, rest in (
            ("GET", ""),
            ("PUT", ""),
            ("DELETE", ""),
            ("GET", "/video"),
            ("GET", "/events"),
            ("GET", "/plan.json"),
        ):
            asked = http.client.HTTPConnection(place, timeout=30)
            kind = {"Content-Type": "multipart/form-data; boundary=x"}
            asked.request(method, f"/films/{name}{rest}", body if method == "PUT" else None, kind)
            answer = asked.getresponse()
            assert 400 <= answer.status < 500, (method, rest, answer.status, answer.read())
            asked.close()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".boards", "logs", "out", "x"]


@pytest.mark.parametrize(
    "name",
    [
        "../x.png",
        "/etc/x.png",
        "..",
        "",
        ".png",
        "a\\b.png",
        "a\x00.png",
        "a\n.png",
        "x" * 300 + ".png",
        "story.yaml",
        "order.json",
        "x",
        "\N{GRINNING FACE}" * 60 + ".png",
    ],
)
def test_hostile_names_of_images_are_refused(tmp_path, png, name):
    queue = Queue(tmp_path / "out", Held())
    with pytest.raises(Refusal, match="is no name of an image") as refused:
        queue.put(Posted(text=board().encode(), images={name: png}))
    assert refused.value.status == 422 and not list((tmp_path / "out/.boards").iterdir())


def test_a_film_of_another_hand_is_not_written_over(tmp_path):
    (tmp_path / "story.yaml").write_text(board("mine"))
    fr.render(tmp_path / "story.yaml", out=tmp_path / "out/mine")
    with running(tmp_path / "out") as it:
        assert it.post(board("mine")).json()["name"] == "mine-2"
        answer = it.post(board("mine"), put="mine")
        assert answer.status_code == 409 and "not posted here" in answer.text
        assert (
            it.post(board("logs"), put="logs").status_code == 409 and it.post(board("logs")).json()["name"] == "logs-2"
        )
        assert it.client.get("/films/none").status_code == 404


# --- who may ask ------------------------------------------------------------------------------------------------------


def test_without_a_token_only_this_machine_and_its_own_pages_are_answered(tmp_path):
    with running(tmp_path / "out", shut=True) as it:
        own = urlsplit(str(it.client.base_url)).netloc
        port = own.rpartition(":")[2]
        for host in (own, f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
            assert it.client.get("/films", headers={"Host": host}).status_code == 200, host
            assert it.client.get("/films", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200
        for host in (
            "evil.example",
            f"evil.example:{port}",
            "127.0.0.1.evil.example",
            "",
            "192.168.0.7",
            "localhost.evil",
        ):
            assert it.client.get("/films", headers={"Host": host}).status_code == 403, host
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"http://127.0.0.1.evil:{port}", ""):
            answer = it.client.delete("/films/x", headers={"Origin": origin})
            assert answer.status_code == 403 and "Origin" in answer.json()["detail"], origin


def test_with_a_token_nothing_but_health_is_answered_to_who_does_not_say_it(tmp_path):
    with running(tmp_path / "out", shut=True, token="s3cret") as it:
        for said in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer s3cre"},
            {"Authorization": "Basic s3cret"},
        ):
            for path in ("/films", "/openapi.json", "/films/x/video", "/none"):
                answer = it.client.get(path, headers=said)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert it.client.get("/health", headers={"Host": "elsewhere"}).status_code == 200
        good = {"Authorization": "Bearer s3cret", "Host": "elsewhere", "Origin": "http://page"}
        assert it.client.get("/films", headers=good).json() == []


@pytest.mark.parametrize(
    "host, port, token, fact",
    [
        ("0.0.0.0", 0, "", "takes a token"),
        ("", 0, "", "takes a token"),
        ("127.0.0.1", 0, "ä", "token"),
        ("127.0.0.1", 70_000, "", "port"),
        ("256.0.0.1", 0, "t", "cannot be listened to"),
    ],
)
def test_what_cannot_be_served_is_told(host, port, token, fact):
    with pytest.raises(fr.RenderError, match=fact):
        listen(host, port, token)


def test_the_command_refuses_to_be_open_to_all_and_names_an_extra_that_is_missing(tmp_path):
    words = [sys.executable, "-m", "framepack_relax", "serve", "--out", str(tmp_path), "--host", "0.0.0.0"]
    open_ = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "FRAMEPACK_RELAX_TOKEN": ""})
    assert open_.returncode == 2 and "--token" in open_.stderr and "Traceback" not in open_.stderr, open_.stderr
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError(name='fastapi')")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    none = subprocess.run(words, capture_output=True, text=True, env=env)
    assert none.returncode == 2 and "pip install 'framepack-relax[serve]'" in none.stderr, none.stderr


# --- the schema -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_requests_of_all_kinds_that_the_schema_allows_or_not_are_answered_as_it_says(tmp_path):
    with running(tmp_path / "out", limits=Limits(waiting=20)) as it:
        it.post(board("x"))
        it.until_over("x")
        words = [sys.executable, "-m", "schemathesis.cli", "run", f"{it.client.base_url}/openapi.json"]
        # what a storyboard is made of is not in the schema; of a path with several methods Starlette names the first
        but = ["--exclude-checks", "positive_data_acceptance,allow_header_conformance"]
        how = [
            "--max-examples",
            os.environ.get("FUZZ", "10"),
            "--seed",
            "1",
            "--generation-database",
            "none",
            "--no-color",
        ]
        done = subprocess.run([*words, *how, *but], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        print(done.stdout[-1500:])
        assert it.client.get("/health").status_code == 200
