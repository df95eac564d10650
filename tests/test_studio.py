"""The studio's routes: boards in a folder are read, edited, planned, watched and rendered; nobody's change is lost."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from test_service import Running, png, running  # noqa: F401

import framepack_relax as fr
from framepack_relax.farm.boards import Boards
from framepack_relax.farm.studio import add_studio

BOARD = """\
title: A Film
model: fake
steps: 2
scenes:
  # quiet
  - {id: a, prompt: one, seconds: 1.3}
  - id: b
    prompt: two
    seconds: 1.3   # short
    transition: cut
"""


@contextmanager
def studio(folder: Path, **more) -> Iterator[Running]:
    with running(folder / "out", extend=lambda app: add_studio(app, Boards(folder)), **more) as it:
        yield it


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "story.yaml").write_text(BOARD)
    return tmp_path


def change(it: Running, *changes: dict, name: str = "story", dry: bool = False, version: str = "") -> httpx.Response:
    version = version or it.client.get(f"/boards/{name}").json()["version"]
    return it.client.patch(f"/boards/{name}", json={"version": version, "changes": list(changes), "dry": dry})


def test_a_change_is_written_into_the_very_file_and_planned(folder):
    os.chmod(folder / "story.yaml", 0o640)
    with studio(folder, shut=True) as it:
        shown = it.client.get("/boards/story").json()
        assert shown["text"] == BOARD and shown["problems"] == [] and shown["film"] is None and not shown["busy"]
        assert [scene["sections"] for scene in shown["plan"]["scenes"]] == [2, 2]
        assert shown["plan"]["seconds"] == fr.plan(folder / "story.yaml").seconds
        changed = change(it, {"path": "scenes[1].seconds", "value": 2.4}, {"path": "steps", "value": None}).json()
    expected = BOARD.replace("steps: 2\n", "").replace("1.3   # short", "2.4   # short")
    assert (folder / "story.yaml").read_text() == changed["text"] == expected
    assert changed["version"] != shown["version"] and changed["plan"]["frames"] > shown["plan"]["frames"]
    assert os.stat(folder / "story.yaml").st_mode & 0o777 == 0o640


def test_scenes_come_go_and_move(folder):
    with studio(folder, shut=True) as it:
        new = {"id": "c", "prompt": "three", "seconds": 1.3}
        fields = change(it, {"insert": 1, "scene": new}, {"move": 1, "to": 0}, {"remove": 2}).json()["fields"]
        assert [scene["id"] for scene in fields["scenes"]] == ["c", "a"]
        assert change(it, {"remove": 0}, {"remove": 0}).status_code == 422  # the last one stays
    assert "# quiet" in (folder / "story.yaml").read_text()


def test_what_would_be_a_new_mistake_is_told_at_its_field_and_not_written(folder):
    with studio(folder, shut=True) as it:
        for path, value in (("scenes[1].seconds", -1), ("scenes[0].prompt", ""), ("scenes[1].secnds", 2)):
            answer = change(it, {"path": path, "value": value})
            assert answer.status_code == 422 and [m["path"] for m in answer.json()["detail"]] == [path]
        dry = change(it, {"path": "scenes[0].intensity", "value": 0.9}, dry=True).json()
        assert dry["plan"]["scenes"][0]["intensity"] == 0.9
        assert (folder / "story.yaml").read_text() == BOARD


def test_of_a_file_with_mistakes_fields_are_shown_and_each_can_be_mended(folder):
    (folder / "story.yaml").write_text(BOARD.replace("steps: 2", "steps: many").replace("prompt: two", "prompt: ''"))
    with studio(folder, shut=True) as it:
        shown = it.client.get("/boards/story").json()
        assert shown["plan"] is None and {m["path"] for m in shown["problems"]} == {"steps", "scenes[1].prompt"}
        assert shown["fields"]["steps"] == "many" and all(m["line"] for m in shown["problems"])
        half = change(it, {"path": "steps", "value": 3})
        assert half.status_code == 200 and [m["path"] for m in half.json()["problems"]] == ["scenes[1].prompt"]
        assert change(it, {"path": "scenes[1].prompt", "value": "two"}).json()["problems"] == []
        broken = it.client.get("/boards/story").json()["version"]
        text = {"version": broken, "text": "scenes: [\n"}
        assert it.client.put("/boards/story", json=text).json()["fields"] is None
        assert change(it, {"path": "steps", "value": 3}).status_code == 422


def test_a_stale_change_is_refused_and_what_was_written_outside_stays(folder):
    with studio(folder, shut=True) as it:
        version = it.client.get("/boards/story").json()["version"]
        outside = BOARD.replace("two", "by another program")
        (folder / "story.yaml").write_text(outside)
        answer = change(it, {"path": "title", "value": "Mine"}, version=version)
        assert answer.status_code == 409 and "changed meanwhile" in answer.json()["detail"]
        assert it.client.put("/boards/story", json={"version": version, "text": BOARD}).status_code == 409
        assert (folder / "story.yaml").read_text() == outside
        assert change(it, {"path": "title", "value": "Mine"}).status_code == 200
    assert "title: Mine" in (folder / "story.yaml").read_text()


def test_a_change_from_outside_is_told(folder):
    with studio(folder, shut=True) as it, it.client.stream("GET", "/changes") as response:
        told = (json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line.startswith("data"))
        first = next(told)
        assert list(first) == ["story"]
        (folder / "story.yaml").write_text(BOARD + "# more\n")
        (folder / "sweep.yaml").write_text("arms: []\n")
        second = next(told)
        assert list(second) == ["story"] and second != first
        (folder / "other.yaml").write_text(BOARD)
        assert list(next(told)) == ["other", "story"]


def test_a_first_board_in_an_empty_folder_is_whole_and_a_second_takes_nothing_from_it(tmp_path):
    (tmp_path / "beach.png").write_bytes(b"mine")
    with studio(tmp_path, shut=True) as it:
        assert it.client.get("/boards").json() == {}
        first = it.client.post("/boards").json()
        assert first["problems"] == [] and first["plan"]["model"] == "puppet" and len(first["plan"]["scenes"]) == 3
        second = it.client.post("/boards").json()
        assert second["name"] != first["name"] and second["fields"]["image"] == first["fields"]["image"] != "beach.png"
    assert (tmp_path / "beach.png").read_bytes() == b"mine"


def test_an_image_lies_beside_the_board_and_takes_no_others_name(folder, png):  # noqa: F811
    (folder / "hero.png").write_bytes(b"another")
    with studio(folder, shut=True) as it:
        names = [it.client.put("/images/hero.png", content=png).json() for _ in range(2)]
        assert names == ["hero-2.png"] * 2
        assert it.client.get(f"/images/{names[0]}").content == png
        for name in ("..%2fhero.png", ".hero.png", "story.yaml", "a.svg", "%00.png"):
            assert it.client.put(f"/images/{name}", content=png).status_code in (404, 405, 422), name
            assert it.client.get(f"/images/{name}").status_code in (404, 422), name
        (folder.parent / "secret.png").write_bytes(png)
        (folder / "link.png").symlink_to(folder.parent / "secret.png")
        assert it.client.get("/images/link.png").status_code == 404
    assert (folder / "hero.png").read_bytes() == b"another"


def test_what_is_no_image_is_refused_and_not_kept(folder, png):  # noqa: F811
    with studio(folder, shut=True) as it:
        for name, data, said in (
            ("x.png", b"none", "is no image"),
            ("x.png", png[:40], "x.png: "),
            ("a.avif", png, "PNG"),
        ):
            answer = it.client.put(f"/images/{name}", content=data)
            assert answer.status_code == 422 and said in answer.json()["detail"][0]["message"], answer.text
    assert sorted(os.listdir(folder)) == ["out", "story.yaml"]


def test_a_text_that_no_file_can_hold_is_refused(folder):
    with studio(folder, shut=True) as it:
        version = it.client.get("/boards/story").json()["version"]
        body = json.dumps({"version": version, "text": BOARD + "# \ud800"}).encode()
        answer = it.client.put("/boards/story", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422 and "lone surrogate" in answer.json()["detail"][0]["message"]
        change = {"version": version, "changes": [{"path": "title", "value": "\ud800"}]}
        for dry in (True, False):
            body = json.dumps({**change, "dry": dry}).encode()
            answer = it.client.patch("/boards/story", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == 422
    assert (folder / "story.yaml").read_text() == BOARD


def test_a_board_with_another_name_than_a_films_is_told_with_the_cure(folder):
    for name in ("My_Film.yaml", "story.yml", ".hidden.yaml"):
        (folder / name).write_text(BOARD)
    (folder / "Sweep.yaml").write_text("arms: []\n")
    with studio(folder, shut=True) as it, it.client.stream("GET", "/changes") as response:
        lines = iter(response.iter_lines())
        assert next(lines) == "event: left-out"
        left = json.loads(next(lines).removeprefix("data: "))
        assert list(left) == ["My_Film.yaml", "story.yml"] and "my-film.yaml" in left["My_Film.yaml"]
        assert it.client.get("/boards").json() == {"story": it.client.get("/boards/story").json()["version"]}


def test_the_draft_of_a_board_is_nobody_elses_film(folder):
    for name in ("story", "story-draft", "story-takes"):
        (folder / f"{name}.yaml").write_text(BOARD.replace("steps: 2", "steps: 9"))
    with studio(folder) as it:
        assert it.client.post("/boards/story/draft").status_code == 201
        assert it.until_over("story.draft")["state"] == "done"
        for name in ("story-draft", "story-takes"):
            assert it.client.get(f"/boards/{name}").json()["film"] is None
            assert it.client.post(f"/boards/{name}/film").status_code == 201
            assert it.until_over(name)["state"] == "done"
        shown = it.client.get("/boards/story").json()
        assert shown["draft"]["name"] == "story.draft" and shown["film"] is None and not shown["busy"]


def test_the_film_is_that_of_render_and_goes_on_after_a_restart(folder):
    with studio(folder, shut=True) as it:
        left = it.client.get("/boards/story/left").json()
        assert (left["kept"], left["sections"]) == (0, 4)
        assert left["passes"] == list(fr.plan(folder / "story.yaml").passes)
        assert it.client.post("/boards/story/film").json()["name"] == "story"
        it.until_held("story")
        assert it.client.get("/boards/story").json()["busy"] == "story"
        assert it.client.post("/boards/story/film").status_code == 409
        assert it.client.delete("/films/story").json()["state"] == "cancelled"
    with studio(folder) as it:
        shown = it.client.get("/boards/story").json()
        assert not shown["busy"] and shown["film"]["state"] == "cancelled"
        assert it.client.post("/boards/story/film").status_code == 201
        assert it.until_over("story")["state"] == "done"
        assert it.client.get("/boards/story/left").json()["kept"] == 4
        part = it.client.get("/films/story/video", headers={"Range": "bytes=0-9"})
        assert part.status_code == 206 and len(part.content) == 10
    film = fr.render(folder / "story.yaml", out=folder / "out" / "story")  # the same folder, the same film
    assert all(section["reused"] for section in film.report["sections"]) or film.path.exists()


def test_a_draft_is_rendered_accepted_and_the_film_goes_on_from_it(folder):
    (folder / "story.yaml").write_text(BOARD.replace("steps: 2", "steps: 9"))
    with studio(folder) as it:
        assert it.client.post("/boards/story/draft").json()["name"] == "story.draft"
        assert (over := it.until_over("story.draft"))["state"] == "done", over
        shown = it.client.get("/boards/story").json()
        assert shown["draft"]["files"]["video"] == "/films/story.draft/video" and shown["film"] is None
        accepted = change(it, {"path": "start_from", "value": {"folder": "out/story.draft"}})
        assert accepted.status_code == 200 and "start_from: {folder: out/story.draft}\n" in accepted.json()["text"]
        assert it.client.post("/boards/story/film").status_code == 201
        assert it.until_over("story")["state"] == "done"
        plan = it.client.get("/films/story/plan.json").json()
        assert plan["sections"][0]["start_from"]["folder"] == "out/story.draft"
        assert it.client.post("/boards/story/draft").json()["state"] == "done"  # it is what it was


def test_takes_are_rendered_looked_at_picked_and_locked(folder):
    with studio(folder) as it:
        assert it.client.post("/boards/story/takes/none").status_code == 409
        assert it.client.post("/boards/story/takes/b?count=2").status_code == 201
        assert it.until_over("story.takes")["state"] == "done"
        shown = it.client.get("/boards/story").json()
        assert list(shown["takes"]) == ["b"] and len(shown["takes"]["b"]) == 3 and shown["busy"] == ""
        second = shown["takes"]["b"][1]
        assert it.client.get(f"/boards/story/takes/b/{second}.png").content.startswith(b"\x89PNG")
        assert it.client.get("/boards/story/takes/b/9-000000.png").status_code == 404
        pick = lambda **said: it.client.put(  # noqa: E731
            "/boards/story/takes/b", json={"version": it.client.get("/boards/story").json()["version"], **said}
        )
        assert pick(take="9-000000").status_code == 409 and (folder / "story.yaml").read_text() == BOARD
        assert pick(take=second, version=shown["version"] + "x").status_code == 409
        picked = pick(take=second, lock=True)
        assert picked.json()["fields"]["scenes"][1]["take"] == second and picked.json()["problems"] == []
        assert not it.client.get("/boards/story/left").json()["whole"]
        assert it.client.post("/boards/story/film").status_code == 201
        assert it.until_over("story")["state"] == "done" and it.client.get("/boards/story/left").json()["whole"]
        assert it.client.get("/films/story/report.json").json()["takes"][0]["take"] == second
        free = change(it, {"path": "scenes[1].lock", "value": None}, {"path": "scenes[1].take", "value": None})
        assert free.json()["text"] == BOARD


def test_who_may_ask_a_page_with_a_token(folder):
    with studio(folder, shut=True, token="s3cret") as it:
        assert it.client.get("/").status_code == it.client.get("/boards").status_code == 401
        assert it.client.get("/?token=wrong").status_code == 401
        entered = it.client.get("/?token=s3cret")
        assert entered.status_code == 303 and entered.headers["location"] == "/"
        assert {"HttpOnly", "SameSite=strict"} <= set(entered.headers["set-cookie"].split("; "))
        assert it.client.get("/boards").status_code == 200  # the client keeps the cookie
        foreign = {"Origin": "http://evil.example"}
        assert it.client.post("/boards", headers=foreign).status_code == 401
        assert it.client.post("/boards", headers={"Origin": str(it.client.base_url)}).status_code == 201


def test_boards_are_read_again_only_where_their_files_changed(folder, monkeypatch):
    boards = Boards(folder)
    before = boards.versions()
    monkeypatch.setattr("framepack_relax.farm.boards.read_file", None)
    assert boards.versions() == before
    time.sleep(0.01)
    (folder / "story.yaml").write_text(BOARD + "\n")
    with pytest.raises(TypeError):
        boards.versions()
