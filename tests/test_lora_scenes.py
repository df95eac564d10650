"""A scene's own LoRA: besides the board's, another scale of the same file wins; what it costs; where it comes from."""

import random
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from faults import here
from huggingface_hub.utils import HFValidationError, validate_repo_id
from safetensors.torch import load_file
from test_lora import lora_file
from test_lora_files import latents
from test_wan import SIZE
from wan_folders import wan_folder

import framepack_relax as fr
from framepack_relax.families import loaded
from framepack_relax.families.catalog import LORA as USUAL
from framepack_relax.families.catalog import on_hub
from framepack_relax.families.loader import Loading, load
from framepack_relax.rendering import jobs
from framepack_relax.rendering.carry import what_differs
from framepack_relax.storyboard import read_storyboard

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A folder, the model of it, two LoRA."""
    place = tmp_path_factory.mktemp("lora")
    folder = wan_folder(place / "wan", expand=False)
    model = load(str(folder), device="cpu")
    return folder, model, *(lora_file(model.transformer, place / f"{x}.safetensors", n) for n, x in enumerate("ab"))


def render(model, out, loras, **board):
    """A film with a scene for each of `loras`, by its id."""
    scenes = [
        fr.Scene(id=name, prompt="x", seconds=0.3, transition="cut", **({"lora": own} if own else {}))
        for name, own in loras.items()
    ]
    return fr.render(scenes, model=model, out=out, size=SIZE, steps=2, guidance={"text": 1}, **board)


def at(file, scale):
    return {"file": str(file), "scale": scale}


def test_a_scenes_lora_come_to_the_boards_and_another_scale_wins(case, tmp_path):
    _, model, a, b = case
    film = render(model, tmp_path / "film", {"s": None, "t": [at(b, 0.3), at(a, 1.0)]}, lora=[at(a, 0.5)])
    alone = [
        render(model, tmp_path / "s", {"s": None}, lora=[at(a, 0.5)]),
        render(model, tmp_path / "t", {"t": None}, lora=[at(a, 1.0), at(b, 0.3)]),
    ]
    assert all(torch.equal(x, *latents(one)) for x, one in zip(latents(film), alone, strict=True))
    rows = [row["lora"] for row in film.plan.to_json()["sections"]]
    assert [[(one["file"], one["scale"]) for one in row] for row in rows] == [
        [(str(a), 0.5)],
        [(str(a), 1.0), (str(b), 0.3)],
    ]
    assert [one.file for one in film.plan.lora] == [str(a), str(b)] and len(film.report["lora"]) == 2


def test_a_scale_of_0_is_no_lora_to_the_bit_and_in_the_key(case, tmp_path):
    _, model, a, _ = case
    film = render(model, tmp_path / "film", {"s": [at(a, 0.0)], "t": None}, lora=[at(a, 0.5)])
    plain = render(model, tmp_path / "plain", {"s": None})
    assert torch.equal(latents(film)[0], latents(plain)[0]) and not film.plan.sections[0].lora
    again = render(model, tmp_path / "plain", {"s": [at(a, 0.0)]})
    assert again.report["sections"][0]["reused"]


def test_a_change_of_a_scenes_lora_renders_that_scene_alone_anew(case, tmp_path):
    _, model, a, b = case
    for scale, reused in ((0.5, [False, False, False]), (0.6, [True, False, True]), (0.6, [True, True, True])):
        film = render(model, tmp_path / "film", {"s": None, "t": [at(a, scale)], "u": [at(b, 1.0)]})
        assert [row["reused"] for row in film.report["sections"]] == reused


@pytest.mark.parametrize("memory", ["full", "offload"])
def test_sections_switch_and_nothing_is_loaded_twice(case, tmp_path, monkeypatch, memory):
    folder, model, a, b = case
    counts = {"put_on": 0, "stream": 0}
    kept = {name: getattr(loaded, name) for name in counts}

    def spied(name, *given):
        counts[name] += 1
        return kept[name](*given)

    for name in counts:
        monkeypatch.setattr(loaded, name, partial(spied, name))
    other = load(str(folder), device="cpu", memory=memory)
    scenes = {"s": [at(a, 0.5)], "t": None, "u": [at(b, 1.0)], "v": [at(a, 1.0), at(b, 0.5)], "w": None}
    film = render(other, tmp_path / "film", scenes)
    assert counts["put_on"] == 1
    streamed = dict(counts)
    monkeypatch.undo()
    wanted = render(model, tmp_path / "wanted", scenes)
    assert all(torch.equal(x, y) for x, y in zip(latents(film), latents(wanted), strict=True))
    assert streamed["stream"] == (3 if memory == "offload" else 0)  # the encoder, the transformer, then it with LoRA
    assert other.identity == other.weights == model.identity


def test_where_weights_lie_is_chosen_with_them_counted(case, tmp_path, monkeypatch):
    _, model, a, b = case
    plain, sizes = model.identity and model.weight_bytes("full"), []

    def chosen(demand, do=jobs.choose_placement):
        sizes.append(demand.model.weight_bytes("full") - plain)
        return do(demand)

    monkeypatch.setattr(jobs, "choose_placement", chosen)
    render(model, tmp_path / "film", {"s": [at(a, 1.0)], "t": [at(b, 1.0)]})
    tensors = [x for file in (a, b) for x in load_file(file).values()]
    assert sizes[0] == 0 and set(sizes[1:]) == {sum(x.numel() * x.element_size() for x in tensors)}


def test_a_film_renders_again_from_what_it_carries(case, tmp_path):
    _, model, a, b = case
    beside = tmp_path / "beside"
    beside.mkdir()
    for file in (a, b):
        shutil.copy(file, beside)
    (beside / "story.yaml").write_text(
        f"model: {model.source.name}\nsize: [64, 32]\nsteps: 2\nlora: [{{file: {a.name}}}]\nscenes:\n"
        f"  - {{id: s, prompt: x, seconds: 0.3, transition: cut, lora: [{{file: {b.name}, scale: 0.5}}]}}\n"
    )
    film = fr.render(beside / "story.yaml", model=model, out=tmp_path / "out")
    carried = [read_storyboard(tmp_path / "out" / "story.yaml")]
    moved = shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name} moved")
    carried.append(read_storyboard(fr.restore(moved / "out" / "video.mp4", moved / "deep" / "again")))
    for nth, (board, up) in enumerate(zip(carried, ("..", "../.."), strict=True)):
        names = [one.file for one in (*board.lora, *board.scenes[0].lora)]
        assert names == [f"{up}/beside/{x.name}" for x in (a, b)], "no place of this machine's"
        again = fr.render(board, model=model, out=tmp_path / f"again{nth}")
        assert all(torch.equal(x, y) for x, y in zip(latents(film), latents(again), strict=True))


@pytest.fixture
def hub(case, tmp_path, monkeypatch):
    """The hub's cache on disk, as its client lays it out: two revisions of a repository."""
    repository = tmp_path / "hub" / "models--owner--name"
    for name, commit, file in (("main", "1" * 40, case[2]), ("v2", "2" * 40, case[3])):
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / name).write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)
        shutil.copy(file, repository / "snapshots" / commit / USUAL)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository


def test_a_revision_of_the_hub_is_found_and_its_bytes_are_in_the_key(case, hub, tmp_path):
    _, model, *_ = case
    out, films = tmp_path / "film", {}
    for name in ("owner/name", f"owner/name/{USUAL}", "owner/name@v2", f"owner/name@{'2' * 40}/{USUAL}"):
        film = render(model, out, {"s": [{"file": name}]})
        films[name] = film.report["sections"][0]["reused"], film.report["lora"][0]["digest"]
    assert [reused for reused, _ in films.values()] == [False, True, False, True]
    assert len({digest for _, digest in films.values()}) == 2


def test_a_revision_that_is_nowhere_is_told_with_the_way_to_get_it(case, hub, tmp_path):
    _, model, *_ = case
    with pytest.raises(fr.RelaxError, match=r"hf download owner/name pytorch_lora_weights.safetensors --revision v3"):
        render(model, tmp_path / "film", {"s": [{"file": "owner/name@v3"}]})


def board(folder, model, file, head=""):
    text = (
        f"model: {model.source.name}\n{head}lora:\n  - {{file: {file}}}\nscenes: [{{id: s, prompt: x, seconds: 0.3}}]\n"
    )
    (folder / "story.yaml").write_text(text)
    return folder / "story.yaml"


@pytest.mark.parametrize(
    "name",
    ["loras/my style/x.safetensors", "owner/name@v1/../x.safetensors", "a/b/c/../d.safetensors", "owner--x/..",
     "owner/name.git/..", "owner/name@", "owner/name/x.gguf", "owner/name@v1/x.pt", "owner/na--me", "owner/name.git",
     "owner/name//x.safetensors", "loras/../gone.safetensors", "a" * 5000],
)  # fmt: skip
def test_a_name_that_is_neither_a_file_nor_the_hubs_is_one_located_mistake(case, tmp_path, name):
    with pytest.raises(fr.RelaxError) as caught:
        fr.plan(board(tmp_path, case[1], f'"{name}"'))
    (said,) = str(caught.value).splitlines()
    assert "story.yaml:3:12: lora[0].file: " in said
    assert "no such file beside the storyboard, and no" in said and "owner/name[@revision][/file.safetensors]" in said


def test_a_name_that_is_neither_ends_a_plan_with_code_2(case, tmp_path):
    done = here("plan", board(tmp_path, case[1], "loras/my style/x.safetensors"))
    assert done.returncode == 2 and "lora[0].file" in done.stderr and "Traceback" not in done.stderr


def test_a_path_over_another_folder_is_a_path(case, tmp_path):
    (tmp_path / "loras").mkdir()
    shutil.copy(case[2], tmp_path / "x.safetensors")
    assert fr.plan(board(tmp_path, case[1], "loras/../x.safetensors")).lora[0].changed == 8


def test_a_file_that_may_be_the_hubs_is_said_not_to_lie_beside_the_board(case, hub, tmp_path):
    file = board(tmp_path, case[1], "loras/sub/style.safetensors", "size: [64, 32]\n")
    assert "style.safetensors: is no file beside the storyboard" in fr.plan(file).lora[0].in_words
    with pytest.raises(
        fr.RelaxError, match=r"style.safetensors: is no file beside the storyboard.*hf download loras/sub"
    ):
        fr.render(file, model=load(str(case[0]), device="cpu"), out=tmp_path / "out")


def test_what_is_taken_for_the_hubs_its_client_takes():
    drawn, taken = random.Random(5), 0
    for _ in range(20_000):
        name = "".join(
            drawn.choice(["a", "B", "7", ".", "-", "_", "/", "@", ".git", "é"]) for _ in range(drawn.randint(3, 9))
        )
        if found := on_hub(name):
            validate_repo_id(found[0])
            taken += 1
        elif name.count("/") == 1 and "@" not in name and name.isascii():
            with pytest.raises(HFValidationError):
                validate_repo_id(name)
    assert taken > 100


def spelled(folder, case, ways, scene, scale=1.0):
    """A board and its two scenes, whose second has `scene`; `ways` are the board's files."""
    for file in case[2:]:
        shutil.copy(file, folder)
    (folder / "link.safetensors").symlink_to("a.safetensors")
    (folder / "story.yaml").write_text(
        f"model: {case[1].source.name}\nsize: [64, 32]\nsteps: 2\nguidance: {{text: 1}}\n"
        f"lora: [{', '.join(f'{{file: {way}}}' for way in ways)}]\nscenes:\n"
        "  - {id: s, prompt: x, seconds: 0.3, transition: cut}\n"
        f"  - {{id: t, prompt: x, seconds: 0.3, transition: cut, lora: [{{file: {scene}, scale: {scale}}}]}}\n"
    )
    return folder / "story.yaml"


@pytest.mark.parametrize("way", ["./a.safetensors", "link.safetensors", "{folder}/a.safetensors"])
def test_a_file_by_another_name_is_the_same_file(case, tmp_path, way):
    """In the plan, the keys, the film, and the film of the board that this one carries."""
    file = spelled(tmp_path, case, ["a.safetensors"], way.format(folder=tmp_path), 0.25)
    film = fr.render(file, model=case[1], out=tmp_path / "out")
    assert [[(x.file, x.scale) for x in s.lora] for s in film.plan.sections] == [
        [("a.safetensors", 1.0)],
        [("a.safetensors", 0.25)],
    ]
    assert [fit.file for fit in film.plan.lora] == ["a.safetensors"]
    alone = render(case[1], tmp_path / "alone", {"t": [at(case[2], 0.25)]})
    assert torch.equal(latents(film)[1], *latents(alone))
    again = fr.render(tmp_path / "out/story.yaml", model=case[1], out=tmp_path / "again")
    assert all(torch.equal(x, y) for x, y in zip(latents(film), latents(again), strict=True))


def test_a_scale_of_0_switches_a_file_off_by_any_name(case, tmp_path):
    plan = fr.plan(spelled(tmp_path, case, ["a.safetensors", "b.safetensors"], "./a.safetensors", 0))
    assert [[x.file for x in s.lora] for s in plan.sections] == [["a.safetensors", "b.safetensors"], ["b.safetensors"]]


def test_a_file_twice_in_one_list_is_a_located_mistake(case, tmp_path):
    file = spelled(tmp_path, case, ["a.safetensors", "b.safetensors", "./a.safetensors"], "b.safetensors")
    with pytest.raises(
        fr.RelaxError, match=r"^\S*story.yaml:5:\d+: lora\[2\]: is the file of lora\[0\] again; keep one$"
    ):
        fr.plan(file)


def test_a_copy_of_a_file_is_refused_before_anything_is_rendered(case, tmp_path):
    shutil.copy(case[2], tmp_path / "copy.safetensors")
    file = spelled(tmp_path, case, ["a.safetensors"], "copy.safetensors", 0.5)
    with pytest.raises(
        fr.RelaxError, match=r"scenes\[1\].*copy.safetensors: holds the very bytes of a.safetensors; name one"
    ):
        fr.render(file, model=case[1], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_hubs_usual_file_and_revision_are_the_same_written_out(case, hub, tmp_path):
    _, model, *_ = case
    with pytest.raises(fr.RelaxError, match=r"lora\[1\]: is the file of lora\[0\] again"):
        render(model, tmp_path / "film", {"s": None}, lora=[at("owner/name", 1), at(f"owner/name@main/{USUAL}", 1)])


def test_rerun_tells_that_another_lora_lies_under_the_name(case, tmp_path):
    file = board(tmp_path, case[1], "a.safetensors", "size: [64, 32]\nsteps: 2\n")
    shutil.copy(case[2], tmp_path / "a.safetensors")
    film = fr.render(file, model=case[1], out=tmp_path / "out").path
    same = here("rerun", film, "--out", tmp_path / "same", "--device", "cpu")
    assert same.returncode == 0 and "made otherwise" not in same.stderr
    shutil.copy(case[3], tmp_path / "a.safetensors")
    other = here("rerun", film, "--out", tmp_path / "other", "--device", "cpu")
    assert other.returncode == 0 and "will not come out the same to the bit: lora changed" in other.stderr


def test_rerun_tells_of_other_kernels(case, tmp_path):
    model, file = case[1], board(tmp_path, case[1], case[2], "size: [64, 32]\nsteps: 2\n")
    film, story = fr.render(file, model=model, out=tmp_path / "out").path, read_storyboard(file)
    usual = Loading(name=model.source.name, device="cpu")
    assert what_differs(film, story, usual) == ""
    assert "attention" in what_differs(film, story, replace(usual, attention="_native_math"))
    assert "compile" in what_differs(film, story, replace(usual, compile=True))
    math = fr.render(file, model=load(str(case[0]), device="cpu", attention="_native_math"), out=tmp_path / "math").path
    assert what_differs(math, story, replace(usual, attention="_native_math")) == ""
    assert "attention" in what_differs(math, story, usual)
