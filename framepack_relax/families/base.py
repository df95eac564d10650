"""What planning asks of a video model: its time grid, its guidance terms, its noise levels, what its sections see.

A family is a kind of model (FramePack, HunyuanVideo, ...). Its class is a frozen dataclass of which an instance holds
the facts of one model. No torch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from ..errors import Problem
from ..relax.effects import ASKING, Effect, FreeInit, LowPass
from ..relax.guidance import Branch, branches
from ..relax.profile import Profile
from ..storyboard import Relax, Storyboard
from ..storyboard.meanings import suggest
from ..storyboard.messages import printable
from ..storyboard.schema import Experimental, Lora
from .configs import Sidecar
from .flow import FlowShift, Levels
from .layers import Original

if TYPE_CHECKING:
    from .backend import Backend

Size = tuple[int, int]  # width, height px
Image = Literal["required", "optional", "refused"]
UNREAD = "its scheduler/scheduler_config.json is not on this machine"
FAST = "1111110010010010010010011"  # half of the steps: all while the picture forms, then every third, and the last


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeGrid:
    """How frames come out of latents. Scene ends snap to units; a section is 1 to `most_units` of them.

    `lead_frames` are those that a shot's first section has besides its units, `lead_latents` the latent frames that it
    samples for them; `again_latents` those that all others sample for frames that are there already. Where there is no
    `past`, no section goes on from another, and every scene is a shot.
    """

    unit_frames: int
    unit_latents: int
    most_units: int = 1
    lead_frames: int = 1
    lead_latents: int = 1
    again_latents: int = 0
    past: bool = True

    def latents(self, units: int, *, first: bool) -> int:
        """Latent frames that a section of so many units samples."""
        return units * self.unit_latents + (self.lead_latents if first else self.again_latents)


@dataclass(frozen=True, kw_only=True, slots=True)
class GuidanceTerm:
    """A restraint with a scale, which eq. 2 may relax from `base` towards `floor` (s_min)."""

    name: str
    base: float  # at rest; a scene's `guidance` may set another one
    floor: float
    lowest: float = 0.0  # what a scene may set as its floor
    trained: bool = True  # relaxing it means something on this model
    grip: bool = False  # of what a section sees, 1 at rest: a pass goes without that; no board sets it
    timesteps: tuple[float, float] = (0.0, math.inf)  # from the first on and below the second it acts; else it is 1
    like: str = ""  # the term whose scale a board sets for this one, too, unless it says its own
    of_past: bool = False  # where there is no past it is at rest


TEXT = GuidanceTerm(name="text", base=1.0, floor=1.0, lowest=1.0)  # true CFG
CONTEXT = GuidanceTerm(name="context", base=1.0, floor=0.0, grip=True, of_past=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """All that happens in one step of a section, as data."""

    index: int  # from 0 at the most noise, wherever its section begins; counted on in further passes
    sigma: float  # noise fraction 0..1, what schedules are functions of
    timestep: float  # what the network is fed
    scales: Mapping[str, float]  # of each guidance term by name
    effects: tuple[Effect, ...] = ()
    reused: tuple[str, ...] | None = None  # branches whose velocity is that of the step before; None: none

    @property
    def again(self) -> int:
        """Of the passes over all noise levels the one that it is of; the first is 0."""
        return next((effect.number for effect in self.effects if isinstance(effect, FreeInit)), 0)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """What it combines the velocities of."""
        return branches(self.scales, low_passed=any(isinstance(effect, LowPass) for effect in self.effects))

    @property
    def passes(self) -> tuple[Branch, ...]:
        """The forward passes that it takes."""
        return tuple(branch for branch in self.branches if branch.name not in (self.reused or ()))


Role = Literal["end", "key"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """An image that a section comes to, in a latent frame; counted among those that it samples.

    `seconds` from the scene's beginning, of the last frame of that latent one; `asked` for.
    """

    latent: int
    image: str  # relative to the storyboard's folder
    role: Role
    asked: float
    seconds: float

    def in_words(self) -> str:
        if self.role == "end":
            return f"ends on {self.image}"
        near = "" if abs(self.seconds - self.asked) < 0.005 else f" (asked {self.asked:g} s)"
        return f"comes to {self.image} at {self.seconds:.4g} s{near}"


def noise_table(steps: Sequence[Step]) -> list[float]:
    """By a step's index; of steps that are left out before the first it has the first's, which no solver looks at."""
    return [steps[0].sigma] * steps[0].index + [step.sigma for step in steps]


class Context(Protocol):
    """What a section sees of its shot: a frozen dataclass of its family's, written into plan and key."""

    @property
    def initial(self) -> bool: ...  # nothing of the shot is rendered yet: there is no past to loosen
    @property
    def needs(self) -> tuple[int, ...]: ...  # places in the shot of the sections whose latents it reads, in the past


@dataclass(frozen=True, kw_only=True, slots=True)
class SimpleContext:
    """Of a section that sees its prompt, and of its shot those sections that it `needs`."""

    initial: bool = True
    needs: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """A model as planning sees it: each family is a subclass, an instance holds the facts of one model."""

    name: str  # as the user calls the model
    size: Size | None = None  # of a film that asks for none
    fps: float = 30  # that it was trained at
    shift: FlowShift | None = None  # of its noise levels, as its scheduler's config has it; None: not read
    text: float = 1.0  # base of true CFG; 1 is off
    fast: str = FAST  # a digit for each step of a section with `speed: fast`, 1 where the network is asked
    judges: str | None = None  # of its films, where the usual ones do not know its world
    profile: Profile | None = field(default=None, repr=False)  # its calibrated one; None: the paper's
    lora: tuple[Lora, ...] = ()  # that it comes with

    kind: ClassVar[str]  # the family's name
    grid: ClassVar[TimeGrid]
    spatial: ClassVar[int] = 8  # px of a latent pixel's side; a token's is twice as long
    effects: ClassVar[frozenset[str]]  # kinds that its backend can do
    scopes: ClassVar[tuple[str, ...]] = ("section", "all")  # whose keys and values it can blur
    samplers: ClassVar[tuple[str, ...]] = ("euler",)  # the first is the default
    masks: ClassVar[bool] = False  # its attention has a mask, which not every kernel takes
    image: ClassVar[Image]  # whether a shot begins with one
    renderer: ClassVar[str]  # its backend, as module:class beside this module
    sidecar: ClassVar[type[Sidecar]] = Sidecar
    scheduler: ClassVar[type[FlowShift]] = FlowShift  # how that config is read
    parts: ClassVar[Mapping[str, Any]] = {}  # its components by name: how the JSON file of each is read
    original: ClassVar[Original] = {}  # names of its transformer's layers in the model's first programs

    @classmethod
    def read(cls, name: str, said: Sidecar, shift: FlowShift) -> Self:
        """Of a folder's sidecar, which may leave open what it need not say, and its scheduler."""
        own = {field.name for field in fields(cls)}
        return cls(name=name, shift=shift, **{key: value for key, value in said.facts.items() if key in own})

    @property
    @abstractmethod
    def terms(self) -> tuple[GuidanceTerm, ...]: ...

    @property
    def unread(self) -> str:
        """What of its noise levels is not known, so that it can be planned and not rendered; empty where all is."""
        return f"{self.name}: {UNREAD}" if self.shift is None and self.parts else ""

    @property
    def planned_with(self) -> str:
        """What stands for the noise levels that are not known."""
        return "the usual noise levels"

    @property
    def options(self) -> Mapping[str, Any]:
        """Settings of this family alone that reach the latents: part of the plan and of every key."""
        return {}

    @property
    def decode(self) -> str:
        """How its decoder works."""
        return "stream"

    def configured(self, story: Storyboard) -> Self:
        """With the settings of this family that the board makes."""
        return self

    def relax_problems(self, place: str, relax: Relax) -> Iterator[Problem]:
        """What a `relax`, whose fields' paths begin with `place`, names or asks for that it has not."""
        terms = [term.name for term in self.terms]
        for nth, name in enumerate(relax.target or ()):
            if name not in terms:
                message = f"{self.name} has no restraint {printable(name)}; {suggest(name, terms)}"
                yield Problem(path=f"{place}target[{nth}]", message=message)
        if relax.scope and relax.scope not in self.scopes:
            message = f"{self.name} has no {printable(relax.scope)} to blur; {suggest(relax.scope, self.scopes)}"
            yield Problem(path=f"{place}scope", message=message)
        for effect, (name, _) in ASKING.items():
            if effect not in self.effects and name in relax.said:
                inside = "experimental." if name in Experimental.model_fields else ""
                yield Problem(path=f"{place}{inside}{name}", message=f"{self.name} cannot do that; remove the line")

    def profile_problems(self, profile: Profile) -> Iterator[Problem]:
        """The same of an intensity profile."""
        yield from self.relax_problems("", Relax(target=profile.target, scope=profile.scope))
        for nth, (_, relax) in enumerate(profile.levels):
            yield from self.relax_problems(f"levels[{nth}][1].", relax)
        for nth, rung in enumerate(profile.ladder or ()):
            yield from self.relax_problems(f"ladder[{nth}].relax.", rung.relax)

    def problems(self, story: Storyboard) -> Iterator[Problem]:
        """Settings of this family that do not go together; asked after `configured`."""
        yield from ()

    def notes(self, story: Storyboard, shots: Sequence[tuple[float, int]]) -> Iterator[tuple[str, str]]:
        """Where, and what is worth a warning there, of shots, each (seconds that were asked for, sections)."""
        if self.unread:
            yield "", f"{self.unread}: this plan is made with {self.planned_with}"

    def own_size(self, image: Size) -> Size:
        """The size of a film that asks for none; `image` is that of its first image, (1, 1) without one."""
        assert self.size is not None
        return self.size

    @abstractmethod
    def levels(self, steps: int, size: Size, sampler: str) -> Levels:
        """(sigma, timestep) of each step; the first sigma is the highest, after the last comes 0."""

    @property
    def anchors(self) -> frozenset[Role]:
        """The images that a section may come to: at a shot's end, on its way."""
        return frozenset()

    @property
    def past_frames(self) -> Sequence[int]:
        """How many of a film's last frames it can go on from, the most first; empty where it cannot."""
        return ()

    def render_order(self, sections: int) -> Sequence[int]:
        """Places of a shot's sections in the order in which they are rendered."""
        return range(sections)

    def context(self, place: int, sections: int, *, film: bool = False) -> Context:
        """Of the section at a place of a shot of so many sections, that goes on from a `film` or not."""
        return SimpleContext()

    def has_past(self, context: Context, *, image: bool) -> bool:
        """Whether there is one to loosen, in a shot that begins with an image, or a film, or without."""
        return not context.initial

    def backend(self) -> "type[Backend]":
        """The class that renders it; imports torch."""
        made: type[Backend] = resolve_name(f"{__package__}.{self.renderer}")
        return made
