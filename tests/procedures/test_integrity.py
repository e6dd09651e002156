"""`db_integrity`: whatever is wrong is a finding with a remedy, and nothing is an exception."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import ConfigurationError
from scarlet_backup_mcp.models.manifest import Site
from scarlet_backup_mcp.models.results import Finding, Integrity
from scarlet_backup_mcp.postgres.server.programs import has_known_holes
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.recovery import journal
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings
from scarlet_backup_mcp.store.names import JOURNAL
from scarlet_backup_mcp.summaries import describe

from ..conftest import LocalDatabase, Stack
from ..helpers.containers import run_docker
from ..helpers.store import Made, Shelf, execute, shelf, small_database, waiting_journal


@pytest.fixture
def here(made: Made, tmp_path: Path) -> Shelf:
    """A directory of the test's own with one backup."""
    return made.shelf.copy(tmp_path / "backups", made.plain)


@pytest.fixture
def database(embedded: EmbeddedServer) -> Iterator[LocalDatabase]:
    """A database that a test may harm."""
    with small_database(embedded) as one:
        yield one


def look(settings: Settings) -> Integrity:
    with BackupContext(settings) as context:
        return db_integrity(context, Progress())


def changed(here: Shelf, **values: object) -> Settings:
    given = {"via": "local", "dir": here.directory, "bin_dir": here.settings.bin_dir, "dsn": here.settings.dsn}
    return load_settings(**{**given, **values})


def finding(found: Integrity, code: str) -> Finding:
    """The one finding of that code. It has to say what to do, and the text has to hold it."""
    only = [finding for finding in found.findings if finding.code == code]
    assert len(only) == 1, [(finding.code, finding.message) for finding in found.findings]
    assert only[0].remedy
    assert only[0].message in describe(found)
    return only[0]


def steps(found: Integrity) -> dict[str, bool | None]:
    return {step.step: step.ok for step in found.steps}


# A local server


def test_healthy_database_has_no_finding(made: Made, here: Shelf) -> None:
    found = look(here.settings)
    assert (found.healthy, found.agents, found.findings) == (True, 2, [])
    assert (found.container, found.container_state, found.container_health) == (None, None, None)
    assert found.newest_good_backup == made.plain
    assert found.newest_good_age_seconds is not None
    assert 0 <= found.newest_good_age_seconds < 3600
    assert found.server_version is not None
    assert found.server_version.startswith("18.")
    assert found.database_bytes is not None
    assert found.database_bytes > 5_000_000
    assert steps(found) == {"Prerequisiti": True, "Passo 5": True}
    assert next(step.detail for step in found.steps if step.step == "Passo 5") == "2"
    assert describe(found).startswith("Healthy: local server")


def test_tables_and_extensions_are_shown(here: Shelf) -> None:
    found = look(here.settings)
    assert {(table.schema_, table.name) for table in found.tables} >= {("letta", "agents"), ("letta", "messages")}
    sizes = [table.bytes for table in found.tables]
    assert sizes == sorted(sizes, reverse=True)
    assert {(extension.name, extension.schema_) for extension in found.extensions} >= {("vector", "letta")}


def test_nothing_is_changed(here: Shelf) -> None:
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in here.directory.iterdir()}
    look(here.settings)
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in here.directory.iterdir()} == before


def test_directory_is_not_made_by_looking(made: Made, here: Shelf, tmp_path: Path) -> None:
    found = look(changed(here, dir=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    assert finding(found, "no_good_backup").severity == "warning"


def test_missing_database_is_a_finding(embedded: EmbeddedServer, here: Shelf) -> None:
    found = look(changed(here, dsn=embedded.dsn("no_such_database")))
    missing = finding(found, "database_missing")
    assert (found.healthy, found.agents, missing.severity) == (False, None, "error")
    assert "'no_such_database'" in missing.message
    assert "restore a lost database" in missing.remedy
    assert "postgres" in missing.evidence["databases"]
    assert steps(found) == {"Prerequisiti": True, "Passo 5": False}


def test_missing_table_is_a_finding(database: LocalDatabase, tmp_path: Path) -> None:
    execute(database, "DROP TABLE letta.agents CASCADE")
    found = look(shelf(database, tmp_path / "backups").settings)
    missing = finding(found, "integrity_table_missing")
    assert (found.healthy, found.agents, missing.severity) == (False, None, "error")
    assert "agents" in missing.message
    assert "search_path" in missing.remedy
    assert found.tables != []


def test_table_out_of_the_search_path_is_a_finding(database: LocalDatabase, tmp_path: Path) -> None:
    """What a dump that was loaded without the database's settings looks like."""
    execute(database, f'ALTER DATABASE "{database.name}" RESET search_path')
    found = look(shelf(database, tmp_path / "backups").settings)
    assert "search_path" in finding(found, "integrity_table_missing").message


def test_empty_table_is_a_finding(database: LocalDatabase, tmp_path: Path) -> None:
    execute(database, "TRUNCATE letta.agents CASCADE")
    found = look(shelf(database, tmp_path / "backups").settings)
    empty = finding(found, "integrity_table_empty")
    assert (found.healthy, found.agents, empty.severity) == (False, 0, "error")
    assert "restore one" in empty.remedy
    assert steps(found)["Passo 5"] is False


@pytest.mark.parametrize(
    "table", ['agents"; DROP TABLE letta.agents; --', "letta.agents", "AGENTS", "pg_class; SELECT 1"]
)
def test_name_of_the_table_is_a_name_and_no_sql(database: LocalDatabase, tmp_path: Path, table: str) -> None:
    here = shelf(database, tmp_path / "backups")
    found = look(changed(here, integrity_table=table))
    assert table in finding(found, "integrity_table_missing").message
    assert look(here.settings).agents == 2


def test_server_that_is_down_is_a_finding(here: Shelf) -> None:
    found = look(changed(here, dsn="postgresql://postgres@127.0.0.1:1/letta"))
    assert (found.healthy, found.agents, found.server_version) == (False, None, None)
    assert finding(found, "server_unreachable").severity == "error"
    assert steps(found)["Passo 5"] is False


def test_refused_password_is_a_finding_without_it(embedded: EmbeddedServer, here: Shelf) -> None:
    found = look(changed(here, dsn=f"postgresql://postgres:wrongsecret@127.0.0.1:{embedded.port}/letta"))
    refused = finding(found, "password_rejected")
    assert (found.healthy, refused.severity) == (False, "error")
    assert "wrongsecret" not in found.model_dump_json()


def test_missing_programs_are_a_finding(here: Shelf, tmp_path: Path) -> None:
    found = look(changed(here, bin_dir=tmp_path))
    assert (found.healthy, finding(found, "program_missing").severity) == (False, "error")


# Backups


@pytest.mark.parametrize(("days", "warned"), [(6.9, False), (7.1, True)])
def test_week_without_a_backup_is_a_finding(made: Made, here: Shelf, days: float, warned: bool) -> None:
    here.edit_manifest(made.plain, created_at=(datetime.now(UTC) - timedelta(days=days)).isoformat())
    found = look(here.settings)
    assert found.healthy
    assert found.newest_good_age_seconds == pytest.approx(days * 86400, abs=60)
    assert [finding.code for finding in found.findings] == (["backup_old"] if warned else [])
    if warned:
        assert "7 days" in finding(found, "backup_old").message


def test_no_backup_is_a_finding(made: Made, here: Shelf) -> None:
    here.file(made.plain).write_bytes(b"")
    found = look(here.settings)
    assert (found.healthy, found.newest_good_backup, found.newest_good_age_seconds) == (True, None, None)
    assert "Take a backup" in finding(found, "no_good_backup").remedy


def test_newest_backup_and_its_age_are_of_one_and_the_same(made: Made, tmp_path: Path) -> None:
    """Not the name of one from the future beside the age of the one before."""
    here = made.shelf.copy(tmp_path / "backups", made.plain, made.zstd)
    here.edit_manifest(made.plain, created_at=(datetime.now(UTC) - timedelta(days=3)).isoformat())
    here.edit_manifest(made.zstd, created_at=(datetime.now(UTC) + timedelta(days=3)).isoformat())
    found = look(here.settings)
    assert found.newest_good_age_seconds == pytest.approx(3 * 86400, abs=60)
    assert found.newest_good_backup == made.plain


def test_restore_that_was_cut_off_is_a_finding(made: Made, here: Shelf) -> None:
    for content in (b"{", b"{}"):
        (here.directory / JOURNAL).write_bytes(content)
        found = look(here.settings)
        assert (found.healthy, found.newest_good_backup) == (False, made.plain)
        assert "interrupted" in finding(found, "restore_interrupted").message
        assert "pgsql_tmp_outgoing_" in finding(found, "restore_interrupted").remedy
    (here.directory / JOURNAL).unlink()
    journal.write(here.directory, waiting_journal("x.sql", None))
    found = look(here.settings)
    assert (found.healthy, finding(found, "restore_interrupted").severity) == (False, "error")
    assert (here.directory / JOURNAL).exists()


def test_restore_of_something_else_that_was_cut_off_is_told_by_its_name(here: Shelf) -> None:
    journal.write(here.directory, waiting_journal("x.sql", None).model_copy(update={"database": "other"}))
    said = finding(look(here.settings), "restore_interrupted").message
    assert "take a backup of the database other of a local server" in said
    volume = journal.VolumeJournal(
        source="postgres_volume_20260101_000000.tar.gz",
        container=None,
        container_id=None,
        image_id="sha256:0",
        site=Site(data_directory="/pgdata", mounted_at="/pgdata", volume="scarlet_postgres_data"),
        mounted="scarlet_postgres_data",
        engine="an engine",
        stamp="20260101_000000",
        undo=None,
        was_running=False,
        dependents=[],
        started_at=datetime.now(UTC),
    )
    for unknown in (set[str](), {"mounted", "engine", "removable", "exchanging"}):  # to an older version
        (here.directory / JOURNAL).write_text(volume.model_dump_json(exclude=unknown), encoding="utf-8")
        said = finding(look(here.settings), "restore_interrupted").message
        assert "take a backup of the volume scarlet_postgres_data" in said


def test_local_server_without_a_directory_still_answers(here: Shelf) -> None:
    """Nothing says where backups lie, but the database can be looked at."""
    found = look(changed(here, dir=None))
    assert found.agents == 2
    assert finding(found, "backup_dir_unknown").severity == "warning"


# Versions


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ("15.18", "15.19"),
        ("15.19", None),
        ("15.20 (Debian 15.20-1.pgdg12+1)", None),
        ("15.2", "15.19"),
        ("16.14", "16.15"),
        ("16.15", None),
        ("17.10", "17.11"),
        ("17.11", None),
        ("18.0", "18.6"),
        ("18.5 (Debian 18.5-1)", "18.6"),
        ("18.6", None),
        ("18beta1", "18.6"),
        ("19.0", None),
        ("19devel", None),
        ("14.30", "15.19"),
        ("13.1", "15.19"),
    ],
)
def test_versions_with_known_holes(version: str, fixed: str | None) -> None:
    assert has_known_holes(version) == fixed


# Docker


def test_engine_that_is_down_is_a_finding(here: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    began = time.monotonic()
    found = look(load_settings(dir=here.directory))
    assert time.monotonic() - began < 10
    down = finding(found, "engine_unreachable")
    assert (found.healthy, found.container, found.agents, down.severity) == (False, None, None, "error")
    assert "Docker Desktop" in down.remedy
    assert steps(found) == {"Prerequisiti": False, "Passo 5": False}


def test_engine_that_is_down_and_no_directory_is_one_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    found = look(load_settings())
    assert [finding.code for finding in found.findings] == ["engine_unreachable"]


def settings_of(stack: Stack, directory: Path) -> Settings:
    return load_settings(container=stack.container, project=stack.project, dir=directory)


def test_running_container_is_told(scarlet: Stack, tmp_path: Path) -> None:
    found = look(settings_of(scarlet, tmp_path))
    assert (found.healthy, found.agents) == (True, 2)
    assert (found.container, found.container_state) == (scarlet.container, "running")
    assert steps(found) == {"Prerequisiti": True, "Passo 5": True}
    assert {finding.code for finding in found.findings} <= {"no_good_backup", "container_starting"}
    assert scarlet.password not in found.model_dump_json()
    by_labels = look(load_settings(project=scarlet.project, dir=tmp_path))
    assert (by_labels.container, by_labels.agents) == (scarlet.container, 2)


def test_missing_container_is_a_finding(require_docker: None, tmp_path: Path) -> None:
    found = look(load_settings(container="no-such-container-here", dir=tmp_path))
    missing = finding(found, "container_missing")
    assert (found.healthy, found.container, missing.severity) == (False, None, "error")
    assert "docker compose up -d postgres" in missing.remedy
    assert "no-such-container-here" in missing.message


def test_paused_container_is_a_finding(stack: Stack, tmp_path: Path) -> None:
    stack.bring_up()
    run_docker("pause", stack.container)
    try:
        found = look(settings_of(stack, tmp_path))
    finally:
        run_docker("unpause", stack.container)
    assert (found.healthy, found.container_state) == (False, "paused")
    assert "unpause" in finding(found, "container_paused").remedy


def test_stopped_container_is_a_finding_with_the_way_out(stack: Stack, tmp_path: Path) -> None:
    stack.bring_up()
    stack.compose("stop", "--timeout", "2", "postgres")
    try:
        found = look(settings_of(stack, tmp_path))
    finally:
        stack.bring_up()
    stopped = finding(found, "container_not_running")
    assert (found.healthy, found.agents, stopped.severity) == (False, None, "error")
    assert (found.container, found.container_state) == (stack.container, "exited")
    assert "docker compose up -d postgres" in stopped.remedy
    assert stack.container in stopped.message
    assert steps(found) == {"Prerequisiti": False, "Passo 5": False}


def test_wrong_setting_is_an_error_and_no_finding(here: Shelf) -> None:
    with pytest.raises(ConfigurationError):
        look(changed(here, dsn="postgresql://one,two/letta"))
