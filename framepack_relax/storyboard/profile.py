"""What a profile may say, which turns an intensity into settings."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from .fields import Beta, Intensity, Power, Targets, Words, only
from .part import Part
from .schema import Relax, Rung

BY_INTENSITY = only(
    lambda points: [x for x, _ in points] == sorted({x for x, _ in points}),
    "must come in the order of rising intensity, each once",
)


class ProfileFields(Part):
    """What an intensity profile may say: beta is piecewise linear through `points` (intensity, beta).

    The fields of the last of `levels` (intensity, `relax` of a storyboard) that is reached hold instead of these.
    """

    name: Words
    threshold: Intensity = 0.25  # at or below it a scene is at rest
    points: Annotated[tuple[tuple[Intensity, Beta], ...], Field(min_length=1), BY_INTENSITY] = ((0.0, 0.0),)
    p: Power = 0.7
    blur: float = Field(0.0, ge=0, le=8)
    target: Targets = ("text",)
    scope: str = "section"
    levels: Annotated[tuple[tuple[Intensity, Relax], ...], BY_INTENSITY] = ()
    ladder: Annotated[tuple[Rung, ...], Field(max_length=16)] | None = None  # of `ensure`; None: the levels and points
    figures: Mapping[str, Any] = Field({})  # what a calibration measured; decides nothing
