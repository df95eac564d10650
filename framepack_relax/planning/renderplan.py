"""The plan that every later room works from: frozen, comparable, and written out as plan.json."""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from fractions import Fraction
from hashlib import blake2b
from typing import Any

from pydantic_core import to_jsonable_python

from ..families.adapters import Fit
from ..families.base import Anchor, Context, Step
from ..relax.effects import WordGain
from ..relax.profile import Relaxation
from ..storyboard.fields import exact_rate
from ..storyboard.schema import Lora, StartFrom

LONG = ("prompt", "negative_prompt", "blend", "sigmas", "scales", "steps")  # of a section, which may be very long
MOST, STEP = 1 << 25, 250  # bytes that these may take in plan.json, about; bytes of a step's numbers


def stable_seed(of: str, *depends_on: int | str) -> int:
    """64 bits for the noise of a `section`, a `take` of it, its `retry` or `freeinit`, or for a shot's `start` latent.

    A section's noise depends on its scene and its place in it, not on what stands before.
    """
    text = "|".join(["framepack-relax/1", of, *map(str, depends_on)])
    return int.from_bytes(blake2b(text.encode("utf8"), digest_size=8).digest(), "big")


def number_of(take: str) -> int:
    """Which noise a take has; 1 is what the scene has without one."""
    return int(take.partition("-")[0])


@dataclass(frozen=True, kw_only=True)
class Rung:
    """Settings that a section may be sampled with; `guidance` is what its base scales are times the scene's."""

    relaxation: Relaxation
    guidance: float
    steps: tuple[Step, ...]

    def in_words(self) -> str:
        more = f", guidance x {self.guidance:g}" if self.guidance != 1 else ""
        return self.relaxation.in_words() + more


@dataclass(frozen=True, kw_only=True)
class Ensured:
    """That a section must move: by `motion` at least (video/motion.py), in so many `tries` at most.

    `action` are labels of which a judge must see one, or whether those that the prompt names.
    `rungs` go from least to most letting go; the last are the scene's own settings.
    """

    motion: float
    action: tuple[str, ...] | bool
    tries: int
    rungs: tuple[Rung, ...]

    def in_words(self) -> str:
        tried = self.rungs if self.tries > 1 else self.rungs[-1:]
        count = f" in {self.tries} tries" if 1 < self.tries < len(tried) else ""
        seen = " or ".join(self.action) if isinstance(self.action, tuple) else "the action" * self.action
        seen = seen and f" and {seen}"
        return f"{', then '.join(rung.in_words() for rung in tried)}, until motion {self.motion:g}{seen}{count}"

    def to_json(self) -> dict[str, Any]:
        rungs = [{"guidance": rung.guidance, **vars(rung.relaxation)} for rung in self.rungs]
        return {"motion": self.motion, "action": self.action, "tries": self.tries, "rungs": rungs}


@dataclass(frozen=True, kw_only=True)
class Blended:
    """The prompts of the scene across a border, mixed into a section's own with a `weight` of 0..1/2."""

    prompt: str
    negative_prompt: str
    weight: float


@dataclass(frozen=True, kw_only=True)
class SectionPlan:
    """One section: what a model samples at once."""

    index: int  # in the film
    shot: int
    place: int  # in the shot
    scene: str
    prompt: str
    negative_prompt: str
    seed: int
    draw: int  # its noise is this draw, from 0, of a generator with that seed
    frames: tuple[int, int]  # first, end; film-wide
    intensity: float
    relaxation: Relaxation
    lora: tuple[Lora, ...]  # that act, the board's among them
    latents: int  # frames that it samples
    steps: tuple[Step, ...]  # empty: a locked one was made with others, which are not known
    context: Context
    ensure: Ensured | None = None
    blend: Blended | None = None
    anchors: tuple[Anchor, ...] = ()
    take: str | None = None  # whose noise it has
    lock: bool = False  # it stays that take
    file: str = ""  # of its take, in the run folder; empty: it lies with its shot
    start_from: StartFrom | None = None  # the draft of which its first step has the latents, noised; None: noise alone

    def at(self, rung: Rung) -> "SectionPlan":
        """With the settings of a rung."""
        return replace(self, relaxation=rung.relaxation, steps=rung.steps)

    def in_words(self) -> str:
        """How it is relaxed, which words are attended to more, and which take it is."""
        relaxed = self.ensure.in_words() if self.ensure else self.relaxation.in_words()
        words = ", ".join([relaxed, *(f"{words!r} x {gain:g}" for words, gain in self.emphasis.items())])
        return f"locked, take {self.take}" if self.lock else f"take {self.take}: {words}" if self.take else words

    @property
    def texts(self) -> tuple[str, ...]:
        """Prompt and negative prompt, and those that are mixed into them."""
        others = (self.blend.prompt, self.blend.negative_prompt) if self.blend else ()
        return self.prompt, self.negative_prompt, *others

    @property
    def emphasis(self) -> dict[str, float]:
        """Gains of words of the prompt."""
        effects = self.steps[0].effects if self.steps else ()
        return {effect.words: effect.gain for effect in effects if isinstance(effect, WordGain)}

    @property
    def tables(self) -> tuple[tuple[Step, ...], ...]:
        """The steps of all settings that it may be sampled with."""
        return tuple(rung.steps for rung in self.ensure.rungs) if self.ensure else (self.steps,)

    @property
    def passes(self) -> tuple[int, int]:
        """At least and at most."""
        if self.lock:
            return 0, 0
        counts = [sum(len(step.passes) for step in steps) for steps in self.tables]
        if not self.ensure or self.ensure.tries == 1:
            return counts[-1], counts[-1]
        dearest = sorted(counts[1:], reverse=True)[: self.ensure.tries - 1]
        return counts[0], counts[0] + sum(dearest)

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Per step, the highest first; after the last comes 0."""
        return tuple(step.sigma for step in self.steps)

    @property
    def scales(self) -> dict[str, tuple[float, ...]]:
        """s(sigma) of each restraint, a value per step."""
        names = self.steps[0].scales if self.steps else ()
        return {name: tuple(step.scales[name] for step in self.steps) for name in names}

    def to_json(self, without: Collection[str] = ()) -> dict[str, Any]:
        """A row of plan.json, in which the relaxation's settings stand beside the section's own."""
        left = {"place", "context", "relaxation", *without}
        row = {name: value for name, value in vars(self).items() if name not in left and (value or name not in RARE)}
        row |= {**vars(self.relaxation), "at_rest": self.relaxation.at_rest}
        row |= {"ensure": self.ensure.to_json()} if self.ensure else {}
        row |= {"emphasis": self.emphasis} if self.emphasis else {}
        tables = {"sigmas": self.sigmas, "scales": self.scales} if "sigmas" not in without else {}
        return to_jsonable_python({**row, **tables})


RARE = {field.name for field in fields(SectionPlan) if field.default is not MISSING}  # said where they say anything


@dataclass(frozen=True, kw_only=True)
class ShotPlan:
    """A run of scenes up to a hard cut; `seed` draws its start latent."""

    index: int
    image: str | None  # that it begins with, relative to the storyboard's folder; or a film
    image_size: tuple[int, int]  # width, height px, before it is cropped to the film's; (1, 1) without one
    seed: int
    sections: tuple[int, ...]  # film-wide indices in the order in which they are rendered
    frames: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SceneTiming:
    """What a scene asked for and what the grid gives it."""

    scene: str
    shot: int
    asked_seconds: float
    real_seconds: float
    sections: tuple[int, ...]
    frames: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class RenderPlan:
    """A whole film."""

    title: str
    model: str
    fps: float  # as written: 29.97 stands for 30000/1001
    size: tuple[int, int]  # width, height px
    kind: str  # the model's family
    options: Mapping[str, Any]  # settings of that family, part of every key
    lora: tuple[Fit, ...]  # of all scenes
    decode: str
    sampler: str
    profile: str
    frames: int
    shots: tuple[ShotPlan, ...]
    scenes: tuple[SceneTiming, ...]
    sections: tuple[SectionPlan, ...]
    warnings: tuple[str, ...]

    @property
    def rate(self) -> Fraction:
        """Frames per second, exactly."""
        return exact_rate(self.fps)

    @property
    def seconds(self) -> float:
        return float(self.frames / self.rate)

    @property
    def steps(self) -> int:
        return sum(len(section.steps) for section in self.sections)

    @property
    def passes(self) -> tuple[int, int]:
        """At least and at most."""
        least, most = zip(*(section.passes for section in self.sections), strict=True)
        return sum(least), sum(most)

    @property
    def effects(self) -> set[str]:
        """The kinds of all that acts anywhere."""
        tables = {id(steps): steps for section in self.sections for steps in section.tables}.values()
        return {effect.kind for steps in tables for step in steps for effect in step.effects}

    @property
    def largest(self) -> SectionPlan:
        """The section, the first of equals, that takes the most memory: it has the most latent frames."""
        return max(self.sections, key=lambda section: section.latents)

    def to_json(self) -> dict[str, Any]:
        """The contents of plan.json; of a very long plan, without what is long in its sections (`left_out`)."""
        texts = sum(len(text) for section in self.sections for text in section.texts)
        left_out = LONG if texts + STEP * self.steps > MOST else ()
        rows = [section.to_json(without=left_out) for section in self.sections]
        said = {name: value for name, value in vars(self).items() if name != "options"} | dict(self.options)
        return to_jsonable_python({**said, "sections": rows, **({"left_out": left_out} if left_out else {})})
