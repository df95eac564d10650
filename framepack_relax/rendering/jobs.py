"""A render in jobs: each samples one shot into shots/NN/ of the run folder, in any process, anywhere, in any order."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import RenderError
from ..families.adapters import acting
from ..families.backend import Backend, Given, NonFinitePixels, Start
from ..families.heap import give_back
from ..families.loader import Loading
from ..families.memory import Demand, choose_placement, enough_memory
from ..planning.renderplan import RenderPlan, SectionPlan, stable_seed
from ..relax.latents import noised
from ..sampling.section import NonFiniteLatents, SectionResult, sample
from .ensure import Try, best, judged, next_rung, tried, wanted
from .events import Event, Hear, nobody, noting, telling
from .folder import Verdict
from .latent_preview import LatentPreview
from .report import section_report
from .session import AnyModel, Session, opened, provenance

ANOTHER_VAE = "Try dtype=float32, or another copy of the VAE"
RETRIES = 3
PATIENCE = 10.0  # seconds that a job waits for another that marks the folder
Row = dict[str, Any]  # of report.json: a section that is on disk


@dataclass(frozen=True, kw_only=True)
class ShotJob:
    """All that a worker needs that sees the same files. It can be pickled: `loading` says what model to load."""

    session: Session
    shot: int
    loading: Loading
    wanted: tuple[int, ...]  # sections that were to be rendered when the job was made


def make_jobs(session: Session, model: AnyModel, verdicts: Iterable[Verdict]) -> list[ShotJob]:
    """A job per shot, for a model that is loaded as this one is."""
    dtype = session.dtype.removeprefix("torch.")
    device = None if model.device is None else str(model.device)
    engine: Any = {"memory": model.memory, "attention": model.attention, "compile": model.compile}
    loading = Loading(name=session.plan.model, device=device, dtype=dtype, away=True, **engine)  # whoever loads it
    anew = [section for section, why, _ in verdicts if why is not None]
    return [
        ShotJob(session=session, shot=n, loading=loading, wanted=tuple(s.index for s in anew if s.shot == n))
        for n in range(len(session.plan.shots))
    ]


def render_shots(jobs: Sequence[ShotJob], conditions: "Conditions", on_event: Hear) -> Generator[Row]:
    """Shot by shot of one film in this process, all prompts and images encoded at once; a row as soon as a section is
    on disk."""
    conditions.add([conditions.session.plan.sections[index] for job in jobs for index in job.wanted])
    for job in jobs:
        yield from _Sampling(job, conditions, on_event).rows()


def render_shot(job: ShotJob, backend: Backend, on_event: Hear = nobody) -> list[Row]:
    """Samples those sections of a shot that are not kept; writes its folder alone, and marks the film's if need be.

    Gives a row per section in rendering order. Raises RenderError; BusyError where another is at work on the shot.
    """
    conditions = Conditions(session=job.session, backend=backend)
    with telling(on_event):
        if not job.session.has_begun():
            with opened(job.session, noting(on_event), PATIENCE):
                pass
        return list(_Sampling(job, conditions, on_event).rows())


@dataclass(kw_only=True)
class Conditions:
    """Prompts, and images by path and seed, as a backend encodes them: each once, all that are known at a time; and
    what draws latents, if anything does."""

    session: Session
    backend: Backend
    texts: dict[str, Any] = field(default_factory=dict)
    starts: dict[tuple[str | None, int], Start] = field(default_factory=dict)
    ready: bool = False
    preview: LatentPreview | None = None

    def __post_init__(self) -> None:
        self.preview = LatentPreview(self.session.out) if self.session.options.preview else None

    def add(self, sections: Sequence[SectionPlan], shots: Iterable[int] = ()) -> None:
        """Of `sections` and their shots, and of more shots; then all is placed. Raises RenderError."""
        session, backend, plan = self.session, self.backend, self.session.plan
        texts = dict.fromkeys(text for section in sections for text in section.texts)
        prompts = [prompt for prompt in texts if prompt not in self.texts]
        opening = [plan.shots[n] for n in {*shots, *(s.shot for s in sections)}]
        named = {(shot.image, shot.seed) for shot in opening if shot.image}
        named |= {(a.image, plan.shots[s.shot].seed) for s in sections for a in s.anchors}
        wanted = sorted(named - self.starts.keys())
        images = {name: (session.images[name[0]], name[1]) for name in wanted if name[0] in session.images}
        if self.ready and not prompts and not wanted:
            return
        demand = _demand(backend, plan, plan.largest)
        with backend.lock:
            backend.preset, backend.adapters = choose_placement(demand), ()
            with enough_memory("encoding prompts and images", demand):
                self.texts.update(backend.encode_prompts(prompts))
                self.starts.update(backend.encode_starts(images))
                for path, seed in set(wanted) - images.keys():
                    assert session.before is not None, "what is no image is the film that this one goes on from"
                    self.starts[path, seed] = backend.encode_film(session.before.frames, seed)
                backend.place()
            if (backend.identity, backend.precision) != (session.weights, session.dtype):
                raise RenderError(
                    f"{plan.model}: its weights or dtype are not those that the render began with; load it again"
                )
        self.ready = True

    def read_by(self, section: SectionPlan) -> dict[str, Any]:
        """What a section reads: its prompts, mixed if they are to be, and where the words stand that have a gain."""
        own, blend = {"prompt": section.prompt, "negative": section.negative_prompt}, section.blend
        read = {name: self.texts[text] for name, text in own.items()}
        if blend:
            others = {"prompt": blend.prompt, "negative": blend.negative_prompt}
            read = {n: self.backend.blended(text, self.texts[others[n]], blend.weight) for n, text in read.items()}
        return {**read, "words": self.backend.word_tokens(section.prompt, section.emphasis)}


@contextmanager
def turn(backend: Backend, session: Session, section: SectionPlan) -> Iterator[str]:
    """The model as this render needs it: others, in other threads or between two sections, may use it too.

    Gives the section's place in words.
    """
    where, plan = f"scene {section.scene}, section {section.index}", session.plan
    with backend.lock, enough_memory(where, _demand(backend, plan, section)):
        backend.adapters = acting(session.adapters, section.lora)
        backend.wear()
        backend.preset = choose_placement(_demand(backend, plan, plan.largest))
        backend.place()
        yield where


@contextmanager
def finite_pixels(where: str, saved: str = "what is finished is kept") -> Iterator[None]:
    """Turns pixels that are none into one message, that says what is saved."""
    try:
        yield
    except NonFinitePixels as error:
        fact = "the frames that the VAE makes hold NaN or infinity"
        raise RenderError(f"{where}: {fact}; {saved}. {ANOTHER_VAE}") from error


def _demand(backend: Backend, plan: RenderPlan, section: SectionPlan) -> Demand:
    return Demand(model=backend, context=section.context, latents=section.latents, size=plan.size)


def to_device(backend: Backend, latents: NDArray[np.float32]) -> Tensor:
    """Latents from disk, where the backend works."""
    return torch.from_numpy(latents.copy()).to(backend.device)


def look(
    session: Session, backend: Backend, section: SectionPlan, start: Tensor | None, shown: Sequence[Tensor]
) -> NDArray[np.uint8]:
    """Frames [N, H, W, 3] of latents that follow one another, of a section and others, by a decoder of their own;
    `start` is their shot's start latent."""
    with turn(backend, session, section) as where, finite_pixels(where):
        decoder = backend.decoder(session.plan.decode, start, len(shown), session.plan.options)
        return np.concatenate([decoder.push(each) for each in shown])


class _Sampling:
    """A job at work."""

    def __init__(self, job: ShotJob, conditions: Conditions, on_event: Hear) -> None:
        self.backend, self.conditions, self.on_event = conditions.backend, conditions, on_event
        self.session = replace(job.session, made=provenance(conditions.backend))
        self.shot, self.folder = self.session.plan.shots[job.shot], self.session.folder(noting(on_event))

    def rows(self) -> Generator[Row]:
        """Of the shot's sections in rendering order, each as soon as it is on disk."""
        session, shot, folder = self.session, self.shot, self.folder
        if not session.has_begun():
            raise folder.gone()
        with folder.shot_held(shot.index):
            verdicts = session.verdicts(folder, [shot])
            start, after = self._start(verdicts), ""
            self._show_start(start)
            past: dict[int, Tensor] = {}  # latents by place in the shot, of sections that others still need
            last = {place: turn for turn, v in enumerate(verdicts) for place in v.section.context.needs}
            for number, (section, why, _) in enumerate(verdicts):
                clock, key, forwards = time.perf_counter(), session.keys[section.index], Counter[str]()
                if why is None:
                    stored = folder.load_section(section, key)
                    latents, seed, after = to_device(self.backend, stored.latents), stored.seed, stored.digest
                    tries = stored.tries
                else:
                    latents, seed, tries = self._ensured(section, start, past, forwards)
                    whole = latents.float().cpu().numpy()
                    said: Any = {"seed": seed, "after": after, "made": provenance(self.backend), "tries": tries}
                    after = folder.save_section(section, whole, key, **said)
                past[section.place] = latents
                past = {place: latents for place, latents in past.items() if last.get(place, -1) > number}
                seconds = time.perf_counter() - clock
                self.on_event(Event(kind="section", shot=shot.index, section=section.index, seed=seed))
                give_back()
                told: Any = {"seed": seed, "forwards": forwards, "reused": why is None, "tries": tries}
                yield section_report(section, seconds=seconds, **told)
        if self.conditions.preview and (told := self.conditions.preview.take()):
            self.on_event(told)
        self.on_event(Event(kind="shot", shot=shot.index))

    def _start(self, verdicts: list[Verdict]) -> Start | None:
        """What the sections begin with that must be rendered; it lies beside them afterwards.

        A shot goes on from the start latent that it was begun with.
        """
        shot, conditions = self.shot.index, self.conditions
        needed, key = [v.section for v in verdicts if v.why is not None], self.session.starts.get(shot, "")
        latent = self.folder.load_start(shot, key) if key and len(needed) < len(verdicts) else None
        conditions.add(needed, [shot] if latent is None else [])
        start = conditions.starts.get((self.shot.image, self.shot.seed))
        if start and latent is not None:
            return replace(start, latent=to_device(self.backend, latent))
        if start:
            self.folder.save_start(shot, start.latent.float().cpu().numpy(), key, provenance(self.backend))
        return start

    def _show_start(self, start: Start | None) -> None:
        """The shot's image, from which a preview knows its first colours."""
        preview = self.conditions.preview
        if preview:
            preview.settle(self.folder)
        if preview and start and self.shot.image:
            preview.learn(start.latent, np.asarray(self.session.images[self.shot.image])[None])

    def _ensured(
        self, section: SectionPlan, start: Start | None, past: Mapping[int, Tensor], forwards: Counter[str]
    ) -> tuple[Tensor, int, list[Row]]:
        """Latents, the seed of their noise, and of an ensured section its tries; `forwards` counts them all."""
        ensure, tries, made = section.ensure, list[Try](), None
        if ensure is None:
            result, seed = self._sample(section, start, past)
            forwards.update(result.forwards)
            return result.latents, seed, []
        while (number := next_rung(ensure, tries)) is not None:
            rung = ensure.rungs[number]
            result, seed = self._sample(section.at(rung), start, past)
            forwards.update(result.forwards)
            frames = self._look(section, start, past.get(section.place - 1), result.latents)
            seen = self._seen(section, frames)
            tries.append(judged(number, rung, frames, ensure.motion, result.forwards, seen))
            text = f"scene {section.scene}, section {section.index}, try {len(tries)} of {ensure.tries}: "
            told = Event(kind="try", shot=section.shot, section=section.index, text=text + tries[-1].in_words())
            self.on_event(told)
            if best(tries) == len(tries) - 1:
                made = result.latents, seed
        assert made is not None
        return *made, tried(tries)

    def _seen(self, section: SectionPlan, frames: NDArray[np.uint8]) -> float | None:
        """How likely the wanted action is where it is likeliest; None where none is asked for."""
        judge = self.session.options.judge
        if judge is None or not (section.ensure and section.ensure.action):
            return None
        seeing = judge(self.session.family)
        scores = seeing.score(frames, float(self.session.plan.rate))
        return max(float(scores[label].max()) for label in wanted(section, seeing))

    def _look(
        self, section: SectionPlan, start: Start | None, before: Tensor | None, latents: Tensor
    ) -> NDArray[np.uint8]:
        """Its frames [N, H, W, 3] after the one that it follows on, by a decoder that begins with the section before.

        The film's own goes on from the shot's beginning: what it makes differs by less than what is looked for.
        """
        shown, first = [latents] if before is None else [before, latents], None if start is None else start.latent
        frames = look(self.session, self.backend, section, first, shown)
        return frames[-(section.frames[1] - section.frames[0] + 1) :]

    def _beginning(self, section: SectionPlan, noise: Tensor, where: str) -> Tensor:
        """What its first step gets: the noise, or in it the latents of a draft."""
        draft = self.session.drafts.get(section.index)
        if draft is None:
            return noise
        latents = torch.from_numpy(draft.load())
        if latents.shape[:3] != noise.shape[:3]:
            fact = f"{draft.file}: has latents {[*latents.shape[:3]]}, and the model {[*noise.shape[:3]]}"
            raise RenderError(f"{where}: {fact}; make the draft with a model that has the same VAE")
        return noised(latents, noise, section.steps[0].sigma)

    def _sample(
        self, section: SectionPlan, start: Start | None, past: Mapping[int, Tensor]
    ) -> tuple[SectionResult, int]:
        """The section, and the seed that its noise was drawn with."""
        plan, backend, starts = self.session.plan, self.backend, self.conditions.starts
        read = self.conditions.read_by(section)
        preview = self.conditions.preview

        def stepped(step: int, x0: Callable[[], Tensor]) -> None:
            self.folder.check_there()
            behind = step - section.steps[0].index
            self.on_event(Event(kind="step", shot=section.shot, section=section.index, step=behind))
            if preview and (told := preview.offer(section, behind, x0, last=behind == len(section.steps) - 1)):
                self.on_event(told)

        for attempt in range(RETRIES + 1):
            seed = section.seed if attempt == 0 else stable_seed("retry", section.seed, attempt)
            noise = backend.noise(section.latents, plan.size, seed, draw=section.draw)

            def fresh(number: int, seed: int = seed) -> Tensor:
                return backend.noise(section.latents, plan.size, stable_seed("freeinit", seed, number))

            given = Given(
                noise=noise,
                context=section.context,
                steps=section.steps,
                past={place: past[place] for place in section.context.needs},
                start=start,
                **read,
                options=plan.options,
                anchors={anchor.latent: starts[anchor.image, self.shot.seed] for anchor in section.anchors},
            )
            with turn(backend, self.session, section) as where:
                try:
                    inputs = backend.begin(given)
                    x = self._beginning(section, noise, where)
                    how: Any = {"sampler": plan.sampler, "fresh": fresh, "on_step": stepped}
                    return sample(backend, inputs, section.steps, x, **how), seed
                except NonFiniteLatents as error:
                    if self.session.options.on_nan != "retry" or attempt == RETRIES:
                        tried = f" {attempt + 1} seeds were tried." if attempt else ""
                        raise RenderError(
                            f"{where}, step {error.step}: the latents hold NaN or infinity; what is finished is "
                            f"kept.{tried} Try on_nan='retry' (--on-nan retry), dtype='float32' (--dtype float32) or "
                            "another seed for the scene"
                        ) from error
        raise AssertionError("the last attempt returns or raises")
