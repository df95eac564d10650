"""A model of arithmetic: it renders at once and shows nothing, to try boards, folders and farms without weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from ..errors import Problem
from ..relax.effects import EFFECTS
from ..storyboard import Storyboard
from .base import Context, GuidanceTerm, ModelFacts, Size, TimeGrid
from .flow import FlowShift, sigma_table

if TYPE_CHECKING:
    from .backend import Backend


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """Of a section that sees the one before it."""

    needs: tuple[int, ...]

    @property
    def initial(self) -> bool:
        return not self.needs


@dataclass(frozen=True, kw_only=True)
class Fake(ModelFacts):
    """4k + 1 frames a shot, at most 33 a section; an image if there is one; a past."""

    size: Size | None = (64, 64)
    speed: float = 1.0

    kind: ClassVar[str] = "fake"
    grid: ClassVar[TimeGrid] = TimeGrid(unit_frames=4, unit_latents=1, most_units=8)
    effects: ClassVar[frozenset[str]] = frozenset(EFFECTS)
    samplers: ClassVar[tuple[str, ...]] = ("euler",)
    image: ClassVar[Literal["required", "optional", "refused"]] = "optional"
    decode: ClassVar[str] = "stream"
    parts: ClassVar[Mapping[str, Any]] = {}
    terms: ClassVar[tuple[GuidanceTerm, ...]] = (
        GuidanceTerm(name="text", base=3.0, floor=1.0, lowest=1.0),
        GuidanceTerm(name="context", base=1.0, floor=0.0, settable=False),
    )

    @property
    def options(self) -> Mapping[str, Any]:
        return {"speed": self.speed}

    def configured(self, story: Storyboard) -> Self:
        return self

    def problems(self, story: Storyboard) -> Iterator[Problem]:
        yield from ()

    def notes(self, story: Storyboard, shots: Sequence[tuple[float, int]]) -> Iterator[tuple[str, str]]:
        yield from ()

    def own_size(self, image: Size) -> Size:
        return self.size or (64, 64)

    def levels(self, steps: int, size: Size, sampler: str) -> tuple[tuple[float, float], ...]:
        return sigma_table(steps, FlowShift(dynamic=False), 1.0, sampler=sampler)

    def render_order(self, sections: int) -> Sequence[int]:
        return range(sections)

    def context(self, place: int, sections: int) -> Context:
        return Before(needs=(place - 1,) if place else ())

    def backend(self) -> "type[Backend]":
        from .fake_backend import FakeBackend

        return FakeBackend
