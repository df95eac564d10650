"""Settings and queues of Wan2GP."""

from exchanged import imported, png, survives, zipped

PARAMS = {
    "prompt": "a man walks", "negative_prompt": "static", "seed": 7, "resolution": "832x480", "video_length": 81,
    "num_inference_steps": 30, "guidance_scale": 3.5, "guidance2_scale": 3.0, "model_type": "i2v_2_2",
    "settings_version": 2.4, "multi_prompts_gen_type": "FG", "image_start": "task1_image_start_0.png",
    "image_end": ["task1_image_end_0.png"], "flow_shift": 5, "activated_loras": ["x.safetensors"], "image_mode": 0,
}  # fmt: skip
WINDOWS = """# a comment
[/duration=48] The station at dawn.
[/duration=5s,/overlap=9] She steps
[/new_shot,/duration=25%,/loras_mult=1;3] A sharp cut
[Shot 2] The rest
"""
QUEUE = [
    {"id": 1, "params": PARAMS},
    {"id": 2, "params": {**PARAMS, "prompt": "he sits\nhe stands", "multi_prompts_gen_type": "G"}},
]
ZIP = {"queue.json": QUEUE, "task1_image_start_0.png": png(), "task1_image_end_0.png": png("blue")}


def test_a_queue_is_a_shot_a_task_or_a_line(tmp_path):
    seen = imported(tmp_path, "q.zip", zipped(ZIP))
    assert [(prompt, cut) for prompt, _, cut in seen.scenes] == [
        ("a man walks", "continue"),
        ("he sits", "cut"),
        ("he stands", "cut"),
    ]
    assert {seconds for _, seconds, _ in seen.scenes} == {5.062}, "81 frames of 16 a second"
    story = seen.story
    assert (story.model, story.size, story.steps, story.seed) == ("wan2.2-a14b", (832, 480), 30, 7)
    assert story.guidance.scales == {"text": 3.5, "text_low": 3.0} and story.image and story.scenes[1].image
    assert story.scenes[0].end_image == "story-images/scene-1-end.png"
    for fact in ("x.safetensors", "`flow_shift`"):
        assert fact in seen.said, fact
    assert "image_mode" not in seen.said


def test_windows_have_their_lengths_and_cuts(tmp_path):
    said = {"prompt": WINDOWS, "multi_prompts_gen_type": "W", "video_length": "16s", "sliding_window_size": 81}
    seen = imported(
        tmp_path, "s.json", {**PARAMS, "image_start": None, "image_end": None, "model_type": "ti2v_2_2", **said}
    )
    assert seen.scenes == [
        ("The station at dawn.", 2.0, "continue"),
        ("She steps", 5.0, "continue"),
        ("A sharp cut", 4.0, "cut"),
        ("[Shot 2] The rest", 3.375, "continue"),
    ]
    assert seen.story.model == "wan2.2-5b" and "window 3: `[/loras_mult]`" in seen.said


def test_macros_and_overlaps_are_told_and_not_in_the_prompts(tmp_path):
    text = '! {x}="a":"b"\n# why\n[/overlap=9] a man\n[/overlap=0] a dog'
    said = {"prompt": text, "image_start": "", "image_end": "", "video_length": 162, "sliding_window_size": 81}
    seen = imported(tmp_path, "s.json", {**PARAMS, **said, "multi_prompts_gen_type": "W"})
    assert [(prompt, cut) for prompt, _, cut in seen.scenes] == [("a man", "continue"), ("a dog", "cut")]
    assert "window 1: `[/overlap]` is not carried over" in seen.said and "its macros" in seen.said
    assert [seconds for _, seconds, _ in seen.scenes] == [5.062, 5.062], "ms, as a person writes them"
    assert "window 2: `[/overlap]`" not in seen.said
    seen = imported(tmp_path, "s.json", {**PARAMS, **said, "multi_prompts_gen_type": "FG", "prompt": "! {x}=1\na\n\nb"})
    assert [prompt for prompt, _, _ in seen.scenes] == ["a\n\nb"] and "its macros" in seen.said


def test_numbers_say_the_mode_in_older_files(tmp_path):
    for mode, count in ((0, 2), (1, 2), (2, 1)):
        seen = imported(
            tmp_path, "s.json", {**PARAMS, "image_start": "", "prompt": "a\nb", "multi_prompts_gen_type": mode}
        )
        assert [cut for _, _, cut in seen.scenes][1:] == (["cut"] if mode == 0 else ["continue"])[: count - 1]


def test_an_unknown_model_is_told(tmp_path):
    seen = imported(tmp_path, "s.json", [{"prompt": "a", "model_type": "ltx99", "video_length": 48}])
    assert seen.scenes == [("a", 2.0, "continue")] and "'ltx99' is not known here; 24 frames" in seen.said
    assert "names no model that is known here: say `--model NAME`" in seen.said


def test_mistakes_are_told_all_at_once_with_their_task(tmp_path):
    seen = imported(tmp_path, "s.json", {**PARAMS, "seed": "x", "num_inference_steps": [1]})
    assert seen.code == 2 and seen.said.splitlines() == [
        "s.json: task 1.seed: is 'x'; write a whole number",
        "s.json: task 1.num_inference_steps: is a list; write a whole number",
    ]


def test_damage_is_one_message(tmp_path):
    survives(tmp_path, "q.zip", zipped(ZIP, compression=0))
