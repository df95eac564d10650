"""One call of a diffusers pipeline, relaxed from outside: hooks on its transformers, its guider, its attention.

B batch, C latent channels, T latent frames, h and w latent height and width
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...errors import Problem, StoryboardError
from ...relax.guidance import relaxed_scale
from ...relax.profile import Relaxation
from ..attention import AttentionEdit, attention_edit, processors
from ..flow import times
from .kinds import Arguments, Kind

FLOOR = 1.0  # s_min of both terms


@contextmanager
def disguised(thing: Any, stock: type, **members: Any) -> Iterator[None]:
    """Within the block `thing` is of a subclass of `stock`, of the same name, that has these members."""
    before = type(thing)
    thing.__class__ = type(stock.__name__, (stock,), {"__module__": stock.__module__, **members})
    try:
        yield
    finally:
        thing.__class__ = before


@dataclass(kw_only=True)
class Call:
    """What becomes of the passes of one call, which began with these arguments.

    A step's second pass is known by having the timestep, the very tensor, of the pass before it.
    """

    pipe: Any
    kind: Kind
    relaxation: Relaxation
    arguments: Arguments
    acted: set[str]  # targets and fields of `relax`, as they come to act
    processors: list[Any] = field(default_factory=list, init=False)
    before: tuple[Tensor, Tensor] | None = field(default=None, init=False)  # timestep and output of the pass before

    @contextmanager
    def acting(self) -> Iterator[None]:
        """The call is made within the block. Raises StoryboardError."""
        transformers = [self.pipe.transformer, getattr(self.pipe, "transformer_2", None)]
        with ExitStack() as stack:
            for nth, transformer in enumerate(transformers):
                if transformer is not None:
                    self._hook(stack, transformer, second=nth == 1)
            if not self.kind.text and "text" in self._bases():
                self._guide(stack, self.pipe.guider)
            yield

    @property
    def targets(self) -> tuple[str, ...]:
        return self.relaxation.target if self.relaxation.beta else ()

    def _hook(self, stack: ExitStack, transformer: Any, *, second: bool) -> None:
        bases = self._bases(second=second)
        before = partial(self._before, bases)
        stack.callback(transformer.register_forward_pre_hook(before, with_kwargs=True).remove)
        if self.kind.text and "text" in bases:
            after = partial(self._after, bases["text"])
            stack.callback(transformer.register_forward_hook(after, with_kwargs=True).remove)
        if (self.relaxation.blur, self.relaxation.history_gain) != (0, 1):
            attentions = attentions_of(transformer)
            stack.enter_context(processors(attentions, partial(self.kind.processor, AttentionEdit())))
            self.processors += [attention.processor for attention in attentions]

    def _bases(self, *, second: bool = False) -> dict[str, float]:
        """Of the targets those scales that are above s_min, as the pipeline is called. Raises StoryboardError."""
        bases = {term: self.kind.scale(self.pipe, term, self.arguments, second=second) for term in self.targets}
        for term, base in bases.items():
            lowest = 1 if term == "text" else 0
            if base > 1 and not lowest <= self.minimum <= base:
                allowed = f"it must be between {lowest} and the scale {base:g} of the pipeline's call"
                raise StoryboardError(
                    [Problem(path="min", message=f"is {self.minimum:g}; for target {term} {allowed}")]
                )
        return {term: base for term, base in bases.items() if base > self.minimum}

    @property
    def minimum(self) -> float:
        return FLOOR if self.relaxation.min is None else self.relaxation.min

    def _guide(self, stack: ExitStack, guider: Any) -> None:
        """The guider reads its scale when it combines a step's passes; between calls it is what it was."""
        base, own, stock = self._bases()["text"], guider.guidance_scale, type(guider)

        def set_state(guider: Any, step: int, num_inference_steps: int, timestep: Tensor) -> None:
            stock.set_state(guider, step, num_inference_steps, timestep)
            guider.guidance_scale = own
            self.acted |= {"text"} if guider.num_conditions > 1 else set()
            guider.guidance_scale = self.scale(base, timestep.max()).item() - (base - own)

        stack.enter_context(disguised(guider, stock, set_state=set_state))
        stack.callback(setattr, guider, "guidance_scale", own)

    def at(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """The sigmas of timesteps and what stands for sigma^p there, both of their shape, float64 on the CPU."""
        scheduler, relax = self.pipe.scheduler, self.relaxation
        known = scheduler.timesteps.cpu().double()
        sigmas = scheduler.sigmas[: len(known)].tolist()
        at = sigmas if relax.coord == "sigma" else times(len(sigmas)).tolist()
        weights = relax.weights(at, sigmas)
        index = (timestep.cpu().double()[..., None] - known).abs().argmin(dim=-1)
        return tuple(torch.tensor(column, dtype=torch.float64)[index] for column in (sigmas, weights))  # type: ignore

    def scale(self, base: float, timestep: Tensor) -> Tensor:
        """Eq. 2 at timesteps, of their shape, float64 on the CPU."""
        _, weights = self.at(timestep)
        eq2 = partial(relaxed_scale, base=base, minimum=self.minimum, beta=self.relaxation.beta)
        return torch.tensor([eq2(weight) for weight in weights.flatten().tolist()]).double().reshape(weights.shape)

    def _before(self, bases: Mapping[str, float], transformer: Any, args: tuple, given: dict[str, Any]) -> Any:
        """Pre-hook: attention is edited as this step asks for, the embedded scale written anew."""
        highest = given["timestep"].max()
        if self.processors:
            self._edit(self.kind.layout(transformer.config, given), self.at(highest)[0].item())
        if "embedded" not in bases or given.get("guidance") is None:
            return None
        self.acted.add("embedded")
        scale = self.scale(bases["embedded"], highest).item()
        return args, {**given, "guidance": torch.full_like(given["guidance"], scale) * 1000.0}  # as the pipelines do

    def _edit(self, segments: Any, sigma: float) -> None:
        edit = attention_edit(self.relaxation.effects(sigma), segments) or AttentionEdit()
        self.acted |= {name for name, done in (("blur", edit.blur), ("history_gain", edit.bias)) if done}
        for processor in self.processors:
            processor.edit = edit

    def _after(self, base: float, transformer: Any, args: tuple, given: dict[str, Any], output: Any) -> Any:
        """Forward hook: u' = c - (s - 1) / (S - 1) (c - u), of which the pipeline, at its scale S, makes u + s (c - u).

        In float32; in a narrower type the rounding of u' counts S - 1 times, as that of u does at rest.
        """
        timestep: Tensor = given["timestep"]
        before, self.before = self.before, (timestep, output[0])
        if before is None or before[0] is not timestep:
            return None
        cond, self.before = before[1].float(), None
        self.acted.add("text")
        scale = self.scale(base, timestep if self.kind.by_frame else timestep.max())
        share = (scale - 1) / (base - 1)
        if bool((share == 1).all()):
            return None
        share = share.to(cond.device, cond.dtype)
        share = share[:, None, :, None, None] if self.kind.by_frame else share
        return (cond - share * (cond - output[0].float())).to(output[0].dtype), *output[1:]


def attentions_of(transformer: Any) -> list[Any]:
    """Self-attentions over video tokens."""
    stacks = ("blocks", "transformer_blocks", "single_transformer_blocks")
    blocks = [block for name in stacks for block in getattr(transformer, name, ())]
    return [block.attn1 if hasattr(block, "attn1") else block.attn for block in blocks]
