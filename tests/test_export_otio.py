"""Films as OpenTimelineIO's own files: clips, markers, takes, metadata."""

import json
from urllib.parse import unquote

from faults import here
from timelines import BOARD, export, otio

import framepack_relax as fr


def test_a_clip_is_a_scene_of_the_film_and_a_marker_a_border(cut_film):
    line = otio.adapters.read_from_file(str(export(cut_film, "film.otio")))
    report = json.loads((cut_film / "report.json").read_text())
    (track,) = line.video_tracks()
    clips = list(track.find_clips())
    assert [clip.name for clip in clips] == ["calm", "flip", "next"] and line.name == "Two"
    spans = [(int(c.source_range.start_time.value), int(c.source_range.end_time_exclusive().value)) for c in clips]
    assert spans == [tuple(scene["frames"]) for scene in report["scenes"]]
    assert {clip.source_range.duration.rate for clip in clips} == {30000 / 1001}
    for clip in clips:
        media = clip.media_reference
        assert (cut_film.parent / unquote(media.target_url)).samefile(cut_film / "video.mp4")
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


def test_what_cannot_be_written_is_one_message(cut_film, tmp_path):
    for words, fact in {
        (cut_film, "film.mov"): "name it .otio, .edl, .fcpxml",
        (tmp_path, "film.otio"): "is not the folder of a render",
        (cut_film / "video.mp4", "film.otio"): "is not the folder of a render",
    }.items():
        done = here("export", words[0], "--otio", tmp_path / words[1])
        assert done.returncode == 2 and fact in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / words[1]).exists()


def test_a_path_with_spaces_is_an_address(cut_film):
    shown = cut_film.parent / "to edit"
    shown.mkdir(exist_ok=True)
    assert here("export", cut_film, "--otio", shown / "my film.otio").returncode == 0
    line = otio.adapters.read_from_file(str(shown / "my film.otio"))
    assert {clip.media_reference.target_url for clip in line.video_tracks()[0].find_clips()} == {"../out/video.mp4"}
    moved = cut_film.rename(cut_film.parent / "out with #1")
    try:
        line = otio.adapters.read_from_file(str(export(moved, "film.otio")))
    finally:
        moved.rename(cut_film)
    address = line.video_tracks()[0][0].media_reference.target_url
    assert address == "out%20with%20%231/video.mp4"
