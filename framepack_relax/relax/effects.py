"""What may be done in a step besides guidance, as data: a plan's rows hold it, a model's backend acts on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..storyboard.fields import BlurOf, GainOn, Space


@dataclass(frozen=True, kw_only=True, slots=True)
class KVBlur:
    """Eq. 3: keys and values of `scope` smoothed over time."""

    sigma: float  # of the Gaussian, in latent frames
    scope: str = "section"
    of: BlurOf = "kv"
    space: Space = "post_rope"
    kind: Literal["kv_blur"] = "kv_blur"


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyGain:
    """The attention weights of past keys for the section's queries, multiplied by `gain` before they are normalised."""

    gain: float
    on: GainOn = "history"
    kind: Literal["key_gain"] = "key_gain"


@dataclass(frozen=True, kw_only=True, slots=True)
class WordGain:
    """The attention to words of the prompt, multiplied by `gain` before it is normalised.

    Prompt-to-Prompt (arXiv 2208.01626) multiplies it after that, so that its rows sum to another number than 1.
    """

    words: str
    gain: float
    kind: Literal["word_gain"] = "word_gain"


@dataclass(frozen=True, kw_only=True, slots=True)
class LowPass:
    """ALG: the past's sharp images made `factor` as large and as large as before again (arXiv 2506.08456)."""

    factor: float
    kind: Literal["low_pass"] = "low_pass"


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionAmplitude:
    """PainterI2V: how far what stands for unseen frames is from the image, `factor` times as far."""

    factor: float
    kind: Literal["motion_amplitude"] = "motion_amplitude"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ramp:
    """Where grips are loosened, a section's latent frames nearer to the past than so many are loosened less."""

    frames: int
    past_after: bool = False  # the past is the film's future
    kind: Literal["ramp"] = "ramp"


@dataclass(frozen=True, kw_only=True, slots=True)
class FreeInit:
    """A further pass over all noise levels, from what the one before it made (latents.renewed); the first is 1."""

    number: int
    kind: Literal["free_init"] = "free_init"


Effect = KVBlur | KeyGain | WordGain | LowPass | MotionAmplitude | Ramp | FreeInit
ANYWHERE = ("kv_blur", "word_gain", "free_init")  # kinds that every backend can do
EFFECTS = (*ANYWHERE, "key_gain", "low_pass")
ASKING: Mapping[str, tuple[str, float]] = {  # by kind, the field of `relax` that asks for it and the value that is off
    "kv_blur": ("blur", 0),
    "key_gain": ("history_gain", 1),
    "low_pass": ("lowpass", 1),
    "motion_amplitude": ("motion_amplitude", 1),
    "free_init": ("freeinit", 0),
}
