"""Progress while a command runs: a bar on a terminal, a line for each stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import click
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from ..progress import Progress, State
from ..redaction import printable
from .screen import console

BAR_WIDTH = 24
"""Columns. With the percentage and the clock before it, half of a narrow terminal is left for the stage."""


class PipedProgress(Progress):
    """A line for each stage."""

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self._quiet = quiet
        self._told = ""

    def show(self, state: State) -> None:
        """Print the stage, unless it was the last one printed."""
        if not self._quiet and state.stage != self._told:
            self._told = state.stage
            click.echo(printable(state.stage), err=True)

    def __enter__(self) -> PipedProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class TerminalProgress(Progress):
    """A bar, a clock and the current stage, on one line of any terminal's width."""

    def __init__(self) -> None:
        super().__init__()
        columns = (
            BarColumn(bar_width=BAR_WIDTH),
            _Percentage(table_column=Column(width=4, justify="right")),
            _Clock(table_column=Column(min_width=7)),
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        )
        self._bar = Bar(*columns, console=console(stderr=True), transient=True, expand=True)
        self._task = self._bar.add_task("starting", total=None)

    def show(self, state: State) -> None:
        """Move the bar."""
        words = state.stage + (f": {state.detail}" if state.detail else "")
        self._bar.update(self._task, description=printable(words), total=state.total, completed=state.done)

    @contextmanager
    def paused(self) -> Generator[None]:
        """Leave the terminal to a question; the bar runs on after it, unless the block raises."""
        self._bar.stop()
        yield
        self._bar.start()

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class _Percentage(ProgressColumn):
    """Empty as long as nobody knows how much there is to do."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.percentage:.0f}%")


class _Clock(ProgressColumn):
    """The time since the command began. rich's own clock stops when a task is at 100 %, as after each stage."""

    def __init__(self, table_column: Column) -> None:
        super().__init__(table_column)
        self._began = time.monotonic()

    def render(self, task: Task) -> Text:
        return Text(str(timedelta(seconds=int(time.monotonic() - self._began))))
