"""Intensities from what a model's own films have shown: of the nearest prompts, and by a ridge on their embeddings.

P prompts, D dimensions of the model's text embedding, each prompt's the mean over its tokens
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import EvaluationError
from ..families.backend import Backend
from ..files import read_file, write_file
from ..planning.lexicon import Motion, motion_of
from ..storyboard.fields import Intensity, Words
from ..storyboard.part import Part
from .calibration import LEVELS, utility
from .rows import Figure, read_rows
from .statistics import Row

Vectors = NDArray[np.float64]
Embed = Callable[[Sequence[str]], Vectors]  # prompts -> [P, D]
WORTH = LEVELS[1]  # a right action and motion against failures and a jump at the border
ALIKE = 0.05  # of that worth: of intensities that are worth as much the lowest is taken
NEIGHBOURS, NEAR = 8, 0.5  # prompts that are asked at most; their least cosine, of embeddings less their mean
FEWEST_PROMPTS, FEWEST_FILMS = 4, 6  # in the log; of the neighbours
ASTRAY = 0.2  # largest error of a ridge that is asked
STRENGTHS = np.logspace(-4, 2, 25)  # of ridges that are tried, times the mean variance
SHOWN = 12  # signs of a fingerprint that rows have
FEW = "too few prompts are in the log"


class LogRow(Part, extra="allow"):
    """What is read of a line of films.jsonl; a line with a prompt and an intensity alone is somebody's choice."""

    prompt: Words | None = None
    intensity: Intensity | None = None
    motion: Figure = 0.0
    jump: Figure = 0.0
    target: Figure | None = None
    failures: dict[str, bool] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A prompt of the log and the intensity that served it best, in so many films, in which an action was right."""

    prompt: str
    best: float
    films: int
    right: int | None  # None: no judge has looked


@dataclass(frozen=True, kw_only=True)
class Log:
    """Prompts that are known, and their embeddings [P, D]."""

    known: Sequence[Known]
    vectors: Vectors

    def nearest(self, vector: Vectors, but: int | None = None) -> tuple[list[int], float, float]:
        """The prompts near an embedding [D], the nearest first and its cosine; their intensities' mean by distance."""
        mean = self.vectors.mean(0)
        cosines = _unit(self.vectors - mean) @ _unit(vector - mean)
        ranked = [n for n in np.argsort(-cosines, kind="stable").tolist() if n != but][:NEIGHBOURS]
        asked = [n for n in ranked if cosines[n] >= NEAR] or ranked[:1]
        weights = 1 / (1.001 - cosines[asked])
        return asked, float(cosines[asked[0]]), float(weights @ [self.known[n].best for n in asked] / weights.sum())

    @cached_property
    def error(self) -> float:
        """Root mean square by which a prompt is missed that is left out."""
        missed = [one.best - self.nearest(self.vectors[n], n)[2] for n, one in enumerate(self.known)]
        return float(np.sqrt(np.mean(np.square(missed))))

    @property
    def plain(self) -> float:
        """What the mean of all others is astray by."""
        return left_out([one.best for one in self.known])


def left_out(y: Sequence[float]) -> float:
    """Root mean square by which the mean of all others misses each."""
    return float(np.std(y)) * len(y) / max(len(y) - 1, 1)


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """intensity = intercept + (x - mean) @ slope, fitted on P prompts of a model.

    `error` is the root mean square by which it is astray on a prompt that is left out, `plain` that of the mean.
    """

    mean: Vectors  # [D]
    slope: Vectors  # [D]
    intercept: float
    error: float
    plain: float
    prompts: int
    model: str  # fingerprint

    def at(self, vector: Vectors) -> float:
        return float(np.clip(self.intercept + (vector - self.mean) @ self.slope, 0, 1))

    @property
    def sure(self) -> bool:
        return self.error <= min(ASTRAY, self.plain)

    def save(self, file: Path) -> None:
        facts = {name: value for name, value in vars(self).items() if not isinstance(value, np.ndarray)}
        write_file(file, save({"mean": self.mean, "slope": self.slope}, metadata={"ridge": json.dumps(facts)}))

    @staticmethod
    def load(file: Path, model: str) -> "Ridge":
        """Raises EvaluationError for what is none, or another model's."""
        try:
            with safe_open(file, "np") as opened:
                facts = json.loads((opened.metadata() or {})["ridge"])
                made = Ridge(mean=opened.get_tensor("mean"), slope=opened.get_tensor("slope"), **facts)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise EvaluationError(f"{file}: is no ridge that `calibrate --prompts` has written") from error
        if made.model != model:
            raise EvaluationError(f"{file}: was fitted on another model; run `calibrate --prompts` again")
        return made


def fit(vectors: Vectors, wanted: Sequence[float], model: str = "") -> Ridge:
    """Ridge regression in closed form on [P, D], of the strength that is least astray on prompts that are left out.

    Of the hat matrix H, with the mean in it, what is left out is missed by (y - H y) / (1 - diag H).
    """
    y, mean = np.asarray(wanted, float), vectors.mean(0)
    centred, count = vectors - mean, len(vectors)
    kernel, best = centred @ centred.T, None
    for strength in STRENGTHS * max(float(np.trace(kernel)) / count, 1e-12):
        inverse = np.linalg.inv(kernel + strength * np.eye(count))
        hat = kernel @ inverse + (1 - (kernel @ inverse).sum(1, keepdims=True)) / count
        missed = (y - hat @ y) / np.maximum(1 - np.diag(hat), 1e-9)
        error = float(np.sqrt((missed**2).mean()))
        if best is None or error < best[0]:
            best = error, centred.T @ (inverse @ (y - y.mean()))
    assert best is not None
    plain = left_out(wanted)
    return Ridge(
        mean=mean, slope=best[1], intercept=float(y.mean()), error=best[0], plain=plain, prompts=count, model=model
    )  # fmt: skip


def read_log(log: Path) -> Iterator[Row]:
    """The lines of a films.jsonl, or the scenes of a run folder. Raises EvaluationError or RenderError."""
    if log.is_dir() and not (log / "films.jsonl").is_file():
        try:
            plan, report = (json.loads(read_file(log / name)) for name in ("plan.json", "report.json"))
            for section, row in zip(plan["sections"], report["sections"], strict=True):
                figures = {"motion": row["motion"], "jump": row["seam"], "weights": report["model"]["weights"][:SHOWN]}
                yield {"prompt": section["prompt"], "intensity": section["intensity"], "failures": {}, **figures}
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise EvaluationError(f"{log}: holds no films.jsonl, and no plan.json and report.json of a film") from error
        return
    file = log / "films.jsonl" if log.is_dir() else log
    if not file.is_file():
        raise EvaluationError(f"{file}: no such file")
    yield from read_rows(file, LogRow)


def known_prompts(rows: Sequence[Row]) -> list[Known]:
    """Each prompt of the rows with the intensity whose films were worth most."""
    made, named = [], defaultdict[str, defaultdict[float, list[Row]]](lambda: defaultdict(list))
    for row in rows:
        named[row["prompt"]][row["intensity"]].append({"motion": 0.0, "failures": {}, **row})
    for prompt, films in named.items():
        worth = {level: np.mean([utility(row, WORTH) for row in group]) for level, group in films.items()}
        best = min(level for level, value in worth.items() if value >= max(worth.values()) - ALIKE)
        seen = [row["target"] for row in films[best] if row.get("target") is not None]
        right = sum(target >= 0.5 for target in seen) if seen else None
        made.append(Known(prompt=prompt, best=best, films=len(films[best]), right=right))
    return made


def embedder(model: Backend) -> Embed:
    """The model's own text encoder."""

    def embed(prompts: Sequence[str]) -> Vectors:
        with model.lock:
            encoded = model.encode_prompts(prompts)
        return np.stack([model.text_vector(encoded[prompt]).double().cpu().numpy() for prompt in prompts])

    return embed


def suggest_from(prompt: str, vector: Vectors, log: Log, ridge: Ridge | None) -> Motion:
    """The intensity of a prompt with this embedding [D], and why; the lexicon's where nothing is sure."""
    words, second = motion_of(prompt), ridge.at(vector) if ridge and ridge.sure else None

    def by_words(why: str) -> Motion:
        return Motion(words.intensity, f"{words.reason}, by the lexicon; {why}")

    if not log.known:
        return by_words("the ridge is not sure") if second is None else Motion(round(second, 2), "by the ridge")
    if len(log.known) < FEWEST_PROMPTS:
        return by_words(FEW)
    asked, cosine, value = log.nearest(vector)
    like, films = log.known[asked[0]].prompt, sum(log.known[n].films for n in asked)
    if cosine < NEAR:
        return by_words(f"the log has nothing near, {like!r} at {cosine:.2f}")
    judged = [right for n in asked if (right := log.known[n].right) is not None]
    said = f"like {like!r} ({films} films{f', right {sum(judged)}' if judged else ''})"
    if films < FEWEST_FILMS:
        return by_words(f"{said}, too few")
    if log.error > min(ASTRAY, log.plain):
        return by_words(f"{said} it were {value:.2f}, but there the log is astray by {log.error:.2f}")
    if second is None:
        return Motion(round(value, 2), said)
    if ridge and abs(second - value) > 2 * ridge.error:
        return by_words(f"{said} it were {value:.2f}, by the ridge {second:.2f}")
    return Motion(round(value, 2), f"{said}, ridge says {second:.2f}")


def _unit(x: Vectors) -> Vectors:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def gather(logs: Sequence[Path], weights: str) -> tuple[list[Known], int]:
    """What the logs know, and how many of their rows are of no use. Raises EvaluationError."""
    rows = [row for log in logs for row in read_log(log)]
    of_use = [row for row in rows if row.get("prompt") is not None and row.get("intensity") is not None]
    of_use = [row for row in of_use if row.get("weights", weights[:SHOWN]) == weights[:SHOWN]]
    if logs and not of_use:
        fact = "no row has a prompt and an intensity and is of this model's weights"
        raise EvaluationError(f"{', '.join(map(str, logs))}: {fact}")
    return known_prompts(of_use), len(rows) - len(of_use)


def fit_prompts(known: Sequence[Known], embed: Embed, model: str) -> Ridge:
    """Raises EvaluationError for too few prompts."""
    if len(known) < FEWEST_PROMPTS:
        raise EvaluationError(f"{FEW}: {len(known)} of at least {FEWEST_PROMPTS}")
    return fit(embed([one.prompt for one in known]), [one.best for one in known], model)
