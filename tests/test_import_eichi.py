"""Zips of eichi: prompts by section, counted from the film's end."""

import json

from exchanged import imported, png, survives, zipped

BOARD = {
    "section_info": [{"section": 0, "prompt": "he bows"}, {"section": 2, "prompt": "he jumps"}],
    "default_prompt": "a man on a stage", "SEED": 5, "lora_settings": {"use_lora": True},
    "video_settings": {"video_length": "6(5x1.2)", "frame_size": "1 (33)", "padding_mode": "x", "expected_sections": 5},
}  # fmt: skip
YAML = """\
default_prompt: a man on a stage
section_info:
- prompt: he bows
  section: 0
- prompt: 'he

    jumps'
  section: 2
SEED: 5
video_settings:
  expected_sections: 5
  frame_size: 1秒 (33フレーム)
"""
ZIP = {"sections.yaml": YAML, "000.png": png("blue"), "start.png": png(), "end.png": png("green")}


def test_sections_from_the_end_become_scenes_from_the_start(tmp_path):
    seen = imported(tmp_path, "e.zip", zipped(ZIP))
    assert seen.scenes == [
        ("a man on a stage", 2.4, "continue"),
        ("he\njumps", 1.2, "continue"),
        ("a man on a stage", 1.2, "continue"),
        ("he bows", 1.2, "continue"),
    ]
    assert seen.story.seed == 5 and seen.story.model == "framepack" and seen.story.image
    assert seen.story.scenes[-1].end_image == "story-images/scene-4-end.png"
    for fact in ("000.png: is no start image", "count from the film's end"):
        assert fact in seen.said, fact


def test_json_is_yaml_and_what_has_no_place_is_told(tmp_path):
    seen = imported(tmp_path, "e.zip", zipped({"x/sections.yml": json.dumps(BOARD)}))
    assert seen.code == 0 and "lora_settings are not carried over" in seen.said and len(seen.scenes) == 4


def test_mistakes_of_its_yaml_are_located(tmp_path):
    seen = imported(tmp_path, "e.zip", zipped({"sections.yaml": YAML.replace("section: 2", "section: two")}))
    assert seen.code == 2
    assert "e.zip/sections.yaml:8:12: section_info[1].section: is 'two'; write a whole number" in seen.said


def test_damage_is_one_message(tmp_path):
    survives(tmp_path, "e.zip", zipped(ZIP, compression=0))
