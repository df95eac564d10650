"""What films show: eval, sweeps, calibration."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from ..errors import EvaluationError
from ..families.quiet import quietly
from ..files import make_folder
from .films import EXTRA, Model, Story, load, read
from .paths import Place, meant, output_folder

if TYPE_CHECKING:
    from ..evaluate.pace import Pace
    from ..evaluate.perceptual import Distance
    from ..evaluate.retrieval import Ridge
    from ..evaluate.sweep import Outcome
    from ..farm.engines import Workers
    from ..planning.lexicon import Suggestion
    from ..rendering.mark import Note
    from ..storyboard import Storyboard
    from .sweeps import Ahead


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
        from ..evaluate.film import read_film, read_films
    except ImportError as error:
        raise EvaluationError(f"{error.name} {EXTRA}") from error
    # without torch, so that what cannot be read is told at once
    to_path = partial(meant, error=EvaluationError)
    other = None if reference is None else read_film(to_path(reference))
    read = read_films([films] if isinstance(films, Place) else films, to_path)
    with quietly:
        from ..evaluate.evaluation import evaluate_scenes, gather, judges_for

        names = judges_for({film.judges for film in read})
        instruments = gather(action=action or names[0], text=text or names[1], device=device, distance=distance)
        rows = []
        for film in read:
            rows += evaluate_scenes(film, instruments, prompt=prompt, targets=target_classes, reference=other)
    return rows, instruments.notes


@quietly
def sweep(
    spec: Place,
    *,
    out: Place,
    model: Model = None,
    quick: bool = False,
    calibrate: bool = False,
    action: str | None = None,
    text: str | None = None,
    workers: "Workers | None" = None,
    on_film: Callable[[dict[str, Any], int], None] = lambda row, films: None,
    on_note: "Note" = lambda line: None,
    **loading: Any,
) -> "Outcome":
    """Renders and measures every film of a sweep into `out` and compares its arms; goes on where a stop left it.

    `spec` is a ready one's name or a YAML file; `model` stands in for the spec's; `quick` takes one seed, two scenes
    and half the steps; `calibrate` also writes an intensity profile of the arms that served the model best. `on_film`
    is told each film's row and how many there are, `on_note` each warning before the first. `loading` goes to `load`.
    With `workers` they render and measure the films, several at a time, as those of `batch` do; `out`/logs says how.
    Needs the extra `eval`. Raises StoryboardError, ModelError, RenderError or EvaluationError.
    """
    try:
        from ..evaluate.sweep import compare
        from ..evaluate.swept import Here, Maker
    except ImportError as error:
        raise EvaluationError(f"{error.name} {EXTRA}") from error
    folder, choice = output_folder(out), str(model) if isinstance(model, Place) else model
    if workers and (loading or not (choice is None or isinstance(choice, str))):
        raise EvaluationError("workers load the model themselves: give its name, and how it is loaded with the workers")

    def maker_of(name: str) -> Maker:
        from .sweeps import farm_of

        return farm_of(workers, name, folder) if workers else Here(load(name, **loading))

    options: Any = {"quick": quick, "calibrating": calibrate, "judges": (action, text)}
    return compare(str(spec), folder, choice, maker_of, on_film=on_film, on_note=on_note, **options)


@quietly
def sweep_plan(spec: Place, *, model: Place | None = None, quick: bool = False) -> "list[Ahead]":
    """What a sweep will take: a row for the calm scenes that its films share, then one an arm; loads no weights.

    The hours are an H200's in bfloat16, estimated from the forward passes. Raises StoryboardError and ModelError.
    """
    from ..evaluate.spec import jobs, read_sweep
    from ..evaluate.sweep import plan_films
    from ..families.catalog import find_family
    from ..farm.costs import asked_for
    from .sweeps import ahead

    read = read_sweep(str(spec)).quick() if quick else read_sweep(str(spec))
    read = read.model_copy(update={"model": str(model)}) if model is not None else read
    planned = jobs(read)
    return ahead(planned, plan_films(planned, find_family(read.model)), asked_for(read.model, "bfloat16"))


@quietly
def suggest_by_films(
    board: "Storyboard",
    made: "Sequence[Suggestion]",
    logs: Sequence[Place],
    ridge: Place | None,
    model: Model,
    on_note: "Note",
) -> "list[Suggestion]":
    """Suggestions by what films have shown where that is sure; see `suggest`."""
    retrieval = _retrieval()
    backend = _loaded(model, board.model)
    known, useless = retrieval.gather([meant(log, EvaluationError) for log in logs], backend.weights)
    if useless:
        on_note(f"{useless} rows name no prompt or intensity, or are of other weights: they are left out")
    fitted = None if ridge is None else retrieval.Ridge.load(meant(ridge, EvaluationError), backend.weights)
    own, told = [scene.prompt for scene in board.scenes], [one.prompt for one in known]
    vectors = retrieval.embedder(backend)([*own, *told])
    pairs = zip(made, own, vectors, strict=False)
    log = retrieval.Log(known=known, vectors=vectors[len(own) :])
    return [replace(one, motion=retrieval.suggest_from(prompt, vector, log, fitted)) for one, prompt, vector in pairs]


@quietly
def fit_prompts(logs: Place | Sequence[Place], *, out: Place, model: Model = None) -> "Ridge":
    """Fits intensity to the model's text embedding on the prompts of `logs`, and writes that to the file `out`.

    Logs are as for `suggest`; a line of JSON with a `prompt` and an `intensity` will do. Raises EvaluationError.
    """
    retrieval, file = _retrieval(), meant(out)
    output_folder(file.parent)
    backend = _loaded(model, "puppet")
    paths = [logs] if isinstance(logs, Place) else logs
    known, _ = retrieval.gather([meant(log, EvaluationError) for log in paths], backend.weights)
    made = retrieval.fit_prompts(known, retrieval.embedder(backend), backend.weights)
    make_folder(file.parent)
    made.save(file)
    return made


def _retrieval() -> Any:
    try:
        from ..evaluate import retrieval
    except ImportError as error:
        raise EvaluationError(f"{error.name} {EXTRA}") from error
    return retrieval


def _loaded(model: Model, name: str) -> Any:
    return load(model or name) if model is None or isinstance(model, Place) else model


@quietly
def pace(story: Story, *, share: float = 0.5, **given: Any) -> "Pace":
    """The pattern for `speed:` that asks the network in `share` (0..1) of the steps and serves calm scenes best.

    Renders the board in full into a folder that is gone afterwards. `given` are fields of the board, and what `load`
    takes. Raises EvaluationError where no scene is at rest, and what `render` raises.
    """
    from ..evaluate.pace import measure_pace

    loading = {name: given.pop(name) for name in signature(load).parameters if name in given and name != "model"}
    board = read(story, **given)
    return measure_pace(board, load(board.model, **loading), share)
