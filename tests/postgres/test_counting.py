"""Rows are counted as they are, whatever a table is made of, and no count of ours stands in the way of a backup."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import QueryFailed
from scarlet_backup_mcp.models.results import Backup, Integrity
from scarlet_backup_mcp.postgres.server import amcheck, analysing, counting
from scarlet_backup_mcp.postgres.server import catalogue as pg
from scarlet_backup_mcp.procedures.backup import snapshot_reading
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.store.directory import BackupDirectory

from ..conftest import LocalDatabase
from ..helpers.backup_faults import At
from ..helpers.store import execute, shelf

TABLES = """
CREATE SCHEMA "odd "";:x \\ name";
SET search_path TO "odd "";:x \\ name";
CREATE TABLE "line
break" ("co""l;:y" text, later int);
INSERT INTO "line
break" VALUES ('a', 1), (NULL, NULL), (E'\\\\.\\n', 2);
CREATE TABLE columnless ();
INSERT INTO columnless DEFAULT VALUES;
INSERT INTO columnless DEFAULT VALUES;
CREATE TABLE generated (n int GENERATED ALWAYS AS (1) STORED);
INSERT INTO generated DEFAULT VALUES;
CREATE TABLE long (body text);
INSERT INTO long SELECT repeat(md5(n::text), 1000) FROM generate_series(1, 40) AS n;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN word AS text CHECK (value <> 'x');
CREATE TABLE own (w word, m mood, p int4range);
INSERT INTO own VALUES ('a', 'good', '[1,2)'), ('b', 'bad', 'empty');
ALTER TABLE own DROP COLUMN w;
CREATE TABLE parts (n int) PARTITION BY RANGE (n);
CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE part_2 PARTITION OF parts FOR VALUES FROM (10) TO (100);
INSERT INTO parts SELECT generate_series(1, 50);
CREATE TABLE parent (n int);
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (2), (3);
CREATE TABLE empty (n int);
"""
SEARCHES = """
CREATE SCHEMA s;
CREATE TABLE s.agents (id int PRIMARY KEY, name text);
INSERT INTO s.agents VALUES (1, 'Scarlet'), (2, 'nota');
CREATE TABLE s.notes (body text);
INSERT INTO s.notes VALUES ('perché'), ('no'), ('sì');
CREATE FUNCTION s.plain(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
SET search_path = s;
CREATE FUNCTION s.norm(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT plain($1)';
ALTER DATABASE {name} SET search_path = s;
"""
"""`s.norm` calls a function without its schema, which only the database's own search_path finds."""
COUNTING = "counting the rows of the snapshot"


@pytest.fixture
def database(embedded: EmbeddedServer) -> Iterator[LocalDatabase]:
    """An empty one; dropped afterwards, with whatever was restored beside it."""
    name = f"counted_{secrets.token_hex(4)}"
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield LocalDatabase(embedded, name, embedded.dsn(name))
        rows = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [name]).fetchall()
        for (found,) in rows:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(found)))


@pytest.fixture
def searching(database: LocalDatabase, tmp_path: Path) -> Iterator[BackupContext]:
    """SEARCHES in it."""
    execute(database, SEARCHES.format(name=database.name))
    with BackupContext(shelf(database, tmp_path / "backups").settings) as context:
        yield context


def take(context: BackupContext, progress: Progress | None = None) -> Backup:
    return backup(context, progress or Progress())


def look(context: BackupContext) -> Integrity:
    return db_integrity(context, Progress())


def test_every_kind_of_table_is_counted(database: LocalDatabase, tmp_path: Path) -> None:
    execute(database, TABLES)
    with (
        BackupContext(shelf(database, tmp_path).settings) as context,
        context.server.session(database.name) as session,
        psycopg.connect(database.dsn) as connection,
    ):
        tables = pg.tables(session)
        counted = counting.count_rows(session, tables)
        assert counted.failed == []
        plain = [table for table in tables if table.kind == "r"]
        for table in plain:
            query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(table.schema, table.name))
            assert connection.execute(query).fetchone() == (counted.rows[table.oid],), table.name
        assert sum(counted.rows.values()) == 3 + 2 + 1 + 40 + 2 + 50 + 3
        by_root = counted.by_root(tables)
        assert {by_root[t.oid] for t in tables if t.name == "parts"} == {50}


def test_text_that_its_database_can_not_read_is_counted(embedded: EmbeddedServer, tmp_path: Path) -> None:
    name = f"counted_{secrets.token_hex(4)}"
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'".encode())
        database = LocalDatabase(embedded, name, embedded.dsn(name))
        try:
            execute(database, r"CREATE TABLE agents (t text); INSERT INTO agents VALUES (E'\xff'), (E'\xe9\xe8')")
            with BackupContext(shelf(database, tmp_path).settings) as context:
                assert counting.count_table(context.server, name, "agents").rows == 2
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_table_that_took_the_name_of_another_is_not_counted_for_it(searching: BackupContext) -> None:
    with searching.server.session(searching.database) as session:
        tables = {table.name: table for table in pg.tables(session)}
        session.execute("ALTER TABLE s.agents RENAME TO away; CREATE TABLE s.agents (id int); DROP TABLE s.notes")
        counted = counting.count_rows(session, [tables["agents"], tables["notes"]])
        assert counted.rows == {}
        assert counted.warnings("Not counted") == [
            "Not counted: s.agents (another table now has its name); "
            's.notes (The server said: relation "s.notes" does not exist (SQLSTATE 42P01)).'
        ]
        with pytest.raises(QueryFailed):
            counted.require()


def test_rows_of_children_and_partitions_are_the_integrity_tables(
    searching: BackupContext, database: LocalDatabase
) -> None:
    execute(database, "CREATE TABLE s.child () INHERITS (s.agents); INSERT INTO s.child VALUES (3, 'x')")
    assert look(searching).agents == 3
    made = take(searching)
    assert (made.integrity_rows, made.rows) == (3, 6)
    execute(
        database,
        """DROP TABLE s.agents CASCADE; CREATE TABLE s.agents (id int) PARTITION BY LIST (id);
           CREATE TABLE s.one PARTITION OF s.agents FOR VALUES IN (1); INSERT INTO s.agents VALUES (1)""",
    )
    assert look(searching).agents == 1
    assert take(searching).integrity_rows == 1


# What is no table


def test_what_is_no_table_is_told_and_not_counted(searching: BackupContext, database: LocalDatabase) -> None:
    execute(database, "ALTER TABLE s.agents RENAME TO people; CREATE VIEW s.agents AS SELECT 1 / 0 AS id")
    found = look(searching)
    assert (found.healthy, found.agents) == (False, None)
    assert [
        (f.code, f.message.partition(".")[2].partition(".")[0]) for f in found.findings if f.severity == "error"
    ] == [("integrity_table_no_table", "agents is a view, not a table")]
    made = take(searching)
    assert (made.shrunk, made.integrity_rows, made.safe_to_proceed) == (True, None, False)
    assert "s.agents is a view, not a table" in " ".join(made.reasons)
    done = restore(searching, Progress(), made.name)
    assert (done.integrity_rows, done.rows_compared) == (None, 5)
    assert any("is a view, not a table" in warning for warning in done.warnings)


def test_rules_of_the_integrity_table_are_a_finding(searching: BackupContext, database: LocalDatabase) -> None:
    execute(database, "CREATE RULE nowhere AS ON INSERT TO s.agents DO INSTEAD NOTHING")
    found = look(searching)
    assert found.agents == 2
    finding = next(f for f in found.findings if f.code == "integrity_table_has_rules")
    assert (finding.severity, finding.evidence) == ("warning", {"rules": ["nowhere"]})


# Our own looks never stand in the way


def test_an_index_over_a_function_that_fails_is_not_planned(searching: BackupContext, database: LocalDatabase) -> None:
    execute(database, "CREATE INDEX ON s.agents ((name || s.plain('x')))")
    execute(
        database,
        """CREATE OR REPLACE FUNCTION s.plain(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN RETURN missing($1); END $$""",
    )
    with pytest.raises(psycopg.errors.UndefinedFunction):
        execute(database, "SELECT count(*) FROM s.agents")
    made = take(searching)
    assert (made.integrity_rows, made.warnings) == (2, [])
    assert look(searching).agents == 2


@pytest.mark.parametrize("table", ["notes", "agents"])
def test_a_table_that_is_locked_once_pg_dump_has_read_it_is_a_warning(
    searching: BackupContext, database: LocalDatabase, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(counting, "LOCK_WAIT", {"lock_timeout": "100ms"})
    monkeypatch.setattr(snapshot_reading, "MOST_TABLES", -1)
    with ExitStack() as migration:

        def lock() -> None:
            connection = migration.enter_context(psycopg.connect(database.dsn))
            connection.execute(f"LOCK TABLE s.{table} IN ACCESS EXCLUSIVE MODE".encode())

        made = take(searching, At(COUNTING, lock))
    assert (made.rows, made.integrity_rows, made.shrunk) == (5, 2, False)
    assert any(f"the rows of some could not be counted to compare them: s.{table} (" in told for told in made.warnings)
    found = BackupDirectory(searching.directory.path).manifest(made.name)
    assert found is not None
    assert found.integrity_rows == 2


def test_statistics_that_can_not_be_made_are_a_warning_of_a_restore(
    searching: BackupContext, database: LocalDatabase
) -> None:
    execute(database, "CREATE STATISTICS s.told ON (s.norm(body)), body FROM s.notes;")
    execute(database, "CREATE STATISTICS s.more ON (s.norm(name)), id FROM s.agents; DROP FUNCTION s.plain")
    done = restore(searching, Progress(), take(searching).name)
    assert (done.restored, done.rows_compared) == (True, 5)
    told = [warning for warning in done.warnings if "no statistics" in warning]
    assert len(told) == 2
    assert "plain(text) does not exist" in told[0]
    with searching.server.session(searching.database) as session:
        execute(database, "DROP STATISTICS s.more")
        assert ["s.notes" in warning for warning in analysing.analyse(session)] == [True]
        assert session.rows("SELECT reltuples FROM pg_class WHERE relname = 'agents'") == [{"reltuples": 2}]


def test_a_function_named_as_amchecks_is_not_taken_for_it(searching: BackupContext, database: LocalDatabase) -> None:
    execute(
        database,
        "CREATE EXTENSION amcheck SCHEMA s; CREATE FUNCTION s.verify_heapam(regclass) RETURNS TABLE "
        "(blkno bigint, offnum int, attnum int, msg text) LANGUAGE sql AS $$ SELECT 1, 1, 1, 'false' $$",
    )
    with searching.server.session(searching.database) as session:
        checked = amcheck.check(session)
    assert checked is not None
    assert (checked.tables, checked.problems) == (2, [])
