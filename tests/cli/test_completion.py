"""Completion in shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from scarlet_backup_mcp.cli.commands import main

from ..helpers.command_line import posix_only

NAMES = ["letta_backup_20261129_033000.sql", "letta_backup_20261122_033000.sql.zst"]


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    for name in (*NAMES, "notes.txt"):
        (tmp_path / name).write_bytes(b"--\n")
    return tmp_path


def completed(shell: str, words: Sequence[str], word: str) -> list[str]:
    """What a script of the shell gets for the words before the cursor, and the one that it is in."""
    between = "\n" if shell == "powershell" else " "
    environment = {
        "_SCARLET_BACKUP_MCP_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": between.join(["scarlet-backup-mcp", *words, word]),
        "COMP_CWORD": str(len(words) + 1) if shell in ("bash", "zsh") else word,
    }
    return CliRunner().invoke(main, [], prog_name="scarlet-backup-mcp", env=environment).output.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_names_of_backups_complete_newest_first(backups: Path, shell: str) -> None:
    for command in ("verify", "restore", "keep", "repair"):
        found = completed(shell, [command, "--dir", str(backups)], "letta")
        lines = [line for line in found if "letta" in line]
        assert [name in line for name, line in zip(NAMES, lines, strict=True)] == [True, True]
    assert any("latest" in line for line in completed(shell, ["keep", "--dir", str(backups)], "l"))
    assert any("integrity" in line for line in completed(shell, [], "in"))


def test_no_engine_completes_nothing_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("XDG_STATE_HOME", "/nonexistent")
    assert completed("bash", ["verify"], "lat") == ["plain,latest"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_the_script_is_printed(shell: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell], prog_name="scarlet-backup-mcp").output
    assert f"{shell}_complete" in script
    assert "scarlet-backup-mcp" in script


@posix_only
def test_bash_completes_with_the_script(backups: Path, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash, "every POSIX system of these tests has it"
    program = tmp_path / "bin" / "scarlet-backup-mcp"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scarlet_backup_mcp "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(scarlet-backup-mcp completion bash)"; COMP_WORDS=(scarlet-backup-mcp verify letta); COMP_CWORD=2;'
        '_scarlet_backup_mcp_completion scarlet-backup-mcp; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SCARLET_BACKUP_DIR": str(backups)}
    done = subprocess.run(
        [bash, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == NAMES, done.stderr
