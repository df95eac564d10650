"""What a sweep will take, told before anything is rendered: passes counted, a GPU's hours estimated from them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..families.backend import Backend
from ..farm.costs import passes_of, seconds_of
from ..planning.renderplan import RenderPlan, SectionPlan
from .spec import Job

CALM = "calm scenes, shared"  # in the place of an arm


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """Of an arm's films: forward passes, and an H200's hours for them, the least and the most that ensured scenes may
    take; the hours are None where the model cannot be asked."""

    arm: str
    films: int
    passes: tuple[int, int]
    hours: tuple[float, float] | None


def ahead(jobs: Sequence[Job], plans: Sequence[RenderPlan], backend: Backend | None) -> list[Ahead]:
    """A row for the calm scenes, which films of a seed share, then one for each arm's own scenes."""
    calm, acts, size = dict[tuple[int, int], SectionPlan](), dict[str, list[SectionPlan]](), plans[0].size
    films = dict[str, int]()
    for job, plan in zip(jobs, plans, strict=True):
        own = plan.scenes[-1].sections
        calm |= {(job.seed, section.index): section for section in plan.sections if section.index not in own}
        acts.setdefault(job.arm.id, []).extend(plan.sections[index] for index in own)
        films[job.arm.id] = films.get(job.arm.id, 0) + 1

    def row(name: str, count: int, sections: Iterable[SectionPlan]) -> Ahead:
        whole = list(sections)
        seconds = seconds_of(whole, size, backend)
        hours = seconds and (seconds[0] / 3600, seconds[1] / 3600)
        return Ahead(arm=name, films=count, passes=passes_of(whole), hours=hours)

    shared = [row(CALM, len({seed for seed, _ in calm}), calm.values())] if calm else []
    return [*shared, *(row(arm, films[arm], sections) for arm, sections in acts.items())]
