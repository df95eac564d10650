"""What the command line shows, as rich tables."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from .models.catalog import Entry
from .plan.renderplan import RenderPlan, SectionPlan
from .render.folder import NOT_THERE, Verdict
from .render.status import Status

if TYPE_CHECKING:
    from .evaluate.statistics import Cell


def _compact(columns: str, *, left: str, **look: Any) -> Table:
    """A table without rules whose columns stand to the right but for those in `left`; names are parted by commas.

    What is too wide goes on in the next line: no figure is cut.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, **look)
    for name in columns.split(", ") if columns else ():
        table.add_column(name, justify="left" if name in left.split(", ") else "right", overflow="fold")
    return table


def plan_table(plan: RenderPlan) -> Table:
    """A row per scene with every rounding shown."""
    asked = sum(scene.asked_seconds for scene in plan.scenes)
    table = _compact(
        "shot, scene, asked -> real, sections, frames, intensity, relaxed, scales",
        left="scene, asked -> real, frames, relaxed, scales",
        title=f"{plan.title or 'untitled'}: {plan.model}, {plan.size[0]}x{plan.size[1]}, {plan.order} order",
        caption=f"asked {asked:g} s -> {plan.seconds:.2f} s, {len(plan.sections)} sections, {plan.frames} frames at "
        f"{plan.fps} fps, {plan.steps} steps of {plan.sampler}, profile {plan.profile}",
    )
    for scene in plan.scenes:
        last = plan.sections[scene.sections[-1]]
        table.add_row(
            str(scene.shot + 1),
            scene.scene,
            f"{scene.asked_seconds:g} s -> {scene.real_seconds:.2f} s",
            str(len(scene.sections)),
            f"{scene.frames[0]}..{scene.frames[1] - 1}",
            f"{last.intensity:g}",
            last.relaxation.in_words(),
            _scales(last),
        )
    return table


def report_table(plan: RenderPlan, report: Mapping[str, Any]) -> Table:
    """A row per scene of a finished film: asked and real seconds, settings, forward passes, seconds spent."""
    columns = "scene, asked -> real, relaxed, passes, motion, seam, seconds"
    table = _compact(columns, left="scene, asked -> real, relaxed", title=plan.title or None)
    for scene in plan.scenes:
        rows = [report["sections"][index] for index in scene.sections]
        forwards = sum(sum(row["forwards"].values()) for row in rows)
        table.add_row(
            scene.scene,
            f"{scene.asked_seconds:g} s -> {scene.real_seconds:.2f} s",
            plan.sections[scene.sections[-1]].relaxation.in_words(),
            "kept" if all(row["reused"] for row in rows) else str(forwards),
            f"{sum(row['motion'] for row in rows) / len(rows):.3f}",
            f"{max(row['seam'] for row in rows):.1f}",
            f"{sum(sum(row['seconds'].values()) for row in rows):.1f}",
        )
    return table


def verdict_line(verdicts: Sequence[Verdict]) -> str:
    """What an existing folder gives, and of every shot from where on and why it is rendered; empty for a new folder."""
    kept = sum(why is None for _, why, _ in verdicts)
    said = [f"{kept} of {len(verdicts)} sections are kept"]
    for shot in dict.fromkeys(section.shot for section, _, _ in verdicts):
        anew = [(section, why) for section, why, _ in verdicts if section.shot == shot and why is not None]
        if any(why != NOT_THERE for _, why in anew):
            section, why = anew[0]
            said.append(f"from section {section.index} (scene {section.scene}) on rendered anew: {why}")
    others = [note for _, _, note in verdicts if note]
    said += [f"{others.count(note)} were made otherwise and are kept: {note}" for note in dict.fromkeys(others)]
    return "; ".join(said) if kept or len(said) > 1 else ""


def status_table(status: Status) -> Table:
    """A row per scene with its sections on disk."""
    table = _compact("scene, on disk", left="scene", title=status.title or None)
    for scene, done, total in status.scenes:
        table.add_row(scene, f"{done} of {total}")
    return table


def status_text(status: Status, now: float) -> str:
    """How much is there, who is at work and for how long, where the film is."""
    said = [f"{status.done} of {status.total} sections on disk"]
    if status.at_work:
        said.append(f"at work: {status.at_work}")
    elif status.done < status.total:
        said.append("nobody is at work; `framepack-relax render` goes on from here")
    if status.seconds_left:
        said.append(f"about {duration(status.seconds_left)} left")
    if status.newest is not None:
        said.append(f"newest section {duration(max(0.0, now - status.newest))} ago")
    if status.film:
        said.append(str(status.film))
    return "\n".join(said)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as they matter."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def models_table(entries: Sequence[tuple[Entry, bool]]) -> Table:
    """A row per model, whose facts stand in lines so that repositories can be copied."""
    table = _compact("name, what", left="name, what")
    for entry, there in entries:
        size = f"{entry.gigabytes:g} GB, {'on disk' if there else 'not on disk'}"
        table.add_row(entry.name, "\n".join([entry.about, size, *_origin(entry), entry.licence]))
        table.add_section()
    return table


def model_text(entry: Entry, there: bool, card: Mapping[str, Any]) -> Table:
    """One model in full: its facts and the places of its parts."""
    table = Table(show_header=False, box=None)
    rows = [("name", entry.name), ("what", entry.about), ("licence", entry.licence), ("on disk", _yes(there))]
    rows += [(part, f"{repository} {subfolder}".strip()) for part, (repository, subfolder) in entry.parts.items()]
    rows += [(key, str(value)) for key, value in card.items()]
    for key, value in rows:
        table.add_row(key, value)
    return table


def evaluation_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row per film or scene; figures of missing instruments are dashes."""
    columns = "film, scene, motion, in 1.2 s, dynamic, action, targets, text, lpips, drift, fails"
    caption = "motion in short sides a second, camera taken out; action: its best window"
    table = _compact(columns, left="film, scene, action, targets, fails", caption=caption)
    for row in rows:
        motion, action = row["motion"], row.get("action", {})
        targets = [f"{label} {p['best']:.2f} ({p['mean']:.2f})" for label, p in action.get("targets", {}).items()]
        named = f"{action['named']} {action['top'].get(action['named'], 0.0):.2f}" if action else "-"
        table.add_row(
            str(row["film"]),
            row["scene"] or "-",
            f"{motion['mean']:.3f}",
            f"{motion['at_once']:.3f}",
            _yes(motion["dynamic"]),
            named,
            "\n".join(targets) or "-",
            f"{row['text']['score']:.1f}" if "text" in row else "-",
            f"{row['lpips']['adjacent']:.3f}" if "lpips" in row else "-",
            f"{row['drift']['drift']:.3f}" if "drift" in row else "-",
            next((kind for kind, true in row.get("failures", {}).items() if true), "-"),
        )
    return table


def sweep_table(cells: "Sequence[Cell]") -> Table:
    """A row per arm: means; of action and motion the interval too, and the share of pairs won against the first arm."""
    names = [n for n in ("target", "motion", "identity", "jump", "forwards", "seconds") if n in cells[0].figures]
    caption = "means; of the first two a 95 % bootstrap interval and the share of pairs won against the first arm"
    table = _compact(", ".join(["arm", "films", *names, "fails"]), left="arm, fails", caption=caption)
    for cell in cells:
        said = []
        for name in names:
            figure = cell.figures.get(name)
            more = f" {figure.span(2)} {figure.wins:.2f}" if figure and name in names[:2] else ""
            said.append(f"{figure.mean:.2f}{more}" if figure else "-")
        fails = ", ".join(f"{kind} {share:.2f}" for kind, share in cell.failures.items() if share)
        table.add_row(cell.arm, str(cell.films), *said, fails or "-")
    return table


def _origin(entry: Entry) -> list[str]:
    repositories = list(dict.fromkeys(repository for repository, _ in entry.parts.values()))
    return [] if entry.name == "puppet" else [f"from {name}" for name in repositories]


def _yes(there: bool) -> str:
    return "yes" if there else "no"


def _scales(section: SectionPlan) -> str:
    """First and last scale of what guides at all, a line each; context only where it is loosened."""
    shown = []
    for name, values in vars(section.scales).items():
        if set(values) != {1.0}:
            span = f"{values[0]:.2f}..{values[-1]:.2f}" if values[0] != values[-1] else f"{values[0]:g}"
            shown.append(f"{name} {span}")
    return "\n".join(shown)
