"""What an intensity asks for: a profile maps it to beta, p and blur; a scene's explicit values win over it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..storyboard.curves import CURVES, Steps
from ..storyboard.fields import BlurOf, Coord, GainOn, OverSteps, Schedule, Space
from ..storyboard.profile import ProfileFields
from ..storyboard.schema import Experimental, Relax
from .effects import ASKING, Effect, KeyGain, KVBlur, LowPass, MotionAmplitude


@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """How one scene is relaxed."""

    target: tuple[str, ...]  # guidance terms
    beta: float  # -1..1, strength of eq. 2; below 0 it boosts
    p: float  # 0..8, decay power of eq. 2
    min: float | None = None  # s_min; None: each term's own
    blur: float = 0.0  # sigma_blur in latent frames, 0 is off
    scope: str = "section"
    history_gain: float = 1.0  # of the weights of past keys for the section's queries, 1 is off
    history_gain_above: float = 0.0  # it acts while sigma is above this
    schedule: Schedule = "power"  # of the strength over the steps
    interval: tuple[float, float] = (0.0, 1.0)  # sigmas between which the schedule `interval` does not relax
    coord: Coord = "sigma"
    over_steps: OverSteps = "constant"
    space: Space = "post_rope"
    blur_of: BlurOf = "kv"
    gain_on: GainOn = "history"
    lowpass: float = 1.0  # the past's sharp images are made this much smaller and large again, 1 is off
    lowpass_above: float = 0.0  # while sigma is above this
    ramp: int | None = None  # latent frames beside the past over which the loosening of grips fades in
    freeinit: int | None = None  # further passes over all noise levels, 0 and None are off
    motion_amplitude: float | None = None  # of what stands for frames that are not seen, 1 and None are off

    @property
    def at_rest(self) -> bool:
        """Nothing is relaxed: the scene is the plain model's."""
        return (self.beta == 0 or not self.target) and not any(map(self.asks, ASKING))

    def asks(self, kind: str) -> bool:
        """Whether it asks for this kind of effect."""
        name, off = ASKING[kind]
        return getattr(self, name) not in (None, off)

    def weights(self, at: Sequence[float], sigmas: Sequence[float]) -> list[float]:
        """What stands in the place of sigma^p, a value per step; `at` are the sigmas, or unshifted times."""
        numbers = {field.name: getattr(self, field.name, None) for field in fields(Steps)}
        said = {name: value for name, value in numbers.items() if value is not None}
        return CURVES[self.schedule](Steps(at=at, sigmas=sigmas, **said))

    def in_words(self) -> str:
        """What is relaxed, in a line of a table."""
        if self.at_rest:
            return "at rest"
        words = [f"{' + '.join(self.target)} beta {self.beta:.2f} p {self.p:g}"] if self.beta else []
        words += [self.schedule] if self.beta and self.schedule != "power" else []
        words += [f"over {self.ramp} frames"] if self.beta and self.ramp else []
        words += [f"blur {self.blur:g} on {self.scope}"] if self.blur else []
        words += [f"gain {self.history_gain:g} on {self.gain_on}"] if self.history_gain != 1 else []
        words += [f"low-pass {self.lowpass:g}"] if self.lowpass != 1 else []
        words += [f"FreeInit x {self.freeinit}"] if self.freeinit else []
        words += [f"motion amplitude {self.motion_amplitude:g}"] if self.motion_amplitude not in (None, 1) else []
        return ", ".join(words)

    def effects(self, sigma: float) -> tuple[Effect, ...]:
        """What acts in a step at this noise besides guidance."""
        acting: list[Effect] = []
        blur = self.blur * (sigma**self.p if self.over_steps == "follow" else 1.0)
        if blur > 0:
            acting.append(KVBlur(sigma=blur, scope=self.scope, of=self.blur_of, space=self.space))
        if self.history_gain != 1 and sigma > self.history_gain_above:
            acting.append(KeyGain(gain=self.history_gain, on=self.gain_on))
        if self.lowpass < 1 and sigma > self.lowpass_above:
            acting.append(LowPass(factor=self.lowpass))
        if self.motion_amplitude not in (None, 1):
            acting.append(MotionAmplitude(factor=self.motion_amplitude))
        return tuple(acting)


def written(relaxation: Relaxation, given: Relaxation | None = None) -> dict[str, Any]:
    """As `relax` has it in YAML: what a profile decides, and what is not the default, or not as it is `given`."""
    default = vars(given) if given else {f.name: f.default for f in fields(Relaxation) if f.name != "blur"}
    said = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(relaxation).items()
        if value != default.get(name)
    }
    apart = {name: said.pop(name) for name in Experimental.model_fields if name in said}
    return {**said, "experimental": apart} if apart else said


class Profile(ProfileFields):
    """What the fields mean."""

    def beta(self, intensity: float) -> float:
        intensities, betas = zip(*self.points, strict=True)
        return 0.0 if intensity <= self.threshold else float(np.interp(intensity, intensities, betas))

    def resting(self, relax: Relax) -> Relaxation:
        """At rest but for what `relax` says."""
        return replace(Relaxation(target=self.target, beta=0.0, p=self.p, scope=self.scope), **relax.said)

    def relaxation(self, intensity: float) -> Relaxation:
        """The settings of a scene of this intensity (0..1) before its explicit values."""
        if intensity <= self.threshold:
            return self.resting(Relax())
        made = Relaxation(target=self.target, beta=self.beta(intensity), p=self.p, blur=self.blur, scope=self.scope)
        reached = [relax for first, relax in self.levels if intensity >= first]
        return replace(made, **reached[-1].said) if reached else made

    def intensity_of(self, relaxation: Relaxation) -> float | None:
        """The lowest of its marks at which it asks for these very settings; None where it does at none."""
        marks = sorted(max(first, self.threshold + 0.01) for first, _ in (*self.points, *self.levels))
        found = [0.0] if relaxation.at_rest else [m for m in marks if self.relaxation(m) == relaxation]
        return round(found[0], 2) if found else None

    def below(self, intensity: float) -> list[Relaxation]:
        """What lets go less than a scene of this intensity: at rest, then each point and level on the way to it."""
        marks = {first for first, _ in (*self.points, *self.levels) if self.threshold < first < intensity}
        if any(first <= self.threshold < intensity for first, _ in self.levels):
            marks.add(float(np.nextafter(self.threshold, 1)))  # a level that holds as soon as anything is relaxed
        return [self.resting(Relax()), *map(self.relaxation, sorted(marks))]


def paper_profile(*, embedded: bool) -> Profile:
    """The paper's settings: the embedded scale where the model has a trained one, else true CFG on the text."""
    points = ((0.25, 0.0), (0.5, 0.5), (1.0, 0.75))
    target = "embedded" if embedded else "text"
    return Profile(name="paper", threshold=0.25, points=points, p=0.7, blur=0.6, target=(target,))
