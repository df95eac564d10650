"""Whole renders on a tiny model: what they leave behind, and that the bits depend on the plan alone."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import framepack_relax as fr
from framepack_relax.storyboard import parse_storyboard
from framepack_relax.video.reader import read_frames, read_metadata

FILM = """
  - {id: calm, prompt: a red figure stands still, seconds: 2.4}
  - id: flip
    prompt: a red figure does a backflip
    seconds: 1.2
    intensity: 0.9
    relax: {target: [context], blur: 0.6}
  - {id: next, prompt: a blue figure walks quickly, seconds: 2.4, transition: cut, guidance: {text: 3}}
"""


@pytest.fixture
def film(board, model, tmp_path):
    return fr.render(board(FILM, 'title: "Äh"'), out=tmp_path / "out", model=model)


def test_a_run_folder_holds_everything(film, tmp_path):
    out = tmp_path / "out"
    found = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    shots = {"00": ("start", "000", "001", "002"), "01": ("start", "000", "001")}
    sections = {f"shots/{shot}/{name}.safetensors" for shot, names in shots.items() for name in names}
    files = {"video.mp4", "plan.json", "report.json", "story.yaml", "contact.png", "curves.png"}
    files |= {"framepack-relax.json", *(name for name in found if name.startswith("images/"))}
    assert found == files | sections and sum(name.startswith("images/") for name in found) == 1
    assert len(list(read_frames(film.path))) == 182 == film.plan.frames
    latents = load_file(out / "shots/00/001.safetensors")["latents"]
    assert latents.shape == (1, 4, 9, 4, 4) and latents.dtype == torch.float32
    assert json.loads((out / "plan.json").read_text())["sections"][2]["target"] == ["context"]
    tags = read_metadata(film.path)
    resolved = parse_storyboard(tags["framepack_relax_storyboard"])
    assert tags["title"] == resolved.title == "Äh"
    assert (resolved.size, resolved.fps, resolved.framepack.order) == ((32, 32), 30, "forward")
    assert resolved == parse_storyboard((out / "story.yaml").read_text(encoding="utf8"))
    facts = json.loads(tags["framepack_relax"])
    assert set(facts) == {
        "model",
        "weights",
        "lora",
        "dtype",
        "device",
        "versions",
        "seeds",
        "scenes",
        "film",
        "packets",
    }
    assert facts["scenes"][1] == {
        "id": "flip",
        "prompt": "a red figure does a backflip",
        "frames": [73, 109],
        "follows": True,
    }
    assert [scene["follows"] for scene in facts["scenes"]] == [False, True, False]


def test_the_report_counts_forwards_by_kind_and_sets_motion_beside_seam_and_drift(film):
    report = json.loads((film.folder / "report.json").read_text())
    forwards = [section["forwards"] for section in report["sections"]]
    assert [f["cond"] for f in forwards] == [2] * 5
    assert [f["uncond"] for f in forwards] == [0, 0, 0, 2, 2]
    assert forwards[2]["free"] == 2 and sum(f["free"] for f in forwards) == 2
    assert report["totals"]["forwards"] == {"cond": 10, "uncond": 4, "sharp": 0, "free": 2}
    assert all({"motion", "seam", "drift", "seconds", "beta", "p", "blur"} <= set(s) for s in report["sections"])
    assert report["unread"] == {"a blue figure walks quickly": ["does not know quickly"]}
    assert report["totals"]["peak_bytes"] > 0 and len(report["model"]["weights"]) == 32


def test_what_the_model_does_not_read_is_told_before_the_first_step(board, model, tmp_path):
    told = []
    given = {"on_note": told.append, "on_step": lambda section, step: told.append(step)}
    fr.render(board(FILM), out=tmp_path / "out", model=model, **given)
    assert told[:2] == ["the model does not know quickly in 'a blue figure walks quickly'", 0]


def latents(folder):
    return {
        file.relative_to(folder): load_file(file)["latents"].numpy().tobytes() for file in folder.rglob("*.safetensors")
    }


def test_same_plan_and_seed_give_the_same_bits(film, board, model, tmp_path):
    again = fr.render(board(FILM), out=tmp_path / "again", model=model)
    assert latents(film.folder / "shots") == latents(again.folder / "shots")
    assert all(np.array_equal(a, b) for a, b in zip(read_frames(film.path), read_frames(again.path), strict=True))


def test_a_calm_scene_does_not_feel_its_neighbours_settings_and_a_cut_starts_anew(film, board, model, tmp_path):
    changed = FILM.replace("0.9", "0.0").replace("blur: 0.6", "blur: 0.0")
    other = fr.render(board(changed), out=tmp_path / "other", model=model)
    a, b = latents(film.folder / "shots"), latents(other.folder / "shots")
    differs = sorted(str(name) for name in a if a[name] != b[name])
    assert differs == ["00/002.safetensors"]


def test_finished_sections_are_not_rendered_again(film, board, model, tmp_path):
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/shots").rglob("0*.safetensors")}
    (tmp_path / "out/shots/00/002.safetensors").unlink()
    again = fr.render(board(FILM), out=tmp_path / "out", model=model)
    assert [section["reused"] for section in again.report["sections"]] == [True, True, False, True, True]
    assert {f for f, t in files.items() if f.stat().st_mtime_ns != t} == {tmp_path / "out/shots/00/002.safetensors"}


def test_other_settings_weights_or_a_broken_file_are_rendered_again(film, board, model, tmp_path):
    (tmp_path / "out/shots/00/000.safetensors").write_bytes(b"half a file")
    again = fr.render(
        board(FILM.replace("guidance: {text: 3}", "guidance: {text: 2}")), out=tmp_path / "out", model=model
    )
    assert [section["reused"] for section in again.report["sections"]] == [False] * 5


def test_stream_hands_over_sections_that_are_on_disk_and_frames_that_add_up(board, model, tmp_path):
    seen, frames = [], 0
    for done in fr.stream(board(FILM), out=tmp_path / "s", model=model):
        file = tmp_path / f"s/shots/{done.plan.shot:02d}/{done.plan.place:03d}.safetensors"
        assert torch.equal(load_file(file)["latents"], done.latents)
        assert done.first_frame == frames
        frames += len(done.frames)
        seen.append(done.plan.index)
    assert seen == [0, 1, 2, 3, 4] and frames == 182 and not (tmp_path / "s/video.mp4").exists()


def test_stopping_keeps_what_is_finished(board, model, tmp_path):
    stream = fr.stream(board(FILM), out=tmp_path / "s", model=model)
    next(stream), next(stream)
    stream.close()
    film = fr.render(board(FILM), out=tmp_path / "s", model=model)
    assert [section["reused"] for section in film.report["sections"]] == [True, True, False, False, False]


def test_inverted_order_renders_a_shot_from_its_end_and_shows_it_from_its_start(board, model, tmp_path):
    order: list[int] = []
    told = {"on_section": lambda section, seed: order.append(section.index)}
    film = fr.render(board(FILM, "framepack: {order: inverted}"), out=tmp_path / "i", model=model, **told)
    assert order == [2, 1, 0, 4, 3]
    assert len(list(read_frames(film.path))) == 182 and [s["index"] for s in film.report["sections"]] == [0, 1, 2, 3, 4]
    shown = list(fr.stream(board(FILM, "framepack: {order: inverted}"), out=tmp_path / "i", model=model))
    assert [(d.plan.index, d.first_frame, len(d.frames)) for d in shown] == [
        (0, 0, 0), (1, 0, 40), (2, 40, 69), (3, 109, 0), (4, 109, 73),
    ]  # fmt: skip


def test_the_blend_decodes_the_same_latents_to_as_many_frames(film, board, model):
    streamed = list(read_frames(film.path))
    other = fr.render(board(FILM, "framepack: {decode: blend}"), out=film.folder, model=model)
    assert all(section["reused"] for section in other.report["sections"]), "the decode changes no latents"
    blended = list(read_frames(other.path))
    assert len(blended) == len(streamed) == 182
    assert not all(np.array_equal(a, b) for a, b in zip(blended, streamed, strict=True))


def test_a_profiles_file_goes_along_with_the_film(board, model, tmp_path):
    story = board(FILM, "profile: mine.yaml")
    points = "{name: mine, threshold: 0.1, points: [[0.1, 0.2], [1, 0.9]], p: 1.3, blur: 0.4, target: [text, context]}"
    (tmp_path / "mine.yaml").write_text(points)
    film = fr.render(story, out=tmp_path / "out", model=model)
    again = fr.render(fr.restore(film.path, tmp_path / "moved"), out=tmp_path / "moved", model=model)
    assert film.plan.sections[2].relaxation.p == 1.3 and film.plan.sections[2].relaxation.target == ("context",)
    assert [s.relaxation for s in again.plan.sections] == [s.relaxation for s in film.plan.sections]
    assert latents(again.folder / "shots") == latents(film.folder / "shots")
    (tmp_path / "mine.yaml").write_text("name: mine\npoints: [[0.5, 0.2], [0.3, 2]]\nlevels: [[0.9, {betta: 1}]]\n")
    with pytest.raises(fr.StoryboardError) as caught:
        fr.plan(story)
    assert [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems] == [
        "mine.yaml:2:28: points[1][1]: is 2; must be between -1 and 1",
        "mine.yaml:3:17: levels[0][1].betta: unknown field; did you mean 'beta'?",
    ]


def test_unipc_and_euler_agree_where_the_field_is_constant_and_differ_elsewhere(board, model, tmp_path):
    films = [
        next(fr.stream(board(FILM, f"sampler: {name}").as_posix(), out=tmp_path / name, model=model)).latents
        for name in ("unipc", "euler")
    ]
    assert not torch.equal(*films) and all(torch.isfinite(x).all() for x in films)


def test_a_list_of_scenes_renders(model, tiny, board, tmp_path):
    board(FILM)
    scenes = [fr.Scene(id="a", prompt="a red figure waves", seconds=1.2, intensity=0.8)]
    film = fr.render(scenes, out=tmp_path / "l", model=model, image=str(tmp_path / "hero.png"), steps=1, seed=4)
    assert film.plan.frames == 37 and film.path.exists()


def test_nan_latents_stop_the_render_and_name_the_section(board, model, tmp_path):
    weight = model.transformer.proj_out.weight
    before = weight.detach().clone()
    try:
        weight.data[0, 0] = float("nan")
        with pytest.raises(fr.RenderError, match="scene calm, section 0, step 0: the latents hold NaN"):
            fr.render(board(FILM), out=tmp_path / "n", model=model)
    finally:
        weight.data.copy_(before)
    assert not list((tmp_path / "n").rglob("000.safetensors")) and not (tmp_path / "n/video.mp4").exists()


def test_a_file_where_the_folder_should_be(board, model, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(fr.RenderError, match="taken: is no folder"):
        fr.render(board(FILM), out=tmp_path / "taken", model=model)


@pytest.mark.parametrize(
    ("relax", "passes"),
    [
        ("experimental: {lowpass: 0.5}", (2, 2, 2, 0)),
        ("experimental: {lowpass: 0.5, lowpass_above: 1.0}", (2, 2, 0, 0)),
        ("target: [text], beta: 1.0, experimental: {schedule: interval, interval: [0.9, 1.0]}", (2, 1, 0, 0)),
        ("target: [context], beta: 0.75, experimental: {schedule: mean}", (2, 2, 0, 2)),
        ("history_gain: 0.5, experimental: {gain_on: all}", (2, 2, 0, 0)),
        ("blur: 0.6, scope: history, experimental: {blur_of: v}", (2, 2, 0, 0)),
        ("experimental: {freeinit: 2}", (6, 6, 0, 0)),
        ("experimental: {freeinit: 0}", (2, 2, 0, 0)),  # off
        ("target: [context], beta: 0.75, experimental: {freeinit: 1}", (4, 4, 0, 4)),
    ],
)
def test_comparators_change_the_film_with_the_passes_that_they_need(board, model, tmp_path, relax, passes):
    """A storyboard names any of them; a low-pass that never acts gives the bits of plain FramePack."""
    calm = "  - {id: calm, prompt: a red figure stands still, seconds: 1.2}\n"
    scene = "  - {id: act, prompt: a red figure jumps, seconds: 1.2, guidance: {text: 3}, relax: {%s}}"
    plain = list(fr.stream(board(calm + scene % "beta: 0.0"), out=tmp_path / "plain", model=model))[-1]
    made = list(fr.stream(board(calm + scene % relax), out=tmp_path / "made", model=model))[-1]
    assert tuple(made.report["forwards"].values()) == passes
    assert torch.equal(made.latents, plain.latents) == ("above: 1.0" in relax or "freeinit: 0" in relax)


def test_a_ramp_keeps_the_frames_beside_the_past_nearer_to_the_plain_film(board, model, tmp_path):
    calm = "  - {id: calm, prompt: a red figure stands still, seconds: 1.2}\n"
    scene = "  - {id: act, prompt: a red figure jumps, seconds: 1.2, steps: 1, relax: {target: [context], beta: %s}}"

    def made(name, relax):
        story = board(calm + scene % relax, head="sampler: euler")
        return list(fr.stream(story, out=tmp_path / name, model=model))[-1].latents

    plain, loose, ramp = made("plain", "0"), made("loose", "1"), made("ramp", "1, experimental: {ramp: 4}")
    share = ((ramp - plain) / (loose - plain)).flatten(3).median(-1).values.mean((0, 1))  # of one step: the ramp itself
    torch.testing.assert_close(share, torch.tensor([0.25, 0.5, 0.75, *[1.0] * (len(share) - 3)]), atol=1e-3, rtol=0)


def test_an_error_of_a_callback_comes_out_as_it_is(board, model, tmp_path):
    def fail(section, step):
        raise ConnectionError(111, "my server is down")

    with pytest.raises(ConnectionError, match="my server is down"):
        fr.render(board(FILM), out=tmp_path / "out", model=model, on_step=fail)


def test_a_full_main_memory_is_one_message_and_what_is_finished_is_kept(board, model, tmp_path):
    def fill(section, step):
        if section.index == 1:
            torch.empty(1 << 60, dtype=torch.uint8)

    with pytest.raises(fr.RenderError, match=r"section 1: the main memory is full .* is kept"):
        fr.render(board(FILM), out=tmp_path / "out", model=model, on_step=fill)
    assert fr.status(tmp_path / "out").done == 1
