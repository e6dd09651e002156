"""Copy the whole running cluster (`backup` of kind `volume`), and parse the copy while it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ...errors import (
    BackupToolError,
    DataDamaged,
    DumpFailed,
    DumpIncomplete,
    PermissionDenied,
    ServerUnreachable,
    VolumeUnsupported,
    WrongServer,
)
from ...hosts import ContainerInfo, Exit
from ...hosts.docker.volumes import volume_labels
from ...models.manifest import Activity, CopiedTable, Site, TableCount, VolumeManifest
from ...models.verification import Check
from ...postgres.cluster import controldata
from ...postgres.cluster.base_backup import BACKUP_MANIFEST, BackupManifest
from ...postgres.cluster.replication import require_readiness, unlogged_tables, wal_kept
from ...postgres.server import catalogue as pg
from ...postgres.server import counting, programs, snapshots
from ...postgres.server.activity import activity
from ...postgres.server.session import OWN_SEARCH_PATH
from ...progress import Progress
from ...store.writing import PartialFile
from .. import disk_space, durations
from ..catalog import recorded
from ..catalog.recorded import Order
from ..catalog.records import last_full
from ..context import BackupContext
from ..reading import archive, archive_checks, archive_configuration, checks
from ..reading.archive import ArchiveContents, ArchiveWritten
from .client_programs import require_pg_basebackup
from .dump_errors import lost_on_the_way

ROOM = 0.6
"""Free space required for a copy, in sizes of the cluster; docs/choosing.md has measured ones."""


@dataclass(frozen=True)
class ServerState:
    """The server's databases and rows at a moment before or after the copy."""

    at: datetime
    server: pg.ServerFacts
    databases: dict[str, pg.DatabaseFacts]
    tables: list[TableCount]
    unlogged: list[str]
    """Tables that are empty in a copy, whatever they hold now; they count as empty."""
    uncounted: list[str]
    """Tables whose rows could not all be counted; `tables` lacks them."""
    warnings: list[str]
    integrity: counting.Count
    activity: Activity

    @property
    def rows(self) -> int:
        """Sum the rows of all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def cluster_bytes(self) -> int | None:
        """Sum the sizes of the databases; None if one is not known."""
        sizes = [database.bytes for database in self.databases.values()]
        return None if None in sizes else sum(size or 0 for size in sizes)


def copy(context: BackupContext, progress: Progress, order: Order) -> tuple[VolumeManifest, list[str]]:
    """Copy the cluster, verify the copy, and give it its name; return its manifest and warnings.

    Call it under the lock. Raises VolumeUnsupported or PermissionDenied if the server can't be copied, DumpFailed or
    what became of the server if the copy fails; then no file is left behind.
    """
    version, compression = context.server.program_version("pg_basebackup"), order.compression
    with context.maintenance_session(progress) as session:
        require_pg_basebackup(context, session, version)
        require_readiness(session)
        before = _server_state(context, progress)
        recorded.require_room(context, int((before.cluster_bytes or 0) * ROOM), "this cluster")
        disk_space.require_checkpoint(context.server, before.server, "a copy of the cluster")
        name = context.directory.new_name(context.settings.prefix, compression, "volume")
        with PartialFile(context.directory.path / name) as partial:
            with wal_kept(session):
                progress.stage(
                    "copying the cluster", before.cluster_bytes, durations.of_dumping(before.cluster_bytes or 0)
                )
                written = archive.write(
                    context.host,
                    programs.pg_basebackup(),
                    partial,
                    compression,
                    progress,
                    collector=archive.Inventory(),
                    env=context.server.environment(context.maintenance_database),
                    total=before.cluster_bytes,
                    failure=lambda ended: _error(context, ended),
                )
            contents = written.contents
            listed = _require_whole(contents)
            _require_this_cluster(contents, before.server)
            partial.finish()
            recorded.read_back(partial, progress)
            after = _server_state(context, progress, before)
            rows = min(before.rows, after.rows)
            integrity = min(before.integrity, after.integrity, key=lambda counted: counted.rows or 0)
            last = last_full(context, ("sql", "volume"))
            manifest = VolumeManifest(
                **recorded.file_fields(context, partial, order, "volume", before.at),
                **recorded.measured(context, rows, integrity, last, accept_smaller=order.accept_smaller),
                **fields_of(written),
                identity=recorded.identity_of_running(context, before.server, before.databases[context.database]),
                pg_basebackup_version=version,
                site=site_of(context.container_info, before.server.data_directory),
                databases=sorted(before.databases.keys() & after.databases.keys()),
                cluster_bytes=before.cluster_bytes,
                tables=_both(before, after),
                uncounted=sorted({*before.uncounted, *after.uncounted}),
                unlogged=sorted({*before.unlogged, *after.unlogged}),
                activity=before.activity,
                quiet=after is before,
                backup_manifest_sha256=contents.files[BACKUP_MANIFEST].sha256,
                start_lsn=listed.wal_ranges[0].start,
                end_lsn=listed.wal_ranges[-1].end,
            )
            recorded.publish(context, progress, partial, manifest, order)
    said = [f"pg_basebackup said: {line}" for line in written.said]
    said += dict.fromkeys([*before.warnings, *after.warnings])
    if before.unlogged:
        said.append(
            f"Unlogged tables come back empty from a copy of a running server: {', '.join(before.unlogged)}. An SQL "
            "backup holds their rows; so do copies after `ALTER TABLE … SET LOGGED`."
        )
    return manifest, said


def fields_of(written: ArchiveWritten) -> dict[str, Any]:
    """Return the manifest's fields about the archive itself."""
    contents = written.contents
    return {
        "tar_bytes": written.tar_bytes,
        "files": len(contents.files),
        "wal": archive_checks.wal_of(contents),
        "rules": archive_checks.RULES_VERSION,
        "configuration": [str(finding) for finding in archive_configuration.findings_of(contents)],
    }


def _server_state(context: BackupContext, progress: Progress, before: ServerState | None = None) -> ServerState:
    """Count the configured database's rows in a snapshot of their own, once before the copy and once after it.

    If nothing was written since `before`, it returns that and counts nothing.
    """
    with context.server.session(context.database, counting.LOCK_WAIT, progress) as session:
        snapshots.begin(session)
        now = activity(session)
        if before is not None and before.activity.quiet and now.transactions == before.activity.transactions:
            return before
        progress.stage("counting the rows of the database")
        with context.server.session(context.database, {**counting.LOCK_WAIT, **OWN_SEARCH_PATH}, progress) as other:
            found = counting.find(other, context.settings.integrity_table)
            tables = pg.tables(session, sizes=False)
            watched = recorded.watched_of(tables, found)
            emptied = unlogged_tables(session)
            at = datetime.now(UTC)
            of = {table.oid: table for table in [*(watched.tables if watched else []), *tables]}
            snapshot = snapshots.export(session)
            counted = counting.count_rows(other, [of[oid] for oid in of.keys() - emptied], snapshot)
        by_root, unknown = counted.by_root(tables), counted.unknown_roots(tables)
        return ServerState(
            at=at,
            server=pg.server_facts(session),
            databases=pg.databases(session),
            tables=[
                TableCount(schema=table.schema, name=table.name, rows=by_root.get(table.oid, 0))
                for table in tables
                if table.root == table.oid and table.oid not in unknown
            ],
            unlogged=[f"{table.schema}.{table.name}" for table in tables if table.oid in emptied],
            uncounted=[f"{table.schema}.{table.name}" for table in tables if table.oid in unknown],
            warnings=counted.warnings("Some tables could not be counted, so a drill can't compare them"),
            integrity=counting.count_of(watched, counted),
            activity=now,
        )


def site_of(container_info: ContainerInfo, data_directory: str | None) -> Site | None:
    """Describe where the data directory lies; `data_directory` is the server's own word for it. None without a
    container or a mount."""
    container_info = replace(container_info, data_directory=data_directory or container_info.data_directory)
    mount = container_info.data_mount
    if mount is None or container_info.data_directory is None:
        return None
    return Site(
        data_directory=container_info.data_directory,
        mounted_at=mount.destination,
        volume=container_info.volume,
        volume_labels=volume_labels(container_info.volume) if container_info.volume else {},
    )


def _both(before: ServerState, after: ServerState) -> list[CopiedTable]:
    then = {(table.schema_, table.name): table.rows for table in after.tables}
    return [
        CopiedTable(schema=t.schema_, name=t.name, rows=t.rows, rows_after=then.get((t.schema_, t.name)))
        for t in before.tables
        if f"{t.schema_}.{t.name}" not in after.uncounted
    ]


def _require_whole(contents: ArchiveContents) -> BackupManifest:
    """Read the server's list of what it sent. Raises DumpIncomplete unless the archive holds that and nothing else."""
    found = [archive_checks.data_directory(contents), *archive_checks.base_backup_checks(contents)]
    found += [Check(check="structure", ok=False, detail=odd) for odd in contents.odd]
    listed, _ = archive_checks.backup_manifest(contents)
    if listed is None or any(check.ok is not True for check in found):
        wrong = checks.describe([check for check in found if check.ok is not True])
        raise DumpIncomplete(f"pg_basebackup ended without an error, but the copy is incomplete: {wrong}.")
    return listed


def _require_this_cluster(contents: ArchiveContents, server: pg.ServerFacts) -> None:
    """Check the control file in the copy: pg_basebackup does not say which server it read. Raises WrongServer."""
    if not controldata.is_of(contents.kept.get(f"global/{archive.PG_CONTROL}", b""), server.system_identifier):
        raise WrongServer(f"pg_basebackup copied another cluster than {server.system_identifier}.")


def _error(context: BackupContext, ended: Exit) -> BackupToolError:
    said = ended.stderr.strip()
    lost = lost_on_the_way(context, ended, "pg_basebackup", "copy")
    if lost is not None and not isinstance(lost, ServerUnreachable):
        return lost
    if "pg_hba.conf" in said:
        return PermissionDenied(
            f"The server does not allow copying from there: {said}",
            "Add `local replication all trust`, as the image's own has it, to its pg_hba.conf (for a server on another "
            "machine `host replication all <address> scram-sha-256`) and `SELECT pg_reload_conf()`.",
        )
    if "max_wal_senders" in said:
        return VolumeUnsupported(
            f"All replication connections are in use: {said}",
            "See `SELECT * FROM pg_stat_replication`, or raise max_wal_senders.",
        )
    if "has already been removed" in said:
        return DumpFailed(
            f"The server removed WAL that the copy needs: {said}",
            "Raise max_slot_wal_keep_size (-1 is its default) or wal_keep_size, and take a backup again.",
        )
    if "COPY stream ended before" in said:
        return DumpFailed(
            f"The server broke the copy off: {said}",
            "pg_basebackup does not say why; the server's log does (in Docker: `docker compose logs postgres`). Fix "
            "that and take a backup again.",
        )
    if re.search(r"checksum (error|verification failure)", said):
        return DataDamaged(
            f"Pages of the database are damaged, according to their checksums: {said}",
            DataDamaged.default_remedy,
        )
    if lost is not None:
        return lost
    return DumpFailed(f"pg_basebackup failed with exit code {ended.code}: {said or 'no output'}")
