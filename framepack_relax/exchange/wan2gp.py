"""Settings (.json) and queues (.zip) of Wan2GP, as of 12.61: a task a film; prompts in lines, paragraphs, windows."""

import re
from typing import Any

from pydantic import Field

from .draft import Draft
from .source import Foreign, Source

MODELS = {  # how the name of one begins: ours, and frames a second
    "i2v_2_2_svi2pro": ("wan2.2-svi-pro", 16),
    "i2v_2_2": ("wan2.2-a14b", 16),
    "ti2v_2_2": ("wan2.2-5b", 24),
    "t2v_1.3B": ("wan2.1-1.3b", 16),
    "hunyuan": ("hunyuanvideo", 24),
    "ltx": ("", 24),
}
USUAL_RATE = 16
MODES = {"0": "G", "1": "W", "2": "FG", "": "FG"}  # of older files: what a line of the prompt is
COMMANDS = re.compile(r"\s*\[(/[^\]]*)\]")
DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(s|%|)")
QUIET = """type settings_version base_model_type multi_images_gen_type model_filename repeat_generation batch_size mode
    image_mode image_prompt_type video_prompt_type audio_prompt_type prompt_enhancer RIFLEx_setting
    sliding_window_overlap sliding_window_overlap_noise sliding_window_discard_last_frames activated_loras image_start
    sliding_window_color_correction_strength client_id state creation_date generation_time creation_timestamp""".split()


class Task(Foreign):
    prompt: str
    negative_prompt: str = ""
    seed: int = -1
    resolution: str = ""
    video_length: int | str = 0  # frames, or "10s"
    steps: int | None = Field(None, alias="num_inference_steps")
    guidance: float | None = Field(None, alias="guidance_scale")
    guidance_low: float | None = Field(None, alias="guidance2_scale")
    model_type: str = ""
    image_start: str | list[str] = ""
    image_end: str | list[str] = ""
    mode: str | int = Field("FG", alias="multi_prompts_gen_type")
    window: int = Field(0, alias="sliding_window_size")
    activated_loras: tuple[Any, ...] = ()


def claims(source: Source) -> bool:
    tasks = source.json if isinstance(source.json, list) else [source.json]
    own = [one.get("params", one) for one in tasks if isinstance(one, dict)]
    marks = ("settings_version", "model_type", "multi_prompts_gen_type")
    return bool(own) and all(isinstance(p, dict) and "prompt" in p and any(m in p for m in marks) for p in own)


def read(draft: Draft) -> None:
    source = draft.source
    tasks = source.json if isinstance(source.json, list) else [source.json]
    part = "queue.json" if source.archive else ""
    for number, data in enumerate(tasks, 1):
        data = data.get("params", data) if isinstance(data, dict) else data
        _task(draft, f"task {number}", source.parsed(Task, data, part, at=f"task {number}"))


def _task(draft: Draft, place: str, task: Task) -> None:
    model, rate = next((v for k, v in MODELS.items() if task.model_type.startswith(k)), ("", USUAL_RATE))
    if model:
        draft.agree(place, "model", model)
    elif task.model_type:
        draft.leave(place, f"its model {task.model_type[:60]!r} is not known here; {rate} frames a second are assumed")
    if found := re.fullmatch(r"(\d{1,5})x(\d{1,5})", task.resolution):
        draft.size(place, int(found[1]), int(found[2]))
    for lora in task.activated_loras:
        draft.leave(place, f"the LoRA {str(lora)[:90]} is not carried over: put its file on the board as `lora:`")
    draft.rest(place, task, QUIET)
    if re.search(r"^\s*!", task.prompt, re.MULTILINE):
        draft.leave(place, 'its macros (`!{x}="a"`) are not filled in: write their words into the prompts')
    images, ends = ([one] if isinstance(one, str) else one for one in (task.image_start, task.image_end))
    if len(images) > 1:
        draft.leave(place, "of its start images the first is taken")
    scales = {
        "text": task.guidance,
        "text_low": task.guidance_low if model in ("wan2.2-a14b", "wan2.2-svi-pro") else None,
    }
    fields: dict[str, Any] = {
        "negative_prompt": task.negative_prompt,
        "seed": None if task.seed < 0 else task.seed,
        "steps": task.steps,
        "guidance": {name: scale for name, scale in scales.items() if scale},
    }
    whole, mode = _seconds(draft, place, str(task.video_length), rate, 0.0), MODES.get(str(task.mode), str(task.mode))
    begins: dict[str, Any] = {"image": next(iter(images), None) or None, "cut": True}
    if "W" not in mode:
        prompts = _units(task.prompt, mode)
        for prompt in prompts:
            draft.scene(place, prompt, whole, **fields, **begins)
            draft.end(next(iter(ends), None))
        return
    left, window = whole or 0.0, round(task.window / rate, 3)
    for number, unit in enumerate(_units(task.prompt, mode), 1):
        spot, (said, prompt) = f"{place}, window {number}", _commands(unit)
        cut = "new_shot" in said or said.get("overlap") == "0"
        for name in sorted(said.keys() - {"new_shot", "duration", *["overlap"][: said.get("overlap") == "0"]}):
            draft.leave(spot, f"`[/{name}]` is not carried over")
        share = min(left, window) if window else left
        seconds = _seconds(draft, spot, said["duration"], rate, whole or 0.0) if said.get("duration") else share
        draft.scene(spot, prompt, seconds, **fields, **(begins if number == 1 else {"cut": cut}))
        left = round(max(left - (seconds or 0.0), 0.0), 3)
    draft.end(next(reversed(ends), None))


def _units(prompt: str, mode: str) -> list[str]:
    """The whole, its lines, or the paragraphs between empty ones, without comments and macros."""
    text = "\n".join(line.rstrip() for line in prompt.splitlines() if not line.lstrip().startswith(("#", "!")))
    if mode == "FG":
        return [text.strip()]
    return [unit.strip() for unit in re.split(r"\n\s*\n" if "P" in mode else "\n", text) if unit.strip()]


def _commands(unit: str) -> tuple[dict[str, str], str]:
    """`[/duration=5s,/new_shot]` in front of a window's prompt, and the prompt."""
    said: dict[str, str] = {}
    while found := COMMANDS.match(unit):
        pairs = [command.strip().removeprefix("/").partition("=") for command in re.split(r",\s*(?=/)", found[1])]
        said |= {name.strip(): value.strip() for name, _, value in pairs}
        unit = unit[found.end() :]
    return said, unit


def _seconds(draft: Draft, place: str, text: str, rate: int, whole: float) -> float | None:
    """Frames, seconds, or a share of the whole."""
    found = DURATION.fullmatch(text.strip())
    if not found:
        draft.leave(place, f"the length {text[:40]!r} is not understood")
        return None
    number = float(found[1])
    return round(number if found[2] == "s" else number / 100 * whole if found[2] == "%" else number / rate, 3) or None
