"""What a storyboard may say. Field descriptions give units; they become the JSON Schema's."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    create_model,
)

from ..errors import Problem, StoryboardError
from .fields import (
    MOTIONS,
    ONE,
    BlurOf,
    Coord,
    Decoding,
    Drift,
    EvenCount,
    Expert,
    GainOn,
    Id,
    Intensity,
    Interval,
    Motion,
    NoPast,
    Order,
    OverSteps,
    Past,
    Power,
    ProfileName,
    Rate,
    Sampler,
    Scale,
    Schedule,
    Seed,
    Size,
    Space,
    Speed,
    Steps,
    TakeId,
    Targets,
    Text,
    Words,
    has_places,
    on_one_line,
    only,
)
from .messages import Places, field_of, located, validated
from .part import Part
from .paths import expand
from .rules import between_scenes

STRENGTH = 0.6  # of `start_from` (LOG.md)


class Guidance(Part, extra="allow"):
    """Base scales at rest, by the names that the model's family has for them; absent ones are the model's own."""

    __pydantic_extra__: dict[str, Scale] = Field(init=False)

    @property
    def scales(self) -> dict[str, float]:
        return dict(self.model_extra or {})


class Experimental(Part):
    """What ablations change."""

    schedule: Schedule | None = Field(None, description="what stands for sigma^p; power is the paper's")
    interval: Interval | None = Field(None, description="sigmas between which the schedule interval does not relax")
    coord: Coord | None = Field(None, description="shifted noise fraction or unshifted time")
    over_steps: OverSteps | None = Field(None, description="blur over the steps")
    space: Space | None = Field(None, description="where K is blurred")
    blur_of: BlurOf | None = Field(None, description="what is blurred: keys, values or both")
    gain_on: GainOn | None = Field(None, description="on whose keys history_gain acts")
    lowpass: float | None = Field(None, gt=0, le=1, description="ALG: scale of the past's sharp images; 1 is off")
    lowpass_above: float | None = Field(None, ge=0, le=1, description="the low-pass acts while sigma is above this")
    ramp: int | None = Field(None, ge=0, le=64, description="latent frames over which loosened context fades in")
    freeinit: int | None = Field(None, ge=0, le=8, description="FreeInit: further passes, from what was made; 0 is off")
    motion_amplitude: float | None = Field(None, gt=0, le=4, description="PainterI2V's: of unseen frames; 1 is off")


class Relax(Part):
    """Explicit relaxation of a scene; what is absent comes from the intensity profile."""

    target: Annotated[Targets | None, BeforeValidator(lambda value: None if value == "auto" else value)] = Field(
        None, description="guidance terms that eq. 2 relaxes: embedded, text, context, as the model's family has them"
    )
    beta: float | None = Field(None, ge=-1, le=1, description="relaxation strength; 0 is off, below 0 boosts")
    p: Power | None = Field(None, description="decay power, or sustained (0.7), linear (1.0), rapid (2.1)")
    min: float | None = Field(None, ge=0, le=100, description="s_min, the scale that beta 1 reaches at sigma 1")
    blur: float | None = Field(None, ge=0, le=8, description="sigma_blur of K and V in latent frames; 0 is off")
    scope: str | None = Field(None, description="whose K and V are blurred: section, all, or a part of the past")
    history_gain: float | None = Field(None, gt=0, le=4, description="multiplies the attention to the past; 1 is off")
    history_gain_above: float | None = Field(None, ge=0, le=1, description="it acts while sigma is above this")
    experimental: Experimental = Field(Experimental(), description="what ablations change")

    @property
    def said(self) -> dict[str, Any]:
        """What is not absent, those of `experimental` among the others."""
        fields = (*self, *self.experimental)
        return {name: value for name, value in fields if value is not None and name != "experimental"}


class Rung(Part):
    """Settings that `ensure` tries before a scene's own; what is absent is at rest."""

    guidance: float = Field(1.0, ge=1, le=10, description="times the base scales that act")
    relax: Relax = Field(Relax(), description="as of a scene")


class Ensure(Part):
    """Sections are looked at; one that stands still is sampled again with the next rung of the ladder."""

    motion: Motion = Field(
        MOTIONS["low"], description="least mean change from frame to frame of the busiest 5 % of the pixels, luma 0..1"
    )
    action: Annotated[tuple[Words, ...] | bool, ONE] = Field(
        False, description="labels of the action judge, of which one must be seen; true: those that the prompt names"
    )
    tries: int = Field(4, ge=1, le=8, description="of a section, at most; 1: its own settings are looked at")
    ladder: tuple[Rung, ...] | None = Field(
        None, max_length=16, description="tried before the scene's own, least letting go first; default: the profile's"
    )


class Lora(Part):
    """An adapter of the model's transformer, for the film or a scene."""

    file: Words = Field(description="a .safetensors file beside the board, or owner/name[@revision]/file of the hub")
    scale: float = Field(1.0, ge=-10, le=10, description="how strongly it acts; 0 is off")
    expert: Expert | None = Field(None, description="of a model of two transformers, by the noise that it takes")


class Finish(Part):
    """A command that makes another mp4 of each shot; run only where whoever renders allows it."""

    run: Annotated[
        tuple[Words, ...], only(has_places, "must hold {{input}} and {{output}}, the mp4 that is given and made")
    ] = Field(
        min_length=1, max_length=64, description="the command and its arguments, with {input} and {output} among them"
    )
    timeout: float = Field(3600, gt=0, le=86400, description="seconds that a shot may take")


class Blend(Part):
    """A border at which the prompts of two scenes are mixed; the past is kept."""

    blend: EvenCount = Field(description="sections that read both, half of them on each side of the border: 2, 4, ..")


class Emphasis(Part):
    """Words of a prompt that are attended to more, or less."""

    words: Words = Field(description="as they stand in the prompt", max_length=1000)
    gain: float = Field(gt=0, le=4, description="times their attention before it is normalised; 1 is off")


class Keyframe(Part):
    """An image that a scene comes to at a time."""

    at: float = Field(gt=0, le=3600, description="seconds from the scene's beginning; snaps to the latent frames")
    image: Words = Field(description="relative to the storyboard")


class StartFrom(Part):
    """Sections begin with a draft's latents, resized and noised, in the midst of their steps."""

    folder: Words | None = Field(None, description="of the draft's render, by its path; default: the board's")
    strength: float | None = Field(
        None, gt=0, le=1, description="most noise that they get, a sigma; default 0.6; 1: all"
    )


class Scene(Part):
    """A stretch of film under one prompt."""

    id: Id = Field(description="unique name; part of the scene's seeds")
    prompt: Words = Field(description="what is seen and what happens", max_length=20_000)
    seconds: float = Field(gt=0, le=3600, description="length in seconds; scene ends snap to the model's grid")
    intensity: Intensity | Literal["auto"] = Field(0.0, description="0 calm .. 1 most dynamic, or auto: by the prompt")
    negative_prompt: Text | None = Field(None, description="instead of the board's", max_length=20_000)
    image: Words | None = Field(None, description="start image of a shot, relative to the storyboard")
    end_image: Words | None = Field(None, description="that the shot ends on, relative to the storyboard")
    keyframes: tuple[Keyframe, ...] | None = Field(None, min_length=1, max_length=64, description="images on the way")
    transition: Literal["continue", "cut"] | Blend = Field(
        "continue", description="keep the history, or begin a new shot; {blend: 2}: keep it and mix the prompts"
    )
    emphasis: tuple[Emphasis, ...] | None = Field(
        None, min_length=1, max_length=16, description="of the prompt's words"
    )
    seed: Seed | None = Field(None, description="instead of the board's")
    steps: Steps | None = Field(None, description="denoising steps, instead of the board's")
    speed: Speed | None = Field(None, description="default: the board's where the scene is at rest, else full")
    guidance: Guidance = Field(Guidance(), description="base scales at rest; default: the board's, then the model's")
    relax: Relax = Field(Relax(), description="explicit relaxation; what is absent comes from the profile")
    lora: tuple[Lora, ...] | None = Field(None, min_length=1, max_length=16, description="besides the board's")
    ensure: Ensure | None = Field(None, description="that something moves; default: the board's unless at rest")
    take: TakeId | None = Field(None, description="that the scene is; on another past only its noise; see `pick`")
    lock: bool = Field(False, description="the take stays as it is, whatever changes around it")
    start_from: StartFrom | None = Field(
        None, description="where the film starts from a draft; what is absent is the board's"
    )


class FramePackBlock(Part):
    """Settings of FramePack's family."""

    order: Order | None = Field(None, description="of rendering; default: the model's own")
    decode: Decoding | None = Field(None, description="each latent once, or FramePack's way; default: by the order")
    drift: Drift | None = Field(None, description="`adain 0.25` pulls colours towards a shot's first; default: off")

    @property
    def adain(self) -> float:
        """Strength of the correction of drift, 0..1; 0 is off."""
        return float(self.drift.removeprefix("adain ")) if self.drift else 0.0


class WanBlock(Part):
    """Settings of Wan's family."""

    carry: int | None = Field(None, ge=1, le=4, description="latent frames that the next section is given; trained: 1")
    past: Past | None = Field(None, description="of I2V-A14B: a clip's last frame, or as SVI 2.0 or 2.0 Pro see it")


class HeliosBlock(Part):
    """Settings of Helios' family."""

    no_past: NoPast | None = Field(None, description="what stands for the past where target context loosens it")


BLOCKS: dict[str, type[Part]] = {"framepack": FramePackBlock, "wan": WanBlock, "helios": HeliosBlock}  # by family


class Written(Part):
    """A mapping that is a file of its own, and knows where it was read."""

    _folder: Path | None = PrivateAttr(None)
    _places: Places = PrivateAttr(default_factory=dict)
    _file: str = PrivateAttr("")

    def placed(self, file: str, folder: Path | None, places: Places) -> Self:
        """The same, told where it was read: `places` maps field paths to (line, column)."""
        self._file, self._folder, self._places = file, folder, places
        return self


if TYPE_CHECKING:
    Continued = Written
else:  # `from` is a word of Python's
    before = Field(None, description="a film that this one goes on from; relative to the storyboard")
    Continued = create_model("Continued", __base__=Written, **{"from": (Words | None, before)})


class Storyboard(Continued):
    """A film: settings of the board and its scenes in order."""

    _film: "Storyboard | None" = PrivateAttr(None)

    version: Literal[1] = Field(1, description="of this format")
    title: Text = Field("", description="goes into the film's metadata")
    model: Words = Field("puppet", description="puppet, framepack-f1, framepack, a diffusers folder or a hub id")
    size: Size | None = Field(None, description="width, height in px, multiples of 16; default: the model's own")
    fps: Rate | None = Field(None, description="frames per second; default: the model's own")
    seed: Seed = Field(31337, description="every section's noise follows from it")
    steps: Steps = Field(25, description="denoising steps per section")
    speed: Speed = Field("full", description="fast: calm scenes reuse velocities in about half of their steps")
    sampler: Sampler | None = Field(None, description="FramePack's solver, or Euler; default: the model's own")
    noise: Literal["per_scene", "framepack"] = Field(
        "per_scene", description="inserted scenes change no other's; or section after section, as FramePack draws it"
    )
    framepack: FramePackBlock | None = Field(None, description="settings of FramePack's family")
    wan: WanBlock | None = Field(None, description="settings of Wan's family")
    helios: HeliosBlock | None = Field(None, description="settings of Helios' family")
    guidance: Guidance = Field(Guidance(), description="base scales at rest of every scene; default: the model's own")
    style: Text = Field("", description="joined to every scene's prompt", max_length=20_000)
    negative_prompt: Text = Field("", max_length=20_000, description="for true CFG")
    image: Words | None = Field(None, description="start image, relative to the storyboard")
    audio: Words | None = Field(None, description="sound of the film, relative to the storyboard; cut or padded")
    loop: bool | None = Field(None, description="the film ends where it begins: on the image of its first shot")
    lora: tuple[Lora, ...] | None = Field(None, min_length=1, max_length=16, description="adapters of the model")
    profile: ProfileName = Field("auto", description="intensity profile: auto (the model's own), paper, or a file")
    ensure: Ensure | None = Field(None, description="of every scene that is not at rest: that something moves")
    finish: tuple[Finish, ...] | None = Field(None, min_length=1, max_length=8, description="commands, in turn, a shot")
    start_from: StartFrom | None = Field(None, description="a draft that was accepted, of which this is the final film")
    crf: int = Field(16, ge=0, le=51, description="H.264 quality; lower is better and larger; 0 is made 1")
    scenes: tuple[Scene, ...] = Field(min_length=1, max_length=3000, description="in the order of the film")

    def __eq__(self, other: object) -> bool:
        """Equal boards say the same, wherever they were read."""
        return isinstance(other, Storyboard) and self.model_dump() == other.model_dump()

    @property
    def before(self) -> str | None:
        """The film that it goes on from."""
        return getattr(self, "from")

    def prompt_of(self, scene: Scene) -> str:
        """The scene's prompt with the board's style, on one line: what the model reads."""
        return ", ".join(filter(None, (on_one_line(scene.prompt), on_one_line(self.style))))

    def negative_of(self, scene: Scene) -> str:
        """The scene's negative prompt, else the board's, on one line."""
        return on_one_line(self.negative_prompt if scene.negative_prompt is None else scene.negative_prompt)

    def guidance_of(self, scene: Scene) -> dict[str, float]:
        """The base scales that the scene sets, else the board."""
        return {**self.guidance.scales, **scene.guidance.scales}

    def start_of(self, scene: Scene) -> StartFrom | None:
        """What the scene starts from: as it says itself, else the board; None: noise, as where no draft is named."""
        said = [part.model_dump(exclude_none=True) for part in (self.start_from, scene.start_from) if part]
        made = StartFrom(**{"strength": STRENGTH, **{name: part[name] for part in said for name in part}})
        return made if made.folder and made.strength != 1 else None

    def block(self, kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The board's field for a family, and in it what the board says of that, and a plan's `options` of it."""
        said, fields = getattr(self, kind, None), BLOCKS[kind].model_fields if kind in BLOCKS else {}
        own = {**(vars(said) if said else {}), **{name: options[name] for name in fields if name in options}}
        return {kind: own} if own else {}

    @property
    def file(self) -> Path | None:
        """The file that it was read from; None for one from Python."""
        return self._folder / Path(self._file).name if self._folder and self._file else None

    @property
    def media(self) -> tuple[str, ...]:
        """The images and the sound that it names, each once."""
        scenes = [(s.image, s.end_image, *(key.image for key in s.keyframes or ())) for s in self.scenes]
        return tuple(dict.fromkeys(filter(None, (self.image, self.audio, *chain.from_iterable(scenes)))))

    def resolve(self, path: str) -> Path:
        """A path of the board as a path on disk: relative to its file; without one as people name files."""
        return self._folder / path if self._folder else expand(path)

    def located(self, problem: Problem) -> Problem:
        """The problem with the place of its path in the file; as it is where a board field comes from elsewhere."""
        return located(problem, self._file, self._places)

    @property
    def film(self) -> "Storyboard":
        """What it is a draft of; else itself."""
        return self._film or self

    def draft_of(self, film: "Storyboard") -> Self:
        """The same, told of what it is a draft."""
        self._film = film
        return self

    def changed(self, options: Mapping[str, str] = {}, /, **fields: Any) -> "Storyboard":
        """A copy with other board fields, checked, that still knows where the rest was read.

        `options` of a command say the fields at these paths; what else is in those fields is the board's own.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        new, scenes = set(fields) - set(map(field_of, options)), fields.get("scenes") or ()
        if [scene.id for scene in self.scenes] == [getattr(scene, "id", None) for scene in scenes]:
            new -= {"scenes"}  # copies of its own
        places = {path: place for path, place in self._places.items() if field_of(path) not in new} | dict(options)
        try:
            made = build_storyboard({**values, **fields}).placed(self._file, self._folder, places)
        except StoryboardError as error:
            raise StoryboardError([located(problem, self._file, places) for problem in error.problems]) from None
        return made.draft_of(self._film) if self._film else made


def build_storyboard(data: Mapping[str, Any]) -> Storyboard:
    """The one door to a checked storyboard; raises StoryboardError with every mistake in `data`, unlocated."""
    return validated(Storyboard, dict(data), between_scenes(data.get("scenes")))


def storyboard_from_scenes(scenes: Sequence[Scene], **board: Any) -> Storyboard:
    """A storyboard from scenes made in Python; `board` are its other fields. Raises StoryboardError."""
    return build_storyboard({**board, "scenes": tuple(scenes)})


def storyboard_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Storyboard.model_json_schema()}
