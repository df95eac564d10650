"""Relaxed guidance: eq. 1 and eq. 2 of the paper, and how the three restraints compose. Works on any tensor type.

v velocity, c prompt, neg negative prompt, h history, h0 the history that a shot's first section has
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

Restraint = Literal["embedded", "text", "context"]
Branch = Literal["cond", "uncond", "free"]  # (c, h), (neg, h), (c, h0)

TEXT_MARGIN = 1e-3  # closer to scale 1 than this, the second pass has no weight and is skipped
CONTEXT_MARGIN = 0.02  # less looseness than this is not worth a pass

V = TypeVar("V")


def relaxed_scale(sigma: float, *, base: float, minimum: float, beta: float, p: float) -> float:
    """Eq. 2: s(sigma) = s_min + (s_base - s_min)(1 - beta sigma^p), sigma the noise fraction in 0..1.

    beta 0 is the identity, bit for bit; beta 1 starts (sigma 1) at the minimum; beta < 0 boosts.
    """
    return base if beta == 0 else minimum + (base - minimum) * (1 - beta * sigma**p)


def mean_scale(*, base: float, minimum: float, beta: float, p: float) -> float:
    """Mean of eq. 2 over sigma uniform in 0..1, in closed form: the constant that a schedule is compared with."""
    return base - beta * (base - minimum) / (1 + p)


@dataclass(frozen=True, kw_only=True)
class StepScales:
    """The scale of each restraint at one step. Text 1 is no guidance, context 1 the full grip of the past."""

    embedded: float
    text: float
    context: float


def branches(scales: StepScales) -> tuple[Branch, ...]:
    """The forward passes that have weight in this step, in the order in which they run."""
    found: list[Branch] = ["cond"]
    if abs(scales.text - 1) >= TEXT_MARGIN:
        found.append("uncond")
    if 1 - scales.context >= CONTEXT_MARGIN:
        found.append("free")
    return tuple(found)


def guide(predict: Callable[[Branch], V], scales: StepScales) -> V:
    """v = v(neg, h) + s_text (v(c, h) - v(neg, h)), then + (1 - s_ctx)(v(c, h0) - v(c, h)); eq. 1 is the first half.

    The embedded scale is an input of the network and so belongs to `predict`.
    """
    made = {branch: predict(branch) for branch in branches(scales)}
    velocity = cond = made["cond"]
    if "uncond" in made:
        velocity = made["uncond"] + scales.text * (cond - made["uncond"])  # type: ignore[operator]
    if "free" in made:
        velocity = velocity + (1 - scales.context) * (made["free"] - cond)  # type: ignore[operator]
    return velocity
