"""A backup that can't be good fails with a clear error and leaves nothing behind. Every fault here is a real one."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import BackupToolError, ConfigurationError, DiskFull
from scarlet_backup_mcp.models.manifest import Manifest
from scarlet_backup_mcp.models.results import Listed
from scarlet_backup_mcp.postgres.server import programs
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.progress import Progress, State
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.store.directory import BackupDirectory

from ..conftest import IMAGE, MEMORY
from ..helpers.backup_faults import (
    SICK,
    SOON_SECONDS,
    TAG,
    At,
    Box,
    WhileItWaits,
    a_box,
    failure,
    files,
    fill,
    manifest,
    read_only,
    success,
    tmpfs,
)
from ..helpers.containers import run_docker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses signals, tmpfs and sh")

SERVER = ("postgres", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off")
# Values whose text depends on settings, and a large object: it is what pg_dump reads last.
MORE = r"""
SET timezone = 'UTC';
CREATE TABLE letta.moments AS
SELECT n, timestamptz '2026-03-29 00:30:00+00' + n * interval '31 minutes' AS at, time with time zone '12:00+02' AS tz,
       date '2026-12-31' - n AS day, interval '1 year 2 mons -3 days 04:05:06.789' * n AS span,
       decode(md5(n::text), 'hex') AS bytes, (1 / (n + 2.0))::real AS r, (1 / (n + 2.0))::float8 AS d,
       n * 1234.56::money AS price, 'perché 🌹 €' AS words, ARRAY['a', 'b,"c', NULL] AS list
FROM generate_series(1, 50) AS n;
SELECT lo_from_bytea(4711, '\x00ff');
"""
# 38 MB of script out of some 2 MB of database.
NOVEL = "CREATE TABLE letta.novel AS SELECT n, repeat(md5(n::text), 3000) AS text FROM generate_series(1, 400) AS n;"


@pytest.fixture(scope="module")
def boxes(require_docker: None) -> Iterator[tuple[Box, Box]]:
    """Two containers with the same memory: a usual one, and one whose environment has its own ideas."""
    odd = {
        "TZ": "Europe/Rome",
        "PGTZ": "Asia/Kolkata",
        "PGDATESTYLE": "German",
        "PGCLIENTENCODING": "LATIN1",
        "PGOPTIONS": "-c bytea_output=escape -c IntervalStyle=sql_standard -c extra_float_digits=-3",
        "PGAPPNAME": "somebody",
    }
    with a_box({}, *SERVER) as usual, a_box(odd, *SERVER) as other:
        for box in (usual, other):
            box.bring_up()
            box.psql(MEMORY.read_text(encoding="utf-8"))
            box.psql("SET client_encoding = 'UTF8';" + MORE)
        usual.psql("CREATE DATABASE large TEMPLATE letta", "postgres")
        usual.psql("ALTER DATABASE large SET search_path TO letta;" + NOVEL, "large")
        yield usual, other


@pytest.fixture
def box(boxes: tuple[Box, Box]) -> Box:
    """The usual container, running and healthy."""
    boxes[0].bring_up()
    return boxes[0]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def copy(box: Box) -> Iterator[str]:
    """A database of the test's own, equal to `letta`."""
    name = f"copy_{secrets.token_hex(4)}"
    box.psql(f"CREATE DATABASE {name} TEMPLATE letta", "postgres")
    box.psql(f"ALTER DATABASE {name} SET search_path TO letta", "postgres")
    yield name
    box.bring_up()
    box.psql(f"DROP DATABASE {name} WITH (FORCE)", "postgres")


@pytest.fixture
def reader(box: Box, copy: str) -> Iterator[str]:
    """A login role that is no superuser and may read all of the copy."""
    name = f"reader_{secrets.token_hex(4)}"
    box.psql(
        f"""CREATE ROLE {name} LOGIN; GRANT USAGE ON SCHEMA letta TO {name};
            GRANT SELECT ON ALL TABLES IN SCHEMA letta TO {name};
            GRANT SELECT ON ALL SEQUENCES IN SCHEMA letta TO {name}; GRANT SELECT ON LARGE OBJECT 4711 TO {name};""",
        copy,
    )
    yield name
    box.psql(f"DROP OWNED BY {name}; DROP ROLE {name};", copy)


# The engine and the container


def dead_sockets(directory: Path) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as unheard, socket.socket() as closed:
        unheard.bind(str(directory / "unheard.sock"))
        closed.bind(("127.0.0.1", 0))
        yield f"unix://{directory / 'unheard.sock'}"
        yield f"unix://{directory / 'missing.sock'}"
        yield f"tcp://127.0.0.1:{closed.getsockname()[1]}"


def test_an_engine_that_does_not_answer_is_refused(
    box: Box, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in dead_sockets(tmp_path):
        monkeypatch.setenv("DOCKER_HOST", address)
        error = failure(box, directory)
        assert error.code == "engine_unreachable"
        assert address in error.message


def test_a_missing_container_is_refused(box: Box, directory: Path) -> None:
    error = failure(box, directory, container="no-such-container")
    assert error.code == "container_missing"
    assert "no-such-container" in error.message


def test_a_stopped_container_is_refused(box: Box, directory: Path) -> None:
    run_docker("stop", "-t", "10", box.name)
    error = failure(box, directory)
    assert error.code == "container_not_running"
    assert "docker compose up" in error.remedy


def test_a_container_that_was_never_started_is_refused(box: Box, directory: Path) -> None:
    name = f"{box.name}-created"
    run_docker("create", "--name", name, "--label", "scarlet-backup-mcp.test=1", IMAGE)
    try:
        assert failure(box, directory, container=name).code == "container_not_running"
    finally:
        run_docker("rm", "-fv", name)


def test_a_paused_container_is_refused(box: Box, directory: Path) -> None:
    run_docker("pause", box.name)
    error = failure(box, directory)
    assert error.code == "container_paused"
    assert "unpause" in error.remedy


def test_a_container_without_a_server_in_it_is_refused(directory: Path, require_docker: None) -> None:
    with a_box({}, "sleep", "infinity") as empty:
        assert failure(empty, directory).code == "server_unreachable"


def test_an_unhealthy_and_a_starting_container_are_tried_and_reported(box: Box, directory: Path) -> None:
    box.wait_for_health("healthy")
    box.sh(f"touch {SICK}")
    box.wait_for_health("unhealthy")
    assert_backed_up_with_a_warning(box, directory, "container_unhealthy")
    run_docker("restart", "-t", "10", box.name)
    box.wait_until_ready()
    assert box.health == "starting"
    assert_backed_up_with_a_warning(box, directory, "container_starting")


def assert_backed_up_with_a_warning(box: Box, directory: Path, code: str) -> None:
    taken = success(box, directory)
    assert taken.safe_to_proceed
    assert code.removeprefix("container_") in " ".join(taken.warnings)
    with BackupContext(box.settings(directory)) as context:
        looked = db_integrity(context, Progress())
    assert [finding.severity for finding in looked.findings if finding.code == code] == ["warning"]
    assert looked.healthy


# The server, the database and the role


def test_a_missing_database_is_refused(box: Box, directory: Path) -> None:
    error = failure(box, directory, database="no such 'database\"")
    assert error.code == "database_missing"
    assert "no such 'database" in error.message


def test_a_role_that_may_read_everything_is_enough(box: Box, directory: Path, copy: str, reader: str) -> None:
    """What the tests after this one take away is thus what is missing."""
    own = success(box, directory, database=copy, user=reader)
    full = success(box, directory, database=copy)
    assert contents(manifest(directory, own.name)) == contents(manifest(directory, full.name))


@pytest.mark.parametrize("table", ["agents", "messages"])
def test_a_role_that_may_not_read_a_table_is_refused(
    box: Box, directory: Path, copy: str, reader: str, table: str
) -> None:
    box.psql(f"REVOKE SELECT ON letta.{table} FROM {reader}", copy)
    error = failure(box, directory, database=copy, user=reader)
    assert error.code == "permission_denied"
    assert table in error.message


@pytest.mark.parametrize("table", ["agents", "messages"])
def test_a_role_that_row_level_security_hides_rows_from_is_refused(
    box: Box, directory: Path, copy: str, reader: str, table: str
) -> None:
    box.psql(
        f"""ALTER TABLE letta.{table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY part ON letta.{table} FOR SELECT USING (id < 'n');""",
        copy,
    )
    error = failure(box, directory, database=copy, user=reader)
    assert error.code == "permission_denied"
    assert table in error.message
    assert success(box, directory, database=copy).rows == success(box, directory).rows


@pytest.mark.parametrize(
    "taken_away", ["ALTER ROLE {role} NOLOGIN", "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"]
)
def test_a_role_that_may_not_connect_is_refused(
    box: Box, directory: Path, copy: str, reader: str, taken_away: str
) -> None:
    box.psql(taken_away.format(role=reader, database=copy), copy)
    assert failure(box, directory, database=copy, user=reader).code == "permission_denied"


def test_a_role_that_does_not_exist_is_refused(box: Box, directory: Path) -> None:
    error = failure(box, directory, user="nobody_here")
    assert error.code == "permission_denied"
    assert "nobody_here" in error.message


# The disk


def test_a_disk_that_is_too_small_is_refused_before_the_dump(box: Box, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", 4 << 20) as small:
        seen = At("dumping", lambda: None)
        error = failure(box, small, seen)
        assert error.code == "disk_full"
        assert "dumping" not in seen.stages


def test_a_disk_without_any_room_is_called_full(box: Box, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "full", 1 << 20) as full:
        fill(full, leaving=0)
        assert failure(box, full).code == "disk_full"


def test_a_disk_without_any_room_can_be_pruned(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "full", 1 << 20) as full:
        fill(full, leaving=0)
        BackupDirectory(full).prepare()
        assert files(full) == {"filler"}
        (full / "filler").unlink()
        BackupDirectory(full).prepare()
        assert (full / ".gitignore").read_text(encoding="utf-8") == "*\n"


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_disk_that_is_full_in_mid_dump_leaves_nothing(box: Box, tmp_path: Path, compression: str) -> None:
    """The dump is three times the size of the database, so what is asked for beforehand is there."""
    database = "large" if compression == "none" else "letta"
    size = int(int(box.psql("SELECT pg_database_size(current_database())", database)) * 1.2) + (1 << 20)
    with tmpfs(tmp_path / "small", size) as small:
        act = (lambda: None) if compression == "none" else (lambda: fill(small, leaving=2))
        seen = At("dumping", act)
        filler = {"filler"} if compression == "zstd" else set[str]()
        before = files(small)
        with BackupContext(box.settings(small, database=database)) as context, pytest.raises(DiskFull) as caught:
            backup(context, seen, compression="zstd" if compression == "zstd" else "none")
        assert seen.stages[-1] == "dumping"
        assert "no space left" in caught.value.message
        assert files(small) == before | filler
    box.assert_idle()


def test_a_disk_that_is_full_after_the_dump_leaves_a_good_backup_or_nothing(box: Box, tmp_path: Path) -> None:
    """With each number of free pages the manifest, or what is kept of its verification, fits or doesn't."""
    outcomes: set[str] = set()
    with tmpfs(tmp_path / "small", 24 << 20) as small:
        for pages in range(9):
            before = files(small)
            full = At("counting the rows of the snapshot", lambda leaving=pages: fill(small, leaving))
            try:
                with BackupContext(box.settings(small)) as context:
                    done = backup(context, full)
            except BackupToolError as error:
                outcomes.add(error.code)
                assert files(small) - before == {"filler"}, f"{pages} pages"
            else:
                outcomes.add("good")
                states = {item.name: item.state for item in listed(box, small)}
                assert states == {done.name: "good"}, f"{pages} pages"
                for name in files(small):
                    (small / name).unlink()
            (small / "filler").unlink(missing_ok=True)
    assert outcomes == {"disk_full", "good"}


def test_a_directory_on_a_read_only_file_system_is_refused(box: Box, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "backups", 1 << 20) as directory:
        (directory / ".gitignore").write_text("*\n")
        read_only(directory)
        for path in (directory, directory / "below"):
            error = failure(box, path)
            assert error.code == "directory_not_writable"
            assert str(path) in error.message


def test_a_directory_that_can_not_be_made_is_refused(box: Box, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    for path in (tmp_path / "file", tmp_path / "file" / "backups", Path("/proc/self/backups")):
        error = failure(box, path)
        assert error.code == "directory_not_writable"
        assert str(path) in error.message


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permission bits do not bind root")
def test_a_directory_of_someone_else_is_refused(box: Box, directory: Path) -> None:
    directory.mkdir(mode=0o500)
    assert failure(box, directory).code == "directory_not_writable"


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
            assert box.psql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {mine}") == "1"
            lock.release()

        assert failure(box, directory, WhileItWaits(box, end_session)).code == "server_unreachable"
    box.assert_idle()


def test_a_container_that_is_removed_in_mid_dump_fails_it(directory: Path, require_docker: None) -> None:
    with a_box({}, *SERVER) as doomed:
        doomed.bring_up()
        doomed.psql("CREATE SCHEMA letta; CREATE TABLE agents AS SELECT 1 AS id; SELECT lo_from_bytea(1, 'x');")
        with doomed.dump_stalled():
            gone = WhileItWaits(doomed, lambda backend: run_docker("rm", "-fv", doomed.name) and None)
            assert failure(doomed, directory, gone).code in GONE


# One at a time


def test_a_second_backup_is_refused_and_told_who_is_at_it(box: Box, directory: Path) -> None:
    errors: list[BackupToolError] = []
    answers: list[tuple[int, str]] = []

    def try_a_second() -> None:
        with BackupContext(box.settings(directory)) as context, pytest.raises(BackupToolError) as caught:
            backup(context, Progress())
        errors.append(caught.value)
        with box.cli(directory, "backup", "--json") as command:
            answers.append((command.wait(60), command.communicate()[0]))

    first = success(box, directory, At("taking a snapshot", try_a_second))
    said = json.loads(answers[0][1])
    assert answers[0][0] == 2
    for code, message, remedy in [(e.code, e.message, e.remedy) for e in errors] + [
        (said["code"], said["message"], said["remedy"])
    ]:
        assert code == "busy"
        assert f"backup of process {os.getpid()}" in message
        assert remedy
    assert [item.name for item in listed(box, directory)] == [first.name]


def test_backups_to_two_directories_do_not_disturb_each_other(box: Box, tmp_path: Path) -> None:
    second: list[str] = []
    first = success(box, tmp_path / "one", At("dumping", lambda: second.append(success(box, tmp_path / "two").name)))
    assert files(tmp_path / "one") >= {first.name}
    assert files(tmp_path / "two") >= {second[0]}


def test_a_label_that_is_no_text_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    """As a shell hands on bytes that are no UTF-8. Nobody listens at that address."""
    settings = load_settings(dir=tmp_path / "backups", via="local", dsn="postgresql://127.0.0.1:1/letta")
    with BackupContext(settings) as context, pytest.raises(ConfigurationError, match="no text"):
        backup(context, Progress(), label="caff\udce9")
    assert not (tmp_path / "backups").exists()


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
    deadline = time.monotonic() + 20
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


def test_a_table_that_is_dropped_after_the_snapshot_makes_it_take_another(box: Box, directory: Path, copy: str) -> None:
    dropping = At("dumping", lambda: drop_table(box, copy, "moments"))
    done = success(box, directory, dropping, database=copy)
    assert dropping.stages.count("taking a snapshot") == 2
    assert "moments" not in {table.name for table in done.tables}
    assert [item.state for item in listed(box, directory)] == ["good"]


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
    counted = {table.name: table.rows for table in done.tables}
    assert (counted["moments"], counted["changed"]) in [(50, 0), (rows, 1)]


def test_a_migration_that_ends_while_it_is_waited_for_costs_no_row(box: Box, directory: Path, copy: str) -> None:
    box.psql("CREATE TABLE letta.changed (at timestamptz)", copy)
    with box.holding(f"{REWRITE}; INSERT INTO letta.changed VALUES (now());", copy) as migration:
        waiting = WhileItWaits(box, lambda backend: migration.commit(), stage="taking a snapshot")
        done = success(box, directory, waiting, database=copy)
    counted = {table.name: table.rows for table in done.tables}
    assert counted["moments"] == 50
    assert counted["changed"] in (0, 1)


# What surrounds the server does not change a dump

SETTINGS = (
    "timezone = 'Asia/Kolkata'",
    "datestyle = 'German, DMY'",
    "intervalstyle = 'iso_8601'",
    "bytea_output = 'escape'",
    "client_encoding = 'LATIN1'",
    "extra_float_digits = -15",
    "standard_conforming_strings = off",
    "default_transaction_read_only = on",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "statement_timeout = '20ms'",
    "lock_timeout = '20ms'",
    "idle_in_transaction_session_timeout = '20ms'",
    "idle_session_timeout = '20ms'",
    "row_security = off",
    "client_min_messages = 'debug1'",
    "quote_all_identifiers = on",
)


def contents(of: Manifest) -> dict[str, tuple[int, int, str]]:
    """All that a dump holds: each table's rows, bytes and digest, and the digest of the rest."""
    tables = {f"{table.schema_}.{table.name}": (table.rows, table.bytes, table.sha256) for table in of.tables}
    return {**tables, "": (0, 0, of.rest_sha256)}


@pytest.mark.parametrize("of", ["DATABASE {database}", "ROLE postgres IN DATABASE {database}"])
def test_settings_of_the_database_or_the_role_do_not_change_a_dump(
    box: Box, directory: Path, copy: str, of: str
) -> None:
    before = success(box, directory, database=copy)
    place = of.format(database=copy)
    box.psql("\n".join(f"ALTER {place} SET {setting};" for setting in SETTINGS), "postgres")
    after = success(box, directory, database=copy)
    assert contents(manifest(directory, after.name)) == contents(manifest(directory, before.name))


def test_the_environment_of_the_container_does_not_change_a_dump(
    box: Box, boxes: tuple[Box, Box], tmp_path: Path
) -> None:
    usual = success(box, tmp_path / "usual")
    other = success(boxes[1], tmp_path / "other")
    assert contents(manifest(tmp_path / "other", other.name)) == contents(manifest(tmp_path / "usual", usual.name))


def listed(box: Box, directory: Path) -> list[Listed]:
    with BackupContext(box.settings(directory)) as context:
        return list_backups(context).backups
