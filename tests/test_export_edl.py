"""Films as EDL (CMX 3600), by its adapter."""

import json
import re

from timelines import export


def test_events_are_scenes_and_locators_say_how_large_a_jump_is(cut_film):
    text = export(cut_film, "film.edl").read_text()
    assert re.findall(r"FROM CLIP NAME:  (.+)", text) == ["calm", "flip", "next"]
    assert text.count("FROM CLIP: out/video.mp4") == 3
    rows = json.loads((cut_film / "report.json").read_text())["sections"]
    found = re.findall(r"\* LOC: [\d:;]+ (\w+) +SECTION (\d+): (.+)", text)
    assert [int(index) for _, index, _ in found] == [row["index"] for row in rows]
    for (colour, _, said), row in zip(found, rows, strict=True):
        change = f"THE CHANGE AT ITS FIRST FRAME IS {row['seam']:.1f} OF THE USUAL"
        assert said == (f"CUT ({colour})" if colour == "WHITE" else f"{change} ({colour})")
    assert [colour for colour, _, _ in found].count("WHITE") == 1


def test_paths_are_no_addresses(cut_film):
    moved = cut_film.rename(cut_film.parent / "out with space")
    try:
        text = export(moved, "film.edl").read_text()
    finally:
        moved.rename(cut_film)
    assert text.count("FROM CLIP: out with space/video.mp4") == 3
