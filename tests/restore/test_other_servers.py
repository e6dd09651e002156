"""Restores into a server that the backup is not of."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from scarlet_backup_mcp.errors import (
    BackupMissing,
    OtherDatabaseRefused,
    PreflightFailed,
    again,
)

from ..conftest import IMAGE
from ..helpers.containers import QUICKLY, run_docker, run_docker_quietly, wait_for_server
from ..helpers.restore import Mind, put_back, refusal, take

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")


@pytest.fixture(scope="module")
def other(saved: Mind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mind]:
    """A database of the same name on a small server of its own, which belongs to no Compose project."""
    arguments = ("-c", "max_prepared_transactions=2", "-c", "wal_level=logical", "-c", "max_wal_size=64MB")
    with SmallServer(*arguments) as container:
        yield replace(saved, container=container, directory=tmp_path_factory.mktemp("other"))


class SmallServer:
    """A context manager: a container with PostgreSQL whose data lie in 300 MB of memory, gone when it stops."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._name = f"restore-test-{secrets.token_hex(4)}"

    def __enter__(self) -> str:
        settings = ("-e", "POSTGRES_PASSWORD=none", *QUICKLY, "--tmpfs", "/var/lib/postgresql/data:size=300m")
        label = ("--label", "scarlet-backup-mcp.test=1")
        run_docker("run", "-d", "--pull", "never", "--name", self._name, *label, *settings, IMAGE, *self._arguments)
        try:
            wait_for_server(self._name)
        except BaseException:
            self.__exit__()
            raise
        return self._name

    def __exit__(self, *_: object) -> None:
        run_docker_quietly("rm", "-f", "-v", self._name)


def test_backup_of_another_container_is_refused_unless_it_is_meant(other: Mind, mind: Mind) -> None:
    there = replace(other, directory=mind.directory)
    there.make_changed()
    error = refusal(there, OtherDatabaseRefused, mind.saved)
    assert mind.container in error.message
    assert error.next_call == again(accept_other_database=True)
    with pytest.raises(BackupMissing):
        put_back(there, "latest")
    done = put_back(there, mind.saved, accept_other_database=True)
    assert any("another cluster" in warning for warning in done.warnings)
    assert there.fingerprint() == mind.saved_fingerprint


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("make", "unmake"),
    [
        ("BEGIN; DELETE FROM notes; PREPARE TRANSACTION 'half-done';", "ROLLBACK PREPARED 'half-done';"),
        (
            "SELECT pg_create_logical_replication_slot('reader', 'pgoutput');",
            "SELECT pg_drop_replication_slot('reader');",
        ),
        (
            "CREATE SUBSCRIPTION reader CONNECTION 'dbname=x' PUBLICATION y WITH (connect = false);",
            "ALTER SUBSCRIPTION reader SET (slot_name = NONE); DROP SUBSCRIPTION reader;",
        ),
    ],
    ids=["prepared transaction", "replication slot", "subscription"],
)
def test_what_a_swap_would_break_is_refused(
    other: Mind, mind: Mind, make: str, unmake: str, request: pytest.FixtureRequest
) -> None:
    there = replace(other, directory=mind.directory)
    there.make()
    there.psql(make)
    try:
        error = refusal(there, PreflightFailed, mind.saved, accept_other_database=True)
    finally:
        there.psql(unmake)
    assert request.node.callspec.id in error.message


@pytest.mark.long
def test_fresh_volume_without_room_is_refused_and_restored_with_a_warning_once_there_is(saved: Mind) -> None:
    """The container is the same, its data are gone with the memory they lay in: another cluster, and no database."""
    with SmallServer() as container:
        mind = replace(saved, container=container, directory=saved.directory.parent / container)
        mind.make()
        take(mind)
        fingerprint = mind.fingerprint()
        run_docker("restart", "-t", "0", container)
        wait_for_server(container)
        assert mind.databases() == {}
        with pytest.raises(PreflightFailed, match="bytes free"):
            put_back(mind, "latest")
        assert mind.databases() == {}
        mind.psql("ALTER SYSTEM SET max_wal_size = '64MB'", "postgres")
        mind.psql("SELECT pg_reload_conf()", "postgres")
        done = put_back(mind, "latest")
        assert any("another cluster" in warning for warning in done.warnings)
        assert done.undo_point is None
        assert list(mind.databases()) == [mind.name]
        assert mind.fingerprint() == fingerprint
