"""The Python API: plain values of Python are taken, mistakes are RelaxErrors, a render can be watched."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import framepack_relax as fr


class Enough(Exception):
    pass


def scene(name="a", **fields):
    return fr.Scene(**{"id": name, "prompt": "a red figure stands still", "seconds": 1.2, **fields})


@pytest.fixture
def image(tmp_path, board):
    return board("").parent / "hero.png"


def test_paths_and_numpys_numbers_are_values(image):
    made = scene(seconds=np.float32(2.5), steps=np.int64(3), seed=np.uint8(7), relax={"beta": np.float64(0.5)})
    assert (made.seconds, made.steps, made.seed, made.relax.beta) == (2.5, 3, 7, 0.5)
    plan = fr.plan([made], image=image, size=np.array([96, 96]), fps=np.float64(29.97))
    assert plan.shots[0].image == str(image) and plan.size == (96, 96) and plan.fps == 29.97
    assert all(isinstance(value, int) for value in plan.size)
    assert scene(image=Path("a.png")).image == "a.png"
    for wrong in (np.float32(2.5), np.array([1, 2])):
        with pytest.raises(fr.StoryboardError, match=r"^steps: is .*; write a whole number between 1 and 1000$"):
            scene(steps=wrong)


@pytest.mark.parametrize(
    ("slip", "path", "cure"),
    [
        (lambda: scene(secnds=2), "secnds", "did you mean 'seconds'?"),
        (lambda: scene(duration=2), "duration", "write `seconds`"),
        (lambda: scene(relax={"bta": 2}), "relax.bta", "did you mean 'beta'?"),
        (lambda: fr.Relax(beta=2), "beta", "between -1 and 1"),
        (lambda: fr.Guidance(text=0.5), "text", "between 1 and 100"),
        (lambda: fr.Relax(bias=0.5), "bias", "write `history_gain`"),
        (lambda: fr.Relax(schedule="mean"), "schedule", "it belongs under `experimental:`"),
        (lambda: fr.plan([scene()], order="inverted"), "order", "it belongs under `framepack:`"),
        (lambda: fr.Storyboard(scenes=[{"id": "a", "prompt": "x"}]), "scenes[0].seconds", "add it"),
        (lambda: fr.plan([scene()], stepz=2), "stepz", "did you mean 'steps'?"),
    ],
)
def test_slips_in_python_are_told_like_those_of_a_file(slip, path, cure):
    with pytest.raises(fr.StoryboardError) as caught:
        slip()
    (problem,) = caught.value.problems
    assert problem.path == path and cure in problem.message and isinstance(caught.value, fr.RelaxError)


def test_all_slips_of_a_scene_are_told_at_once():
    with pytest.raises(fr.StoryboardError) as caught:
        scene(secnds=2, intensity=3, relax={"bta": 1, "p": 99})
    assert [problem.path for problem in caught.value.problems] == ["intensity", "relax.p", "relax.bta", "secnds"]


def test_a_model_takes_pytorchs_own_devices_and_types(tiny):
    model = fr.load(str(tiny), device=torch.device("cpu"), dtype=torch.float32)
    assert model.device.type == "cpu" and model.dtype == torch.float32


def test_what_a_render_cannot_do_is_told_before_anything_is_loaded(image, tmp_path):
    board = {"image": image, "model": str(tmp_path / "nowhere")}
    for render in (fr.render, fr.stream):
        with pytest.raises(fr.RenderError, match=r"on_nan is 'ignore'; write 'stop' or 'retry'"):
            render([scene()], out=tmp_path / "o", on_nan="ignore", **board)
        with pytest.raises(fr.RenderError, match=r"hero\.png: is no folder"):
            render([scene()], out=image, **board)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        (
            {"device": "cpu"},
            fr.RenderError,
            r"^device: is said when a model is loaded; write model=fr\.load\(.*device='cpu'",
        ),
        ({"memory": "full"}, fr.RenderError, r"^memory: is said when a model is loaded; write model=fr\.load"),
        ({"on_note": None}, fr.RenderError, "^on_note is None; give a function, or leave it out"),
        ({"on_steps": print}, fr.RenderError, "^on_steps: unknown argument; did you mean 'on_step'"),
        ({"output_dir": "o"}, fr.RenderError, "^output_dir: unknown argument; known are out, "),
        ({"fresh": 3}, fr.RenderError, "^fresh is 3; give True or False"),
        ({"draft": "yes"}, fr.RenderError, "^draft is 'yes'; give True or False"),
        ({"out": 3}, fr.RenderError, "^3 is no path; write it as text"),
        ({"model": 3}, fr.ModelError, "^model is 3; give a name, a folder, or what"),
        ({"cfg": 3}, fr.StoryboardError, "^cfg: unknown field; write `guidance"),
    ],
)
def test_arguments_that_a_render_does_not_take_are_told_in_words_of_python(image, given, kind, told):
    for render in (fr.render, fr.stream, fr.preview):
        if not {"device", "memory", "on_note", "on_steps"} & set(given) or render is not fr.preview:
            with pytest.raises(kind, match=told):
                render([scene()], **{"image": image, **given})


def test_one_log_may_be_given_alone(tmp_path):
    for call in (fr.suggest, lambda story, logs: fr.fit_prompts(logs, out=tmp_path / "ridge.json")):
        for logs in ("out/k9", Path("out/k9"), ["out/k9"]):
            with pytest.raises(fr.EvaluationError, match=r"^out/k9: "):
                call([scene()], logs=logs)
    with pytest.raises(fr.RenderError, match=r"^write is 3; give True or False"):
        fr.suggest([scene()], write=3)


@pytest.mark.parametrize("story", [None, 3, {"scenes": []}, scene()])
def test_what_is_no_storyboard_is_refused(story):
    with pytest.raises(fr.StoryboardError, match=r"is no storyboard; give the path of one, a Storyboard or a list"):
        fr.plan(story)


def test_a_render_is_watched_and_stopped_by_its_callbacks(model, image, tmp_path):
    """What is finished when a callback stops the render is kept by the next call."""
    scenes = [scene("a"), scene("b"), scene("c")]
    steps, sections = [], []

    def stop_at_b(section, seed):
        sections.append((section.scene, seed == section.seed))
        if section.scene == "b":
            raise Enough

    options = {"image": image, "steps": 2, "out": tmp_path / "o", "model": model}
    with pytest.raises(Enough):
        fr.render(
            scenes, on_step=lambda section, step: steps.append((section.scene, step)), on_section=stop_at_b, **options
        )
    assert steps == [("a", 0), ("a", 1), ("b", 0), ("b", 1)] and sections == [("a", True), ("b", True)]
    film = fr.render(scenes, **options)
    assert [row["reused"] for row in film.report["sections"]] == [True, True, False]


def test_a_home_in_a_path_is_read(model, image, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert (
        fr.render([scene()], image=image, steps=1, out="~/films", model=model).path == tmp_path / "me/films/video.mp4"
    )
    assert fr.status("~/films").done == 1


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("C:\\films\\a", "name a place on this machine, with /"),
        ("C:/films", "name a place on this machine, with /"),
        ("\\\\server\\films", "name a place on this machine, with /"),
        ("films\\a", "write folders with /"),
        ("'films", "write it without these quotes"),
        ("films\u00a0a", "U\\+00A0 \\(no-break space\\)"),
    ],
)
def test_paths_of_other_systems_and_shells_are_told_with_the_cure_wherever_they_stand(
    image, tmp_path, monkeypatch, name, cure
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "board.yaml").write_text(
        f"model: {name!r}\nimage: hero.png\nscenes: [{{id: a, prompt: x, seconds: 2}}]"
    )
    calls = {
        fr.RenderError: (
            lambda: fr.render([scene()], image=image, out=name),
            lambda: fr.preview([scene()], image=image, out=name, device="cpu"),
            lambda: fr.status(name),
            lambda: fr.restore(name, "again"),
            lambda: fr.restore(image, name),
        ),
        fr.EvaluationError: (lambda: fr.evaluate(name), lambda: fr.evaluate(image, reference=name)),
        fr.ModelError: (lambda: fr.load(name), lambda: fr.plan([scene()], image=image, model=name)),
        fr.StoryboardError: (lambda: fr.read(name), lambda: fr.plan([scene()], image=name)),
    }
    before = set(tmp_path.iterdir())
    for kind, tries in calls.items():
        for call in tries:
            with pytest.raises(kind, match=cure):
                call()
    with pytest.raises(fr.ModelError, match=r"board\.yaml:1:8: model: "):
        fr.plan("board.yaml")
    assert set(tmp_path.iterdir()) == before, "nothing is made under such a name"


@pytest.mark.parametrize("quotes", ["''", '""', "\u2018\u2019", "\u201c\u201d"])
def test_quotes_that_another_shell_leaves_around_a_path_are_not_part_of_it(image, tiny, tmp_path, monkeypatch, quotes):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(tiny)
    begin, end = quotes
    for folder in ("tiny", "~/tiny"):
        assert fr.plan([scene()], image=f"{begin}hero.png{end}", model=f"{begin}{folder}{end}").size == (32, 32)
    (tmp_path / "film").mkdir()
    with pytest.raises(fr.RenderError, match=r"^film: is not the folder of a render"):
        fr.status(f"{begin}film{end}")


def test_a_models_folder_in_the_home_is_found(tiny, image, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny.parent))
    assert fr.plan([scene()], image=image, model=f"~/{tiny.name}").size == (32, 32)
    assert fr.load(f"~/{tiny.name}", device="cpu").family.size == (32, 32)


def test_other_libraries_are_silent_at_work_and_as_before_afterwards(model, image, tmp_path):
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    for library in libraries:
        library.set_verbosity_info()
        library.enable_progress_bar()
    seen = []

    def look(*_):
        seen.extend((library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries)

    fr.render([scene()], image=image, steps=1, out=tmp_path / "o", model=model, on_section=look)
    assert seen == [(logging.ERROR, False)] * 2
    assert [library.get_verbosity() for library in libraries] == [logging.INFO] * 2
    assert all(library.is_progress_bar_enabled() for library in libraries)


def test_a_block_prompt_and_the_same_words_on_one_line_are_the_same_film(board, model, tmp_path):
    words = "  - id: a\n    seconds: 1.2\n    prompt: {}\n    negative_prompt: {}\n"
    block = "|\n      a red figure\n      waves"
    fr.render(board(words.format(block, block), "style: flat"), out=tmp_path / "o", model=model)
    line = board(words.format("a red figure waves", "a red figure waves"), "style: >\n  flat")
    (verdict,) = fr.preview(line, out=tmp_path / "o", model=model)
    assert verdict[1] is None, "it is kept"


@pytest.mark.parametrize("out", [".", "/"])
def test_a_folder_without_a_name_is_refused_with_a_free_one(board, tmp_path, monkeypatch, out):
    story = board("  - {id: a, prompt: a red figure waves, seconds: 1.2}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fr.RenderError, match=r"for instance /\S+-2"):
        fr.preview(story, out=out, device="cpu")


def test_a_colon_in_the_output_is_no_protocol(board, model, tmp_path):
    film = fr.render(
        board("  - {id: a, prompt: a red figure waves, seconds: 1.2}"), out=tmp_path / "take:2", model=model
    )
    assert film.path.is_file()


def test_a_model_folder_may_be_a_path(tiny):
    assert fr.load(tiny, device="cpu").family.name == str(tiny)


@pytest.mark.parametrize(("fps", "read"), [(30000 / 1001, 29.97), (24000 / 1001, 23.976)])
def test_a_broadcasters_rate_may_be_a_quotient(fps, read):
    scene = fr.Scene(id="a", prompt="a red figure waves", seconds=1.2)
    assert fr.read([scene], fps=fps).fps == read
