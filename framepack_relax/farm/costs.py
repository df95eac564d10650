"""What a batch will take, before it is begun: passes counted, memory and time estimated by count."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
from ..families.backend import PRESETS, Backend
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
            try:
                drawn[key] = sketch(*key).model
            except ModelError:
                drawn[key] = None
        backend = drawn[key]
        for shot, left in enumerate(film.left):
            if left:
                todo = [plan.sections[index] for index in plan.shots[shot].sections][-left:]
                yield _cost(film, shot, plan, todo, backend)


def _cost(film: Film, shot: int, plan: RenderPlan, todo: list[SectionPlan], backend: Backend | None) -> Cost:
    passes = [sum(counts) for counts in zip(*(section.passes for section in todo), strict=True)]
    asked = [(section.context, section.latents, plan.size) for section in todo]
    memory, seconds = None, None
    if backend:
        bytes_of = [[backend.need(*one, preset).total for one in asked] for preset in PRESETS]
        memory = min(map(max, bytes_of)), max(map(max, bytes_of))
        flops = [backend.pass_flops(*one) for one in asked]
        pairs = [(section.passes, one) for section, one in zip(todo, flops, strict=True)]
        least, most = (sum(counts[bound] * one for counts, one in pairs) / RATE for bound in (0, 1))
        seconds = (least, most) if most else None
    counts: Any = {"sections": len(todo), "passes": (passes[0], passes[1])}
    return Cost(film=film.name, shot=shot, memory=memory, seconds=seconds, **counts)
