"""What a section is made from, as a key that is known without torch and before anything is rendered.

A key hashes what goes in: the weights, their dtype, the start image's pixels, the plan's row, and the key of the
section rendered before it. What an encoder gives of these, the device and the packages' versions are *provenance*: it
stands beside the latents, a difference is told, and undoes nothing unless that is asked for.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image
from pydantic_core import to_jsonable_python

from .._version import __version__
from ..families.adapters import Adapter, acting
from ..planning.renderplan import RenderPlan, SectionPlan, ShotPlan
from ..storyboard import Storyboard
from ..storyboard.messages import printable

SAMPLER_VERSION = 2  # part of every section's key; raised when the same plan would give other latents
# of a plan's row, what does not reach the latents, and what its steps say
NAMES = (
    *("index", "shot", "frames", "scene", "intensity", "steps", "sigmas", "scales", "lora"),
    *("anchors", "take", "lock", "file", "start_from"),
)


@dataclass(frozen=True, kw_only=True)
class SectionKey:
    """`inputs` of a section besides its past, which the key of the section rendered before it stands for.

    A locked one has its take's key, whatever its past and inputs are now.
    """

    parent: str
    inputs: Mapping[str, Any]
    locked: str = ""

    @property
    def key(self) -> str:
        return self.locked or hash_of([self.parent, self.inputs])


def section_keys(
    plan: RenderPlan,
    pictures: Mapping[str, str],
    weights: str,
    dtype: str,
    adapters: Iterable[Adapter] = (),
    judge: str | None = None,
    locked: Mapping[int, str] = {},
    drafts: Mapping[int, str] = {},
) -> dict[int, SectionKey]:
    """The key of each section by its index, in rendering order; `pictures` are digests of images by path, `judge` is
    what sees actions, `locked` are keys of takes by section, `drafts` digests of the latents that they start from."""
    adapters = tuple(adapters)
    common = {"sampler": [plan.sampler, SAMPLER_VERSION], "family": plan.kind, **plan.options}
    keys, rows = {}, {id(steps): steps for s in plan.sections for steps in s.tables}  # scenes share what is equal
    hashes = {name: hash_of(plain(to_jsonable_python(steps))) for name, steps in rows.items()}
    for shot in plan.shots:
        parent, start = "", start_inputs(shot, plan, pictures, weights, dtype)
        for index in shot.sections:
            section = plan.sections[index]
            lora = [adapter.inputs for adapter in acting(adapters, section.lora) if adapter.scale] or None
            anchors = [(each.latent, each.role, pictures[each.image]) for each in section.anchors] or None
            row = {**_row(section, hashes, judge), **common, **start, "lora": lora}
            row |= {"anchors": anchors, "draft": drafts.get(index)}
            key = SectionKey(parent=parent, inputs=plain(row), locked=locked.get(index, ""))
            keys[index], parent = key, key.key
    return keys


def start_inputs(
    shot: ShotPlan, plan: RenderPlan, pictures: Mapping[str, str], weights: str, dtype: str
) -> dict[str, Any]:
    """What a shot's start latent is made from, and so its sections too."""
    picture = pictures[shot.image] if shot.image else None
    return {"image": picture, "start_seed": shot.seed, "size": plan.size, "weights": weights, "dtype": dtype}


def film_key(plan: RenderPlan, story: Storyboard, keys: Mapping[int, SectionKey], sound: str | None) -> str:
    """What an mp4 is made from; `sound` is the digest of its track."""
    scenes = [(scene.scene, scene.frames) for scene in plan.scenes]
    sections = [key.key for _, key in sorted(keys.items())]
    takes = [(scene.id, scene.take, scene.lock) for scene in story.scenes if scene.take]  # its report tells of them
    more = filter(None, [sound, takes])
    return hash_of([sections, scenes, plan.title, plan.fps, plan.decode, story.crf, *more])


def picture_digest(*images: Image.Image) -> str:
    """A hash of the pixels of an image, or of a film's frames, as they are given to the model."""
    return blake2b(b"".join(np.asarray(image).tobytes() for image in images), digest_size=16).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Of the packages that have a part in the bits."""
    return {"framepack-relax": __version__, **{name: version(name) for name in ("torch", "diffusers", "transformers")}}


def hash_of(value: Any) -> str:
    """blake2b of a JSON value."""
    return blake2b(json.dumps(value, sort_keys=True).encode("utf8"), digest_size=16).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What of the inputs or the provenance changed, in words that may be shown; empty if nothing did.

    What is None in `new` is not known, and no change.
    """
    return ", ".join(_differences(old, new))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[str]:
    for name in sorted(set(old) | set(new)):
        before, after = old.get(name), new.get(name)
        if before == after or (name in new and after is None):
            continue
        if name == "image":
            yield "the start image changed"
        elif name == "versions" and isinstance(before, dict) and isinstance(after, dict):
            yield from (f"{k} {printable(str(before.get(k)))} -> {v}" for k, v in after.items() if before.get(k) != v)
        elif name != "steps" and _short(before) and _short(after):
            yield f"{printable(name)}: {printable(str(before))} -> {printable(str(after))}"
        else:
            yield f"{printable(name)} changed"


def _short(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool)) and len(str(value)) < 60


def _row(section: SectionPlan, hashes: Mapping[int, str], judge: str | None) -> dict[str, Any]:
    """Of a section's steps their hash, and no negative prompt where no pass reads one."""
    row = {**section.to_json(without=NAMES), "place": section.place, "steps": hashes[id(section.tables[-1])]}
    row["context"] = asdict(section.context)  # type: ignore[call-overload]
    if not any(branch.prompt == "negative" for steps in section.tables for step in steps for branch in step.branches):
        row["negative_prompt"] = None
        if section.blend:
            row["blend"] = {**row["blend"], "negative_prompt": None}
    if section.ensure:
        rungs = [hashes[id(steps)] for steps in section.tables]
        action = {"action": section.ensure.action, "judge": judge} if section.ensure.action else {}
        row["ensure"] = {"motion": section.ensure.motion, "tries": section.ensure.tries, "rungs": rungs, **action}
    return row


def plain(value: Any) -> Any:
    """As JSON holds it. Numbers keep nine digits, for another C library may differ in the last of its seventeen; what
    is None is left out, so that a setting that is new, and not used, undoes no film."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value
