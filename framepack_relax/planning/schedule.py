"""What happens in every step of a section: s(sigma) of every restraint, and what acts besides."""

from ..families.base import Family, GuidanceTerm, Size, Step
from ..families.flow import times
from ..relax.guidance import relaxed_scale, step_weights
from ..relax.profile import Relaxation


def plan_steps(
    family: Family,
    size: Size,
    sampler: str,
    steps: int,
    relaxation: Relaxation,
    scales: tuple[tuple[str, float], ...],
    initial: bool,
) -> tuple[Step, ...]:
    """A row per noise level: eq. 2 for the targets, for the rest the scale at rest of these `scales`.

    An `initial` section has no past whose grip could loosen.
    """
    levels, base = family.levels(steps, size, sampler), dict(scales)
    noise = [sigma for sigma, _ in levels]
    at = noise if relaxation.coord == "sigma" else [float(time) for time in times(len(noise))]
    weights = step_weights(relaxation.schedule, at, noise, p=relaxation.p, interval=relaxation.interval)
    targets = set() if relaxation.at_rest else set(relaxation.target) - ({"context"} if initial else set())

    def scale(term: GuidanceTerm, weight: float) -> float:
        if term.name not in targets:
            return base[term.name]
        low = term.floor if relaxation.min is None else relaxation.min
        return relaxed_scale(weight, base=base[term.name], minimum=low, beta=relaxation.beta)

    return tuple(
        Step(
            index=index,
            sigma=sigma,
            timestep=timestep,
            scales={term.name: scale(term, weight) for term in family.terms},
            effects=relaxation.effects(sigma),
        )
        for index, ((sigma, timestep), weight) in enumerate(zip(levels, weights, strict=True))
    )
