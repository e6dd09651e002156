"""A command's result: as JSON, in plain lines, or on a terminal in tables and colours."""

from __future__ import annotations

import sys

import click
from rich.console import Console

from .. import summaries
from ..models.common import Model
from ..models.results import Integrity, Listing, Prune
from ..models.verification import Check, Verification
from ..redaction import printable, printable_json
from ..wording import size
from .common_options import MOST_LISTED
from .next_command import command_line
from .screen import Rows, console, show_lines, show_table
from .setting_names import as_used


def print_result(result: Model, as_json: bool) -> None:
    """Print a result on stdout: as JSON; on a terminal with tables and colours; else in plain lines."""
    if as_json:
        click.echo(printable_json(result.model_dump_json(indent=1, by_alias=True)))
        return
    if isinstance(result, Prune):
        result = _for_people(result)
    text = as_used(summaries.describe(result, command_line))
    if isinstance(result, Listing):
        text = _with_more(text, result)
    if not sys.stdout.isatty():
        click.echo(text)
        return
    screen = console()
    if isinstance(result, Listing):
        _show_listing(screen, result, text)
    elif isinstance(result, Prune):
        _show_prune(screen, result, text)
    else:
        if isinstance(result, Verification):
            _show_checks(screen, result)
        show_lines(screen, text)
        if isinstance(result, Integrity) and result.tables:
            _show_tables(screen, result)


def print_lines(text: str) -> None:
    """Print lines about the settings of this machine, which are named as the person sets them."""
    if sys.stdout.isatty():
        show_lines(console(), as_used(text))
    else:
        click.echo(printable(as_used(text)))


def print_on_stderr(text: str) -> None:
    """Print an error or a question."""
    if sys.stderr.isatty():
        show_lines(console(stderr=True), text)
    else:
        click.echo(printable(text), err=True)


def _with_more(text: str, listing: Listing) -> str:
    """Say below the backups how to see those that are not listed."""
    more = listing.total_backups - sum(item.state != "partial" for item in listing.backups)
    if more <= 0:
        return text
    lines, names = text.splitlines(), tuple(f"{printable(item.name)}  " for item in listing.backups)
    listed = [number for number, line in enumerate(lines) if line.startswith(names)] or [len(lines) - 1]
    lines.insert(listed[-1] + 1, f"{more} more: --limit {min(listing.total_backups, MOST_LISTED)}")
    return "\n".join(lines)


def _show_listing(screen: Console, listing: Listing, text: str) -> None:
    cells: list[list[str]] = []
    narrow: list[str] = []
    for item in listing.backups:
        rows = "" if item.rows is None else f"{item.rows:,}"
        marks = "; ".join(summaries.marks(item))
        cells.append([item.name, summaries.age(item.age_seconds), size(item.bytes), item.state, rows, marks])
        narrow.append(summaries.listed(item).removeprefix(item.name).strip())
    for point in listing.undo_points or []:
        made = f"{point.created_at:%Y-%m-%d %H:%M} UTC"
        space = "" if point.bytes is None else size(point.bytes)
        cells.append([point.name, "", space, "undo point", "", made])
        narrow.append("  ".join(filter(None, ["undo point", space, made])))
    table = Rows(("backup", "age", "size", "state", "rows", "label / detail"), cells, narrow, right=(1, 2, 4))
    _show_with_table(screen, text, table)


def show_what_goes(would: Prune) -> None:
    """Show on stderr what a prune would remove, and why, before it is asked for."""
    would = _for_people(would).model_copy(update={"remedy": None})
    _show_prune(console(stderr=True), would, as_used(summaries.describe(would, command_line)))


def _for_people(result: Prune) -> Prune:
    """Leave out what an agent does with a dry run."""
    if result.confirmation is None:
        return result
    return result.model_copy(
        update={"confirmation": None, "remedy": "Without --dry-run, it asks and then removes them."}
    )


def _show_prune(screen: Console, result: Prune, text: str) -> None:
    sizes = ["unknown" if item.bytes is None else size(item.bytes) for item in result.items]
    cells = [[item.name, space, item.action, item.reason] for item, space in zip(result.items, sizes, strict=True)]
    narrow = [f"{space}  {action}: {reason}" for _, space, action, reason in cells]
    table = Rows(("backup", "size", "what happens", "why"), cells, narrow, right=(1,))
    _show_with_table(screen, text, table)


def _show_with_table(screen: Console, text: str, table: Rows) -> None:
    """Print a summary, with a table in place of its lines about what is in the table."""
    lines = text.splitlines()
    names = [printable(name) for name, *_ in table.cells]
    beginnings = (*(f"{name}  " for name in names), *(f"undo point {name}" for name in names))
    replaced = [number for number, line in enumerate(lines) if line.startswith(beginnings)]
    first = replaced[0] if replaced else len(lines)
    show_lines(screen, "\n".join(lines[:first]))
    if table.cells:
        show_table(screen, table)
    show_lines(
        screen, "\n".join(line for number, line in enumerate(lines) if number > first and number not in replaced)
    )


def _show_tables(screen: Console, result: Integrity) -> None:
    counts = ["?" if item.estimated_rows is None else f"{item.estimated_rows:,}" for item in result.tables]
    cells = [
        [f"{item.schema_}.{item.name}", count, size(item.bytes)]
        for item, count in zip(result.tables, counts, strict=True)
    ]
    narrow = [f"rows, estimated: {count}  {space}" for _, count, space in cells]
    show_table(screen, Rows(("table", "estimated rows", "size"), cells, narrow, right=(1, 2)))


def _show_checks(screen: Console, result: Verification) -> None:
    holds = {True: "yes", False: "NO", None: "-"}
    cells = [[check.check, holds[check.ok], _found(check)] for check in result.checks]
    narrow = [f"{holds}  {found}" for _, holds, found in cells]
    show_table(screen, Rows(("check", "holds", "found"), cells, narrow, title=result.name))


def _found(check: Check) -> str:
    """What a check found, and what it should have found if it did not."""
    wanted = (
        f"{check.found or 'nothing'}, not {check.expected}" if check.ok is False and check.expected else check.found
    )
    return "; ".join(filter(None, [wanted or (check.expected if check.ok else ""), check.detail]))
