"""What the command line shows, as tables by rich."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from .screen import KEEP, LOOK, MOST_ROWS, Grid

if TYPE_CHECKING:
    from ..api.sweeps import Ahead
    from ..evaluate.statistics import Cell
    from ..families.catalog import Entry
    from ..families.sketch import Choice
    from ..farm.batch import Batch, Progress
    from ..farm.costs import Cost
    from ..farm.films import Film, ShotUnit
    from ..farm.ledger import Entry as LedgerEntry
    from ..planning.lexicon import Suggestion
    from ..planning.renderplan import RenderPlan, SceneTiming, SectionPlan
    from ..rendering.folder import Verdict
    from ..rendering.status import Status

OWN_WAY = ("motion", "at_once", "text")  # figures that the table of `eval` writes in its own way
MOST_SINGLE = 40  # scenes that `status` shows one by one


def plan_table(plan: RenderPlan) -> Grid:
    """A row per scene with every rounding shown."""
    asked = sum(scene.asked_seconds for scene in plan.scenes)
    order = f", {plan.options['order']} order" if "order" in plan.options else ""
    rows = []
    for scene in plan.scenes:
        last = plan.sections[scene.sections[-1]]
        passes = [sum(counts) for counts in zip(*(plan.sections[i].passes for i in scene.sections), strict=True)]
        words = f"{last.in_words()}: {_span(passes, 'd')} passes" if last.ensure else last.in_words()
        settings = {"intensity": f"{last.intensity:g}", "relaxed": words, "scales": _scales(last)}
        place = {"sections": str(len(scene.sections)), "frames": f"{scene.frames[0]}..{scene.frames[1] - 1}"}
        lora = {"lora": ", ".join(f"{one.file} {one.scale:g}" for one in last.lora)} if plan.lora else {}
        start = {"from the draft": _left(last)} if any(section.start_from for section in plan.sections) else {}
        rows.append({"shot": str(scene.shot + 1), **_asked(scene), **place, **settings, **lora, **start})
    return Grid(
        rows,
        left="frames",
        wraps="asked -> real, relaxed, scales, lora, from the draft",
        title=f"{plan.title or 'untitled'}: {plan.model}, {plan.size[0]}x{plan.size[1]}{order}",
        caption=f"asked {asked:g} s -> {plan.seconds:.2f} s, {len(plan.sections)} sections, {plan.frames} frames at "
        f"{plan.fps:g} fps, {plan.steps} steps of {plan.sampler}, {_span(plan.passes, 'd')} passes, "
        f"profile {plan.profile}",
    )


def _left(section: SectionPlan) -> str:
    """How many of its steps are left where it starts from a draft."""
    return f"the last {len(section.steps)} of {section.steps[-1].index + 1} steps" if section.start_from else "-"


def prompts_table(plan: RenderPlan) -> Grid:
    """What the model reads of each scene: the prompt with the style, and a negative prompt where it is used."""
    rows = []
    for scene in plan.scenes:
        section = plan.sections[scene.sections[0]]
        negative = section.negative_prompt if set(section.scales.get("text", ())) - {1.0} else ""
        read = section.prompt + (f"\nnot: {negative}" if negative else "")
        for index in scene.sections:
            if blend := plan.sections[index].blend:
                read += f"\nsection {index}: {1 - blend.weight:.0%} of this, {blend.weight:.0%} of: {blend.prompt}"
        rows.append({"scene": scene.scene, "what the model reads": read})
    return Grid(rows, wraps="what the model reads")


def suggestions_table(suggestions: Sequence[Suggestion]) -> Grid:
    """A row per scene: what it says now, what the lexicon of motion says, and why."""
    rows = []
    for one in suggestions:
        said = "-" if one.said is None else one.said if one.said == "auto" else f"{one.said:g}"
        rows.append({"scene": one.scene, "intensity": said, "by the prompt": str(one.motion)})
    return Grid(rows, wraps="by the prompt")


def crops_text(plan: RenderPlan) -> str:
    """A line per start image: what the centre crop to the film's size cuts away of it; and per anchor."""
    from ..storyboard.images import cut_away

    said = []
    for image, size in {s.image: s.image_size for s in plan.shots if s.image and s.image_size != (1, 1)}.items():
        share, sides = cut_away(size, plan.size)
        cut = f"{share:.0%} is cut away, {sides}" if share >= 0.005 else "nothing is cut away"
        said.append(f"{image}, {size[0]}x{size[1]} px: {cut}")
    said += [f"scene {s.scene} {anchor.in_words()}" for s in plan.sections for anchor in s.anchors]
    more = [f"and {len(said) - MOST_ROWS} more images"] if len(said) > MOST_ROWS else []
    return "\n".join([*said[:MOST_ROWS], *more])


def memory_table(plan: RenderPlan, choices: Sequence[Choice]) -> Grid:
    """A row per choice, and per card: what a section takes in gigabytes, by estimate."""
    rows = []
    for choice in choices:
        need, sizes = choice.need, dict.fromkeys(("weights", "pass", "decode", "in all", "encoders", "main"), "-")
        if need:
            counts = need.weights, need.forward, need.decode, need.total, choice.encoders, choice.main
            sizes = {name: f"{count / 1e9:.1f}" for name, count in zip(sizes, counts, strict=True)}
        if choice.streamed:
            sizes["encoders"] = "layers"
        place = {"dtype": choice.dtype, "GPU": str(choice.card or "any"), "memory": choice.memory or "nothing fits"}
        rows.append({**place, **sizes})
    absent = ", ".join(fit.file for fit in plan.lora if fit.missing)
    return Grid(
        rows,
        keys="dtype, GPU",
        left="memory",
        title=f"{plan.title or 'untitled'}: {plan.model}, {plan.size[0]}x{plan.size[1]}, by estimate, in GB",
        caption="in all: weights, and the larger of a forward pass and a decode; blocks: those that stay on the GPU, "
        "the others come for their turn; encoders come first, whole or layer by layer; main: of main memory, pinned or "
        "converted" + (f"; LoRA that are not on this machine are not counted: {absent}" if absent else ""),
    )


def lora_text(plan: RenderPlan) -> str:
    """A line per LoRA that no warning speaks of."""
    return "\n".join(fit.in_words for fit in plan.lora if fit.in_words not in plan.warnings)


def report_table(plan: RenderPlan, report: Mapping[str, Any]) -> Grid:
    """A row per scene of a finished film: asked and real seconds, settings, forward passes, seconds spent."""
    rows = []
    for scene in plan.scenes:
        made = [report["sections"][index] for index in scene.sections]
        forwards = sum(sum(row["forwards"].values()) for row in made)
        figures = {
            "passes": "kept" if all(row["reused"] for row in made) else str(forwards),
            "motion": f"{sum(row['motion'] for row in made) / len(made):.3f}",
            "seam": f"{max(row['seam'] for row in made):.1f}",
            "seconds": f"{sum(sum(row['seconds'].values()) for row in made):.1f}",
        }
        rows.append({**_asked(scene), "relaxed": _relaxed(plan.sections[scene.sections[-1]], made[-1]), **figures})
    return Grid(rows, wraps="asked -> real, relaxed", title=plan.title)


def takes_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per scene of a finished film that is a take."""
    from ..rendering.takes import in_words

    return "\n".join(map(in_words, rows))


def totals_text(totals: Mapping[str, Any]) -> str:
    """A finished film's length, and what it cost."""
    length = f"{totals['film_seconds']:.2f} s, {totals['frames']} frames"
    return f"{length}, rendered in {totals['seconds']:.0f} s, peak {totals['peak_bytes'] / 2**30:.1f} GB"


def verdict_line(verdicts: Sequence[Verdict]) -> str:
    """What an existing folder gives, and of every shot from where on and why it is rendered; empty for a new folder."""
    from ..rendering.folder import NOT_THERE

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


def status_table(status: Status) -> Grid:
    """A row per scene with its sections on disk; of very many, a row for all that are done, or not begun, in a row."""
    rows = []
    for _, group in groupby(status.scenes, key=_state if len(status.scenes) > MOST_SINGLE else id):
        names, done, total = zip(*group, strict=True)
        name = names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]} ({len(names)} scenes)"
        rows.append({"scene": name, "on disk": f"{sum(done)} of {sum(total)}"})
    return Grid(rows, title=status.title)


def _state(scene: tuple[str, int, int]) -> object:
    """Equal for scenes that are done, and for those that are not begun."""
    name, done, total = scene
    return {0: "none", total: "all"}.get(done, name)


def status_text(status: Status, now: float) -> str:
    """How much is there, who is at work and for how long, where the film is."""
    said = [f"{status.done} of {status.total} sections on disk"]
    if status.at_work:
        said.append(f"at work: {status.at_work}")
    elif status.done < status.total and not status.film:
        said.append("nobody is at work; `framepack-relax render` goes on from here")
    if status.seconds_left:
        said.append(f"about {duration(status.seconds_left)} left")
    if status.newest is not None:
        said.append(f"newest section {duration(max(0.0, now - status.newest))} ago")
    if status.film:
        said += [*status.takes, str(status.film)]
    return "\n".join(said)


@dataclass
class AtWork:
    """A worker's unit, since `begun` by a monotonic clock; `done` counts its sections."""

    unit: ShotUnit
    worker: str
    begun: float
    done: int = 0


def batch_table(rows: Sequence[AtWork], work: Batch, now: float, begun: float) -> RenderableType:
    """A row per worker, and how all films stand."""
    shown = []
    for row in rows:
        wanted, film = len(row.unit.job.wanted), work.progress[row.unit.film]
        left = duration((now - row.begun) / row.done * (wanted - row.done)) if row.done else "-"
        left = "film" if row.done == wanted else left  # it puts that together
        place = {"film": row.unit.film, "shot": str(row.unit.job.shot), "section": f"{row.done} of {wanted}"}
        shown.append({**place, "worker": row.worker, "left": left, "retries": str(film.retries)})
    films = list(work.progress.values())
    made = sum(len(film.made) for film in films)
    missing = sum(film.film.sections - film.done for film in films if not film.over)
    pace = f"; about {duration((now - begun) / made * missing)} left" if made and missing else ""
    text = batch_text(films) + pace
    return Grid(shown, keys="film", left="worker", wraps="film", caption=text) if shown else Text(text)


def costs_table(costs: Sequence[Cost], films: Sequence[Film]) -> RenderableType:
    """A row per shot that is not done: passes counted, memory (full .. offload) and an H200's time by estimate."""
    rows = []
    for cost in costs:
        gigabytes = " .. ".join(f"{size / 2**30:.1f}" for size in reversed(cost.memory)) if cost.memory else "-"
        counts = {"sections": str(cost.sections), "passes": _span(cost.passes, "d"), "GPU GiB": gigabytes}
        minutes = "-" if cost.seconds is None else _span([seconds / 60 for seconds in cost.seconds], ".1f")
        rows.append({"film": cost.film, "shot": str(cost.shot), **counts, "H200 minutes": minutes})
    sections, there = sum(cost.sections for cost in costs), sum(film.whole for film in films)
    caption = f"{len(rows)} shots, {sections} sections of {len(films) - there} films; {there} are there; GiB (full .. "
    caption += "offload) and minutes are estimates by count"
    return Grid(rows, keys="film", wraps="film", caption=caption) if rows else Text(caption)


def ahead_table(rows: Sequence[Ahead]) -> Grid:
    """A row per arm of a sweep: films, passes, and an H200's hours by estimate; the sums below."""
    shown = [
        {"arm": row.arm, "films": str(row.films), "passes": _span(row.passes, "d"), "H200 hours": _hours(row.hours)}
        for row in rows
    ]
    passes = [sum(row.passes[bound] for row in rows) for bound in (0, 1)]
    known = [row.hours for row in rows if row.hours]
    hours = _hours([sum(each[bound] for each in known) for bound in (0, 1)] if known else None)
    caption = f"{_span(passes, 'd')} passes, {hours} hours of an H200 by count, without encoding and decoding"
    return Grid(shown, keys="arm", wraps="arm", caption=caption)


def _hours(hours: Sequence[float] | None) -> str:
    if hours is None:
        return "-"
    return _span(hours, ".1f") if max(hours) >= 0.05 else "under 0.1"


def ledger_table(entries: Sequence[LedgerEntry]) -> RenderableType:
    """A row per film, those first that are not done."""
    states = Counter(entry.state for entry in entries)
    caption = ", ".join(f"{count} {state}" for state, count in states.items()) or "there is no film"
    ordered = sorted(entries, key=lambda entry: entry.state == "done")
    rows = [
        {"film": e.name, "state": e.state, "sections": f"{e.done} of {e.sections}", "who, why": e.who or e.why or "-"}
        for e in ordered
    ]
    return Grid(rows, keys="film", left="state", wraps="film, who, why", caption=caption) if rows else Text(caption)


def batch_text(films: Sequence[Progress]) -> str:
    """How many films stand how, and what is left of them."""
    states = Counter(film.state for film in films)
    said = [f"{states[state]} {state}" for state in ("failed", "cancelled", "at work", "waiting") if states[state]]
    sections = sum(film.done for film in films), sum(film.film.sections for film in films)
    counts = ", ".join([f"{states['done']} of {len(films)} films done", *said])
    return f"{counts}; {sections[0]} of {sections[1]} sections"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as they matter."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def models_table(entries: Sequence[tuple[Entry, bool]]) -> Table:
    """A row per model, whose facts stand in lines so that repositories can be copied."""
    table = Table("name", "what", **LOOK)
    for entry, there in entries:
        place = "on disk" if there else "not on disk"
        size = f"about {entry.gigabytes:g} GB, {place}" if entry.gigabytes else place
        origins = [f"from {repository}" for repository in entry.repositories]
        table.add_row(entry.name, "\n".join([entry.about, size, *origins, entry.licence]))
        table.add_section()
    return table


def model_text(entry: Entry, there: bool, card: Mapping[str, Any]) -> Table:
    """One model in full: its facts and the places of its parts."""
    table = Table(show_header=False, box=None)
    rows = [("name", entry.name), ("what", entry.about), ("licence", entry.licence), ("on disk", _yes(there))]
    rows += [(part, f"{repository} {subfolder}".strip()) for part, (repository, subfolder) in entry.places.items()]
    rows += [(key, str(value)) for key, value in card.items()]
    for key, value in rows:
        table.add_row(key, value)
    return table


def evaluation_table(rows: Sequence[Mapping[str, Any]]) -> Grid:
    """A row per film or scene; figures of missing instruments are dashes."""
    from ..evaluate.statistics import FIGURES, figures_of

    found, shown = [figures_of(row) for row in rows], []
    others = [name for name in FIGURES if name not in OWN_WAY and any(name in figures for figures in found)]
    for row, figures in zip(rows, found, strict=True):
        motion, action = row["motion"], row.get("action", {})
        targets = [f"{label} {p['best']:.2f} ({p['mean']:.2f})" for label, p in action.get("targets", {}).items()]
        cells = {
            "film": str(row["film"]),
            "scene": row["scene"],
            "motion": f"{motion['mean']:.3f}",
            f"in{KEEP}1.2{KEEP}s": f"{motion['at_once']:.3f}",
            "dynamic": _yes(motion["dynamic"]),
            "action": action and f"{action['named']} {action['top'].get(action['named'], 0.0):.2f}",
            "targets": "\n".join(targets),
            "text": "text" in row and f"{row['text']['score']:.1f}",
            **{name: name in figures and f"{figures[name]:.3f}" for name in others},
            "fails": next((kind for kind, true in row.get("failures", {}).items() if true), ""),
        }
        shown.append({name: cell or "-" for name, cell in cells.items()})
    caption = "motion in short sides a second, camera taken out; action: its best window"
    return Grid(shown, keys="film, scene", left="fails", wraps="action, targets", caption=caption)


def sweep_table(cells: Sequence[Cell]) -> Grid:
    """A row per arm: means; of action and motion the interval too, and the share of pairs won against the first arm."""
    wanted = ("target", "motion", "identity", "border", "perceptual", "forwards", "seconds")
    names = [name for name in wanted if name in cells[0].figures]
    rows = []
    for cell in cells:
        row = {"arm": cell.arm, "films": str(cell.films)}
        for name in names:
            figure = cell.figures.get(name)
            more = f" {figure.span(2)} {figure.wins:.2f}" if figure and name in names[:2] else ""
            row[name] = f"{figure.mean:.2f}{more}" if figure else "-"
        fails = [f"{kind} {share:.2f}" for kind, share in cell.failures.items() if share]
        rows.append({**row, "fails": ", ".join(fails) or "-"})
    caption = "means; of the first two a 95 % bootstrap interval and the share of pairs won against the first arm"
    return Grid(rows, keys="arm", wraps=", ".join(["arm", *names[:2], "fails"]), caption=caption)


def _span(bounds: Sequence[float], form: str) -> str:
    """At least and at most, once where they are the same."""
    return " .. ".join(dict.fromkeys(f"{bound:{form}}" for bound in bounds))


def _relaxed(section: SectionPlan, row: Mapping[str, Any]) -> str:
    """How a section was sampled; of an ensured one, after how many tries and what it shows."""
    tries = row.get("tries", ())
    said = [f"{tried['relaxed']}: {tried['found']}" for tried in tries if tried["kept"]]
    return f"{said[0]}, {len(tries)} {'try' if len(tries) == 1 else 'tries'}" if said else section.relaxation.in_words()


def _yes(there: bool) -> str:
    return "yes" if there else "no"


def _asked(scene: SceneTiming) -> dict[str, str]:
    seconds = f"{scene.asked_seconds:g}{KEEP}s{KEEP}-> {scene.real_seconds:.2f}{KEEP}s"
    return {"scene": scene.scene, "asked -> real": seconds}


def _scales(section: SectionPlan) -> str:
    """First and last scale of what guides at all, a line each; context only where it is loosened."""
    shown = []
    for name, values in section.scales.items():
        if set(values) != {1.0}:
            span = f"{values[0]:.2f}..{values[-1]:.2f}" if values[0] != values[-1] else f"{values[0]:g}"
            shown.append(f"{name} {span}")
    return "\n".join(shown)
