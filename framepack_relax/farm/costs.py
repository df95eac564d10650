"""What a batch will take, before it is begun: passes counted, memory and time estimated by count."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
from ..families.adapters import Adapter
from ..families.backend import PRESETS, Backend
from ..families.base import Size
from ..families.sketch import sketch
from ..planning.renderplan import RenderPlan, SectionPlan
from .films import Film

RATE = 5e14  # operations that an H200 does in a second in bfloat16, as PyTorch runs these models by published figures


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a shot's sections that are left: `passes` and an H200's `seconds`, the least and the most that ensured scenes
    may take; `memory` is bytes of the GPU, the least and the most of the presets. The last two are None where the
    model cannot be asked."""

    film: str
    shot: int
    sections: int
    passes: tuple[int, int]
    memory: tuple[int, int] | None
    seconds: tuple[float, float] | None


def costs(films: Iterable[Film]) -> Iterator[Cost]:
    """Of each shot that is not done; loads no weights. Raises RelaxError where a film cannot be planned any more."""
    drawn: dict[Any, Backend | None] = {}
    for film in films:
        if not any(film.left):
            continue
        session, loading = film.session(), film.loading
        plan, key = session.plan, (loading.name, loading.precision.removeprefix("torch."), session.adapters)
        if key not in drawn:
            drawn[key] = asked_for(*key)
        backend = drawn[key]
        for shot, left in enumerate(film.left):
            if left:
                todo = [plan.sections[index] for index in plan.shots[shot].sections][-left:]
                yield _cost(film, shot, plan, todo, backend)


def asked_for(name: str, precision: str, adapters: Iterable[Adapter] = ()) -> Backend | None:
    """A model without weights, to ask what it takes; None where its configs are not known."""
    try:
        return sketch(name, precision, adapters).model
    except ModelError:
        return None


def _cost(film: Film, shot: int, plan: RenderPlan, todo: list[SectionPlan], backend: Backend | None) -> Cost:
    memory = None
    if backend:
        asked = [(section.context, section.latents, plan.size) for section in todo]
        bytes_of = [[backend.need(*one, preset).total for one in asked] for preset in PRESETS]
        memory = min(map(max, bytes_of)), max(map(max, bytes_of))
    counts: Any = {"sections": len(todo), "passes": passes_of(todo), "seconds": seconds_of(todo, plan.size, backend)}
    return Cost(film=film.name, shot=shot, memory=memory, **counts)


def passes_of(sections: Iterable[SectionPlan]) -> tuple[int, int]:
    """Forward passes, the least and the most."""
    least, most = map(sum, zip((0, 0), *(section.passes for section in sections), strict=True))
    return least, most


def seconds_of(sections: Iterable[SectionPlan], size: Size, backend: Backend | None) -> tuple[float, float] | None:
    """An H200's for the forward passes of sections of (width, height) px, the least and the most; None where the model
    cannot be asked."""
    if backend is None:
        return None
    flops = [(section.passes, backend.pass_flops(section.context, section.latents, size)) for section in sections]
    least, most = (sum(counts[bound] * one for counts, one in flops) / RATE for bound in (0, 1))
    return (least, most) if most else None
