"""The JSON files that say what a plan must know of a model; read from its folder without loading it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import ModelError, StoryboardError
from ..relax.profile import Profile
from ..storyboard.messages import explain
from ..storyboard.reader import read_text
from ..storyboard.schema import Order, Part, Rate, Scale, Size

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

    @property
    def facts(self) -> dict[str, Any]:
        """What it says, the scales of its guidance among the rest."""
        return {name: value for name, value in (*self, *self.guidance) if value is not None}


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
