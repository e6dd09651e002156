"""What people see on a terminal: progress while a command runs, and its result in tables and plain lines."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from .. import summaries
from ..models.common import Model
from ..models.results import Integrity, Listing
from ..models.verification import Verification
from ..progress import Progress, State
from ..redaction import printable, printable_json
from .next_command import command_line


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
    """A bar for the current stage."""

    def __init__(self) -> None:
        super().__init__()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("starting", total=None)

    def show(self, state: State) -> None:
        """Move the bar."""
        words = state.stage + (f": {state.detail}" if state.detail else "")
        self._bar.update(self._task, description=printable(words), total=state.total, completed=state.done)

    def pause(self) -> None:
        """Leave the terminal to a question."""
        self._bar.stop()

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


# -- what is printed -------------------------------------------------------------------------------------------------

TABLE_WIDTH = 120
"""Columns: with fewer a table of backups would cut off their names, which other commands ask for."""


def print_result(result: Model, as_json: bool) -> None:
    """Print a result on stdout: as JSON; on a terminal listings in tables; else plain lines."""
    if as_json:
        click.echo(printable_json(result.model_dump_json(indent=1, by_alias=True)))
    elif sys.stdout.isatty() and isinstance(result, Listing):
        _print_listing(result)
    elif sys.stdout.isatty() and isinstance(result, Verification):
        _print_verification(result)
    else:
        click.echo(summaries.describe(result, command_line))
        if sys.stdout.isatty() and isinstance(result, Integrity) and result.tables:
            _print_tables(result)


def _print_listing(listing: Listing) -> None:
    console = Console()
    if console.width < TABLE_WIDTH:
        click.echo(summaries.describe(listing, command_line))
        return
    names = [item.name for item in (*listing.backups, *(listing.undo_points or []))]
    table = Table(title=Text(printable(listing.directory)))
    table.add_column("backup", min_width=max(map(len, names), default=0))
    for title in ("age", "size", "state", "rows", "label / detail"):
        table.add_column(title, overflow="fold")
    for item in listing.backups:
        rows = "" if item.rows is None else f"{item.rows:,}"
        marks = "; ".join(summaries.marks(item))
        _add_row(table, item.name, summaries.age(item.age_seconds), summaries.size(item.bytes), item.state, rows, marks)
    for point in listing.undo_points or []:
        made = f"{point.created_at:%Y-%m-%d %H:%M} UTC"
        size = "" if point.bytes is None else summaries.size(point.bytes)
        _add_row(table, point.name, "", size, "undo point", "", made)
    console.print(table)
    for line in summaries.calls(listing.log):
        console.print(printable(line), markup=False, highlight=False)
    for warning in listing.warnings:
        console.print(f"Warning: {printable(warning)}", style="yellow", markup=False)
    for line in summaries.timeline(listing.weeks):
        console.print(line, markup=False, highlight=False)


def _print_tables(result: Integrity) -> None:
    table = Table("table", "estimated rows", "size")
    for item in result.tables:
        rows = "?" if item.estimated_rows is None else f"{item.estimated_rows:,}"
        _add_row(table, f"{item.schema_}.{item.name}", rows, summaries.size(item.bytes))
    Console().print(table)


def _print_verification(result: Verification) -> None:
    table = Table("check", "holds", "expected", "found", "detail", title=Text(printable(result.name)))
    for check in result.checks:
        holds = {True: "yes", False: "NO", None: "-"}[check.ok]
        _add_row(table, check.check, holds, check.expected, check.found, check.detail)
    Console().print(table)
    click.echo(summaries.describe(result, command_line))


def _add_row(table: Table, *cells: str) -> None:
    """Add cells as they are: a label may look like rich's markup."""
    table.add_row(*(Text(printable(cell)) for cell in cells))
