"""The bracket prompts and the queue (zip or queue.json) of the program framepack-studio, as of 0.5."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from .draft import Draft
from .source import Foreign, Source

BRACKET = (
    re.compile(  # brackets in its prompt close before it does; it stops where the next begins, which keeps it linear
        r"\[(\d{1,9}(?:\.\d{1,9})?)s(?:-(\d{1,9}(?:\.\d{1,9})?)s)?\s{0,9}:((?:\[(?!\d)[^\[\]]*\]|(?!\[\d)[^\]])*?)\]"
    )
)
MODELS = {
    "Video F1": "framepack-f1",
    "Video": "framepack",
    "F1": "framepack-f1",
    "Original": "framepack",
}  # names begin so
SECTION = 1.2  # seconds of a section of 9 latent frames
USUAL = {"latent_window_size": 9, "end_frame_strength": 1, "num_cleaned_frames": 5}
QUIET = """app_version timestamp created_at started_at completed_at error result queue_position id input_image_path
    has_input_image generation_type total_second_length end_frame_used resolutionW resolutionH
    end_frame_image_path x_values y_values x_param y_param use_teacache teacache_num_steps
    teacache_rel_l1_thresh use_magcache magcache_threshold magcache_max_consecutive_skips
    magcache_retention_ratio""".split()


class Job(Foreign):
    prompt: str
    negative_prompt: str = ""
    seed: int = -1
    steps: int | None = None
    cfg: float = 1.0
    gs: float | None = None
    model_type: str = ""
    total_second_length: float | None = None
    width: int = Field(0, alias="resolutionW")
    height: int = Field(0, alias="resolutionH")
    image: str = Field("", alias="saved_input_image_path")
    end_image: str = Field("", alias="saved_end_frame_image_path")
    blend: int = Field(0, alias="blend_sections", ge=0, le=1000)
    status: str = ""
    loras: Mapping[str, Any] = {}


def claims(source: Source) -> bool:
    jobs = source.json
    queue = isinstance(jobs, dict) and jobs and all(isinstance(j, dict) and "prompt" in j for j in jobs.values())
    return bool(queue) or (jobs is None and bool(BRACKET.search(source.text)))


def read(draft: Draft) -> None:
    jobs = draft.source.json
    if not isinstance(jobs, dict):
        return _prompt(draft, "", draft.source.text, None)
    part = "queue.json" if draft.source.archive else ""
    for number, (name, data) in enumerate(jobs.items(), 1):
        job, place = draft.source.parsed(Job, data, part, at=name), f"job {number}"
        known = next((ours for theirs, ours in MODELS.items() if job.model_type.startswith(theirs)), None)
        if known:
            draft.agree(place, "model", known)
        elif job.model_type:
            draft.leave(place, f"its model {job.model_type[:60]!r} is not known here")
        if job.status not in ("", "pending"):
            draft.leave(place, f"is {job.status[:40]} there, and taken all the same")
        if job.width and job.height:
            draft.size(place, job.width, job.height)
        for lora, scale in job.loras.items():
            draft.leave(place, f"the LoRA {lora} at {scale} is not carried over: put its file on the board as `lora:`")
        usual = [name for name, value in USUAL.items() if (job.model_extra or {}).get(name) == value]
        if video := job.model_type.startswith("Video"):
            fact = f"{job.model_type[:60]!r} goes on from a video, which is not carried over"
            draft.leave(place, f"{fact}: name a film as `from:`, or its last picture as `image:`")
        draft.rest(place, job, [*QUIET, *([] if video else usual), *["latent_type"][: bool(job.image)]])
        fields: dict[str, Any] = {
            "negative_prompt": job.negative_prompt,
            "steps": job.steps,
            "seed": None if job.seed < 0 else job.seed,
        }
        fields["guidance"] = {"text": job.cfg} | ({"embedded": job.gs} if job.gs else {})
        first = len(draft.scenes)
        _prompt(draft, place, job.prompt, job.total_second_length, image=job.image or None, cut=True, **fields)
        draft.end(job.end_image)
        _blend(draft, place, job.blend, draft.scenes[first:])


def _blend(draft: Draft, place: str, wanted: int, scenes: list[dict[str, Any]]) -> None:
    """Blends the prompts of a job's scenes over as many sections as were wanted, and as they have, an even number."""
    if wanted and len(scenes) > 1:
        blend = min(wanted + wanted % 2, *(int(scene["seconds"] / SECTION) // 2 * 2 for scene in scenes))
        if blend != wanted:
            draft.leave(place, f"`blend_sections` is {wanted}, which its scenes take as {blend}")
        for scene in scenes[1:]:
            scene |= {"transition": {"blend": blend}} if blend else {}


def _prompt(draft: Draft, place: str, text: str, length: float | None, **fields: Any) -> None:
    """A prompt, with or without brackets, of a film of some `length`."""
    found = sorted((float(b[1]), float(b[2]) if b[2] else None, b[3]) for b in BRACKET.finditer(text))
    outside = BRACKET.sub("", text).strip()
    if not found:
        return draft.scene(place, text, length, **fields)
    if outside and found[0][0] > 0:
        found.insert(0, (0.0, None, outside))
    elif found[0][0] > 0:
        draft.leave(place, f"nothing stands before {found[0][0]:g} s; its first scene lasts from the beginning")
        found[0] = (0.0, *found[0][1:])
    elif outside:
        draft.leave(place, f"text outside the brackets would get no time and is left out: {outside[:60]!r}")
    for number, (begins, ends, prompt) in enumerate(found):
        following = found[number + 1][0] if number + 1 < len(found) else ends or length
        spot = " ".join(filter(None, (place, f"[{begins:g}s]")))
        if following is not None and ends not in (None, following):
            draft.leave(spot, f"ends at {ends:g} s, and lasts until the next begins at {following:g} s")
        seconds = None if following is None else round(following - begins, 3)
        if seconds is not None and seconds <= 0:
            draft.leave(spot, "would get no time and is left out")
            continue
        draft.scene(spot, prompt, seconds, **fields)
        fields |= {"image": None, "cut": False}
