"""framepack-relax: storyboards to FramePack video, with a motion knob.

    import framepack_relax as fr
    film = fr.render("storyboards/backflip.yaml", out="out")
    print(film.path)

Names are imported when they are used: reading and planning a storyboard needs no torch.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .api import evaluate, load, plan, read, render, restore, status, stream, sweep
    from .errors import EvaluationError, ModelError, RelaxError, RenderError, StoryboardError
    from .storyboard import Guidance, Relax, Scene, Storyboard

_HOMES = {
    **dict.fromkeys(("evaluate", "load", "plan", "read", "render", "restore", "status", "stream", "sweep"), "api"),
    **dict.fromkeys(("EvaluationError", "ModelError", "RelaxError", "RenderError", "StoryboardError"), "errors"),
    **dict.fromkeys(("Guidance", "Relax", "Scene", "Storyboard"), "storyboard"),
}

__all__ = [
    "EvaluationError",
    "Guidance",
    "ModelError",
    "Relax",
    "RelaxError",
    "RenderError",
    "Scene",
    "Storyboard",
    "StoryboardError",
    "__version__",
    "evaluate",
    "load",
    "plan",
    "read",
    "render",
    "restore",
    "status",
    "stream",
    "sweep",
]


class _Package(ModuleType):
    """Keeps `fr.plan` and `fr.render` the functions when the rooms of the same names are imported later."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"framepack_relax has no {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
