"""Run one pg_dump of one snapshot, and parse what it writes while that streams into a partial file."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ...errors import DumpIncomplete
from ...hosts import run
from ...models.common import Compression
from ...models.manifest import Activity, DatabaseProperties, NotDumped, Role, TableData, rows_by_table
from ...postgres.dump.definitions_digest import DefinitionsDigest, called_functions, definitions_sha256
from ...postgres.dump.digests import BlockDigests
from ...postgres.dump.events import Handler, ScriptDamaged
from ...postgres.dump.events import Target as CopyTarget
from ...postgres.dump.meanings import meanings
from ...postgres.dump.refusals import Refusal, Refusals, refused
from ...postgres.dump.script import ScriptReader
from ...postgres.server import catalogue as pg
from ...postgres.server import counting, programs, snapshots
from ...postgres.server.activity import activity
from ...postgres.server.effective import UNPINNED, effective
from ...postgres.server.session import Session
from ...progress import Progress
from ...store.reading import Compressor
from ...store.writing import PartialFile
from .. import durations
from ..catalog import recorded
from ..context import BackupContext
from ..reading.sql import table_data
from .dump_errors import ConcurrentChange, DumpPosition, dump_error

STEPS = 1000
"""Progress of a dump is reported at most so many times: there may be more tables."""


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


def take_snapshot(context: BackupContext, session: Session, progress: Progress) -> Snapshot:
    """Export a snapshot from a new transaction in `session`, and read the catalogue in it. pg_dump can use the snapshot
    as long as the session stays in that transaction."""
    progress.stage("taking a snapshot")
    with context.server.session(context.database, UNPINNED, progress) as other:
        settings = effective(other)
        watched = counting.find(other, context.settings.integrity_table)
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
        effective=settings,
        meanings=meanings(session),
        roles=pg.roles(session),
        schemas=pg.schemas(session),
        tables=tables,
        undumped=pg.undumped_tables(session),
        watched=recorded.watched_of(tables, watched),
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
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    """Statements that a restore would refuse."""

    @property
    def fields(self) -> dict[str, Any]:
        """Return what the manifest records of it."""
        return {name: value for name, value in vars(self).items() if name not in ("warnings", "refusals")}


def stream(
    context: BackupContext, snapshot: Snapshot, partial: PartialFile, compression: Compression, progress: Progress
) -> DumpWritten:
    """Dump the snapshot into `partial`. Raises DumpFailed, DumpIncomplete, ConcurrentChange, or what became of the
    server; then `partial` is of no use."""
    size = _size(snapshot)
    progress.stage("dumping", size or None, durations.of_dumping(size))
    digests, definitions, refusals = BlockDigests(), DefinitionsDigest(), Refusals()
    shown = _DumpProgress(snapshot.tables, progress)
    reader = ScriptReader(digests, definitions, refusals, shown)
    compressor = Compressor(compression)
    script_bytes = 0

    def sink(chunk: bytes) -> None:
        nonlocal script_bytes
        script_bytes += len(chunk)
        partial.write(compressor.compress(chunk))
        reader.feed(chunk)

    argv = programs.pg_dump(snapshot.properties.encoding, snapshot.name)
    environment = context.server.environment(context.database)
    try:
        ended = run(context.host, argv, env=environment, sink=sink, progress=progress, packed=True)
        if ended.code != 0:
            raise dump_error(context, ended, shown.position(snapshot))
        partial.write(compressor.finish())
        summary = reader.finish()
        refusals.ended()
    except ScriptDamaged as error:
        raise DumpIncomplete(f"pg_dump did not write a complete dump: line {error.line}: {error.message}.") from None
    if not (summary.header and summary.trailer):
        raise DumpIncomplete("pg_dump ended without an error, but before its closing line: the dump is incomplete.")
    tables = table_data(digests)
    role = next((role for role in snapshot.roles if role.name == context.server.user), None)
    filled = tables if snapshot.calls_functions else []
    return DumpWritten(
        tables=tables,
        rest_sha256=digests.rest_sha256,
        definitions_sha256=definitions_sha256(
            definitions.sha256, snapshot.properties, snapshot.schemas, role, snapshot.effective, filled
        ),
        script_bytes=script_bytes,
        pg_dump_version=summary.pg_dump_version or "unknown",
        warnings=[f"pg_dump said: {line}" for line in ended.stderr.splitlines() if line.strip()],
        refusals=refused(refusals.found, foreign=False),
    )


def _size(snapshot: Snapshot) -> int:
    return sum(table.bytes for table in snapshot.tables)


class _DumpProgress(Handler):
    """Report progress by table: the sizes of finished tables, and the bytes of the current one."""

    def __init__(self, tables: list[pg.Table], progress: Progress) -> None:
        self._sizes = {(table.schema, table.name): table.bytes for table in tables}
        self._progress = progress
        self._step = sum(self._sizes.values()) / STEPS
        self._done = self._present = self._size = self._rows = self._reported = 0
        self._name, self._target = "", CopyTarget("", "", ())

    def position(self, snapshot: Snapshot) -> DumpPosition:
        """Say how far the dump has come."""
        at, server = self._target, snapshot.server
        return DumpPosition(at.schema, at.name, self._rows, snapshot.name, server.superuser)

    def copy_begin(self, target: CopyTarget, line: int) -> None:
        self._target, self._rows = target, 0
        self._name = f"{target.schema}.{target.name}"
        self._size = self._sizes.get((target.schema, target.name), 0)
        self._present = 0

    def copy_data(self, data: bytes) -> None:
        self._present += len(data)
        self._rows += data.count(b"\n")
        self._report(self._done + min(self._present, self._size))

    def copy_end(self, rows: int) -> None:
        self._done += self._size
        self._report(self._done)

    def _report(self, done: int) -> None:
        if done - self._reported >= self._step:
            self._reported = done
            self._progress.report(done, self._name)


@dataclass(frozen=True)
class Counts:
    """Rows in the snapshot: of the integrity table, and those that pg_dump left out."""

    integrity: counting.Count
    not_dumped: list[NotDumped]
    warnings: list[str]


def compare_with_snapshot(
    context: BackupContext, session: Session, snapshot: Snapshot, tables: list[TableData], progress: Progress
) -> Counts:
    """Count the rows of every table in the snapshot that `session` keeps, and compare them with the dump's `tables`.

    Raises ConcurrentChange unless both have the same number of rows, extensions' tables left out, or if a table was
    rewritten, which a snapshot does not show. Call it after pg_dump has ended: it held a lock on every table, and room
    for more locks may be short.
    """
    progress.stage("counting the rows of the snapshot", seconds=durations.of_reading(_size(snapshot)))
    if rewritten := pg.rewritten_tables(session):
        raise ConcurrentChange(f"Tables were rewritten while the dump was taken: {', '.join(rewritten[:5])}.")
    compared = [table for table in snapshot.tables if not table.in_extension]
    of = [*compared, *(table for table, readable in snapshot.undumped.items() if readable)]
    of += snapshot.watched.tables if snapshot.watched else []
    with context.server.session(context.database, counting.LOCK_WAIT, progress) as other:
        counted = counting.count_rows(other, {table.oid: table for table in of}.values(), snapshot.name)
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
