"""Servers without `postgres`, or without `template1` too, and with a superuser of another name; and one that waits for
a standby that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from scarlet_backup_mcp.cli.demo.embedded import SETTINGS, copy_programs, wheel_bin_dir
from scarlet_backup_mcp.errors import BackupToolError, DatabaseMissing, TableLocked
from scarlet_backup_mcp.postgres.cluster.local import LocalCluster
from scarlet_backup_mcp.postgres.server import databases
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.doctor import doctor
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.own_names import scratch_prefix
from scarlet_backup_mcp.procedures.prune import prune
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import dry_run, restore
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings

from ..helpers.drill import bring_back, drill, take
from ..helpers.sampling import sampled

LACKING = ("postgres", "template1")


class Server(LocalCluster):
    """A server whose superuser is `letta`, as in a container with POSTGRES_USER=letta."""

    def __init__(self) -> None:
        super().__init__(wheel_bin_dir, user="letta", settings=SETTINGS, copy_programs=copy_programs)

    def run(self, *statements: str, database: str = "letta") -> list[tuple[object, ...]]:
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            found: list[tuple[object, ...]] = []
            for statement in statements:
                rows = connection.execute(statement.encode())
                found = rows.fetchall() if rows.description else []
        return found

    def names(self) -> set[object]:
        return {name for (name,) in self.run("SELECT datname FROM pg_database")}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        server.run("CREATE DATABASE letta", database="postgres")
        server.run("CREATE TABLE agents AS SELECT generate_series(1, 3) AS id", "COMMENT ON DATABASE letta IS 'mind'")
        yield server


@pytest.fixture
def settings(server: Server, tmp_path: Path) -> Settings:
    return load_settings(via="local", dsn=server.dsn("letta"), bin_dir=server.bin_dir, dir=tmp_path)


@pytest.fixture(params=sampled([LACKING[:1], LACKING], LACKING), ids=" and ".join)
def lacking(server: Server, request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """Databases that the server lacks during the test: they are renamed, and for the rest it is the same."""
    for name in request.param:
        server.run(f"ALTER DATABASE {name} RENAME TO {name}_elsewhere")
    yield request.param
    for name in request.param:
        server.run(f"ALTER DATABASE {name}_elsewhere RENAME TO {name}")


@pytest.mark.usefixtures("lacking")
def test_every_call_works_without_the_usual_databases(server: Server, settings: Settings, tmp_path: Path) -> None:
    saved = take(settings).name
    there = server.names()
    with BackupContext(settings) as context:
        assert gate(context).safe_to_proceed
        assert db_integrity(context, Progress()).findings == []
        checks = doctor(context, Progress(), tmp_path).checks
        assert [check.status for check in checks if check.check in ("database", "clock")] == ["ok", "ok"]
        assert list_backups(context).undo_points == []
        assert dry_run(context, Progress(), saved, RestoreOptions()).undo_point
    drilled = drill(settings, on_live_server=True).drill
    assert drilled is not None
    assert drilled.proved
    server.run("DELETE FROM agents")
    undo_point = bring_back(settings, saved).undo_point
    assert undo_point is not None
    assert server.run("SELECT count(*) FROM agents") == [(3,)]
    assert server.names() == {*there, undo_point}
    again = bring_back(settings, undo_point).undo_point
    assert server.run("SELECT count(*) FROM agents") == [(0,)]
    assert again is not None
    bring_back(settings, again)
    with BackupContext(settings) as context:
        assert prune(context, Progress(), dry_run=False, include_undo=True).undo_bytes_freed
    assert server.names() == there


@pytest.mark.usefixtures("lacking")
def test_restore_that_fails_leaves_nothing(server: Server, settings: Settings) -> None:
    there = server.names()
    path = Path(take(settings).path)
    name = "from_elsewhere_20260101_000000.sql"
    (path.parent / name).write_bytes(
        path.read_bytes().replace(
            b"\n--\n-- PostgreSQL database dump complete", b"\nSELECT 1/0;\n--\n-- PostgreSQL database dump complete"
        )
    )
    with pytest.raises(BackupToolError):
        bring_back(settings, name, accept_foreign=True, drill="never")
    assert server.names() == there


def test_scratch_database_of_a_killed_restore_is_swept(server: Server, settings: Settings) -> None:
    """What `outside` has made is one of ours."""
    with BackupContext(settings) as context, context.maintenance_session() as session:
        name = f"{scratch_prefix('letta')}{datetime.now(UTC):%Y%m%d_%H%M%S}"
        databases.create(session, name, None, "scarlet-backup-mcp: a restore is connected to it", private=True)
    assert any(name in warning for warning in take(settings).warnings)
    assert name not in server.names()


@pytest.mark.parametrize("lacking", [LACKING], indirect=True)
@pytest.mark.usefixtures("lacking")
def test_lost_database_is_told_by_its_own_name(server: Server, settings: Settings) -> None:
    lost = load_settings(via="local", dsn=server.dsn("lost"), bin_dir=server.bin_dir, dir=settings.dir)
    with BackupContext(lost) as context, pytest.raises(DatabaseMissing, match="lost"):
        restore(context, Progress(), take(settings).name, RestoreOptions(accept_other_database=True))


def test_lock_of_somebody_else_is_waited_for_only_so_long(
    server: Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "LIMITS", {**databases.LIMITS, "lock_timeout": "100ms"})
    with psycopg.connect(server.dsn("postgres")) as other:
        other.execute("COMMENT ON DATABASE letta IS 'not committed'")
        with (
            BackupContext(settings) as context,
            context.maintenance_session() as session,
            pytest.raises(TableLocked, match="Another session holds a lock"),
        ):
            databases.set_comment(session, "letta", "mind")
        other.rollback()


def test_nothing_waits_for_a_synchronous_standby_that_is_gone(server: Server, settings: Settings) -> None:
    saved = take(settings).name
    server.run(
        "ALTER DATABASE letta SET synchronous_commit = 'on'",
        "ALTER SYSTEM SET synchronous_standby_names = 'gone'",
        "SELECT pg_reload_conf()",
    )
    try:
        with_setting = take(settings).name
        for source in (saved, with_setting):
            assert bring_back(settings, source).restored
        found = server.run("SELECT DISTINCT setconfig::text FROM pg_db_role_setting")
        with BackupContext(settings) as context:
            assert prune(context, Progress(), dry_run=False, include_undo=True).undo_bytes_freed
    finally:
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
            connection.execute("SET synchronous_commit = local")
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
            with suppress(psycopg.Error):
                connection.execute("ALTER DATABASE letta RESET synchronous_commit")
    assert found == [("{synchronous_commit=on}",)]
