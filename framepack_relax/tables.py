"""What the command line shows, as tables by rich."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from .families.catalog import Entry
from .planning.renderplan import RenderPlan, SceneTiming, SectionPlan
from .rendering.folder import NOT_THERE, Verdict
from .rendering.status import Status
from .storyboard.images import cut_away

if TYPE_CHECKING:
    from .evaluate.statistics import Cell

KEEP = "\u00a0"  # a space at which no line ends
MOST_ROWS = 200  # of a table
NARROW, TALL = 1 / 3, 4  # a table that gets less than this share of what it wants, and rows of more lines, is none
SHOWN = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\n"}
MOST_SINGLE = 40  # scenes that `status` shows one by one


class Screen(Console):
    """A console that nobody's text can steer: control characters are shown by their numbers. No markup and no emoji:
    titles, prompts and paths may hold square brackets and colons."""

    def __init__(self, **more: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **more)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for part in super().render(renderable, options):
            yield part if part.control else Segment(part.text.translate(SHOWN), part.style)


class Grid:
    """Rows of texts under named columns, as wide as they need to be and the console is.

    `left` stand to the left; `wraps` do so too and go on in the next line at a space, but not at a no-break space. No
    word and no figure is broken: where a row does not fit, it is a block of lines under its `keys`. Of very many rows
    the first and the last are shown.
    """

    def __init__(
        self, columns: str, *, keys: str = "scene", left: str = "", wraps: str = "", title: str = "", caption: str = ""
    ) -> None:
        self.columns, self.keys, self.wraps = columns.split(", "), keys.split(", "), wraps.split(", ")
        self.left = {*left.split(", "), *self.keys, *self.wraps}
        self.title, self.caption = title or None, caption or None
        self.rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        self.rows.append(tuple(map(_tidy, cells)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows, more = self.rows, len(self.rows) - MOST_ROWS
        if more > 0:
            gap = tuple(f"{more} more" if name in self.keys else "..." for name in self.columns)
            rows = [*rows[: MOST_ROWS // 2], gap, *rows[-MOST_ROWS // 2 :]]
        widths = self._widths(rows, options.max_width)
        if widths is None:
            yield from self._blocks(rows)
            return
        look: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False}
        table = Table(**look, title=self.title, caption=self.caption)
        for name, width in zip(self.columns, widths, strict=True):
            justify: JustifyMethod = "left" if name in self.left else "right"
            table.add_column(_spaced(name), justify=justify, width=width, overflow="fold")
        for row in rows:
            table.add_row(*(_spaced(_in_lines(cell, width)) for cell, width in zip(row, widths, strict=True)))
        yield table

    def _widths(self, rows: Sequence[tuple[str, ...]], width: int) -> list[int] | None:
        """What each column needs, or has of too little, shared by need.

        None where the longest words do not fit, or only in ladders of short lines.
        """
        least, most = [], []
        for place, name in enumerate(self.columns):
            lines = [line for row in rows for line in row[place].split("\n")]
            words = [word for line in lines for word in line.split(" ")] if name in self.wraps else lines
            most.append(max(map(cell_len, [name, *lines])))
            least.append(max(map(cell_len, [*name.split(" "), *words])))
        wanted, spare = sum(most) - sum(least), width - sum(least) - 2 * len(least) - 1  # rules and padding
        if spare < 0:
            return None
        share = min(1.0, spare / max(wanted, 1))
        widths = [low + int((high - low) * share) for low, high in zip(least, most, strict=True)]
        tallest = max(high / width for high, width in zip(most, widths, strict=True))
        return None if share < NARROW and tallest > TALL else widths

    def _blocks(self, rows: Sequence[tuple[str, ...]]) -> RenderResult:
        if self.title:
            yield Text(self.title, style="italic")
        for row in rows:
            said = {name: value.replace("\n", ", ") for name, value in zip(self.columns, row, strict=True)}
            yield Text("  ".join(said.pop(key) for key in self.keys), style="bold", overflow="fold")
            facts = [f"{name} {value}" for name, value in said.items() if value not in ("", "-", "...")]
            yield Padding(Text(_spaced("; ".join(facts)), overflow="fold"), (0, 0, 0, 2))
        if self.caption:
            yield Text(self.caption, style="dim")


def _tidy(text: str) -> str:
    """Lines without spaces around them, and single ones between words, so that lengths are what is seen."""
    return "\n".join(re.sub("[ \t]+", " ", line).strip(" ") for line in text.split("\n"))


def _in_lines(text: str, width: int) -> str:
    """With line ends at spaces, but at no no-break spaces, so that no line is wider; rich would break at both."""
    lines: list[str] = []
    for line in text.split("\n"):
        lines.append("")
        for word in line.split(" "):
            longer = f"{lines[-1]} {word}".lstrip(" ")
            if lines[-1] and cell_len(longer) > width:
                lines.append(word)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def _spaced(text: str) -> str:
    return text.replace(KEEP, " ")


def plan_table(plan: RenderPlan) -> Grid:
    """A row per scene with every rounding shown."""
    asked = sum(scene.asked_seconds for scene in plan.scenes)
    order = f", {plan.options['order']} order" if "order" in plan.options else ""
    table = Grid(
        "shot, scene, asked -> real, sections, frames, intensity, relaxed, scales",
        left="frames",
        wraps="asked -> real, relaxed, scales",
        title=f"{plan.title or 'untitled'}: {plan.model}, {plan.size[0]}x{plan.size[1]}{order}",
        caption=f"asked {asked:g} s -> {plan.seconds:.2f} s, {len(plan.sections)} sections, {plan.frames} frames at "
        f"{plan.fps:g} fps, {plan.steps} steps of {plan.sampler}, profile {plan.profile}",
    )
    for scene in plan.scenes:
        last = plan.sections[scene.sections[-1]]
        table.add_row(
            str(scene.shot + 1),
            scene.scene,
            _rounding(scene),
            str(len(scene.sections)),
            f"{scene.frames[0]}..{scene.frames[1] - 1}",
            f"{last.intensity:g}",
            last.relaxation.in_words(),
            _scales(last),
        )
    return table


def prompts_table(plan: RenderPlan) -> Grid:
    """What the model reads of each scene: the prompt with the style, and a negative prompt where it is used."""
    table = Grid("scene, what the model reads", wraps="what the model reads")
    for scene in plan.scenes:
        section = plan.sections[scene.sections[0]]
        negative = section.negative_prompt if set(section.scales.get("text", ())) - {1.0} else ""
        table.add_row(scene.scene, section.prompt + (f"\nnot: {negative}" if negative else ""))
    return table


def crops_text(plan: RenderPlan) -> str:
    """A line per start image: what the centre crop to the film's size cuts away of it."""
    said = []
    for image, size in {str(shot.image): shot.image_size for shot in plan.shots}.items():
        share, sides = cut_away(size, plan.size)
        cut = f"{share:.0%} is cut away, {sides}" if share >= 0.005 else "nothing is cut away"
        said.append(f"{image}, {size[0]}x{size[1]} px: {cut}")
    more = [f"and {len(said) - MOST_ROWS} more start images"] if len(said) > MOST_ROWS else []
    return "\n".join([*said[:MOST_ROWS], *more])


def report_table(plan: RenderPlan, report: Mapping[str, Any]) -> Grid:
    """A row per scene of a finished film: asked and real seconds, settings, forward passes, seconds spent."""
    columns = "scene, asked -> real, relaxed, passes, motion, seam, seconds"
    table = Grid(columns, wraps="asked -> real, relaxed", title=plan.title)
    for scene in plan.scenes:
        rows = [report["sections"][index] for index in scene.sections]
        forwards = sum(sum(row["forwards"].values()) for row in rows)
        table.add_row(
            scene.scene,
            _rounding(scene),
            plan.sections[scene.sections[-1]].relaxation.in_words(),
            "kept" if all(row["reused"] for row in rows) else str(forwards),
            f"{sum(row['motion'] for row in rows) / len(rows):.3f}",
            f"{max(row['seam'] for row in rows):.1f}",
            f"{sum(sum(row['seconds'].values()) for row in rows):.1f}",
        )
    return table


def totals_text(totals: Mapping[str, Any]) -> str:
    """A finished film's length, and what it cost."""
    length = f"{totals['film_seconds']:.2f} s, {totals['frames']} frames"
    return f"{length}, rendered in {totals['seconds']:.0f} s, peak {totals['peak_bytes'] / 2**30:.1f} GB"


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


def status_table(status: Status) -> Grid:
    """A row per scene with its sections on disk; of very many, a row for all that are done, or not begun, in a row."""
    table = Grid("scene, on disk", title=status.title)
    for _, group in groupby(status.scenes, key=_state if len(status.scenes) > MOST_SINGLE else id):
        names, done, total = zip(*group, strict=True)
        name = names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]} ({len(names)} scenes)"
        table.add_row(name, f"{sum(done)} of {sum(total)}")
    return table


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
        said.append(str(status.film))
    return "\n".join(said)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as they matter."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def models_table(entries: Sequence[tuple[Entry, bool]]) -> Table:
    """A row per model, whose facts stand in lines so that repositories can be copied."""
    table = Table("name", "what", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
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


def evaluation_table(rows: Sequence[Mapping[str, Any]]) -> Grid:
    """A row per film or scene; figures of missing instruments are dashes."""
    columns = f"film, scene, motion, in{KEEP}1.2{KEEP}s, dynamic, action, targets, text, lpips, drift, fails"
    caption = "motion in short sides a second, camera taken out; action: its best window"
    table = Grid(columns, keys="film, scene", left="fails", wraps="action, targets", caption=caption)
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


def sweep_table(cells: "Sequence[Cell]") -> Grid:
    """A row per arm: means; of action and motion the interval too, and the share of pairs won against the first arm."""
    names = [n for n in ("target", "motion", "identity", "jump", "forwards", "seconds") if n in cells[0].figures]
    caption = "means; of the first two a 95 % bootstrap interval and the share of pairs won against the first arm"
    columns = ", ".join(["arm", "films", *names, "fails"])
    table = Grid(columns, keys="arm", wraps=", ".join(["arm", *names[:2], "fails"]), caption=caption)
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


def _rounding(scene: SceneTiming) -> str:
    return f"{scene.asked_seconds:g}{KEEP}s{KEEP}-> {scene.real_seconds:.2f}{KEEP}s"


def _scales(section: SectionPlan) -> str:
    """First and last scale of what guides at all, a line each; context only where it is loosened."""
    shown = []
    for name, values in section.scales.items():
        if set(values) != {1.0}:
            span = f"{values[0]:.2f}..{values[-1]:.2f}" if values[0] != values[-1] else f"{values[0]:g}"
            shown.append(f"{name} {span}")
    return "\n".join(shown)
