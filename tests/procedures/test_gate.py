"""The gate before PROC-003: what opens it, and everything that shuts it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.models.manifest import Activity
from scarlet_backup_mcp.models.results import Gate
from scarlet_backup_mcp.postgres.server import activity
from scarlet_backup_mcp.postgres.server.session import Session
from scarlet_backup_mcp.procedures.backup import sql_dump
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.recovery.journal import write
from scarlet_backup_mcp.procedures.restore.service import propose, restore
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.store.names import JOURNAL

from ..conftest import MEMORY, LocalDatabase, load
from ..helpers.containers import run_docker
from ..helpers.faces import until
from ..helpers.store import Shelf, execute, shelf, small_database, waiting_journal
from ..helpers.volume import Rig, a_rig

THEIRS = """
SELECT pid FROM pg_stat_activity
WHERE datname = %s AND backend_type = 'client backend' AND application_name NOT LIKE 'scarlet-backup-mcp%%'
"""
"""Sessions in a database that are not the tool's own."""
CONFIGURATION = """
CREATE TABLE letta.filtered AS SELECT generate_series(1, 500) AS n;
ALTER EXTENSION vector ADD TABLE letta.filtered;
UPDATE pg_extension SET extconfig = ARRAY['letta.filtered'::regclass::oid], extcondition = ARRAY['WHERE n > 100']
WHERE extname = 'vector';
"""
"""As an extension's script does by `pg_extension_config_dump('letta.filtered', 'WHERE n > 100')`."""


@pytest.fixture
def database(embedded: EmbeddedServer) -> Generator[LocalDatabase]:
    with small_database(embedded) as made:
        settle(made)
        yield made


def settle(database: LocalDatabase) -> None:
    """Until every session of a test's own has ended: a session reports its statistics when it does."""
    with psycopg.connect(database.server.dsn(), autocommit=True) as connection:
        until(lambda: not connection.execute(THEIRS, [database.name]).fetchall(), 20, "the end of every session")


@pytest.fixture
def here(database: LocalDatabase, tmp_path: Path) -> Shelf:
    return shelf(database, tmp_path)


def ask(here: Shelf, **more: Any) -> Gate:
    with BackupContext(here.settings.model_copy(update=more)) as context:
        return gate(context)


def why(found: Gate) -> str:
    """Of a gate that is shut."""
    assert not found.safe_to_proceed
    return " ".join(found.reasons)


def test_open_on_a_fresh_backup_and_says_on_what(here: Shelf) -> None:
    assert "There is no backup" in why(ask(here))
    made = here.back_up()
    found = ask(here)
    assert (found.safe_to_proceed, found.backup) == (True, made.name)
    assert "full verification" in found.reasons[0]
    assert any("No transaction has written" in reason for reason in found.reasons)


def test_whatever_is_written_since_shuts_it(here: Shelf, database: LocalDatabase) -> None:
    here.back_up()
    assert ask(here).safe_to_proceed
    for statement in (
        "CREATE TABLE letta.fresh AS SELECT 1 AS one",
        "DELETE FROM letta.messages",
        "TRUNCATE letta.messages",
        "UPDATE letta.agents SET name = name",
        "CREATE FUNCTION new() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "COMMENT ON TABLE letta.agents IS 'written'",
        "SELECT lo_from_bytea(0, 'abc')",
        "DROP TABLE letta.messages CASCADE",
        "CREATE SEQUENCE moved",
    ):
        execute(database, statement)
        settle(database)
        assert "take a new backup" in why(ask(here)), statement
        here.back_up()
        assert ask(here).safe_to_proceed, statement


def test_sequence_that_moves_without_a_transaction_shuts_it(here: Shelf, database: LocalDatabase) -> None:
    execute(database, "CREATE SEQUENCE moves; SELECT nextval('moves')")
    settle(database)
    here.back_up()
    execute(database, "SELECT nextval('moves')")
    assert "Sequences have moved" in why(ask(here))


def test_reading_and_maintenance_leave_it_open(here: Shelf, database: LocalDatabase) -> None:
    here.back_up()
    execute(database, "SELECT count(*) FROM letta.messages; ANALYZE")
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("VACUUM")
    settle(database)
    found = ask(here)
    assert found.safe_to_proceed, found.reasons
    assert any("according to its statistics" in reason for reason in found.reasons)


def test_transaction_under_way_at_the_snapshot_can_not_be_excluded(here: Shelf, database: LocalDatabase) -> None:
    with psycopg.connect(database.dsn) as writer:
        writer.execute("DELETE FROM letta.messages")
        here.back_up()
        assert "A transaction that writes is running" in why(ask(here))
        writer.commit()
    settle(database)
    assert "it is not known whether the backup holds all of them" in why(ask(here))


def end_a_later_transaction(database: LocalDatabase) -> None:
    """Only then does a snapshot tell of an earlier one that is under way."""
    with psycopg.connect(database.server.dsn(), autocommit=True) as later:
        later.execute("SELECT pg_current_xact_id()")


def test_transaction_under_way_at_the_snapshot_that_changes_no_row_leaves_it_open(
    here: Shelf, database: LocalDatabase
) -> None:
    with psycopg.connect(database.dsn) as writer:
        writer.execute("SELECT pg_current_xact_id()")
        end_a_later_transaction(database)
        here.back_up()
        writer.rollback()
    settle(database)
    found = ask(here)
    assert found.safe_to_proceed, found.reasons
    assert any("according to its statistics" in reason for reason in found.reasons)


def test_transaction_of_another_database_under_way_at_the_snapshot_leaves_it_open(
    here: Shelf, database: LocalDatabase
) -> None:
    with psycopg.connect(database.server.dsn()) as elsewhere:
        elsewhere.execute("SELECT pg_current_xact_id()")
        end_a_later_transaction(database)
        made = here.back_up()
        assert made.safe_to_proceed, made.reasons
        elsewhere.rollback()
    found = ask(here)
    assert found.safe_to_proceed, found.reasons


def test_row_that_is_written_just_after_the_snapshot_shuts_it(
    here: Shelf, database: LocalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = sql_dump.pg.roles

    def write_first(session: Session) -> Any:
        execute(database, "UPDATE letta.agents SET name = name")
        settle(database)
        return roles(session)

    monkeypatch.setattr(sql_dump.pg, "roles", write_first)
    assert not here.back_up().safe_to_proceed
    assert "inserted, updated or deleted since" in why(ask(here))


def test_dropped_table_whose_rows_make_up_for_its_definition_shuts_it(here: Shelf, database: LocalDatabase) -> None:
    def changed_rows() -> int:
        settle(database)
        with BackupContext(here.settings) as context, context.server.session(context.database) as session:
            return activity.activity(session).changed_rows

    execute(database, "CREATE TABLE scratch (n int)")
    before = changed_rows()
    execute(database, "DROP TABLE scratch")
    definition = changed_rows() - before
    execute(database, f"CREATE TABLE precious AS SELECT generate_series(1, {definition}) AS n")
    before = changed_rows()
    here.back_up()
    execute(database, "DROP TABLE precious")
    assert changed_rows() == before
    assert "or tables dropped" in why(ask(here))


def test_session_that_ends_while_it_is_asked_has_told_its_rows(
    here: Shelf, database: LocalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = activity.activity
    with psycopg.connect(database.dsn, autocommit=True) as writer:
        writer.execute("SELECT 1")
        here.back_up()
        for _ in range(2):  # the second one within a second, which is not reported yet
            writer.execute("UPDATE letta.agents SET name = name")

        def and_then_it_ends(session: Session) -> Activity:
            found = look(session)
            writer.close()
            return found

        monkeypatch.setattr(activity, "activity", and_then_it_ends)
        why(ask(here))


def test_rows_written_just_before_the_backup_are_not_said_to_be_written_since(
    here: Shelf, database: LocalDatabase
) -> None:
    """A session that stays open reports them late, at the latest when it ends."""
    with psycopg.connect(database.dsn, autocommit=True) as writer:
        for _ in range(2):  # the second one within a second, which is not reported yet
            writer.execute("UPDATE letta.agents SET name = name")
        here.back_up()
        assert ask(here).safe_to_proceed, "no transaction has written since"
    settle(database)
    execute(database, "ANALYZE letta.agents")
    settle(database)
    assert "it is not known whether the backup holds all of them" in why(ask(here))
    here.back_up()
    execute(database, "ANALYZE letta.agents")
    settle(database)
    assert ask(here).safe_to_proceed


def test_row_that_is_written_over_a_replication_connection_shuts_it(here: Shelf, database: LocalDatabase) -> None:
    psql = [str(database.bin_dir / "psql"), "-X", "-q", "-d", f"{database.dsn}?replication=database"]
    with subprocess.Popen(psql, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write("\\echo there\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "there\n"
        here.back_up()
        writer.stdin.write("UPDATE letta.agents SET name = name;\n" * 2 + "\\echo written\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "written\n"
        why(ask(here))
        writer.stdin.close()


def test_other_databases_that_come_and_go_leave_it_open(here: Shelf, database: LocalDatabase) -> None:
    """As those of a drill on the live server do; what is set for this one shuts it."""
    here.back_up()
    other = f"other_{database.name}"
    with psycopg.connect(database.server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {other}".encode())
        connection.execute(f"COMMENT ON DATABASE {other} IS 'x'".encode())
        connection.execute(f"DROP DATABASE {other}".encode())
        found = ask(here)
        assert found.safe_to_proceed, found.reasons
        connection.execute(f"ALTER DATABASE {database.name} SET work_mem TO '5MB'".encode())
    assert "definitions or settings of this database were changed since" in why(ask(here))


def test_rows_that_pg_dump_leaves_out_are_told_and_shut_it(here: Shelf, database: LocalDatabase) -> None:
    execute(database, "CREATE TABLE letta.theirs AS SELECT generate_series(1, 50) AS n")
    execute(database, "ALTER EXTENSION vector ADD TABLE letta.theirs")
    execute(database, "CREATE TABLE information_schema.mine AS SELECT 1 AS one")
    execute(
        database, "SET allow_system_table_mods = on; CREATE SCHEMA pg_mine; CREATE TABLE pg_mine.x AS SELECT 1 AS one"
    )
    execute(database, CONFIGURATION)
    settle(database)
    made = here.back_up()
    told = "lacks rows of information_schema.mine (1), letta.filtered (100), letta.theirs (50), pg_mine.x (1), because"
    assert (made.good, made.safe_to_proceed) == (False, False)
    assert told in " ".join(made.reasons)
    assert told in " ".join(made.warnings)
    assert told in " ".join(here.verify(made.name).warnings)
    assert told in here.listed(made.name).detail
    assert "kind volume" in why(ask(here))
    with BackupContext(here.settings) as context:
        assert told in propose(context, Progress(), made.name).question
    execute(database, "DELETE FROM letta.filtered WHERE n <= 100; ALTER EXTENSION vector DROP TABLE letta.theirs")
    execute(database, "DROP TABLE information_schema.mine; DROP TABLE pg_mine.x")
    settle(database)
    made = here.back_up()
    assert (made.good, made.safe_to_proceed) == (True, True)


def test_table_of_an_extension_that_the_role_may_not_read_is_told_and_shuts_it(
    here: Shelf, database: LocalDatabase
) -> None:
    """pg_dump, which leaves its rows out, needs no right to them."""
    role = f"reader_{database.name}"
    execute(
        database,
        f"""CREATE SCHEMA hidden; CREATE TABLE hidden.theirs AS SELECT 1 AS one;
            ALTER EXTENSION vector ADD TABLE hidden.theirs; CREATE ROLE {role} LOGIN PASSWORD 'p' IN ROLE pg_monitor;
            GRANT USAGE ON SCHEMA letta TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA letta TO {role};
            GRANT SELECT ON ALL SEQUENCES IN SCHEMA letta TO {role}""",
    )
    settle(database)
    try:
        dsn = database.dsn.replace(f"postgres:{database.server.password}@", f"{role}:p@")
        made = Shelf(here.settings.model_copy(update={"dsn": SecretStr(dsn), "user": role})).back_up()
    finally:
        execute(database, f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert (made.good, made.safe_to_proceed) == (False, False)
    assert "hidden.theirs (if any: the role may not read it)" in " ".join(made.reasons)


class Restarted(EmbeddedServer):
    """A server of a test's own."""

    def as_standby(self) -> None:
        """Start it anew in recovery, which goes on until it is promoted."""
        (self.data / "standby.signal").touch()
        self._run("pg_ctl", "restart", "-D", str(self.data), "-l", str(self._log), "-m", "fast", "-w")


def test_backup_of_a_standby_that_was_promoted_since_shuts_it(tmp_path: Path) -> None:
    with Restarted() as server:
        execute(LocalDatabase(server, "postgres", server.dsn()), "CREATE DATABASE letta")
        database = LocalDatabase(server, "letta", server.dsn("letta"))
        load(database, MEMORY)
        execute(database, "ALTER SYSTEM SET autovacuum = off")
        here = shelf(database, tmp_path)
        server.as_standby()
        made = here.back_up()
        assert "The server is a standby" in " ".join(made.reasons)
        execute(database, "SELECT pg_promote()")
        settle(database)
        assert "The server was a standby when the backup was made" in why(ask(here))
        assert here.back_up().safe_to_proceed


def test_backup_that_tells_of_another_integrity_table_shuts_it(here: Shelf) -> None:
    here.back_up()
    assert "has counted agents, not messages" in why(ask(here, integrity_table="messages"))


def test_server_that_does_not_count_rows_can_not_tell(here: Shelf, database: LocalDatabase) -> None:
    execute(database, f"ALTER DATABASE {database.name} SET track_counts TO off")
    settle(database)
    here.back_up()
    assert ask(here).safe_to_proceed
    execute(database, "UPDATE letta.agents SET name = name")
    settle(database)
    assert "are not reliable" in why(ask(here))


def test_prepared_transaction_and_two_crashes_shut_it(require_docker: None, tmp_path: Path) -> None:
    """A crash takes the statistics along: after one that came before the backup there is nothing to go back from."""
    with a_rig(tmp_path) as rig:
        rig.psql("ALTER SYSTEM SET max_prepared_transactions = 1")
        crash(rig)
        rig.call(backup)
        rig.psql("BEGIN; INSERT INTO marker VALUES ('prepared'); PREPARE TRANSACTION 'open'")
        rig.psql("SELECT pg_current_xact_id()", "postgres")
        assert "prepared" in why(ask_rig(rig))
        rig.psql("COMMIT PREPARED 'open'")
        crash(rig)
        assert "crashed" in why(ask_rig(rig))


def ask_rig(rig: Rig) -> Gate:
    with BackupContext(rig.settings) as context:
        return gate(context)


def crash(rig: Rig) -> None:
    run_docker("kill", rig.container)
    run_docker("start", rig.container)
    rig.wait()


def test_too_old_and_from_the_future(here: Shelf) -> None:
    name = here.back_up().name
    for moved, said in ((timedelta(minutes=-61), "61 minutes old"), (timedelta(hours=2), "in the future")):
        moment = datetime.now(UTC) + moved
        here.edit_manifest(name, created_at=moment.isoformat().replace("+00:00", "Z"))
        assert said in why(ask(here))
    here.edit_manifest(name, created_at=(datetime.now(UTC) - timedelta(minutes=61)).isoformat())
    assert ask(here, gate_minutes=62).safe_to_proceed


def test_an_older_good_one_opens_it_when_the_newest_is_damaged(here: Shelf) -> None:
    first = here.back_up().name
    second = here.back_up().name
    content = bytearray(here.file(second).read_bytes())
    content[len(content) // 2] ^= 1
    here.file(second).write_bytes(content)
    assert not here.verify(second).valid
    found = ask(here)
    assert (found.safe_to_proceed, found.backup) == (True, first)


def test_unverified_shrunk_and_unproved_ones_do_not_open_it(here: Shelf, database: LocalDatabase) -> None:
    name = here.back_up().name
    assert "No restore drill has proved" in why(ask(here, gate_level="proved"))
    here.verify(name, "drill")
    assert "a restore drill on" in ask(here, gate_level="proved").reasons[0]
    here.outcome(name).unlink()
    assert "verify it" in why(ask(here))
    here.verify(name)
    assert ask(here).safe_to_proceed
    execute(database, "TRUNCATE letta.agents CASCADE")
    settle(database)
    here.back_up()
    here.file(name).unlink()
    assert "shrunk" in why(ask(here))


def test_another_database_of_that_name(here: Shelf, database: LocalDatabase) -> None:
    name = here.back_up().name
    with BackupContext(here.settings) as context:
        restore(context, Progress(), name)
    assert "of another database of that name" in why(ask(here))
    here.back_up()
    assert ask(here).safe_to_proceed
    here.edit_manifest(here.latest(), identity={"system_identifier": "1"})
    assert "of another database of that name" in why(ask(here))


def test_backup_of_an_older_version_of_this_tool_and_a_restore_under_way(here: Shelf) -> None:
    name = here.back_up().name
    activity = json.loads(here.manifest(name).read_bytes())["activity"]
    del activity["in_recovery"]
    here.edit_manifest(name, activity=activity)
    assert "whether its server was a standby" in why(ask(here))
    here.edit_manifest(name, activity=None)
    assert "does not record the server's activity" in why(ask(here))
    (here.directory / JOURNAL).write_text(json.dumps({}), encoding="utf-8")
    assert "interrupted" in why(ask(here))


def test_restore_of_another_database_waiting_in_the_directory_shuts_it_for_a_backup_too(here: Shelf) -> None:
    here.back_up()
    write(here.directory, waiting_journal("x.sql", "another"))
    said = "A restore of x.sql into another is running, or was interrupted, and shares this backup directory"
    assert said in why(ask(here))
    made = here.back_up()
    assert not made.safe_to_proceed
    assert said in " ".join(made.reasons)


def test_server_that_does_not_answer_shuts_it(here: Shelf) -> None:
    here.back_up()
    gone = here.settings.model_copy(update={"bin_dir": here.directory})
    assert "There is no program psql" in why(ask(Shelf(gone)))
