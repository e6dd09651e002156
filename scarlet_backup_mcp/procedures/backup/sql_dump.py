"""Run one pg_dump of one snapshot, and parse what it writes while that streams into a partial file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ...errors import DumpIncomplete
from ...hosts import Packed, run
from ...models.common import Compression
from ...models.manifest import Activity, DatabaseProperties, NotDumped, Role, TableData, rows_by_table
from ...postgres.dump.definitions_digest import DefinitionsDigest, called_functions, definitions_sha256
from ...postgres.dump.digests import BlockDigests
from ...postgres.dump.events import Handler, ScriptDamaged
from ...postgres.dump.events import Target as CopyTarget
from ...postgres.dump.meanings import meanings
from ...postgres.dump.refusals import RULES_VERSION, Refusal, Refusals, refused
from ...postgres.dump.script import ScriptReader
from ...postgres.server import catalogue as pg
from ...postgres.server import counting, programs, snapshots
from ...postgres.server.activity import activity
from ...postgres.server.effective import UNPINNED, effective
from ...postgres.server.session import Session
from ...progress import Progress
from ...store.reading import CompressionDamaged
from ...store.storing import Storing
from ...store.writing import PartialFile
from .. import durations
from ..catalog import recorded
from ..context import BackupContext
from ..reading.sql import table_data
from .dump_errors import ConcurrentChange, DumpPosition, dump_error


@dataclass(frozen=True)
class Snapshot:
    """The catalogue as it is in the snapshot that pg_dump reads."""

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
    """Tables whose rows pg_dump leaves out; true if they may be counted."""
    watched: counting.Relation | None
    """The relation that the integrity table's name means; None without one."""
    activity: Activity
    calls_functions: bool
    """Whether it calls functions of users or extensions: see `called_functions`."""


@dataclass(frozen=True)
class Own:
    """What depends on the database's own settings: those in force, and what the integrity table's name means."""

    settings: dict[str, str]
    watched: counting.Relation | None


def own(context: BackupContext, progress: Progress) -> Own:
    """Read that in a session of its own."""
    with context.server.session(context.database, UNPINNED, progress) as session:
        return Own(effective(session), counting.find(session, context.settings.integrity_table))


def take_snapshot(session: Session, own: Own) -> Snapshot:
    """Export a snapshot from a new transaction in `session`, and read the catalogue in it. pg_dump can use the snapshot
    as long as the session stays in that transaction."""
    written = activity(session)
    snapshots.begin(session)
    name = snapshots.export(session)
    tables = pg.tables(session)
    return Snapshot(
        name=name,
        taken_at=datetime.now(UTC),
        server=pg.server_facts(session),
        database=pg.connected_database(session),
        properties=pg.properties(session),
        effective=own.settings,
        meanings=meanings(session),
        roles=pg.roles(session),
        schemas=pg.schemas(session),
        tables=tables,
        undumped=pg.undumped_tables(session),
        watched=recorded.watched_of(tables, own.watched),
        activity=written,
        calls_functions=called_functions(session).any,
    )


@dataclass(frozen=True)
class DumpWritten:
    """What was learned from the dump while it was written."""

    tables: list[TableData]
    rest_sha256: str
    script_bytes: int
    pg_dump_version: str
    warnings: list[str]
    definitions_sha256: str | None = None
    rules: int | None = None
    """The manifest's."""
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    """Statements that a restore would refuse."""

    @property
    def fields(self) -> dict[str, Any]:
        """Return what the manifest records of it."""
        return {name: value for name, value in vars(self).items() if name not in ("warnings", "refusals")}


def stream(
    context: BackupContext,
    snapshot: Snapshot,
    partial: PartialFile,
    compression: Compression,
    progress: Progress,
    begun: Callable[[], object],
) -> DumpWritten:
    """Dump the snapshot into `partial`; call `begun` as soon as pg_dump is connected and has its locks. Raises
    DumpFailed, DumpIncomplete, ConcurrentChange, or what became of the server; then `partial` is of no use."""
    size = size_of(snapshot)
    progress.stage("dumping", size or None, durations.of_dumping(size))
    digests, definitions, refusals = BlockDigests(), DefinitionsDigest(), Refusals()
    position = _Position(snapshot.tables)
    reader = ScriptReader(digests, definitions, refusals, position)
    argv = programs.pg_dump(snapshot.properties.encoding, snapshot.name)
    environment = context.server.environment(context.database)
    packed: Packed = "kept" if compression == "zstd" else True
    try:
        with Storing(partial, compression, reader.feed) as storing:

            def sink(chunk: bytes) -> None:
                if not partial.bytes:
                    begun()
                storing.put(chunk)
                progress.report(position.done, position.name)

            ended = run(context.host, argv, env=environment, sink=sink, progress=progress, packed=packed)
            if ended.code != 0:
                with suppress(ScriptDamaged, CompressionDamaged):
                    storing.finish()
                raise dump_error(context, ended, position.reached(snapshot, reader.rows_of_block))
            storing.finish()
        summary = reader.finish()
        refusals.ended()
    except ScriptDamaged as error:
        raise DumpIncomplete(f"pg_dump did not write a complete dump: line {error.line}: {error.message}.") from None
    except CompressionDamaged as error:
        raise DumpIncomplete(f"pg_dump's output was damaged on its way here: {error}.") from None
    if not (summary.header and summary.trailer):
        raise DumpIncomplete("pg_dump ended without an error, but before its closing line: the dump is incomplete.")
    tables = table_data(digests)
    found = refused(refusals.found, foreign=False)
    role = next((role for role in snapshot.roles if role.name == context.server.user), None)
    filled = tables if snapshot.calls_functions else []
    return DumpWritten(
        tables=tables,
        rest_sha256=digests.rest_sha256,
        definitions_sha256=definitions_sha256(
            definitions.sha256, snapshot.properties, snapshot.schemas, role, snapshot.effective, filled
        ),
        script_bytes=summary.bytes,
        pg_dump_version=summary.pg_dump_version or "unknown",
        warnings=[f"pg_dump said: {line}" for line in ended.stderr.splitlines() if line.strip()],
        rules=None if found else RULES_VERSION,
        refusals=found,
    )


def size_of(snapshot: Snapshot) -> int:
    """Sum the sizes of the tables, in bytes."""
    return sum(table.bytes for table in snapshot.tables)


class _Position(Handler):
    """How far the dump has come: `done` sums the sizes of finished tables and the bytes of the current one, `name`."""

    def __init__(self, tables: list[pg.Table]) -> None:
        self._sizes = {(table.schema, table.name): table.bytes for table in tables}
        self._finished = self._present = self._size = 0
        self._target = CopyTarget("", "", ())
        self.done, self.name = 0, ""

    def reached(self, snapshot: Snapshot, rows: int) -> DumpPosition:
        """Say how far the dump has come: `rows` of the current table."""
        at, server = self._target, snapshot.server
        return DumpPosition(at.schema, at.name, rows, snapshot.name, server.superuser)

    def copy_begin(self, target: CopyTarget, line: int) -> None:
        self._target = target
        self.name = f"{target.schema}.{target.name}"
        self._size = self._sizes.get((target.schema, target.name), 0)
        self._present = 0

    def copy_data(self, data: bytes) -> None:
        self._present += len(data)
        self.done = self._finished + min(self._present, self._size)

    def copy_end(self, rows: int) -> None:
        self._finished += self._size
        self.done = self._finished


@dataclass(frozen=True)
class Counts:
    """Rows in the snapshot: of the integrity table, and those that pg_dump left out."""

    integrity: counting.Count
    not_dumped: list[NotDumped]
    warnings: list[str]


def tables_to_count(snapshot: Snapshot) -> list[pg.Table]:
    """List the tables whose rows are compared with the dump's, or recorded because that lacks them."""
    of = [*_compared(snapshot), *(table for table, readable in snapshot.undumped.items() if readable)]
    of += snapshot.watched.tables if snapshot.watched else []
    return [*{table.oid: table for table in of}.values()]


def count(context: BackupContext, snapshot: Snapshot, of: list[pg.Table], progress: Progress) -> counting.Counted:
    """Count the rows of tables in the snapshot. Raises ServerError or HostError."""
    with context.server.session(context.database, counting.LOCK_WAIT, progress) as session:
        return counting.count_rows(session, of, snapshot.name)


def _compared(snapshot: Snapshot) -> list[pg.Table]:
    return [table for table in snapshot.tables if not table.in_extension]


def compare_with_snapshot(
    context: BackupContext,
    session: Session,
    snapshot: Snapshot,
    tables: list[TableData],
    counted: counting.Counted,
    progress: Progress,
) -> Counts:
    """Count the rows of every table in the snapshot that `session` keeps, except those that were `counted` during the
    dump, and compare them with the dump's `tables`.

    Raises ConcurrentChange unless both have the same number of rows, extensions' tables left out, or if a table was
    rewritten, which a snapshot does not show. Call it after pg_dump has ended, when its locks are gone.
    """
    if rewritten := pg.rewritten_tables(session):
        raise ConcurrentChange(f"Tables were rewritten while the dump was taken: {', '.join(rewritten[:5])}.")
    if rest := [table for table in tables_to_count(snapshot) if table.kind == "r" and table.oid not in counted.rows]:
        late = count(context, snapshot, rest, progress)
        counted = counting.Counted({**counted.rows, **late.rows}, late.failed)
    compared = _compared(snapshot)
    dumped = rows_by_table(tables)
    unknown = counted.unknown_roots(compared)
    _, differences = pg.compare_rows(dumped, snapshot.tables, counted.by_root(compared), unknown)
    if differences:
        shown = "; ".join(f"{d.table}: {d.dumped} in the dump, {d.counted} in the snapshot" for d in differences[:5])
        raise ConcurrentChange(f"The dump's rows differ from its snapshot: {shown}.")
    lacking = {table: counted.rows.get(table.oid) for table in snapshot.undumped}
    lacking = {table: rows and rows - dumped.get((table.schema, table.name), 0) for table, rows in lacking.items()}
    integrity = counting.count_of(snapshot.watched, counted)
    if snapshot.watched and counted.failed_of(snapshot.watched.tables):
        integrity = counting.Count(sum(dumped.get((t.schema, t.name), 0) for t in snapshot.watched.tables))
    return Counts(
        integrity=integrity,
        not_dumped=[NotDumped(schema=t.schema, name=t.name, rows=rows) for t, rows in lacking.items() if rows != 0],
        warnings=counted.warnings("pg_dump read all tables, but the rows of some could not be counted to compare them"),
    )
