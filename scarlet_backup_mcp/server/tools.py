"""The face for agents: MCP tools. The async edge, no backup logic.

Here and beside it procedures are imported by the calls that need them: a host waits for the list of tools, which needs
none, and they take as long to import as a third of the SDK.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import anyio
from mcp.server.mcpserver import Context, ElicitationResult, MCPServer, Resolve
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field

from .. import __version__
from ..errors import ArgumentsInvalid, BackupToolError, ConfigurationError
from ..models.common import BackupLevel, CodePageText, Compression, Kind, Level, Model, Scope
from ..models.results import Backup, Integrity, Listing, Prune, Restore
from ..models.verification import Verification
from ..procedures.call_notes import CallNotes
from ..procedures.restore.options import RestoreDrill, RestoreOptions
from ..progress import Progress
from ..settings import TOOLS, Settings
from .consent import Confirm, confirm_prune, confirm_restore, consent, consent_to_prune, restore_options
from .icon import ICON
from .jobs import Jobs
from .procedure import add_procedure
from .resources import add_resources, prepare_for_proc_003
from .strict_server import StrictServer
from .strict_tool import strict_tool
from .tool_calls import (
    ALIVE,
    Answer,
    App,
    app_of,
    failed,
    long_call,
    refused,
    short_call,
)

if TYPE_CHECKING:
    from ..procedures.context import BackupContext

log = logging.getLogger(__name__)

T = TypeVar("T")
INSTRUCTIONS = """\
Backs up, verifies and restores Scarlet's PostgreSQL memory (PROC-004). Before PROC-003 or any other destructive work
call `backup` and go on only if `safe_to_proceed` is true. To bring the memory back
call `restore`; it asks the user first and keeps the present database as an undo point. When something does not work,
call `db_integrity`. Errors carry a `code`, a `remedy` and often the `next_call` that follows it: make that call when
what the remedy asks for holds. A long call may answer status "running" with a `job`: call the same tool with that job
alone to wait on."""

Wait = Annotated[
    float,
    Field(ge=0, le=3600, description="Seconds until it answers 'running'; 0: wait to the end. Many hosts cut at 60."),
]
JobParameter = Annotated[str | None, Field(max_length=80, description="Wait on for this job; give nothing else.")]
CodePageParameter = Annotated[
    CodePageText | None,
    Field(description="Code page of an old PowerShell-made dump; needed only when reported as ambiguous."),
]
Name = Annotated[str, Field(min_length=1, max_length=200)]
NOT_DESTRUCTIVE = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)
READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
DESTRUCTIVE = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)

# What an agent branches on in each answer; its output schema describes these.
BACKUP_FIELDS = ("name", "safe_to_proceed", "reasons", "good", "shrunk", "warnings")
VERIFY_FIELDS = ("name", "valid", "proved", "foreign", "warnings")
LIST_FIELDS = ("backups", "undo_points", "total_backups", "warnings")
RESTORE_FIELDS = ("restored", "dry_run", "undo_point", "warnings")
INTEGRITY_FIELDS = ("healthy", "safe_to_proceed", "agents", "findings")
PRUNE_FIELDS = ("removed", "items", "confirmation", "warnings")


def create_server(settings: Settings | ConfigurationError) -> MCPServer[App]:
    """Make the MCP server for these settings; with an error in their place every call answers that."""

    @asynccontextmanager
    async def lifespan(_: MCPServer[App]) -> AsyncGenerator[App]:
        async with anyio.create_task_group() as tasks:
            app = App(settings, Jobs(tasks), served)
            ALIVE.append(app)
            try:
                yield app
            finally:
                ALIVE.remove(app)
                with anyio.CancelScope(shield=True):
                    await app.jobs.shut_down()
                tasks.cancel_scope.cancel()

    try:
        served = TOOLS if isinstance(settings, ConfigurationError) else settings.served
    except ConfigurationError as error:
        settings, served = error, TOOLS
    tools = [
        strict_tool(backup, "Back up Scarlet's memory", NOT_DESTRUCTIVE, Backup, BACKUP_FIELDS),
        strict_tool(verify_backup, "Verify a backup", NOT_DESTRUCTIVE, Verification, VERIFY_FIELDS),
        strict_tool(list_backups, "List backups", READ_ONLY, Listing, LIST_FIELDS),
        strict_tool(restore, "Restore Scarlet's memory", DESTRUCTIVE, Restore, RESTORE_FIELDS),
        strict_tool(db_integrity, "Check the database", READ_ONLY, Integrity, INTEGRITY_FIELDS),
        strict_tool(prune_backups, "Remove old backups", DESTRUCTIVE, Prune, PRUNE_FIELDS),
    ]
    server = StrictServer(
        "scarlet-backup-mcp",
        title="Scarlet backup",
        version=__version__,
        description="Backup, verification and restore of Scarlet's PostgreSQL memory.",
        instructions=INSTRUCTIONS if served == TOOLS else f"{INSTRUCTIONS} Served here: {', '.join(served)}.",
        lifespan=lifespan,
        log_level="WARNING",
        icons=[ICON],
        tools=[tool for tool in tools if tool.name in served],
        subscriptions=False,
    )
    add_resources(server, settings)
    add_procedure(server, settings)
    if "backup" in served:
        server.prompt(title="Prepare for PROC-003")(prepare_for_proc_003)
    return server


# -- tools -----------------------------------------------------------------------------------------------------------


async def backup(
    ctx: Context[App],
    kind: Annotated[
        Kind,
        Field(
            description="'sql': the database, portable; what PROC-003 needs. 'volume': all files of the server, for "
            "the same major version; of a stopped container a cold copy."
        ),
    ] = "sql",
    label: Annotated[str | None, Field(max_length=80, description="Free text kept with it.")] = None,
    compression: Annotated[
        Compression | None, Field(description="SQL: 'none' (default) or 'zstd'. Volume: 'gzip' (default) or 'zstd'.")
    ] = None,
    accept_smaller: Annotated[
        bool, Field(description="The user says that losing over half of the rows is intended.")
    ] = False,
    keep: Annotated[bool, Field(description="Retention never removes it.")] = False,
    scope: Annotated[
        Scope | None,
        Field(
            description="'memory': also the data of Qdrant, Redis and other stores beside the database, as one set. "
            "Stops these and the services that use them or the database until they are copied, then starts them: ask "
            "the user first. Default: SCARLET_BACKUP_SCOPE."
        ),
    ] = None,
    verify: Annotated[
        BackupLevel,
        Field(
            description="'full': read back. 'drill': also restored into a sandbox and compared. 'auto': a drill when "
            "definitions are new, or weekly."
        ),
    ] = "auto",
    wait_seconds: Wait = 50,
    job: JobParameter = None,
) -> Annotated[CallToolResult, Answer]:
    """Back up Scarlet's database (PROC-004 steps 1 to 4): before PROC-003, Docker updates and migrations, and weekly.
    Writes a new file, reads it back, and changes nothing in the database. Go on with PROC-003 only if
    `safe_to_proceed` is true; else follow `reasons`."""
    arguments: dict[str, Any] = {
        "kind": kind,
        "label": label,
        "compression": compression,
        "accept_smaller": accept_smaller,
        "verify": verify,
        "keep": keep,
        "scope": scope,
    }

    def work(context: BackupContext, progress: Progress, notes: CallNotes) -> Model:
        from ..procedures.backup import service

        return service.backup(context, progress, **arguments, notes=notes)

    return await long_call(ctx, work, arguments, wait_seconds, job)


async def verify_backup(
    ctx: Context[App],
    backup: Annotated[Name, Field(description="A name from list_backups, or 'latest'.")] = "latest",
    level: Annotated[
        Level,
        Field(
            description="'quick': name, size, both ends. 'full': every byte. 'drill': restored into a sandbox and "
            "compared, as slow as a restore."
        ),
    ] = "full",
    code_page: CodePageParameter = None,
    on_live_server: Annotated[
        bool, Field(description="Drill in a scratch database of the live server, where no sandbox can be made.")
    ] = False,
    wait_seconds: Wait = 50,
    job: JobParameter = None,
) -> Annotated[CallToolResult, Answer]:
    """Check that a backup is intact (PROC-004 step 4); with level 'drill' that it brings the same data back (`proved`).
    Changes neither backup nor database. If `valid` is false, follow `remedy` (a file that `backup` did not make is
    never valid, but SQL can be `proved`)."""

    def work(context: BackupContext, progress: Progress, _: CallNotes) -> Model:
        from ..procedures.verify import sql

        return sql.verify(context, progress, backup, level, code_page=code_page, on_live_server=on_live_server)

    arguments = {"backup": backup, "level": level, "code_page": code_page, "on_live_server": on_live_server}
    return await long_call(ctx, work, arguments, wait_seconds, job)


async def list_backups(
    ctx: Context[App],
    limit: Annotated[int, Field(ge=1, le=1000, description="How many, newest first.")] = 10,
    log: Annotated[int, Field(ge=0, le=1000, description="Also this many of the last calls.")] = 0,
) -> Annotated[CallToolResult, Answer]:
    """Show backups with age, size, state and how each was verified; undo points of earlier restores; running jobs.
    Changes nothing and works while Docker is down."""

    def work(context: BackupContext, _: Progress) -> Model:
        from ..procedures import listing

        return listing.list_backups(context, limit, log)

    jobs = app_of(ctx).jobs.states()
    return await short_call(ctx, work, lambda listing: listing.model_copy(update={"jobs": jobs}))


async def restore(
    ctx: Context[App],
    options: Annotated[RestoreOptions, Resolve(restore_options)],
    answer: Annotated[ElicitationResult[Confirm], Resolve(confirm_restore)],
    backup: Annotated[
        Name | None,
        Field(
            description="Required: a file or undo point from list_backups, or 'latest' (the newest SQL backup; refused "
            "if shrunk)."
        ),
    ] = None,
    dry_run: Annotated[bool, Field(description="Check and report only; asks nobody.")] = False,
    confirmation: Annotated[
        str | None,
        Field(
            max_length=220,
            description="Only if this client can't ask the user, after the user agreed: 'restore <name>'.",
        ),
    ] = None,
    accept_foreign: Annotated[
        bool, Field(description="Take a file that `backup` did not make; the user trusts it.")
    ] = False,
    accept_other_database: Annotated[
        bool, Field(description="Take another database's backup; the user wants it.")
    ] = False,
    accept_violations: Annotated[
        bool, Field(description="Load rows that break constraints, which then do not come back; the user agrees.")
    ] = False,
    accept_configuration: Annotated[
        bool, Field(description="Let what a foreign volume's configuration runs take effect; the user agrees.")
    ] = False,
    stop_dependents: Annotated[
        bool, Field(description="Stop the Compose services that use the database for the swap, then start them.")
    ] = True,
    drop_oldest_undo: Annotated[
        bool, Field(description="Drop the oldest of two undo points; the user agrees.")
    ] = False,
    drill: Annotated[
        RestoreDrill,
        Field(description="Restore into a sandbox first: 'auto' for files that `backup` did not make."),
    ] = "auto",
    code_page: CodePageParameter = None,
    accept_smaller: Annotated[
        bool, Field(description="Take one with under half of what it replaces; the user wants it.")
    ] = False,
    wait_seconds: Wait = 50,
    job: JobParameter = None,
) -> Annotated[CallToolResult, Answer]:
    """Bring Scarlet's database back (PROC-004 "Restore", PROC-003 rollback). Destructive: replaces the live database,
    after asking the user. The backup is verified, loaded next to the live database, compared, then swapped in; the
    present database is kept: restore `undo_point` to undo. A volume's backup replaces every database of the server.
    Make a dry run first, and call db_integrity afterwards."""
    arguments = {"backup": backup, "dry_run": dry_run, **asdict(options)}
    source = backup or ""
    if not source and job is None:
        return failed(ArgumentsInvalid("restore was not called: backup is missing."))
    if job is not None or dry_run:

        def rehearse(context: BackupContext, progress: Progress, _: CallNotes) -> Model:
            from ..procedures.restore import service

            return service.dry_run(context, progress, source, options)

        return await long_call(ctx, rehearse, arguments, wait_seconds, job)
    try:
        name, confirmed = await consent(ctx, answer, source, confirmation, options)
    except BackupToolError as error:
        return await refused(ctx, arguments, error)

    def work(context: BackupContext, progress: Progress, notes: CallNotes) -> Model:
        from ..procedures.restore import service

        return service.restore(context, progress, name, options, confirmed=confirmed, notes=notes)

    return await long_call(ctx, work, arguments, wait_seconds, None)


async def prune_backups(
    ctx: Context[App],
    answer: Annotated[ElicitationResult[Confirm], Resolve(confirm_prune)],
    dry_run: Annotated[bool, Field(description="Only report what would be removed; asks nobody.")] = True,
    include_undo: Annotated[bool, Field(description="Also drop every undo point; the user wants that space.")] = False,
    confirmation: Annotated[
        str | None,
        Field(
            max_length=80,
            description="Only if this client can't ask the user, after the user agreed to a dry run's list: its "
            "`confirmation`.",
        ),
    ] = None,
    wait_seconds: Wait = 50,
    job: JobParameter = None,
) -> Annotated[CallToolResult, Answer]:
    """Remove backups that retention no longer keeps (PROC-004: the last 3, one a day for 7 days, a week for 4 weeks, a
    month for 3 months; each kind apart). With dry_run=false it asks the user first. Never removes the newest proved,
    the last good, the last full one before a shrink, kept, damaged or foreign ones. Call it only when the user wants
    room or order."""
    arguments = {"dry_run": dry_run, "include_undo": include_undo}
    if job is not None or dry_run:

        def rehearse(context: BackupContext, progress: Progress, _: CallNotes) -> Model:
            from ..procedures import prune

            return prune.prune(context, progress, include_undo=include_undo)

        return await long_call(ctx, rehearse, arguments, wait_seconds, job)
    try:
        confirmed = consent_to_prune(ctx, answer, confirmation, include_undo)
    except BackupToolError as error:
        return await refused(ctx, arguments, error)

    def work(context: BackupContext, progress: Progress, notes: CallNotes) -> Model:
        from ..procedures import prune

        return prune.prune(
            context, progress, dry_run=False, include_undo=include_undo, confirmed=confirmed, notes=notes
        )

    return await long_call(ctx, work, arguments, wait_seconds, None)


async def db_integrity(ctx: Context[App]) -> Annotated[CallToolResult, Answer]:
    """Check container, server and database (PROC-004 prerequisites, step 5, troubleshooting): health, agents, sizes,
    the newest backup; and whether PROC-003 may go ahead (`safe_to_proceed`). Problems are `findings` with remedies.
    Changes nothing. Call it when anything fails, after a restore, and just before PROC-003."""

    def work(context: BackupContext, progress: Progress) -> Model:
        from ..procedures import integrity

        return integrity.db_integrity(context, progress)

    return await short_call(ctx, work)
