"""What is seen of a render: a bar; where nobody sees one, a line for every section."""

from __future__ import annotations

import time
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import tables
from .app import dim, warn
from .screen import Screen

if TYPE_CHECKING:
    from ..planning.renderplan import RenderPlan
    from ..rendering.events import Event


class Bar:
    """Hears the events of a film or of one of its shots.

    With `openjd` progress and state are lines that a worker of Open Job Description understands.
    """

    def __init__(self, plan: RenderPlan, console: Screen, *, openjd: bool = False) -> None:
        self.plan, self.console, self.openjd = plan, console, openjd
        section = TextColumn("section {task.fields[section]} of {task.fields[sections]}")
        step, left = TextColumn("step {task.completed}/{task.total}"), TextColumn("ETA")
        times = TimeElapsedColumn(), left, TimeRemainingColumn()
        self.watched, self.shown = console.watched, ""
        columns = section, dim("scene"), BarColumn(), step, *times
        self.bar = Progress(*columns, console=console, disable=not self.watched)
        self.done, self.total, self.clock = 0, len(plan.sections), time.monotonic()
        self.begins: dict[int, int] = {}  # step at which each section that is to be rendered begins

    def __enter__(self) -> Bar:
        self.bar.start()
        shown: dict[str, Any] = {"section": 1, "sections": self.total, "scene": "loading the model"}
        self.task = self.bar.add_task("", total=self.plan.steps, **shown)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def hear(self, event: Event) -> None:
        section = self.plan.sections[event.section or 0]
        match event.kind:
            case "note" | "warning":
                warn(event.text)
            case "verdicts":
                self._verdicts(event)
            case "step" if event.step is not None:
                steps = self.begins[section.index] + event.step + 1
                steps = max(steps, int(self.bar.tasks[self.task].completed))  # a second try begins anew
                self.bar.update(self.task, completed=steps, scene=section.scene)
                if self.openjd:
                    share = steps / (self.bar.tasks[self.task].total or 1)
                    self.console.aside(f"openjd_progress: {100 * share:.1f}", soft_wrap=True)
            case "plan" if event.plan:
                self.plan = event.plan
            case "preview" if event.text != self.shown and not self.openjd:
                self.shown = event.text  # told again when it is made otherwise
                self.console.aside(event.text, soft_wrap=True)
            case "try" | "take" if not self.openjd:
                self.console.aside(event.text, soft_wrap=True)
            case "section":
                self._section(event)

    def _verdicts(self, event: Event) -> None:
        from ..rendering.folder import Verdict

        verdicts = [Verdict(self.plan.sections[index], why, note) for index, why, note in event.verdicts]
        if line := tables.verdict_line(verdicts):
            self.console.aside(line, soft_wrap=True)
        anew = {section.index: len(section.steps) for section, why, _ in verdicts if why is not None}
        self.begins = dict(zip(anew, accumulate(anew.values(), initial=0), strict=False))
        self.done, self.total = 0, len(verdicts)
        self.bar.update(self.task, completed=0, total=sum(anew.values()), sections=self.total)

    def _section(self, event: Event) -> None:
        section = self.plan.sections[event.section or 0]
        self.done += 1
        scene = "writing the film" if self.done == self.total else section.scene
        self.bar.update(self.task, section=min(self.done + 1, self.total), scene=scene)
        line = f"section {self.done} of {self.total}: scene {section.scene}"
        if self.openjd:
            self.console.aside(f"openjd_status: {line}", soft_wrap=True)
        elif not self.watched and section.index in self.begins:
            self.console.aside(f"{line}, {tables.duration(time.monotonic() - self.clock)}", soft_wrap=True)
        if event.seed != section.seed:
            self.console.aside(f"section {section.index} took another seed: its latents were not finite")
