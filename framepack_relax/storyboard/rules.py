"""What must hold between the scenes of a board."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from ..errors import Problem


def between_scenes(scenes: Any) -> list[Problem]:
    """Rules between fields, on scenes that need not be valid otherwise."""
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    last: str | None = None  # the path of the end image of the scene before
    for index, scene in enumerate(scenes if isinstance(scenes, (list, tuple)) else ()):
        fields = _fields(scene)
        name = fields.get("id")
        if isinstance(name, str) and name in seen:
            message = f"{name!r} is also the id of scenes[{seen[name]}]; ids must differ"
            problems.append(Problem(path=f"scenes[{index}].id", message=message))
        elif isinstance(name, str):
            seen[name] = index
        transition = fields.get("transition", "continue")
        blends = isinstance(transition, (Mapping, BaseModel))
        if not index and blends:
            message = "the first scene has none before it to blend with; remove the line"
            problems.append(Problem(path="scenes[0].transition", message=message))
        if fields.get("image") and index and (transition == "continue" or blends):
            message = "an image starts a new shot; add `transition: cut` or remove the image"
            problems.append(Problem(path=f"scenes[{index}].image", message=message))
        if last is not None and fields.get("transition", "continue") == "continue":
            message = "the shot goes on after this scene; give it to the last one, or cut to the next"
            problems.append(Problem(path=last, message=message))
        seconds = fields.get("seconds")
        for nth, at in _keyframes(fields):
            if isinstance(seconds, (int, float)) and at > seconds:
                message = f"{at:g} s is after the scene's end at {seconds:g} s; write less"
                problems.append(Problem(path=f"scenes[{index}].keyframes[{nth}].at", message=message))
        last = f"scenes[{index}].end_image" if fields.get("end_image") else None
    return problems


def _fields(part: Any) -> Mapping[str, Any]:
    return part if isinstance(part, Mapping) else vars(part) if isinstance(part, BaseModel) else {}


def _keyframes(scene: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    """Their places in the scene's list and their seconds."""
    frames = scene.get("keyframes")
    for nth, frame in enumerate(frames if isinstance(frames, (list, tuple)) else ()):
        if isinstance(at := _fields(frame).get("at"), (int, float)):
            yield nth, at
