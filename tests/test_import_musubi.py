"""Prompt files of musubi-tuner."""

from exchanged import imported, png, survives

TEXT = """\
# a comment
a man walks --w 640 --h 480 --f 3 --d 7 --s 20 --g 2.5 --fs 3 --i a.png --n blurry -- bad --ei b.png

0:he sits;;;1-2:he stands;;;-1:he waves --vs 5 --i 0:a.png;;;2:c.png --d 8
"""


def test_lines_are_shots_and_sections_scenes(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png("red" if name == "a.png" else "blue"))
    seen = imported(tmp_path, "p.txt", TEXT)
    assert seen.scenes == [
        ("a man walks", 3.0, "continue"),
        ("he sits", 1.2, "cut"),
        ("he stands", 2.4, "continue"),
        ("he sits", 1.2, "continue"),
        ("he waves", 1.2, "continue"),
    ]
    first, *others = seen.story.scenes
    assert first.end_image == "story-images/scene-1-end.png" and not any(scene.end_image for scene in others)
    assert (seen.story.size, seen.story.model, seen.story.image) == (
        (640, 480),
        "framepack",
        "story-images/scene-1.png",
    )
    assert (first.seed, first.steps, first.guidance.scales, first.negative_prompt) == (
        7,
        20,
        {"text": 2.5},
        "blurry -- bad",
    )
    assert {scene.seed for scene in others} == {8} and others[0].image == seen.story.image
    for fact in ("line 2: `--fs`", "line 4: the image of section 2"):
        assert fact in seen.said, fact


def test_a_number_that_is_none_has_its_line(tmp_path):
    for text in ("x", "nan", "1" * 30, ""):
        seen = imported(tmp_path, "p.txt", f"a\nb --f {text} --d 1\n")
        assert seen.code == 2 and seen.said.startswith("p.txt:2: --f ") and "write a number" in seen.said


def test_images_outside_of_the_folder_are_not_taken(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "in/link.png").symlink_to(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "~/x.png", "none.png"):
        seen = imported(tmp_path / "in", "p.txt", f"a --f 2 --i {name}\n")
        assert seen.code == 0 and seen.story.image is None and "is not beside the file" in seen.said


def test_damage_is_one_message(tmp_path):
    survives(tmp_path, "p.txt", TEXT)
