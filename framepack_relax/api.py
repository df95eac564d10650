"""The Python API: each call takes a storyboard file, a Storyboard, or a list of scenes."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .errors import EvaluationError, ModelError, Problem
from .models.catalog import model_facts
from .plan.planner import make_plan
from .plan.renderplan import RenderPlan
from .storyboard import Scene, Storyboard, read_storyboard, storyboard_from_scenes

if TYPE_CHECKING:
    from .evaluate.outcome import Outcome
    from .evaluate.perceptual import Distance
    from .models.video_model import VideoModel
    from .render.loop import FinishedSection, RenderedFilm
    from .render.status import Status

Place = str | Path
Story = Place | Storyboard | Sequence[Scene]
Model: TypeAlias = "str | VideoModel | None"
Memory = Literal["auto", "full", "tiled", "offload"]
OnNan = Literal["stop", "retry"]


def read(story: Story, **board: Any) -> Storyboard:
    """A checked storyboard; `board` sets or overrules its fields (seed=7, steps=12, image="hero.png").

    Raises StoryboardError with every mistake.
    """
    if isinstance(story, Place):
        story = read_storyboard(story)
    if isinstance(story, Storyboard):
        return story.changed(**board) if board else story
    return storyboard_from_scenes(story, **board)


def plan(story: Story, **board: Any) -> RenderPlan:
    """What a render will do, section by section; no weights are loaded and torch is not imported."""
    checked = read(story, **board)
    try:
        facts = model_facts(checked.model)
    except ModelError as error:
        raise ModelError(str(checked.located(Problem(path="model", message=str(error))))) from error
    return make_plan(checked, facts)


def load(
    model: str = "puppet", *, device: str | None = None, dtype: str | None = None, memory: Memory = "auto"
) -> "VideoModel":
    """A model to render several storyboards with: a catalogue name, a diffusers folder or a hub id.

    `memory` says what lies on a GPU: `full` everything, `tiled` the weights while the VAE decodes in tiles, `offload`
    neither; `auto` is the first of these that fits, by estimate.
    """
    from .models.loader import load

    return load(model, device=device, dtype=dtype, memory=memory)


def render(
    story: Story, *, out: Place = "out", model: Model = None, fresh: bool = False, on_nan: OnNan = "stop", **board: Any
) -> "RenderedFilm":
    """Renders a film into the folder `out`; `film.path` is the mp4, `film.report` the contents of report.json.

    `model` is a name or what `load` gave; default: the storyboard's. What `out` holds already and would come out the
    same is kept, unless `fresh`. `on_nan="retry"` draws another seed for a section whose latents are not finite.
    """
    from .render.loop import Options, render

    checked, loaded = _prepare(story, model, board)
    return render(checked, out=out, model=loaded, options=Options(fresh=fresh, on_nan=on_nan))


def stream(
    story: Story, *, out: Place = "out", model: Model = None, fresh: bool = False, on_nan: OnNan = "stop", **board: Any
) -> "Iterator[FinishedSection]":
    """Yields sections as they finish, each with its latents and the frames that are final; writes no mp4."""
    from .render.loop import Options, stream

    checked, loaded = _prepare(story, model, board)
    yield from stream(checked, out=out, model=loaded, options=Options(fresh=fresh, on_nan=on_nan))


def restore(film: Place, out: Place) -> Path:
    """Writes the storyboard and start images that a film carries into the folder `out`; gives the storyboard's path.

    Rendering it gives the same film again. Raises RenderError for files that framepack-relax has not written.
    """
    from .render.carry import restore

    return restore(Path(film), Path(out))


def status(out: Place) -> "Status":
    """How far the render in the folder `out` has come; needs no weights and no torch. Raises RenderError."""
    from .render.status import read_status

    return read_status(Path(out))


def evaluate(
    films: Place | Sequence[Place],
    *,
    prompt: str | None = None,
    target_classes: Sequence[str] = (),
    reference: Place | None = None,
    action: str | None = None,
    text: str | None = None,
    distance: "Distance | None" = None,
    device: str | None = None,
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """What films show, a row each: motion, action, fit to the prompt, LPIPS, drift; and notes on instruments.

    Without `prompt` a film that framepack-relax wrote gives a row per scene. `action` and `text` are `packaged`,
    `videomae` and `clip`, a folder or a hub id; by default what fits the films. `distance` (two batches [P, 3, H, W] in
    -1..1 -> [P]) stands in for LPIPS with its own trunk. Needs the extra `eval`. Raises EvaluationError.
    """
    try:
        from .evaluate.evaluation import evaluate_scenes, gather, judges_for
        from .evaluate.film import read_film, read_films
    except ImportError as error:
        raise EvaluationError(f"{error.name} is not installed: pip install 'framepack-relax[eval]'") from error
    read = read_films([Path(film) for film in ([films] if isinstance(films, Place) else films)])
    other = None if reference is None else read_film(Path(reference))
    names = judges_for({film.model for film in read})
    instruments = gather(action=action or names[0], text=text or names[1], device=device, distance=distance)
    rows = []
    for film in read:
        rows += evaluate_scenes(film, instruments, prompt=prompt, targets=target_classes, reference=other)
    return rows, instruments.notes


def sweep(
    spec: Place,
    *,
    out: Place,
    model: Model = None,
    quick: bool = False,
    calibrate: bool = False,
    action: str | None = None,
    text: str | None = None,
    on_film: Callable[[dict[str, Any], int], None] = lambda row, films: None,
    on_note: Callable[[str], None] = lambda line: None,
    **loading: Any,
) -> "Outcome":
    """Renders and measures every film of a sweep into `out` and compares its arms; goes on where a stop left it.

    `spec` is a ready one's name or a YAML file; `model` stands in for the spec's; `quick` takes one seed, two scenes
    and half the steps; `calibrate` also writes an intensity profile of the arms that served the model best. `on_film`
    is told each film's row and how many there are, `on_note` each warning before the first. `loading` goes to `load`.
    Needs the extra `eval`. Raises StoryboardError, ModelError, RenderError or EvaluationError.
    """
    try:
        from .evaluate.outcome import compare
    except ImportError as error:
        raise EvaluationError(f"{error.name} is not installed: pip install 'framepack-relax[eval]'") from error
    return compare(str(spec), Path(out), model, quick, calibrate, (action, text), on_film, loading, on_note)


def _prepare(story: Story, model: Model, board: dict[str, Any]) -> "tuple[Storyboard, VideoModel | None]":
    if isinstance(model, str):
        board = {**board, "model": model}
    return read(story, **board), None if model is None or isinstance(model, str) else model
