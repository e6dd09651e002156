"""`doctor` and `init` as commands, with a home directory of the test's own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from scarlet_backup_mcp.clients.entry import NAME
from scarlet_backup_mcp.models.setup import SetupReport
from scarlet_backup_mcp.settings import load_settings

from ..helpers.command_line import CommandLine, posix_only, terminal

CODEX = 'model = "x" # mine\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Cursor and Codex are there; nothing names this server."""
    made = tmp_path / "home"
    for name in (".cursor", ".codex"):
        (made / name).mkdir(parents=True)
    (made / ".codex" / "config.toml").write_text(CODEX)
    return made


@pytest.fixture
def setup(home: Path, tmp_path: Path) -> CommandLine:
    """The command line for a new user: no setting but the directory, and no engine yet."""
    line = CommandLine(load_settings(dir=tmp_path / "backups"), tmp_path)
    line.environment = at_home(line.environment, home) | {"DOCKER_HOST": f"unix://{tmp_path}/dead.sock"}
    return line


@pytest.fixture
def doctor(command_line: CommandLine, home: Path) -> CommandLine:
    """The command line for a local database."""
    command_line.environment = at_home(command_line.environment, home)
    return command_line


def at_home(environment: dict[str, str], home: Path) -> dict[str, str]:
    own = {"HOME": str(home), "PATH": str(Path(sys.executable).parent), "CODEX_HOME": "", "XDG_CONFIG_HOME": ""}
    return environment | own


def test_init_asks_and_without_a_terminal_changes_nothing(setup: CommandLine, home: Path) -> None:
    done = setup.run("init")
    assert done.returncode == 2
    assert "+[mcp_servers.scarlet-backup]" in done.stdout
    assert f"Cursor: {home / '.cursor' / 'mcp.json'}" in done.stdout
    assert "Add --yes." in done.stderr
    assert (home / ".codex" / "config.toml").read_text() == CODEX
    assert not (home / ".cursor" / "mcp.json").exists()


def test_init_and_its_undoing(setup: CommandLine, home: Path) -> None:
    done = setup.run("init", "--yes")
    assert done.returncode == 0, done.stderr
    assert "Restart the clients" in done.stdout
    entry = json.loads((home / ".cursor" / "mcp.json").read_bytes())["mcpServers"][NAME]
    assert os.path.isabs(entry["command"])
    assert entry["args"][-1] == "serve"
    assert entry["env"]["SCARLET_BACKUP_DIR"] == str(home.parent / "backups")
    again = setup.run("init", "--yes")
    assert (again.returncode, again.stdout.count("has this entry already")) == (0, 2)
    gone = setup.run("init", "--remove", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert (home / ".codex" / "config.toml").read_text() == CODEX
    assert not (home / ".cursor" / "mcp.json").exists()


def test_init_says_which_server_the_settings_lead_to(setup: CommandLine, doctor: CommandLine) -> None:
    none = setup.run("init", "--yes", DOCKER_HOST="unix:///nowhere/dead.sock")
    assert none.returncode == 0
    assert "With these settings no server is found yet: " in none.stderr
    assert "With these settings: database " in doctor.run("init", "--yes").stdout
    assert "With these settings" not in doctor.run("init", "--remove", "--yes").stdout


def test_init_for_named_clients_only(setup: CommandLine, home: Path) -> None:
    done = setup.run("init", "--yes", "--client", "vscode", "--workspace", str(home / ".."))
    assert done.returncode == 0, done.stderr
    written = json.loads((home.parent / ".vscode" / "mcp.json").read_bytes())
    assert written["servers"][NAME]["type"] == "stdio"
    assert not (home / ".cursor" / "mcp.json").exists()


def test_init_shows_what_to_do_by_hand(setup: CommandLine, home: Path) -> None:
    (home / ".cursor" / "mcp.json").write_text('{"mcpServers": ')
    done = setup.run("init", "--yes", "--client", "cursor")
    assert done.returncode == 1
    assert "not touched, because it is not valid JSON at line 1" in done.stdout
    assert '"scarlet-backup": {' in done.stdout
    assert (home / ".cursor" / "mcp.json").read_text() == '{"mcpServers": '


def test_init_writes_no_password(setup: CommandLine, home: Path) -> None:
    done = setup.run(
        "init", "--yes", "--via", "local", "--dsn", "postgresql://u:hidden-word@h/letta", "--database", "letta"
    )
    assert done.returncode == 2
    assert "holds a password" in done.stderr
    assert "hidden-word" not in done.stdout + done.stderr
    assert not (home / ".cursor" / "mcp.json").exists()


@posix_only
@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("\x03", 130)])
def test_init_on_a_terminal(setup: CommandLine, home: Path, answer: str, code: int) -> None:
    with terminal(setup, "init", "--client", "cursor", "--read-only") as screen:
        screen.read_until("Make these changes?")
        screen.type(answer if answer == "\x03" else f"{answer}\n")
        assert screen.end() == code
    path = home / ".cursor" / "mcp.json"
    assert path.exists() == (code == 0)
    if code == 0:
        assert json.loads(path.read_bytes())["mcpServers"][NAME]["env"]["SCARLET_BACKUP_READ_ONLY"] == "true"


# doctor


def test_doctor_says_what_to_do_line_by_line(doctor: CommandLine, tmp_path: Path) -> None:
    done = doctor.run("doctor", "--quiet")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert all(line.split(": ")[0] in ("ok", "warn") for line in lines)
    assert any(line.startswith("warn: directory: ") and "--fix" in line for line in lines)
    assert any(line.startswith("warn: clients: Not configured in: Cursor, Codex.") for line in lines)
    assert not (tmp_path / "backups").exists()


def test_doctor_as_json_with_an_exit_code(doctor: CommandLine) -> None:
    report = doctor.answer(SetupReport, 1, "doctor", "--dsn", "postgresql://postgres@127.0.0.1:1/letta")
    assert [check.check for check in report.checks if check.status == "fail"] == ["database"]
