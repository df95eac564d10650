"""A model of arithmetic: it renders at once and shows nothing, to try boards, folders and farms without weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..relax.effects import EFFECTS
from .base import CONTEXT, TEXT, Context, Family, GuidanceTerm, Role, SimpleContext, Size, TimeGrid
from .flow import FlowShift, Levels, sigma_table


@dataclass(frozen=True, kw_only=True)
class Fake(Family):
    """4k + 1 frames a shot, at most 33 a section; an image if there is one; a past."""

    size: Size | None = (64, 64)

    kind = "fake"
    grid = TimeGrid(unit_frames=4, unit_latents=1, most_units=8)
    effects = frozenset(EFFECTS)
    image = "optional"
    renderer = "fake_backend:FakeBackend"

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        return replace(TEXT, base=3.0), CONTEXT

    def levels(self, steps: int, size: Size, sampler: str) -> Levels:
        return sigma_table(steps, FlowShift(), 1.0, sampler=sampler)

    @property
    def anchors(self) -> frozenset[Role]:
        return frozenset({"end", "key"})

    @property
    def past_frames(self) -> Sequence[int]:
        return (1,)

    def context(self, place: int, sections: int, *, film: bool = False) -> Context:
        return SimpleContext(initial=place == 0, needs=(place - 1,) if place else ())
