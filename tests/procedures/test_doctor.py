"""`doctor`: whatever is wrong on this machine is a line with what to do, and nothing is changed but what `fix` may."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.clients.known import KEYS
from scarlet_backup_mcp.models.audit import AuditEntry, Client
from scarlet_backup_mcp.models.setup import SetupCheck, SetupReport
from scarlet_backup_mcp.procedures import doctor as procedure
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.doctor import doctor
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.schedules import job_name
from scarlet_backup_mcp.settings import Settings, load_settings
from scarlet_backup_mcp.store import audit

from ..conftest import Stack
from ..helpers.store import Made, Shelf


@pytest.fixture
def here(made: Made, tmp_path: Path) -> Shelf:
    """A directory of the test's own with one backup."""
    return made.shelf.copy(tmp_path / "backups", made.plain)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the jobs that the machine's scheduler has; each scheduler's own answer has tests of its own."""
    names: list[str] = []
    monkeypatch.setattr(procedure, "registered", names.__contains__)
    return names


@pytest.fixture
def look(
    registered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, list[SetupCheck]]]:
    """Look with these settings, in an empty home directory; the checks by their names."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))

    def at(settings: Settings, *, fix: bool = False) -> dict[str, list[SetupCheck]]:
        with BackupContext(settings) as context:
            report = doctor(context, Progress(), home / "project", fix=fix, environment={"PATH": "/usr/bin:/bin"})
        assert report == SetupReport.model_validate_json(report.model_dump_json())
        assert report.good == all(check.status != "fail" for check in report.checks)
        found: dict[str, list[SetupCheck]] = {}
        for check in report.checks:
            assert check.remedy or check.status == "ok", check
            found.setdefault(check.check, []).append(check)
        return found

    return at


Look = Callable[..., dict[str, list[SetupCheck]]]


def changed(here: Shelf, **values: object) -> Settings:
    given = {"via": "local", "dir": here.directory, "bin_dir": here.settings.bin_dir, "dsn": here.settings.dsn}
    return load_settings(**{**given, **values})


def states(checks: list[SetupCheck]) -> list[str]:
    return [check.status for check in checks]


# The database


def test_all_is_well(here: Shelf, look: Look) -> None:
    found = look(here.settings)
    for name in ("docker", "database", "clock", "directory", "space"):
        assert states(found[name]) == ["ok"], found[name]
    assert "agents: 2" in found["database"][0].message


def test_a_server_that_is_down(here: Shelf, look: Look) -> None:
    found = look(changed(here, dsn="postgresql://postgres@127.0.0.1:1/letta"))
    assert states(found["database"]) == ["fail"]
    assert "clock" not in found


def test_a_missing_database(embedded: EmbeddedServer, here: Shelf, look: Look) -> None:
    (missing,) = look(changed(here, dsn=embedded.dsn("no_such_database")))["database"]
    assert missing.status == "fail"
    assert "no database 'no_such_database'" in missing.message


def test_a_missing_table(here: Shelf, look: Look) -> None:
    (missing,) = look(changed(here, integrity_table="nothing"))["database"]
    assert (missing.status, "has no table nothing" in missing.message) == ("fail", True)


@pytest.mark.parametrize(
    ("ahead", "status"), [(0.0, "ok"), (-4.9, "ok"), (6.0, "warn"), (-59.0, "warn"), (61.0, "fail"), (-9e4, "fail")]
)
def test_clocks(here: Shelf, look: Look, monkeypatch: pytest.MonkeyPatch, ahead: float, status: str) -> None:
    """No test may set a machine's clock: this process reads another one."""
    now = procedure.time.time

    class Shifted:
        @staticmethod
        def time() -> float:
            return now() - ahead

    monkeypatch.setattr(procedure, "time", Shifted)
    (clock,) = look(here.settings)["clock"]
    assert clock.status == status
    if status != "ok":
        assert ("ahead of" if ahead > 0 else "behind") in clock.message


# Docker


def test_an_engine_that_is_down_is_one_failure(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = look(load_settings())
    assert (states(found["docker"]), states(found["container"]), states(found["directory"])) == (
        ["fail"],
        ["warn"],
        ["warn"],
    )
    assert "no such socket" in found["docker"][0].message


def test_a_running_container(scarlet: Stack, look: Look) -> None:
    found = look(load_settings(container=scarlet.container, project=scarlet.project))
    for name in ("docker", "container", "database", "clock", "space"):
        assert states(found[name]) == ["ok"], found[name]
    assert str(scarlet.directory / "backups") in found["directory"][0].message


def test_a_missing_container(require_docker: None, look: Look, tmp_path: Path) -> None:
    found = look(load_settings(container="no-such-container", dir=tmp_path))
    assert (states(found["docker"]), states(found["container"])) == (["ok"], ["fail"])
    assert "database" not in found


# The directory


def test_a_directory_is_made_by_fix_only(here: Shelf, look: Look, tmp_path: Path) -> None:
    settings = changed(here, dir=tmp_path / "a" / "b")
    assert states(look(settings)["directory"]) == ["warn"]
    assert not (tmp_path / "a").exists()
    (made,) = look(settings, fix=True)["directory"]
    assert (made.status, made.fixed) == ("ok", True)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_directory_is_closed_to_others_by_fix_only(here: Shelf, look: Look) -> None:
    here.directory.chmod(0o755)
    assert states(look(here.settings)["directory"]) == ["ok", "warn"]
    (closed,) = look(here.settings, fix=True)["directory"]
    assert (closed.status, closed.fixed) == ("ok", True)
    assert here.directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o1777, 0o2775])
def test_a_directory_that_others_share_is_not_closed(here: Shelf, look: Look, mode: int) -> None:
    here.directory.chmod(mode)
    assert states(look(here.settings, fix=True)["directory"]) == ["ok", "warn"]
    assert here.directory.stat().st_mode & 0o7777 == mode


def test_the_home_directory_is_not_closed(here: Shelf, look: Look, tmp_path: Path) -> None:
    (tmp_path / "home").chmod(0o755)
    look(changed(here, dir=tmp_path / "home"), fix=True)
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("fix", [False, True])
def test_a_file_is_no_directory(here: Shelf, look: Look, tmp_path: Path, fix: bool) -> None:
    (tmp_path / "file").write_text("x")
    assert states(look(changed(here, dir=tmp_path / "file"), fix=fix)["directory"]) == ["fail"]
    assert states(look(changed(here, dir=tmp_path / "file" / "backups"), fix=fix)["directory"]) == ["fail"]


@pytest.mark.parametrize(("free", "status"), [(10**6, "fail"), (16 * 10**6, "warn"), (10**9, "ok")])
def test_space(here: Shelf, look: Look, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    """The database has some 8 MB; nobody fills a disk for this."""

    def bytes_of(_: Path) -> int:
        return free

    monkeypatch.setattr(procedure, "free_bytes_of", bytes_of)
    assert states(look(here.settings)["space"]) == [status]


def test_the_same_disk_is_a_warning(here: Shelf, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded server and the directory are both on the disk for temporary files."""
    assert states(look(here.settings)["disk"]) == ["warn"]

    def other(path: Path) -> int:
        return len(str(path))

    monkeypatch.setattr(procedure, "_device", other)
    assert "disk" not in look(here.settings)


# The schedule


def run_of(settings: Settings, outcome: str, days: float) -> AuditEntry:
    return AuditEntry.model_validate(
        {
            "call": "1",
            "time": datetime.now(UTC) - timedelta(days=days),
            "tool": "backup",
            "arguments": {"scheduled": job_name(settings, "daily")},
            "client": Client(name="schedule"),
            "outcome": outcome,
            "code": "disk_full" if outcome == "error" else None,
            "message": "It did." if outcome == "ok" else "There is no space left.",
            "duration_seconds": 1.0,
        }
    )


@pytest.mark.parametrize(
    ("outcome", "days", "status"),
    [("ok", 0.5, "ok"), ("ok", 3, "fail"), ("error", 0.5, "fail"), ("begun", 0, "warn"), (None, 0, "warn")],
)
def test_the_last_run_of_a_schedule(
    here: Shelf, look: Look, registered: list[str], outcome: str | None, days: float, status: str
) -> None:
    registered.append(job_name(here.settings, "daily"))
    if outcome is not None:
        audit.append(here.directory, run_of(here.settings, outcome, days))
    assert states(look(here.settings)["schedule"]) == [status]


def test_no_schedule_is_a_warning(here: Shelf, look: Look) -> None:
    (none,) = look(here.settings)["schedule"]
    assert (none.status, "schedule --install" in none.remedy) == ("warn", True)


# Clients


def test_clients(here: Shelf, look: Look, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert "--client" in look(here.settings)["clients"][0].remedy
    (home / ".cursor").mkdir()
    (home / ".gemini").mkdir()
    (unconfigured,) = look(here.settings)["clients"]
    assert (unconfigured.status, unconfigured.message) == ("warn", "Not configured in: Cursor, Gemini CLI.")
    mine = {"mcpServers": {"x": {"command": "sh", "args": ["-c", "scarlet-backup-mcp"]}}}
    (home / ".cursor" / "mcp.json").write_text(json.dumps(mine))
    (home / ".gemini" / "settings.json").write_text("{")
    assert states(look(here.settings)["clients"]) == ["ok", "warn"]
    mine["mcpServers"]["x"] = {"command": "/gone/scarlet-backup-mcp", "args": []}
    (home / ".claude.json").write_text(json.dumps({"projects": {str(home / "project"): mine}}))
    found = look(here.settings)["clients"]
    assert states(found) == ["fail", "ok", "warn"]
    assert found[0].message.startswith("Claude Code: x in ")


def test_every_client_has_a_key() -> None:
    assert [client.key for client in procedure.clients(Path("/p"), {}, Path("/h"))] == list(KEYS)
