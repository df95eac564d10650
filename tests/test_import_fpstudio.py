"""Bracket prompts and queues of framepack-studio."""

import io
import sys

from exchanged import imported, png, survives, zipped
from faults import here

from framepack_relax.storyboard import read_storyboard

JOB = {
    "app_version": "0.5.1", "prompt": "[0s: a man stands] [2s-4s: he waves]", "negative_prompt": "blurry", "seed": 7,
    "steps": 12, "cfg": 1.0, "gs": 9.0, "resolutionW": 640, "resolutionH": 600, "model_type": "F1",
    "total_second_length": 6, "loras": {"style": 0.8}, "saved_input_image_path": "queue_images/ab_input.png",
    "saved_end_frame_image_path": "queue_images/ab_end_frame.png", "status": "pending", "rs": 0.7,
}  # fmt: skip
QUEUE = {"ab": JOB, "cd": {**JOB, "prompt": "a dog runs", "loras": {}, "seed": -1, "model_type": "Original"}}
ZIP = {"queue.json": QUEUE, "queue_images/ab_input.png": png(), "queue_images/ab_end_frame.png": png("blue")}


def test_brackets_are_scenes_by_their_times(tmp_path):
    seen = imported(tmp_path, "p.txt", "a woman smiles [2s: she waves] [3.5s-4s: she jumps] [6s-8s: she lands]")
    assert seen.code == 0 and seen.scenes == [
        ("a woman smiles", 2.0, "continue"),
        ("she waves", 1.5, "continue"),
        ("she jumps", 2.5, "continue"),
        ("she lands", 2.0, "continue"),
    ]
    assert "p.txt: [3.5s]: ends at 4 s, and lasts until the next begins at 6 s" in seen.said


def test_a_last_bracket_without_an_end_and_text_without_time_are_told(tmp_path):
    seen = imported(tmp_path, "p.txt", "style of noir [0s: a] [1s: b]", "--seconds", 5, "--model", "fake")
    assert seen.scenes == [("a", 1.0, "continue"), ("b", 5.0, "continue")] and seen.story.model == "fake"
    assert "[1s]: no length is said; 5 s are taken" in seen.said and "'style of noir'" in seen.said


def test_a_first_bracket_lasts_from_the_beginning(tmp_path):
    seen = imported(tmp_path, "p.txt", "[1s: a] [3s-4s: b]")
    assert seen.scenes == [("a", 3.0, "continue"), ("b", 1.0, "continue")] and "nothing stands before 1 s" in seen.said


def test_brackets_in_a_prompt_are_kept(tmp_path):
    seen = imported(tmp_path, "p.txt", "[0s: a [sic] man [and] [] dog] [2s-4s: b [c]]")
    assert [prompt for prompt, _, _ in seen.scenes] == ["a [sic] man [and] [] dog", "b [c]"]
    seen = imported(tmp_path, "p.txt", "[0s: a [sic man] [2s-4s: b]")
    assert [prompt for prompt, _, _ in seen.scenes] == ["a [sic man", "b"]


def test_a_prompt_by_standard_input(tmp_path, monkeypatch):
    class Input:
        buffer = io.BytesIO(b"[0s-2s: a] [2s-3s: b]")

    monkeypatch.setattr(sys, "stdin", Input)
    done = here("import", "-", "-o", tmp_path / "story.yaml")
    assert done.returncode == 0
    assert [scene.prompt for scene in read_storyboard(tmp_path / "story.yaml").scenes] == ["a", "b"]


def test_a_queue_is_a_shot_a_job_with_its_image_and_settings(tmp_path):
    seen = imported(tmp_path, "queue.zip", zipped(ZIP))
    story = seen.story
    assert seen.scenes == [("a man stands", 2.0, "continue"), ("he waves", 2.0, "continue"), ("a dog runs", 6.0, "cut")]
    assert (story.model, story.size, story.steps, story.negative_prompt) == ("framepack-f1", (640, 608), 12, "blurry")
    assert story.guidance.scales == {"text": 1.0, "embedded": 9.0}
    assert [scene.seed for scene in story.scenes] == [7, 7, None]
    assert story.resolve(story.image).read_bytes() == story.resolve(story.scenes[2].image).read_bytes()
    for fact in (
        "end image",
        "LoRA style at 0.8",
        "`rs`",
        "640x600 px is made 640x608",
        "job 2: its model is another than the first one's",
    ):
        assert fact in seen.said, fact


PLAIN = {"prompt": "[0s: a] [5s: b]", "model_type": "Original", "total_second_length": 8, "seed": 0}
SAID = {  # what a job may say, and what is told of it
    ("latent_window_size", 5): "`latent_window_size` is not carried over",
    ("end_frame_strength", 0.3): "`end_frame_strength` is not carried over",
    ("latent_type", "Noise"): "`latent_type` is not carried over",
    ("combine_with_source", True): "`combine_with_source` is not carried over",
    ("num_cleaned_frames", 3): "`num_cleaned_frames` is not carried over",
    ("model_type", "Video F1"): "'Video F1' goes on from a video",
    ("model_type", "Wan"): "its model 'Wan' is not known here",
    ("status", "completed"): "is completed there, and taken all the same",
    ("status", "cancelled"): "is cancelled there, and taken all the same",
    ("blend_sections", 6): "`blend_sections` is 6, which its scenes take as 2",
}


def test_what_a_job_says_and_a_board_cannot_is_told(tmp_path):
    for (name, value), fact in SAID.items():
        seen = imported(tmp_path, "queue.json", {"ab": {**PLAIN, name: value}}, "--model", "framepack-f1")
        assert seen.code == 0 and f"job 1: {fact}" in seen.said, seen.said
    usual = {"latent_window_size": 9, "end_frame_strength": 1.0, "num_cleaned_frames": 5, "status": "pending"}
    seen = imported(tmp_path, "queue.json", {"ab": {**PLAIN, **usual, "blend_sections": 0}})
    assert "job 1" not in seen.said and seen.story.seed == 0, "which is a seed"


def test_prompts_are_blended_over_as_many_sections_as_they_have(tmp_path):
    seen = imported(
        tmp_path, "queue.json", {"ab": {**PLAIN, "blend_sections": 2}, "cd": {**PLAIN, "blend_sections": 4}}
    )
    blends = [getattr(scene.transition, "blend", scene.transition) for scene in seen.story.scenes]
    assert (
        blends == ["continue", 2, "cut", 2] and "job 2: `blend_sections` is 4, which its scenes take as 2" in seen.said
    )
    short = {**PLAIN, "prompt": "[0s: a] [1.5s: b]", "blend_sections": 4}
    seen = imported(tmp_path, "queue.json", {"ab": short})
    assert seen.scenes[1][2] == "continue" and "which its scenes take as 0" in seen.said


def test_a_queue_without_its_zip_has_images_beside_it(tmp_path):
    (tmp_path / "queue_images").mkdir()
    (tmp_path / "queue_images/ab_input.png").write_bytes(png())
    seen = imported(tmp_path, "queue.json", QUEUE)
    assert seen.code == 0 and seen.story.image == "story-images/scene-1.png"
    seen = imported(tmp_path, "queue.json", {"ab": {**JOB, "saved_input_image_path": "/etc/hostname"}}, "-o", "b.yaml")
    assert "/etc/hostname is not beside the file" in seen.said


def test_damage_is_one_message(tmp_path):
    survives(tmp_path, "queue.zip", zipped(ZIP))


def test_damaged_text_is_one_message(tmp_path):
    survives(tmp_path, "p.txt", "a woman smiles [2s: she waves] [3.5s-4s: she jumps]")
