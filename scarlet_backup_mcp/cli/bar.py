"""Progress while a command runs: a bar on a terminal, a line for each stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import click
from rich.console import RenderableType
from rich.progress import Progress as Bar
from rich.progress import ProgressColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
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
            _Whole(self),
            _Clock(table_column=Column(min_width=7)),
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        )
        self._bar = Bar(*columns, console=console(stderr=True), transient=True, expand=True)
        self._task = self._bar.add_task("starting")

    def show(self, state: State) -> None:
        """Name the stage. The bar moves by itself."""
        words = state.stage + (f": {state.detail}" if state.detail else "")
        self._bar.update(self._task, description=printable(words))

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


class _Whole(ProgressColumn):
    """How much of the whole call is done: a bar, and in figures."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def render(self, task: Task) -> RenderableType:
        done = self._progress.fraction
        row = Table.grid(Column(width=BAR_WIDTH), Column(width=5, justify="right"))
        row.add_row(ProgressBar(total=1, completed=done, width=BAR_WIDTH), Text(f"{done:.0%}"))
        return row


class _Clock(ProgressColumn):
    """The time since the command began. rich's own clock stops when a task is at 100 %."""

    def __init__(self, table_column: Column) -> None:
        super().__init__(table_column)
        self._began = time.monotonic()

    def render(self, task: Task) -> Text:
        return Text(str(timedelta(seconds=int(time.monotonic() - self._began))))
