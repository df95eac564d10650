"""Boards of Storyboarder (.storyboarder), as of 3.0: drawings with times; images/ beside the file."""

from pydantic import Field

from .draft import Draft
from .source import Foreign, Source


class Panel(Foreign):
    url: str = ""
    new_shot: bool = Field(False, alias="newShot")
    shot: str = ""
    duration: float = Field(0, ge=0, le=1e8)  # ms
    time: float | None = Field(None, ge=0, le=1e8)
    action: str = ""
    dialogue: str = ""
    notes: str = ""
    audio: object = None


class Boards(Foreign):
    boards: list[Panel]
    fps: float = 24
    usual: float = Field(2000, alias="defaultBoardTiming", gt=0, le=1e8)


def claims(source: Source) -> bool:
    data = source.json
    return isinstance(data, dict) and isinstance(data.get("boards"), list) and "aspectRatio" in data


def read(draft: Draft) -> None:
    made = draft.source.parsed(Boards, draft.source.json)
    draft.leave("", "drawings of new shots begin them as `image:`; put a picture in their place, or remove the line")
    for number, one in enumerate(made.boards):
        place, following = f"boards[{number}]", made.boards[number + 1 : number + 2]
        gap = following[0].time - one.time if following and following[0].time and one.time is not None else 0
        prompt = one.action or one.notes or one.dialogue
        if prompt and not one.action:
            draft.leave(place, f"has no action; the prompt is its {'notes' if one.notes else 'dialogue'}")
        for what, text in {"dialogue is": one.dialogue, "notes are": one.notes}.items():
            if text and text != prompt:
                draft.leave(place, f"its {what} not carried over")
        if one.audio:
            draft.leave(place, "its sound is not carried over")
        first = one.new_shot or not number
        seconds = (one.duration or max(gap, 0) or made.usual) / 1000
        image = f"images/{one.url}" if first and one.url else None
        draft.scene(place, prompt, round(seconds, 3), name=one.shot, image=image, cut=first)
