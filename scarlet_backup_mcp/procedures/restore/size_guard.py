"""Compare what a restore brings with what it replaces: less than half needs a consent of its own."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from ...errors import HostError, QueryFailed, ServerError, SmallerRefused
from ...models.manifest import Manifest, VolumeManifest
from ...postgres.server import catalogue as pg
from ...postgres.server.activity import last_commit, written_since
from ...postgres.server.counting import count_rows
from ...postgres.server.session import Session
from ...progress import Progress
from ...wording import number_of, size
from ..context import BackupContext

SECONDS = 20
"""How long all of the live database's rows may take to be counted: a question waits for it."""
UNKNOWN_WRITE = "when it was last written to is not recorded"


@dataclass(frozen=True)
class Size:
    """How much there is; None: nobody knows. `integrity_rows` are those of the integrity table, `bytes` those on the
    server's disk, of all databases for a `cluster`. `written` says in words when it was last written to."""

    rows: int | None
    integrity_rows: int | None
    tables: int | None = None
    bytes: int | None = None
    cluster: bool = False
    written: str = ""

    def in_words(self, table: str) -> str:
        """Describe how much that is in words."""
        rows = number_of(self.rows, "row")
        tables = "" if self.tables is None else f" in {number_of(self.tables, 'table')}"
        of_those = "" if self.integrity_rows is None else f", {self.integrity_rows:,} of them in {table}"
        of = " with all other databases" if self.cluster else ""
        size_on_disk = "" if self.bytes is None else f", {size(self.bytes)}{of}"
        return f"{rows}{tables}{of_those}{size_on_disk}"

    def described(self, table: str) -> str:
        """Describe it, and when it was last written to."""
        return f"{self.in_words(table)}; {self.written or UNKNOWN_WRITE}"


def recorded(manifest: Manifest | VolumeManifest) -> Size:
    """Return what a manifest says of its backup."""
    volume = isinstance(manifest, VolumeManifest)
    until = "" if manifest.identity is None else f"it holds what was written until {_moment(manifest.created_at)}"
    return Size(
        manifest.rows,
        manifest.integrity_rows,
        None if manifest.rows is None else len(_tables(manifest)),
        manifest.cluster_bytes if volume else manifest.database_bytes,
        volume,
        until,
    )


def measured(
    context: BackupContext,
    database: str,
    integrity_rows: int | None,
    progress: Progress,
    like: Manifest | VolumeManifest | None = None,
) -> Size:
    """Measure a database of the server, beside the backup with the manifest `like`. What can't be counted in time, or
    not behind a migration, is unknown."""
    until, found = time.monotonic() + SECONDS, Size(None, integrity_rows)
    options = {"lock_timeout": "3s", "statement_timeout": f"{SECONDS}s"}
    progress.stage(f"counting the rows of {database}")
    try:
        with context.server.session(database, options, progress) as session:
            tables = [table for table in pg.tables(session, sizes=False) if not table.in_extension]
            found = replace(found, tables=len(_named_alike(tables, set() if like is None else _tables(like))))
            databases, cluster = pg.databases(session), isinstance(like, VolumeManifest)
            sizes = [of.bytes for of in databases.values() if cluster or of.name == database]
            on_disk = None if None in sizes else sum(of or 0 for of in sizes)
            found = replace(found, bytes=on_disk, cluster=cluster)
            found = replace(found, written=_written(session, databases[database].oid, like))
            found_rows = count_rows(session, tables, until=until)
            return found if found_rows.failed else replace(found, rows=sum(found_rows.rows.values()))
    except (HostError, ServerError):
        return found


def compared(brings: Size, now: Size | None, table: str) -> str:
    """Describe what comes and what it replaces, and say loudly if that is more; `now` None: nothing is replaced."""
    comes = f"What comes: {brings.described(table)}."
    if now is None:
        return comes
    pairs = (
        ("row", "", brings.rows, now.rows),
        ("row", f" in {table}", brings.integrity_rows, now.integrity_rows),
        ("table", "", brings.tables, now.tables),
    )
    more = [
        f"{number_of(old - new, f'more {what}')}{where}"
        for what, where, new, old in pairs
        if new is not None and old is not None and new < old
    ]
    sizes = brings.bytes, now.bytes  # with indexes and dead rows: they only count if there is nothing better
    if None in (brings.rows, now.rows) and sizes[0] is not None and sizes[1] is not None and sizes[0] < sizes[1]:
        more.append(f"{size(sizes[1] - sizes[0])} more on disk")
    caution = f" CAUTION: the live database has {', '.join(more)} than what comes!" if more else ""
    return f"{comes} What it replaces: {now.described(table)}.{caution}"


def check(source: str, brings: Size, now: Size, table: str, *, accepted: bool) -> list[str]:
    """Return a warning with both sizes if it is less than half and `accepted`. Raises SmallerRefused otherwise."""
    pairs = (
        (brings.rows, now.rows),
        (brings.integrity_rows, now.integrity_rows),
        (brings.tables, now.tables),
    )
    if not any(new is not None and old is not None and new * 2 < old for new, old in pairs):
        return []
    both = f"{source} contains {brings.in_words(table)}, and would replace {now.in_words(table)}."
    if not accepted:
        raise SmallerRefused(f"It has less than half of what it replaces: {both}")
    return [f"It has less than half of what it replaces: {both}"]


def _tables(manifest: Manifest | VolumeManifest) -> set[tuple[str, str]]:
    return {(table.schema_, table.name) for table in manifest.tables}


def _named_alike(tables: list[pg.Table], names: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the names of tables as a backup with these `names` would count them: pg_dump loads some partitions
    through their root, and a volume's rows are counted by root."""
    of = {table.oid: (table.schema, table.name) for table in tables}
    own = [(of[table.oid], of.get(table.root, of[table.oid])) for table in tables if table.kind == "r"]
    return {root if root in names and name not in names else name for name, root in own}


def _written(session: Session, oid: int, like: Manifest | VolumeManifest | None) -> str:
    """Say when the server last wrote, as far as it records that, and whether it did after that backup of the database
    with this OID."""
    found: list[str] = []
    with suppress(QueryFailed):
        moment = last_commit(session)
        found += [f"the last commit on its server was at {_moment(moment)}"] if moment else []
        cluster = session.identity.system_identifier
        identity, activity = (like.identity, like.activity) if like else (None, None)
        of_it = identity is not None and (identity.system_identifier, identity.database_oid) == (cluster, oid)
        if of_it and activity is not None:
            how = written_since(session, activity).how.removesuffix(".")
            found.append(f"writes after that backup: {how[0].lower()}{how[1:]}")
    return "; ".join(found)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
