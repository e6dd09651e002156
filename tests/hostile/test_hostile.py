"""Nothing that an ordinary role has defined runs with a superuser's rights when we look at its database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp.models import Backup, Drill, Kind
from scarlet_backup_mcp.postgres import counting
from scarlet_backup_mcp.procedures.backup import backup
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.proof_volume import Counted, of_rows
from scarlet_backup_mcp.procedures.prune import prune
from scarlet_backup_mcp.procedures.restore import propose, restore
from scarlet_backup_mcp.procedures.target import Target
from scarlet_backup_mcp.procedures.verify import verify
from scarlet_backup_mcp.progress import Progress

from ..helpers_backup_faults import Box, a_box

DATABASE = Path(__file__).parent / "database.sql"
FEW_LOCKS = ("-c", "max_connections=20", "-c", "max_locks_per_transaction=10", "-c", "max_wal_senders=4")
"""Room for some hundred locks at once."""
MANY_TABLES = """
CREATE TABLE agents (id int PRIMARY KEY);
INSERT INTO agents VALUES (1);
SELECT format('CREATE TABLE t%1$s (a int PRIMARY KEY, b int UNIQUE, c int UNIQUE, d int UNIQUE, e int UNIQUE);'
              'INSERT INTO t%1$s VALUES (1, 1, 1, 1, 1)', n) FROM generate_series(1, 200) AS n \\gexec
"""


@pytest.fixture(scope="module")
def box(require_docker: None) -> Iterator[Box]:
    with a_box({}, "postgres", "-c", "fsync=off", "-c", "autovacuum=off", *FEW_LOCKS) as one:
        one.wait_until_ready()
        one.psql(DATABASE.read_text(encoding="utf-8"))
        yield one


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def sprung(box: Box) -> set[str]:
    """What ran as a superuser since the last time that this was asked."""
    return set(box.sh("touch /tmp/sprung; cat /tmp/sprung; rm /tmp/sprung").splitlines())


def take(target: Target, kind: Kind = "sql") -> Backup:
    return backup(target, Progress(), kind=kind)


def test_a_superuser_who_looks_in_the_usual_way_springs_the_traps(box: Box) -> None:
    """Else the tests below would tell nothing. Whoever changes the database as a superuser springs many more."""
    box.psql("SELECT count(*) FROM app.diary; SELECT count(*) FROM app.parts; SELECT count(*) FROM ONLY app.part;")
    assert sprung(box) >= {"predicate", "expression", "statistics", "count", "predicate of parts"}
    box.psql("SELECT current_setting('port'), pg_backend_pid(), to_regclass('agents'), mood::int4 FROM app.diary;")
    assert sprung(box) >= {"current_setting", "pg_backend_pid", "to_regclass", "cast"}
    box.psql("SELECT relname::text FROM pg_class WHERE oid = 1259::oid AND relname = 'pg_class'::name;")
    assert sprung(box) >= {"pg_class", "= of oid", "= of name", "domain called text"}
    box.psql("SET SESSION AUTHORIZATION mallory; SELECT count(*) FROM app.diary;")
    assert sprung(box) == set()
    with pytest.raises(AssertionError, match="permission denied to create event trigger"):
        box.psql(
            """SET SESSION AUTHORIZATION mallory;
               CREATE FUNCTION app.event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
               CREATE EVENT TRIGGER event ON ddl_command_start EXECUTE FUNCTION app.event()"""
        )


def test_no_tool_runs_what_an_ordinary_role_has_defined(box: Box, directory: Path) -> None:
    with Target(box.settings(directory)) as target:
        looked = db_integrity(target, Progress())
        assert looked.agents == 3
        assert {finding.code for finding in looked.findings} == {"no_good_backup"}
        volume = take(target, "volume")
        made = take(target)
        assert (made.integrity_rows, volume.integrity_rows) == (3, 3)
        assert {table.name: table.rows for table in made.tables} == {
            "agents": 3,
            "diary": 2,
            "only_generated": 1,
            "part": 2,
        }
        assert made.rows == volume.rows == 8
        assert made.safe_to_proceed, made.reasons
        assert gate(target).safe_to_proceed
        assert sprung(box) == set()

        drilled = verify(target, Progress(), made.name, "drill")
        assert drilled.valid, [check for check in drilled.checks if check.ok is False]
        box.psql("DELETE FROM letta.agents WHERE id > 1")
        sprung(box)  # that was not us
        assert "3 in agents" in propose(target, Progress(), made.name).question
        done = restore(target, Progress(), made.name)
        assert (done.integrity_rows_before, done.integrity_rows, done.rows_compared) == (1, 3, 8)
        assert db_integrity(target, Progress()).agents == 3
        assert done.undo_point in {point.name for point in list_backups(target).undo_points or []}
        prune(target, Progress(), include_undo=True)
        assert sprung(box) == set()
    assert box.psql("SELECT pg_catalog.bool_or(rolsuper) FROM pg_catalog.pg_roles WHERE rolname LIKE 'mal%'") == "f"


def test_a_view_that_stands_before_the_integrity_table_is_a_finding(box: Box, directory: Path) -> None:
    view = "SET SESSION AUTHORIZATION mallory; CREATE VIEW app.agents AS SELECT 1 AS id, app.spring('view')"
    box.psql(view)
    try:
        with Target(box.settings(directory)) as target:
            looked = db_integrity(target, Progress())
            made, volume = take(target), take(target, "volume")
            question = propose(target, Progress(), made.name).question
    finally:
        box.psql("DROP VIEW app.agents")
    assert sprung(box) == set()
    assert (looked.healthy, looked.agents) == (False, None)
    finding = next(finding for finding in looked.findings if finding.severity == "error")
    assert finding.code == "integrity_table_no_table"
    assert "app.agents is a view, not a table" in finding.message
    for taken in (made, volume):
        assert (taken.integrity_rows, taken.shrunk, taken.safe_to_proceed) == (None, True, False)
        assert "app.agents is a view, not a table" in " ".join(taken.reasons)
    assert "app.agents is a view, not a table" in question


def test_a_count_takes_no_more_locks_than_pg_dump(box: Box, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 tables with 5 indexes each: pg_dump locks the tables, a plan their indexes, too."""
    box.psql("CREATE DATABASE many", "postgres")
    box.psql(MANY_TABLES, "many")
    with Target(box.settings(directory, database="many")) as target:
        made, volume = take(target), take(target, "volume")
        assert (made.rows, volume.rows, made.integrity_rows, volume.integrity_rows) == (201, 201, 1, 1)
        monkeypatch.setattr(counting, "LOCK_WAIT", {"lock_timeout": "200ms"})
        with box.holding("LOCK TABLE t7 IN ACCESS EXCLUSIVE MODE;", "many"):
            volume = take(target, "volume")
        assert (volume.rows, volume.integrity_rows) == (200, 1)
        assert any("a drill can't compare them: public.t7 (" in told for told in volume.warnings)
        found = target.directory.volume_manifest(volume.name)
        assert found is not None
        assert found.uncounted == ["public.t7"]
        counted = Counted({(t.schema_, t.name): t.rows for t in found.tables} | {("public", "t7"): 1}, frozenset(), [])
        rows = of_rows(found, counted, Drill(proved=None, where="", server_version="", duration_seconds=0))
        assert (rows.ok, rows.detail) == (None, "public.t7: it could not be counted when it was copied")
    with pytest.raises(AssertionError, match="out of shared memory"):
        box.psql(
            """SELECT string_agg(format('SELECT count(*) FROM %I', relname), ' UNION ALL ')
               FROM pg_class WHERE relkind = 'r' AND relname ~ '^t[0-9]' \\gexec""",
            "many",
        )
