"""Films as FCPXML, by its adapter."""

import json
import xml.etree.ElementTree as ET

from timelines import export


def test_clips_are_scenes_and_markers_say_how_large_a_jump_is(cut_film):
    made = ET.parse(export(cut_film, "film.fcpxml")).getroot()
    assert [clip.get("name") for clip in made.iter("clip")] == ["calm", "flip", "next"]
    rows = json.loads((cut_film / "report.json").read_text())["sections"]
    said = [marker.get("value") for marker in made.iter("marker")]
    for text, row in zip(said, rows, strict=True):
        change = f"the change at its first frame is {row['seam']:.1f} of the usual"
        assert text.startswith(f"section {row['index']}: ") and (change in text or text.endswith("cut (white)"))
        assert text.rpartition("(")[2].rstrip(")") in ("green", "yellow", "red", "white")
    assert sum(text.endswith(": cut (white)") for text in said) == 1


def test_a_path_with_spaces_is_an_address(cut_film):
    moved = cut_film.rename(cut_film.parent / "out with #1")
    try:
        made = ET.parse(export(moved, "film.fcpxml")).getroot()
    finally:
        moved.rename(cut_film)
    assert {asset.get("src") for asset in made.iter("asset")} == {"out%20with%20%231/video.mp4"}
