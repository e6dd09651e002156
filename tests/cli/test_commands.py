"""The command line as a subprocess: exit codes, data, plain lines, and a real terminal."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from scarlet_backup_mcp.cli.commands import main
from scarlet_backup_mcp.models.results import Backup, ErrorReport, Integrity, Kept, Listing, Restore
from scarlet_backup_mcp.models.verification import Verification
from scarlet_backup_mcp.settings import PREFIX, SECRET, SERVING, Settings, load_settings

from ..conftest import LocalDatabase
from ..helpers.command_line import AGENTS, ROWS, CommandLine, directory_of, posix_only
from ..helpers.faces import (
    execute,
    live_oid,
    local_backends,
    locked,
    undo_points,
    unfinished,
    until,
)

COMMANDS = ["serve", "backup", "verify", "list", "restore", "prune", "keep", "gate", "schedule", "integrity"]


@pytest.fixture
def no_engine(tmp_path: Path) -> CommandLine:
    """Docker is meant, and does not answer."""
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    command_line = CommandLine(load_settings(), work)
    command_line.environment["DOCKER_HOST"] = "tcp://127.0.0.1:1"
    return command_line


# -- exit codes and data ---------------------------------------------------------------------------------------------


def test_whole_job_with_exit_codes_and_data(
    local_database: LocalDatabase, local: Settings, command_line: CommandLine
) -> None:
    made = command_line.answer(Backup, 0, "backup", "--label", "è il primo 🧠")
    assert (made.safe_to_proceed, made.rows, made.label) == (True, ROWS, "è il primo 🧠")
    assert command_line.answer(Verification, 0, "verify").name == made.name
    assert command_line.answer(Verification, 0, "verify", made.name, "--level", "quick").valid
    assert command_line.answer(Integrity, 0, "integrity").agents == AGENTS

    execute(local_database, "TRUNCATE letta.agents CASCADE")
    lost = command_line.answer(Integrity, 1, "integrity")
    assert (lost.healthy, lost.agents) == (False, 0)
    shrunk = command_line.answer(Backup, 1, "backup", "--compression", "zstd")
    assert (shrunk.safe_to_proceed, shrunk.shrunk, shrunk.compression) == (False, True, "zstd")

    assert command_line.answer(Restore, 0, "restore", made.name, "--dry-run").restored is False
    restored = command_line.answer(Restore, 0, "restore", made.name, "--yes")
    assert (restored.restored, restored.integrity_rows) == (True, AGENTS)
    assert undo_points(local_database) == [restored.undo_point]
    listing = command_line.answer(Listing, 0, "list", "--limit", "1")
    assert (listing.total_backups, [item.name for item in listing.backups]) == (2, [shrunk.name])

    with Path(made.path).open("ab") as file:
        file.write(b"-- one line more\n")
    damaged = command_line.answer(Verification, 1, "verify", made.name)
    assert damaged.valid is False
    assert list(command_line.directory.iterdir()) == []


IMPOSSIBLE = [
    (("verify", "there_is_none.sql"), "backup_missing"),
    (("verify", "../x.sql"), "name_refused"),
    (("verify",), "backup_missing"),
    (("restore", "there_is_none.sql", "--yes"), "backup_missing"),
    (("backup", "--label", "x" * 81), "configuration_invalid"),
    (("backup", "--container", "a b"), "configuration_invalid"),
    (("backup", "--via", "docker"), "engine_unreachable"),
]


@pytest.mark.parametrize(("arguments", "code"), IMPOSSIBLE, ids=[" ".join(words)[:40] for words, _ in IMPOSSIBLE])
def test_what_can_not_be_done_is_code_2_with_what_to_do(
    command_line: CommandLine, arguments: Sequence[str], code: str
) -> None:
    done = command_line.run(*arguments, "--json", DOCKER_HOST="tcp://127.0.0.1:1")
    assert done.returncode == 2, done.stderr
    error = ErrorReport.model_validate_json(done.stdout)
    assert error.code == code
    for said in (error.message, error.remedy, error.code):
        assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_error_without_json_is_on_stderr_only(command_line: CommandLine) -> None:
    done = command_line.run("verify", "there_is_none.sql")
    assert (done.returncode, done.stdout) == (2, "")
    assert "(backup_missing)" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("bakup",),
        ("backup", "--labl", "x"),
        ("backup", "--compression", "rar"),
        ("backup", "--via", "podman"),
        ("verify", "--level", "deep"),
        ("list", "--limit", "0"),
        ("list", "--limit", "1001"),
        ("restore",),
    ],
    ids=" ".join,
)
def test_wrong_command_line_is_code_2(no_engine: CommandLine, arguments: Sequence[str]) -> None:
    done = no_engine.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_backup_is_code_130_and_leaves_nothing(
    local_database: LocalDatabase, local: Settings, command_line: CommandLine, number: int
) -> None:
    with locked(local_database):
        process = subprocess.Popen(
            [sys.executable, "-m", "scarlet_backup_mcp", "backup", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=command_line.environment,
            cwd=command_line.directory,
        )
        try:
            until(lambda: local_backends(local_database), 20, "a backend of ours")
            process.send_signal(number)
            out, said = process.communicate(timeout=15)
        finally:
            process.kill()
        assert process.returncode == 130, said
        assert unfinished(directory_of(local)) == []
        until(lambda: not local_backends(local_database), 20, "no backend of ours")
    assert ErrorReport.model_validate_json(out).code == "cancelled"
    assert b"Traceback" not in said
    assert list(directory_of(local).glob("*.sql*")) == []


# -- settings --------------------------------------------------------------------------------------------------------

UNUSABLE = {
    "dir": "relative/directory",
    "via": "podman",
    "container": "a b",
    "service": "a b",
    "project": "a b",
    "database": "template1",
    "user": "u" * 64,
    "port": "0",
    "socket": "a,b",
    "dsn": "postgresql://nobody@127.0.0.1:1/nothing",
    "bin_dir": "relative/bin",
    "prefix": "../x",
    "integrity_table": "a\nb",
    "stores": "a b",
    "scope": "everything",
    "pause": "briefly",
    "on_failure": "/no/such-program",
    "gate_minutes": "0",
    "ask": "loudly",
    "lang": "latin",
    "gate_level": "quick",
    "drill_bytes": "-1",
    "drill_days": "-1",
    "sandbox_cache": "perhaps",
    "keep_last": "0",
    "keep_daily": "-1",
    "keep_weekly": "many",
    "keep_monthly": "10001",
}
SHARED = [name for name in Settings.model_fields if name not in (*SERVING, *SECRET)]
NEVER_REFUSED = {"dsn", "on_failure"}
"""Whatever text they are, they are tried out only."""


def test_every_setting_is_an_option_that_overrides_the_environment(
    local_database: LocalDatabase, local: Settings, command_line: CommandLine
) -> None:
    """What the environment says can't be used, so each option has to count."""
    assert sorted(UNUSABLE) == sorted(SHARED)
    command_line.environment |= {PREFIX + name.upper(): value for name, value in UNUSABLE.items()}
    refused = command_line.run("backup")
    assert refused.returncode == 2
    assert all(PREFIX + name.upper() in refused.stderr for name in UNUSABLE if name not in NEVER_REFUSED)

    options = {
        "dir": str(local.dir),
        "via": "local",
        "container": "some-container",
        "service": "some-service",
        "project": "some-project",
        "database": local_database.name,
        "user": "postgres",
        "port": str(local_database.server.port),
        "socket": "127.0.0.1",
        "dsn": local_database.dsn,
        "bin_dir": str(local.bin_dir),
        "prefix": "another_name",
        "integrity_table": "messages",
        "stores": "some-store:/data,-another",
        "scope": "database",
        "pause": "false",
        "on_failure": "true",
        "ask": "conversation",
        "lang": "it",
        "gate_minutes": "5",
        "gate_level": "unproved",
        "drill_bytes": "1",
        "drill_days": "1",
        "sandbox_cache": "false",
        "keep_last": "1",
        "keep_daily": "2",
        "keep_weekly": "3",
        "keep_monthly": "4",
    }
    given = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    made = command_line.answer(Backup, 0, "backup", "--prune", *given)
    assert made.name.startswith("another_name_")
    assert made.pruned is not None
    assert "the last 1, one per day for 2 days, per week for 3 weeks, per month for 4 months" in made.pruned.policy
    assert made.integrity_rows == 300
    assert made.path == str(directory_of(local) / made.name)


def test_wrong_dsn_is_not_shown(command_line: CommandLine) -> None:
    secret = "a-very-secret-password"
    for dsn in (f"mysql://postgres:{secret}@127.0.0.1:1/letta", f"host=127.0.0.1 password={secret} port=x"):
        done = command_line.run("integrity", "--dsn", dsn)
        assert done.returncode in (1, 2)
        assert secret not in done.stdout + done.stderr


# -- help ------------------------------------------------------------------------------------------------------------


def test_help_tells_commands(no_engine: CommandLine) -> None:
    top = no_engine.run("--help")
    assert top.returncode == 0
    for command in [*COMMANDS, "demo"]:
        assert re.search(rf"^  {command} +\S", top.stdout, re.MULTILINE), command
    version = no_engine.run("--version")
    assert re.fullmatch(r"scarlet-backup-mcp, version \d+\.\d+\S*\n", version.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_its_own_options_and_where_the_settings_are(command: str) -> None:
    shown = CliRunner().invoke(main, [command, "-h"], prog_name="scarlet-backup-mcp").output
    assert re.search(r"\nSettings:\n  --dir, --container and \d+ more: see `scarlet-backup-mcp settings`\.\n$", shown)
    for name in SHARED:
        assert PREFIX + name.upper() not in shown
    assert [f"--{name.replace('_', '-')}" in shown for name in SERVING] == [command == "serve"] * len(SERVING)


def test_settings_are_listed_with_their_types(no_engine: CommandLine) -> None:
    shown = no_engine.run("settings").stdout
    for name in SHARED:
        assert f"--{name.replace('_', '-')} " in shown, name
        assert PREFIX + name.upper() in shown, name
    for typed in ("--dir PATH", "--gate-minutes INTEGER", "--sandbox-cache BOOLEAN", "--via [docker|local]"):
        assert typed in shown


CONTRADICTIONS = [
    ("schedule", "--daily", "--weekly"),
    ("schedule", "--prune", "--no-prune"),
    ("schedule", "--install", "--remove"),
    ("schedule", "--daily", "--weekday", "monday"),
    ("schedule", "--remove", "--job", "x", "--weekly"),
    ("schedule", "--remove", "--job", "x", "--kind", "sql"),
    ("schedule", "--kind", "sql", "--compression", "gzip"),
    ("schedule", "--kind", "volume", "--compression", "none"),
    ("restore", "x.sql", "--leave-dependents", "--stop-dependents"),
]


@pytest.mark.parametrize("arguments", CONTRADICTIONS, ids=" ".join)
def test_contradictory_options_are_refused(arguments: Sequence[str]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "can't" in done.output or "requires" in done.output or "leave out" in done.output


@pytest.mark.parametrize("arguments", [(), ("serve",)], ids=["without a command", "serve"])
def test_it_serves_by_default(no_engine: CommandLine, arguments: Sequence[str]) -> None:
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "0"}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}
    done = subprocess.run(
        [sys.executable, "-m", "scarlet_backup_mcp", *arguments],
        input=json.dumps(request) + "\n",
        capture_output=True,
        encoding="utf-8",
        env=no_engine.environment,
        cwd=no_engine.directory,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["result"]["serverInfo"]["name"] == "scarlet-backup-mcp"


# -- without an engine -----------------------------------------------------------------------------------------------


def test_list_and_verify_work_without_an_engine(
    local: Settings, command_line: CommandLine, no_engine: CommandLine
) -> None:
    """With Docker meant, this backup is of another database; it can be looked at all the same."""
    made = command_line.answer(Backup, 0, "backup")
    listing = no_engine.answer(Listing, 0, "list", "--dir", str(local.dir))
    assert [(item.name, item.state) for item in listing.backups] == [(made.name, "good")]
    assert listing.undo_points is None
    assert any("ndo points" in warning for warning in listing.warnings)
    assert no_engine.answer(Verification, 0, "verify", made.name, "--dir", str(local.dir)).valid
    looked = no_engine.answer(Integrity, 1, "integrity", "--dir", str(local.dir))
    assert "engine_unreachable" in [finding.code for finding in looked.findings]


def test_list_without_a_directory_warns_and_makes_none(no_engine: CommandLine, tmp_path: Path) -> None:
    nowhere = tmp_path / "not yet" / "backups"
    listing = no_engine.answer(Listing, 0, "list", "--dir", str(nowhere))
    assert (listing.backups, listing.total_backups, listing.newest_good_age_seconds) == ([], 0, None)
    assert any("does not exist" in warning for warning in listing.warnings)
    plain = no_engine.run("list", "--dir", str(nowhere))
    assert "does not exist" in plain.stdout
    assert not nowhere.parent.exists()


def test_without_an_engine_nobody_knows_where_backups_lie(no_engine: CommandLine) -> None:
    for command in ("backup", "list"):
        done = no_engine.run(command)
        assert done.returncode == 2, command
        assert "(engine_unreachable)" in done.stderr or "(backup_dir_unknown)" in done.stderr, command
    assert list(no_engine.directory.iterdir()) == [], "never the current directory"


def test_list_says_how_to_see_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    for day in range(1, 4):
        (tmp_path / f"x_2026110{day}_000000.sql").write_bytes(b"--\n")
    lines = CliRunner().invoke(main, ["list", "--dir", str(tmp_path), "--limit", "1"]).output.splitlines()
    newest = next(number for number, line in enumerate(lines) if line.startswith("x_20261103"))
    assert lines[newest + 1] == "2 more: --limit 3"
    everything = CliRunner().invoke(main, ["list", "--dir", str(tmp_path)]).output
    assert "--limit" not in everything


# -- pipes -----------------------------------------------------------------------------------------------------------


def test_piped_output_is_plain_lines(command_line: CommandLine) -> None:
    made = command_line.run("backup")
    assert made.returncode == 0
    assert re.match(r"Backup letta_backup_\d{8}_\d{6}\.sql: .*, 554 rows in 9 tables", made.stdout)
    stages = made.stderr.splitlines()
    assert "dumping" in stages
    assert len(stages) == len(set(stages)) < 15
    for arguments in (["verify"], ["list"], ["integrity"], ["restore", "latest", "--dry-run"]):
        done = command_line.run(*arguments, "--quiet")
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert done.stdout.endswith("\n")
        assert not set(done.stdout) & set("\x1b━│┃\r"), arguments
    assert not set(made.stdout + made.stderr) & set("\x1b━│┃\r")


def test_restore_through_a_pipe_needs_yes(local_database: LocalDatabase, command_line: CommandLine) -> None:
    command_line.answer(Backup, 0, "backup")
    before = live_oid(local_database)
    error = command_line.answer(ErrorReport, 2, "restore", "latest")
    assert error.code == "confirmation_needed"
    assert "--yes" in error.remedy
    assert live_oid(local_database) == before


def test_names_as_people_write_them(command_line: CommandLine) -> None:
    made = command_line.answer(Backup, 0, "backup").name
    assert command_line.answer(Kept, 0, "keep", "latest").name == made
    assert (
        command_line.answer(Verification, 0, "verify", made.removesuffix(".sql").upper(), "--level=quick").name == made
    )
    assert command_line.answer(Restore, 0, "restore", made.removesuffix(".sql"), "--dry-run").source == made
    wrong = command_line.answer(ErrorReport, 2, "restore", made.replace("backup", "bakup"), "--yes")
    assert (wrong.code, made in wrong.message) == ("backup_missing", True)


def test_an_error_names_the_option_that_was_typed_and_nothing_else(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for command in (("backup",), ("keep", "x.sql"), ("verify", "x.sql")):
        done = command_line.run(*command, "--dir", str(tmp_path / "file"))
        assert done.returncode == 2
        assert done.stderr.startswith("Error: "), "a warning stands before it"
        assert PREFIX not in done.stderr


@pytest.mark.parametrize(
    ("label", "wrong"),
    [("x" * 81, "has 81 characters."), ("two\nlines", "has a line end or another control character.")],
    ids=["long", "line end"],
)
def test_a_wrong_label_is_told_what_is_wrong_with_it(command_line: CommandLine, label: str, wrong: str) -> None:
    assert command_line.answer(ErrorReport, 2, "backup", "--label", label).message == f"The label {wrong}"
