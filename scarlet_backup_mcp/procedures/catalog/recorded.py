"""What every backup records in the same way: its database, and whether that has shrunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ... import __version__
from ...errors import DiskFull, DumpFailed
from ...hosts import free_bytes_of
from ...models.common import Compression, Kind
from ...models.manifest import Identity, Manifest, ManifestHead
from ...postgres.server import catalogue as pg
from ...postgres.server.counting import Count, Relation
from ...progress import Progress
from ...store.reading import FileReader
from ...store.writing import PartialFile
from ...wording import number_of
from .. import durations
from ..context import BackupContext


@dataclass(frozen=True)
class Order:
    """A caller's options for a backup; `compression` is one that its kind supports. See `backup`."""

    label: str | None
    compression: Compression
    accept_smaller: bool = False
    keep: bool = False


def file_fields(
    context: BackupContext, partial: PartialFile, order: Order, kind: Kind, created_at: datetime
) -> dict[str, Any]:
    """Return a manifest's fields about its finished file."""
    return {
        "name": partial.final.name,
        "kind": kind,
        "compression": order.compression,
        "created_at": created_at,
        "finished_at": datetime.now(UTC),
        "label": order.label,
        "tool_version": __version__,
        "bytes": partial.bytes,
        "sha256": partial.sha256,
        "integrity_table": context.settings.integrity_table,
    }


def row_fields(
    rows: int | None, integrity_rows: int | None, shrunk: Sequence[str] = (), last: ManifestHead | None = None
) -> dict[str, Any]:
    """Return a manifest's fields about the rows. `shrunk` says why they count as too few; `last` is the backup they
    were compared with."""
    return {
        "rows": rows,
        "integrity_rows": integrity_rows,
        "shrunk": bool(shrunk),
        "shrunk_reasons": list(shrunk),
        "last_full": last.name if last else None,
    }


def identity(
    context: BackupContext, *, system_identifier: str, version: str, version_num: int, database_oid: int | None
) -> Identity:
    """Return the identity of the configured database for a manifest."""
    container_info = context.container_info
    return Identity(
        system_identifier=system_identifier,
        database=context.database,
        database_oid=database_oid,
        server_version=version,
        server_version_num=version_num,
        via=container_info.kind,
        container=container_info.container,
        container_id=container_info.container_id,
        image=container_info.image,
        image_id=container_info.image_id,
        project=container_info.project,
        volume=container_info.volume,
    )


def identity_of_running(context: BackupContext, server: pg.ServerFacts, database: pg.DatabaseFacts) -> Identity:
    """Return the identity of the configured database, with a running server's facts."""
    return identity(
        context,
        system_identifier=server.system_identifier,
        version=server.version,
        version_num=server.version_num,
        database_oid=database.oid,
    )


def watched_of(tables: Iterable[pg.Table], watched: Relation | None) -> Relation | None:
    """Return the integrity table as it was found before a snapshot of `tables`; None if the snapshot lacks it."""
    gone = watched is not None and not watched.no_table and watched.oid not in {table.oid for table in tables}
    return None if gone else watched


def not_dumped(manifest: ManifestHead | None) -> list[str]:
    """Return a warning about rows that pg_dump left out of an SQL backup, if there are any."""
    if not (isinstance(manifest, Manifest) and manifest.not_dumped):
        return []
    unknown = "if any: the role may not read it"
    tables = ", ".join(
        f"{table.schema_}.{table.name} ({unknown if table.rows is None else f'{table.rows:,}'})"
        for table in manifest.not_dumped
    )
    why = "because pg_dump leaves out rows of extensions' tables and of schemas named like PostgreSQL's own"
    return [f"{manifest.name} lacks rows of {tables}, {why}. A backup of kind volume has them."]


def measured(
    context: BackupContext, rows: int, integrity: Count, last: ManifestHead | None, *, accept_smaller: bool
) -> dict[str, Any]:
    """Return the `row_fields` of a backup that is compared with the `last` full one."""
    shrunk: list[str] = []
    table = context.settings.integrity_table
    if integrity.rows is None:
        shrunk.append(integrity.why or f"the table {table} is missing (or SCARLET_BACKUP_INTEGRITY_TABLE is wrong)")
    elif integrity.rows == 0:
        shrunk.append(f"the table {table} is empty")
    if last is not None and last.rows is not None and rows * 2 < last.rows and not accept_smaller:
        shrunk.append(f"{number_of(rows, 'row')}, but {last.name} has {last.rows:,}")
    return row_fields(rows, integrity.rows, shrunk, last)


def publish(
    context: BackupContext,
    progress: Progress,
    partial: PartialFile,
    manifest: ManifestHead,
    order: Order,
    failed: Sequence[str] = (),
) -> None:
    """Give a finished, verified file its name, unless the call is cancelled by now; see `BackupDirectory.publish`."""
    progress.check()
    with progress.uninterrupted():
        context.directory.publish(partial, manifest, failed=list(failed), keep=order.keep)


def require_room(context: BackupContext, needed: int, what: str) -> None:
    """Raise DiskFull if the backup directory has fewer bytes free than a backup of `what` may need."""
    free = free_bytes_of(context.directory.path)
    if free is not None and free < needed:
        raise DiskFull(f"{context.directory.path} has {free:,} bytes free; a backup of {what} may need {needed:,}.")


def read_back(partial: PartialFile, progress: Progress) -> None:
    """Read a finished file back from the disk. Raises DumpFailed unless it holds the bytes that were written: what they
    unpack to was checked while they were."""
    progress.stage(f"reading {partial.path.name}", partial.bytes, durations.of_hashing(partial.bytes))
    raw = FileReader(partial.path, progress.report)
    raw.read_all()
    held = ("size", raw.bytes == partial.bytes), ("SHA-256", raw.sha256 == partial.sha256)
    wrong = [what for what, same in held if not same]
    if wrong:
        raise DumpFailed(
            f"{partial.path.name} reads back differently than it was written: {', '.join(wrong)} differ.",
            "The disk or its driver is at fault: check it, and set SCARLET_BACKUP_DIR to a directory on another disk.",
        )
