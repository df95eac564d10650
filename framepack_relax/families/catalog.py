"""Where a model's parts come from, found on disk or fetched from the hub; no torch.

A name is `puppet`, `framepack-f1`, `framepack`, a diffusers folder, or a hub id. The folder named by the environment
variable FRAMEPACK_RELAX_WEIGHTS, if set, is looked into first: it holds repositories as `owner/name/...`.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import RootModel

from ..errors import ModelError
from ..relax.profile import Profile
from ..storyboard.fields import Expert, Order, Past
from ..storyboard.meanings import suggest
from ..storyboard.messages import printable
from ..storyboard.paths import KINDS, expand, not_a_file, path_cure
from ..storyboard.schema import Lora
from .base import Family
from .configs import SIDECAR, NetworkConfig, PartKinds, Sidecar, check_configs, read_json
from .fake import Fake
from .fingerprint import READ, Stamp, fingerprint, stamp_of, told
from .flow import FlowShift
from .framepack.family import FramePack
from .helios.family import Helios
from .hunyuan_video.family import HunyuanVideo
from .wan.family import CARRIED, Wan, WanI2V, WanTI2V
from .weights import WEIGHTS, single_file

WEIGHTS_VARIABLE = "FRAMEPACK_RELAX_WEIGHTS"
FIGURES = "figures.json"  # of a model folder: what scripts/training/measure.py measured
SCHEDULER = Path("scheduler", "scheduler_config.json")
PUPPET = Path(__file__).parents[1] / "puppet"
KINDS_OF: tuple[type[Family], ...] = (FramePack, HunyuanVideo, Wan, Helios)  # that a folder may be of
FAMILIES = {family.kind: family for family in KINDS_OF}
NETWORKS: Mapping[str, type[Family]] = {  # that need no sidecar: nothing is left open
    "HunyuanVideoTransformer3DModel": HunyuanVideo,
    "WanTransformer3DModel": Wan,
    "HeliosTransformer3DModel": Helios,
}
HUNYUAN, REDUX = "hunyuanvideo-community/HunyuanVideo", "lllyasviel/flux_redux_bfl"
LORA = "pytorch_lora_weights.safetensors"  # where a repository of LoRA names no file
HUB = re.compile(  # id, revision, file
    r"(\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?)(?:@(\w[\w.-]*))?(?:/([^\\\x00-\x1f]+\.safetensors))?", re.ASCII
)
NO_ID = re.compile(r"--|\.\.|\.git$|\.safetensors$|^.{97}")  # the most are of the hub's client
BFLOAT16 = 69.0  # gigabytes of A14B if it lies in that, by count: its files were not seen
LARGEST = 256 << 20  # bytes, of vocabularies and configs
Wanted = Mapping[str, set[str]]  # patterns of files, by repository
TENCENT = "Tencent Hunyuan Community licence: not for use in the European Union, the United Kingdom and South Korea"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model known by name: repository and subfolder of each part ("" is the repository's root)."""

    name: str
    about: str = ""
    gigabytes: float = 0.0  # 0: not known
    licence: str = "see its model card"
    repository: str  # of what `parts` does not name, each in a subfolder of its name
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    family: Family | None = None  # None: as the folder says

    def place(self, part: str) -> tuple[str, str]:
        return self.parts.get(part, (self.repository, part))

    @property
    def places(self) -> dict[str, tuple[str, str]]:
        """Of every part; empty where only the folder says which there are."""
        return {part: self.place(part) for part in (self.family.parts if self.family else ())}

    @property
    def repositories(self) -> tuple[str, ...]:
        """Of its parts, and of the LoRA that it comes with."""
        loras = (on_hub(lora.file) for lora in (self.family.lora if self.family else ()))
        return tuple(
            dict.fromkeys([place for place, _ in self.places.values()] + [found[0] for found in loras if found])
        )


def _framepack(name: str, repository: str, order: Order, about: str) -> Entry:
    parts = {"transformer": (repository, ""), **{p: (REDUX, p) for p in ("image_encoder", "feature_extractor")}}
    return Entry(
        name=name, about=about, gigabytes=43.0, licence=TENCENT, repository=HUNYUAN, parts=parts,
        family=FramePack(name=name, order=order, embedded=10.0),
    )  # fmt: skip


def _svi(past: Past, version: str, about: str) -> Entry:
    """Wan 2.2 I2V with a pair of Stable Video Infinity's LoRA."""
    file = "vita-video-gen/svi-model/version-2.0/SVI_Wan2.2-I2V-A14B_{}_noise_lora_{}.safetensors"
    pair = tuple(Lora(file=file.format(expert, version), expert=expert) for expert in get_args(Expert))
    return Entry(
        name=f"wan2.2-{past}", about=about, gigabytes=BFLOAT16, licence="Apache-2.0; of the LoRA see their model card",
        repository="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        family=WanI2V(name=f"wan2.2-{past}", past=past, carry=CARRIED[past], lora=pair),
    )  # fmt: skip


ENTRIES = (
    Entry(
        name="puppet", gigabytes=0.03, licence="Apache-2.0", repository=str(PUPPET),
        about="the packaged paper-doll model: 96x96, runs on two CPU cores",
    ),
    _framepack(
        "framepack-f1", "lllyasviel/FramePack_F1_I2V_HY_20250503", "forward",
        "FramePack-F1, 13B: forward order, the choice for storyboards",
    ),
    _framepack(
        "framepack", "lllyasviel/FramePackI2V_HY", "inverted",
        "the original FramePack, 13B: renders the last section first",
    ),
    Entry(
        name="hunyuanvideo", gigabytes=42.0, licence=TENCENT, repository=HUNYUAN,
        about="HunyuanVideo, 13B, text to one clip a scene: the model of the paper's experiments",
        family=HunyuanVideo(name="hunyuanvideo"),
    ),
    Entry(
        name="wan2.2-5b", gigabytes=34.0, licence="Apache-2.0", repository="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        about="Wan 2.2 TI2V, 5B: goes on from its last frame, from an image, or from words; 24 fps",
        family=WanTI2V(name="wan2.2-5b"),
    ),
    Entry(
        name="wan2.2-a14b", gigabytes=BFLOAT16, licence="Apache-2.0", repository="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        about="Wan 2.2 I2V, two experts of 14B: an image to film, from clip to clip by the last frame; 16 fps",
        family=WanI2V(name="wan2.2-a14b"),
    ),
    _svi("svi-pro", "v2.0_pro", "Wan 2.2 I2V with SVI 2.0 Pro: sees the start image and the last latent frame"),
    _svi("svi", "v2.0", "Wan 2.2 I2V with SVI 2.0: sees the last frame, and the start image for all others"),
    Entry(
        name="wan2.1-1.3b", gigabytes=29.0, licence="Apache-2.0", repository="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        about="Wan 2.1 T2V, 1.3B: text to one clip a scene of at most 81 frames; 16 fps",
        family=Wan(name="wan2.1-1.3b"),
    ),
    Entry(
        name="helios", gigabytes=40.0, licence="Apache-2.0", repository="BestWishYsh/Helios-Base",
        about="Helios-Base, 14B: words or an image, true CFG, FramePack's history", family=Helios(name="helios"),
    ),
    Entry(
        name="fake", licence="Apache-2.0", repository="", family=Fake(name="fake"),
        about="no model: arithmetic that renders at once, to try a storyboard or a farm",
    ),
)  # fmt: skip
CATALOG = {entry.name: entry for entry in ENTRIES}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model's parts as local folders, and the sizes and times of their files when they were found."""

    name: str
    parts: Mapping[str, Path]
    kinds: PartKinds
    stamp: Stamp

    def fingerprint(self) -> str:
        """Of its files, if they are still those that were found. Raises ModelError."""
        made = fingerprint(self.parts)
        self.check()
        return made

    def check(self) -> None:
        """Raises ModelError where the files are others than those that were found, or gone."""
        if stamp_of(self.parts) != self.stamp:
            raise ModelError(f"{self.name}: its files have changed since it was loaded; load it again")


def entry_of(name: str) -> Entry:
    """The catalogue's entry, or one made up for a folder or a hub id."""
    if name in CATALOG:
        return CATALOG[name]
    if os.path.isdir(owner := os.path.dirname(expand(name))) and not os.access(owner, os.X_OK):
        raise ModelError(f"{owner}: cannot be read (Permission denied); mend that")
    # os.path takes names of any length
    cure = path_cure(name)
    if os.path.isdir(expand(name)) or (
        name.count("/") == 1 and not os.path.exists(name) and name[0] not in "./~" and not cure
    ):
        return Entry(name=name, repository=name)
    known = ", ".join([*CATALOG, "a folder in diffusers format, or a hub id owner/name"])
    raise ModelError(f"{name}: no such model{cure}; known are {known}")


def find_family(name: str) -> Family:
    """What a plan must know; for a hub id its sidecar and scheduler config are fetched, weights are not.

    A model of the catalogue takes its calibrated profile from a sidecar in WEIGHTS/<owner>/<name of the transformer>;
    not where it comes with LoRA, for then it is another model.
    """
    entry = entry_of(name)
    repository = entry.place("transformer")[0]
    if entry.family is not None:
        places = () if entry.family.lora else weights_places(repository)
        file = next((place / SIDECAR for place in places if (place / SIDECAR).is_file()), None)
        found = _calibrated(entry.family, file, read_json(Sidecar, file).profile) if file else entry.family
        return _scheduled(found, repository) if found.shift is None and found.parts else found
    wanted = {repository: {SIDECAR, "model_index.json", "scheduler/*", "transformer/config.json"}}
    return replace(read_family(_folders(name, wanted, advised={repository: {"*"}})[repository]), name=name)


def read_family(folder: Path) -> Family:
    """Of a diffusers folder: from its sidecar, or from its transformer where that says all. Raises ModelError."""
    file = folder / SIDECAR
    if file.is_file():
        kind = str(read_json(Said, file).root.get("family") or FramePack.kind)
        if kind not in FAMILIES:
            raise ModelError(f"{file}: family: {printable(kind)} is unknown; {suggest(kind, list(FAMILIES))}")
        family = FAMILIES[kind]
        made = family.read(str(folder), read_json(family.sidecar, file), _shift(folder, family))
        return _calibrated(made, file, made.profile)
    config = folder / "transformer" / "config.json"
    network = str(read_json(Said, config).root.get("_class_name")) if config.is_file() else ""
    if network in NETWORKS:
        return NETWORKS[network].read(str(folder), Sidecar(), _shift(folder, NETWORKS[network]))
    raise ModelError(
        f"{folder}: has no {SIDECAR}, so it is unknown whether the model renders forward or inverted; "
        f'write one, for example {{"order": "forward", "fps": 30, "guidance": {{"embedded": 10.0, "text": 1.0}}, '
        '"embedded_guidance": true}'
    )


def _shift(folder: Path, family: Family | type[Family]) -> FlowShift:
    return read_json(family.scheduler, folder / SCHEDULER)


def _scheduled(family: Family, repository: str) -> Family:
    """With its noise levels read, unless that file cannot be had. Raises ModelError for mistakes in it."""
    try:
        folder = _folders(family.name, {repository: {"scheduler/*"}})[repository]
    except ModelError:
        return family
    return replace(family, shift=_shift(folder, family)) if (folder / SCHEDULER).exists() else family


def _calibrated(family: Family, file: Path, profile: Profile | None) -> Family:
    """With the profile that its sidecar holds. Raises ModelError where that asks for what the family has not."""
    if problems := [*family.profile_problems(profile)] if profile is not None else ():
        raise ModelError("\n".join(f"{file}: profile.{problem}" for problem in problems))
    return replace(family, profile=profile)


def find(name: str, *, download: bool = True) -> Source:
    """Every part of a model as a local folder; ModelError lists exactly what is missing and how to get it."""
    entry = entry_of(name)
    kinds = (entry.family or find_family(name)).parts
    wanted: dict[str, set[str]] = {}
    for repository, subfolder in map(entry.place, kinds):
        wanted.setdefault(repository, set()).add(f"{subfolder}/*" if subfolder else "*")
    if entry.family and entry.family.unread:
        wanted[entry.repository].add("scheduler/*")
    own = [on_hub(lora.file) for lora in (entry.family.lora if entry.family else ())]
    for repository, _, file in filter(None, own):
        wanted.setdefault(repository, set()).add(file)
    folders = _folders(name, wanted, download=download)
    parts = {part: folders[repository] / subfolder for part in kinds for repository, subfolder in [entry.place(part)]}
    if entry.family and entry.family.unread:
        _shift(folders[entry.repository], entry.family)
    for part, folder in parts.items():
        _check_part(part, folder)
    check_configs(parts, kinds)
    return Source(name=name, parts=parts, kinds=kinds, stamp=stamp_of(parts))


def find_checkpoint(name: str) -> Path:
    """A single network as a local folder, by folder or hub id; ModelError says how to get it."""
    if not os.path.isdir(name) and (name.count("/") != 1 or name[0] in "/.~"):
        raise ModelError(f"{name}: no such folder; name a folder, or a hub id owner/name")
    folder = _folders(name, {name: {"*.json", "*.safetensors", "*.txt"}})[name]
    _check_part("network", folder)
    read_json(NetworkConfig, folder / NetworkConfig.file)
    return folder


def what_is_missing(name: str) -> str:
    """What is not on this machine, and how to get it; empty if every part is there without a download."""
    try:
        find(name, download=False)
    except ModelError as error:
        return str(error)
    return ""


def _folders(name: str, wanted: Wanted, *, download: bool = True, advised: Wanted | None = None) -> dict[str, Path]:
    """Local folders of repositories, what is missing downloaded first; ModelError where that cannot be."""
    from huggingface_hub import snapshot_download  # takes longer than all else of a plan
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    folders, reasons = {}, {}
    for repository, files in wanted.items():
        try:
            there = next((place for place in weights_places(repository) if os.path.isdir(place)), None)
            options: Any = {"allow_patterns": sorted(files), "local_files_only": not download}
            folders[repository] = there or Path(snapshot_download(repository, **options))
        except (LocalEntryNotFoundError, RepositoryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
            reasons[repository] = (str(error).strip().splitlines() or [repr(error)])[0]
    if reasons:
        raise ModelError(_advice(name, advised or wanted, reasons if download else dict.fromkeys(reasons, "")))
    return folders


def weights_places(repository: str) -> list[Path]:
    """Where a repository may lie as a folder, or a file of it."""
    return [Path(root, expand(repository)) for root in (os.environ.get(WEIGHTS_VARIABLE, ""), "")]


def on_hub(lora: str) -> tuple[str, str | None, str] | None:
    """Repository, revision and file of a LoRA, if the hub may have it by this name."""
    found = HUB.fullmatch(lora)
    if not found or NO_ID.search(found[1]) or {"", ".", ".."} & {*(found[3] or LORA).split("/")}:
        return None
    return found[1], found[2], found[3] or LORA


def _check_part(part: str, folder: Path) -> None:
    """A part without weights, or with weights that are pickles, is refused by name."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: is missing; a model folder in diffusers format has a {part} folder")
    _check_files(folder)
    if part.startswith(("tokenizer", "feature")):
        return
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: has no config.json; the {part} is incomplete")
    if part.startswith("transformer") and single_file(folder):
        return
    if not any(folder.glob("*.safetensors")):
        pickles = [file.name for file in folder.iterdir() if file.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
        fact = f"only {pickles[0]}, a pickle, which is never loaded" if pickles else "no weights (*.safetensors)"
        raise ModelError(f"{folder}: has {fact}; convert or download the {part} as safetensors")


@told()
def _check_files(folder: Path) -> None:
    """Only regular files that can be read. Raises ModelError."""
    for file in sorted(folder.iterdir()):
        kind = not_a_file(file)
        if kind == KINDS[stat.S_IFDIR] and file.suffix not in READ:
            continue
        if kind:
            raise ModelError(f"{file}: is {kind}, where a file is wanted; remove it")
        if file.name == "adapter_config.json":
            fact = "names another model, which an adapter is for"
            raise ModelError(f"{file}: {fact}; merge the adapter, and remove this file")
        if file.suffix in READ:
            file.open("rb").close()
            if file.suffix not in WEIGHTS and file.stat().st_size > LARGEST:
                raise ModelError(f"{file}: is larger than {LARGEST >> 20} MiB; no such file of a model is")


def _advice(name: str, wanted: Wanted, reasons: Mapping[str, str]) -> str:
    """What to download and where it will be looked for; `reasons`, by repository, why a download failed."""
    failed = " and could not be downloaded" if any(reasons.values()) else ""
    lines = [f"{name}: not on this machine{failed}. Where there is a network:"]
    for repository, reason in reasons.items():
        include = " ".join(f"--include '{pattern}'" for pattern in sorted(wanted[repository]) if pattern != "*")
        lines.append(f"  {repository}: {reason}".rstrip(": "))
        lines.append(f"    hf download {repository} {include}".rstrip())
    place = f"with --local-dir into WEIGHTS/<owner>/<name> and set {WEIGHTS_VARIABLE}=WEIGHTS"
    lines.append(f"into the hub's cache, or {place}")
    if name in CATALOG:
        size = f"{CATALOG[name].gigabytes:g} GB in all; " if CATALOG[name].gigabytes else ""
        lines.append(f"({size}{CATALOG[name].licence})")
    return "\n".join(lines)


class Said(RootModel[dict[str, Any]]):
    """A JSON file of which only that is known."""


def card(name: str) -> dict[str, object]:
    """What `framepack-relax models NAME` prints of a model with a sidecar: its contents, and the figures measured.

    Raises ModelError with the mistakes of a file.
    """
    folder = expand(entry_of(name).place("transformer")[0])
    if (folder / SIDECAR).is_file():
        read_json(Sidecar, folder / SIDECAR)
    files = [file for file in (folder / SIDECAR, folder / FIGURES) if file.is_file()]
    said = {key: value for file in files for key, value in read_json(Said, file).root.items()}
    if profile := said.get("profile"):  # without what justifies it: RESULTS.md is easier to read
        said["profile"] = {key: value for key, value in profile.items() if key != "figures"}
    return said
