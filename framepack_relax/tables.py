"""What the command line shows, as rich tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from .models.catalog import Entry
from .plan.renderplan import RenderPlan, SceneTiming, SectionPlan

COMPACT: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False}


def plan_table(plan: RenderPlan) -> Table:
    """A row per scene with every rounding shown."""
    asked = sum(scene.asked_seconds for scene in plan.scenes)
    table = Table(
        **COMPACT,
        title=f"{plan.title or 'untitled'}: {plan.model}, {plan.size[0]}x{plan.size[1]}, {plan.order} order",
        caption=f"asked {asked:g} s -> {plan.seconds:.2f} s, {len(plan.sections)} sections, {plan.frames} frames at "
        f"{plan.fps} fps, {plan.steps} steps of {plan.sampler}, profile {plan.profile}",
    )
    for name in ("shot", "scene", "asked -> real", "sections", "frames", "intensity", "relaxed", "scales"):
        table.add_column(name, justify="right" if name in ("shot", "sections", "intensity") else "left")
    for scene in plan.scenes:
        last = plan.sections[scene.sections[-1]]
        table.add_row(
            str(scene.shot + 1),
            scene.scene,
            f"{scene.asked_seconds:g} s -> {scene.real_seconds:.2f} s",
            str(len(scene.sections)),
            f"{scene.frames[0]}..{scene.frames[1] - 1}",
            f"{last.intensity:g}",
            _relaxed(last),
            _scales(last),
        )
    return table


def report_table(plan: RenderPlan, report: Mapping[str, Any]) -> Table:
    """A row per scene of a finished film: asked and real seconds, settings, forwards, seconds spent."""
    table = Table(title=plan.title or None, **COMPACT)
    for name in ("scene", "asked s", "real s", "beta", "p", "blur", "target", "forwards", "motion", "seam", "seconds"):
        table.add_column(name, justify="left" if name in ("scene", "target") else "right")
    for scene in plan.scenes:
        rows = [report["sections"][index] for index in scene.sections]
        table.add_row(*_report_row(plan, scene, rows))
    return table


def _report_row(plan: RenderPlan, scene: SceneTiming, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    relax = plan.sections[scene.sections[-1]].relaxation
    spent = sum(sum(row["seconds"].values()) for row in rows)
    forwards = sum(sum(row["forwards"].values()) for row in rows)
    return [
        scene.scene,
        f"{scene.asked_seconds:g}",
        f"{scene.real_seconds:.2f}",
        f"{relax.beta:.2f}",
        f"{relax.p:g}",
        f"{relax.blur:g}",
        "at rest" if relax.at_rest else "+".join(relax.target),
        str(forwards) if not all(row["reused"] for row in rows) else "kept",
        f"{sum(row['motion'] for row in rows) / len(rows):.3f}",
        f"{max(row['seam'] for row in rows):.1f}",
        f"{spent:.1f}",
    ]


def models_table(entries: Sequence[tuple[Entry, bool]]) -> Table:
    table = Table()
    for name in ("name", "what", "comes from", "size", "licence", "on disk"):
        table.add_column(name, overflow="fold")
    for entry, there in entries:
        table.add_row(entry.name, entry.about, _origin(entry), f"{entry.gigabytes:g} GB", entry.licence, _yes(there))
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


def _origin(entry: Entry) -> str:
    if entry.name == "puppet":
        return "packaged"
    return "\n".join(dict.fromkeys(repository for repository, _ in entry.parts.values()))


def _yes(there: bool) -> str:
    return "yes" if there else "no"


def _relaxed(section: SectionPlan) -> str:
    relax = section.relaxation
    if relax.at_rest:
        return "at rest"
    words = [f"{'+'.join(relax.target)} beta {relax.beta:.2f} p {relax.p:g}"] if relax.beta else []
    words += [f"blur {relax.blur:g} on {relax.scope}"] if relax.blur else []
    words += [f"bias {relax.bias:g}"] if relax.bias != 1 else []
    return ", ".join(words)


def _scales(section: SectionPlan) -> str:
    """First and last scale of what guides at all; context only where it is loosened."""
    shown = []
    for name, values in (("embedded", section.scales.embedded), ("text", section.scales.text),
                         ("context", section.scales.context)):  # fmt: skip
        if set(values) != {1.0}:
            span = f"{values[0]:.2f}..{values[-1]:.2f}" if values[0] != values[-1] else f"{values[0]:g}"
            shown.append(f"{name} {span}")
    return ", ".join(shown)
