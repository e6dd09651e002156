"""Restore drills in a container of their own."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import (
    PreflightFailed,
)
from scarlet_backup_mcp.hosts.docker.engine import find_endpoint
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

from ..conftest import IMAGE, MEMORY, Stack
from ..helpers.containers import run_docker
from ..helpers.drill import (
    AGENTS,
    REWRITTEN,
    VECTORS,
    Databases,
    SandboxServers,
    Wire,
    bring_back,
    drill,
    left,
    listed,
    take,
)
from ..helpers.restore import Watch


@pytest.mark.long
def test_in_a_container_scarlets_memory_is_proved_while_hers_runs_and_while_it_does_not(
    scarlet: Stack, fresh: SandboxServers, tmp_path: Path
) -> None:
    name = f"drill_{secrets.token_hex(4)}"
    settings = load_settings(dir=tmp_path, container=scarlet.container, project=scarlet.project, database=name)
    options = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'it-IT'"
    scarlet.psql(f"CREATE DATABASE {name} {options}", "postgres")
    stopped = f"drill-test-{secrets.token_hex(4)}"
    try:
        scarlet.psql(MEMORY.read_text(encoding="utf-8"), name)
        scarlet.psql(f"CREATE SCHEMA more; SET search_path TO more, letta; {REWRITTEN} {VECTORS}", name)
        taken = take(settings, verify="drill")
        assert taken.drill is not None
        assert (taken.proved, taken.drill.detail, taken.drill.warnings) == (True, "", [])
        assert taken.drill.where.startswith(f"a sandbox container of {IMAGE} (sha256:")
        assert taken.drill.rows_compared == taken.rows
        assert taken.drill.rows_compared > 500
        assert {"TABLE more.moods", "VIEW more.sad"} <= {item.what for item in taken.drill.normalised}
        assert left(settings) == []

        run_docker("create", "--name", stopped, "--label", "scarlet-backup-mcp.test=1", "--network", "none", IMAGE)
        beside = load_settings(dir=tmp_path, container=stopped, database=name)
        statement = "UPDATE letta.agents SET name = 'Somebody' WHERE id = (SELECT min(id) FROM letta.agents)"
        found = drill(beside, taken.name, fresh.tampering(statement))
        assert found.drill is not None
        assert (found.proved, found.drill.differences[0].what) == (False, "rows of letta.agents")
        assert (
            [warning for warning in found.drill.warnings if "is not running" in warning] == found.drill.warnings != []
        )
    finally:
        run_docker("rm", "-fv", stopped)
        scarlet.psql(f"DROP DATABASE {name} WITH (FORCE)", "postgres")


@pytest.mark.long
def test_a_throw_away_container_that_goes_away_says_nothing_of_the_backup(scarlet: Stack, tmp_path: Path) -> None:
    settings = load_settings(dir=tmp_path, container=scarlet.container, project=scarlet.project)
    gone: list[str] = []

    def remove(_: Progress) -> None:
        gone.extend(left(settings))
        run_docker("rm", "-fv", gone[0])

    taken = take(settings, Watch("restoring", remove, 100_000), verify="drill")
    assert (taken.proved, taken.safe_to_proceed, taken.drill) == (None, False, None)
    assert "The drill that was asked for could not be done: " in taken.reasons[-1]
    assert len(gone) == 2
    assert left(settings) == []
    item = listed(settings, taken.name)
    assert (item.state, item.proved_at) == ("good", None)


@pytest.mark.long
def test_an_engine_that_goes_away_says_nothing_of_the_backup_and_what_it_kept_is_removed_later(
    scarlet: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(dir=tmp_path / "backups", container=scarlet.container, project=scarlet.project)
    wire = Wire(tmp_path / "engine.sock", find_endpoint(os.environ).address)
    with monkeypatch.context() as through_the_wire:
        through_the_wire.setenv("DOCKER_HOST", wire.address)
        taken = take(settings, Watch("restoring", lambda _: wire.cut(), 100_000), verify="drill")
    assert (taken.proved, taken.safe_to_proceed, taken.drill) == (None, False, None)
    assert "The drill that was asked for could not be done: " in taken.reasons[-1]
    assert listed(settings, taken.name).state == "good"
    name = left(settings)[0]
    assert left(settings) == [name, name]
    assert take(settings).warnings == [f"{name}, left by a drill that was killed, is removed."]
    assert left(settings) == []


@pytest.mark.long
def test_another_version_is_told_apart_from_damage(scarlet: Stack, databases: Databases, tmp_path: Path) -> None:
    docker = load_settings(dir=tmp_path, container=scarlet.container, project=scarlet.project)
    older = take(docker).name
    newer_settings = databases.make(AGENTS, dir=tmp_path)
    newer = take(newer_settings).name

    found = drill(docker, newer)
    assert found.drill is not None
    assert (found.valid, found.proved, found.drill.proved) == (True, None, None)
    assert "pg_dump 18" in found.drill.detail
    assert "PostgreSQL 15" in found.drill.detail
    assert "This does not mean that the file is damaged" in found.drill.detail
    assert listed(newer_settings, newer).state == "good"

    foreign = tmp_path / "newer.sql"
    shutil.copy(tmp_path / newer, foreign)
    with pytest.raises(PreflightFailed, match="This does not mean that the file is damaged"):
        bring_back(docker, foreign.name, accept_foreign=True, accept_smaller=True)
    assert listed(docker, foreign.name).state == "foreign"

    found = drill(newer_settings, older)
    assert found.drill is not None
    assert (found.valid, found.drill.proved is not False, found.drill.differences) == (True, True, [])
    assert listed(docker, older).state == "good"
