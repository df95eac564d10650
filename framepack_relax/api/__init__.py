"""The Python API: calls take a storyboard file, a Storyboard, or a list of scenes; rooms are entered when used."""

from .exchange import export_timeline, import_board, publish
from .films import OnNan, load, memory, plan, preview, read, render, restore, status, stream, suggest
from .many import batch, batch_plan, cancel, ledger, workers
from .measure import evaluate, fit_prompts, pace, sweep, sweep_plan
from .paths import folder_for, meant, output_folder
from .takes import pick, take

__all__ = ["OnNan", "batch", "batch_plan", "cancel", "evaluate", "folder_for", "ledger", "load", "meant", "memory"]
__all__ += ["output_folder", "pace", "pick", "plan", "preview", "read", "render", "restore", "status", "stream"]
__all__ += [
    "export_timeline",
    "fit_prompts",
    "import_board",
    "publish",
    "suggest",
    "sweep",
    "sweep_plan",
    "take",
    "workers",
]
