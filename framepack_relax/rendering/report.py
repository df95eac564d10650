"""What is said about a film: captions, curves, the tags of the mp4, report.json."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from .._version import __version__
from ..families.backend import Backend
from ..families.base import Anchor
from ..families.memory import in_words
from ..planning.renderplan import RenderPlan, SectionPlan
from ..relax.guidance import KINDS
from ..video.motion import MotionMeter
from .ensure import kept
from .mark import FACTS_TAG


def caption(section: SectionPlan, anchors: Iterable[Anchor] = ()) -> str:
    """A scene's line on the contact sheet; `anchors` are of all its sections."""
    comes = "".join(f", {anchor.in_words()}" for anchor in anchors)
    return f"{section.scene}: {section.prompt} [{section.relaxation.in_words()}]{comes}"


def film_tags(plan: RenderPlan, made: Mapping[str, Any], seeds: Mapping[int, int]) -> dict[str, str]:
    """What the mp4 says of itself, besides the storyboard that it carries: what made it, seeds by section, scenes."""
    prompts = {section.scene: section.prompt for section in plan.sections}
    scenes = [
        {"id": s.scene, "prompt": prompts[s.scene], "frames": s.frames, "follows": s.shot == before}
        for s, before in zip(plan.scenes, [None, *(scene.shot for scene in plan.scenes)], strict=False)
    ]
    known = {name: value for name, value in made.items() if value is not None}
    facts = {**known, "seeds": seeds, "scenes": scenes}
    return {"title": plan.title, "comment": f"framepack-relax {__version__}", FACTS_TAG: json.dumps(facts)}


def section_report(
    section: SectionPlan,
    *,
    seed: int,
    forwards: Mapping[str, int],
    reused: bool,
    seconds: float,
    tries: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A row of report.json; `seed` is the one that was used, which a retry may have changed; `seconds` of sampling.

    Of `tries` those are told that an ensured section took; the settings are those of the one that is kept, `forwards`
    and what was skipped are of all.
    """
    rows = [section.ensure.rungs[each["rung"]].steps for each in tries] if section.ensure else [section.steps]
    section = kept(section, tries)
    settings = section.to_json()
    names = ("index", "shot", "scene", "frames", "beta", "p", "blur", "scope", "target", "at_rest", "lora")
    return {
        **{name: settings[name] for name in names},
        "seed": seed,
        "retried": seed != section.seed,
        "reused": reused,
        "forwards": dict(forwards),
        **{name: settings[name] for name in ("blend", "emphasis") if name in settings},
        "skipped": 0 if reused else sum(len(step.reused or ()) for steps in rows for step in steps),
        "seconds": {"sampling": round(seconds, 3)},
        **({"tries": list(tries)} if tries else {}),
    }


def film_report(
    plan: RenderPlan,
    made: Mapping[str, Any],
    model: Backend,
    sections: list[dict[str, Any]],
    meters: list[MotionMeter],
    seconds: float,
) -> dict[str, Any]:
    """report.json: settings, forwards, seconds and motion of every section in film order, and totals.

    `peak_bytes` is the most that PyTorch held of the GPU for this film; on a CPU the most that the process has held.
    """
    spans = [[plan.sections[i].frames for i in sorted(shot.sections)] for shot in plan.shots]
    own = [[(a - shot[0][0], b - shot[0][0]) for a, b in shot] for shot in spans]
    motion = [asdict(figures) for meter, shot in zip(meters, own, strict=True) for figures in meter.figures(shot)]
    ordered = sorted(sections, key=lambda section: int(section["index"]))
    peak = torch.cuda.max_memory_allocated(model.device) if model.device.type == "cuda" else _peak_rss()
    return {
        "film": made["film"],
        "model": {"name": plan.model, "weights": made["weights"], "dtype": made["dtype"]},
        "device": str(model.device),
        "attention": model.attention or "native",
        "compiled": bool(model.compiled),
        "memory": in_words(model.preset, model.blocks),
        "sections": [{**section, **figures} for section, figures in zip(ordered, motion, strict=True)],
        "scenes": [asdict(scene) for scene in plan.scenes],
        "totals": {
            "sections": len(ordered),
            "frames": plan.frames,
            "film_seconds": plan.seconds,
            "forwards": {kind: sum(s["forwards"].get(kind, 0) for s in ordered) for kind in KINDS},
            "skipped": sum(s["skipped"] for s in ordered),
            "seconds": round(seconds, 2),
            "peak_bytes": peak,
        },
        "warnings": list(plan.warnings),
        "versions": {**made["versions"], "python": platform.python_version()},
    }


def _peak_rss() -> int:
    """Peak resident memory of this process in bytes; 0 where the platform does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
