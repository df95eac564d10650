"""Drafts that a film starts from: the latents in another run folder, as far as they are of the same film. No torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Problem, RenderError, StoryboardError
from ..files import read_file
from ..planning.renderplan import RenderPlan, SceneTiming
from ..storyboard import Storyboard
from ..storyboard.messages import printable
from .films import ODD
from .status import Begun, damaged_plan, read_begun
from .stored import Latents, unpack


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A section's latents in the folder of a draft: their file, and their digest."""

    file: Path
    digest: str

    def load(self) -> Latents:
        """[1, C, T, h, w], at the draft's size. Raises RenderError where they are no longer those."""
        try:
            stored = unpack(read_file(self.file))
        except OSError:
            stored = None
        if stored is None or stored.digest != self.digest:
            fact = "the draft was removed, damaged or rendered anew since this render began"
            raise RenderError(f"{self.file}: {fact}; run the same command again")
        return stored.latents


def open_drafts(story: Storyboard, out: Path | None = None) -> tuple[dict[str, Begun], list[Problem]]:
    """The folders that scenes of a film start from that goes to `out`, as the board names them; those that are no
    draft's, or `out` itself, are mistakes."""
    begun, problems = dict[str, Begun](), dict[Problem, None]()
    for place, scene in enumerate(story.scenes):
        if not (start := story.start_of(scene)) or start.folder is None or start.folder in begun:
            continue
        folder = story.resolve(start.folder)
        try:
            if out is not None and folder.absolute().resolve() == out.absolute().resolve():
                raise RenderError(f"{folder}: is where this film goes; render one of both elsewhere, by --out")
            begun[start.folder] = read_begun(folder)
        except RenderError as error:
            problems[Problem(path=_path(story, place), message=str(error))] = None
    return begun, list(problems)


def find_drafts(story: Storyboard, plan: RenderPlan, begun: Mapping[str, Begun]) -> dict[int, Draft]:
    """By index, what each section of a film starts from, in the folders that `open_drafts` gives. Raises
    StoryboardError for an unfinished draft, or one of another film."""
    drafts, problems = dict[int, Draft](), dict[Problem, None]()
    for place, scene in enumerate(plan.scenes):
        start = plan.sections[scene.sections[0]].start_from
        if start is None or start.folder is None:
            continue
        try:
            drafts |= _match(story.resolve(start.folder), begun[start.folder], plan, scene)
        except RenderError as error:
            problems[Problem(path=_path(story, place), message=str(error))] = None
    if problems:
        raise StoryboardError([story.located(problem) for problem in problems])
    return drafts


def _path(story: Storyboard, place: int) -> str:
    """Where the board names the draft of a scene."""
    own = story.scenes[place].start_from
    return f"scenes[{place}].start_from" if own and own.folder else "start_from"


def _match(folder: Path, there: Begun, plan: RenderPlan, scene: SceneTiming) -> Mapping[int, Draft]:
    """A scene's sections and the draft's. Raises RenderError where it has none of them, or others."""
    try:
        rows = {row["scene"]: row for row in there.plan["scenes"]}
        wrong = next(_differences(there.plan, rows.get(scene.scene), plan, scene), "")
        theirs = sorted(rows[scene.scene]["sections"]) if not wrong else []
        done = [index for index in theirs if index in there.done]
        name = printable(str(there.plan["title"]) or folder.name)
    except ODD as error:
        raise damaged_plan(folder) from error
    if wrong:
        raise RenderError(f"{folder}: {wrong}; make the draft anew, or give the scene `start_from: {{strength: 1}}`")
    if len(done) < len(theirs):
        total = f"{len(there.done)} of {len(there.files)} sections of {name} are there"
        cure = "render it to its end first, with --fresh if its film is whole"
        raise RenderError(f"{folder}: the draft is not finished, {total}; {cure}")
    made = zip(scene.sections, theirs, strict=True)
    return {mine: Draft(file=there.files[n], digest=there.tags[n]["digest"]) for mine, n in made}


def _differences(draft: Mapping[str, Any], row: Any, plan: RenderPlan, scene: SceneTiming) -> Iterator[str]:
    """How a scene of the draft's plan, its `row`, is another than this film's."""
    if draft["kind"] != plan.kind:
        yield f"is a draft of {printable(str(draft['model']))}, and latents of {plan.model} are others"
    if draft["fps"] != plan.fps:
        yield f"has {draft['fps']:g} frames a second, and the film {plan.fps:g}"
    if row is None:
        yield f"has no scene {scene.scene}"
    mine = [plan.sections[index] for index in scene.sections]
    theirs = [draft["sections"][index] for index in sorted(row["sections"])]
    shot = draft["shots"][row["shot"]]
    if (min(row["sections"]) == min(shot["sections"])) != (mine[0].place == 0):
        yield f"has another transition before scene {scene.scene}"
    if len(mine) != len(theirs) or row["frames"][1] - row["frames"][0] != scene.frames[1] - scene.frames[0]:
        yield f"has {row['real_seconds']:.4g} s of scene {scene.scene}, and the film {scene.real_seconds:.4g}"
    if [one["latents"] for one in theirs] != [one.latents for one in mine]:
        yield f"has sections of another length in scene {scene.scene}"
