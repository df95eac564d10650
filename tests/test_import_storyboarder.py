"""Boards of Storyboarder."""

import json

from exchanged import imported, png, survives

BOARD = {
    "version": "3.0.0", "aspectRatio": 1.7777, "fps": 24, "defaultBoardTiming": 2000,
    "boards": [
        {"uid": "A", "url": "board-1-A.png", "newShot": True, "number": 1, "shot": "1A", "time": 0, "duration": 1500,
         "action": "A man stands.", "dialogue": "Hello", "notes": "wide"},
        {"uid": "B", "url": "board-2-B.png", "newShot": False, "number": 2, "shot": "1B", "time": 1500,
         "action": "He waves."},
        {"uid": "C", "url": "board-3-C.png", "newShot": True, "number": 3, "shot": "2A", "time": 4000, "notes": "A dog",
         "audio": {"filename": "x.wav"}},
    ],
}  # fmt: skip


def test_boards_are_scenes_and_new_shots_cuts(tmp_path):
    (tmp_path / "images").mkdir()
    for number, name in enumerate(("board-1-A.png", "board-2-B.png", "board-3-C.png")):
        (tmp_path / "images" / name).write_bytes(png(("red", "green", "blue")[number]))
    seen = imported(tmp_path, "b.storyboarder", BOARD)
    assert seen.scenes == [("A man stands.", 1.5, "continue"), ("He waves.", 2.5, "continue"), ("A dog", 2.0, "cut")]
    assert [scene.id for scene in seen.story.scenes] == ["1A", "1B", "2A"]
    assert seen.story.image == "story-images/1A.png" and seen.story.scenes[2].image == "story-images/2A.png"
    for fact in (
        "boards[0]: its dialogue",
        "boards[0]: its notes",
        "boards[2]: its sound",
        "drawings of new shots",
        "boards[2]: has no action; the prompt is its notes",
    ):
        assert fact in seen.said, fact


def test_images_that_are_missing_are_told(tmp_path):
    seen = imported(tmp_path, "b.storyboarder", BOARD)
    assert seen.code == 0 and seen.scenes[2][2] == "cut" and "images/board-3-C.png is not beside the file" in seen.said


def test_damage_is_one_message(tmp_path):
    survives(tmp_path, "b.storyboarder", json.dumps(BOARD))
