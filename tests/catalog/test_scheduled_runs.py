"""Runs that a scheduler starts, and what users see of them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, get_args

import pytest

from scarlet_backup_mcp.models.results import Integrity, Listing
from scarlet_backup_mcp.procedures.sandbox import lifecycle
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.schedules import ScheduleReport, System, job_name
from scarlet_backup_mcp.settings import Settings
from scarlet_backup_mcp.store import lock
from scarlet_backup_mcp.store.audit import read
from scarlet_backup_mcp.store.lock import writer_lock
from scarlet_backup_mcp.store.names import REMOVED

from ..conftest import LocalDatabase
from ..helpers.command_line import CommandLine
from ..helpers.faces import (
    agent,
    execute,
    local_backends,
    local_settings,
    locked,
    text_of,
    until,
)
from ..helpers.keeping import NOWHERE, SETTLED, Full, Quick, command_line_of, log_of, nowhere, secret_of, told_in

JOB = "scarlet-backup-daily"


@pytest.mark.parametrize("system", get_args(System))
def test_schedule_prints_a_job_that_backs_up_and_prunes(full: Full, system: str) -> None:
    options = ("--system", system, "--weekly", "--at", "04:05", "--dsn", NOWHERE)
    told = full.command_line.answer(ScheduleReport, 0, "schedule", *options)
    assert (told.system, told.action) == (system, "printed")
    text = "\n".join(file.text for file in told.files)
    for word in ("--scheduled", told.name, "--prune", "--verify=auto", "--keep-last=2", str(full.shelf.directory)):
        assert word in text, word
    assert told.commands


def test_schedule_refuses_a_password_without_showing_it(full: Full) -> None:
    call, secret = full.command_line, secret_of(full.settings)
    for arguments in (("schedule",), ("schedule", "--json"), ("schedule", "--install", "--system", "cron")):
        done = call.run(*arguments)
        assert done.returncode == 2
        assert "password" in done.stderr
        assert secret not in done.stdout + done.stderr
    assert call.run("schedule", "--at", "25:00").returncode == 2
    [entry] = log_of(full.shelf.directory)  # printing changes nothing
    assert (entry.tool, entry.code) == ("schedule", "configuration_invalid")
    assert entry.arguments == {
        "job": job_name(full.settings, "daily"),
        "remove": False,
        "system": "cron",
        "every": "daily",
        "at": "03:30",
        "weekday": None,
        "kind": "sql",
        "compression": None,
        "verify": "auto",
        "prune": True,
    }


@dataclass(frozen=True)
class Scheduled:
    """A job of a scheduler's, whose alarms are kept in a file."""

    settings: Settings
    command_line: CommandLine
    heard: Path

    def run(self, code: int, *arguments: str) -> list[dict[str, Any]]:
        """The alarms of one run with that exit code."""
        done = self.command_line.run("backup", "--scheduled", JOB, "--quiet", *arguments)
        assert done.returncode == code, (done.stdout, done.stderr)
        found = [json.loads(line) for line in self.heard.read_text().splitlines()] if self.heard.exists() else []
        self.heard.unlink(missing_ok=True)
        return found

    def seen(self) -> tuple[Listing, list[str]]:
        """What `list` tells, and the codes of what `integrity` finds."""
        look = Quick(self.settings, self.command_line.directory)
        listing = Listing.model_validate_json(look.run("list", "--json").stdout)
        looked = Integrity.model_validate_json(look.run("integrity", "--json").stdout)
        return listing, [finding.code for finding in looked.findings]


@pytest.fixture
def scheduled(database: LocalDatabase, tmp_path: Path) -> Scheduled:
    return with_alarm(local_settings(database, tmp_path / "backups"), tmp_path)


def with_alarm(settings: Settings, tmp_path: Path) -> Scheduled:
    """What the command of SCARLET_BACKUP_ON_FAILURE finds on its stdin goes to a file."""
    script, heard = tmp_path / "alarm.py", tmp_path / "heard"
    script.write_text("import sys\nwith open(sys.argv[1], 'ab') as file:\n    file.write(sys.stdin.buffer.read())\n")
    command = shlex.join([sys.executable, str(script), str(heard)])
    settings = settings.model_copy(update={"on_failure": command, "keep_last": 1})
    return Scheduled(settings, CommandLine(settings, tmp_path), heard)


def test_very_first_scheduled_run_that_fails_is_seen_everywhere_until_one_succeeds(scheduled: Scheduled) -> None:
    scheduled.command_line.environment["DOCKER_HOST"] = "tcp://127.0.0.1:1"
    for code, arguments in (
        ("engine_unreachable", ("--via", "docker")),
        ("server_unreachable", ("--dsn", nowhere(scheduled.settings))),
    ):
        [told] = scheduled.run(2, *arguments)
        assert (told["schema"], told["tool"], told["outcome"], told["code"]) == (1, "backup", "error", code)
        assert told["directory"] == str(scheduled.settings.dir)
        assert told["message"]
        assert told["remedy"]
        assert secret_of(scheduled.settings) not in json.dumps(told)
        assert scheduled.settings.dir is not None
        assert told_in(log_of(scheduled.settings.dir))[-1:] == [("backup", code)]
    listing, findings = scheduled.seen()
    [failed] = listing.scheduled
    assert (failed.job, failed.code) == (JOB, "server_unreachable")
    assert any("scheduled run" in warning for warning in listing.warnings)
    assert "scheduled_backup_failed" in findings
    assert scheduled.run(0, "--prune") == []
    listing, findings = scheduled.seen()
    assert [(run.job, run.outcome) for run in listing.scheduled] == [(JOB, "ok")]
    assert not any("scheduled run" in warning for warning in listing.warnings)
    assert "scheduled_backup_failed" not in findings


@pytest.mark.long
def test_scheduled_run_with_a_bad_result_sounds_the_alarm(scheduled: Scheduled, database: LocalDatabase) -> None:
    assert scheduled.run(0) == []
    execute(database, "TRUNCATE letta.agents CASCADE")
    time.sleep(SETTLED)
    [told] = scheduled.run(1, "--prune")
    assert (told["outcome"], told["code"]) == ("bad", None)
    assert "shrunk" in told["message"]
    listing, findings = scheduled.seen()
    assert any("has shrunk" in warning for warning in listing.warnings)
    assert "scheduled_backup_failed" in findings
    assert [item.shrunk for item in listing.backups] == [True, False], "the last full one was not pruned"


def test_scheduled_run_whose_pruning_fails_is_a_failed_one(scheduled: Scheduled) -> None:
    assert scheduled.run(0) == []
    directory = scheduled.settings.dir
    assert directory is not None
    [first] = [path.name for path in directory.glob("*.sql")]
    (directory / f".{first}{REMOVED}").mkdir()
    [told] = scheduled.run(1, "--prune")
    assert told["outcome"] == "bad"
    assert first in told["message"]
    listing, findings = scheduled.seen()
    assert (listing.total_backups, [run.outcome for run in listing.scheduled]) == (2, ["bad"])
    assert "scheduled_backup_failed" in findings


def test_scheduled_run_waits_for_another_call(scheduled: Scheduled) -> None:
    assert scheduled.settings.dir is not None
    scheduled.settings.dir.mkdir()
    with ThreadPoolExecutor() as pool:
        with writer_lock(scheduled.settings.dir, "test"):
            run = pool.submit(scheduled.run, 0)
            until(lambda: told_begun(scheduled.settings), 20, "the beginning of the run")
            time.sleep(1)
            assert not run.done()
        assert run.result(60) == []


@pytest.mark.long
def test_scheduled_run_waits_before_its_drill_and_before_its_pruning(
    scheduled: Scheduled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind another job that is caught up at the same time, which drills, and then makes room."""
    monkeypatch.setattr(lifecycle, "SWEEP_SECONDS", 0)
    monkeypatch.setattr(lock, "PAUSE_SECONDS", 0.2)
    there = scheduled.settings.dir
    assert there is not None
    (there / lifecycle.DRILLS).mkdir(parents=True)
    drills = Event()

    def be_in_the_way() -> None:
        with ExitStack() as held:
            with writer_lock(there / lifecycle.DRILLS, "test"):
                drills.set()
                until(lambda: list(there.glob("*.sql")), 20, "a backup")
                lock.patiently(Progress(), lambda: held.enter_context(writer_lock(there, "test")), 20)
                time.sleep(1)
                assert [entry.tool for entry in read(there, 5).entries] == ["backup"]
            until(lambda: read(there, 1).entries[0].tool == "prune_backups", 60, "the beginning of pruning")
            time.sleep(0.5)

    with ThreadPoolExecutor() as pool:
        other = pool.submit(be_in_the_way)
        assert drills.wait(20)
        quick = Scheduled(scheduled.settings, command_line_of(scheduled.settings, tmp_path), scheduled.heard)
        assert quick.run(0, "--verify=drill", "--prune") == []
        other.result(60)
    assert told_in(log_of(there)) == [("prune_backups", "ok"), ("backup", "ok")]


def told_begun(settings: Settings) -> bool:
    assert settings.dir is not None
    return any(entry.outcome == "begun" for entry in read(settings.dir, 5).entries)


@pytest.mark.long
def test_killed_scheduled_run_is_told_until_the_next_good_one(scheduled: Scheduled, database: LocalDatabase) -> None:
    assert scheduled.run(0) == []
    command = [sys.executable, "-m", "scarlet_backup_mcp", "backup", "--scheduled", JOB]
    with locked(database):
        environment = scheduled.command_line.environment
        with subprocess.Popen(command, env=environment, cwd=scheduled.command_line.directory) as process:
            until(lambda: local_backends(database), 20, "a backend of the run's")
            process.kill()
        listing, findings = scheduled.seen()
    assert [(run.job, run.outcome) for run in listing.scheduled] == [(JOB, "begun"), (JOB, "ok")]
    assert any("still running, was killed" in warning for warning in listing.warnings)
    assert "scheduled_backup_unended" in findings
    assert scheduled.run(0) == []
    listing, findings = scheduled.seen()
    assert [run.outcome for run in listing.scheduled] == ["ok"]
    assert not [code for code in findings if code.startswith("scheduled_backup")]


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "wrong",
    [("--keep-last", "0"), ("--database", "another_than_the_dsn_names"), ("--dir", "relative")],
    ids=lambda words: words[0],
)
def test_scheduled_run_with_wrong_settings_sounds_the_alarm(full: Full, tmp_path: Path, wrong: tuple[str, str]) -> None:
    scheduled = with_alarm(full.settings, tmp_path)
    [told] = scheduled.run(2, *wrong)
    assert (told["outcome"], told["code"]) == ("error", "configuration_invalid")
    assert secret_of(scheduled.settings) not in json.dumps(told)


@pytest.mark.parametrize(
    "wrong", [("--kindd=sql",), ("--verify=deep",), ("one", "more"), ("--keep-last",)], ids=lambda words: words[0]
)
def test_scheduled_run_with_a_wrong_command_line_sounds_the_alarm(
    full: Full, tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    record = with_alarm(full.settings, tmp_path)
    command = f"--on-failure={record.settings.on_failure}"
    assert command_line_of(full.settings, tmp_path).run("backup", *wrong, command).returncode == 2
    scheduled = Scheduled(full.settings, command_line_of(full.settings, tmp_path), record.heard)
    [told] = scheduled.run(2, command, *wrong) if wrong == ("--keep-last",) else scheduled.run(2, *wrong, command)
    assert (told["outcome"], told["code"]) == ("error", "configuration_invalid")
    assert JOB in told["message"]
    assert wrong[0].partition("=")[0] in told["message"]


def test_failed_job_is_told_until_it_is_taken_out_by_its_name(
    full: Full, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    scheduled = Scheduled(full.settings, command_line_of(full.settings, tmp_path), tmp_path / "heard")
    scheduled.run(2, "--dsn", nowhere(full.settings))
    [finding] = [warning for warning in scheduled.seen()[0].warnings if "failed: " in warning]
    out = ("schedule", "--remove", "--job", JOB)
    assert " ".join(out) in finding
    command_line = scheduled.command_line
    assert command_line.answer(ScheduleReport, 0, *out, "--system", "systemd").action == "nothing to remove"
    listing, findings = scheduled.seen()
    assert listing.scheduled == []
    assert not [code for code in findings if code.startswith("scheduled_backup")]
    assert command_line.run("schedule", "--remove", "--job", "cron").returncode == 2
    assert command_line.run("schedule", "--install", "--job", JOB).returncode == 2
    assert command_line.run("schedule", "--install", "--remove").returncode == 2
    assert command_line.run("schedule", "--daily", "--weekday", "monday").returncode == 2


async def test_failed_scheduled_run_is_told_to_an_agent(scheduled: Scheduled) -> None:
    scheduled.run(2, "--dsn", NOWHERE)
    async with agent(scheduled.settings, "2026-07-28") as it:
        listing = await it.call("list_backups", log=1)
        assert listing["scheduled"][0]["code"] == listing["log"][0]["code"] == "server_unreachable"
        looked = await it.client.call_tool("db_integrity", {})
        assert "scheduled run" in text_of(looked)
