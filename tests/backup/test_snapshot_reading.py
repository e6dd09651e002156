"""What is read in the snapshot while pg_dump runs."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from scarlet_backup_mcp.postgres.server import counting
from scarlet_backup_mcp.postgres.server.session import Session
from scarlet_backup_mcp.procedures.backup import snapshot_reading
from scarlet_backup_mcp.procedures.backup.meanwhile import Meanwhile
from scarlet_backup_mcp.procedures.backup.snapshot_reading import SnapshotReading
from scarlet_backup_mcp.procedures.backup.sql_dump import Snapshot, compare_with_snapshot, own, take_snapshot
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.reading.sql import examine
from scarlet_backup_mcp.progress import Progress

from ..conftest import LocalDatabase
from ..helpers.hosts import eventually
from ..helpers.store import shelf


@pytest.fixture
def context(local_database: LocalDatabase, tmp_path: Path) -> Iterator[BackupContext]:
    with BackupContext(shelf(local_database, tmp_path / "backups").settings) as context:
        yield context


@contextmanager
def a_snapshot(context: BackupContext) -> Generator[tuple[Session, Snapshot]]:
    with context.server.session(context.database) as session:
        yield session, take_snapshot(session, own(context, Progress()))


@contextmanager
def locked(database: LocalDatabase, table: str) -> Generator[None]:
    with psycopg.connect(database.dsn) as migration:
        migration.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


def at_work(database: LocalDatabase) -> int:
    with psycopg.connect(database.dsn) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        found = connection.execute(query).fetchone()
    assert found is not None
    return found[0]


def test_rows_are_those_of_the_snapshot(context: BackupContext, local_database: LocalDatabase) -> None:
    with a_snapshot(context) as (_, snapshot), Meanwhile() as meanwhile:
        with psycopg.connect(local_database.dsn) as connection:
            connection.execute("DELETE FROM letta.archival_passages")
        reading = SnapshotReading(context, snapshot, meanwhile)
        reading.begin()
        counted = reading.counted(Progress())
        names = {table.oid: table.name for table in snapshot.tables}
        assert {names[oid]: rows for oid, rows in counted.rows.items()}["archival_passages"] > 0
        assert counted.failed == []
        assert reading.recomputed(Progress()) == ([], [])


def test_very_many_tables_are_counted_after_the_dump(context: BackupContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_reading, "MOST_TABLES", 3)
    with a_snapshot(context) as (_, snapshot), Meanwhile() as meanwhile:
        reading = SnapshotReading(context, snapshot, meanwhile)
        reading.begin()
        assert reading.counted(Progress()).rows == {}
        assert reading.recomputed(Progress()) == ([], [])


def test_what_was_locked_during_the_dump_is_counted_after_it(
    context: BackupContext, local_database: LocalDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "LOCK_WAIT", {"lock_timeout": "100ms"})
    made = shelf(local_database, tmp_path / "backups").back_up()
    dumped = examine(Path(made.path), "none", Progress()).tables
    with a_snapshot(context) as (session, snapshot), Meanwhile() as meanwhile:
        reading = SnapshotReading(context, snapshot, meanwhile)
        with locked(local_database, "letta.messages"):
            reading.begin()
            counted = reading.counted(Progress())
        assert [lost.table.name for lost in counted.failed] == ["messages"]
        counts = compare_with_snapshot(context, session, snapshot, dumped, counted, Progress())
    assert (counts.warnings, counts.integrity.rows) == ([], made.integrity_rows)


def test_a_look_that_waits_ends_with_the_backup(context: BackupContext, local_database: LocalDatabase) -> None:
    with a_snapshot(context) as (_, snapshot), locked(local_database, "letta.messages"):
        with Meanwhile() as meanwhile:
            SnapshotReading(context, snapshot, meanwhile).begin()
            assert eventually(lambda: at_work(local_database) >= 3, 60)
        assert eventually(lambda: at_work(local_database) == 2, 60)
