"""All measures of one film: the instruments that are there, and what each of them says."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import EvaluationError, ModelError
from ..families.catalog import find_checkpoint
from ..families.components import told_as
from ..families.loader import pick_device
from ..video.motion import MotionMeter
from .action import ActionJudge, named
from .detectors import find_failures
from .film import Film
from .flow import measure_motion
from .frames import Clip
from .mistakes import try_all
from .perceptual import Distance, lpips_distance, measure_stability, trunk_distance
from .text import TextJudge

JUDGES = Path(__file__).parent / "judges"
ACTION = {"packaged": str(JUDGES / "action"), "videomae": "MCG-NJU/videomae-base-finetuned-kinetics"}
TEXT = {"packaged": str(JUDGES / "text"), "clip": "openai/clip-vit-large-patch14"}
LICENCES = {ACTION["videomae"]: "CC BY-NC 4.0: not for commercial use"}
TOP = 5  # labels
PROMPTED = 16  # frames of a film that are compared with its prompt
WINDOW = 1.2  # seconds at either end of a shot of which drift is told

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """What measures; None where a network or a package is missing. `notes` say what to do, and licences."""

    action: ActionJudge | None
    text: TextJudge | None
    distances: Mapping[str, Distance]  # by what they are called
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Which networks measure, by their weights."""
        judges = [judge.weights for judge in (self.action, self.text) if judge]
        return (*judges, *self.distances)


def gather(*, action: str, text: str, device: str | None = None, distance: Distance | None = None) -> Instruments:
    """Instruments by name (`packaged`, `videomae`, `clip`), folder or hub id; `distance` stands in for LPIPS.

    Raises ModelError for a `device` that is not there.
    """
    where = str(pick_device(device))
    notes: list[str] = []

    def take(name: str, build: Callable[[], T]) -> T | None:
        try:
            with told_as(f"{name}: cannot be loaded", "download it again"):
                made = build()
        except (EvaluationError, ModelError) as error:
            notes.append(str(error))
            return None
        notes.extend([f"{name}: {LICENCES[name]}"] if name in LICENCES else [])
        return made

    action, text = ACTION.get(action, action), TEXT.get(text, text)
    found = {"lpips": distance or take("lpips", lpips_distance), "perceptual": take("perceptual", trunk_distance)}
    return Instruments(
        action=take(action, lambda: open_action(action, where)),
        text=take(text, lambda: TextJudge(find_checkpoint(text), name=text, device=where)),
        distances={name: made for name, made in found.items() if made},
        notes=tuple(notes),
    )


def open_action(name: str, device: str = "cpu") -> ActionJudge:
    """An action judge by name, folder or hub id. Raises EvaluationError or ModelError."""
    place = ACTION.get(name, name)
    return ActionJudge(find_checkpoint(place), name=place, device=device)


def judges_for(named: Set[str | None]) -> tuple[str, str]:
    """Names of the action and the text judge, by what the films' models name: the packaged ones know one world only."""
    return ("packaged", "packaged") if named == {"packaged"} else ("videomae", "clip")


def evaluate_scenes(
    film: Film,
    instruments: Instruments,
    *,
    prompt: str | None = None,
    targets: Sequence[str] = (),
    reference: Film | None = None,
) -> list[dict[str, Any]]:
    """With a prompt the whole film, else each scene that the film says it has, by its own prompt.

    `reference` is compared moment by moment; it has the film's frame rate. Raises EvaluationError.
    """
    if reference and reference.fps != film.fps:
        raise EvaluationError(f"the reference has {reference.fps:g} fps, the film {film.fps:g}; they must be the same")
    if prompt is not None or not film.scenes:
        return [{"scene": None, **evaluate(film, instruments, prompt=prompt, targets=targets, reference=reference)}]
    rows = []
    opening: Clip = film.frames[:0]
    begun = -1
    for scene in film.scenes:
        other = reference and reference.cut(scene)
        first, last = ends(film.frames[scene.begin : scene.frames[1]], film.fps)
        if begun != scene.begin or len(opening) < len(first):  # decoded once, however long the shot is
            begun, opening = scene.begin, np.asarray(first)
        said = evaluate(
            film.cut(scene), instruments, prompt=scene.prompt, targets=targets, reference=other, shot=(opening, last)
        )
        rows.append({"scene": scene.id, **said, "seconds": round((scene.frames[1] - scene.frames[0]) / film.fps, 3)})
    return rows


def ends(shot: Clip, fps: float) -> tuple[Clip, Clip]:
    """What drift is told from: a shot's first 1.2 s after its first frame, and its last if it has more."""
    window = round(WINDOW * fps)
    return shot[: window + 1], shot[window + 1 :][-window:]


def evaluate(
    film: Film,
    instruments: Instruments,
    *,
    prompt: str | None = None,
    targets: Sequence[str] = (),
    reference: Film | None = None,
    shot: tuple[Clip, Clip] | None = None,
) -> dict[str, Any]:
    """Every figure of a film, as JSON; those of a missing instrument are absent.

    `targets` are the action judge's labels that the film should show. Drift is that of its last section against the
    first of its `shot` (the `ends` of one whose frames end with the film's). Raises EvaluationError for a label that
    the judge has not.
    """
    made: dict[str, Any] = {"film": str(film.path), "seconds": round(film.seconds, 3)}
    made["motion"] = measure_motion(film.frames, film.fps)
    meter, window = MotionMeter(), round(WINDOW * film.fps)
    for part in shot or ends(film.frames, film.fps):
        meter.add(part)
    whole = [(first, first + window) for first in range(1, len(meter.drifts) - window + 1, window)]
    if figures := meter.figures(whole):
        made["drift"] = {name: asdict(figures[-1])[name] for name in ("exposure", "colour", "drift")}
    if instruments.action:
        labels = try_all(instruments.action.known, targets)
        scores = instruments.action.score(film.frames, film.fps)
        best = {label: float(windows.max()) for label, windows in scores.items()}  # an event of less than a second, too
        made["action"] = {"named": named(scores), "top": dict(sorted(best.items(), key=lambda row: -row[1])[:TOP])}
        made["action"]["targets"] = {name: {"mean": float(scores[name].mean()), "best": best[name]} for name in labels}
    if instruments.text and prompt:
        numbers = np.linspace(0, len(film.frames) - 1, min(PROMPTED, len(film.frames))).round().astype(int)
        cosines = instruments.text.cosines(film.frames[numbers], [prompt])[:, 0]
        mean, best_fit = float(cosines.mean()), float(cosines.max())
        said = {"cosine": mean, "score": 100 * max(0.0, mean), "best": best_fit}
        made["text"] = said | {"checkpoint": instruments.text.name}
    for name, distance in instruments.distances.items():
        other = None if reference is None else reference.frames
        made[name] = measure_stability(film.frames, film.fps, distance, other)
    if len(film.frames) > 1:
        made["failures"] = _failures(film, instruments, made)
    return made


def _failures(film: Film, instruments: Instruments, made: Mapping[str, Any]) -> dict[str, bool]:
    """What the detectors say with what the instruments have said."""
    ends = instruments.text.embed(film.frames[[0, -1]]) if instruments.text else None
    asked = made.get("action", {}).get("targets")
    return find_failures(
        film.frames,
        film.fps,
        likeness=None if ends is None else float(ends[0] @ ends[1]),
        wrong=made["action"]["named"] not in asked if asked else None,
        lpips=made.get("lpips", {}).get("adjacent"),
    )
