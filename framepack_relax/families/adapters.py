"""LoRA that a board puts on its model: where the files are, whose, and what of them acts beside the model; no torch.

A file is looked for beside the storyboard, then as `owner/name/file.safetensors` in the folder named by the environment
variable FRAMEPACK_RELAX_WEIGHTS, then on the hub; `owner/name` stands for diffusers' pytorch_lora_weights.safetensors,
and after `owner/name@` may stand a revision of the hub's. A model of the catalogue may come with some of its own.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import ModelError, Problem
from ..storyboard import Storyboard
from ..storyboard.messages import printable
from ..storyboard.paths import leaves, path_cure, refusal
from ..storyboard.schema import Lora
from .base import Family
from .catalog import WEIGHTS_VARIABLE, find, on_hub
from .fingerprint import hash_of, told
from .layers import NUMBER, Layers, layers_in, match
from .weights import header

OF_HUB = "of the hub: owner/name[@revision][/file.safetensors]"
MOST = 4  # kinds of layers that are named
Lists = Sequence[tuple[str, tuple[Lora, ...]]]  # by their places
EXPERTS = {"high": "transformer", "low": "transformer_2"}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A file beside the network that it is put on; `changed` is None where file or model is not on this machine."""

    file: str  # as the storyboard calls it
    network: str
    missing: str = ""  # where it is not, if it is not on this machine
    changed: int | None = None  # layers of the network
    kinds: tuple[str, ...] = ()  # their names, with * for the block
    left: int = 0  # layers of the file that do not act
    first_left: str = ""  # one of them, and why

    @property
    def in_words(self) -> str:
        if self.changed is None:
            absent = f"is {self.missing}; " if self.missing else ""
            return (
                f"{self.file}: {absent}which layers it changes is not known before file and model are on this machine"
            )
        more = f" and {len(self.kinds) - MOST} more" if len(self.kinds) > MOST else ""
        which = f"{', '.join(self.kinds[:MOST])}{more}"
        left = f"; {self.left} of its own do not act, the first is {self.first_left}" if self.left else ""
        return f"{self.file}: changes {self.changed} layers of the {self.network} ({which}){left}"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA that is on this machine; at scale 0 it is ready to be switched on."""

    place: str  # in the storyboard
    file: Path
    digest: str  # of its bytes
    scale: float
    fit: Fit

    @property
    def of(self) -> tuple[str, str]:
        """By which it is known among those that are on."""
        return self.digest, self.fit.network

    @property
    def inputs(self) -> list[str | float]:
        """What of it decides what a section becomes."""
        return [self.digest, self.scale, self.fit.network]

    @property
    def row(self) -> dict[str, Any]:
        """Of report.json."""
        return {**asdict(self.fit), "digest": self.digest}


def loras_of(story: Storyboard, family: Family) -> list[tuple[Lora, ...]]:
    """What acts in each scene: the model's own, the board's, the scene's; of one file, for one network, the last."""
    own, board, *scenes = (loras for _, loras in _lists(story, family))
    every = [{(lora.file, _network(lora)): lora for lora in (*own, *board, *scene)} for scene in scenes]
    return [tuple(lora for lora in said.values() if lora.scale) for said in every]


def acting(adapters: Iterable[Adapter], lora: Iterable[Lora]) -> tuple[Adapter, ...]:
    """A film's adapters as a section has them: those of its `lora` at their scales, first; then the others at 0."""
    named = {(adapter.fit.file, adapter.fit.network): adapter for adapter in adapters}
    said = [replace(named[one.file, _network(one)], scale=one.scale) for one in lora]
    on = {adapter.of: adapter for adapter in said}
    off = {adapter.of: replace(adapter, scale=0.0) for adapter in named.values() if adapter.of not in on}
    return *on.values(), *off.values()


def look(story: Storyboard, family: Family) -> tuple[tuple[Fit, ...], tuple[Problem, ...]]:
    """How the board's LoRA fit the model, and those that it cannot take, or that are nowhere."""
    fits, problems = dict[tuple[str, str], Fit](), dict[tuple[str, str], Problem]()
    layers: dict[str, Layers | None] = {}
    for path, lora in _written(_lists(story, family)):
        network = _network(lora)
        misplaced = _misplaced(path, lora, family)
        if misplaced:
            problems[path, ""] = misplaced
        elif network not in layers:
            layers[network] = _layers(family, network)
        if (lora.file, network) not in fits:
            fit, why = _fit(story, lora.file, family, network, None if misplaced else layers[network])
            fits[lora.file, network] = fit
            if why:
                problems[path, "file"] = Problem(path=_file(path), message=f"{printable(lora.file)}{why}")
    return tuple(fits.values()), (*problems.values(), *_doubled(_lists(story, family)))


def _doubled(lists: Lists) -> Iterator[Problem]:
    """Those whose file stands before them in the same list."""
    for where, loras in lists:
        first = dict[tuple[str, str], int]()
        for n, lora in enumerate(loras):
            if (before := first.setdefault((lora.file, _network(lora)), n)) < n:
                yield Problem(path=f"{where}[{n}]", message=f"is the file of {where}[{before}] again; keep one")


def outside(story: Storyboard) -> Iterator[Problem]:
    """Files that the board names by a place outside its folder, which a board of somebody else's must not do."""
    if story.before and (leaves(story.before) or ".." in re.split(r"[/\\]", story.before)):
        yield Problem(path="from", message=f"{printable(story.before)} leaves the storyboard's folder; remove the line")
    for path, lora in _written(_said(story)):
        if leaves(lora.file) or ".." in re.split(r"[/\\]", lora.file):
            fact = f"leaves the storyboard's folder; name one {OF_HUB}"
            yield Problem(path=_file(path), message=f"{printable(lora.file)} {fact}")


def relocated(story: Storyboard, folder: Path, beside: Path | None = None) -> Storyboard:
    """With those that lie on this machine named by their way from another folder, for a board that is put there.

    `beside` is where a board lay that was read from no file.
    """

    def named(lora: Lora) -> Lora:
        file = story.resolve(lora.file) if beside is None else beside / lora.file
        here = Path(os.path.realpath(file.parent), file.name)
        way = os.path.relpath(here, os.path.realpath(folder)) if here.is_file() else lora.file
        return lora.model_copy(update={"file": Path(way).as_posix()})

    def moved(loras: tuple[Lora, ...] | None) -> tuple[Lora, ...] | None:
        return loras and tuple(map(named, loras))

    scenes = tuple(scene.model_copy(update={"lora": moved(scene.lora)}) for scene in story.scenes)
    return story.changed(lora=moved(story.lora), scenes=scenes)


def find_adapters(story: Storyboard, family: Family, *, download: bool, absent: bool = False) -> tuple[Adapter, ...]:
    """All that act in some scene of the board, at scale 0, fetched where need be. Raises ModelError.

    Where `absent` is allowed, those that are not on this machine are left out.
    """
    family = family.configured(story)
    acts = {(lora.file, _network(lora)) for loras in loras_of(story, family) for lora in loras}
    wanted: dict[tuple[str, str], tuple[str, Path, str]] = {}
    for path, lora in _written(_lists(story, family)):
        key = lora.file, _network(lora)
        if key in acts and key not in wanted:
            if absent and _there(story, lora.file) is None:
                continue
            if find_spec("peft") is None:
                fact = "LoRA need PEFT, which is not installed; pip install 'framepack-relax[lora]'"
                raise ModelError(str(story.located(Problem(path=_file(path), message=fact))))
            place = str(story.located(Problem(path=_file(path), message=printable(lora.file))))
            file = _there(story, lora.file) or _fetched(story, lora.file, place, download)
            with told():
                digest = hash_of(file)
            if same := next((name for (name, on), (*_, x) in wanted.items() if (on, x) == (key[1], digest)), None):
                raise ModelError(f"{place}: holds the very bytes of {printable(same)}; name one of the two everywhere")
            wanted[key] = place, file, digest
    fits, problems = look(story, family) if wanted else ((), ())
    if problems:
        raise ModelError("\n".join(str(story.located(problem)) for problem in problems))
    known = {(fit.file, fit.network): fit for fit in fits}
    return tuple(
        Adapter(place=place, file=file, digest=digest, scale=0.0, fit=known[key])
        for key, (place, file, digest) in wanted.items()
    )


def _said(story: Storyboard) -> Lists:
    """The board's, its scenes'."""
    return [
        ("lora", story.lora or ()),
        *((f"scenes[{n}].lora", scene.lora or ()) for n, scene in enumerate(story.scenes)),
    ]


def _lists(story: Storyboard, family: Family) -> Lists:
    """The model's own, the board's, its scenes'; each file by the name that it has first."""
    lists: Lists = [("model", family.lora), *_said(story)]
    names, first = {lora.file: "" for _, loras in lists for lora in loras}, dict[str, str]()
    for name in names:
        names[name] = first.setdefault(_identity(story, name), name)
    return [(at, tuple(x.model_copy(update={"file": names[x.file]}) for x in loras)) for at, loras in lists]


def _identity(story: Storyboard, name: str) -> str:
    """The same for every name of a file."""
    if file := next(filter(os.path.isfile, _local(story, name)), None):
        return str(file.resolve())
    hub = on_hub(name)
    return f"{hub[0]}@{hub[1] or 'main'}/{hub[2]}" if hub else name


def _written(lists: Lists) -> Iterator[tuple[str, Lora]]:
    """With their places."""
    for where, loras in lists:
        yield from ((where if where == "model" else f"{where}[{n}]", lora) for n, lora in enumerate(loras))


def _file(path: str) -> str:
    return path if path == "model" else f"{path}.file"


def _network(lora: Lora) -> str:
    return EXPERTS[lora.expert or "high"]


def _misplaced(path: str, lora: Lora, family: Family) -> Problem | None:
    experts = "transformer_2" in family.parts
    if "transformer" not in family.parts:
        return Problem(path=path, message=f"{family.name} has no weights, so it takes none; remove these lines")
    if experts and lora.expert is None:
        fact = f"{family.name} is of two transformers; write `expert: high` or `low`, a file for each"
        return Problem(path=path, message=fact)
    if lora.expert and not experts:
        return Problem(path=f"{path}.expert", message=f"{family.name} is of one transformer; remove the line")
    return None


def _layers(family: Family, network: str) -> Layers | None:
    """Of the model's network; None where it is not on this machine, or cannot be read, as a render will say."""
    try:
        return layers_in(find(family.name, download=False).parts[network], family.original)
    except Exception:  # of safetensors', too
        return None


def _fit(story: Storyboard, name: str, family: Family, network: str, layers: Layers | None) -> tuple[Fit, str]:
    """How a file fits, and what is wrong with it."""
    unknown = Fit(file=name, network=network)
    if wrong := _wrong(story, name):
        return unknown, wrong
    file = _there(story, name)
    if file is None:
        return replace(unknown, missing=f"no file{_beside(story)}, and none of the hub's on this machine"), ""
    try:
        tensors = {key: shape for key, (_, shape) in header(file)[0].items()}
    except Exception as error:  # safetensors has one of its own
        return unknown, f": cannot be read as safetensors ({printable(str(error), 200)}); download it again"
    if layers is None:
        return unknown, ""
    found = match(tensors, layers, family.original)
    first = next((f"{printable(layer)}: {why}" for layer, why in found.left.items()), "it is empty")
    if not found.layers:
        return unknown, f": matches no layer of the {network} ({first}); take one that was made for this model"
    left = len(found.left)
    kinds = tuple(dict.fromkeys(NUMBER.sub(".*.", name) for name in found.changed))
    fit = replace(unknown, changed=len(found.changed), kinds=kinds, left=left, first_left=first if left else "")
    return fit, ""


def _wrong(story: Storyboard, name: str) -> str:
    """What is wrong with where a file is; empty where nothing is, or only the hub can say."""
    for file in _local(story, name):
        try:
            wrong = refusal(file)
        except (OSError, ValueError):
            continue
        pickle = "" if file.suffix == ".safetensors" else "is no .safetensors file; convert it"
        return f": {wrong or pickle}" if wrong or pickle else ""
    if on_hub(name) is not None:
        return ""
    return f": no such file{_beside(story)}, and no name {OF_HUB}{path_cure(name, story.resolve(name))}"


def _beside(story: Storyboard) -> str:
    return " beside the storyboard" if story.file else ""


def _local(story: Storyboard, name: str) -> list[Path]:
    """Where it may lie on this machine, besides the hub's cache."""
    hub, root = on_hub(name), os.environ.get(WEIGHTS_VARIABLE)
    return [story.resolve(name), *([Path(root, name.removesuffix(f"/{hub[2]}"), hub[2])] if hub and root else ())]


def _there(story: Storyboard, name: str) -> Path | None:
    """Where it is on this machine."""
    if file := next((file for file in _local(story, name) if file.is_file()), None):
        return file
    if (hub := on_hub(name)) is None:
        return None
    from huggingface_hub import try_to_load_from_cache  # takes longer than all else of a plan

    cached = try_to_load_from_cache(hub[0], hub[2], revision=hub[1])
    return Path(cached) if isinstance(cached, str) else None


def _fetched(story: Storyboard, name: str, place: str, download: bool) -> Path:
    from huggingface_hub import hf_hub_download

    found = on_hub(name)
    assert found is not None, "planning has refused it"
    repository, revision, file = found
    try:
        return Path(hf_hub_download(repository, file, revision=revision, local_files_only=not download))
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        cure = f"hf download {repository} {file}{f' --revision {revision}' if revision else ''}"
        fact = f"is no file{_beside(story)}, and none of the hub's on this machine, nor to be had ({reason})"
        raise ModelError(f"{place}: {fact}; {cure}") from error
