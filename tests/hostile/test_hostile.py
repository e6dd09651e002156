"""Nothing that an ordinary role has defined runs with a superuser's rights when we look at its database."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp.models.common import Kind
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.models.verification import Drill
from scarlet_backup_mcp.postgres.server import counting
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.drill.volume_checks import RecoveredRows, of_rows
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.prune import prune
from scarlet_backup_mcp.procedures.restore.service import dry_run, propose, restore
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress

from ..helpers.backup_faults import Box, a_box

DATABASE = Path(__file__).parent / "database.sql"
FEW_LOCKS = ("-c", "max_connections=20", "-c", "max_locks_per_transaction=10", "-c", "max_wal_senders=4")
"""Room for some hundred locks at once."""
MANY_TABLES = """
CREATE TABLE agents (id int PRIMARY KEY);
INSERT INTO agents VALUES (1);
SELECT format('CREATE TABLE t%1$s (a int PRIMARY KEY, b int UNIQUE, c int UNIQUE, d int UNIQUE, e int UNIQUE);'
              'INSERT INTO t%1$s VALUES (1, 1, 1, 1, 1)', n) FROM generate_series(1, 200) AS n \\gexec
"""


LOGGED = ("-c", "log_statement=all", "-c", "log_line_prefix=%a|%d|", "-c", "log_min_messages=warning")
PROCEDURES = Path(__file__).parents[2] / "scarlet_backup_mcp" / "procedures"
_STATEMENT = re.compile(r"^scarlet-backup-mcp[^|\n]*\|letta\|LOG:  statement: (.*(?:\n\t.*)*)", re.MULTILINE)
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_COUNTED = re.compile(r'COPY ("\w+"|\w+)\.("\w+"|\w+) (\([^()]*\) )?TO STDOUT( \(ENCODING ?\))?;?', re.IGNORECASE)
_OF_USERS = re.compile(r"\b(?:letta|app|public|diary|agents|parts?|kept|keyed|mallory)\b")
_AS_ITS_OWNER = re.compile(
    r"CREATE FUNCTION pg_temp\.scarlet_backup_recomputed\(\) RETURNS pg_catalog\.text SECURITY DEFINER "
    r"BEGIN ATOMIC SELECT [^;]*; END ;|"
    r'ALTER FUNCTION pg_temp\.scarlet_backup_recomputed\(\) OWNER TO "(?:mallory|pg_read_all_data)" ;'
)
"""What is only parsed, and planned when the owner's function runs."""
_NAMES_A_TABLE = re.compile(r"(?:LOCK TABLE|COPY) ")


@pytest.fixture(scope="module")
def box(require_docker: None) -> Iterator[Box]:
    with a_box({}, "postgres", "-c", "fsync=off", "-c", "autovacuum=off", *FEW_LOCKS, *LOGGED) as one:
        one.wait_until_ready()
        one.psql(DATABASE.read_text(encoding="utf-8"))
        yield one


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def sprung(box: Box) -> set[str]:
    """What ran as a superuser since the last time that this was asked."""
    return set(box.sh("touch /tmp/sprung; cat /tmp/sprung; rm /tmp/sprung").splitlines())


def sent(box: Box) -> list[str]:
    """Every statement that the tools, and pg_dump for them, have sent to the hostile database so far. The log shows
    those that count rows as they are sent, several in a message."""
    log = subprocess.run(["docker", "logs", box.name], capture_output=True, text=True, timeout=60, check=True)
    messages = [" ".join(found.split()) for found in _STATEMENT.findall(log.stderr)]
    return [statement for message in messages for statement in re.split(" ; (?=COPY )", message)]


def take(context: BackupContext, kind: Kind = "sql") -> Backup:
    return backup(context, Progress(), kind=kind)


def test_a_superuser_who_looks_in_the_usual_way_springs_the_traps(box: Box) -> None:
    """Else the tests below would tell nothing. Whoever changes the database as a superuser springs many more."""
    box.psql("SELECT count(*) FROM app.diary; SELECT count(*) FROM app.parts; SELECT count(*) FROM ONLY app.part;")
    assert sprung(box) >= {"predicate", "expression", "statistics", "exclusion", "count", "predicate of parts"}
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
    with BackupContext(box.settings(directory)) as context:
        looked = db_integrity(context, Progress())
        assert looked.agents == 3
        assert {finding.code for finding in looked.findings} == {"no_good_backup"}
        volume = take(context, "volume")
        made = take(context)
        assert (made.integrity_rows, volume.integrity_rows) == (3, 3)
        assert {table.name: table.rows for table in made.tables} == {
            "agents": 3,
            "diary": 2,
            "keyed_1": 1,
            "only_generated": 1,
            "part": 2,
        }
        assert made.rows == volume.rows == 9
        assert made.safe_to_proceed, made.reasons
        assert gate(context).safe_to_proceed
        assert sprung(box) == set()
        named = (made.name, volume.name)
        assert all(propose(context, Progress(), name).question for name in named)
        assert all(dry_run(context, Progress(), name).dry_run for name in named)
        assert sprung(box) == set()
        assert_nothing_is_planned(sent(box))

        drilled = verify(context, Progress(), made.name, "drill")
        assert drilled.valid, [check for check in drilled.checks if check.ok is False]
        box.psql("DELETE FROM letta.agents WHERE id > 1")
        sprung(box)  # that was not us
        assert "3 of them in agents" in propose(context, Progress(), made.name).question
        done = restore(context, Progress(), made.name)
        assert (done.integrity_rows_before, done.integrity_rows, done.rows_compared) == (1, 3, 9)
        assert db_integrity(context, Progress()).agents == 3
        assert done.undo_point in {point.name for point in list_backups(context).undo_points or []}
        prune(context, Progress(), include_undo=True)
        assert sprung(box) == set()
    assert box.psql("SELECT pg_catalog.bool_or(rolsuper) FROM pg_catalog.pg_roles WHERE rolname LIKE 'mal%'") == "f"


def test_no_event_trigger_fires_for_a_backup(box: Box, directory: Path) -> None:
    """One that fires ALWAYS only a superuser can make, but it may run a function of mallory's."""
    box.psql(
        """SET search_path = pg_catalog; SET SESSION AUTHORIZATION mallory;
           CREATE FUNCTION app.seen() RETURNS event_trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM app.spring('event trigger'); END $$;
           RESET SESSION AUTHORIZATION;
           CREATE EVENT TRIGGER seen ON ddl_command_end EXECUTE FUNCTION app.seen();
           ALTER EVENT TRIGGER seen ENABLE ALWAYS;
           CREATE FUNCTION pg_temp.any() RETURNS int LANGUAGE sql AS 'SELECT 1';"""
    )
    try:
        assert sprung(box) == {"event trigger"}
        with BackupContext(box.settings(directory)) as context:
            manifest = context.directory.manifest(take(context).name)
        assert sprung(box) == set()
        assert manifest is not None
        assert {one.why_not for one in manifest.recomputed or []} == {"reading it would run the event trigger seen"}
    finally:
        box.psql("DROP EVENT TRIGGER seen; DROP FUNCTION app.seen();")


def assert_nothing_is_planned(statements: list[str]) -> None:
    """Of all that was sent only LOCK and plain COPY name what is a user's, and functions that become their owner's:
    everything else would be planned, with the rights of whoever looks. pg_dump asks of objects by their OIDs, or with
    their names as texts."""
    copies = [statement for statement in statements if statement.startswith("COPY ")]
    assert len(statements) > 100
    assert len(copies) > 20
    for statement in statements:
        plain = _LITERAL.sub("", statement)
        if _NAMES_A_TABLE.match(plain):
            assert plain.startswith("LOCK TABLE ") or _COUNTED.fullmatch(plain), statement
        elif not _AS_ITS_OWNER.fullmatch(plain):
            assert not _OF_USERS.search(plain), statement


def test_statements_stand_in_modules_that_ask_the_server_and_nowhere_else() -> None:
    asking = {"execute", "rows", "copy_away"}
    found: set[str] = set()
    for path in PROCEDURES.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        texts = [
            call.args[0]
            for call in calls
            if isinstance(call.func, ast.Attribute) and call.func.attr in asking and call.args
        ]
        if any(isinstance(text, ast.Constant | ast.JoinedStr) for text in texts):
            found.add(path.relative_to(PROCEDURES).as_posix())
    assert found == set()


def test_a_view_that_stands_before_the_integrity_table_is_a_finding(box: Box, directory: Path) -> None:
    view = "SET SESSION AUTHORIZATION mallory; CREATE VIEW app.agents AS SELECT 1 AS id, app.spring('view')"
    box.psql(view)
    try:
        with BackupContext(box.settings(directory)) as context:
            looked = db_integrity(context, Progress())
            made, volume = take(context), take(context, "volume")
            question = propose(context, Progress(), made.name).question
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


@pytest.mark.long
def test_a_count_takes_no_more_locks_than_pg_dump(box: Box, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 tables with 5 indexes each: pg_dump locks the tables, a plan their indexes, too."""
    box.psql("CREATE DATABASE many", "postgres")
    box.psql(MANY_TABLES, "many")
    with BackupContext(box.settings(directory, database="many")) as context:
        made, volume = take(context), take(context, "volume")
        assert (made.rows, volume.rows, made.integrity_rows, volume.integrity_rows) == (201, 201, 1, 1)
        monkeypatch.setattr(counting, "LOCK_WAIT", {"lock_timeout": "200ms"})
        with box.holding("LOCK TABLE t7 IN ACCESS EXCLUSIVE MODE;", "many"):
            volume = take(context, "volume")
        assert (volume.rows, volume.integrity_rows) == (200, 1)
        assert any("a drill can't compare them: public.t7 (" in told for told in volume.warnings)
        found = context.directory.volume_manifest(volume.name)
        assert found is not None
        assert found.uncounted == ["public.t7"]
        counted = RecoveredRows(
            {(t.schema_, t.name): t.rows for t in found.tables} | {("public", "t7"): 1}, frozenset(), []
        )
        rows = of_rows(found, counted, Drill(proved=None, where="", server_version="", duration_seconds=0))
        assert (rows.ok, rows.detail) == (None, "public.t7: it could not be counted when it was copied")
    with pytest.raises(AssertionError, match="out of shared memory"):
        box.psql(
            """SELECT string_agg(format('SELECT count(*) FROM %I', relname), ' UNION ALL ')
               FROM pg_class WHERE relkind = 'r' AND relname ~ '^t[0-9]' \\gexec""",
            "many",
        )
