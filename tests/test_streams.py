"""Standard streams that are closed, full, gone or without a letter: they stop no work, and show no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import PROJECT_ROOT
from .helpers.command_line import CommandLine
from .helpers.store import Made

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a shell's redirections, and Linux's /dev/full")
PING = '{"jsonrpc":"2.0","id":1,"method":"ping"}'


@pytest.fixture
def program(made: Made, tmp_path: Path) -> CommandLine:
    here = made.shelf.copy(tmp_path / "backups", made.plain)
    return CommandLine(here.settings, tmp_path)


def run(program: CommandLine, words: str, redirected: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program in a shell that redirects its streams; what it does not redirect is caught."""
    line = f'"$0" -m scarlet_backup_mcp {words} {redirected}'
    done = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", line, sys.executable],
        input=PING.encode() + b"\n",
        capture_output=True,
        env=program.environment | environment,
        cwd=program.directory,
        timeout=120,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    assert b"internal_error" not in done.stderr + done.stdout
    assert b"Exception ignored" not in done.stderr
    return done


COMMANDS = [
    *("list", "list --json", "gate", "verify latest --level quick", "verify latest", "integrity", "prune --dry-run"),
    *("restore latest --dry-run", "backup", "doctor", "schedule --daily", "completion bash", "--help", "--version"),
    *("list --help", "no-such-command", "verify none.sql", "list --json --log 5"),
]


@pytest.mark.sample(2)
@pytest.mark.parametrize("words", COMMANDS)
def test_a_full_output_is_said(program: CommandLine, words: str) -> None:
    done = run(program, words, ">/dev/full")
    assert done.returncode == 2
    if words not in ("no-such-command", "verify none.sql", "schedule --daily"):  # refused: nothing is for stdout
        assert b"The output could not be written: No space left on device." in done.stderr


@pytest.mark.sample(2)
@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-", "| true", ">&-", "<&-", "<&- >&- 2>&-"])
def test_other_streams_change_no_exit_code(program: CommandLine, words: str, redirected: str) -> None:
    assert run(program, words, redirected).returncode == run(program, words, "").returncode


def test_a_restore_without_stdin_asks_for_yes(program: CommandLine, made: Made) -> None:
    done = run(program, f"restore {made.plain}", "<&-")
    assert done.returncode == 2
    assert b"no terminal is attached" in done.stderr
    assert b"Add --yes" in done.stderr


@pytest.mark.parametrize("redirected", ["<&-", ">&- </dev/null", "2>&-", "2>/dev/full", "| true"])
def test_serve_ends(program: CommandLine, redirected: str) -> None:
    done = run(program, "serve", redirected)
    assert done.returncode == 0, done.stderr


def test_serve_says_that_nobody_can_be_answered(program: CommandLine) -> None:
    done = run(program, "serve", ">/dev/full")
    assert done.returncode == 2
    assert b"can't be written to stdout: No space left on device" in done.stderr


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("words", ["list", "list --json"])
def test_letters_in_a_c_locale(made: Made, tmp_path: Path, words: str) -> None:
    here = made.shelf.copy(tmp_path / "perché")
    name = "perché_20260101_000000.sql"
    (here.directory / name).write_text("--\n-- PostgreSQL database dump\n--\n", encoding="utf-8")
    done = run(CommandLine(here.settings, tmp_path), words, "", **ASCII)
    assert done.returncode == 0, done.stderr
    assert name in (json.loads(done.stdout)["backups"][0]["name"] if "--json" in words else done.stdout.decode())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_letters_that_the_output_lacks(made: Made, tmp_path: Path, encoding: str) -> None:
    """As on Windows, where a pipe has the encoding of a code page."""
    here = made.shelf.copy(tmp_path / "backups")
    name = "記憶_😀_20260101_000000.sql"
    (here.directory / name).write_text("--\n-- PostgreSQL database dump\n--\n", encoding="utf-8")
    program = CommandLine(here.settings, tmp_path)
    done = run(program, "list --json", "", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8"))["backups"][0]["name"] == name
    assert run(program, "list", "", PYTHONIOENCODING=encoding).returncode == 0


def test_closed_numbers_go_to_no_file(tmp_path: Path) -> None:
    """Else a program that is started would write into it."""
    code = (
        "import os, subprocess; from scarlet_backup_mcp import streams; streams.prepare(); "
        "file = os.open('x.sql', os.O_WRONLY | os.O_CREAT); assert file > 2, file; "
        "subprocess.run(['echo', 'lost'], check=True); print('lost')"
    )
    command = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0
    assert (tmp_path / "x.sql").read_bytes() == b""


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-", ">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_the_hook_blocks_even_if_it_can_not_answer(tmp_path: Path, redirected: str) -> None:
    call = {"tool_name": "Bash", "tool_input": {"command": "python recreate_agents.py"}}
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -m scarlet_backup_mcp.gate_hook {redirected}', sys.executable],
        input=json.dumps(call).encode(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "SCARLET_BACKUP_DIR": str(tmp_path)},
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
