"""The timeline of LTX Director (ComfyUI), as of 2026-07: its JSON, or its node's inputs in which that is a text."""

import base64
import json
from typing import Any

from pydantic import Field

from .draft import Draft
from .source import Foreign, Source

RATE = 24.0  # frames a second, unless it is said
OTHERS = {  # lists of what a film here has not
    "motionSegments": "motion segments are",
    "audioSegments": "sound is",
    "retakeVideo": "the video to be taken anew is",
}


class Segment(Foreign):
    kind: str = Field("image", alias="type")
    start: float = Field(0, ge=0, le=10**7)
    length: float = Field(gt=0, le=10**7)
    prompt: str = ""
    image: str = Field("", alias="imageFile")
    inline: str = Field("", alias="imageB64")
    is_end: bool = Field(False, alias="isEndFrame")


class Timeline(Foreign):
    segments: tuple[Segment, ...] = ()
    global_prompt: str = ""
    local_prompts: str = ""
    segment_lengths: str = ""
    frame_rate: float = Field(RATE, gt=0, le=1000)


def claims(source: Source) -> bool:
    data = source.json
    lists = isinstance(data, dict) and isinstance(data.get("segments"), list) and "scenes" not in data
    return lists or (isinstance(data, dict) and not {"timeline_data", "local_prompts"}.isdisjoint(data))


def read(draft: Draft) -> None:
    source, data = draft.source, draft.source.json
    if isinstance(data, dict) and isinstance(inner := data.get("timeline_data"), str) and inner.strip():
        try:
            held = json.loads(inner)
        except (ValueError, RecursionError) as error:
            source.refuse(f"is not JSON: {error}", path="timeline_data")
        data = {**data, **(held if isinstance(held, dict) else {})}
    line = source.parsed(Timeline, data)
    if "frame_rate" not in data:
        draft.leave("", f"says no frame rate; its lengths are taken for frames of {RATE:g} a second")
    for name, what in OTHERS.items():
        if data.get(name):
            draft.leave("", f"{what} not carried over")
    if line.global_prompt:
        draft.board["style"] = line.global_prompt.strip()
    order = sorted(enumerate(line.segments or _relay(draft, line)), key=lambda pair: pair[1].start)
    if order and order[0][1].start >= 1:
        draft.leave(f"segments[{order[0][0]}]", f"begins at frame {order[0][1].start:g}, and the film with it")
    for turn, (index, one) in enumerate(order):
        frames, place = one.length, f"segments[{index}]"
        if turn + 1 < len(order) and abs((gap := order[turn + 1][1].start - one.start) - frames) >= 1:
            draft.leave(place, "is shortened or lengthened to where the next begins")
            frames = gap
        if frames <= 0:
            draft.leave(place, "begins with another one and is left out")
            continue
        if one.kind == "video":
            draft.leave(place, "its video is not carried over")
        picture = None if one.kind == "video" else _picture(draft, place, one)
        if picture and draft.scenes and not one.is_end:
            draft.leave(place, "its image begins a shot: a cut, where the program leads over to it")
        draft.scene(place, one.prompt, round(frames / line.frame_rate, 3), image=None if one.is_end else picture)
        draft.end(picture if one.is_end else None)


def _relay(draft: Draft, line: Timeline) -> list[Segment]:
    """Of `local_prompts` and `segment_lengths` without segments."""
    prompts = [text.strip() for text in line.local_prompts.split("|") if text.strip()]
    try:
        lengths = [float(text) for text in line.segment_lengths.split(",") if text.strip()]
    except ValueError:
        draft.source.refuse("write numbers with commas between", path="segment_lengths")
    if len(lengths) != len(prompts):
        if lengths:
            draft.leave("", f"has {len(prompts)} prompts and {len(lengths)} lengths, which are left out")
        lengths = [draft.unsaid * line.frame_rate] * len(prompts)
    made: list[dict[str, Any]] = []
    for prompt, length in zip(prompts, lengths, strict=True):
        start = made[-1]["start"] + made[-1]["length"] if made else 0
        made.append({"type": "text", "start": start, "length": length, "prompt": prompt})
    return [draft.source.parsed(Segment, one, at=f"segments[{n}]") for n, one in enumerate(made)]


def _picture(draft: Draft, place: str, one: Segment) -> str | bytes | None:
    if one.image or not one.inline:
        return one.image or None
    try:
        return base64.b64decode(one.inline.rpartition(",")[2], validate=True)
    except ValueError:
        draft.leave(place, "its image is damaged")
        return None
