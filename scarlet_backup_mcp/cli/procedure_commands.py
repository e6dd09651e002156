"""The commands that run the tools' procedures on a terminal.

Exit codes: 0 good; 1 a bad result (a backup that is not valid, a database that is not healthy, a backup on which
PROC-003 must not go ahead); 2 it could not be done, or the command line is wrong; 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

import click

from ..models.common import BackupLevel, CodePage, Compression, Kind, Level
from ..procedures.restore.options import RestoreDrill, RestoreOptions
from ..wording import number_of, size
from .command import Command, Schedulable
from .common_options import MOST_LISTED, code_page_option, output_options, settings_options
from .completion import backup_names
from .runner import BAD, Call, ask, run

if TYPE_CHECKING:
    from ..models.results import Backup, Gate, Integrity, Kept, Listing, Prune, Repaired, Restore
    from ..models.verification import Verification
    from ..procedures.call_notes import CallNotes
    from ..procedures.context import BackupContext
    from ..progress import Progress


@click.command(cls=Schedulable)
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
    default="auto",
    show_default=True,
    help="drill: also restore it into a sandbox and compare; auto: do so when its definitions are new.",
)
@click.option("--keep", is_flag=True, help="Mark it so that retention never removes it.")
@click.option("--prune", is_flag=True, help="Then remove what retention no longer keeps, without asking.")
@click.option("--scheduled", hidden=True, help="Name of the job of a scheduler that runs this.")
@output_options
@settings_options
def backup(
    kind: Kind,
    label: str | None,
    compression: Compression | None,
    accept_smaller: bool,
    verify: BackupLevel,
    keep: bool,
    prune: bool,
    scheduled: str | None,
    as_json: bool,
    quiet: bool,
    **common: Any,
) -> None:
    """Take a backup (PROC-004 steps 1 to 4). Exit code 1: it is there, but PROC-003 must not go ahead."""
    arguments: dict[str, Any] = {
        "kind": kind,
        "label": label,
        "compression": compression,
        "accept_smaller": accept_smaller,
        "verify": verify,
        "keep": keep,
    }
    call = Call("backup", {**arguments, "prune": prune, "scheduled": scheduled}, scheduled=scheduled is not None)

    def work(context: BackupContext, progress: Progress, notes: CallNotes) -> Backup:
        from ..procedures.backup_and_prune import backup_and_prune

        return backup_and_prune(context, progress, call.client, notes, then_prune=prune, **arguments)

    result = run(work, call, common, as_json, quiet)
    fit = result.good if scheduled is not None else result.safe_to_proceed
    sys.exit(0 if fit and result.not_pruned is None else BAD)


@click.command("verify", cls=Command)
@click.argument("backup", default="latest", shell_complete=backup_names)
@click.option(
    "--level",
    type=click.Choice(get_args(Level)),
    default="full",
    show_default=True,
    help="drill: restore it into a sandbox and compare.",
)
@code_page_option
@click.option("--on-live-server", is_flag=True, help="Drill in a scratch database of the live server.")
@output_options
@settings_options
def verify_(
    backup: str,
    level: Level,
    code_page: CodePage | None,
    on_live_server: bool,
    as_json: bool,
    quiet: bool,
    **common: Any,
) -> None:
    """Check a backup (PROC-004 step 4). Exit code 1: it is not valid, or a drill did not prove it."""

    def work(context: BackupContext, progress: Progress, _: CallNotes) -> Verification:
        from ..procedures.verify.sql import verify

        return verify(context, progress, backup, level, code_page=code_page, on_live_server=on_live_server)

    arguments = {"backup": backup, "level": level, "code_page": code_page, "on_live_server": on_live_server}
    result = run(work, Call("verify_backup", arguments), common, as_json, quiet)
    proved = level != "drill" or (result.drill is not None and result.drill.proved is True)
    sys.exit(0 if proved and (result.valid or (level == "drill" and result.foreign)) else BAD)


@click.command("repair", cls=Command)
@click.argument("backup", shell_complete=backup_names)
@code_page_option
@output_options
@settings_options
def repair_(backup: str, code_page: CodePage | None, as_json: bool, quiet: bool, **common: Any) -> None:
    """Write a clean copy of an old BACKUP that PowerShell re-encoded, with a manifest. The original stays as it is."""

    def work(context: BackupContext, progress: Progress, notes: CallNotes) -> Repaired:
        from ..procedures.repair import repair

        return repair(context, progress, backup, code_page=code_page, notes=notes)

    run(work, Call("repair", {"backup": backup, "code_page": code_page}), common, as_json, quiet)


@click.command("list", cls=Command)
@click.option("--limit", type=click.IntRange(1, MOST_LISTED), default=10, show_default=True)
@click.option("--log", type=click.IntRange(0, 1000), default=0, help="How many of the last calls to show.")
@output_options
@settings_options
def list_(limit: int, log: int, as_json: bool, quiet: bool, **common: Any) -> None:
    """Show the backups and undo points there are, newest first."""

    def work(context: BackupContext, _progress: Progress, _notes: CallNotes) -> Listing:
        from ..procedures.listing import list_backups

        return list_backups(context, limit, log)

    run(work, Call("list_backups"), common, as_json, quiet)


@click.command(cls=Command)
@click.argument("backup", shell_complete=backup_names)
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask. The named file is restored over the live database.")
@click.option("--accept-foreign", is_flag=True, help="Take a file without a manifest: it runs as superuser.")
@click.option("--accept-other-database", is_flag=True, help="Take a backup of another database or project.")
@click.option("--accept-violations", is_flag=True, help="Load rows that break constraints; those do not come back.")
@click.option(
    "--accept-configuration", is_flag=True, help="Let commands and libraries of a foreign volume's configuration run."
)
@click.option("--stop-dependents/--leave-dependents", default=True, show_default=True)
@click.option("--drop-oldest-undo", is_flag=True, help="Drop the oldest undo point when there are two.")
@click.option(
    "--drill",
    type=click.Choice(get_args(RestoreDrill)),
    default="auto",
    show_default=True,
    help="Restore it into a sandbox first; auto: only a file that `backup` did not make.",
)
@code_page_option
@click.option("--accept-smaller", is_flag=True, help="Restore it though it holds less than half of what it replaces.")
@output_options
@settings_options
def restore(
    backup: str,
    dry_run: bool,
    yes: bool,
    accept_foreign: bool,
    accept_other_database: bool,
    accept_violations: bool,
    accept_configuration: bool,
    stop_dependents: bool,
    drop_oldest_undo: bool,
    drill: RestoreDrill,
    code_page: CodePage | None,
    accept_smaller: bool,
    as_json: bool,
    quiet: bool,
    **common: Any,
) -> None:
    """Bring the database, or the whole volume, back from BACKUP: a file's name, an undo point's name, or `latest`."""
    options = RestoreOptions(
        accept_foreign=accept_foreign,
        accept_other_database=accept_other_database,
        stop_dependents=stop_dependents,
        drop_oldest_undo=drop_oldest_undo,
        drill=drill,
        code_page=code_page,
        accept_smaller=accept_smaller,
        accept_violations=accept_violations,
        accept_configuration=accept_configuration,
    )

    def work(context: BackupContext, progress: Progress, notes: CallNotes) -> Restore:
        from ..procedures.restore import service
        from .rendering import print_on_stderr

        if dry_run:
            return service.dry_run(context, progress, backup, options)
        proposal = service.propose(context, progress, backup, options, notes=notes)
        if not yes:
            words = f"restore {proposal.source}"
            ask(progress, lambda: print_on_stderr(proposal.question), f"Type '{words}' to go on", words)
        return service.restore(context, progress, proposal.source, options, confirmed=proposal.confirms, notes=notes)

    run(work, Call("restore", {"backup": backup, "dry_run": dry_run, **asdict(options)}), common, as_json, quiet)


@click.command("prune", cls=Command)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--include-undo", is_flag=True, help="Drop every undo point, too.")
@output_options
@settings_options
def prune_(dry_run: bool, yes: bool, include_undo: bool, as_json: bool, quiet: bool, **common: Any) -> None:
    """Remove the backups that retention no longer keeps. Exit code 1: not all of them could be removed."""

    def work(context: BackupContext, progress: Progress, notes: CallNotes) -> Prune:
        from ..procedures.prune import prune
        from .rendering import show_what_goes

        would = prune(context, progress, include_undo=include_undo)
        if dry_run or would.confirmation is None:
            return would
        if not yes:
            freed = size(would.bytes_freed + would.undo_bytes_freed)
            question = f"Remove {number_of(would.removed, 'item')} for good ({freed})?"
            ask(progress, lambda: show_what_goes(would), question)
        return prune(
            context, progress, dry_run=False, include_undo=include_undo, confirmed=would.confirmation, notes=notes
        )

    call = Call("prune_backups", {"dry_run": dry_run, "include_undo": include_undo})
    result = run(work, call, common, as_json, quiet)
    sys.exit(BAD if any(item.action == "not removed" for item in result.items) else 0)


@click.command("keep", cls=Command)
@click.argument("backup", shell_complete=backup_names)
@click.option("--off", is_flag=True, help="Take the mark away.")
@output_options
@settings_options
def keep_(backup: str, off: bool, as_json: bool, quiet: bool, **common: Any) -> None:
    """Mark BACKUP so that retention never removes it."""

    def work(context: BackupContext, _progress: Progress, _notes: CallNotes) -> Kept:
        from ..procedures.prune import keep

        return keep(context, backup, not off)

    run(work, Call("keep", {"backup": backup, "off": off}), common, as_json, quiet)


@click.command("gate", cls=Command)
@output_options
@settings_options
def gate_(as_json: bool, quiet: bool, **common: Any) -> None:
    """Whether PROC-003 may go ahead now, for use in scripts. Exit code 0: it may; 1: it must not, and why."""

    def work(context: BackupContext, _progress: Progress, _notes: CallNotes) -> Gate:
        from ..procedures.gate import gate

        return gate(context)

    result = run(work, Call("gate"), common, as_json, quiet)
    sys.exit(0 if result.safe_to_proceed else BAD)


@click.command("integrity", cls=Command)
@output_options
@settings_options
def integrity_(as_json: bool, quiet: bool, **common: Any) -> None:
    """Check container, server and database (PROC-004 step 5). Exit code 1: something is wrong."""

    def work(context: BackupContext, progress: Progress, _: CallNotes) -> Integrity:
        from ..procedures.integrity import db_integrity

        return db_integrity(context, progress)

    result = run(work, Call("db_integrity"), common, as_json, quiet)
    sys.exit(0 if result.healthy else BAD)
