"""Takes of a scene: the same past with other noise, in the run folder under takes/SCENE/TAKE for good. No torch.

A take is called such as 3-9f2c41: 3 is its noise, 1 being the scene's own, and the rest begins the key of what was
rendered last of it, which its past, its noise and all settings are part of. A board that names a take has that noise;
while nothing has changed that the key hashes, the files are taken; where the scene is locked, always.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import Problem, RenderError, StoryboardError
from ..files import read_file
from ..planning.renderplan import Blended, RenderPlan, SceneTiming, SectionPlan, number_of
from ..relax.profile import Relaxation
from ..storyboard import Storyboard
from ..storyboard.fields import TAKE
from ..storyboard.meanings import suggest
from ..storyboard.messages import printable
from .films import ODD
from .folder import RunFolder
from .keys import SectionKey
from .mark import PLAN, REPORT, SECTION_FILE, mark_of, read_mark, unreadable
from .stored import Stored, read_tags, unpack

TAKES, FILE, ABOUT = "takes/{}", "takes/{}/{}/{:03d}.safetensors", "takes/{}/{}/take.json"
STRIP = "takes/{}/{}/contact.png"
UNDO = "undo that"


class About(BaseModel):
    """What a take's sections do not say of themselves; `fps` and `seconds` are as the board had them."""

    model_config = ConfigDict(strict=True, frozen=True)

    sections: int
    fps: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Take:
    """Of a scene. `motion` and `change` are mean changes from frame to frame, of the busiest 5 % of pixels and of all,
    luma 0..1; `seam` is the change at its first frame over the usual one, None where nothing is rendered before it."""

    scene: str
    name: str
    motion: float
    change: float
    seam: float | None
    on_board: bool

    def in_words(self) -> str:
        seam = "" if self.seam is None else f", seam {self.seam:.1f}"
        return f"{self.name}: motion {self.motion:.3f}, change {self.change:.3f}{seam}" + ", picked" * self.on_board


def scene_number(story: Storyboard, scene: str) -> int:
    """The place of a scene on the board. Raises RenderError."""
    names = [each.id for each in story.scenes]
    if scene not in names:
        raise RenderError(f"scene {printable(scene)}: is not on the board; {suggest(scene, names)}")
    return names.index(scene)


def with_take(story: Storyboard, scene: int, take: str, lock: bool = False) -> Storyboard:
    """The board with this take of a scene."""
    scenes = list(story.scenes)
    scenes[scene] = scenes[scene].model_copy(update={"take": take, "lock": lock})
    return story.changed(scenes=tuple(scenes))


def name_take(number: int, key: str) -> str:
    """The name of a take with this noise; `key` is that of what is rendered last of it."""
    return f"{number}-{key[:6]}"


def names_of(out: Path, scene: str) -> list[str]:
    """The takes of a scene that are in the run folder, by their noise."""
    found = [place.name for place in (out / TAKES.format(scene)).glob("*-*") if TAKE.fullmatch(place.name)]
    return sorted(found, key=lambda name: (number_of(name), name))


def read_take(out: Path, plan: RenderPlan, timing: SceneTiming, take: str, weights: str) -> tuple[list[Stored], str]:
    """A take's sections, and why they cannot stand for the scene as it is planned; empty if they can."""
    place, about = f"takes/{timing.scene}/{take}", read_about(out, timing.scene, take)
    there = len(list((out / place).glob("[0-9][0-9][0-9].safetensors")))
    made = list[Stored]()
    for nth in range(about.sections if about else max(there, 1)):
        file = out / FILE.format(timing.scene, take, nth)
        try:
            stored = unpack(read_file(file))
        except (FileNotFoundError, NotADirectoryError):
            others = ", ".join(name for name in names_of(out, timing.scene) if name != take)
            cure = "copy that folder from where the take was made" + (f", pick another ({others})" if others else "")
            return [], f"{file} is not there; {cure}"
        except OSError as error:
            raise unreadable(file, error) from error
        if stored is None:
            return [], f"{file} is damaged; copy it again from where the take was made"
        made.append(stored)
    misfits = dict(_misfits(plan, timing, made, about, weights))
    if not misfits:
        return made, ""
    return (
        made,
        f"take {take} {', and '.join(misfits)}; {', '.join(dict.fromkeys(misfits.values()))}, pick another take",
    )


def locks_without_takes(story: Storyboard, out: Path) -> list[str]:
    """Of locked scenes whose takes are not in a folder, what to do, a line each."""
    return [
        f"scene {scene.id}: is locked, and {out / TAKES.format(scene.id)} has no take {scene.take}; copy it there from "
        "where it was made, or say --out with the folder that has it"
        for scene in story.scenes
        if scene.lock and scene.take and scene.take not in names_of(out, scene.id)
    ]


def _misfits(
    plan: RenderPlan, timing: SceneTiming, made: list[Stored], about: About | None, weights: str
) -> Iterator[tuple[str, str]]:
    """Why a take that is there cannot stand for the scene, each with its cure."""
    if any((stored.inputs.get("family"), stored.inputs.get("weights")) != (plan.kind, weights) for stored in made):
        yield f"was made with another model, or other weights, than {plan.model} has here", UNDO
    width, height = plan.size
    for size in (stored.inputs.get("size") for stored in made):
        if size != [width, height]:
            yield f"is of size {size}, and the film of [{width}, {height}]", UNDO
    if about and about.fps != plan.fps:
        yield f"was made for fps {about.fps:g}, and the film has {plan.fps:g}", UNDO
    if len(made) != len(timing.sections):
        length = f"`seconds: {about.seconds:g}`" if about else "its old length"
        yield f"has {len(made)} sections, and the scene takes {len(timing.sections)} now", f"write {length}"
    for stored, section in zip(made, [plan.sections[index] for index in timing.sections], strict=False):
        if (stored.inputs.get("place") == 0) != (section.place == 0):
            facts = ("began its shot, and the scene follows on another", "followed on a scene, and now begins its shot")
            yield facts[section.place == 0], UNDO
        if len(made) == len(timing.sections) and stored.latents.shape[2] != section.latents:
            yield f"is {stored.latents.shape[2]} latent frames, and the scene {section.latents}", UNDO


def takes_beside(folder: Path, story: Storyboard) -> dict[str, bytes]:
    """The files of the board's takes that are in a run folder, by name. Raises RenderError."""
    places = [folder / f"takes/{scene.id}/{scene.take}" for scene in story.scenes if scene.take]
    found = [
        file for place in places for file in (*place.glob("[0-9][0-9][0-9].safetensors"), *place.glob("take.json"))
    ]
    try:
        return {file.relative_to(folder).as_posix(): read_file(file) for file in found}
    except OSError as error:
        raise unreadable(folder, error) from error


def read_about(out: Path, scene: str, take: str) -> About | None:
    """None where it is not there, or damaged."""
    try:
        return About.model_validate_json(read_file(out / ABOUT.format(scene, take)))
    except (OSError, ValidationError):
        return None


def locked_sections(story: Storyboard, plan: RenderPlan, out: Path, weights: str) -> dict[int, Stored]:
    """Of locked scenes the sections of their takes, by index. Raises StoryboardError with every one that cannot be."""
    found, problems = dict[int, Stored](), list[Problem]()
    for number, (scene, timing) in enumerate(zip(story.scenes, plan.scenes, strict=True)):
        if scene.lock and scene.take:
            made, wrong = read_take(out, plan, timing, scene.take, weights)
            if wrong:
                message = f"{wrong}, or do without `lock`: the scene is then rendered from the take's noise"
                problems.append(story.located(Problem(path=f"scenes[{number}].take", message=message)))
            found.update(zip(timing.sections, made, strict=False))
    if problems:
        raise StoryboardError(problems)
    return found


def with_files(
    plan: RenderPlan, keys: Mapping[int, SectionKey], out: Path, locked: Mapping[int, Stored], anew: bool
) -> tuple[RenderPlan, list[str]]:
    """The plan, told which sections lie in takes: all that are locked, and, unless `anew`, picked ones that were made
    from what they would be made from now. Of takes that are not taken it is said why."""
    sections, notes = list(plan.sections), list[str]()
    for timing in plan.scenes:
        take, why = sections[timing.sections[0]].take, ""
        for nth, index in enumerate(timing.sections if take else ()):
            file = FILE.format(timing.scene, take, nth)
            if index in locked:
                sections[index] = replace(_as_made(sections[index], locked[index], keys[index].inputs), file=file)
            elif not anew:
                key = _key_of(out / file)
                if key == keys[index].key:
                    sections[index] = replace(sections[index], file=file)
                elif key:
                    why = why or "was made on another past or with other settings"
                else:
                    why = why or f"is not in {out / TAKES.format(timing.scene)}"
        if why:
            cure = "the scene is rendered from its noise; `lock: true` keeps a take as it is"
            notes.append(f"scene {timing.scene}: take {take} {why}: {cure}")
    return replace(plan, sections=tuple(sections)), notes


def _key_of(file: Path) -> str:
    try:
        return read_tags(file).get("key", "")
    except OSError as error:
        raise unreadable(file, error) from error


def _as_made(section: SectionPlan, stored: Stored, now: Mapping[str, Any]) -> SectionPlan:
    """A locked section with the prompt and the settings that it was made with, so that what is told of it is true;
    without its steps, LoRA, anchors and draft where these are others now: of them the take has digests alone."""
    said = stored.inputs
    if said == now:
        return section
    changed = {name for name in ("steps", "lora", "anchors", "draft") if said.get(name) != now.get(name)}
    own = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    settings: dict[str, Any] = {field.name: own[field.name] for field in fields(Relaxation) if field.name in own}
    return replace(
        section,
        prompt=str(said.get("prompt", section.prompt)),
        negative_prompt=str(said.get("negative_prompt", "")),
        seed=stored.seed,
        relaxation=Relaxation(**settings),
        ensure=None,
        blend=_blended(said),
        steps=() if "steps" in changed else section.steps,
        lora=() if "lora" in changed else section.lora,
        anchors=() if "anchors" in changed else section.anchors,
        start_from=None if changed & {"draft", "steps"} else section.start_from,
    )


def _blended(inputs: Mapping[str, Any]) -> Blended | None:
    said = inputs.get("blend")
    return said and Blended(**{"negative_prompt": "", **said})


def with_words(plan: RenderPlan, locked: Mapping[int, Stored]) -> RenderPlan:
    """The plan in which sections are blended with what the takes of locked scenes say, not with what is never seen."""
    sections = list(plan.sections)
    for index, stored in locked.items():
        before, said = plan.sections[index], stored.inputs
        prompt = str(said.get("prompt", before.prompt))
        negative = str(said.get("negative_prompt", before.negative_prompt))
        number = next(n for n, timing in enumerate(plan.scenes) if index in timing.sections)
        beside = [*plan.scenes[max(number - 1, 0) : number], *plan.scenes[number + 1 : number + 2]]
        for other in (place for timing in beside for place in timing.sections):
            blend = plan.sections[other].blend
            if blend and (blend.prompt, blend.negative_prompt) == (before.prompt, before.negative_prompt):
                sections[other] = replace(
                    sections[other], blend=replace(blend, prompt=prompt, negative_prompt=negative)
                )
    return replace(plan, sections=tuple(sections))


def take_rows(plan: RenderPlan, sections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of report.json: which scene is which take, whether from its files, and the seams at its beginning and after it;
    `sections` are its rows. None is a seam where a shot begins or ends."""
    rows = list[dict[str, Any]]()
    for timing in plan.scenes:
        first, last = (plan.sections[timing.sections[place]] for place in (0, -1))
        if first.take:
            follows = last.index + 1 < len(sections) and plan.sections[last.index + 1].shot == last.shot
            seams = [
                sections[first.index]["seam"] if first.place else None,
                sections[last.index + 1]["seam"] if follows else None,
            ]
            kept = all(plan.sections[index].file for index in timing.sections)
            take = {"scene": timing.scene, "take": first.take, "locked": first.lock, "from_files": kept}
            rows.append({**take, "seams": seams})
    return rows


def in_words(row: Mapping[str, Any]) -> str:
    """A row of `take_rows` in a line."""
    kept = "locked" if row["locked"] else "picked" if row["from_files"] else "picked, rendered from its noise"
    places = zip(("before", "after"), row["seams"], strict=True)
    seams = [f"{seam:.1f} {place} it" for place, seam in places if seam is not None]
    return f"{row['scene']}: take {row['take']}, {kept}" + (f"; seam {', '.join(seams)}" if seams else "")


def takes_told(out: Path) -> list[str]:
    """`in_words` of the takes of the film in a folder, by its report; none where that is not there, or damaged."""
    try:
        rows = json.loads(read_file(out / REPORT)).get("takes", ())
        return [in_words({**row, **{name: printable(row[name]) for name in ("scene", "take")}}) for row in rows]
    except (OSError, *ODD):
        return []


def choose_take(out: Path, scene: str, asked: str) -> str:
    """A take's name by itself, or by its number where there is one. Raises RenderError."""
    names = names_of(out, scene)
    found = [name for name in names if asked in (name, str(number_of(name)))]
    if len(found) == 1:
        return found[0]
    if found:
        raise RenderError(
            f"{out / TAKES.format(scene)}: takes {', '.join(found)} have this noise; give one by its name"
        )
    cure = suggest(asked, names) if names else f"`framepack-relax take STORY {scene}` renders some"
    raise RenderError(f"{out}: has no take {printable(asked)} of scene {scene}; {cure}")


def keep_rendered(story: Storyboard, out: Path, scene: str) -> str:
    """Makes a take of what the newest render has of a scene; gives its name. Raises RenderError."""
    mark, nothing = read_mark(out), f"{out}: nothing whole is rendered of scene {scene}; render the film first"
    try:
        plan = json.loads(read_file(out / PLAN))
        timing = next(row for row in plan["scenes"] if row["scene"] == scene)
        shot = plan["shots"][timing["shot"]]
        rows = {index: plan["sections"][index] for index in shot["sections"] if index in timing["sections"]}
        places = {index: place for place, index in enumerate(sorted(shot["sections"]))}
        names = [rows[i].get("file") or SECTION_FILE.format(shot["index"], places[i]) for i in timing["sections"]]
        made = [read_file(out / name) for name in names]
        stored = dict(zip(timing["sections"], map(unpack, made), strict=True))
        keys = {index: each.key if each else "" for index, each in stored.items()}
        about = About(sections=len(made), fps=float(plan["fps"]), seconds=timing["asked_seconds"])
        *_, (last, row) = rows.items()
    except (FileNotFoundError, NotADirectoryError, StopIteration, *ODD) as error:
        raise RenderError(nothing) from error
    except OSError as error:
        raise unreadable(out, error) from error
    if mark is None or any(mark.sections.get(str(index)) != key for index, key in keys.items()):
        raise RenderError(nothing)
    take = name_take(number_of(row.get("take") or "1"), keys[last])
    with RunFolder(out, mark_of(out, story)).held() as folder:
        folder.write({FILE.format(scene, take, nth): data for nth, data in enumerate(made)})
        save_about(folder, scene, take, about)
    return take


def save_about(folder: RunFolder, scene: str, take: str, about: About) -> None:
    """What is not there yet."""
    if read_about(folder.path, scene, take) is None:
        folder.write({ABOUT.format(scene, take): about.model_dump_json(indent=1).encode("utf8")})
