"""The face for people and schedulers: the same procedures on a terminal.

Exit codes: 0 good; 1 a bad result (a backup that is not valid, a database that is not healthy, a backup on which
PROC-003 must not go ahead); 2 it could not be done, or the command line is wrong; 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import logging
import re
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from . import __version__, texts
from .errors import BackupToolError, Cancelled, ConfirmationNeeded, InternalError
from .models import (
    Backup,
    BackupLevel,
    CodePage,
    Compression,
    ErrorReport,
    Integrity,
    Kind,
    Level,
    Listing,
    Model,
    Repaired,
    Restore,
    Verification,
)
from .procedures import backup as backups
from .procedures import catalogue, integrity, verify
from .procedures import repair as repairs
from .procedures import restore as restores
from .procedures.sources import Wishes
from .procedures.target import Target
from .progress import Progress, State
from .settings import PREFIX, Settings, load_settings

F = TypeVar("F", bound=Callable[..., Any])
BAD, IMPOSSIBLE, STOPPED = 1, 2, 130
log = logging.getLogger(__name__)


def _settings_options(command: F) -> F:
    """Each setting as an option of the command."""
    for name, field in reversed(Settings.model_fields.items()):
        choice = click.Choice(get_args(field.annotation)) if get_origin(field.annotation) is Literal else str
        help_text = f"{field.description} [{PREFIX}{name.upper()}]"
        command = click.option(f"--{name.replace('_', '-')}", f"setting_{name}", type=choice, help=help_text)(command)
    return command


def _output_options(command: F) -> F:
    command = click.option("--json", "as_json", is_flag=True, help="The whole result as JSON on stdout.")(command)
    return click.option("--quiet", is_flag=True, help="No progress on stderr.")(command)


def _code_page_option(command: F) -> F:
    def number(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
        return None if value is None else int(value)

    return click.option(
        "--code-page",
        type=click.Choice([str(page) for page in get_args(CodePage)]),
        callback=number,
        help="For a file of PowerShell's whose code page can't be told: the one whose words read right.",
    )(command)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scarlet-backup-mcp")
@click.pass_context
def main(context: click.Context) -> None:
    """Back up, verify and restore Scarlet's PostgreSQL memory. Without a command: serve MCP over stdio."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if context.invoked_subcommand is None:
        context.invoke(serve)


@main.command()
@_settings_options
def serve(**options: Any) -> None:
    """Serve MCP over stdio, for an agent or an inspector."""
    with _errors(as_json=False):
        from .server import serve as serve_stdio  # takes most of a second to import: not for the other commands

        serve_stdio(_settings(options))


@main.command()
@click.option(
    "--kind",
    type=click.Choice(get_args(Kind)),
    default="sql",
    show_default=True,
    help="volume: every file of the server, as PROC-004's volume backup; of a stopped one a cold copy.",
)
@click.option("--label", help="Free text kept with the backup, 80 characters at most.")
@click.option(
    "--compression",
    type=click.Choice(get_args(Compression)),
    help="sql: none (the default) or zstd; volume: gzip (the default) or zstd.",
)
@click.option("--accept-smaller", is_flag=True, help="A loss of more than half of all rows is meant.")
@click.option(
    "--verify",
    type=click.Choice(get_args(BackupLevel)),
    default="full",
    show_default=True,
    help="drill: also restore it into a throw-away server and compare.",
)
@_output_options
@_settings_options
def backup(
    kind: Kind,
    label: str | None,
    compression: Compression | None,
    accept_smaller: bool,
    verify: BackupLevel,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Take a backup (PROC-004 steps 1 to 4). Exit code 1: it is there, but PROC-003 must not go ahead."""

    def work(target: Target, progress: Progress) -> Backup:
        return backups.backup(
            target,
            progress,
            kind=kind,
            label=label,
            compression=compression,
            accept_smaller=accept_smaller,
            verify=verify,
        )

    result = _run(work, options, as_json, quiet)
    sys.exit(0 if result.safe_to_proceed else BAD)


@main.command("verify")
@click.argument("backup", default="latest")
@click.option(
    "--level",
    type=click.Choice(get_args(Level)),
    default="full",
    show_default=True,
    help="drill: restore it into a throw-away server and compare.",
)
@_code_page_option
@click.option("--on-live-server", is_flag=True, help="Drill in a scratch database of the live server.")
@_output_options
@_settings_options
def verify_(
    backup: str,
    level: Level,
    code_page: CodePage | None,
    on_live_server: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Check a backup (PROC-004 step 4). Exit code 1: it is not valid, or a drill did not prove it."""

    def work(target: Target, progress: Progress) -> Verification:
        return verify.verify(target, progress, backup, level, code_page=code_page, on_live_server=on_live_server)

    result = _run(work, options, as_json, quiet)
    proved = level != "drill" or (result.drill is not None and result.drill.proved is True)
    sys.exit(0 if proved and (result.valid or (level == "drill" and result.foreign)) else BAD)


@main.command("repair")
@click.argument("backup")
@_code_page_option
@_output_options
@_settings_options
def repair_(backup: str, code_page: CodePage | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Write a clean copy of an old BACKUP that PowerShell re-encoded, with a manifest. The original stays as it is."""

    def work(target: Target, progress: Progress) -> Repaired:
        return repairs.repair(target, progress, backup, code_page=code_page)

    _run(work, options, as_json, quiet)


@main.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True)
@_output_options
@_settings_options
def list_(limit: int, as_json: bool, quiet: bool, **options: Any) -> None:
    """Show the backups and undo points there are, newest first."""
    _run(lambda target, _: catalogue.list_backups(target, limit), options, as_json, quiet)


@main.command()
@click.argument("backup")
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask. The named file is restored over the live database.")
@click.option("--accept-foreign", is_flag=True, help="Take a file without a manifest: it runs as superuser.")
@click.option("--accept-other-database", is_flag=True, help="Take a backup of another database or project.")
@click.option("--stop-dependents/--leave-dependents", default=True, show_default=True)
@click.option("--drop-oldest-undo", is_flag=True, help="Drop the oldest undo point when there are two.")
@click.option(
    "--drill/--no-drill",
    default=None,
    help="Try it out in a throw-away server first. [default: only a file that `backup` did not make]",
)
@_code_page_option
@_output_options
@_settings_options
def restore(
    backup: str,
    dry_run: bool,
    yes: bool,
    accept_foreign: bool,
    accept_other_database: bool,
    stop_dependents: bool,
    drop_oldest_undo: bool,
    drill: bool | None,
    code_page: CodePage | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Bring the database, or the whole volume, back from BACKUP: a file's name, an undo point's name, or `latest`."""
    wishes = Wishes(accept_foreign, accept_other_database, stop_dependents, drop_oldest_undo, drill, code_page)

    def work(target: Target, progress: Progress) -> Restore:
        if dry_run:
            return restores.dry_run(target, progress, backup, wishes)
        proposal = restores.propose(target, progress, backup, wishes)
        if not yes:
            _ask(progress, proposal.question, proposal.source)
        return restores.restore(target, progress, proposal.source, wishes, confirmed=proposal.confirms)

    _run(work, options, as_json, quiet)


@main.command("integrity")
@_output_options
@_settings_options
def integrity_(as_json: bool, quiet: bool, **options: Any) -> None:
    """Check container, server and database (PROC-004 step 5). Exit code 1: something is wrong."""
    result = _run(integrity.db_integrity, options, as_json, quiet)
    sys.exit(0 if result.healthy else BAD)


@main.command()
def demo() -> None:
    """Show backup, loss and restore on an embedded PostgreSQL, through the MCP server. Needs no Docker."""
    with _errors(as_json=False):
        from .demo.show import show

        sys.exit(0 if show() else BAD)


# -- how a command runs ----------------------------------------------------------------------------------------------

M = TypeVar("M", bound=Model)


def _run(work: Callable[[Target, Progress], M], options: dict[str, Any], as_json: bool, quiet: bool) -> M:
    with _errors(as_json):
        settings = _settings(options)
        progress = _TerminalProgress() if not quiet and sys.stderr.isatty() else _PipedProgress(quiet)
        with _signals(progress), progress, Target(settings) as target:
            result = work(target, progress)
        _print(result, as_json)
        return result


def _settings(options: dict[str, Any]) -> Settings:
    return load_settings(**{name.removeprefix("setting_"): value for name, value in options.items()})


def _ask(progress: Progress, question: str, name: str) -> None:
    if not sys.stdin.isatty():
        raise ConfirmationNeeded("A restore replaces the live database, and nobody can be asked here.", "Add --yes.")
    if isinstance(progress, _TerminalProgress):
        progress.pause()
    click.echo(question, err=True)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        typed = click.prompt(f"Type 'restore {name}' to go on", err=True, default="", show_default=False)
    except (click.Abort, KeyboardInterrupt, EOFError):
        raise Cancelled("It was stopped at the question; nothing was changed.") from None
    finally:
        signal.signal(signal.SIGINT, before)
    if typed != f"restore {name}":
        raise ConfirmationNeeded("It was not confirmed; nothing was changed.", "Run it again and type the words.")


@contextmanager
def _errors(as_json: bool) -> Any:
    try:
        yield
    except BackupToolError as error:
        _fail(error, as_json)
    except Exception as error:
        log.exception("failed")
        _fail(InternalError(f"It failed unexpectedly ({type(error).__name__})."), as_json)


def _fail(error: BackupToolError, as_json: bool) -> None:
    if as_json:
        click.echo(ErrorReport(code=error.code, message=error.message, remedy=error.remedy).model_dump_json(indent=1))
    click.echo(
        f"Error: {_for_terminal(error.message)}\nWhat to do: {_for_terminal(error.remedy)}\n({error.code})", err=True
    )
    sys.exit(STOPPED if isinstance(error, Cancelled) else IMPOSSIBLE)


def _for_terminal(text: str) -> str:
    """A remedy's parameters as options: "accept_foreign=true" is --accept-foreign here, "drill=false" --no-drill."""
    text = text.replace("with dry_run=false", "without --dry-run").replace("without code_page", "without --code-page")
    text = re.sub(r"code_page= ?", "--code-page ", text)
    text = text.replace("without on_live_server", "without --on-live-server").replace("drill=false", "--no-drill")
    return re.sub(r"\b(\w+)=true", lambda found: "--" + found[1].replace("_", "-"), text)


@contextmanager
def _signals(progress: Progress) -> Any:
    """Ctrl-C and SIGTERM end the procedure with its clean-up, except in the moments of a swap."""
    numbers = [signal.SIGINT, signal.SIGTERM]

    def cancel(number: int, frame: FrameType | None) -> None:
        progress.cancel()

    before = [signal.signal(number, cancel) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _PipedProgress(Progress):
    """A line for each stage."""

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self._quiet = quiet
        self._told = ""

    def show(self, state: State) -> None:
        if not self._quiet and state.stage != self._told:
            self._told = state.stage
            click.echo(state.stage, err=True)

    def __enter__(self) -> _PipedProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _TerminalProgress(Progress):
    """A bar for the present stage."""

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
        words = state.stage + (f": {state.detail}" if state.detail else "")
        self._bar.update(self._task, description=words, total=state.total, completed=state.done)

    def pause(self) -> None:
        """Leave the terminal to a question."""
        self._bar.stop()

    def __enter__(self) -> _TerminalProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


# -- what is printed -------------------------------------------------------------------------------------------------


def _print(result: Model, as_json: bool) -> None:
    if as_json:
        click.echo(result.model_dump_json(indent=1, by_alias=True))
    elif sys.stdout.isatty() and isinstance(result, Listing):
        _print_listing(result)
    elif sys.stdout.isatty() and isinstance(result, Verification):
        _print_verification(result)
    else:
        click.echo(_for_terminal(texts.describe(result)))
        if sys.stdout.isatty() and isinstance(result, Integrity) and result.tables:
            _print_tables(result)


def _print_listing(listing: Listing) -> None:
    table = Table("backup", "age", "size", "state", "rows", "label / detail", title=Text(listing.directory))
    for item in listing.backups:
        proved = f"proved {item.proved_at:%Y-%m-%d}" if item.proved_at else ""
        marks = "; ".join(filter(None, [item.label, proved, "shrunk" if item.shrunk else "", item.detail]))
        rows = "" if item.rows is None else f"{item.rows:,}"
        _add_row(table, item.name, texts.age(item.age_seconds), texts.size(item.bytes), item.state, rows, marks)
    for point in listing.undo_points or []:
        made = f"{point.created_at:%Y-%m-%d %H:%M} UTC"
        size = "" if point.bytes is None else texts.size(point.bytes)
        _add_row(table, point.name, "", size, "undo point", "", made)
    console = Console()
    console.print(table)
    for warning in listing.warnings:
        console.print(f"Warning: {warning}", style="yellow", markup=False)


def _print_tables(result: Integrity) -> None:
    table = Table("table", "estimated rows", "size")
    for item in result.tables:
        rows = "?" if item.estimated_rows is None else f"{item.estimated_rows:,}"
        _add_row(table, f"{item.schema_}.{item.name}", rows, texts.size(item.bytes))
    Console().print(table)


def _print_verification(result: Verification) -> None:
    table = Table("check", "holds", "expected", "found", "detail", title=Text(result.name))
    for check in result.checks:
        holds = {True: "yes", False: "NO", None: "-"}[check.ok]
        _add_row(table, check.check, holds, check.expected, check.found, check.detail)
    Console().print(table)
    click.echo(_for_terminal(texts.describe(result)))


def _add_row(table: Table, *cells: str) -> None:
    """Cells as they are: a label may look like rich's markup."""
    table.add_row(*(Text(cell) for cell in cells))
