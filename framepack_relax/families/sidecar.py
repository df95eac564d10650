"""What a plan must know of a model, read from its folder without loading it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from ..errors import ModelError, StoryboardError
from ..relax.profile import Profile
from ..storyboard import Guidance
from ..storyboard.messages import explain
from ..storyboard.reader import read_text
from ..storyboard.schema import Part, Rate, Size
from .framepack.history import Order
from ..planning.schedule import FlowShift

SIDECAR = "framepack_relax.json"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts of one model; `size` None means the 640 bucket nearest to the start image, `profile` None the paper's."""

    name: str
    order: Order
    size: tuple[int, int] | None = None  # width, height px
    fps: float = 30
    embedded: float  # base of the embedded guidance scale
    text: float = 1.0  # base of true CFG; 1 is off
    embedded_guidance: bool  # the embedded scale is trained (distilled), so relaxing it means something
    profile: Profile | None = None
    shift: FlowShift


class Sidecar(Part):
    """What framepack_relax.json may say; of a model of the catalogue only its profile is used."""

    order: Order | None = None
    size: Size | None = None
    fps: Rate = 30
    guidance: Guidance = Guidance()
    embedded_guidance: bool | None = None
    profile: Profile | None = None


class WholeSidecar(Sidecar):
    """What it must say in a folder that the catalogue does not know."""

    order: Order
    embedded_guidance: bool


class Scheduler(Part, extra="ignore"):
    """What a diffusers scheduler config says of the shift; null is absent."""

    use_dynamic_shifting: bool | None = None
    shift: Annotated[float, Field(gt=0, le=100)] | None = None
    base_shift: Annotated[float, Field(ge=-10, le=10)] | None = None
    max_shift: Annotated[float, Field(ge=-10, le=10)] | None = None
    base_image_seq_len: Annotated[int, Field(ge=0, le=1 << 24)] | None = None
    max_image_seq_len: Annotated[int, Field(ge=0, le=1 << 24)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Scheduler":
        shift = self.flow_shift()
        if shift.base_image_seq_len >= shift.max_image_seq_len:
            raise ValueError("base_image_seq_len must be below max_image_seq_len")
        return self

    def flow_shift(self) -> FlowShift:
        said = {name: value for name, value in self if value is not None}
        return FlowShift(dynamic=said.pop("use_dynamic_shifting", False), **said)


def read_facts(folder: Path) -> ModelFacts:
    """Facts of a diffusers folder from its sidecar and its scheduler config.

    Raises ModelError when the sidecar is missing: an F1 and an original checkpoint cannot be told apart without it.
    """
    if not (folder / SIDECAR).is_file():
        raise ModelError(
            f"{folder}: has no {SIDECAR}, so it is unknown whether the model renders forward or inverted; "
            f'write one, for example {{"order": "forward", "fps": 30, "guidance": {{"embedded": 10.0, "text": 1.0}}, '
            '"embedded_guidance": true}'
        )
    said = read_json(WholeSidecar, folder / SIDECAR)
    return ModelFacts(
        name=str(folder),
        order=said.order,
        size=said.size,
        fps=said.fps,
        embedded=said.guidance.embedded or 6.0,
        text=said.guidance.text or 1.0,
        embedded_guidance=said.embedded_guidance,
        profile=said.profile,
        shift=read_json(Scheduler, folder / "scheduler" / "scheduler_config.json").flow_shift(),
    )


def read_profile(file: Path) -> Profile | None:
    """The calibrated profile that a sidecar holds. Raises ModelError."""
    return read_json(Sidecar, file).profile


def read_json(model: type[M], file: Path) -> M:
    """A file of a model folder. Raises ModelError with every mistake in it."""
    if not file.exists():
        raise ModelError(f"{file}: is missing; the model folder is incomplete")
    try:
        return model.model_validate_json(read_text(file))
    except StoryboardError as error:
        raise ModelError(str(error)) from error
    except ValidationError as error:
        problems = [replace(problem, file=str(file)) for problem in explain(error, model)]
        raise ModelError("\n".join(map(str, problems))) from error
