"""The run folder: latents of finished sections under the hash of all that determines them, texts, pictures, a lock.

Files appear by write-then-rename. A section is taken up again only if it is whole and everything that determines it is
the same now; otherwise the folder can say what changed.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .._version import __version__
from ..errors import RenderError
from ..models.video_model import VideoModel
from ..plan.renderplan import RenderPlan, SectionPlan
from ..storyboard.messages import printable
from .status import LOCK, NOT_THERE, PLAN, SECTION_FILE, STORY, WANTED, hold

SAMPLER_VERSION = 2  # part of every section's hash; raised when the same plan would give other latents
LATENTS = "latents"
MEND = "what is finished is kept: mend that and run the same command again"
FOLLOWS = "it follows a section that is rendered anew"


@dataclass(frozen=True, kw_only=True)
class Link:
    """What determines a section: all before it in its shot, as a hash, and its own settings, weights and code."""

    before: str
    facts: Mapping[str, Any]

    @property
    def hash(self) -> str:
        return _hash(json.dumps([self.before, self.facts], sort_keys=True))


@dataclass(frozen=True, kw_only=True)
class StoredSection:
    """Latents [1, C, 9, h, w] float32 from disk, the seed that drew their noise, and what they were made from."""

    latents: Tensor
    seed: int
    hash: str
    facts: Mapping[str, Any]


def section_facts(section: SectionPlan, plan: RenderPlan, model: VideoModel) -> dict[str, Any]:
    """Everything besides the past that a section's latents depend on; its number, names and place in time do not."""
    names = ("index", "shot", "frames", "scene", "intensity")
    facts = {
        **{name: value for name, value in section.to_json().items() if name not in names},
        "place": section.place,
        "history": asdict(section.history),
        "sampler": [plan.sampler, SAMPLER_VERSION],
        "order": plan.order,
        "adain": plan.adain,
        "size": plan.size,
        **made_with(model),
    }
    return json.loads(json.dumps(facts))  # tuples as the lists that the file will hold


def made_with(model: VideoModel) -> dict[str, Any]:
    """What decides the bits besides the plan."""
    kind = {"dtype": str(model.dtype), "device": model.device.type}
    return {"weights": model.weights, **kind, "versions": versions()}


class RunFolder:
    """Opens or makes `path`; raises RenderError where that cannot be.

    `store` is a folder of sections under their hashes that many renders share: each takes from it and adds to it.
    """

    def __init__(self, path: Path, *, fresh: bool = False, store: Path | None = None) -> None:
        self.path, self.store = path, store
        with writing(path, "cannot be made a folder for the render", "choose another --out"):
            path.mkdir(parents=True, exist_ok=True)
        self.fresh = fresh

    @contextmanager
    def locked(self) -> Iterator["RunFolder"]:
        """Holds the folder for this process alone; refuses one whose storyboard a render would overwrite."""
        if (self.path / STORY).exists() and not any((self.path / name).exists() for name in (LOCK, PLAN)):
            raise RenderError(f"{self.path}: has a {STORY} that is not a render's; choose another --out")
        with hold(self.path):
            if self.fresh and (self.path / "shots").exists():
                with writing(self.path / "shots", "cannot be removed"):
                    shutil.rmtree(self.path / "shots")
            yield self

    def section_file(self, section: SectionPlan) -> Path:
        return self.path / SECTION_FILE.format(section.shot, section.place)

    def verdicts(self, plan: RenderPlan, links: Mapping[int, Link]) -> dict[int, str | None]:
        """Why each section must be rendered; None if it is on disk, whole, and made as it would be made now.

        What follows a section that is rendered anew is rendered anew too: not every device gives the same bits twice.
        """
        said: dict[int, str | None] = {}
        for shot in plan.shots:
            anew = False
            for index in shot.sections:
                said[index] = self._why_anew(plan.sections[index], links[index]) or (FOLLOWS if anew else None)
                anew = said[index] is not None
        return said

    def _why_anew(self, section: SectionPlan, link: Link) -> str | None:
        file = self.section_file(section)
        if self.store and not file.exists():
            _same_file(self.store / f"{link.hash}.safetensors", file)
        if not file.exists():
            return NOT_THERE
        stored = _read(file)
        if stored is None:
            return "its file is broken"
        if stored.hash == link.hash:
            return None
        return difference(stored.facts, link.facts) or FOLLOWS

    def begin(self, plan: RenderPlan, links: Mapping[int, Link], why_anew: Mapping[int, str | None]) -> None:
        """Writes the plan and the hash that each section's file must bear, for `status`; drops what no longer follows.

        A section that follows one that is rendered anew may bear its hash all the same: on some devices, and after a
        retry, the same plan gives other latents.
        """
        for index, why in why_anew.items():
            section = plan.sections[index]
            if why == FOLLOWS and self._why_anew(section, links[index]) is None:
                with writing(self.section_file(section), "cannot be removed"):
                    self.section_file(section).unlink(missing_ok=True)
        self.write_text(WANTED, json.dumps({index: link.hash for index, link in links.items()}))
        self.write_text(PLAN, json.dumps(plan.to_json(), indent=1))

    def load_section(self, section: SectionPlan) -> StoredSection:
        """A section for which `verdicts` found nothing."""
        file = self.section_file(section)
        stored = _read(file)
        if stored is None:
            raise RenderError(f"{file}: was removed or damaged during the render; run the same command again")
        return stored

    def save_section(self, section: SectionPlan, latents: Tensor, link: Link, seed: int) -> None:
        file = self.section_file(section)
        self._save(file, latents, {"hash": link.hash, "facts": json.dumps(link.facts), "seed": str(seed)})
        if self.store:
            _same_file(file, self.store / f"{link.hash}.safetensors")

    def save_start(self, shot: int, latent: Tensor) -> None:
        self._save(self.path / f"shots/{shot:02d}/start.safetensors", latent, {})

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode("utf8"))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes a file that appears whole or not at all."""
        file = self.path / name
        part = file.with_name(file.name + ".part")
        with writing(file):
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with open(part, "wb") as opened:
                    opened.write(data)
                    opened.flush()
                    os.fsync(opened.fileno())
                os.replace(part, file)
            except OSError:
                part.unlink(missing_ok=True)
                raise

    def _save(self, file: Path, latents: Tensor, tags: dict[str, str]) -> None:
        whole = latents.detach().float().cpu().contiguous()
        data = save({LATENTS: whole}, metadata={**tags, "seal": _seal(whole, tags)})
        self.write_bytes(str(file.relative_to(self.path)), data)


def _same_file(there: Path, here: Path) -> None:
    """Gives a file that is there a second name; where the disk cannot, or the name is taken, it goes without."""
    with suppress(OSError):
        here.parent.mkdir(parents=True, exist_ok=True)
        os.link(there, here)


def _read(file: Path) -> StoredSection | None:
    """A section file that is whole, to the last bit."""
    try:
        with safe_open(file, framework="pt") as opened:
            tags: dict[str, str] = opened.metadata() or {}
            latents = opened.get_tensor(LATENTS)
        if tags.pop("seal") != _seal(latents, tags):
            return None
        facts = json.loads(tags["facts"])
        return StoredSection(latents=latents, seed=int(tags["seed"]), hash=tags["hash"], facts=facts)
    except (OSError, SafetensorError, KeyError):
        return None


def _seal(latents: Tensor, tags: Mapping[str, str]) -> str:
    """A hash over latents and tags, by which damage is seen."""
    return _hash(digest(latents) + json.dumps(tags, sort_keys=True))


def _hash(text: str) -> str:
    return blake2b(text.encode("utf8"), digest_size=16).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What of the facts changed, in words that may be shown; empty if nothing did."""
    said = []
    for name in sorted(set(old) | set(new)):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict) and name == "versions":
            said += [f"{k} {printable(str(before.get(k)))} -> {v}" for k, v in after.items() if before.get(k) != v]
            continue
        short = all(isinstance(value, (str, int, float, bool)) and len(str(value)) < 60 for value in (before, after))
        said.append(f"{name}: {printable(str(before))} -> {printable(str(after))}" if short else f"{name} changed")
    return ", ".join(said)


@contextmanager
def writing(place: Path, what: str = "cannot be written", cure: str = MEND) -> Iterator[None]:
    """Turns a full disk and its like into one message."""
    try:
        yield
    except OSError as error:
        raise RenderError(f"{place}: {what} ({error.strerror or error}); {cure}") from error


def digest(*tensors: Tensor) -> str:
    """blake2b of the bytes of tensors."""
    state = blake2b(digest_size=16)
    for tensor in tensors:
        state.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def versions() -> dict[str, str]:
    names = ("torch", "diffusers", "transformers")
    return {"framepack-relax": __version__, **{name: version(name) for name in names}}
