"""framepack-relax: storyboards to FramePack video, with a motion knob.

    import framepack_relax as fr
    film = fr.render("storyboards/backflip.yaml", out="out")
    print(film.path)

Names are imported when they are used: reading and planning a storyboard needs no torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .api import (
        batch,
        batch_plan,
        cancel,
        evaluate,
        export_timeline,
        fit_prompts,
        import_board,
        ledger,
        load,
        memory,
        pace,
        pick,
        plan,
        preview,
        read,
        render,
        restore,
        status,
        stream,
        suggest,
        sweep,
        sweep_plan,
        take,
    )
    from .errors import EvaluationError, FilmError, ModelError, RelaxError, RenderError, StoryboardError
    from .families.stock.relaxed import relaxed
    from .farm.engines import Workers
    from .storyboard import Guidance, Relax, Scene, Storyboard

__all__ = ["__version__"]
__all__ += ["batch", "batch_plan", "cancel", "evaluate", "ledger", "load", "memory", "plan", "preview", "read"]
__all__ += ["Workers", "export_timeline", "fit_prompts", "import_board", "pace", "pick", "publish", "relaxed"]
__all__ += ["render", "restore", "status", "stream", "suggest", "sweep", "sweep_plan", "take"]
__all__ += ["EvaluationError", "FilmError", "ModelError", "RelaxError", "RenderError", "StoryboardError"]
__all__ += ["Guidance", "Relax", "Scene", "Storyboard"]


STOCK = "families.stock.relaxed"  # the only home that imports torch


class _Package(ModuleType):
    """Keeps `fr.evaluate` the function when the room of the same name is imported later."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"framepack_relax has no {name!r}")
    homes = (import_module(f".{home}", __name__) for home in ("errors", "storyboard", "api", "farm.engines", STOCK))
    return next(getattr(home, name) for home in homes if hasattr(home, name))
