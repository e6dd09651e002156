"""A backup that can't be good fails with a clear error and leaves nothing behind. Every fault here is a real one."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import BackupToolError, ConfigurationError, DiskFull
from scarlet_backup_mcp.models.manifest import Manifest
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.store.directory import BackupDirectory

from ..conftest import IMAGE
from ..helpers.backup_faults import (
    HEALTH_CHECK,
    SERVER,
    SICK,
    At,
    Box,
    a_box,
    failure,
    files,
    fill,
    listed,
    manifest,
    read_only,
    remember,
    success,
    tmpfs,
)
from ..helpers.containers import run_docker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses signals, tmpfs and sh")


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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_an_unhealthy_and_a_starting_container_are_tried_and_reported(directory: Path, require_docker: None) -> None:
    with a_box({}, *SERVER, run=HEALTH_CHECK) as box:
        remember(box)
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


@pytest.mark.sample(1)
@pytest.mark.parametrize("table", ["agents", "messages"])
def test_a_role_that_may_not_read_a_table_is_refused(
    box: Box, directory: Path, copy: str, reader: str, table: str
) -> None:
    box.psql(f"REVOKE SELECT ON letta.{table} FROM {reader}", copy)
    error = failure(box, directory, database=copy, user=reader)
    assert error.code == "permission_denied"
    assert table in error.message


@pytest.mark.sample(1)
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


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("taken_away", "code"),
    [
        ("ALTER ROLE {role} NOLOGIN", "role_missing"),
        ("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC", "permission_denied"),
    ],
)
def test_a_role_that_may_not_connect_is_refused(
    box: Box, directory: Path, copy: str, reader: str, taken_away: str, code: str
) -> None:
    box.psql(taken_away.format(role=reader, database=copy), copy)
    assert failure(box, directory, database=copy, user=reader).code == code


def test_a_role_that_does_not_exist_is_refused(box: Box, directory: Path) -> None:
    error = failure(box, directory, user="nobody_here")
    assert error.code == "role_missing"
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


@pytest.mark.sample(1)
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


@pytest.mark.long
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


@pytest.mark.long
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
    tables = {f"{table.schema_}.{table.name}": (table.rows, table.bytes, table.digest) for table in of.tables}
    return {**tables, "": (0, 0, of.rest_sha256)}


@pytest.mark.sample(1)
@pytest.mark.parametrize("of", ["DATABASE {database}", "ROLE postgres IN DATABASE {database}"])
def test_settings_of_the_database_or_the_role_do_not_change_a_dump(
    box: Box, directory: Path, copy: str, of: str
) -> None:
    before = success(box, directory, database=copy)
    place = of.format(database=copy)
    box.psql("\n".join(f"ALTER {place} SET {setting};" for setting in SETTINGS), "postgres")
    after = success(box, directory, database=copy)
    assert contents(manifest(directory, after.name)) == contents(manifest(directory, before.name))


ODD_ENVIRONMENT = {
    "TZ": "Europe/Rome",
    "PGTZ": "Asia/Kolkata",
    "PGDATESTYLE": "German",
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": "-c bytea_output=escape -c IntervalStyle=sql_standard -c extra_float_digits=-3",
    "PGAPPNAME": "somebody",
}


@pytest.mark.long
def test_the_environment_of_the_container_does_not_change_a_dump(box: Box, tmp_path: Path) -> None:
    usual = success(box, tmp_path / "usual")
    with a_box(ODD_ENVIRONMENT, *SERVER) as odd:
        remember(odd)
        other = success(odd, tmp_path / "other")
    assert contents(manifest(tmp_path / "other", other.name)) == contents(manifest(tmp_path / "usual", usual.name))
