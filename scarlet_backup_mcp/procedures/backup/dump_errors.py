"""Turn the failure of a dump or a copy into an error with a remedy that leads on."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

from ...errors import (
    BackupToolError,
    DataDamaged,
    DiskFull,
    DumpFailed,
    HostError,
    PermissionDenied,
    ProgramMissing,
    ServerError,
    ServerUnreachable,
    ValueTooLarge,
)
from ...hosts import Exit
from ...hosts.endings import lost
from ...postgres.server import dump_failures, programs
from ...postgres.server.quoting import identifier
from ..context import BackupContext
from ..lock_shortage import TABLES, too_few_locks


class ConcurrentChange(DumpFailed):
    """The schema changed while the dump was taken; another try may succeed."""

    default_remedy = "Wait until the migration that changes the schema has ended, then take a backup again."


@dataclass(frozen=True)
class DumpPosition:
    """How far a dump has come: the table being read, how many of its rows, and the snapshot."""

    schema: str
    name: str
    rows: int
    snapshot: str
    superuser: bool


def locked(said: str) -> DumpFailed:
    """Return the error for a lock that was never granted."""
    return DumpFailed(
        f"A table stayed locked for {programs.LOCK_WAIT_MS / 1000:g} s (by a migration, most likely): {said}",
        "Wait until the migration has ended, then take a backup again.",
    )


def lost_on_the_way(context: BackupContext, ended: Exit, program: str, what: str) -> BackupToolError | None:
    """Return the error for a program that lost its server or container; None if it failed by itself."""
    said = ended.stderr.strip()
    if gone := lost(context.host, ended, f"the {what}"):
        return gone
    if ended.code in (126, 127):
        return ProgramMissing(f"{program} could not be started: {said}")
    if re.search(r"server closed the connection|terminating connection|connection to server|SSL connection", said):
        return ServerUnreachable(f"The server went away during the {what}: {said}")
    return None


def dump_error(context: BackupContext, ended: Exit, at: DumpPosition) -> BackupToolError:
    """Return the error for a pg_dump that failed."""
    said = ended.stderr.strip()
    lost = lost_on_the_way(context, ended, "pg_dump", "dump")
    if lost is not None and not isinstance(lost, ServerUnreachable):
        return lost
    kind = dump_failures.kind_of(said)
    if kind == "denied":
        return PermissionDenied(f"The role may not read everything, so the backup would be incomplete: {said}")
    if kind == "locked":
        return locked(said)
    if lost is not None:
        return lost
    reason = dump_failures.reason_of(said)
    if kind == "too large":
        return ValueTooLarge(
            f"{_row(context, said, at)} can't be written to a dump: {reason}. A row of a dump holds less than 1 GB, "
            "and bytea takes two characters a byte."
        )
    if kind == "locks":
        return too_few_locks(context.server, context.database, "pg_dump locks every table", TABLES)
    if kind == "damage":
        return DataDamaged(
            f"{_row(context, said, at)} can't be read, because the database's files are damaged: {reason}."
        )
    if kind == "spilled":
        return DiskFull(
            f"The server's disk became full while it was dumped: {reason}.",
            "Free space where the server keeps its data or its temporary files (with Docker, `docker system df` shows "
            "what is used), then take a backup again.",
        )
    if kind == "limit":
        return DumpFailed(
            f"pg_dump needs larger temporary files than the server allows: {reason}.",
            f"Raise it, as a superuser: `ALTER ROLE {identifier(context.server.user)} SET temp_file_limit = -1`; then "
            "take a backup again.",
        )
    if kind == "changed":
        return ConcurrentChange(f"The schema changed while the dump was taken: {said}")
    return DumpFailed(f"pg_dump failed with exit code {ended.code}: {said or 'no output'}")


def _row(context: BackupContext, said: str, at: DumpPosition) -> str:
    """Name the table that was being read, and the row."""
    table = dump_failures.table_of(said)
    if table is None:
        return "Something"
    schema, name = table
    rows = at.rows if (at.schema, at.name) == table else 0
    key = ""
    with suppress(ServerError, HostError), context.server.session(context.database) as session:
        key = dump_failures.key_at(session, schema, name, rows, at.snapshot)
    where = f" with the key {key}" if key else ""
    return f"In the table {schema}.{name} the row{where} behind the first {rows:,}"
