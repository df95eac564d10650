"""The kinds of values that a storyboard's fields take: what each may be, and the words in which another is refused."""

import os
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from .curves import CURVES
from .meanings import suggest
from .paths import ESCAPE

PRESETS = {"sustained": 0.7, "linear": 1.0, "rapid": 2.1}
MOTIONS = {"low": 0.005, "medium": 0.03, "high": 0.08}
PROFILES = ("auto", "paper")
BROADCAST = {round(n * 1000 / 1001, 3): Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)}  # fps: 23.976, ..
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
MARKER = re.compile(r"<\|\w{1,40}\|>")  # of Llama\'s chat template, into which prompts are put
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
BAD_ID = "is {}; write 1 to 64 of A-Z, a-z, 0-9, '_', '-' and '.', a letter or digit first, such as scene-1"
TAKE = re.compile(r"[1-9][0-9]{0,3}-[0-9a-f]{6}")
BAD_TAKE = "is {}; a take is called such as 3-9f2c41, and `framepack-relax pick` writes it"
DRIFT = re.compile(r"adain (0|1|0?\.[0-9]{1,6})")
if TYPE_CHECKING:
    Schedule = str
else:
    Schedule = Literal[tuple(CURVES)]
Coord = Literal["sigma", "progress"]
OverSteps = Literal["constant", "follow"]
Space = Literal["post_rope", "pre_rope"]
BlurOf = Literal["kv", "k", "v"]
GainOn = Literal["history", "reference", "all"]
Order = Literal["forward", "inverted"]
Sampler = Literal["unipc", "euler"]
Decoding = Literal["stream", "blend"]
NoPast = Literal["zeros", "none"]
Expert = Literal["high", "low"]
Past = Literal["frame", "svi", "svi-pro"]


def _plain_text(text: str) -> str:
    if found := CONTROL.search(text):
        raise ValueError(f"holds the control character U+{ord(found[0]):04X}; remove it ({ESCAPE})")
    if found := MARKER.search(text):
        raise ValueError(f"holds {found[0]}, which the text encoder takes for a command; remove it")
    return text


def on_one_line(text: str) -> str:
    """Without the line breaks of block texts, so that `|`, `>` and a single line say the same."""
    return re.sub(r"\s*\n\s*", " ", text).strip()


def only(good: Callable[[Any], Any], otherwise: str) -> AfterValidator:
    """Refuses what is not `good` with these words, in which {} is the value."""

    def check(value: Any) -> Any:
        if not good(value):
            raise ValueError(otherwise.format(repr(value[:60])))
        return value

    return AfterValidator(check)


def plain(value: Any) -> Any:
    """Paths as text, NumPy's numbers and arrays as Python's, also inside lists."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value


def has_places(words: tuple[str, ...]) -> bool:
    """Whether a command names what it is given and what it makes."""
    return all(any(place in word for word in words[1:]) for place in ("{input}", "{output}"))


def _multiple_of_16(size: tuple[int, int]) -> tuple[int, int]:
    sides = zip(("width", "height"), size, strict=True)
    if odd := [f"{name} {value}" for name, value in sides if value % 16 or not 16 <= value <= 4096]:
        raise ValueError(f"{' and '.join(odd)} must be a multiple of 16 between 16 and 4096")
    return size


def exact_rate(fps: float) -> Fraction:
    """Frames per second as they are meant: 29.97 is 30000/1001."""
    return BROADCAST.get(fps, Fraction(fps))


def _rate(fps: float) -> float:
    near = min(BROADCAST, key=lambda rate: abs(rate - fps))
    if abs(near - fps) < 5e-4:  # also 30000/1001 as Python writes it
        return near
    if fps == int(fps):
        return int(fps)
    cure = f"write {near:g}" if abs(near - fps) < 0.05 else "write a whole number"
    raise ValueError(f"is {fps:g}; {cure} (of others {', '.join(f'{rate:g}' for rate in BROADCAST)} are known)")


def _even(count: int) -> int:
    if count % 2:
        raise ValueError(f"is {count}; half of them are on each side of the border: write {count - 1} or {count + 1}")
    return count


def _or_preset(presets: Mapping[str, float], written: Any) -> BeforeValidator:
    """Takes the name of a preset for its number."""

    def number(value: Any) -> Any:
        if isinstance(value, str) and value not in presets:
            raise ValueError(f"is {value[:60]!r}, neither a number nor a preset; {suggest(value, list(presets))}")
        return presets[value] if isinstance(value, str) else value

    return BeforeValidator(number, json_schema_input_type=written)


Text = Annotated[str, AfterValidator(_plain_text)]
Words = Annotated[str, only(str.strip, "is empty; write something or remove the line"), AfterValidator(_plain_text)]
Id = Annotated[str, only(ID.fullmatch, BAD_ID)]
TakeId = Annotated[str, only(TAKE.fullmatch, BAD_TAKE)]
Drift = Annotated[str, only(DRIFT.fullmatch, "is {}; write `adain 0.25`, a strength from 0 to 1, or remove the line")]
PROFILE = re.compile(r"auto|paper|.*/.*|.*\.ya?ml", re.DOTALL)
ProfileName = Annotated[Words, only(PROFILE.fullmatch, "is {}; known are auto, paper, or a .yaml file")]
RISING = only(lambda x: 0 <= x[0] < x[1] <= 1, "must be two sigmas between 0 and 1, the lower first")
Interval = Annotated[tuple[float, float], RISING]
DISTINCT = only(lambda names: 0 < len(names) == len(set(names)), "must name one or more targets, each once")
ONE = BeforeValidator(lambda x: (x,) if isinstance(x, str) else x, json_schema_input_type=str | tuple[str, ...])
Targets = Annotated[tuple[str, ...], ONE, DISTINCT]
Exponent = Annotated[float, Field(gt=0, le=8)]
Power = Annotated[Exponent, _or_preset(PRESETS, Exponent | Literal["sustained", "linear", "rapid"])]
Change = Annotated[float, Field(gt=0, le=1)]
Motion = Annotated[Change, _or_preset(MOTIONS, Change | Literal["low", "medium", "high"])]
Size = Annotated[tuple[int, int], AfterValidator(_multiple_of_16)]
EvenCount = Annotated[int, Field(ge=2, le=100), AfterValidator(_even)]
Scale = Annotated[float, Field(ge=1, le=100)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
AS_IT_IS = PlainSerializer(lambda rate: rate)  # 30 stays 30 and does not become 30.0
Rate = Annotated[float, Field(ge=1, le=240), AfterValidator(_rate), AS_IT_IS]
Steps = Annotated[int, Field(ge=1, le=1000)]
Pattern = Annotated[str, only(re.compile("1[01]{1,999}").fullmatch, "is {}; write a digit for each step, 1 first")]
SPEED = re.compile("full|fast|1[01]{1,999}")
Speed = Annotated[str, only(SPEED.fullmatch, "is {}; write full, fast, or a digit a step: 1 first, 0 reuses the last")]
Intensity = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=-1, le=1)]
