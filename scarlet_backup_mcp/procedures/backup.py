"""`backup`: PROC-004's steps 1 to 4. A dump whose file gets its name only after everything about it holds."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from .. import __version__
from ..errors import (
    BackupToolError,
    ConfigurationError,
    ContainerLost,
    DiskFull,
    DumpFailed,
    DumpIncomplete,
    PermissionDenied,
    ServerUnreachable,
)
from ..hosts import Exit, free_bytes_of, run
from ..models import Backup, Compression, DatabaseProperties, Identity, Manifest, Role, Step, TableCount, TableData, rows_by_table
from ..postgres import catalogue as pg
from ..postgres import programs
from ..postgres.digests import BlockDigests
from ..postgres.script import Handler, ScriptDamaged, ScriptReader
from ..postgres.script import Target as CopyTarget
from ..postgres.server import Session
from ..progress import Progress
from ..store.lock import writer_lock
from ..store.names import MANIFEST
from ..store.reading import Compressor
from ..store.writing import PartialFile, write_atomically
from . import verify
from .catalogue import last_full
from .examine import examine, table_data
from .journal import tidy_up
from .target import Target

ROOM = {"none": 1.2, "zstd": 0.6}
"""Free space that is asked for before a dump, in sizes of the database. A real Letta database of 427 MB dumps to 497 MB."""
LABEL_LENGTH = 80
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
    roles: list[Role]
    schemas: list[str]
    tables: list[pg.Table]
    integrity_rows: int | None


class ConcurrentChange(DumpFailed):
    """The schema changed while the dump was taken: worth one more try."""


def backup(
    target: Target,
    progress: Progress,
    *,
    label: str | None = None,
    compression: Compression = "none",
    accept_smaller: bool = False,
) -> Backup:
    """Take one backup.

    `accept_smaller` says that the loss of rows since the last full backup is meant: this one becomes the new measure.
    Raises BackupToolError; no file is left behind then.
    """
    began = time.monotonic()
    label = _checked_label(label)
    progress.stage("looking at the container")
    target.host.require_running()
    directory = target.directory
    directory.prepare()
    with writer_lock(directory.path, "backup"):
        told = tidy_up(target, progress)
        directory.sweep()
        with target.server.session(target.maintenance_database, progress=progress) as session:
            pg.terminate_backends(session, tag=target.server.tag)
        try:
            manifest, said = _dump(target, progress, label, compression, accept_smaller)
        except ConcurrentChange:
            progress.stage("the schema changed during the dump: once more, with a new snapshot")
            manifest, said = _dump(target, progress, label, compression, accept_smaller)
    return _result(target, manifest, [*told, *directory.warnings(), *said], time.monotonic() - began)


def _dump(
    target: Target, progress: Progress, label: str | None, compression: Compression, accept_smaller: bool
) -> tuple[Manifest, list[str]]:
    directory = target.directory
    with target.server.session(target.database, progress=progress) as session:
        snapshot = _take_snapshot(target, session, progress)
        _require_room(target, snapshot, compression)
        name = directory.new_name(target.settings.prefix, compression)
        partial = PartialFile(directory.path / name)
        try:
            written = _stream(target, snapshot, partial, compression, progress)
            _compare_with_snapshot(session, snapshot, written.tables, progress)
            partial.finish()
            _read_back(partial, compression, written, progress)
            shrunk, last = _shrunk(target, snapshot, written.tables, accept_smaller)
            manifest = Manifest(
                name=name,
                kind="sql",
                compression=compression,
                created_at=snapshot.taken_at,
                finished_at=datetime.now(UTC),
                label=label,
                identity=_identity(target, snapshot),
                pg_dump_version=written.pg_dump_version,
                tool_version=__version__,
                bytes=partial.bytes,
                sha256=partial.sha256,
                script_bytes=written.script_bytes,
                tables=written.tables,
                rows=sum(table.rows for table in written.tables),
                rest_sha256=written.rest_sha256,
                schemas=snapshot.schemas,
                properties=snapshot.properties,
                roles=snapshot.roles,
                database_bytes=snapshot.database.bytes or 0,
                integrity_table=target.settings.integrity_table,
                integrity_rows=snapshot.integrity_rows,
                shrunk=bool(shrunk),
                shrunk_reasons=shrunk,
                last_full=last,
            )
            progress.check()
            with progress.uninterrupted():
                manifest_path = directory.path / (name + MANIFEST)
                try:
                    write_atomically(manifest_path, manifest.model_dump_json(indent=1, by_alias=True).encode())
                    partial.publish()
                except BaseException:
                    if not partial.final.exists():
                        manifest_path.unlink(missing_ok=True)
                    raise
                verify.record(directory, directory.find(name), valid=True, sha256=manifest.sha256, failed=[])
        except BaseException:
            partial.discard()
            raise
    return manifest, written.warnings


# -- the steps -------------------------------------------------------------------------------------------------------


def _take_snapshot(target: Target, session: Session, progress: Progress) -> Snapshot:
    progress.stage("taking a snapshot")
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    name = session.rows("SELECT pg_export_snapshot() AS name")[0]["name"]
    return Snapshot(
        name=name,
        taken_at=datetime.now(UTC),
        server=pg.server_facts(session),
        database=pg.databases(session)[target.database],
        properties=pg.properties(session),
        roles=pg.roles(session),
        schemas=pg.schemas(session),
        tables=pg.tables(session),
        integrity_rows=pg.count_table(session, target.settings.integrity_table),
    )


def _require_room(target: Target, snapshot: Snapshot, compression: Compression) -> None:
    free = free_bytes_of(target.directory.path)
    needed = int((snapshot.database.bytes or 0) * ROOM[compression])
    if free is not None and free < needed:
        raise DiskFull(
            f"{target.directory.path} has {free:,} bytes free; a backup of this database may need {needed:,}."
        )


@dataclass(frozen=True)
class Written:
    """What went by while the dump was written."""

    tables: list[TableData]
    rest_sha256: str
    script_bytes: int
    pg_dump_version: str
    warnings: list[str]


def _stream(
    target: Target, snapshot: Snapshot, partial: PartialFile, compression: Compression, progress: Progress
) -> Written:
    progress.stage("dumping", sum(table.bytes for table in snapshot.tables) or None)
    digests = BlockDigests()
    reader = ScriptReader(digests, _DumpProgress(snapshot.tables, progress))
    compressor = Compressor(compression)
    script_bytes = 0

    def sink(chunk: bytes) -> None:
        nonlocal script_bytes
        script_bytes += len(chunk)
        partial.write(compressor.compress(chunk))
        reader.feed(chunk)

    argv = programs.pg_dump(snapshot.name, snapshot.properties.encoding)
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
    return Written(
        tables=table_data(digests),
        rest_sha256=digests.rest_sha256,
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


def _dump_error(target: Target, ended: Exit) -> BackupToolError:
    said = ended.stderr.strip()
    if ended.code is None or ended.code == 137:
        return ContainerLost(f"The container or its engine went away during the dump. {said}".strip())
    if ended.code in (126, 127):
        return ConfigurationError(f"pg_dump could not be started: {said}", "Use an image with PostgreSQL's programs.")
    if "permission denied" in said or "row-level security" in said:
        return PermissionDenied(f"The role may not read everything, so there can be no whole backup: {said}")
    if "lock timeout" in said:
        return DumpFailed(
            f"A table stayed locked for {programs.LOCK_WAIT_MS // 1000} s (a migration, most likely): {said}",
            "Wait until the migration has ended, then call `backup` again.",
        )
    if re.search(r"server closed the connection|terminating connection|connection to server|SSL connection", said):
        return ServerUnreachable(f"The server went away during the dump: {said}")
    if _CONCURRENT_DDL.search(said):
        return ConcurrentChange(f"The schema changed while the dump was taken: {said}")
    return DumpFailed(f"pg_dump failed with exit code {ended.code}: {said or 'it said nothing'}")


def _compare_with_snapshot(
    session: Session, snapshot: Snapshot, tables: list[TableData], progress: Progress
) -> None:
    progress.stage("counting the rows of the snapshot")
    counted = pg.count_rows(session, snapshot.tables)
    _, differences = pg.compare_rows(rows_by_table(tables), snapshot.tables, counted)
    if differences:
        shown = "; ".join(f"{d.table}: {d.dumped} in the dump, {d.counted} in the snapshot" for d in differences[:5])
        raise ConcurrentChange(f"The dump does not hold the rows of its snapshot: {shown}.")


def _read_back(partial: PartialFile, compression: Compression, written: Written, progress: Progress) -> None:
    found = examine(partial.path, compression, progress)
    wrong = [
        what
        for what, same in (
            ("its end", found.damage is None and found.compression_damage is None),
            ("size", found.bytes == partial.bytes),
            ("SHA-256", found.sha256 == partial.sha256),
            ("tables", found.tables == written.tables),
            ("script", found.rest_sha256 == written.rest_sha256),
        )
        if not same
    ]
    if wrong:
        raise DumpFailed(
            f"What was read back from {partial.path.name} is not what was written: {', '.join(wrong)} differ.",
            "The disk or its driver is at fault: check it, and set SCARLET_BACKUP_DIR to another one.",
        )


def _shrunk(
    target: Target, snapshot: Snapshot, tables: list[TableData], accept_smaller: bool
) -> tuple[list[str], str | None]:
    """Why this backup counts as shrunk (nothing: it doesn't), and the full backup it was measured against."""
    reasons: list[str] = []
    table = target.settings.integrity_table
    if snapshot.integrity_rows is None:
        reasons.append(f"the table {table} is missing")
    elif snapshot.integrity_rows == 0:
        reasons.append(f"the table {table} is empty")
    rows, last = sum(t.rows for t in tables), last_full(target)
    if last is not None and rows * 2 < last.rows and not accept_smaller:
        reasons.append(f"{rows:,} rows, while {last.name} holds {last.rows:,}")
    return reasons, last.name if last else None


def _identity(target: Target, snapshot: Snapshot) -> Identity:
    place = target.place
    return Identity(
        system_identifier=snapshot.server.system_identifier,
        database=target.database,
        database_oid=snapshot.database.oid,
        server_version=snapshot.server.version,
        server_version_num=snapshot.server.version_num,
        via=place.kind,
        container=place.container,
        container_id=place.container_id,
        image=place.image,
        image_id=place.image_id,
        project=place.project,
        volume=place.volume,
    )


# -- what is told ----------------------------------------------------------------------------------------------------


def safe_to_proceed(manifest: Manifest) -> tuple[bool, list[str]]:
    """Whether PROC-003 may go ahead on this backup, which has just passed `full`, and why."""
    if manifest.shrunk:
        against = f" The last full one is {manifest.last_full}." if manifest.last_full else ""
        return False, [f"The database has shrunk: {'; '.join(manifest.shrunk_reasons)}.{against}"]
    return True, [
        f"{manifest.name} was read back in full and matches its manifest.",
        f"It is of the configured database {manifest.identity.database}.",
        f"{manifest.integrity_table} holds {manifest.integrity_rows} rows; nothing has shrunk.",
    ]


def _result(target: Target, manifest: Manifest, warnings: list[str], seconds: float) -> Backup:
    safe, reasons = safe_to_proceed(manifest)
    path = target.directory.path / manifest.name
    return Backup(
        name=manifest.name,
        path=str(path),
        kind="sql",
        created_at=manifest.created_at,
        bytes=manifest.bytes,
        sha256=manifest.sha256,
        compression=manifest.compression,
        label=manifest.label,
        database=target.database,
        tables=[
            TableCount(schema=schema, name=name, rows=rows)
            for (schema, name), rows in rows_by_table(manifest.tables).items()
        ],
        rows=manifest.rows,
        integrity_rows=manifest.integrity_rows,
        steps=[
            Step(step="Prerequisiti", title="Docker and PostgreSQL are running", ok=True, detail=target.describe()),
            Step(step="Passo 1", title="Go to Scarlet's directory", ok=True, detail=str(target.directory.path.parent)),
            Step(step="Passo 2", title="Create the backup directory", ok=True, detail=str(target.directory.path)),
            Step(step="Passo 3", title="Take the SQL backup", ok=True, detail=manifest.name),
            Step(
                step="Passo 4",
                title="Check the backup",
                ok=True,
                detail=f"{manifest.bytes:,} bytes, {manifest.rows:,} rows in {len(manifest.tables)} tables, read back in full",
            ),
        ],
        safe_to_proceed=safe,
        reasons=reasons,
        shrunk=manifest.shrunk,
        warnings=warnings,
        duration_seconds=round(seconds, 3),
    )


def _checked_label(label: str | None) -> str | None:
    label = (label or "").strip()
    if len(label) > LABEL_LENGTH or any(ord(c) < 32 for c in label):
        raise ConfigurationError(
            f"The label has {len(label)} characters or holds control characters.",
            f"Use at most {LABEL_LENGTH} printable characters.",
        )
    return label or None
