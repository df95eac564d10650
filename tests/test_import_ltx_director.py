"""Timelines of LTX Director."""

import base64
import json

from exchanged import imported, png, survives

LINE = {
    "segments": [
        {"id": "a", "type": "text", "start": 48, "length": 24, "prompt": "he waves"},
        {"type": "image", "start": 0, "length": 40, "prompt": "a man stands",
         "imageB64": "data:image/png;base64," + base64.b64encode(png()).decode()},
        {"type": "image", "start": 72, "length": 48, "prompt": "", "imageFile": "dog.png"},
        {"type": "image", "start": 120, "length": 24, "prompt": "it sleeps", "imageFile": "dog.png",
         "isEndFrame": True},
    ],
    "audioSegments": [{"start": 0}], "motionSegments": [], "global_prompt": "noir",
}  # fmt: skip


def test_segments_are_scenes_in_the_order_of_their_times(tmp_path):
    (tmp_path / "dog.png").write_bytes(png("blue"))
    seen = imported(tmp_path, "t.json", LINE)
    assert seen.scenes == [
        ("a man stands", 2.0, "continue"),
        ("he waves", 1.0, "continue"),
        ("he waves", 2.0, "cut"),
        ("it sleeps", 1.0, "continue"),
    ]
    assert seen.story.style == "noir" and seen.story.resolve(seen.story.image).exists() and seen.story.scenes[2].image
    for fact in ("no frame rate", "sound is not", "segments[1]: is shortened", "segments[2]: has no prompt",
                 "its end image is not carried over", "segments[2]: its image begins a shot"):  # fmt: skip
        assert fact in seen.said, fact


def test_an_end_image_is_for_models_that_come_to_it_where_the_shot_ends(tmp_path):
    (tmp_path / "dog.png").write_bytes(png("blue"))
    seen = imported(tmp_path, "t.json", LINE, "--model", "framepack")
    assert [scene.end_image for scene in seen.story.scenes] == [None] * 3 + ["story-images/scene-3.png"]
    assert "end image" not in seen.said
    (tmp_path / "story-images/scene-1.png").unlink()
    (tmp_path / "story-images/scene-3.png").unlink()
    early = {
        **LINE,
        "segments": [*LINE["segments"], {"type": "text", "start": 144, "length": 24, "prompt": "it wakes"}],
    }
    seen = imported(tmp_path, "t.json", early, "--model", "framepack")
    assert "segments[3]: its end image is not carried over: the shot goes on after it" in seen.said


def test_the_node_holds_the_same_as_a_text(tmp_path):
    seen = imported(tmp_path, "t.json", {"timeline_data": json.dumps(LINE), "frame_rate": 48})
    assert [seconds for _, seconds, _ in seen.scenes] == [1.0, 0.5, 1.0, 0.5]


def test_prompts_and_lengths_without_segments(tmp_path):
    relay = {"local_prompts": "a | b|c", "segment_lengths": "24, 48,12", "global_prompt": ""}
    assert [one[:2] for one in imported(tmp_path, "t.json", relay).scenes] == [("a", 1.0), ("b", 2.0), ("c", 0.5)]
    seen = imported(tmp_path, "t.json", {**relay, "segment_lengths": "24"})
    assert "3 prompts and 1 lengths" in seen.said and [one[1] for one in seen.scenes] == [4.0] * 3
    assert "segment_lengths: write numbers" in imported(tmp_path, "t.json", {**relay, "segment_lengths": "x"}).said


def test_what_begins_late_and_images_alone_are_told(tmp_path):
    (tmp_path / "dog.png").write_bytes(png("blue"))
    late = {"type": "image", "start": 24, "length": 48, "imageFile": "dog.png"}
    seen = imported(tmp_path, "t.json", {"segments": [late], "frame_rate": 24})
    assert [one[1] for one in seen.scenes] == [2.0] and seen.story.image
    assert "segments[0]: begins at frame 24, and the film with it" in seen.said
    assert f"segments[0]: nothing has a prompt; `{seen.scenes[0][0]}` stands there" in seen.said
    text = {"type": "text", "start": 0, "length": 24, "prompt": ""}
    seen = imported(tmp_path, "u.json", {"segments": [text], "frame_rate": 24})
    assert seen.code == 2 and "holds no prompt" in seen.said


def test_mistakes_have_their_segment(tmp_path):
    line = {"segments": [{"length": "x"}, {"start": 2}]}
    assert imported(tmp_path, "t.json", line).said.splitlines() == [
        "t.json: segments[0].length: is 'x'; write a number above 0 and at most 10000000",
        "t.json: segments[1].length: is missing; add it",
    ]


def test_damage_is_one_message(tmp_path):
    survives(tmp_path, "t.json", json.dumps(LINE))
