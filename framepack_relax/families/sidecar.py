"""The JSON files that say what a plan must know of a model; read from its folder without loading it."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from ..errors import ModelError, StoryboardError
from ..relax.profile import Profile
from ..storyboard.messages import explain
from ..storyboard.reader import read_text
from ..storyboard.schema import Order, Part, Rate, Scale, Size
from .flow import FlowShift

SIDECAR = "framepack_relax.json"
M = TypeVar("M", bound=BaseModel)


class BaseScales(Part):
    """Of the guidance terms that a model of HunyuanVideo's kind has, at rest."""

    embedded: Scale | None = None
    text: Scale | None = None


class Sidecar(Part):
    """What framepack_relax.json may say; of a model of the catalogue only its profile is used."""

    family: str | None = None
    order: Order | None = None
    size: Size | None = None
    fps: Rate | None = None
    guidance: BaseScales = BaseScales()
    embedded_guidance: bool | None = None
    judges: Literal["packaged"] | None = None  # of its films, where the usual ones do not know its world
    profile: Profile | None = None


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


def read_shift(folder: Path) -> FlowShift:
    """Of a diffusers folder. Raises ModelError."""
    return read_json(Scheduler, folder / "scheduler" / "scheduler_config.json").flow_shift()


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
