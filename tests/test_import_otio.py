"""Timelines of OpenTimelineIO: of a film of ours the same board again, of others lengths and prompts."""

import pytest
from exchanged import imported, survives
from PIL import Image
from timelines import export, otio

import framepack_relax as fr


def test_the_timeline_comes_back_as_the_same_board(cut_film, tmp_path):
    seen = imported(tmp_path, "film.otio", export(cut_film, "film.otio").read_bytes())
    asked = fr.read(cut_film.parent / "story.yaml")
    assert seen.scenes == [(scene.prompt, scene.seconds, scene.transition) for scene in asked.scenes]
    for name in ("title", "model", "seed", "fps", "style"):
        assert getattr(seen.story, name) == getattr(asked, name), name
    assert [s.intensity for s in seen.story.scenes] == [0.0, 0.9, 0.0] and seen.story.scenes[0].seed == 9
    lengths = [scene.frames for scene in fr.plan(cut_film.parent / "story.yaml").scenes]
    assert [scene.frames for scene in fr.plan(tmp_path / "story.yaml").scenes] == lengths


def test_images_and_a_blend_come_back_from_beside_the_run_folder(tmp_path):
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    scenes = ["{id: a, prompt: a, seconds: 2.4}", "{id: b, transition: {blend: 2}, seconds: 2.4, prompt: b}"]
    scenes += ["{id: c, prompt: c, seconds: 1.2, transition: cut}"]
    scenes += ["{id: d, prompt: d, seconds: 1.2, transition: cut, image: b.png}"]
    listed = "".join(f"- {scene}\n" for scene in scenes)
    (tmp_path / "first.yaml").write_text(f"model: fake\nimage: a.png\nscenes:\n{listed}")
    out = fr.render(tmp_path / "first.yaml", out=tmp_path / "the run").folder
    seen = imported(tmp_path, "film.otio", export(out, "film.otio").read_bytes())
    assert seen.said == "" and seen.story.scenes[1].transition == fr.read(tmp_path / "first.yaml").scenes[1].transition
    files = [seen.story.image, *(scene.image for scene in seen.story.scenes[2:])]
    colours = [Image.open(seen.story.resolve(name)).getpixel((0, 0)) for name in files]
    assert colours == [(255, 0, 0), (255, 0, 0), (0, 0, 255)]
    (tmp_path / "elsewhere").mkdir()
    seen = imported(tmp_path / "elsewhere", "film.otio", (tmp_path / "film.otio").read_bytes())
    assert seen.code == 0 and seen.story.image is None and "is not beside the file" in seen.said


PROFILE = "name: mine\npoints: [[0.3, 0.1], [1.0, 0.9]]\ntarget: [text]\n"
WRITTEN = """\
- {id: calm, prompt: a, seconds: 1.2}
- {id: own, prompt: b, seconds: 1.2, intensity: 0.9, relax: {p: 2.1, blur: 0.2}}
- {id: auto, prompt: c, seconds: 1.2, intensity: 0.9}
"""


@pytest.mark.parametrize("head", ["", "profile: paper\n", "profile: mine.yaml\n", "ensure: {tries: 2}\n"])
def test_what_the_maker_wrote_comes_back_and_not_what_the_profile_gave(tmp_path, head):
    (tmp_path / "mine.yaml").write_text(PROFILE)
    (tmp_path / "first.yaml").write_text(f"model: fake\nguidance: {{text: 4}}\n{head}scenes:\n{WRITTEN}")
    out = fr.render(tmp_path / "first.yaml", out=tmp_path / "out").folder
    seen = imported(tmp_path, "film.otio", export(out, "film.otio").read_bytes())
    relaxed = [scene.relax.said for scene in seen.story.scenes]
    asked, made = fr.plan(tmp_path / "first.yaml"), fr.plan(tmp_path / "story.yaml")
    assert [section.steps for section in made.sections] == [section.steps for section in asked.sections]
    assert [section.ensure for section in made.sections] == [section.ensure for section in asked.sections]
    if "mine" not in head:
        assert relaxed == [{}, {"p": 2.1, "blur": 0.2}, {}], "so that another intensity is another film"
        assert seen.story.ensure == fr.read(tmp_path / "first.yaml").ensure
        scenes = [scene.model_copy(update={"intensity": 0.1}) for scene in seen.story.scenes]
        assert fr.plan(seen.story.changed(scenes=tuple(scenes))).sections[-1].relaxation.at_rest


def test_gaps_and_dissolves_are_told_and_other_kinds_are_refused_with_the_cure(cut_film, tmp_path):
    line = otio.adapters.read_from_file(str(export(cut_film, "film.otio")))
    second = otio.opentime.RationalTime(30, 30)
    line.video_tracks()[0].insert(1, otio.schema.Gap(duration=second))
    half = otio.opentime.RationalTime(5, 30)
    line.video_tracks()[0].insert(3, otio.schema.Transition(in_offset=half, out_offset=half))
    seen = imported(tmp_path, "film.otio", otio.adapters.write_to_string(line, "otio_json"))
    assert "after clip 1: a gap of 1 s is left out" in seen.said and len(seen.scenes) == 3
    assert "after clip 2: a dissolve is left out: `transition: {blend: 2}`" in seen.said
    for kind in ("edl", "fcpxml"):
        seen = imported(tmp_path, f"x.{kind}", export(cut_film, f"film.{kind}").read_bytes())
        assert seen.code == 2 and "save the cut as .otio, and import that" in seen.said


def test_what_an_editor_changed_counts(cut_film, tmp_path):
    line = otio.adapters.read_from_file(str(export(cut_film, "film.otio")))
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


def test_damage_is_one_message(cut_film, tmp_path):
    survives(tmp_path, "film.otio", export(cut_film, "film.otio").read_text())
