"""What the films are asked, and the one sentence that each answer allows.

A claim is put to two tests over seeds: whether there is a difference, and whether it is smaller than would
matter. Holm's correction holds over all tests of all claims. The verdict selects the wording, so that no sentence says
more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

import numpy as np

from framepack_relax.evaluate.statistics import Row, chance, holm, interval, paired, seed_means

Verdict = Literal["more", "less", "alike", "not decided"]
DOUBT = 0.05  # that any of all verdicts is chance
NEAR = {"target": 0.1, "motion": 0.05, "identity": 0.1, "border": 2.0}  # differences that would not matter
LEFT_OUT = {"identity": ("vanish",)}  # scenes that ask for what a figure would count against them
SAID = {
    "target": "the wanted action is seen {} surely",
    "motion": "the figure moves {}",
    "identity": "figure and place stay the film's own {} often",
    "border": "the picture jumps {} at the scene border",
}
CALLED = {  # arms, after "with"
    "vanilla": "the plain model",
    "paper": "the paper's settings",
    "guidance relaxed": "relaxed guidance alone",
    "guidance constant at the mean": "constant guidance of the same mean",
    "guidance twice as strong": "guidance twice as strong",
    "boost": "the inverse schedule",
    "text": "true CFG",
    "text relaxed": "relaxed true CFG",
    "ALG": "true CFG and ALG",
    "blur section": "blur of the section",
    "blur history": "blur of the history",
    "history bias 0.5": "half the attention to the past",
    "reference bias 0.5": "half the attention to the start image",
    "context": "loosened context",
    "context constant at the mean": "constantly loosened context of the same mean",
    "context with ramp": "context loosened away from the border",
    "ensure": "context loosened as far as it takes",
    "FreeInit": "FreeInit",
    "emphasis": "three times the attention to the action's words",
    "text against stillness": "true CFG against stillness",
    "context and bias": "loosened context and half the attention to the past",
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`arm` has another `figure` than `other`; `lead`: the sentence stands in README, too."""

    figure: str
    arm: str
    other: str = "vanilla"
    lead: bool = False

    def sentence(self, verdict: Verdict) -> str:
        """What may be said, and no more."""
        than = f"with {CALLED[self.arm]} than with {CALLED[self.other]}."
        how = {"alike": "neither more nor less", "not decided": "more or less"}.get(verdict, verdict)
        said = f"{SAID[self.figure].format(how)} {than}"
        if verdict == "alike":
            return f"To within {NEAR[self.figure]:g}, {said}"
        return f"Not decided: whether {said}" if verdict == "not decided" else said[0].upper() + said[1:]


CLAIMS = (
    Claim(figure="target", arm="paper", lead=True),
    Claim(figure="target", arm="guidance relaxed"),
    Claim(figure="target", arm="guidance relaxed", other="guidance constant at the mean", lead=True),
    Claim(figure="target", arm="text relaxed", other="text"),
    Claim(figure="target", arm="text"),
    Claim(figure="target", arm="boost"),
    Claim(figure="motion", arm="blur section"),
    Claim(figure="motion", arm="ALG", other="text"),
    Claim(figure="target", arm="context", lead=True),
    Claim(figure="motion", arm="context"),
    Claim(figure="border", arm="context", lead=True),
    Claim(figure="identity", arm="context", lead=True),
    Claim(figure="target", arm="context", other="context constant at the mean"),
    Claim(figure="target", arm="context with ramp", other="context"),
    Claim(figure="border", arm="context with ramp", other="context"),
    Claim(figure="target", arm="ensure", other="context"),
    Claim(figure="border", arm="ensure", other="context"),
    Claim(figure="target", arm="FreeInit"),
    Claim(figure="motion", arm="FreeInit"),
    Claim(figure="target", arm="emphasis"),
    Claim(figure="target", arm="text against stillness", other="text"),
    Claim(figure="target", arm="history bias 0.5"),
    Claim(figure="border", arm="history bias 0.5"),
)


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A claim, how much more of its figure `arm` has with its 95 % interval, and what is decided with a doubt `p`."""

    claim: Claim
    gap: float
    low: float
    high: float
    p: float  # corrected, of the test that decides, else the smaller
    verdict: Verdict

    @property
    def sentence(self) -> str:
        return self.claim.sentence(self.verdict)

    def not_borne_out(self, text: str) -> Iterator[str]:
        """What a text says of the claim that its verdict does not allow."""
        joined = " ".join(text.split())
        verdicts: tuple[Verdict, ...] = ("more", "less", "alike", "not decided")
        others = (self.claim.sentence(verdict) for verdict in verdicts if verdict != self.verdict)
        yield from (said for said in others if said in joined)


def counted(rows: Sequence[Row], figure: str) -> list[Row]:
    """The films of which a figure is told."""
    return [row for row in rows if row["scene"] not in LEFT_OUT.get(figure, ())]


def decide(rows: Sequence[Row], claims: Sequence[Claim] = CLAIMS) -> list[Decided]:
    """The claims of whose arms there are films."""
    pairs = ((claim, paired(counted(rows, claim.figure), claim.arm, claim.other, claim.figure)) for claim in claims)
    asked = [(claim, gaps) for claim, gaps in pairs if gaps]
    chances = [p for claim, gaps in asked for p in _chances(seed_means(gaps), NEAR[claim.figure])]
    corrected = holm(chances)
    return [
        _decided(claim, gaps, *pair)
        for (claim, gaps), pair in zip(asked, zip(corrected[::2], corrected[1::2], strict=True), strict=True)
    ]


def _chances(gains: np.ndarray, near: float) -> tuple[float, float]:
    """How often seeds without a difference differ as much; how often with one of `near` they differ as little."""
    either = min(chance(gains[None]), chance(-gains[None]))
    return min(1.0, 2 * either), max(chance(near + gains[None]), chance(near - gains[None]))


def _decided(claim: Claim, gaps: Sequence[tuple[int, float]], differs: float, alike: float) -> Decided:
    gap, (low, high), p = mean(gap for _, gap in gaps), interval(gaps), min(differs, alike)
    verdict: Verdict = "not decided"
    if alike <= DOUBT:
        verdict, p = "alike", alike
    elif differs <= DOUBT:
        verdict = "more" if gap > 0 else "less"
    return Decided(claim=claim, gap=gap, low=low, high=high, p=p, verdict=verdict)


def table(decided: Sequence[Decided]) -> list[str]:
    """A row a claim: the sentence, the difference, the doubt."""
    lines = ["| what the films say | difference, 95 % interval | p |", "|---" * 3 + "|"]
    for one in decided:
        gap, low, high = (f"{round(value, 3) + 0.0:+.3f}" for value in (one.gap, one.low, one.high))
        lines.append(f"| {one.sentence} | {gap} ({low}..{high}) | {one.p:.2g} |")
    return lines
