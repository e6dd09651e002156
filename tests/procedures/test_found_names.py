"""Which role and database are meant if no setting names them, and what is said about it."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from scarlet_backup_mcp.hosts import ContainerInfo
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.models.audit import Client
from scarlet_backup_mcp.procedures.audit.scheduling import schedule_backups
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.findings import findings
from scarlet_backup_mcp.procedures.found_names import Named, database_in, database_on, user_in
from scarlet_backup_mcp.schedules import job_name
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.store.remembered import Found, remember_found

from ..helpers.drill import Databases
from ..helpers.store import Made

FILES = {"/run/secrets/user": "app", "/run/secrets/database": "mind"}


def read(file: str) -> str:
    return FILES.get(file, "")


@pytest.mark.parametrize(
    ("environment", "user", "database"),
    [
        ({}, None, None),
        ({"POSTGRES_DB": "mind"}, None, "mind (POSTGRES_DB of the container)"),
        ({"POSTGRES_USER": "app"}, "app (POSTGRES_USER of the container)", "app (POSTGRES_USER of the container)"),
        (
            {"POSTGRES_USER": "app", "POSTGRES_DB": "mind"},
            "app (POSTGRES_USER of the container)",
            "mind (POSTGRES_DB of the container)",
        ),
        (
            {"POSTGRES_USER_FILE": "/run/secrets/user", "POSTGRES_DB_FILE": "/run/secrets/database"},
            "app (POSTGRES_USER_FILE of the container)",
            "mind (POSTGRES_DB_FILE of the container)",
        ),
        ({"POSTGRES_USER": "", "POSTGRES_USER_FILE": "/no/such/file"}, None, None),
        ({"POSTGRES_USER": "postgres"}, "postgres (POSTGRES_USER of the container)", None),
        ({"POSTGRES_DB": "template1"}, None, None),
        ({"POSTGRES_DB": "x" * 64, "POSTGRES_USER": "a\nb"}, None, None),
        ({"POSTGRES_USER": 'l\'è "x"', "PGUSER": "no"}, 'l\'è "x" (POSTGRES_USER of the container)', ...),
    ],
)
def test_what_the_environment_of_a_container_names(
    environment: dict[str, str], user: str | None, database: str | None
) -> None:
    named = user_in(environment, read), database_in(environment, read)
    shown = [None if name is None else str(name) for name in named]
    assert shown == [user, user if database is ... else database]


def test_a_server_is_asked_if_its_container_names_no_database(databases: Databases) -> None:
    table = f"agents_{secrets.token_hex(4)}"
    empty, full = databases.make(), databases.make(f"CREATE SCHEMA s; CREATE TABLE s.{table} ()")
    databases.psql(f"ALTER DATABASE {full.database} SET search_path TO s", "postgres")
    undo = f"{full.database}_before_restore_20260101_000000"
    databases.psql(f"CREATE DATABASE {undo} TEMPLATE {full.database}", "postgres")
    databases.psql(f"ALTER DATABASE {undo} SET search_path TO s", "postgres")
    with BackupContext(full) as context:
        server = context.server
        assert database_on(server, empty.database, table) == Named(empty.database, "the default")
        found = database_on(server, "no_such_database", table)
        assert found == Named(full.database, f"the only one with a table {table}")
        assert database_on(server, "no_such_database", f"{table}x") is None
        databases.psql(f"CREATE TABLE {table} ()", empty.database)
        assert database_on(server, "no_such_database", table) is None


def test_with_a_connection_string_nothing_is_found(databases: Databases) -> None:
    settings = databases.make()
    with BackupContext(settings) as context:
        assert (context.found_database, findings(context)) == (Named(settings.database), {})
    with BackupContext(load_settings(via="local", dsn="postgresql://app@127.0.0.1:1/mind")) as context:
        assert (context.found_database, context.found_user) == (Named("mind"), Named("app"))


@pytest.fixture
def without_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/dead.sock")


def test_what_was_found_is_known_while_the_engine_does_not_answer(
    without_engine: None, made: Made, tmp_path: Path
) -> None:
    """Backups of what was found at that directory are ours, and those of another container are not."""
    with BackupContext(made.shelf.settings) as context:
        manifest = context.directory.manifest_head(made.plain)
    assert manifest is not None
    assert manifest.identity is not None
    of = {"via": "docker", "container": "letta-letta_db-1", "project": "letta", "database": "mind"}
    manifest = manifest.model_copy(update={"identity": manifest.identity.model_copy(update=of)})
    settings = load_settings(dir=tmp_path)
    with BackupContext(settings) as context:
        assert (context.database, context.is_ours(manifest)) == ("letta", False)
        remember_found(context.place, Found("letta-letta_db-1", "mind"))
    for given, database, ours in (
        (settings, "mind", True),
        (load_settings(dir=tmp_path, database="letta"), "letta", False),
        (load_settings(dir=tmp_path, container="another"), "letta", False),
        (load_settings(dir=tmp_path / "another"), "letta", False),
    ):
        with BackupContext(given) as context:
            assert (context.database, context.is_ours(manifest)) == (database, ours)


MIND = ContainerInfo(kind="docker", container="letta-letta_db-1", state="exited", environment={"POSTGRES_DB": "mind"})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {"container": "letta-letta_db-1", "database": "mind"}),
        ({"project": "letta"}, {"database": "mind"}),
        ({"container": "letta-letta_db-1", "database": "mind"}, {}),
    ],
)
def test_what_was_found_can_be_named(given: dict[str, str], found: dict[str, str], tmp_path: Path) -> None:
    with BackupContext(load_settings(dir=tmp_path, **given)) as context:
        context.__dict__["container_info"] = MIND
        assert context.found == found


def test_what_is_not_known_is_not_named(without_engine: None, tmp_path: Path) -> None:
    with BackupContext(load_settings(dir=tmp_path)) as context:
        assert context.found == {}
    with BackupContext(load_settings(dir=tmp_path)) as context:
        context.__dict__["container_info"] = replace(MIND, environment={})
        assert context.found == {"container": "letta-letta_db-1"}


@pytest.fixture
def only_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(_: DockerHost) -> ContainerInfo:
        return MIND

    monkeypatch.setattr(DockerHost, "container_info", found)


def test_a_scheduled_job_names_what_was_found(only_mind: None, tmp_path: Path) -> None:
    settings, client = load_settings(dir=tmp_path), Client(name="cli")
    report = schedule_backups(
        settings,
        client,
        every="daily",
        at="03:30",
        weekday=None,
        kind="sql",
        compression=None,
        verify="auto",
        prune=True,
        system="cron",
    )
    job = "".join(file.text for file in report.files)
    assert "--container=letta-letta_db-1" in job
    assert "--database=mind" in job
    assert report.name == job_name(settings, "daily")
    assert any("--container=letta-letta_db-1 --database=mind" in note for note in report.notes)
