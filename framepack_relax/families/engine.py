"""How passes are computed where that is not left to PyTorch: kernels, compilation; what excludes what. No torch.

Both change a film's last bits, or more, as another device does: they are provenance and no part of a key.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import ModelError
from ..storyboard.meanings import suggest

# diffusers' names; whether a kernel takes a mask, or weights of keys. Kernels of the hub are code: they are not fetched
ATTENTION = {
    "native": True,  # PyTorch's own choice
    "_native_cudnn": True,
    "_native_efficient": True,
    "_native_math": True,
    "_native_flash": False,
    "flash": False,
    "_flash_3": False,
    "sage": False,
    "xformers": True,
}
TAKING = " or ".join(name for name, takes in ATTENTION.items() if takes and name[0] != "_")


class Engine(Protocol):
    """A model, loaded or to be loaded, as far as its engine is concerned."""

    @property
    def attention(self) -> str | None: ...
    @property
    def compile(self) -> bool: ...
    @property
    def family(self) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """Two things that do not go together: why, and what to do."""

    these: tuple[str, str]
    why: str
    found: Callable[[Engine, Collection[str]], bool]  # in a model, and the kinds of effects of a film


EXCLUSIONS = (
    Exclusion(
        these=("attention", "history_gain"),
        why=f"its kernels take no weights of keys; use attention={TAKING}, or remove history_gain",
        found=lambda model, kinds: "key_gain" in kinds and not ATTENTION[model.attention or "native"],
    ),
    Exclusion(
        these=("attention", "this model"),
        why=f"its kernels take no mask, and the model masks its text; use attention={TAKING}",
        found=lambda model, kinds: model.family.masks and not ATTENTION[model.attention or "native"],
    ),
    Exclusion(
        these=("compile", "several ranks"),
        why="what is compiled holds no exchange between them; leave compile out",
        found=lambda model, kinds: model.compile and bool(getattr(model, "ranks", None) not in (None, 1)),
    ),
)


def excluded(model: Engine, kinds: Collection[str]) -> Iterator[str]:
    """What of a model's engine does not go with a film of these kinds of effects."""
    for rule in EXCLUSIONS:
        if rule.found(model, kinds):
            said = f"attention={model.attention}" if rule.these[0] == "attention" else rule.these[0]
            yield f"{said} does not go with {rule.these[1]}: {rule.why}"


def check_attention(name: str | None) -> None:
    """Raises ModelError for kernels that are not known."""
    if name is not None and name not in ATTENTION:
        raise ModelError(f"attention={name}: unknown; {suggest(name, list(ATTENTION))}")


def engine_of(model: Engine) -> dict[str, Any]:
    """What is told of it beside a film, where it is not the usual one."""
    said = {"attention": model.attention, "compile": model.compile or None}
    return {name: value for name, value in said.items() if value is not None}
