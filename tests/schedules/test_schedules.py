"""Scheduled jobs: what they run, how each scheduler is told, and what registering them leaves alone."""

from __future__ import annotations

import os
import sysconfig
from datetime import time
from pathlib import Path

import pytest

from scarlet_backup_mcp import schedules
from scarlet_backup_mcp.errors import ConfigurationError
from scarlet_backup_mcp.models.common import Kind
from scarlet_backup_mcp.schedules import Every, ScheduleFailed
from scarlet_backup_mcp.schedules.job import (
    interpreter,
    job_for,
    job_name,
    require_job_name,
    require_runnable,
    settings_in_force,
)
from scarlet_backup_mcp.settings import load_settings

from ..conftest import NO_DRILLS, PROJECT_ROOT
from ..helpers.schedules import POSIX, empty_python, install_into, job

PASSWORD = "Tr0ub4dor3"


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_DRILLS:
        monkeypatch.delenv(name)


def test_defaults_need_no_options(nothing_set: None) -> None:
    made = job_for(load_settings(), "daily", "03:05", environment={})
    words = ("-P", "-m", "scarlet_backup_mcp", "backup", "--scheduled", made.name, "--quiet", "--kind=sql")
    assert made.argv == (interpreter(), *words)
    assert Path(made.argv[0]).is_absolute()
    assert (made.name, made.at, made.weekday, made.environment) == ("scarlet-backup-daily", time(3, 5), None, {})


def test_options_lead_to_the_same_settings_again(nothing_set: None, tmp_path: Path) -> None:
    chosen = load_settings(
        via="local",
        dsn="postgresql://scarlet@127.0.0.1/letta?sslmode=prefer",
        dir=str(tmp_path / "a b'è"),
        database="--drop",
        integrity_table="a=b",
    )
    words = settings_in_force(chosen)
    assert len(words) == 5
    options = dict(word.removeprefix("--").split("=", 1) for word in words)
    assert load_settings(**{name.replace("-", "_"): value for name, value in options.items()}) == chosen


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://postgres:{PASSWORD}@127.0.0.1/letta",
        f"host=db password={PASSWORD}",
        f"postgresql://db/letta?password={PASSWORD}",
    ],
)
def test_password_is_refused_and_not_shown(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="PGPASSFILE") as refused:
        schedules.schedule(load_settings(via="local", dsn=dsn), "daily", "03:00", system="cron")
    assert PASSWORD not in str(refused.value)


def test_a_password_of_its_own_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_BACKUP_PASSWORD", PASSWORD)
    with pytest.raises(ConfigurationError, match=r"PASSWORD holds a password.*PGPASSFILE") as refused:
        schedules.schedule(load_settings(), "daily", "03:00", system="cron")
    assert PASSWORD not in str(refused.value)
    monkeypatch.delenv("SCARLET_BACKUP_PASSWORD")
    carried = job_for(load_settings(), "daily", "03:00", environment={"PGPASSFILE": "/home/me/passwords"})
    assert carried.environment == {"PGPASSFILE": "/home/me/passwords"}


@pytest.mark.parametrize("address", [f"ssh://me:{PASSWORD}@host", f"tcp://u:p/{PASSWORD}@h:2375"])
def test_password_of_an_engine_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(ConfigurationError, match="DOCKER_HOST") as refused:
        job_for(load_settings(), "daily", "03:00", environment={"DOCKER_HOST": address})
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("at", ["3:00", "24:00", "03:60", "03:00:00", "", "three", "０３:00"])
def test_no_time_of_day_is_refused(at: str) -> None:
    with pytest.raises(ConfigurationError, match="HH:MM"):
        job_for(load_settings(), "daily", at)


@pytest.mark.parametrize("directory", ["/x\ny", "/x\x1by", "/x\udcff"])
@POSIX
def test_what_no_scheduler_takes_is_refused(directory: str) -> None:
    with pytest.raises(ConfigurationError, match=r"control character|not UTF-8"):
        job_for(load_settings(dir=directory), "daily", "03:00")


def test_jobs_of_different_databases_directories_kinds_and_periods_have_different_names(tmp_path: Path) -> None:
    others: list[dict[str, str]] = [{"container": "other"}, {"database": "other"}, {"dir": str(tmp_path)}]
    chosen = [load_settings(**other) for other in ({}, *others)]
    periods: tuple[Every, ...] = ("daily", "weekly")
    kinds: tuple[Kind, ...] = ("sql", "volume")
    names = [job_name(settings, every, kind) for settings in chosen for every in periods for kind in kinds]
    assert len(set(names)) == 16
    for name in names:
        require_job_name(name)
    assert job_name(load_settings(prefix="x"), "daily") == job_name(load_settings(), "daily")


@pytest.mark.parametrize(
    "name", ["", "backup", "scarlet-backup-daily ", "scarlet-backup-daily\n", "x/scarlet-backup-daily"]
)
def test_no_other_job_is_taken_out(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not the name of a job"):
        schedules.unschedule(name, system="cron")


def test_what_leads_to_the_engine_or_to_programs_goes_along() -> None:
    there = {"DOCKER_HOST": "unix:///x", "DOCKER_CONTEXT": "", "PATH": "/bin", "SECRET": "s"}
    assert job_for(load_settings(), "daily", "03:00", environment=there).environment == {"DOCKER_HOST": "unix:///x"}
    local = load_settings(via="local", dsn="postgresql://127.0.0.1/x")
    assert job_for(local, "daily", "03:00", environment=there).environment == {"PATH": "/bin"}


@POSIX
def test_interpreter_that_does_not_find_the_package_by_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = empty_python(tmp_path / "v")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT_ROOT), sysconfig.get_path("purelib")]))
    monkeypatch.chdir(PROJECT_ROOT)
    with pytest.raises(ConfigurationError, match="does not find"):
        require_runnable(job(argv=(str(python),)))
    install_into(python)
    require_runnable(job(argv=(str(python),)))


def test_interpreter_in_a_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cache"):
        require_runnable(job(argv=(str(tmp_path / ".cache" / "uv" / "python"),)))


def test_nothing_is_registered_for_a_system_that_is_not_here() -> None:
    there = "windows" if os.name != "nt" else "launchd"
    with pytest.raises(ScheduleFailed, match="no "):
        schedules.schedule(load_settings(), "daily", "03:00", system=there, install=True)


@pytest.mark.parametrize("system", ["windows", "systemd", "launchd", "cron"])
def test_every_system_is_printed_anywhere(system: schedules.System) -> None:
    told = schedules.schedule(load_settings(), "weekly", "03:00", system=system, options=["--verify", "drill"])
    assert told.action == "printed"
    assert any("drill" in file.text for file in told.files)
    assert any("missed" in note or "catch up" in note for note in told.notes)
    assert told.commands
    assert "drill" in "\n".join(schedules.lines(told))
