"""What a plan must know of a model, read from its folder without loading it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..relax.profile import Profile
from .history import Order
from .schedule import FlowShift

SIDECAR = "framepack_relax.json"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts of one model; `size` None means the 640 bucket nearest to the start image, `profile` None the paper's."""

    name: str
    order: Order
    size: tuple[int, int] | None = None  # width, height px
    fps: int = 30
    embedded: float  # base of the embedded guidance scale
    text: float = 1.0  # base of true CFG; 1 is off
    embedded_guidance: bool  # the embedded scale is trained (distilled), so relaxing it means something
    profile: Profile | None = None
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
    shift = {key: scheduler[key] for key in vars(FlowShift()) if scheduler.get(key) is not None}
    shift["dynamic"] = bool(scheduler.get("use_dynamic_shifting", False))
    return ModelFacts(
        name=name,
        order=data["order"],
        size=(int(size[0]), int(size[1])) if size else None,
        fps=int(data.get("fps", 30)),
        embedded=float(guidance.get("embedded", 6.0)),
        text=float(guidance.get("text", 1.0)),
        embedded_guidance=bool(data["embedded_guidance"]),
        profile=_profile_in(data),
        shift=FlowShift(**shift),
    )


def read_profile(file: Path) -> Profile | None:
    """The calibrated profile that a sidecar holds. Raises ModelError."""
    try:
        return _profile_in(json.loads(file.read_text(encoding="utf8")))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{file}: its profile cannot be used ({error})") from error


def _profile_in(data: Mapping[str, Any]) -> Profile | None:
    return Profile.model_validate_json(json.dumps(data["profile"])) if data.get("profile") else None
