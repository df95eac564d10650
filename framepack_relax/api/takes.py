"""More takes of a scene, and which of them the film has: take, pick."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import RenderError
from ..families.quiet import quietly
from .films import Model, OnNan, Story, callbacks, make_options, prepare
from .paths import Place

if TYPE_CHECKING:
    from ..planning.renderplan import SectionPlan
    from ..rendering.mark import Note
    from ..rendering.retake import Takes


@quietly
def take(
    story: Story,
    scene: str,
    *,
    n: int = 4,
    out: Place | None = None,
    model: Model = None,
    on_nan: OnNan = "stop",
    on_step: Callable[["SectionPlan", int], None] = lambda section, step: None,
    on_section: Callable[["SectionPlan", int], None] = lambda section, seed: None,
    on_note: "Note" = lambda note: None,
    **board: Any,
) -> "Takes":
    """Renders `n` takes of a scene besides the film's own: other noise on the same past, each in its own folder under
    `out`/takes/SCENE, where they stay.

    What of them is there already is not rendered again; a past that is not yet, is. Gives all takes of the scene with
    their figures and the path of the contact sheet. Arguments are as of `render`. Raises RenderError for a scene that
    is not on the board, and where `out` holds another past, which would be written over.
    """
    from ..rendering.retake import render_takes

    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 99:
        raise RenderError(f"n is {n!r}; write how many takes, 1 to 99")
    checked, folder, loaded = prepare(story, out, model, board)
    hear = callbacks(on_note, on_step, on_section)
    return render_takes(checked, scene, n, out=folder, model=loaded, options=make_options(on_nan), on_event=hear)


@quietly
def pick(
    story: Place,
    scene: str,
    take: str | int | None = None,
    *,
    lock: bool = False,
    out: Place | None = None,
    model: str | None = None,
    **board: Any,
) -> str:
    """Writes into a storyboard's file which take a scene is, by name or number; gives the name.

    Without `take` it is what the newest render has of the scene, which is made a take; with `lock` the scene stays it
    whatever changes around it. `model` and `board` are what the film in `out` was rendered with, as of `render`; none
    of them is written. Raises RenderError for a take that is not in `out`, StoryboardError for one that does not fit
    the scene, or where it cannot be written; the file is then as it was.
    """
    from ..families.loader import Loading
    from ..rendering.retake import NO_LOCK, pick_take

    if not isinstance(story, Place):
        raise RenderError("pick writes into a storyboard's file; give its path")
    if lock and board.get("draft"):
        raise RenderError(f"scene {scene}: {NO_LOCK}")
    checked, folder, _ = prepare(story, out, model, board)
    given: dict[str, Any] = {"model": Loading(name=checked.model, download=False), "options": make_options("stop")}
    return pick_take(checked, scene, None if take is None else str(take), lock=lock, out=folder, **given)
