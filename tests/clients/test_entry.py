"""What stands in our entry, and how one is recognised."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.clients import entry as entries
from scarlet_backup_mcp.clients.entry import PROGRAM, entry_for, is_ours, missing_command
from scarlet_backup_mcp.errors import ConfigurationError
from scarlet_backup_mcp.settings import load_settings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation's directory of programs."""
    program = tmp_path / "bin" / PROGRAM
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    def scripts(_: str) -> str:
        return str(program.parent)

    monkeypatch.setattr(entries.sysconfig, "get_path", scripts)
    return program


def of(environment: dict[str, str], *, shared: bool = False, **settings: Any) -> dict[str, Any]:
    return entry_for(load_settings(**settings), environment, shared=shared, typed=False)


def test_a_file_of_the_users_own_gets_an_absolute_path_and_what_leads_to_docker(installed: Path) -> None:
    found = of({"PATH": str(installed.parent), "DOCKER_HOST": "unix:///run/user/1000/docker.sock"})
    assert (found["command"], found["args"]) == (str(installed), ["serve"])
    assert found["env"]["DOCKER_HOST"] == "unix:///run/user/1000/docker.sock"


def test_a_shared_file_gets_the_bare_command_if_path_leads_to_this_installation(
    installed: Path, tmp_path: Path
) -> None:
    found = of({"PATH": str(installed.parent), "DOCKER_HOST": "tcp://h:1"}, shared=True)
    assert found["command"] == PROGRAM
    assert "DOCKER_HOST" not in found.get("env", {})
    assert of({"PATH": str(tmp_path)}, shared=True)["command"] == str(installed)


def test_without_a_program_it_is_this_python(tmp_path: Path, installed: Path) -> None:
    installed.unlink()
    found = of({"PATH": ""})
    assert os.path.isabs(found["command"])
    assert found["args"] == ["-P", "-m", "scarlet_backup_mcp", "serve"]


def test_settings_that_were_given_are_in_it(installed: Path) -> None:
    found = of({}, dir="/b", keep_last=5, read_only=True, on_failure="mail me")
    wanted = {"SCARLET_BACKUP_DIR": "/b", "SCARLET_BACKUP_KEEP_LAST": "5", "SCARLET_BACKUP_READ_ONLY": "true"}
    assert found["env"].items() >= wanted.items()
    assert "SCARLET_BACKUP_ON_FAILURE" not in found["env"]


def test_no_password_is_in_it(installed: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds a password") as caught:
        of({}, via="local", dsn="postgresql://u:word@h/letta")
    assert "word@" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="holds a password") as caught:
        of({"DOCKER_HOST": "ssh://u:word@h"})
    assert "word@" not in str(caught.value)


def test_a_program_in_a_cache_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def scripts(_: str) -> str:
        return "/home/me/.cache/uv/archive/bin"

    monkeypatch.setattr(entries.sysconfig, "get_path", scripts)
    with pytest.raises(ConfigurationError, match="in a cache"):
        of({})


@pytest.mark.parametrize("entry", [None, "x", {}, {"command": 1}, {"command": "npx", "args": "scarlet-backup-mcp"}])
def test_no_entry_of_ours(entry: object) -> None:
    assert not is_ours(entry)


def test_missing_commands(installed: Path) -> None:
    environment = {"PATH": str(installed.parent)}
    assert missing_command({"command": PROGRAM}, environment) is None
    assert missing_command({"command": str(installed)}, {"PATH": ""}) is None
    assert missing_command({"command": "${workspaceFolder}/x"}, environment) is None
    assert missing_command({"command": PROGRAM}, {"PATH": "/nowhere"}) == PROGRAM
    assert missing_command({"command": "/gone/x"}, environment) == "/gone/x"
