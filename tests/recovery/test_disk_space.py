"""The server's disk fills while something is loaded there: the live server goes on, and the user is told."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import BackupToolError, DiskFull
from scarlet_backup_mcp.models.results import Restore
from scarlet_backup_mcp.procedures import disk_space
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.prune import prune
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress

from ..conftest import IMAGE
from ..helpers.containers import QUICKLY, docker, run_docker, run_docker_quietly, wait_for_server
from ..helpers.restore import Mind, Watch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs containers with a tmpfs")

DATA = "/var/lib/postgresql/data"
FILLER = f"{DATA}/filler"
MEGABYTES = 45
"""Of rows that a load brings, so that it can give back more than a checkpoint takes."""
ROWS = f"""
CREATE TABLE many AS SELECT n, repeat(md5(n::text), 31) AS words FROM generate_series(1, {MEGABYTES << 10}) AS n;
CREATE TABLE many_more (n int PRIMARY KEY REFERENCES notes);
INSERT INTO many_more SELECT id FROM notes;
"""


@contextmanager
def small_server() -> Generator[str]:
    """A container whose data lie in 440 MB of memory, and whose WAL takes 32 MB at the most."""
    name = f"room-test-{secrets.token_hex(4)}"
    options = (
        "--tmpfs",
        f"{DATA}:size=440m",
        "-e",
        "POSTGRES_PASSWORD=none",
        *QUICKLY,
        "--label",
        "scarlet-backup-mcp.test=1",
    )
    server = ("-c", "max_wal_size=32MB", "-c", "autovacuum=off")
    try:
        run_docker("run", "-d", "--pull", "never", "--name", name, *options, IMAGE, *server)
        wait_for_server(name)
        yield name
    finally:
        run_docker_quietly("rm", "-f", "-v", name)


@contextmanager
def a_mind(container: str, directory: Path) -> Generator[Mind]:
    """A memory with many rows, backed up and then changed."""
    mind = Mind(container, f"mind_{secrets.token_hex(4)}", directory)
    mind.make(ROWS)
    with mind.context() as context:
        made = backup(context, Progress())
    mind.psql("UPDATE marker SET was = 'live'")
    yield replace(mind, saved=made.name)


@pytest.fixture(scope="module")
def shared(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mind]:
    with small_server() as container, a_mind(container, tmp_path_factory.mktemp("room") / "backups") as mind:
        yield mind


@pytest.fixture
def mind(shared: Mind) -> Iterator[Mind]:
    """That memory, on a disk that has room again."""
    yield shared
    empty(shared)
    for name in [*scratch(shared), *shared.undo_points()]:
        shared.psql(f"DROP DATABASE {name}", "postgres")


def fill(mind: Mind, leaving: int) -> None:
    """Fill the disk but for so many MB. WAL begins a new file before: where it needs one on a full disk, the server
    goes down by itself, and nobody can help it."""
    mind.psql("CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT", "postgres")
    script = f"""free=$(df -Pk {DATA} | awk 'NR == 2 {{print $4}}')
        dd if=/dev/zero of={FILLER} bs=1024 count=$((free - {leaving} * 1024)) 2>/dev/null || true"""
    run_docker("exec", mind.container, "sh", "-c", script)


def empty(mind: Mind) -> None:
    run_docker("exec", mind.container, "rm", "-f", FILLER)


def put_back(mind: Mind, progress: Progress) -> Restore:
    with mind.context() as context:
        return restore(context, progress, mind.saved, RestoreOptions(drill="never"))


def failure(mind: Mind, progress: Progress) -> BackupToolError:
    """A restore that has to fail for want of room, with the live database and the server as they were."""
    before, log = mind.fingerprint(), crashes(mind)
    with pytest.raises(BackupToolError) as caught:
        put_back(mind, progress)
    assert mind.fingerprint() == before
    assert crashes(mind) == log
    assert isinstance(caught.value, DiskFull), caught.value
    assert "live database is unchanged" in caught.value.message
    assert "Free some space" in caught.value.remedy
    return caught.value


def crashes(mind: Mind) -> int:
    """How often the server has crashed."""
    logged = docker(("logs", mind.container))
    return (logged.stdout + logged.stderr).count(b"all server processes terminated")


def scratch(mind: Mind) -> list[str]:
    return [name for name in mind.databases() if name.startswith(f"{mind.name}_restore_")]


def at_the_load(mind: Mind, leaving: int, done: int = -1) -> Watch:
    """The disk is filled when a load has read so many bytes."""
    return Watch("loading", lambda _: fill(mind, leaving), done)


def test_a_disk_that_is_full_when_much_is_loaded_gets_its_room_back_and_the_server_lives(
    mind: Mind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space, "LOOK_SECONDS", 1e9)
    error = failure(mind, at_the_load(mind, 4, 40 << 20))
    assert "disk is full" in error.message
    assert scratch(mind) == []


@pytest.mark.long
def test_a_disk_without_room_for_a_checkpoint_keeps_the_scratch_database_until_there_is_some(mind: Mind) -> None:
    error = failure(mind, at_the_load(mind, 8))
    left = scratch(mind)
    assert len(left) == 1
    assert left[0] in error.message
    fill(mind, 8)
    with mind.context() as context:
        told = " ".join(backup(context, Progress()).warnings)
    assert f"{left[0]} can't be dropped now" in told
    assert (scratch(mind), crashes(mind)) == (left, 0)
    empty(mind)
    with mind.context() as context:
        told = " ".join(backup(context, Progress()).warnings)
    assert f"{left[0]}, left by a restore that was killed, is dropped" in told
    assert scratch(mind) == []


def test_a_load_is_stopped_before_the_room_is_gone(mind: Mind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_space, "LOOK_SECONDS", 0.0)
    error = failure(mind, at_the_load(mind, 30, 20 << 20))
    assert "was stopped" in error.message
    assert scratch(mind) == []


def test_a_copy_of_the_cluster_does_not_begin_without_room_for_its_checkpoint(mind: Mind) -> None:
    fill(mind, 8)
    with mind.context() as context, pytest.raises(DiskFull) as caught:
        backup(context, Progress(), kind="volume")
    assert "An SQL backup needs no checkpoint" in caught.value.remedy
    assert crashes(mind) == 0


def test_an_undo_point_that_may_go_goes_on_a_full_disk_too(mind: Mind) -> None:
    point = mind.set_aside("aside")
    fill(mind, 8)
    with mind.context() as context:
        done = prune(context, Progress(), dry_run=False, include_undo=True)
    assert [item.name for item in done.items if item.action == "removed"] == [point]
    assert (mind.undo_points(), crashes(mind)) == ([], 0)


def test_an_undo_point_that_can_not_go_is_none_any_more_and_goes_later(mind: Mind) -> None:
    point = mind.set_aside("aside")
    mind.psql("DROP TABLE letta.many", point)
    fill(mind, 8)
    with mind.context() as context:
        done = prune(context, Progress(), dry_run=False, include_undo=True)
    assert [item.name for item in done.items if item.action == "not removed"] == [point]
    with mind.context() as context:
        assert list_backups(context).undo_points == []
    empty(mind)
    with mind.context() as context:
        assert point in " ".join(backup(context, Progress()).warnings)
    assert (mind.undo_points(), crashes(mind)) == ([], 0)


def test_a_drill_on_the_live_server_takes_the_same_care(mind: Mind) -> None:
    before = mind.fingerprint()
    with mind.context() as context, pytest.raises(DiskFull):
        verify(context, Watch("restoring", lambda _: fill(mind, 4), 40 << 20), mind.saved, "drill", on_live_server=True)
    assert (mind.fingerprint(), scratch(mind), crashes(mind)) == (before, [], 0)


@pytest.mark.long
def test_a_server_that_does_not_answer_any_more_is_told_with_what_to_do(tmp_path: Path, require_docker: None) -> None:
    def crash(_: Progress) -> None:
        fill(mind, 0)
        run_docker("kill", mind.container)

    with (
        small_server() as container,
        a_mind(container, tmp_path / "backups") as mind,
        pytest.raises(BackupToolError) as caught,
    ):
        put_back(mind, Watch("loading", crash))
    assert "does not answer now" in caught.value.message
    assert "free some space" in caught.value.remedy
    assert "docker compose up" in caught.value.remedy
