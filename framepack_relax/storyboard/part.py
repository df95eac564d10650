"""The base of every mapping of a storyboard."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ..errors import StoryboardError
from .fields import plain
from .messages import explain

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Told(ModelMetaclass):
    """Makes `Scene(secnds=2)` raise the StoryboardError that a file with this mistake would."""

    def __call__(cls, **fields: Any) -> Any:
        try:
            return super().__call__(**fields)
        except ValidationError as error:
            raise StoryboardError(explain(error, cast("type[BaseModel]", cls))) from None


class Part(BaseModel, metaclass=_Told):
    """Base of every mapping of a storyboard: frozen, strict types, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _from_python(cls, data: Any) -> Any:
        return {name: plain(value) for name, value in data.items()} if isinstance(data, Mapping) else data
