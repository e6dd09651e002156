"""One pg_dump of one snapshot, watched while it streams into a partial file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from ..errors import (
    BackupToolError,
    DumpFailed,
    DumpIncomplete,
    PermissionDenied,
    ProgramMissing,
    ServerUnreachable,
)
from ..hosts import Exit, run
from ..hosts.endings import lost
from ..models import Activity, Compression, DatabaseProperties, NotDumped, Role, TableData, rows_by_table
from ..postgres import catalogue as pg
from ..postgres import counting, programs
from ..postgres.activity import activity
from ..postgres.definitions_digest import DefinitionsDigest, called_functions, definitions_sha256
from ..postgres.digests import BlockDigests
from ..postgres.effective import UNPINNED, effective
from ..postgres.meanings import meanings
from ..postgres.script import Handler, ScriptDamaged, ScriptReader
from ..postgres.script import Target as CopyTarget
from ..postgres.server import Session
from ..progress import Progress
from ..store.reading import Compressor
from ..store.writing import PartialFile
from .examine import table_data
from .target import Target

# What pg_dump says when a table, a column or a type went away or changed after the snapshot was taken.
_CONCURRENT_DDL = re.compile(r"cache lookup failed|does not exist|could not open relation|could not find|out of sync")


@dataclass(frozen=True)
class Snapshot:
    """What the catalogue said inside the snapshot that pg_dump reads."""

    name: str
    taken_at: datetime
    server: pg.ServerFacts
    database: pg.DatabaseFacts
    properties: DatabaseProperties
    effective: dict[str, str]
    meanings: dict[str, list[str]]
    roles: list[Role]
    schemas: list[str]
    tables: list[pg.Table]
    undumped: dict[pg.Table, bool]
    """Tables whose rows pg_dump leaves out, and whether they may be counted."""
    watched: counting.Relation | None
    """What the integrity table's name means."""
    activity: Activity
    calls_functions: bool
    """Of a user or an extension: see `called_functions`."""


class ConcurrentChange(DumpFailed):
    """The schema changed while the dump was taken: worth one more try."""


def take_snapshot(target: Target, session: Session, progress: Progress) -> Snapshot:
    """Begin a transaction in `session` that exports its snapshot, and read the catalogue inside it. The snapshot is
    there for pg_dump as long as the session stays in that transaction."""
    progress.stage("taking a snapshot")
    with target.server.session(target.database, UNPINNED, progress) as other:
        settings = effective(other)
        watched = counting.find(other, target.settings.integrity_table)
    written = activity(session)
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    name = session.rows("SELECT pg_export_snapshot() AS name")[0]["name"]
    tables = pg.tables(session)
    if watched is not None and not watched.no_table and watched.oid not in {table.oid for table in tables}:
        watched = None
    return Snapshot(
        name=name,
        taken_at=datetime.now(UTC),
        server=pg.server_facts(session),
        database=pg.databases(session)[target.database],
        properties=pg.properties(session),
        effective=settings,
        meanings=meanings(session),
        roles=pg.roles(session),
        schemas=pg.schemas(session),
        tables=tables,
        undumped=pg.undumped_tables(session),
        watched=watched,
        activity=written,
        calls_functions=called_functions(session).any,
    )


@dataclass(frozen=True)
class Written:
    """What went by while the dump was written."""

    tables: list[TableData]
    rest_sha256: str
    script_bytes: int
    pg_dump_version: str
    warnings: list[str]
    definitions_sha256: str | None = None


def stream(
    target: Target, snapshot: Snapshot, partial: PartialFile, compression: Compression, progress: Progress
) -> Written:
    """Dump the snapshot into `partial`. Raises DumpFailed, DumpIncomplete, ConcurrentChange or what took the server
    away; `partial` is then of no use."""
    progress.stage("dumping", sum(table.bytes for table in snapshot.tables) or None)
    digests, definitions = BlockDigests(), DefinitionsDigest()
    reader = ScriptReader(digests, definitions, _DumpProgress(snapshot.tables, progress))
    compressor = Compressor(compression)
    script_bytes = 0

    def sink(chunk: bytes) -> None:
        nonlocal script_bytes
        script_bytes += len(chunk)
        partial.write(compressor.compress(chunk))
        reader.feed(chunk)

    argv = programs.pg_dump(snapshot.properties.encoding, snapshot.name)
    try:
        ended = run(target.host, argv, env=target.server.environment(target.database), sink=sink, progress=progress)
        if ended.code != 0:
            raise _dump_error(target, ended)
        partial.write(compressor.finish())
        summary = reader.finish()
    except ScriptDamaged as error:
        raise DumpIncomplete(f"What pg_dump wrote is no whole dump: line {error.line}: {error.message}.") from None
    if not (summary.header and summary.trailer):
        raise DumpIncomplete("pg_dump ended without an error, but before its closing line: the dump is cut off.")
    tables = table_data(digests)
    role = next((role for role in snapshot.roles if role.name == target.server.user), None)
    filled = tables if snapshot.calls_functions else []
    return Written(
        tables=tables,
        rest_sha256=digests.rest_sha256,
        definitions_sha256=definitions_sha256(
            definitions.sha256, snapshot.properties, snapshot.schemas, role, snapshot.effective, filled
        ),
        script_bytes=script_bytes,
        pg_dump_version=summary.pg_dump_version or "unknown",
        warnings=[f"pg_dump said: {line}" for line in ended.stderr.splitlines() if line.strip()],
    )


class _DumpProgress(Handler):
    """Progress by table: sizes of the tables that are done, and what the present one has brought."""

    def __init__(self, tables: list[pg.Table], progress: Progress) -> None:
        self._sizes = {(table.schema, table.name): table.bytes for table in tables}
        self._progress = progress
        self._done = self._present = self._size = 0
        self._name = ""

    def copy_begin(self, target: CopyTarget, line: int) -> None:
        self._name = f"{target.schema}.{target.name}"
        self._size = self._sizes.get((target.schema, target.name), 0)
        self._present = 0

    def copy_data(self, data: bytes) -> None:
        self._present += len(data)
        self._progress.report(self._done + min(self._present, self._size), self._name)

    def copy_end(self, rows: int) -> None:
        self._done += self._size
        self._progress.report(self._done, self._name)


def locked(said: str) -> DumpFailed:
    """The error when a lock was waited for in vain."""
    return DumpFailed(
        f"A table stayed locked for {programs.LOCK_WAIT_MS / 1000:g} s (by a migration, most likely): {said}",
        "Wait until the migration has ended, then call `backup` again.",
    )


def lost_on_the_way(target: Target, ended: Exit, program: str, what: str) -> BackupToolError | None:
    """The error when a program that read the server for a dump or a copy was left alone; None: it failed itself."""
    said = ended.stderr.strip()
    if gone := lost(target.host, ended, f"the {what}"):
        return gone
    if ended.code in (126, 127):
        return ProgramMissing(f"{program} could not be started: {said}")
    if re.search(r"server closed the connection|terminating connection|connection to server|SSL connection", said):
        return ServerUnreachable(f"The server went away during the {what}: {said}")
    return None


def _dump_error(target: Target, ended: Exit) -> BackupToolError:
    said = ended.stderr.strip()
    lost = lost_on_the_way(target, ended, "pg_dump", "dump")
    if lost is not None and not isinstance(lost, ServerUnreachable):
        return lost
    if "permission denied" in said or "row-level security" in said:
        return PermissionDenied(f"The role may not read everything, so there can be no whole backup: {said}")
    if re.search(r"(lock|statement) timeout", said) and "LOCK TABLE" in said:
        return locked(said)
    if lost is not None:
        return lost
    if _CONCURRENT_DDL.search(said):
        return ConcurrentChange(f"The schema changed while the dump was taken: {said}")
    return DumpFailed(f"pg_dump failed with exit code {ended.code}: {said or 'it said nothing'}")


@dataclass(frozen=True)
class Counts:
    """Rows of the snapshot: of the integrity table, and those that pg_dump has left out of its dump."""

    integrity: counting.Count
    not_dumped: list[NotDumped]
    warnings: list[str]


def compare_with_snapshot(
    target: Target, session: Session, snapshot: Snapshot, tables: list[TableData], progress: Progress
) -> Counts:
    """Count the rows of every table in the snapshot that `session` keeps. Raises ConcurrentChange unless the dump,
    which holds `tables`, has just as many, extensions' left out, and no table was rewritten behind the snapshot's back.

    Called after pg_dump has ended: it has held a lock on every table, and few are held besides.
    """
    progress.stage("counting the rows of the snapshot")
    if rewritten := pg.rewritten_tables(session):
        raise ConcurrentChange(f"Tables were rewritten while the dump was taken: {', '.join(rewritten[:5])}.")
    compared = [table for table in snapshot.tables if not table.in_extension]
    of = [*compared, *(table for table, readable in snapshot.undumped.items() if readable)]
    of += snapshot.watched.tables if snapshot.watched else []
    with target.server.session(target.database, counting.LOCK_WAIT, progress) as other:
        counted = counting.count_rows(other, {table.oid: table for table in of}.values(), snapshot.name)
    dumped = rows_by_table(tables)
    unknown = counted.unknown_roots(compared)
    _, differences = pg.compare_rows(dumped, snapshot.tables, counted.by_root(compared), unknown)
    if differences:
        shown = "; ".join(f"{d.table}: {d.dumped} in the dump, {d.counted} in the snapshot" for d in differences[:5])
        raise ConcurrentChange(f"The dump does not hold the rows of its snapshot: {shown}.")
    lacking = {table: counted.rows.get(table.oid) for table in snapshot.undumped}
    lacking = {table: rows and rows - dumped.get((table.schema, table.name), 0) for table, rows in lacking.items()}
    integrity = counting.count_of(snapshot.watched, counted)
    if snapshot.watched and counted.failed_of(snapshot.watched.tables):
        integrity = counting.Count(sum(dumped.get((t.schema, t.name), 0) for t in snapshot.watched.tables))
    return Counts(
        integrity=integrity,
        not_dumped=[NotDumped(schema=t.schema, name=t.name, rows=rows) for t, rows in lacking.items() if rows != 0],
        warnings=counted.told("pg_dump has read all tables, but we could not count the rows of some to compare"),
    )
