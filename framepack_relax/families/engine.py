"""How passes are computed where that is not left to PyTorch: kernels, compilation; what excludes what. No torch.

Both change a film's last bits, or more, as another device does: they are provenance and no part of a key.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from ..errors import ModelError
from ..storyboard.meanings import suggest

STORED = {"fp8": "torch", "int8": "torchao"}  # in which weights lie, to be bfloat16 for their turn; the packages
HALF = ("bfloat16", *STORED)
ANY = ("float32", *HALF)


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """Whether they take a mask, or weights of keys; the dtypes that they take on each device; their package."""

    masks: bool = True
    cpu: tuple[str, ...] = ()
    cuda: tuple[str, ...] = ANY
    package: str = "torch"

    @property
    def taken(self) -> str:
        """In words."""
        kinds = {"cpu": self.cpu, "cuda": self.cuda}
        return ", or ".join(f"{kind} in {' or '.join(dtypes)}" for kind, dtypes in kinds.items() if dtypes)


# by diffusers' names; kernels of the hub are code: they are not fetched
ATTENTION = {
    "native": Kernels(cpu=ANY),  # PyTorch's own choice
    "_native_cudnn": Kernels(cuda=HALF),
    "_native_efficient": Kernels(),
    "_native_math": Kernels(cpu=ANY),
    "_native_flash": Kernels(masks=False, cpu=ANY, cuda=HALF),
    "flash": Kernels(masks=False, cuda=HALF, package="flash_attn"),
    "_flash_3": Kernels(masks=False, cuda=HALF, package="flash_attn_interface"),
    "sage": Kernels(masks=False, cuda=HALF, package="sageattention"),
    "xformers": Kernels(package="xformers"),
}
TAKING = " or ".join(name for name, kernels in ATTENTION.items() if kernels.masks and name[0] != "_")


class Engine(Protocol):
    """A model, loaded or to be loaded, as far as its engine is concerned."""

    @property
    def attention(self) -> str | None: ...
    @property
    def compile(self) -> bool: ...
    @property
    def kind(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def memory(self) -> str: ...
    @property
    def compiled(self) -> bool | None: ...
    @property
    def family(self) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """Two things that do not go together, the second of a {model}: why, by the {kernels}, and what to do."""

    these: tuple[str, str]
    why: str
    found: Callable[[Engine, Collection[str]], bool]  # in a model, and the kinds of effects of a film


EXCLUSIONS = (
    Exclusion(
        these=("attention", "history_gain"),
        why=f"its kernels take no weights of keys; use attention={TAKING}, or remove history_gain",
        found=lambda model, kinds: "key_gain" in kinds and not kernels_of(model).masks,
    ),
    Exclusion(
        these=("attention", "emphasis"),
        why=f"its kernels take no weights of keys; use attention={TAKING}, or remove emphasis",
        found=lambda model, kinds: "word_gain" in kinds and not kernels_of(model).masks,
    ),
    Exclusion(
        these=("attention", "this model"),
        why=f"its kernels take no mask, and the model masks its text; use attention={TAKING}",
        found=lambda model, kinds: model.family.masks and not kernels_of(model).masks,
    ),
    Exclusion(
        these=("attention", "{model.kind} in {model.precision}"),
        why="its kernels take {kernels.taken}; use that, or attention=native",
        found=lambda model, kinds: (
            model.attention not in (None, "native")
            and model.precision.removeprefix("torch.") not in getattr(kernels_of(model), model.kind)
        ),
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
            told = f"{said} does not go with {rule.these[1]}: {rule.why}"
            yield told.format(model=model, kernels=kernels_of(model)).replace("torch.", "")


def check_together(model: Engine, kinds: Collection[str]) -> None:
    """Raises ModelError with all that does not go with a film of these kinds of effects."""
    if wrong := list(excluded(model, kinds)):
        raise ModelError("; ".join(wrong))


def left_out(model: Engine) -> Iterator[str]:
    """What is asked of a model's engine and does not happen."""
    if model.compile and model.compiled is False:
        yield "compile: weights that lie in fp8 or int8, or come for their turn, are not compiled"


def kernels_of(model: Engine) -> Kernels:
    return ATTENTION[model.attention or "native"]


def check_attention(name: str | None, *, away: bool) -> None:
    """Raises ModelError for kernels that are not known, or not installed here unless they work `away`."""
    if name is None:
        return
    if not isinstance(name, str) or name not in ATTENTION:
        raise ModelError(f"attention={name}: unknown; {suggest(str(name), list(ATTENTION))}")
    if not (away or find_spec(package := ATTENTION[name].package)):
        raise ModelError(f"attention={name}: {package} is not installed; install it, or use attention=native")


def engine_of(model: Engine) -> dict[str, Any]:
    """What is told of it beside a film, where it is not the usual one; None for what is not known yet."""
    said = {"attention": model.attention or "native", "compile": model.compiled}
    return {name: value for name, value in said.items() if value not in ("native", False)}


def will_compile(model: Engine) -> bool | None:
    """Whether blocks of a model that is not placed will be compiled; None where it depends on how much of it fits."""
    if not model.compile or model.precision in STORED or model.memory == "offload":  # hooks are no part of a graph
        return False
    stays = model.memory in ("full", "tiled") or (model.memory == "auto" and model.kind == "cpu")
    return True if stays else None
