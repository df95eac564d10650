"""What a plan must know of a model, read from its folder without loading it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..relax.profile import Profile
from ..storyboard import Relax
from .history import Order
from .schedule import FlowShift

SIDECAR = "framepack_relax.json"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts of one model; `size` None means the 640 bucket nearest to the start image, `profile` None the paper's."""

    name: str
    order: Order
    size: tuple[int, int] | None  # width, height px
    fps: int
    embedded: float  # base of the embedded guidance scale
    text: float  # base of true CFG; 1 is off
    embedded_guidance: bool  # the embedded scale is trained (distilled), so relaxing it means something
    profile: Profile | None
    shift: FlowShift


def read_facts(folder: Path) -> ModelFacts:
    """Facts of a diffusers folder from its sidecar and its scheduler config.

    Raises ModelError when the sidecar is missing: an F1 and an original checkpoint cannot be told apart without it.
    """
    file = folder / SIDECAR
    if not file.is_file():
        raise ModelError(
            f"{folder}: has no {SIDECAR}, so it is unknown whether the model renders forward or inverted; "
            f'write one, for example {{"order": "forward", "fps": 30, "guidance": {{"embedded": 10.0, "text": 1.0}}, '
            '"embedded_guidance": true}'
        )
    try:
        data = json.loads(file.read_text(encoding="utf8"))
        scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf8"))
        return facts_from(data, scheduler, name=str(folder))
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename}: is missing; the model folder is incomplete") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file}: cannot be used ({error!r}); see the model card's example of this file") from error


def facts_from(data: Mapping[str, Any], scheduler: Mapping[str, Any], *, name: str) -> ModelFacts:
    """Facts from the sidecar's and the scheduler config's contents."""
    if data["order"] not in ("forward", "inverted"):
        raise ValueError(f"order is {data['order']!r}, not forward or inverted")
    size, guidance = data.get("size"), data.get("guidance", {})
    keys = ("shift", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")
    shift = {key: scheduler[key] for key in keys if scheduler.get(key) is not None}
    return ModelFacts(
        name=name,
        order=data["order"],
        size=(int(size[0]), int(size[1])) if size else None,
        fps=int(data.get("fps", 30)),
        embedded=float(guidance.get("embedded", 6.0)),
        text=float(guidance.get("text", 1.0)),
        embedded_guidance=bool(data["embedded_guidance"]),
        profile=profile_from(data["profile"]) if data.get("profile") else None,
        shift=FlowShift(dynamic=bool(scheduler.get("use_dynamic_shifting", False)), **shift),
    )


def profile_from(data: Mapping[str, Any]) -> Profile:
    """A profile from its file's mapping; raises ValueError, KeyError or TypeError on what does not fit."""
    known = {"name", "threshold", "points", "p", "blur", "target", "scope", "levels"}
    if unknown := set(data) - known:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}; a profile has {', '.join(sorted(known))}")
    points = tuple((float(x), float(beta)) for x, beta in data["points"])
    if not points or [x for x, _ in points] != sorted({x for x, _ in points}):
        raise ValueError("points must be [intensity, beta] pairs of rising intensity")
    if any(not -1 <= beta <= 1 for _, beta in points) or not 0 < float(data["p"]) <= 8:
        raise ValueError("beta must be between -1 and 1, p above 0 and at most 8")
    target = tuple(data["target"])
    if not target or not set(target) <= {"embedded", "text", "context"}:
        raise ValueError("target must be one or more of embedded, text, context")
    scope = data.get("scope", "section")
    if not 0 <= float(data["blur"]) <= 8 or scope not in ("section", "history", "reference", "all"):
        raise ValueError("blur must be between 0 and 8, scope one of section, history, reference, all")
    return Profile(
        name=str(data["name"]),
        threshold=float(data["threshold"]),
        points=points,
        p=float(data["p"]),
        blur=float(data["blur"]),
        target=target,
        scope=scope,
        levels=tuple((float(first), explicit_values(Relax(**fields))) for first, fields in data.get("levels", ())),
    )


def explicit_values(relax: Relax) -> dict[str, Any]:
    """What is said, as fields of Relaxation."""
    said = {name: value for name, value in relax if value is not None and (name, value) != ("target", "auto")}
    if "min" in said:
        said["minimum"] = said.pop("min")
    return said
