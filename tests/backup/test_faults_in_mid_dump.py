"""What goes wrong while pg_dump runs makes a backup fail, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import BackupToolError
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.postgres.server import programs
from scarlet_backup_mcp.progress import Progress, State

from ..helpers.backup_faults import (
    BUSY_SECONDS,
    SERVER,
    SOON_SECONDS,
    TAG,
    At,
    Box,
    WhileItWaits,
    a_box,
    failure,
    files,
    listed,
    success,
)
from ..helpers.containers import run_docker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses signals, tmpfs and sh")


# What happens in the middle of a dump


def kill_container(box: Box, backend: int) -> None:
    run_docker("kill", box.name)


def restart_container(box: Box, backend: int) -> None:
    run_docker("restart", "-t", "5", box.name)


def crash_server(box: Box, backend: int) -> None:
    """The server throws everybody out and goes through recovery when any backend dies of a signal."""
    box.sh(f"kill -KILL {backend}")


def end_backend_of_dump(box: Box, backend: int) -> None:
    box.psql(f"SELECT pg_terminate_backend({backend})")


GONE = {"container_lost", "server_unreachable"}


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("act", "codes"),
    [
        (kill_container, GONE),
        (restart_container, GONE),
        (crash_server, {"server_unreachable"}),
        (end_backend_of_dump, {"server_unreachable"}),
    ],
)
def test_a_server_that_goes_away_in_mid_dump_fails_it(
    box: Box, directory: Path, act: Callable[[Box, int], None], codes: set[str]
) -> None:
    with box.dump_stalled():
        error = failure(box, directory, WhileItWaits(box, lambda backend: act(box, backend)))
    assert error.code in codes
    box.bring_up()
    box.assert_idle()
    assert success(box, directory).safe_to_proceed


def test_a_snapshot_that_is_lost_in_mid_dump_fails_it(box: Box, directory: Path) -> None:
    with box.dump_stalled() as lock:

        def end_session(backend: int) -> None:
            mine = f"application_name LIKE '{TAG}%' AND pid <> {backend}"
            assert int(box.psql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {mine}")) >= 1
            lock.release()

        assert failure(box, directory, WhileItWaits(box, end_session)).code == "server_unreachable"
    box.assert_idle()


@pytest.mark.long
def test_a_container_that_is_removed_in_mid_dump_fails_it(directory: Path, require_docker: None) -> None:
    with a_box({}, *SERVER) as doomed:
        doomed.bring_up()
        doomed.psql("CREATE SCHEMA letta; CREATE TABLE agents AS SELECT 1 AS id; SELECT lo_from_bytea(1, 'x');")
        with doomed.dump_stalled():
            gone = WhileItWaits(doomed, lambda backend: run_docker("rm", "-fv", doomed.name) and None)
            assert failure(doomed, directory, gone).code in GONE


# The caller stops it


class CancelAt(At):
    """Cancels the backup when its stage of that number begins."""

    def __init__(self, number: int) -> None:
        super().__init__("", lambda: None)
        self._number = number

    def show(self, state: State) -> None:
        super().show(state)
        if len(self.stages) == self._number:
            self.cancel()


@pytest.mark.long
def test_a_cancelled_backup_leaves_nothing_whatever_its_stage(box: Box, directory: Path) -> None:
    whole = At("", lambda: None)
    success(box, directory, whole)
    assert len(whole.stages) >= 5
    for number, stage in enumerate(whole.stages, 1):
        progress = CancelAt(number)
        assert failure(box, directory, progress).code == "cancelled", stage
        assert len(progress.stages) == number, stage
    box.assert_idle()


def test_a_cancelled_dump_ends_at_once_while_it_streams(box: Box, directory: Path) -> None:
    class CancelWithinTable(Progress):
        def report(self, done: float, detail: str = "") -> None:
            if detail == "letta.novel" and not moments:
                moments.append(time.monotonic())
                self.cancel()
            super().report(done, detail)

    moments: list[float] = []
    assert failure(box, directory, CancelWithinTable(), database="large").code == "cancelled"
    assert time.monotonic() - moments[0] < SOON_SECONDS
    box.assert_idle(within=SOON_SECONDS - (time.monotonic() - moments[0]))


def test_a_cancelled_dump_ends_at_once_while_it_is_silent(box: Box, directory: Path) -> None:
    moments: list[float] = []
    with box.dump_stalled():

        def cancel(backend: int) -> None:
            moments.append(time.monotonic())
            silent.cancel()

        silent = WhileItWaits(box, cancel)
        assert failure(box, directory, silent).code == "cancelled"
        assert time.monotonic() - moments[0] < SOON_SECONDS
        box.assert_idle(within=SOON_SECONDS - (time.monotonic() - moments[0]))


@pytest.mark.sample(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_command_line_leaves_nothing(box: Box, directory: Path, number: signal.Signals) -> None:
    with box.dump_stalled(), box.cli(directory, "backup") as command:
        box.wait_for_waiting_backend()
        assert any(name.endswith(".partial") for name in files(directory))
        began = time.monotonic()
        command.send_signal(number)
        said = command.communicate(timeout=20)
        assert time.monotonic() - began < SOON_SECONDS
        assert command.returncode == 130
        assert files(directory) == set()
        assert box.password not in "".join(said)
        box.assert_idle()


def test_what_a_killed_backup_leaves_is_shown_and_tidied_up_by_the_next(box: Box, directory: Path) -> None:
    with box.dump_stalled() as lock:
        with box.cli(directory, "backup") as command:
            orphan = box.wait_for_waiting_backend()
            wait_for_data(directory)
            command.kill()
            said = command.communicate(timeout=20)
        assert box.password not in "".join(said)
        (left,) = {name for name in files(directory) if "letta_backup" in name}
        assert left.endswith(".sql.partial")
        assert [(item.name, item.state) for item in listed(box, directory)] == [(left, "partial")]

        alive = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {orphan}"
        assert box.psql(alive) == "1"
        seen: list[str] = []

        def look() -> None:
            seen.append(box.psql(alive))
            lock.release()

        done = success(box, directory, At("taking a snapshot", look))
    assert seen == ["0"]
    assert [(item.name, item.state) for item in listed(box, directory)] == [(done.name, "good")]
    assert not any("partial" in name or "holder" in name for name in files(directory))
    box.assert_idle()


def wait_for_data(directory: Path) -> None:
    """Until some of the dump has been written."""
    deadline = time.monotonic() + BUSY_SECONDS
    while not any(path.stat().st_size for path in directory.glob("*.partial")):
        assert time.monotonic() < deadline, files(directory)
        time.sleep(0.02)


# A pg_dump that is not to be trusted

CUTS = {
    "empty": "exit 0",
    "inside rows": '$REAL "$@" | head -c 500000',
    "inside a row": '$REAL "$@" | sed "/^COPY letta.agents /,\\$d"; printf "COPY letta.agents (id) FROM stdin;\\nage"',
    "after the rows of a table": '$REAL "$@" | sed "/^COPY letta.messages /,\\$d"',
    "inside a statement": '$REAL "$@" | sed "/ADD CONSTRAINT messages_pkey/,\\$d"',
    "before the last comment": '$REAL "$@" | sed "/^-- PostgreSQL database dump complete/,\\$d"',
    "without its first comment": '$REAL "$@" | sed "/^-- PostgreSQL database dump$/d"',
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("script", CUTS.values(), ids=CUTS.keys())
def test_a_dump_that_is_cut_off_without_an_error_is_refused(box: Box, directory: Path, script: str) -> None:
    with box.pg_dump_is(script):
        assert failure(box, directory).code == "dump_incomplete"


BLOCK = "/^COPY letta.messages /,/^\\\\\\\\.\\$/"
LIES = {
    "a row is missing": f'$REAL "$@" | awk "{BLOCK} {{ if (++n == 42) next }} {{ print }}"',
    "a row is there twice": f'$REAL "$@" | awk "{BLOCK} {{ if (++n == 42) print }} {{ print }}"',
    "all rows are missing": f'$REAL "$@" | awk "{BLOCK} {{ if (++n > 1 && !/^\\\\\\\\.\\$/) next }} {{ print }}"',
    "a table's data are missing": f'$REAL "$@" | sed "{BLOCK}d"',
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("script", LIES.values(), ids=LIES.keys())
def test_a_whole_dump_with_other_rows_than_its_snapshot_is_refused(box: Box, directory: Path, script: str) -> None:
    with box.pg_dump_is(script):
        error = failure(box, directory)
    assert error.code == "dump_failed"
    assert "letta.messages" in error.message
    assert "300 in the snapshot" in error.message


def test_a_whole_dump_with_an_exit_code_is_refused(box: Box, directory: Path) -> None:
    with box.pg_dump_is('$REAL "$@"; echo "pg_dump: error: it rains" >&2; exit 3'):
        error = failure(box, directory)
    assert error.code == "dump_failed"
    assert "it rains" in error.message
    assert "3" in error.message


def test_a_pg_dump_that_can_not_be_started_is_refused(box: Box, directory: Path) -> None:
    with box.without_pg_dump():
        error = failure(box, directory)
    assert error.code == "program_missing"
    assert "pg_dump" in error.message


# Others change the schema


@pytest.mark.sample(1)
@pytest.mark.parametrize("table", ["agents", "block"])
def test_a_migration_that_keeps_a_table_locked_is_waited_for_and_then_told(
    box: Box, directory: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(programs, "LOCK_WAIT_MS", 1000)
    with box.holding(lock_of(table)):
        assert_told_of_the_migration(failure(box, directory))
        box.assert_idle()


def test_a_migration_that_locks_a_table_after_the_snapshot_is_told(
    box: Box, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "LOCK_WAIT_MS", 1000)
    with ExitStack() as migration:
        begin = At("dumping", lambda: migration.enter_context(box.holding(lock_of("block"))))
        assert_told_of_the_migration(failure(box, directory, begin))
        box.assert_idle()


def lock_of(table: str) -> str:
    return f"LOCK TABLE letta.{table} IN ACCESS EXCLUSIVE MODE;"


def assert_told_of_the_migration(error: BackupToolError) -> None:
    assert error.code == "dump_failed"
    assert "locked" in error.message
    assert "migration" in error.remedy


def drop_table(box: Box, database: str, table: str) -> None:
    box.psql(f"SET lock_timeout = '5s'; DROP TABLE letta.{table};", database)


@pytest.mark.long
def test_a_table_that_is_dropped_after_the_snapshot_makes_it_take_another(box: Box, directory: Path, copy: str) -> None:
    dropping = At("dumping", lambda: drop_table(box, copy, "moments"))
    done = success(box, directory, dropping, database=copy)
    assert dropping.stages.count("taking a snapshot") == 2
    assert "moments" not in {table.name for table in done.tables}
    assert [item.state for item in listed(box, directory)] == ["good"]


@pytest.mark.long
def test_a_schema_that_never_rests_is_told_after_the_second_try(box: Box, directory: Path, copy: str) -> None:
    tables = iter(["moments", "identities"])
    dropping = At("dumping", lambda: drop_table(box, copy, next(tables)), times=2)
    error = failure(box, directory, dropping, database=copy)
    assert error.code == "dump_failed"
    assert "schema changed" in error.message
    assert dropping.stages.count("taking a snapshot") == 2


REWRITE = "ALTER TABLE letta.moments ADD COLUMN token uuid DEFAULT gen_random_uuid()"
REPLACE = """CREATE TABLE letta.moments_new AS TABLE letta.moments; DROP TABLE letta.moments;
             ALTER TABLE letta.moments_new RENAME TO moments"""
MIGRATIONS = {"rewritten": (REWRITE, 50), "replaced": (REPLACE, 50), "emptied": ("TRUNCATE letta.moments", 0)}


def rows_in_manifest(directory: Path, made: Backup) -> dict[str, int]:
    """Read each table's rows; the result names only the largest tables."""
    manifest = json.loads((directory / f"{made.name}.manifest.json").read_text())
    return {table["name"]: table["rows"] for table in manifest["tables"]}


@pytest.mark.sample(1)
@pytest.mark.parametrize(("migration", "rows"), MIGRATIONS.values(), ids=MIGRATIONS.keys())
def test_a_table_that_is_rewritten_after_the_snapshot_is_not_dumped_empty(
    box: Box, directory: Path, copy: str, migration: str, rows: int
) -> None:
    """An older snapshot sees nothing in a table that was rewritten, replaced or emptied since (PostgreSQL's manual,
    "Concurrency Control", "Caveats"). Where the backup keeps the tables locked, the migration is refused: right too."""
    box.psql("CREATE TABLE letta.changed (at timestamptz)", copy)

    def migrate() -> None:
        box.psql(
            f"""SET lock_timeout = '1s';
                DO $$ BEGIN {migration}; INSERT INTO letta.changed VALUES (now());
                EXCEPTION WHEN lock_not_available THEN NULL; END $$;""",
            copy,
        )

    done = success(box, directory, At("dumping", migrate), database=copy)
    counted = rows_in_manifest(directory, done)
    assert (counted["moments"], counted["changed"]) in [(50, 0), (rows, 1)]


@pytest.mark.long
def test_a_migration_that_ends_while_it_is_waited_for_costs_no_row(box: Box, directory: Path, copy: str) -> None:
    box.psql("CREATE TABLE letta.changed (at timestamptz)", copy)
    with box.holding(f"{REWRITE}; INSERT INTO letta.changed VALUES (now());", copy) as migration:
        waiting = WhileItWaits(box, lambda backend: migration.commit(), stage="taking a snapshot")
        done = success(box, directory, waiting, database=copy)
    counted = rows_in_manifest(directory, done)
    assert counted["moments"] == 50
    assert counted["changed"] in (0, 1)
