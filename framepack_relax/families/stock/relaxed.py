"""The method on a diffusers pipeline as it is, without the loop of a render."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any

from ...errors import Problem, StoryboardError
from ...relax.effects import ASKING
from ...relax.profile import Relaxation, paper_profile
from ...storyboard import Relax
from ...storyboard.meanings import suggest
from ...storyboard.messages import printable
from ...storyboard.schema import Experimental
from .call import Call, attentions_of, disguised
from .kinds import PIPELINES, Kind, known_class

EFFECTS = ("kv_blur", "key_gain")  # that act in a pipeline (call.py)
SCOPES = ("section", "history", "reference", "all")
LOOP = "needs passes that a diffusers pipeline does not make; render with `framepack-relax render`"


@contextmanager
def relaxed(pipe: Any, *, intensity: float = 0.0, **relax: Any) -> Iterator[Any]:
    """Within the block a diffusers pipeline's calls are relaxed as a scene with this `relax`; gives the pipeline.

        with framepack_relax.relaxed(pipe, beta=0.75):
            video = pipe(prompt, guidance_scale=6.0).frames[0]

    `relax` are the fields of a storyboard's `relax`, `intensity` (0..1) is a scene's, by the paper's profile. s_base is
    the scale that the pipeline is called with, or its guider's. The default target is `embedded` where the transformer
    has such a scale, else `text`. What needs other passes (`context`, `lowpass`, `freeinit`) is refused. No weight is
    touched, and after the block, or an error in it, everything is as before; of nested blocks the inner one alone
    holds. Warns at the end of what did not act. Raises ModelError for other pipelines than `kinds.PIPELINES`,
    StoryboardError with every mistake in the settings.
    """
    known = known_class(pipe)
    kind = PIPELINES[known.__name__]
    relaxation = settings(pipe, kind, intensity, Relax(**relax))
    if relaxation.at_rest and not intensity and not {"beta", "blur", "history_gain"} & {*relax}:
        warnings.warn("relaxed: nothing is asked for; say beta=0.75, intensity=0.9 or blur=0.6", stacklevel=3)
    stock = getattr(type(pipe), "_stock", type(pipe))
    signature, acted = inspect.signature(stock.__call__), set[str]()
    own = [
        *inspect.signature(known.__call__).parameters.values(),
        *signature.parameters.values(),
    ]  # a subclass may pass on
    usual = {parameter.name: parameter.default for parameter in own if parameter.default is not parameter.empty}

    @wraps(stock.__call__)
    def call(pipe: Any, *args: Any, **kwargs: Any) -> Any:
        given = {**usual, **signature.bind(pipe, *args, **kwargs).arguments, **kwargs}
        acted.add("called")
        with Call(pipe=pipe, kind=kind, relaxation=relaxation, arguments=given, acted=acted).acting():
            return stock.__call__(pipe, *args, **kwargs)

    with disguised(pipe, stock, _stock=stock, **({} if relaxation.at_rest else {"__call__": call})):
        yield pipe
    for told in () if relaxation.at_rest else idle(kind, relaxation, acted):
        warnings.warn(f"relaxed: {told}", stacklevel=3)


def settings(pipe: Any, kind: Kind, intensity: float, relax: Relax) -> Relaxation:
    """The paper's profile at this intensity, overruled by what `relax` says. Raises StoryboardError."""
    if not isinstance(intensity, (int, float)) or not 0 <= intensity <= 1:
        raise StoryboardError([Problem(path="intensity", message=f"is {intensity}; write a number from 0 to 1")])
    terms = kind.terms(pipe)
    profile = paper_profile(embedded="embedded" in terms)
    made = replace(profile.relaxation(intensity), **relax.said)
    if problems := list(mistakes(pipe, kind, made, terms)):
        raise StoryboardError(problems)
    return made


def mistakes(pipe: Any, kind: Kind, relax: Relaxation, terms: tuple[str, ...]) -> Iterator[Problem]:
    """What this pipeline has not, or cannot do."""
    name = type(pipe).__name__
    for nth, target in enumerate(relax.target):
        if target == "context":
            yield Problem(path=f"target[{nth}]", message=f"context {LOOP}, or name {' or '.join(terms)}")
        elif target not in terms:
            message = f"{name} has no restraint {printable(target)}; {suggest(target, terms)}"
            yield Problem(path=f"target[{nth}]", message=message)
    for effect, (field, _) in ASKING.items():
        if effect not in EFFECTS and relax.asks(effect):
            inside = "experimental." if field in Experimental.model_fields else ""
            yield Problem(path=f"{inside}{field}", message=LOOP)
    if relax.scope not in SCOPES:
        message = f"{name} has no {printable(relax.scope)} to blur; {suggest(relax.scope, SCOPES)}"
        yield Problem(path="scope", message=message)
    if not kind.text and relax.beta and not one_scale(pipe.guider):
        message = f"{type(pipe.guider).__name__} has not one scale to relax; take ClassifierFreeGuidance"
        yield Problem(path="target", message=message)
    for field, acts in (("blur", relax.blur > 0), ("history_gain", relax.history_gain != 1)):
        if acts and any(attention.processor._parallel_config for attention in attentions_of(pipe.transformer)):
            yield Problem(path=field, message="needs whole sequences; take context parallelism off the transformer")


def one_scale(guider: Any) -> bool:
    return hasattr(guider, "guidance_scale") and not hasattr(guider, "adaptive_projected_guidance_scale")


def idle(kind: Kind, relax: Relaxation, acted: set[str]) -> Iterator[str]:
    """What was to act and did not, with the reason."""
    if "called" not in acted:
        yield "the pipeline was not called"
        return
    for target in relax.target if relax.beta else ():
        if target not in acted:
            argument = kind.embedded if target == "embedded" else kind.text or "its guider's guidance_scale"
            words = ", and a negative prompt" if kind.embedded and target == "text" else ""
            yield f"target {target} did nothing: the pipeline ran without it; it needs {argument} above 1{words}"
    if relax.blur > 0 and "blur" not in acted:
        yield f"blur did nothing: no pass had frames of scope {relax.scope}"
    if relax.history_gain != 1 and "history_gain" not in acted:
        yield f"history_gain did nothing: no pass had frames of gain_on {relax.gain_on}"
