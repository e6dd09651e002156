"""A server whose lock table is too small for a restore: it is said how large it has to be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import TooFewLocks
from scarlet_backup_mcp.postgres.cluster import sandbox
from scarlet_backup_mcp.postgres.server import catalogue, counting
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.loading.psql import load
from scarlet_backup_mcp.progress import Progress

from ..helpers.drill import Databases, bring_back, drill, take

TABLES = 1200
MANY = f"""
CREATE TABLE agents (id int PRIMARY KEY);
INSERT INTO agents VALUES (1);
SELECT format('CREATE TABLE t%s ()', n) FROM generate_series(2, {TABLES}) AS n \\gexec
"""


class Server(EmbeddedServer):
    """A server whose lock table can be made small, and large again."""

    def give(self, **settings: int) -> None:
        """Restart it with these settings."""
        self._configure({name: str(value) for name, value in settings.items()})
        self._run("pg_ctl", "restart", "-D", str(self.data), "-l", str(self._log), "-w", "-m", "fast")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as one:
        one.give(max_connections=10, max_worker_processes=0, max_wal_senders=0, autovacuum_max_workers=1)
        yield one


@pytest.fixture
def databases(server: Server, tmp_path: Path) -> Iterator[Databases]:
    server.give(max_locks_per_transaction=256)
    made = Databases(server, tmp_path)
    yield made
    made.drop()


def fill(connection: psycopg.Connection) -> int:
    """Take locks until there is no space for another; their number."""
    taken = 0
    with suppress(psycopg.errors.OutOfMemory):
        while True:
            connection.execute("SELECT pg_advisory_lock(%s)", [taken])
            taken += 1
    return taken


def needed(error: TooFewLocks) -> int:
    found = re.search(r"Set max_locks_per_transaction to (\d+) \(", error.remedy)
    assert found is not None, error.remedy
    return int(found[1])


@pytest.mark.long
def test_a_restore_without_enough_locks_says_how_many_it_takes(server: Server, databases: Databases) -> None:
    settings = databases.make(MANY)
    name = take(settings).name
    databases.psql("DELETE FROM agents", settings.database)
    server.give(max_locks_per_transaction=10)
    with pytest.raises(TooFewLocks) as dumped:
        take(settings)
    assert dumped.value.next_call is not None
    assert drill(settings, name).proved  # in a sandbox, which has enough
    with pytest.raises(TooFewLocks) as refused:
        bring_back(settings, name)
    assert f"pg_dump locks every table, {TABLES:,} here" in refused.value.message
    assert "The live database is unchanged." in refused.value.message
    assert "volume" not in refused.value.remedy
    assert needed(refused.value) == needed(dumped.value) == TABLES // 8
    assert databases.psql("SELECT count(*) FROM pg_database", "postgres") == "4"
    server.give(max_locks_per_transaction=needed(refused.value))
    bring_back(settings, name)
    assert databases.psql("SELECT count(*) FROM agents", settings.database) == "1"


def test_a_load_that_locks_more_than_fits_says_how_many_it_takes(server: Server, databases: Databases) -> None:
    """As the one statement does that takes over what the role of a foreign file's load owns."""
    settings = databases.make(MANY)
    server.give(max_locks_per_transaction=10)
    names = ", ".join(f"public.t{number}" for number in range(2, TABLES + 1))
    script = [f"BEGIN; LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE; COMMIT;\n".encode()]
    with BackupContext(settings) as context, pytest.raises(TooFewLocks) as refused:
        load(context.server, settings.database, "old.sql", script, {}, Progress())
    assert f"all tables, indexes and sequences at once, {TABLES + 1:,} here" in refused.value.message
    assert "The live database is unchanged." in refused.value.message
    assert needed(refused.value) == -(-(TABLES + 1) // 8)


def test_tables_are_counted_one_by_one_if_there_is_no_space_for_the_locks_of_many(
    server: Server, databases: Databases
) -> None:
    server.give(max_locks_per_transaction=10)
    settings = databases.make(MANY.replace(str(TABLES), "60"))
    with ExitStack() as held:
        other = held.enter_context(psycopg.connect(server.dsn("postgres"), autocommit=True))
        session = held.enter_context(BackupContext(settings)).server.session(settings.database)
        tables = held.enter_context(session) and catalogue.tables(session)
        taken = fill(other)
        for number in range(taken - 20, taken):
            other.execute("SELECT pg_advisory_unlock(%s)", [number])
        counted = counting.count_rows(session, tables)
    assert not counted.failed
    assert sum(counted.rows.values()) == 1


@pytest.mark.parametrize(("tables", "locks"), [(0, 4096), (1000, 4096), (200_000, 20_000)])
def test_a_sandbox_has_locks_for_all_tables(tables: int, locks: int) -> None:
    assert sandbox.with_locks(sandbox.SETTINGS, tables)["max_locks_per_transaction"] == str(locks)
