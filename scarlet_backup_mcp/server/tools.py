"""The face for agents: MCP tools, a resource and a prompt over stdio. The async edge, no backup logic."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

import anyio
from mcp.server.mcpserver import Context, ElicitationResult, MCPServer, Resolve
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field

from .. import __version__
from ..errors import BackupToolError
from ..models.common import BackupLevel, CodePage, Compression, Kind, Level, Model
from ..procedures import integrity, listing
from ..procedures import prune as retention
from ..procedures.backup import service as backups
from ..procedures.call_notes import CallNotes
from ..procedures.catalog import records
from ..procedures.context import BackupContext
from ..procedures.gate import gate
from ..procedures.restore import service as restores
from ..procedures.restore.options import RestoreOptions
from ..procedures.verify import sql as verify_sql
from ..progress import Progress
from ..settings import Settings
from .consent import Confirm, confirm_prune, confirm_restore, consent, consent_to_prune, restore_options
from .jobs import Jobs
from .strict_tool import strict_tool
from .tool_calls import (
    ALIVE,
    App,
    BackupAnswer,
    IntegrityAnswer,
    ListAnswer,
    PruneAnswer,
    RestoreAnswer,
    VerifyAnswer,
    app_of,
    in_thread,
    long_call,
    refused,
    short_call,
)

log = logging.getLogger(__name__)

T = TypeVar("T")
INSTRUCTIONS = """\
Backs up, verifies and restores Scarlet's PostgreSQL memory (PROC-004). Before PROC-003 or any other destructive work
call `backup` and go on only if `safe_to_proceed` is true. To bring the memory back
call `restore`; it asks the user first and keeps the present database as an undo point. When something does not work,
call `db_integrity`. Errors carry a `code` and a `remedy`: follow the remedy. A long call may answer status "running"
with a `job`: call the same tool again with the same arguments and that job."""

Wait = Annotated[
    float, Field(ge=0, le=3600, description="Seconds to wait before answering status 'running'; 0: until done.")
]
JobParameter = Annotated[
    str | None,
    Field(max_length=80, description="A job to go on waiting for, of a call with the same arguments: nothing begins."),
]
CodePageParameter = Annotated[
    CodePage | None,
    Field(description="Only for an old file of PowerShell's whose code page can't be told: the right one of those."),
]
Name = Annotated[str, Field(min_length=1, max_length=200)]
NOT_DESTRUCTIVE = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)
READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
DESTRUCTIVE = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)


def create_server(settings: Settings) -> MCPServer[App]:
    """The MCP server for these settings."""

    @asynccontextmanager
    async def lifespan(_: MCPServer[App]) -> AsyncGenerator[App]:
        async with anyio.create_task_group() as tasks:
            app = App(settings, Jobs(tasks))
            ALIVE.append(app)
            try:
                yield app
            finally:
                ALIVE.remove(app)
                with anyio.CancelScope(shield=True):
                    await app.jobs.shut_down()
                tasks.cancel_scope.cancel()

    server = MCPServer[App](
        "scarlet-backup-mcp",
        title="Scarlet backup",
        version=__version__,
        description="Backup, verification and restore of Scarlet's PostgreSQL memory.",
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        log_level="WARNING",
        tools=[
            strict_tool(backup, "Back up Scarlet's memory", NOT_DESTRUCTIVE),
            strict_tool(verify_backup, "Verify a backup", NOT_DESTRUCTIVE),
            strict_tool(list_backups, "List backups", READ_ONLY),
            strict_tool(restore, "Restore Scarlet's memory", DESTRUCTIVE),
            strict_tool(db_integrity, "Check the database", READ_ONLY),
            strict_tool(prune_backups, "Remove old backups", DESTRUCTIVE),
        ],
    )
    server.resource(
        "scarlet://backups/{name}/manifest",
        title="Manifest of a backup",
        description="Everything recorded about a backup when it was made, as JSON.",
        mime_type="application/json",
    )(manifest)

    async def gate_now() -> str:
        """Whether PROC-003 may go ahead now."""
        return (await in_thread(settings, gate)).model_dump_json(indent=1)

    server.resource(
        "scarlet://gate",
        title="Gate to PROC-003",
        description="Whether PROC-003 (agent recreation) may go ahead now, with reasons, as JSON: for hooks.",
        mime_type="application/json",
    )(gate_now)
    server.prompt(title="Prepare for PROC-003")(prepare_for_proc_003)
    return server


# -- tools -----------------------------------------------------------------------------------------------------------


async def backup(
    ctx: Context[App],
    kind: Annotated[
        Kind,
        Field(
            description="'sql': Scarlet's database, portable and what PROC-003 needs. 'volume': every file of the "
            "server, all its databases and roles (PROC-004's volume backup), for the same major version; of a "
            "container that is stopped it is a cold copy."
        ),
    ] = "sql",
    label: Annotated[
        str | None, Field(max_length=80, description="Free text kept with the backup, e.g. 'before PROC-003'.")
    ] = None,
    compression: Annotated[
        Compression | None,
        Field(
            description="null: the plain .sql or the .tar.gz of PROC-004. SQL: 'none' or 'zstd', a quarter the size; "
            "volume: 'gzip' or 'zstd'."
        ),
    ] = None,
    accept_smaller: Annotated[
        bool,
        Field(
            description="Only when the user says that a loss of more than half of all rows is meant: not 'shrunk' then."
        ),
    ] = False,
    keep: Annotated[bool, Field(description="Mark it so that retention never removes it.")] = False,
    verify: Annotated[
        BackupLevel,
        Field(
            description="'full' reads the file back; 'drill' also restores it into a throw-away server and compares, "
            "which takes as long as a restore; 'auto' does so when definitions are new, or weekly."
        ),
    ] = "auto",
    wait_seconds: Wait = 50,
    job: JobParameter = None,
) -> Annotated[CallToolResult, BackupAnswer]:
    """Take a backup of Scarlet's database (PROC-004 steps 1 to 4). Call it before PROC-003, Docker updates, migrations
    and at least once a week; with kind 'volume' too before changes to the server or its Docker volume. It writes one
    new file and a manifest into the backup directory, reads the file back in full, tries out in a throw-away server
    whether new definitions load again, and changes nothing in the database.
    Go on with PROC-003 only if `safe_to_proceed` is true; else follow `reasons`."""

    arguments: dict[str, Any] = {
        "kind": kind,
        "label": label,
        "compression": compression,
        "accept_smaller": accept_smaller,
        "verify": verify,
        "keep": keep,
    }

    def work(context: BackupContext, progress: Progress, notes: CallNotes) -> Model:
        return backups.backup(context, progress, **arguments, notes=notes)

    return await long_call(ctx, work, arguments, wait_seconds, job)


async def verify_backup(
    ctx: Context[App],
    backup: Annotated[Name, Field(description="A file name as list_backups shows it, or 'latest'.")] = "latest",
    level: Annotated[
        Level,
        Field(
            description="'quick': name, size, first and last lines. 'full': every byte against the manifest. 'drill': "
            "restored into a throw-away server, dumped again and compared; takes as long as a restore."
        ),
    ] = "full",
    code_page: CodePageParameter = None,
    on_live_server: Annotated[
        bool,
        Field(
            description="With 'drill', where no throw-away server can be made: use a scratch database on the live one."
        ),
    ] = False,
    wait_seconds: Wait = 50,
    job: JobParameter = None,
) -> Annotated[CallToolResult, VerifyAnswer]:
    """Check that a backup is whole (PROC-004 step 4 and final verification); with level 'drill' that it brings the same
    data back (`proved`). 'quick' and 'full' need no Docker. Neither the backup nor the live database is changed. The
    outcome is kept and shown by list_backups. If `valid` is false don't rely on it: follow `remedy` (a file that
    `backup` did not make is never valid, but SQL can be `proved`). Old files made with PowerShell's '>' are read as
    what they were before; `encoding` among the checks says how."""

    def work(context: BackupContext, progress: Progress, _: CallNotes) -> Model:
        return verify_sql.verify(context, progress, backup, level, code_page=code_page, on_live_server=on_live_server)

    arguments = {"backup": backup, "level": level, "code_page": code_page, "on_live_server": on_live_server}
    return await long_call(ctx, work, arguments, wait_seconds, job)


async def list_backups(
    ctx: Context[App],
    limit: Annotated[int, Field(ge=1, le=1000, description="How many to show, newest first.")] = 10,
    log: Annotated[
        int, Field(ge=0, le=1000, description="How many of the last calls in the audit log to show, newest first.")
    ] = 0,
) -> Annotated[CallToolResult, ListAnswer]:
    """Show the backups there are, of both kinds, newest first, with age, size, state and how each was verified; undo
    points of earlier restores; running jobs; and a warning when the newest good SQL backup is over a week old. Changes
    nothing and works while Docker is down. Use a name it shows for verify_backup or restore."""

    def work(context: BackupContext, _: Progress) -> Model:
        return listing.list_backups(context, limit, log)

    jobs = app_of(ctx).jobs.states()
    return await short_call(ctx, work, lambda listing: listing.model_copy(update={"jobs": jobs}))


async def restore(
    ctx: Context[App],
    backup: Annotated[
        Name,
        Field(
            description="A name of a file or an undo point as list_backups shows it, or 'latest': the newest SQL "
            "backup (refused if shrunk, or if it did not load in a drill)."
        ),
    ],
    options: Annotated[RestoreOptions, Resolve(restore_options)],
    answer: Annotated[ElicitationResult[Confirm], Resolve(confirm_restore)],
    dry_run: Annotated[
        bool, Field(description="Check everything and tell what would be done, but change nothing; asks nobody.")
    ] = False,
    confirmation: Annotated[
        str | None,
        Field(
            max_length=220,
            description="Only for clients that can't ask the user, after the user agreed: 'restore <file name>'.",
        ),
    ] = None,
    accept_foreign: Annotated[
        bool, Field(description="Take a file that `backup` did not make: only if the user knows where it comes from.")
    ] = False,
    accept_other_database: Annotated[
        bool, Field(description="Take a backup of another database or project, if the user wants that.")
    ] = False,
    accept_violations: Annotated[
        bool,
        Field(description="Load rows that break constraints, if the user agrees: those constraints do not come back."),
    ] = False,
    accept_configuration: Annotated[
        bool,
        Field(description="Let what a foreign volume's configuration runs and loads take effect, if the user agrees."),
    ] = False,
    stop_dependents: Annotated[
        bool, Field(description="Stop the Compose services that depend on the database for the swap, then start them.")
    ] = True,
    drop_oldest_undo: Annotated[
        bool, Field(description="SQL: drop the oldest undo point when there are two already, if the user agrees.")
    ] = False,
    drill: Annotated[
        bool | None,
        Field(
            description="Try it out in a throw-away server first. null: only a file that `backup` did not make (and of "
            "SQL what is restored is that server's own dump). true: any. false: none, if the user trusts the file."
        ),
    ] = None,
    code_page: CodePageParameter = None,
    accept_smaller: Annotated[
        bool, Field(description="Take one with less than half of what it replaces, if the user wants that.")
    ] = False,
    wait_seconds: Wait = 50,
    job: JobParameter = None,
) -> Annotated[CallToolResult, RestoreAnswer]:
    """Bring Scarlet's database back from a backup or an undo point (PROC-004 "Restore", PROC-003 rollback).
    Destructive: it replaces the live database, and asks the user first. The backup is verified, loaded beside the live
    database, compared, and then swapped in; the present database is kept as an undo point (`undo_point`): restore that
    name to undo. Until the swap nothing live is touched. A volume's backup replaces every database of the server, which
    is stopped for some seconds. Call it with dry_run=true first, and db_integrity after it."""
    arguments = {"backup": backup, "dry_run": dry_run, **asdict(options)}
    if job is not None or dry_run:

        def rehearse(context: BackupContext, progress: Progress, _: CallNotes) -> Model:
            return restores.dry_run(context, progress, backup, options)

        return await long_call(ctx, rehearse, arguments, wait_seconds, job)
    try:
        name, confirmed = await consent(ctx, answer, backup, confirmation, options)
    except BackupToolError as error:
        return await refused(ctx, arguments, error)

    def work(context: BackupContext, progress: Progress, notes: CallNotes) -> Model:
        return restores.restore(context, progress, name, options, confirmed=confirmed, notes=notes)

    return await long_call(ctx, work, arguments, wait_seconds, None)


async def prune_backups(
    ctx: Context[App],
    answer: Annotated[ElicitationResult[Confirm], Resolve(confirm_prune)],
    dry_run: Annotated[
        bool, Field(description="Only tell what each rule keeps and what would go; asks nobody. The default.")
    ] = True,
    include_undo: Annotated[
        bool, Field(description="Drop every undo point of earlier restores too, if the user wants that room.")
    ] = False,
    confirmation: Annotated[
        str | None,
        Field(
            max_length=80,
            description="Only for clients that can't ask the user, after the user agreed to a dry run's list: its "
            "`confirmation`.",
        ),
    ] = None,
    wait_seconds: Wait = 50,
    job: JobParameter = None,
) -> Annotated[CallToolResult, PruneAnswer]:
    """Remove backups that retention no longer keeps (PROC-004's policy: the last 3, one a day for 7 days, a week for 4
    weeks, a month for 3 months; each kind apart). A dry run unless dry_run=false, which asks the user first. Never
    removed: the newest proved one, the last good one, the last full one before a shrink, marked ones, and whatever is
    damaged or not made by `backup`, which is told instead. Call it only when the user wants room or order."""
    arguments = {"dry_run": dry_run, "include_undo": include_undo}
    if job is not None or dry_run:

        def rehearse(context: BackupContext, progress: Progress, _: CallNotes) -> Model:
            return retention.prune(context, progress, include_undo=include_undo)

        return await long_call(ctx, rehearse, arguments, wait_seconds, job)
    try:
        confirmed = consent_to_prune(ctx, answer, confirmation, include_undo)
    except BackupToolError as error:
        return await refused(ctx, arguments, error)

    def work(context: BackupContext, progress: Progress, notes: CallNotes) -> Model:
        return retention.prune(
            context, progress, dry_run=False, include_undo=include_undo, confirmed=confirmed, notes=notes
        )

    return await long_call(ctx, work, arguments, wait_seconds, None)


async def db_integrity(
    ctx: Context[App],
    level: Annotated[Literal["quick"], Field(description="'quick' takes a moment.")] = "quick",
) -> Annotated[CallToolResult, IntegrityAnswer]:
    """Check container, server and database (PROC-004 prerequisites, step 5 and troubleshooting): state and health,
    version, the number of agents, sizes, extensions, the newest backup's age; and whether PROC-003 may go ahead on the
    backups there are (`safe_to_proceed`, with reasons in `gate`). Changes nothing. Problems come as `findings`, each
    with a remedy. Call it first when anything fails, after a restore, and just before PROC-003."""

    def work(context: BackupContext, progress: Progress) -> Model:
        return integrity.db_integrity(context, progress)

    return await short_call(ctx, work)


# -- resource and prompt ---------------------------------------------------------------------------------------------


async def manifest(name: str, ctx: Context[App]) -> str:
    """The manifest of one backup."""
    try:
        found = await in_thread(
            app_of(ctx).settings, lambda context: records.manifest_of(context, context.directory.find(name))
        )
    except BackupToolError as error:
        raise ResourceNotFoundError(str(error)) from None
    if found is None:
        raise ResourceNotFoundError(f"{name} has no manifest.")
    return found.model_dump_json(indent=1, by_alias=True)


def prepare_for_proc_003() -> str:
    """Take and check the backup that PROC-003 (agent recreation) demands."""
    return (
        "Prepare PROC-003. Call db_integrity; if it has errors, follow their remedies. Call backup with the label "
        "'before PROC-003' and verify 'drill'. If safe_to_proceed is false, stop and tell me the reasons. If it is "
        "true, tell me the backup's name, size, rows and agents, and only then go on with PROC-003."
    )
