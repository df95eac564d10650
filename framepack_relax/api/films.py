"""One film: read, plan, suggest, load, render, stream, preview, restore, status."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from ..errors import EvaluationError, ModelError, Problem, RenderError, StoryboardError
from ..families.quiet import quietly
from .paths import Place, folder_for, meant, output_folder

if TYPE_CHECKING:
    import torch

    from ..families.backend import Backend
    from ..families.base import Family
    from ..families.sketch import Choice
    from ..planning.lexicon import Suggestion
    from ..planning.renderplan import RenderPlan, SectionPlan
    from ..rendering.ensure import Judge
    from ..rendering.events import Event, Hear
    from ..rendering.folder import Verdict
    from ..rendering.loop import FinishedSection, RenderedFilm
    from ..rendering.mark import Note
    from ..rendering.session import Options
    from ..rendering.status import Status
    from ..storyboard import Scene, Storyboard

Story: TypeAlias = "Place | Storyboard | Sequence[Scene]"
Model: TypeAlias = "Place | Backend | None"
OnNan = Literal["stop", "retry"]
FROM_NOISE = "a draft starts from noise; leave one of both out"
EXTRA = "is not installed: pip install 'framepack-relax[eval]'"


def read(story: Story, **board: Any) -> "Storyboard":
    """A checked storyboard; `board` sets or overrules its fields (seed=7, steps=12, image="hero.png").

    Raises StoryboardError with every mistake.
    """
    from ..storyboard import Scene, Storyboard, storyboard_from_scenes

    if isinstance(story, Place):
        return read_changed(story, lambda made: made.changed(**board) if board else made)
    if isinstance(story, Storyboard):
        return story.changed(**board) if board else story
    if isinstance(story, (Scene, Mapping)) or not isinstance(story, Iterable):
        fact = f"{type(story).__name__} is no storyboard; give the path of one, a Storyboard or a list of scenes"
        raise StoryboardError([Problem(message=fact)])
    return storyboard_from_scenes(story, **board)


def read_changed(file: Place, change: "Callable[[Storyboard], Storyboard]") -> "Storyboard":
    """The board in a file as it is changed. Where files are not there, what is wrong beside the model is told, too."""
    from ..planning.planner import make_plan
    from ..rendering.drafts import open_drafts
    from ..storyboard import Storyboard, read_storyboard

    def beside(story: Storyboard, found: Sequence[Problem]) -> Sequence[Problem]:
        try:
            changed = change(story)
            make_plan(changed, _family_of(changed), [*found, *open_drafts(changed)[1]])
        except StoryboardError as error:
            return [*found, *(problem for problem in error.problems if problem not in found)]
        except ModelError:
            pass  # told when the files are there
        return found

    return change(read_storyboard(file, beside))


def plan(story: Story, **board: Any) -> "RenderPlan":
    """What a render will do, section by section; no weights are loaded and torch is not imported."""
    from ..planning.planner import make_plan
    from ..rendering.before import read_before
    from ..rendering.drafts import find_drafts, open_drafts

    checked = read(story, **board)
    family, (begun, absent) = _family_of(checked), open_drafts(checked)
    made = make_plan(checked, family, absent)
    find_drafts(checked, made, begun)
    read_before(checked, made, family)
    return made


def _family_of(story: "Storyboard") -> "Family":
    from ..families.catalog import find_family

    try:
        return find_family(story.model)
    except ModelError as error:
        raise ModelError(str(story.located(Problem(path="model", message=str(error))))) from error


def draft_of(story: "Storyboard", family: "Family | None" = None) -> "Storyboard":
    """The same film for a first look: half the size each way, a third of the steps, `speed: fast`."""
    from ..planning.draft import as_draft
    from ..planning.planner import make_plan

    family = family or _family_of(story)
    return as_draft(story, family, make_plan(story, family).size)


def suggest(
    story: Story,
    *,
    write: bool = False,
    logs: Place | Sequence[Place] = (),
    ridge: Place | None = None,
    model: Model = None,
    on_note: "Note" = lambda note: None,
) -> "list[Suggestion]":
    """The intensity of every scene by the words of its prompt, with the words; needs no weights and no torch.

    With `logs`, films.jsonl of sweeps or run folders, or a `ridge` that `fit_prompts` has written, it is what served
    the model's own films whose prompts are nearest, and the words' alone where that is not sure; the model's text
    encoder is loaded for it, or `model` is what `load` gave. Raises EvaluationError for logs that cannot be read.

    `write` puts the numbers into the storyboard's file where a scene says `auto` or no intensity; all else in it stays.
    Raises StoryboardError where they cannot be written, RenderError without a file, and OSError.
    """
    from ..planning.lexicon import suggestions

    check_flags(write=write)
    logs = [logs] if isinstance(logs, Place) else logs
    from ..storyboard.edit import write_fields
    from ..storyboard.paths import expand

    board = read(story)
    made = suggestions(board)
    if logs or ridge:
        from .measure import suggest_by_films

        made = suggest_by_films(board, made, logs, ridge, model, on_note)
    open_ones = {at: one.motion.intensity for at, one in enumerate(made) if one.said in ("auto", None)}
    if write and not isinstance(story, Place):
        raise RenderError("suggest writes into a storyboard's file; give its path")
    if write and isinstance(story, Place) and open_ones:
        write_fields(expand(story), board, {(at, "intensity"): number for at, number in open_ones.items()})
    return made


@quietly
def memory(story: Story, *, dtype: "str | torch.dtype | None" = None, **board: Any) -> "list[Choice]":
    """What a render will take of a GPU and of main memory, by estimate: with each preset, then on cards of each size.

    The model's weights are not loaded, and need not be here; LoRA that are here are counted. `dtype` is by default
    bfloat16, then fp8. Raises ModelError where neither this machine nor the catalogue knows the model's configs.
    """
    from ..families.adapters import find_adapters
    from ..families.catalog import find_family
    from ..families.sketch import sketch

    made = plan(checked := read(story, **board))
    adapters = find_adapters(checked, find_family(made.model), download=False, absent=True)
    section, types = made.largest, [_named(dtype) or "bfloat16"] if dtype else ["bfloat16", "fp8"]
    asked = section.context, section.latents, made.size
    return [choice for kind in types for choice in sketch(made.model, kind, adapters).choices(*asked)]


@quietly
def load(
    model: Place = "puppet",
    *,
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype | None" = None,
    memory: str = "auto",
    attention: str | None = None,
    compile: bool = False,
) -> "Backend":
    """A model to render several storyboards with: a catalogue name, a diffusers folder or a hub id.

    `memory` says what lies on a GPU: `full` everything, `tiled` the weights while the VAE decodes in tiles, `offload`
    neither; of an amount, such as `20GiB`, it is as much as that takes by estimate, block by block; of `auto` as much
    as the GPU takes. `attention` names kernels as diffusers does (xformers, sage, ..); `compile` compiles the blocks of
    transformers whose weights stay on the GPU. Raises ModelError.
    """
    from ..families.loader import load

    where = {"device": _named(device), "dtype": _named(dtype)}
    return load(str(model), **where, memory=memory, attention=attention, compile=compile)


def _named(kind: Any) -> str | None:
    """A device or a type of numbers as it is called; PyTorch's own objects will do."""
    return None if kind is None else str(kind).removeprefix("torch.")


@quietly
def render(
    story: Story,
    *,
    out: Place | None = None,
    model: Model = None,
    fresh: bool = False,
    strict: bool = False,
    commands: bool = False,
    on_nan: OnNan = "stop",
    on_step: Callable[["SectionPlan", int], None] = lambda section, step: None,
    on_section: Callable[["SectionPlan", int], None] = lambda section, seed: None,
    on_note: "Note" = lambda note: None,
    on_event: "Hear" = lambda event: None,
    preview: bool = False,
    **board: Any,
) -> "RenderedFilm":
    """Renders a film into the folder `out`; `film.path` is the mp4, `film.report` the contents of report.json.

    `out` is by default out/<stem of the file>, or out/<title>. `model` is a name or what `load` gave; default: the
    storyboard's. `draft=True` renders it small, in few steps, by default into a folder with `.draft` behind its name;
    `start_from={"folder": .., "strength": 0.6}`, a field of the board, goes on from there. What `out` holds already and
    is made from the same is kept, unless `fresh`, or `strict` and made by other versions or on another device.
    `commands` lets the board's `finish` run, which makes `film.finished`.
    `on_nan="retry"` draws another seed for a section whose latents are not finite. `on_step` is called with a section
    and the number of the step, from 0, that it has behind it, `on_section` with a section that is on disk and its
    noise's seed; of a film that is finished nothing is loaded, and neither is called. `on_note` hears warnings, and
    files that no render wrote and that were in the way: they are kept under a free name. `on_event` hears all that
    happens, as an Event of framepack_relax/rendering/events.py; `preview` draws what is sampled into `out`/preview.png.
    An exception that one of them raises stops the render and comes out of this call; finished sections stay, and the
    same call goes on from there. Threads may share a loaded model.
    """
    from ..rendering.loop import render

    checked, folder, loaded = prepare(story, out, model, board)
    hear = callbacks(on_note, on_step, on_section, on_event)
    options = make_options(on_nan, fresh, strict, commands, preview)
    return render(checked, out=folder, model=loaded, options=options, on_event=hear)


def stream(
    story: Story,
    *,
    out: Place | None = None,
    model: Model = None,
    fresh: bool = False,
    on_nan: OnNan = "stop",
    on_note: "Note" = lambda note: None,
    **board: Any,
) -> "Iterator[FinishedSection]":
    """Yields sections as they finish, each with its latents and the frames that are final; writes no mp4.

    Mistakes are raised at once, not with the first section. `on_note` is as with `render`.
    """
    options = make_options(on_nan, fresh, commands=True)  # it makes no film: none is run
    return _stream(*prepare(story, out, model, board), options, callbacks(on_note))


def preview(
    story: Story,
    *,
    out: Place | None = None,
    model: Model = None,
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype | None" = None,
    memory: str = "auto",
    attention: str | None = None,
    compile: bool = False,
    fresh: bool = False,
    strict: bool = False,
    commands: bool = False,
    on_note: "Note" = lambda note: None,
    **board: Any,
) -> "list[Verdict]":
    """Which sections in `out` a render would keep, and why the others not; loads no weights and writes nothing.

    Where no loaded model is given, it is asked for as `load` is. Torch is asked only for what is not said, `device` and
    `dtype`. `on_note` hears which files of others would be put
    aside. Raises RenderError where a render would refuse the folder.
    """
    from ..families.loader import Loading
    from ..rendering.session import preview

    checked, folder, loaded = prepare(story, out, model, board)
    given: dict[str, Any] = {"device": _named(device), "dtype": _named(dtype), "memory": memory}
    given |= {"attention": attention, "compile": compile, "download": False}
    choice = loaded or Loading(name=checked.model, **given)
    return preview(checked, folder, choice, make_options("stop", fresh, strict, commands), on_note)


def _stream(
    story: "Storyboard", folder: Path, model: "Backend | None", options: "Options", hear: "Hear"
) -> "Iterator[FinishedSection]":
    with quietly:
        from ..rendering.loop import stream

        yield from stream(story, out=folder, model=model, options=options, on_event=hear)


def callbacks(
    on_note: "Note",
    on_step: "Callable[[SectionPlan, int], None]" = lambda section, step: None,
    on_section: "Callable[[SectionPlan, int], None]" = lambda section, seed: None,
    on_event: "Hear" = lambda event: None,
) -> "Hear":
    """What calls these as a render tells what happens. Raises RenderError for what cannot be called."""
    calls = {"on_note": on_note, "on_step": on_step, "on_section": on_section, "on_event": on_event}
    for name, call in calls.items():
        if not callable(call):
            raise RenderError(f"{name} is {call!r}; give a function, or leave it out")
    sections: list[SectionPlan] = []

    def hear(event: "Event") -> None:
        on_event(event)
        if event.plan:
            sections[:] = event.plan.sections
        elif event.kind in ("note", "warning"):
            on_note(event.text)
        elif event.kind == "step" and event.section is not None and event.step is not None:
            on_step(sections[event.section], event.step)
        elif event.kind == "section" and event.section is not None and event.seed is not None:
            on_section(sections[event.section], event.seed)

    return hear


def action_judge(family: "Family") -> "Judge":
    """What sees actions of a family's films; needs the extra `eval`. Raises EvaluationError or ModelError."""
    try:
        return _opened(family.judges)
    except ImportError as error:
        raise EvaluationError(f"{error.name} {EXTRA}") from error


@cache
def _opened(judges: str | None) -> "Judge":
    from ..evaluate.evaluation import judges_for, open_action

    return open_action(judges_for({judges})[0])


def check_flags(**given: Any) -> None:
    """Raises RenderError for what is neither True nor False."""
    for name, value in given.items():
        if not isinstance(value, bool):
            raise RenderError(f"{name} is {value!r}; give True or False")


def make_options(
    on_nan: OnNan, fresh: bool = False, strict: bool = False, commands: bool = False, preview: bool = False
) -> "Options":
    from ..rendering.session import Options

    check_flags(fresh=fresh, strict=strict, commands=commands, preview=preview)
    if on_nan not in get_args(OnNan):
        raise RenderError(f"on_nan is {on_nan!r}; write {' or '.join(map(repr, get_args(OnNan)))}")
    return Options(fresh=fresh, strict=strict, commands=commands, on_nan=on_nan, judge=action_judge, preview=preview)


@quietly
def restore(film: Place, out: Place, *, on_note: "Note" = lambda note: None) -> Path:
    """Writes the storyboard and start images that a film carries into the folder `out`; gives the storyboard's path.

    Rendering it gives the same film again. `on_note` hears which edited ones were put aside for them. Raises
    RenderError for files that framepack-relax has not written.
    """
    from ..rendering.carry import restore

    return restore(meant(film), output_folder(out), on_note)


def status(out: Place) -> "Status":
    """How far the render in the folder `out` has come; needs no weights and no torch. Raises RenderError."""
    from ..rendering.status import read_status

    return read_status(meant(out))


def prepare(
    story: Story, out: Place | None, model: Model, board: dict[str, Any]
) -> "tuple[Storyboard, Path, Backend | None]":
    """Storyboard, folder, loaded model. Raises RenderError for an argument that no render and no storyboard takes."""
    from ..storyboard import Storyboard
    from ..storyboard.meanings import argument

    board = {**board}
    draft = board.pop("draft", False)
    check_flags(draft=draft)
    if draft and board.get("start_from") is not None:
        raise RenderError(f"draft and start_from: {FROM_NOISE}")
    own = [name for name, kind in signature(render).parameters.items() if kind.kind is Parameter.KEYWORD_ONLY]
    for name in board:
        if name in signature(load).parameters:
            call = f"model=fr.load(..., {name}={board[name]!r})"
            raise RenderError(f"{name}: is said when a model is loaded; write {call}")
        if name not in Storyboard.model_fields and (cure := argument(name, own)):
            raise RenderError(f"{name}: unknown argument; {cure}")
    if isinstance(model, Place):
        board, model = {**board, "model": str(model)}, None
    elif model is not None and not hasattr(model, "family"):
        raise ModelError(f"model is {model!r}; give a name, a folder, or what fr.load gave")
    checked = read(story, **board)
    checked = draft_of(checked, model.family if model else None) if draft else checked
    return checked, folder_for(checked, out, draft), model
