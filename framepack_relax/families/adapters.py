"""LoRA that a board puts on its model: where the files are, and whose they are; no torch.

A file is looked for beside the storyboard, then as `owner/name/file.safetensors` in the folder named by the environment
variable FRAMEPACK_RELAX_WEIGHTS, then on the hub; `owner/name` stands for diffusers' pytorch_lora_weights.safetensors.
A model of the catalogue may come with some of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import ModelError, Problem
from ..storyboard import Storyboard
from ..storyboard.messages import printable
from ..storyboard.paths import path_cure, refusal
from ..storyboard.schema import Lora
from .base import Family
from .catalog import on_hub, weights_places
from .fingerprint import hash_of, told

EXPERTS = {"high": "transformer", "low": "transformer_2"}


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA that is on this machine."""

    place: str  # in the storyboard
    name: str  # as the storyboard calls it
    file: Path
    digest: str  # of its bytes
    scale: float
    network: str  # that it is put on

    @property
    def inputs(self) -> list[str | float]:
        """What of it decides what a section becomes."""
        return [self.digest, self.scale, self.network]

    @property
    def row(self) -> dict[str, str | float]:
        """Of report.json."""
        return {"file": self.name, "digest": self.digest, "scale": self.scale, "network": self.network}


def lora_problems(story: Storyboard, family: Family) -> Iterator[Problem]:
    """LoRA that this model cannot take, or that are nowhere."""
    for nth, lora in enumerate(story.lora or ()):
        experts = "transformer_2" in family.parts
        if "transformer" not in family.parts:
            yield Problem(
                path=f"lora[{nth}]", message=f"{family.name} has no weights, so it takes none; remove these lines"
            )
        elif experts and lora.expert is None:
            fact = f"{family.name} is of two transformers; write `expert: high` or `low`, a file for each"
            yield Problem(path=f"lora[{nth}]", message=fact)
        elif lora.expert and not experts:
            yield Problem(path=f"lora[{nth}].expert", message=f"{family.name} is of one transformer; remove the line")
        if (wrong := _wrong(story, lora)) is not None:
            yield Problem(path=f"lora[{nth}].file", message=f"{printable(lora.file)}{wrong}")


def find_adapters(story: Storyboard, family: Family, *, download: bool) -> tuple[Adapter, ...]:
    """The model's own LoRA, then the board's, fetched where need be. Raises ModelError."""
    own = [("model", lora) for lora in family.configured(story).lora]
    wanted = own + [(f"lora[{nth}].file", lora) for nth, lora in enumerate(story.lora or ())]
    if wanted and find_spec("peft") is None:
        fact = "LoRA need PEFT, which is not installed; pip install 'framepack-relax[lora]'"
        raise ModelError(str(story.located(Problem(path=wanted[0][0], message=fact))))
    return tuple(_found(story, path, lora, download) for path, lora in wanted)


def _found(story: Storyboard, path: str, lora: Lora, download: bool) -> Adapter:
    place = str(story.located(Problem(path=path, message=printable(lora.file))))
    file = next((file for file in _local(story, lora.file) if file.is_file()), None) or _fetched(lora, place, download)
    with told():
        digest = hash_of(file)
    network = EXPERTS[lora.expert or "high"]
    return Adapter(place=place, name=lora.file, file=file, digest=digest, scale=lora.scale, network=network)


def _wrong(story: Storyboard, lora: Lora) -> str | None:
    """What is wrong with where its file is; None where nothing is, or only the hub can say."""
    for file in _local(story, lora.file):
        try:
            wrong = refusal(file)
        except (OSError, ValueError):
            continue
        pickle = "" if file.suffix == ".safetensors" else "is no .safetensors file; convert it"
        return f": {wrong or pickle}" if wrong or pickle else None
    if on_hub(lora.file) is not None:
        return None
    there = story.resolve(lora.file).absolute()
    return f": no such file; it was looked for as {there}{path_cure(lora.file, there)}"


def _local(story: Storyboard, name: str) -> list[Path]:
    """Where it may lie on this machine."""
    hub = on_hub(name)
    return [story.resolve(name), *(weights_places("/".join(hub)) if hub else ())]


def _fetched(lora: Lora, place: str, download: bool) -> Path:
    from huggingface_hub import hf_hub_download

    found = on_hub(lora.file)
    assert found is not None, "planning has refused it"
    try:
        return Path(hf_hub_download(*found, local_files_only=not download))
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        cure = f"hf download {found[0]} {found[1]}"
        raise ModelError(f"{place}: not on this machine, and not to be had ({reason}); {cure}") from error
