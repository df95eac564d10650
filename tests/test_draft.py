"""Draft, accept, final: a film small and in few steps, and then the same from its latents, with fewer steps to go."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import HeliosScheduler, UniPCMultistepScheduler
from faults import here, same, sections
from PIL import Image

import framepack_relax as fr
from framepack_relax.api.films import draft_of
from framepack_relax.errors import StoryboardError
from framepack_relax.families.base import Step, noise_table
from framepack_relax.families.framepack.backend import FramePackUniPC, make_solver
from framepack_relax.families.loader import Loading, load
from framepack_relax.farm.queue import Posted, Queue
from framepack_relax.relax.profile import written
from framepack_relax.rendering.session import USUAL, settle
from framepack_relax.rendering.stored import unpack
from framepack_relax.video.reader import read_frames

BOARDS = Path(__file__).parents[1] / "storyboards"
CALM = "{id: calm, prompt: a red figure stands still, seconds: 0.8"
GO = "{id: go, prompt: a red figure does a backflip, seconds: 1.6, intensity: 0.9"


def write(place: Path, scenes=(CALM, GO), head: str = "") -> Path:
    """A board of the fake model, of 128x128 px unless `head` says another size."""
    file = place / "story.yaml"
    head = head if "size" in head else f"size: [128, 128]\n{head}"
    file.write_text(f"model: fake\n{head}\nscenes:\n" + "".join(f"  - {scene}}}\n" for scene in scenes))
    return file


def latents_of(folder: Path, place: int, shot: int = 0) -> torch.Tensor:
    return torch.from_numpy(unpack((folder / f"shots/{shot:02d}/{place:03d}.safetensors").read_bytes()).latents)


def test_a_draft_is_small_and_quick_and_has_a_folder_of_its_own_and_the_final_begins_with_it(tmp_path):
    file = write(tmp_path)
    done = here("render", file, "--draft", cwd=tmp_path)
    assert done.returncode == 0 and "out/story.draft/video.mp4" in done.stdout, done.stderr
    draft = json.loads((tmp_path / "out/story.draft/plan.json").read_text())
    assert draft["size"] == [64, 64] and [len(s["steps"]) for s in draft["sections"]] == [9, 9, 9]
    text = " ".join(here("plan", file, "--from", "out/story.draft", cwd=tmp_path).stdout.split())
    assert "last 15 of 25 steps" in text and "45 steps of euler" in text
    words = ("render", file, "--from", "out/story.draft", "--strength", 0.5)
    done = here(*words, cwd=tmp_path)
    assert done.returncode == 0 and "out/story/video.mp4" in done.stdout, done.stderr
    film = json.loads((tmp_path / "out/story/plan.json").read_text())
    assert film["size"] == [128, 128]
    for section in film["sections"]:
        assert section["sigmas"][0] == pytest.approx(0.48) and len(section["steps"]) == 12, "the first below 0.5"
        assert section["start_from"]["strength"] == 0.5
    assert "3 of 3 sections are kept" in here(*words, "--dry-run", cwd=tmp_path).stdout
    again = here("rerun", tmp_path / "out/story/video.mp4", "--out", tmp_path / "again", cwd=tmp_path.parent)
    assert again.returncode == 0 and same(tmp_path / "out/story", tmp_path / "again"), again.stderr


def test_from_python_it_is_the_same(tmp_path):
    story = fr.read(write(tmp_path))
    draft = fr.render(story, draft=True, out=tmp_path / "draft")
    assert draft.plan.size == (64, 64) and fr.preview(story, draft=True, device="cpu", out=draft.folder)[0].why is None
    start = {"folder": str(draft.folder), "strength": 0.5}
    film = fr.render(story, start_from=start, out=tmp_path / "out")
    assert film.plan.size == (128, 128) and {len(s.steps) for s in film.plan.sections} == {12}


def test_a_draft_keeps_the_aspect_within_what_the_family_takes_and_tokens_enough():
    scenes = [fr.Scene(id="a", prompt="x", seconds=4.0)]
    for model, size, wanted in (
        ("framepack-f1", (640, 608), (320, 304)), ("framepack-f1", (96, 96), (64, 64)), ("fake", (48, 32), (48, 32)),
        ("wan2.2-5b", (1280, 704), (640, 352)), ("hunyuanvideo", (1280, 720), (640, 352)),
    ):  # fmt: skip
        image = {"image": str(BOARDS / "red-beach.png")} if model == "framepack-f1" else {}
        board = fr.read(scenes, model=model, size=size, steps=25, start_from={"strength": 1.0}, **image)
        made = draft_of(board)
        assert (made.size, made.steps, made.speed, made.start_from) == (wanted, 9, "fast", None)


@pytest.mark.parametrize("kind", ["fake", "framepack", "inverted", "hunyuanvideo", "helios", "wan", "wan experts"])
def test_every_family_goes_on_from_a_drafts_latents(kind, folder_of, tmp_path):
    model = load(folder_of("framepack" if kind == "inverted" else kind), device="cpu")
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(tmp_path / "hero.png")
    board = {"image": str(tmp_path / "hero.png")} if model.family.image != "refused" else {}
    board |= {"framepack": {"order": "inverted"}} if kind == "inverted" else {}
    cut = {} if model.family.grid.past else {"transition": "cut"}
    scenes = [fr.Scene(id=f"s{n}", prompt="a red figure", seconds=1.2, **cut) for n in range(2)]
    story = fr.read(scenes, size=(64, 64), steps=6, **board)
    draft = fr.render(story.changed(size=(32, 32), steps=2), model=model, out=tmp_path / "draft")
    start = {"folder": str(draft.folder), "strength": 0.9}
    film = fr.render(story, model=model, start_from=start, out=tmp_path / "out")
    section = film.plan.sections[film.plan.shots[0].sections[0]]  # without a past
    sigma = section.steps[0].sigma
    assert 0 < section.steps[0].index == 6 - len(section.steps) and sigma <= 0.9
    assert film.report["totals"]["forwards"]["cond"] == sum(len(s.steps) for s in film.plan.sections)
    noise = model.noise(section.latents, film.plan.size, section.seed)
    resized = torch.nn.functional.interpolate(
        latents_of(draft.folder, section.place)[0].movedim(1, 0), size=noise.shape[-2:], mode="bicubic", antialias=True
    )
    seen = []
    solver = type(model).solver

    def watched(self, sampler, steps):
        solve = solver(self, sampler, steps)
        return lambda index, v, x: seen.append(x) or solve(index, v, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "solver", watched)
        again = fr.render(story, model=model, start_from=start, out=tmp_path / "again", preview=True)
    assert torch.allclose(seen[0], (1 - sigma) * resized.movedim(0, 1)[None] + sigma * noise, atol=1e-6)
    assert sections(again.folder) == sections(film.folder), "drawn or not"
    assert Image.open(again.folder / "preview.png").height >= 96 and not (film.folder / "preview.png").exists()
    plain = fr.render(story, model=model, out=tmp_path / "plain")
    assert not set(sections(plain.folder).values()) & set(sections(film.folder).values())


def rows(steps: int, first: int) -> list[Step]:
    sigmas = np.linspace(1, 0, steps + 1, dtype=np.float32)[:-1].tolist()
    return [Step(index=n, sigma=s, timestep=1000 * s, scales={}) for n, s in enumerate(sigmas)][first:]


def bent(x, sigma):
    return torch.tanh(2 * x) + torch.sin(torch.tensor(5 * sigma)) * x


def scheduled(scheduler, steps: int, first: int, x: torch.Tensor) -> torch.Tensor:
    """As diffusers' pipelines begin late: the whole table, and set_begin_index."""
    table = np.array([step.sigma for step in rows(steps, 0)], dtype=np.float32)
    scheduler.set_timesteps(sigmas=table)
    scheduler.sigmas[0] = table[0].item()
    scheduler.set_begin_index(first)
    for step in rows(steps, first):
        x = scheduler.step(bent(x, step.sigma), scheduler.timesteps[step.index], x, return_dict=False)[0]
    return x


def solved(solve, steps: int, first: int, x: torch.Tensor) -> torch.Tensor:
    for step in rows(steps, first):
        x = solve(step.index, bent(x, step.sigma), x)
    return x


@pytest.mark.parametrize(("asked", "drafted"), [(2, 2), (4, 4), (6, 4), (13, 5), (25, 9)])
def test_a_draft_has_a_third_of_the_steps_but_four(asked, drafted, tmp_path):
    board = fr.read([fr.Scene(id="a", prompt="a man waits", seconds=1.2)], model="fake", steps=asked)
    film = fr.render(board, draft=True, out=tmp_path / "film")
    assert {len(section.steps) for section in film.plan.sections} == {drafted}


@pytest.mark.parametrize("steps", [4, 12, 25])
def test_a_solver_that_begins_late_is_diffusers_own_with_set_begin_index(steps, folder_of):
    """Its order grows from 1 again, its corrector rests in the steps that the config names, counted from the first."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}
    wan, helios = (load(folder_of(name), device="cpu") for name in ("wan", "helios"))
    x = torch.randn(1, 4, 2, 2, 2, generator=torch.Generator().manual_seed(3))
    for first in range(1, steps):
        ours = solved(make_solver("unipc", noise_table(rows(steps, first)), first=first), steps, first, x)
        assert torch.equal(ours, scheduled(FramePackUniPC.of(steps, torch.float32), steps, first, x))
        for off in ((), (0, first, first + 1)):
            wan.family = replace(wan.family, shift=wan.family.schedule.model_copy(update={"disable_corrector": off}))
            theirs = UniPCMultistepScheduler(**flow, **wan.family.schedule.solver)
            ours = solved(wan.solver("unipc", rows(steps, first)), steps, first, x)
            assert torch.equal(ours, scheduled(theirs, steps, first, x)), (first, off)
        for sampler in ("euler", "unipc"):
            table = np.array([step.sigma for step in rows(steps, 0)])
            theirs = HeliosScheduler(stages=1, scheduler_type=sampler, **helios.family.schedule.solver)
            theirs.set_timesteps(steps, sigmas=table)
            theirs._step_index = first
            made = x
            for step in rows(steps, first):
                made = theirs.step(bent(made, step.sigma), theirs.timesteps[step.index], made, return_dict=False)[0]
            assert torch.equal(solved(helios.solver(sampler, rows(steps, first)), steps, first, x), made)


def keys_of(story, out):
    return [key.key for _, key in sorted(settle(story, out, Loading(name="fake", device="cpu"), USUAL).keys.items())]


def test_a_scene_may_say_its_own_strength_and_1_is_from_noise(tmp_path):
    file = write(tmp_path, scenes=(CALM + ", start_from: {strength: 1}", GO + ", start_from: {strength: 0.3}"))
    plain = fr.render(file, out=tmp_path / "plain")
    fr.render(file, draft=True, out=tmp_path / "draft")
    start = {"folder": str(tmp_path / "draft")}
    film = fr.render(file, start_from=start, out=tmp_path / "out")
    assert [s.start_from and s.start_from.strength for s in film.plan.sections] == [None, 0.3, 0.3]
    made, noise = sections(film.folder), sections(plain.folder)
    assert [made[name] == noise[name] for name in sorted(made)] == [True, False, False]
    story, out = fr.read(file), tmp_path / "o"
    unsaid = story.changed(scenes=tuple(s.model_copy(update={"start_from": None}) for s in story.scenes))
    assert keys_of(unsaid, out) == keys_of(story, out) == keys_of(unsaid.changed(start_from={"strength": 1}), out)
    pairs = zip(keys_of(story.changed(start_from=start), out), keys_of(story, out), strict=True)
    assert [one == other for one, other in pairs] == [True, False, False]


def test_another_draft_is_another_film_and_the_same_one_is_kept(tmp_path):
    file, start = write(tmp_path), {"folder": str(tmp_path / "draft"), "strength": 0.6}
    fr.render(file, draft=True, out=tmp_path / "draft")
    film = fr.render(file, start_from=start, out=tmp_path / "out")
    before = sections(film.folder)
    fr.render(file, draft=True, out=tmp_path / "elsewhere")
    moved = fr.render(file, start_from={**start, "folder": str(tmp_path / "elsewhere")}, out=tmp_path / "out")
    assert all(row["reused"] for row in moved.report["sections"]), "its place is no part of it"
    near = fr.preview(file, start_from={**start, "strength": 0.601}, out=tmp_path / "out", device="cpu")
    assert [verdict.why for verdict in near] == [None] * 3, "the same step, the same section"
    fr.render(file, draft=True, seed=7, out=tmp_path / "draft")
    verdicts = fr.preview(file, start_from=start, out=tmp_path / "out", device="cpu")
    assert verdicts[0].why.startswith("draft: ") and all(verdict.why for verdict in verdicts)
    again = fr.render(file, start_from=start, out=tmp_path / "out")
    assert not set(sections(again.folder).values()) & set(before.values())


def test_a_stopped_final_goes_on_to_the_same_bits(tmp_path):
    file, start = write(tmp_path), {"folder": str(tmp_path / "draft"), "strength": 0.6}
    fr.render(file, draft=True, out=tmp_path / "draft")
    whole = fr.render(file, start_from=start, out=tmp_path / "whole")
    steps = []

    def stop(section, step):
        steps.append(step)
        if section.index == 1 and step == 3:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fr.render(file, start_from=start, out=tmp_path / "out", on_step=stop)
    assert steps[:15] == list(range(15)), "steps count from 0, wherever they begin"
    film = fr.render(file, start_from=start, out=tmp_path / "out")
    assert [row["reused"] for row in film.report["sections"]] == [True, False, False]
    assert same(whole.folder, film.folder)


def test_what_is_tried_again_starts_from_the_same_point(tmp_path):
    ladder = "ladder: [{}, {relax: {beta: 0.5}}]"
    own = "relax: {target: [context], beta: 1, p: 0.1}"
    go = f"{GO}, {own}"
    file = write(tmp_path, scenes=(CALM, go), head=f"ensure: {{motion: 0.9, tries: 3, {ladder}}}")
    fr.render(file, draft=True, out=tmp_path / "draft", ensure=None)
    start = {"folder": str(tmp_path / "draft"), "strength": 0.6}
    film = fr.render(file, start_from=start, out=tmp_path / "out")
    tries = film.report["sections"][1]["tries"]
    kept = next(each for each in tries if each["kept"])
    assert len(tries) == 3 and {sum(each["forwards"].values()) for each in tries} <= {15, 30, 45}
    relax = film.plan.sections[1].ensure.rungs[kept["rung"]].relaxation
    story = fr.read(file, start_from=start, ensure=None)
    again = story.scenes[1].model_copy(update={"relax": fr.Relax(**written(relax))})
    plain = fr.render(story.changed(scenes=(story.scenes[0], again)), out=tmp_path / "plain")
    assert torch.equal(latents_of(film.folder, 1), latents_of(plain.folder, 1))


MISTAKES = [
    ({"scenes": (CALM.replace("calm", "quiet"), GO)}, {}, "has no scene quiet"),
    ({"scenes": (CALM.replace("0.8", "1.6"), GO)}, {}, "has 0.8333 s of scene calm, and the film 1.633"),
    ({"scenes": (CALM, GO + ", transition: cut")}, {}, "has another transition before scene go"),
    ({"head": "fps: 24"}, {}, "has 30 frames a second, and the film 24"),
    ({}, {"strength": 0.01}, "is 0.01, and the last of 25 steps begins at sigma 0.04; write more"),
    ({}, {"folder": None}, "names no draft; add `folder:`"),
    ({}, {"folder": "nowhere"}, "is not the folder of a render"),
    ({}, {"strength": 0}, "must be above 0 and at most 1"),
]


@pytest.mark.parametrize(("other", "said", "wrong"), MISTAKES)
def test_a_draft_that_does_not_fit_is_one_located_message_with_the_cure(other, said, wrong, tmp_path):
    fr.render(write(tmp_path), draft=True, out=tmp_path / "draft")
    start = {name: value for name, value in {"folder": "draft", "strength": 0.6, **said}.items() if value is not None}
    line = "start_from: {" + ", ".join(f"{name}: {value}" for name, value in start.items()) + "}"
    file = write(tmp_path, **{**other, "head": f"{other.get('head', '')}\n{line}"})
    for words in (("render", "--out", tmp_path / "out"), ("render", "--dry-run"), ("plan",)):
        done = here(words[0], file, *words[1:])
        assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "out").exists()
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
        assert line.startswith(f"{file}:4:") and ": start_from" in line and wrong in line, done.stderr


def test_a_draft_starts_from_noise_and_says_so(tmp_path):
    file = write(tmp_path)
    for words, named in (
        (("--from", "nosuch", "--strength", 0.5), "--from and --strength"), (("--strength", 0.5), "--strength"),
    ):  # fmt: skip
        for command in ("render", "plan"):
            done = here(command, file, "--draft", *words, cwd=tmp_path)
            assert done.returncode == 2 and not (tmp_path / "out").exists()
            assert done.stderr == f"--draft and {named}: a draft starts from noise; leave one of both out\n"
    for call in (fr.render, fr.preview):
        with pytest.raises(
            fr.RenderError, match=r"^draft and start_from: a draft starts from noise; leave one of both"
        ):
            call(file, draft=True, start_from={"folder": "nosuch"}, out=tmp_path / "out")
    own = write(tmp_path, head="start_from: {folder: nosuch}")
    done = here("plan", own, "--draft", cwd=tmp_path)
    assert done.returncode == 0 and "start_from is left out: a draft starts from noise" in done.stderr
    film = fr.render(own, draft=True, out=tmp_path / "out")
    assert "start_from is left out: a draft starts from noise" in film.plan.warnings


def test_a_draft_is_as_small_as_it_is_meant_to_be_and_its_film_is_warned_of(tmp_path):
    for size, warned in (("[64, 64]", False), ("[256, 256]", True)):
        file = write(tmp_path, head=f"size: {size}")
        for words in ((), ("--draft",)):
            assert ("times the area" in here("plan", file, *words).stderr) == warned


def test_an_options_mistake_names_the_option_and_the_files_its_line(tmp_path):
    file = write(tmp_path, head="start_from: {folder: nosuch, strength: 0.01}")
    (tmp_path / "bare").mkdir()
    bare = write(tmp_path / "bare")

    def told(file, *words):
        done = here("render", file, *words, cwd=tmp_path)
        assert done.returncode == 2 and not (tmp_path / "out").exists()
        return [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]

    (folder, low) = told(bare, "--from", "D", "--strength", 0.01)
    assert folder.startswith(f"--from: {tmp_path}/D: is not the folder of a render")
    assert low.startswith("--strength: is 0.01, and the last of 25 steps")
    (line,) = told(bare, "--strength", 5)
    assert line.startswith("--strength: is 5; must be above 0")
    (line,) = told(bare, "--strength", 0.5)
    assert line.startswith("--strength: names no draft")
    (low, folder) = sorted(told(file, "--from", "D"), key=lambda line: "--from" in line)
    assert low.startswith(f"{file}:3:") and "start_from.strength: is 0.01" in low and folder.startswith("--from: ")
    (folder,) = told(file, "--strength", 0.5)
    assert folder.startswith(f"{file}:3:") and "nosuch: is not the folder" in folder
    (seed,) = told(bare, "--seed", -1)
    assert seed.startswith("--seed: is -1")
    (finish,) = told(bare, "--finish", "cp a b")
    assert finish.startswith("--finish: must hold {input}")
    with pytest.raises(StoryboardError) as error:
        fr.plan(file, start_from={"folder": "nosuch", "strength": 0.01})
    assert [str(p).partition(": ")[0] for p in error.value.problems] == ["start_from", "start_from.strength"]


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ("out/b-draft-2", "start_from: {folder: .., strength: 0.6}"), ("out/k9", "start_from: {folder: ..,"),
        ("0.5", "start_from: {strength: 0.5}"), ("'0.5'", "start_from: {strength: 0.5}"),
    ],
)  # fmt: skip
def test_a_digit_of_a_path_is_no_number(said, form, tmp_path):
    done = here("plan", write(tmp_path, head=f"start_from: {said}"))
    assert done.returncode == 2 and f"write `{form}" in done.stderr


def test_an_unfinished_draft_a_films_own_folder_and_another_family_are_refused(tmp_path, tiny):
    file = write(tmp_path)

    def stop(section, seed):
        if section.index == 1:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fr.render(file, draft=True, out=tmp_path / "draft", on_section=stop)
    start = {"folder": str(tmp_path / "draft")}
    with pytest.raises(StoryboardError, match="not finished, 2 of 3 sections of draft are there; render it to its end"):
        fr.render(file, start_from=start, out=tmp_path / "out")
    fr.render(file, draft=True, out=tmp_path / "draft")
    with pytest.raises(StoryboardError, match="is where this film goes"):
        fr.render(file, start_from=start, out=tmp_path / "draft")
    Image.new("RGB", (32, 32)).save(tmp_path / "hero.png")
    with pytest.raises(StoryboardError, match=r"is a draft of fake, and latents of .* are others"):
        board = {"model": str(tiny), "size": None, "image": str(tmp_path / "hero.png")}
        scenes = [fr.Scene(id="calm", prompt="x", seconds=1.2)]
        fr.render(scenes, start_from=start, out=tmp_path / "out", **board)
    (tmp_path / "draft/plan.json").write_text('{"shots": [], "scenes": [{"scene": "calm"}]}')
    with pytest.raises(StoryboardError, match=r"plan\.json: is damaged"):
        fr.render(file, start_from=start, out=tmp_path / "out")


def test_latents_of_other_channels_and_a_draft_that_goes_away_are_told_where_they_are_met(tmp_path):
    file, start = write(tmp_path), {"folder": str(tmp_path / "draft")}
    fr.render(file, draft=True, out=tmp_path / "draft")

    def gone(section, seed):
        (tmp_path / "draft/shots/00/001.safetensors").unlink(missing_ok=True)

    with pytest.raises(fr.RenderError, match=r"001\.safetensors: the draft was removed, damaged or rendered anew"):
        fr.render(file, start_from=start, out=tmp_path / "out", on_section=gone)
    fr.render(file, draft=True, out=tmp_path / "draft", fresh=True)
    model = fr.load("fake", device="cpu")
    model.latent_channels = 3
    with pytest.raises(
        fr.RenderError, match=r"scene calm, section 0: .* has latents \[1, 4, 7\], and the model \[1, 3"
    ):
        fr.render(file, model=model, start_from=start, out=tmp_path / "others")


def test_a_posted_board_names_no_folder(tmp_path):
    queue = Queue(tmp_path / "films", fr.Workers(device="cpu"), models=("fake",))
    text = b"model: fake\nstart_from: {folder: /etc}\nscenes: [{id: a, prompt: x, seconds: 1}]\n"
    with pytest.raises(StoryboardError, match=r"start_from\.folder: names a folder"):
        queue.plan(Posted(text=text))


@pytest.mark.slow
def test_on_the_puppet_the_final_shows_what_the_draft_did(tmp_path):
    """Of the flip's frames as 24x24 luma, what changed since the film's first frame correlates with the draft's."""
    from measure_draft import films, likeness

    board = tmp_path / "story.yaml"
    text = (BOARDS / "draft.yaml").read_text()
    board.write_text(text.replace("start_from: {strength: 0.4}", ""))
    (tmp_path / "red-beach.png").write_bytes((BOARDS / "red-beach.png").read_bytes())
    made, first = films(fr.load("puppet", device="cpu"), tmp_path, str(board), 1)
    alike = {name: likeness(made["draft"], frames, first) for name, frames in list(made.items())[1:]}
    assert alike["0.4"][0] > alike["1.0"][0] + 3 and alike["0.6"][0] > alike["1.0"][0] + 2
    assert alike["0.4"][1] > 0.7 > alike["1.0"][1] and alike["0.6"][1] > alike["1.0"][1] + 0.2
    assert len(list(read_frames(tmp_path / "seed-1/draft/video.mp4"))) == len(made["0.6"])
