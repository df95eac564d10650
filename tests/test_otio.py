"""Timelines for editors: out with clips, markers and metadata, and back to the same board."""

import json

import pytest
from exchanged import imported, survives
from faults import here
from PIL import Image

import framepack_relax as fr

otio = pytest.importorskip("opentimelineio", reason="pip install 'framepack-relax[otio]'")

BOARD = """\
title: Two
model: fake
seed: 5
fps: 29.97
style: noir
scenes:
- {id: calm, prompt: a man stands, seconds: 2.4, seed: 9}
- {id: flip, prompt: "he flips, then lands", seconds: 2.4, intensity: 0.9, guidance: {text: 3}}
- {id: next, prompt: a dog, seconds: 1.3, transition: cut}
"""


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    (folder / "story.yaml").write_text(BOARD)
    return fr.render(folder / "story.yaml", out=folder / "out").folder


def export(film, name):
    done = here("export", film, "--otio", film.parent / name)
    assert done.returncode == 0, done.stderr
    return film.parent / name


def test_a_clip_is_a_scene_of_the_film_and_a_marker_a_border(film):
    line = otio.adapters.read_from_file(str(export(film, "film.otio")))
    report = json.loads((film / "report.json").read_text())
    (track,) = line.video_tracks()
    clips = list(track.find_clips())
    assert [clip.name for clip in clips] == ["calm", "flip", "next"] and line.name == "Two"
    spans = [(int(c.source_range.start_time.value), int(c.source_range.end_time_exclusive().value)) for c in clips]
    assert spans == [tuple(scene["frames"]) for scene in report["scenes"]]
    assert {clip.source_range.duration.rate for clip in clips} == {30000 / 1001}
    for clip in clips:
        media = clip.media_reference
        assert (film.parent / media.target_url).samefile(film / "video.mp4")
        assert media.available_range.duration.value == report["totals"]["frames"]
        said = clip.metadata["framepack_relax"]
        rows = [row for row in report["sections"] if row["scene"] == clip.name]
        assert [int(row["seed"]) for row in said["rendered"]] == [row["seed"] for row in rows]
        assert [int(marker.marked_range.start_time.value) for marker in clip.markers] == [r["frames"][0] for r in rows]
    assert clips[1].metadata["framepack_relax"]["intensity"] == 0.9
    markers = [marker for clip in clips for marker in clip.markers]
    assert markers[0].color == "GREEN" and clips[2].markers[0].comment == "cut"
    for marker, row in zip(markers, report["sections"], strict=True):
        jumps = (
            "WHITE"
            if marker.comment == "cut"
            else "RED"
            if row["seam"] >= 4
            else "YELLOW"
            if row["seam"] >= 2
            else "GREEN"
        )
        assert marker.color == jumps


def test_takes_are_alternative_references_that_wait_to_be_picked(tmp_path):
    (tmp_path / "story.yaml").write_text(BOARD)
    out = fr.render(tmp_path / "story.yaml", out=tmp_path / "out").folder
    fr.take(tmp_path / "story.yaml", "flip", n=2, out=out)
    names = {place.name for place in (out / "takes/flip").iterdir() if place.is_dir()}
    clips = list(otio.adapters.read_from_file(str(export(out, "film.otio"))).video_tracks()[0].find_clips())
    others = [set(clip.media_references()) - {clip.active_media_reference_key} for clip in clips]
    assert others == [set(), names, set()] and len(names) == 3, "two more, and the film's own"
    assert all(clip.active_media_reference_key == "DEFAULT_MEDIA" for clip in clips)
    waiting = clips[1].media_references()[min(names)]
    assert waiting.is_missing_reference and (tmp_path / waiting.metadata["framepack_relax"]["latents"]).is_dir()


def test_the_timeline_comes_back_as_the_same_board(film, tmp_path):
    seen = imported(tmp_path, "film.otio", export(film, "film.otio").read_bytes())
    asked = fr.read(film.parent / "story.yaml")
    assert seen.scenes == [(scene.prompt, scene.seconds, scene.transition) for scene in asked.scenes]
    for name in ("title", "model", "seed", "fps", "style"):
        assert getattr(seen.story, name) == getattr(asked, name), name
    assert [s.intensity for s in seen.story.scenes] == [0.0, 0.9, 0.0] and seen.story.scenes[0].seed == 9
    lengths = [scene.frames for scene in fr.plan(film.parent / "story.yaml").scenes]
    assert [scene.frames for scene in fr.plan(tmp_path / "story.yaml").scenes] == lengths


def test_a_blend_comes_back_and_files_are_told(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    blend = "transition: {blend: 2}, seconds: 2.4, prompt: b}"
    (tmp_path / "story.yaml").write_text(
        f"model: fake\nimage: a.png\nscenes:\n- {{id: a, prompt: a, seconds: 2.4}}\n- {{id: b, {blend}\n"
    )
    out = fr.render(tmp_path / "story.yaml", out=tmp_path / "out").folder
    (tmp_path / "back").mkdir()
    seen = imported(tmp_path / "back", "film.otio", export(out, "film.otio").read_bytes())
    assert seen.story.scenes[1].transition == fr.read(tmp_path / "story.yaml").scenes[1].transition
    assert seen.story.image is None and "film.otio: `image` is not carried over" in seen.said


def test_what_an_editor_changed_counts(film, tmp_path):
    line = otio.adapters.read_from_file(str(export(film, "film.otio")))
    first, second, third = line.video_tracks()[0].find_clips()
    span = first.source_range
    first.source_range = otio.opentime.TimeRange(span.start_time, otio.opentime.RationalTime(150, span.duration.rate))
    second.markers.append(otio.schema.Marker(name="note", comment="he flips twice"))
    line.video_tracks()[0].remove(third)
    seen = imported(tmp_path, "cut.otio", otio.adapters.write_to_string(line, "otio_json"))
    assert [(prompt, seconds) for prompt, seconds, _ in seen.scenes] == [
        ("a man stands", pytest.approx(150 * 1001 / 30000, abs=1e-3)),
        ("he flips twice", 2.4),
    ]


def test_a_timeline_of_an_editor_gives_lengths_and_prompts(tmp_path):
    def clip(name, frames, **metadata):
        span = otio.opentime.TimeRange(otio.opentime.RationalTime(0, 24), otio.opentime.RationalTime(frames, 24))
        return otio.schema.Clip(name=name, source_range=span, metadata=metadata)

    line = otio.schema.Timeline(name="x")
    tracks = [
        otio.schema.Track(name=name, kind=kind) for name, kind in (("V1", "Video"), ("V2", "Video"), ("A", "Audio"))
    ]
    tracks[0].extend([clip("Shot 1", 48, comment="a man waits"), clip("Shot 1", 36)])
    tracks[1].append(clip("title", 24))
    line.tracks.extend(tracks)
    seen = imported(tmp_path, "x.otio", otio.adapters.write_to_string(line, "otio_json"))
    assert seen.scenes == [("a man waits", 2.0, "continue"), ("Shot 1", 1.5, "continue")]
    assert "of its 2 video tracks" in seen.said and "its sound" in seen.said


@pytest.mark.parametrize(
    ("suffix", "words"), [("edl", ("FROM CLIP NAME:  flip", "RED")), ("fcpxml", ('name="flip"', "<marker"))]
)
def test_other_kinds_go_through_the_adapters(film, suffix, words):
    text = export(film, f"film.{suffix}").read_text()
    assert (
        all(word in text for word in words) and text.count("section 0".upper() if suffix == "edl" else "section 0") == 1
    )


def test_what_cannot_be_written_is_one_message(film, tmp_path):
    for words, fact in {
        (film, "film.mov"): "name it .otio, .edl, .fcpxml",
        (tmp_path, "film.otio"): "is not the folder of a render",
        (film / "video.mp4", "film.otio"): "is not the folder of a render",
    }.items():
        done = here("export", words[0], "--otio", tmp_path / words[1])
        assert done.returncode == 2 and fact in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / words[1]).exists()


def test_damage_is_one_message(film, tmp_path):
    survives(tmp_path, "film.otio", export(film, "film.otio").read_text())
