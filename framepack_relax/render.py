"""Renders a storyboard: plan, encode, then section after section to latents, frames, film and report.

A run folder holds story.yaml, plan.json, shots/NN/NNN.safetensors, video.mp4, contact.png, curves.png, report.json
(design §6). Files appear by write-then-rename; a section that is on disk under the same hash is not rendered again.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ._version import __version__
from .errors import RenderError
from .models.catalog import Source
from .models.loader import load
from .models.video_model import StartCondition, TextCondition, VideoModel, fit_image
from .plan.planner import make_plan
from .plan.renderplan import RenderPlan, SectionPlan
from .sampling.section import SectionResult, gather_history, sample_section, section_noise
from .storyboard import Storyboard, dump_storyboard
from .video.contact import ContactSheet
from .video.curves import save_curves
from .video.decode import BlendDecoder
from .video.motion import MotionMeter
from .video.writer import Mp4Writer

SAMPLER_VERSION = 1  # part of every section's hash; raised when the same plan would give other latents
Step = Callable[[SectionPlan, int], None]


@dataclass(frozen=True, kw_only=True)
class FinishedSection:
    """A section that is on disk; `frames` uint8 [T, H, W, 3] are what became final with it.

    FramePack blends 33 frames into the next section, so frames lag behind; in inverted order a shot's frames come with
    its last rendered section.
    """

    plan: SectionPlan
    latents: Tensor  # [1, C, 9, h, w] float32
    frames: NDArray[np.uint8]
    first_frame: int  # film-wide number of frames[0]
    report: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RenderedFilm:
    """What a render leaves behind."""

    path: Path
    folder: Path
    plan: RenderPlan
    report: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Everything encoded before the first section: texts by prompt, start images by shot."""

    texts: dict[str, TextCondition]
    starts: dict[int, StartCondition]
    unknown_words: dict[str, list[str]]


def render(
    story: Storyboard,
    *,
    out: str | Path,
    model: VideoModel | None = None,
    on_step: Step = lambda section, step: None,
    on_section: Callable[[FinishedSection], None] = lambda section: None,
) -> RenderedFilm:
    """Renders `story` into the folder `out` and returns where the film is.

    Raises StoryboardError, ModelError or RenderError before the first section wherever it can be known by then.
    """
    begun = time.perf_counter()
    model = model or load(story.model)
    plan = make_plan(story, model.facts)
    folder = _open_folder(Path(out))
    conditions = encode(story, plan, model)
    resolved = dump_storyboard(story.changed(size=plan.size, fps=plan.fps, order=plan.order))
    _write_text(folder / "story.yaml", resolved)
    _write_text(folder / "plan.json", json.dumps(plan.to_json(), indent=1))
    sheet = ContactSheet(rows=[(_caption(plan, scene.sections[0]), *scene.frames) for scene in plan.scenes])
    save_curves([_curve(plan, scene.sections[-1]) for scene in plan.scenes], folder / "curves.png")
    meters = [MotionMeter() for _ in plan.shots]
    sections: list[dict[str, Any]] = []
    tags = _metadata(resolved, plan, model.source)
    with Mp4Writer(folder / "video.mp4", fps=plan.fps, size=plan.size, crf=story.crf, metadata=tags) as writer:
        for done in _sections(plan, model, conditions, folder, on_step):
            if len(done.frames):
                writer.write(done.frames)
                sheet.add(done.first_frame, done.frames)
                meters[done.plan.shot].add(done.frames)
            sections.append(done.report)
            on_section(done)
    sheet.save(folder / "contact.png")
    report = _report(plan, model, sections, meters, time.perf_counter() - begun)
    report["unknown_words"] = conditions.unknown_words
    _write_text(folder / "report.json", json.dumps(report, indent=1))
    return RenderedFilm(path=folder / "video.mp4", folder=folder, plan=plan, report=report)


def stream(
    story: Storyboard,
    *,
    out: str | Path,
    model: VideoModel | None = None,
    on_step: Step = lambda section, step: None,
) -> Iterator[FinishedSection]:
    """Renders `story` section by section; each is on disk under `out`/shots when it is handed over."""
    model = model or load(story.model)
    plan = make_plan(story, model.facts)
    yield from _sections(plan, model, encode(story, plan, model), _open_folder(Path(out)), on_step)


def _sections(
    plan: RenderPlan, model: VideoModel, conditions: Conditions, folder: Path, on_step: Step
) -> Iterator[FinishedSection]:
    """The loop: shot by shot, section by section in rendering order."""
    weights = model.source.fingerprint()
    for shot in plan.shots:
        start = conditions.starts[shot.index]
        _save(folder / f"shots/{shot.index:02d}/start.safetensors", start.latent, digest(start.latent))
        decoder = BlendDecoder(model.vae, order=plan.order, start=start.latent, sections=len(shot.sections))
        latents: dict[int, Tensor] = {0: start.latent}
        chain, next_frame = digest(start.latent, start.tokens), shot.frames[0]
        for index in shot.sections:
            section = plan.sections[index]
            chain = _section_hash(chain, section, plan, model, weights)
            file = folder / f"shots/{shot.index:02d}/{section.place:03d}.safetensors"
            clock = time.perf_counter()
            result, reused = _load(file, chain), True
            if result is None:
                result, reused = _sample(plan, section, model, conditions, latents, on_step), False
                _save(file, result.latents, chain)
            sampled = time.perf_counter()
            latents |= _positions(section, result.latents, model.device)
            frames = decoder.push(result.latents.to(model.device))
            yield FinishedSection(
                plan=section,
                latents=result.latents,
                frames=frames,
                first_frame=next_frame,
                report=_section_report(section, result, reused, sampled - clock, time.perf_counter() - sampled),
            )
            next_frame += len(frames)
        assert next_frame == shot.frames[1], "a shot gives exactly the frames that its plan says"


def encode(story: Storyboard, plan: RenderPlan, model: VideoModel) -> Conditions:
    """All prompts and start images of a film, each once, before the first section."""
    prompts = [section.prompt for section in plan.sections]
    negatives = [s.negative_prompt for s in plan.sections]
    texts, unknown = model.encode_texts([*prompts, *negatives])
    images = {}
    for shot in plan.shots:
        assert shot.image is not None, "the planner refuses shots without a start image"
        with Image.open(story.resolve(shot.image)) as image:
            images[shot.index] = (fit_image(image, plan.size), shot.seed)
    starts = model.encode_images(images)
    model.place()
    return Conditions(texts=texts, starts=starts, unknown_words=unknown)


def _sample(
    plan: RenderPlan,
    section: SectionPlan,
    model: VideoModel,
    conditions: Conditions,
    latents: dict[int, Tensor],
    on_step: Step,
) -> SectionResult:
    start = conditions.starts[section.shot]
    result = sample_section(
        model,
        section,
        sampler=plan.sampler,
        order=plan.order,
        noise=section_noise(section.seed, model.latent_channels, plan.size),
        start=start,
        text=conditions.texts[section.prompt],
        negative=conditions.texts[section.negative_prompt],
        history=gather_history(section.history, latents, start.latent),
        on_step=lambda step: on_step(section, step),
    )
    if not torch.isfinite(result.latents).all():
        raise RenderError(
            f"scene {section.scene}, section {section.index}: the latents hold NaN or infinity; what is finished is "
            "kept. Try --dtype float32 or another seed for the scene"
        )
    return result


def _positions(section: SectionPlan, latents: Tensor, device: torch.device) -> dict[int, Tensor]:
    """Latent frames of a section by their position in the shot."""
    first = latents.shape[2] * section.place + 1
    return {first + k: frame for k, frame in enumerate(latents.to(device).split(1, dim=2))}


# --- what a section depends on, and files -----------------------------------------------------------------------


def digest(*tensors: Tensor) -> str:
    """blake2b of the bytes of tensors."""
    state = blake2b(digest_size=16)
    for tensor in tensors:
        state.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def _section_hash(before: str, section: SectionPlan, plan: RenderPlan, model: VideoModel, weights: str) -> str:
    """Of everything that determines a section: what came before it in its shot, settings, weights and code."""
    settings = {
        key: value
        for key, value in {**section.to_json(), "place": section.place, "history": asdict(section.history)}.items()
        if key not in ("index", "shot", "frames", "scene", "intensity")
    }
    fixed = {
        "sampler": [plan.sampler, SAMPLER_VERSION],
        "order": plan.order,
        "size": plan.size,
        "weights": weights,
        "dtype": str(model.dtype),
        "device": model.device.type,
        "versions": versions(),
    }
    text = json.dumps([before, settings, fixed], sort_keys=True)
    return blake2b(text.encode("utf8"), digest_size=16).hexdigest()


def _load(file: Path, wanted: str) -> SectionResult | None:
    """The section on disk if it is whole and was made under the hash that is wanted now."""
    try:
        with safe_open(file, framework="pt") as opened:
            if (opened.metadata() or {}).get("hash") != wanted:
                return None
            return SectionResult(latents=opened.get_tensor("latents"))
    except (FileNotFoundError, SafetensorError):
        return None


def _save(file: Path, latents: Tensor, made_by: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file({"latents": latents.detach().float().cpu().contiguous()}, part, metadata={"hash": made_by})
    os.replace(part, file)


def _write_text(file: Path, text: str) -> None:
    part = file.with_name(file.name + ".part")
    part.write_text(text, encoding="utf8")
    os.replace(part, file)


def _open_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RenderError(
            f"{folder}: cannot be made a folder for the render ({error.strerror}); choose another --out"
        ) from error
    return folder


# --- what is said about a film ----------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    names = ("torch", "diffusers", "transformers")
    return {"framepack-relax": __version__, **{name: version(name) for name in names}}


def _caption(plan: RenderPlan, index: int) -> str:
    section = plan.sections[index]
    relax = section.relaxation
    state = "at rest" if relax.at_rest else f"beta {relax.beta:.2f}, p {relax.p:g}, {'+'.join(relax.target)}"
    return f"{section.scene}: {section.prompt} [{state}]"


def _curve(plan: RenderPlan, index: int) -> tuple[str, list[float], dict[str, list[float]]]:
    section = plan.sections[index]
    scales = {name: list(values) for name, values in asdict(section.scales).items()}
    return section.scene, list(section.sigmas), scales


def _metadata(resolved: str, plan: RenderPlan, source: Source) -> dict[str, str]:
    seeds = {str(section.index): section.seed for section in plan.sections}
    facts = {"versions": versions(), "model": source.name, "weights": source.fingerprint(), "seeds": seeds}
    return {
        "title": plan.title,
        "comment": f"framepack-relax {__version__}",
        "framepack_relax": json.dumps(facts),
        "framepack_relax_storyboard": resolved,
    }


def _section_report(
    section: SectionPlan, result: SectionResult, reused: bool, sampling: float, decoding: float
) -> dict[str, Any]:
    settings = section.to_json()
    names = ("index", "shot", "scene", "seed", "frames", "beta", "p", "blur", "scope", "target", "at_rest")
    return {
        **{name: settings[name] for name in names},
        "reused": reused,
        "forwards": dict(result.forwards),
        "seconds": {"sampling": round(sampling, 3), "decoding": round(decoding, 3)},
    }


def _report(
    plan: RenderPlan,
    model: VideoModel,
    sections: Sequence[dict[str, Any]],
    meters: Sequence[MotionMeter],
    seconds: float,
) -> dict[str, Any]:
    """report.json: settings, forwards, seconds and motion of every section in film order, and totals."""
    motion = [asdict(figures) for meter in meters for figures in meter.figures()]
    ordered = sorted(sections, key=lambda section: int(section["index"]))
    peak = torch.cuda.max_memory_allocated(model.device) if model.device.type == "cuda" else _peak_rss()
    kinds = ("cond", "uncond", "free")
    return {
        "model": {"name": plan.model, "weights": model.source.fingerprint(), "dtype": str(model.dtype)},
        "device": str(model.device),
        "sections": [{**section, **figures} for section, figures in zip(ordered, motion, strict=True)],
        "scenes": [asdict(scene) for scene in plan.scenes],
        "totals": {
            "sections": len(ordered),
            "frames": plan.frames,
            "film_seconds": plan.seconds,
            "forwards": {kind: sum(s["forwards"].get(kind, 0) for s in ordered) for kind in kinds},
            "seconds": round(seconds, 2),
            "peak_bytes": peak,
        },
        "warnings": list(plan.warnings),
        "versions": {**versions(), "python": platform.python_version()},
    }


def _peak_rss() -> int:
    """Peak resident memory of this process in bytes; 0 where the platform does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
