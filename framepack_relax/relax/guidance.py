"""Relaxed guidance: eq. 1 and eq. 2 of the paper, its comparators, and how the restraints compose.

v velocity, c prompt, neg negative prompt, h what a section sees of its shot, h - g the same without what a grip g holds
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

TEXTS = ("text", "text_low")  # of models of two experts each has its own; where one acts the other is 1
TEXT_MARGIN = 1e-3  # closer to scale 1 than this, the second pass has no weight and is skipped
INPUTS = ("embedded",)  # scales that the network itself is fed
GRIP_MARGIN = 0.02  # all other scales are of grips; less looseness than this is not worth a pass

V = TypeVar("V")


def relaxed_scale(weight: float, *, base: float, minimum: float, beta: float) -> float:
    """Eq. 2: s(sigma) = s_min + (s_base - s_min)(1 - beta sigma^p), `weight` being sigma^p or what stands in its place.

    beta 0 is the identity, bit for bit; beta 1 starts (sigma 1) at the minimum; beta < 0 boosts.
    """
    return base if beta == 0 else minimum + (base - minimum) * (1 - beta * weight)


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """One forward pass, by what it sees: which prompt, and which context; `name` keys its velocity.

    `full` is h, `low_pass` h low-passed, the name of a grip h without it: of `context` the past of a first section.
    """

    name: str
    prompt: Literal["positive", "negative"] = "positive"
    context: str = "full"

    @property
    def kind(self) -> str:
        """What it is counted as."""
        return self.name if self.name in KINDS else "free"


KINDS = ("cond", "uncond", "sharp", "free")  # of branches: (c, h), (neg, h), (neg, h before any low-pass), (c, h - g)


def without(grip: str) -> Branch:
    """The pass that sees all but what a grip holds."""
    return Branch(name=grip, context=grip)


def text_scale(scales: Mapping[str, float]) -> float:
    """s_text of a step, 1 where there is none."""
    return math.prod(scales.get(name, 1.0) for name in TEXTS)


def branches(scales: Mapping[str, float], *, low_passed: bool = False) -> tuple[Branch, ...]:
    """The forward passes that have weight at these scales, in the order in which they run.

    Text 1 is no guidance, 1 of a grip the full one; a scale that is not there does nothing. `low_passed`: the images
    that h holds are low-passed in this step, as ALG does it.
    """
    usual: Literal["full", "low_pass"] = "low_pass" if low_passed else "full"
    found = [Branch(name="cond", context=usual)]
    if abs(text_scale(scales) - 1) >= TEXT_MARGIN:
        found.append(Branch(name="uncond", prompt="negative", context=usual))
        if low_passed:
            found.append(Branch(name="sharp", prompt="negative"))
    grips = [name for name in scales if name not in (*TEXTS, *INPUTS)]
    return *found, *(without(grip) for grip in grips if 1 - scales[grip] >= GRIP_MARGIN)


def combine(made: Mapping[str, V], scales: Mapping[str, float], fade: V | None = None) -> V:
    """v = v(neg, h) + s_text (v(c, h) - v(neg, h)), then + (1 - s_g)(v(c, h - g) - v(c, h)) for each grip g.

    `fade` multiplies what each grip adds.

    Eq. 1 is the first part. `made` are the velocities of the branches by name. With low-passed images the first
    v(neg, h) sees them sharp: ALG (Choi et al., arXiv 2506.08456).
    """
    velocity = cond = made["cond"]
    if "uncond" in made:
        velocity = made.get("sharp", made["uncond"]) + text_scale(scales) * (cond - made["uncond"])  # type: ignore[operator]
    for grip in scales:
        if grip in made:
            freed = (1 - scales[grip]) * (made[grip] - cond)  # type: ignore[operator]
            velocity = velocity + (freed if fade is None else fade * freed)
    return velocity
