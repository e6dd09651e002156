"""What a start does not import, because what was asked for does not need it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "scarlet_backup_mcp"
WORK = tuple(
    f"{PACKAGE}.{name}"
    for name in ("hosts", "postgres", "store", "stores.images", "stores.siblings", "clients.change", "summaries")
)
"""What only a procedure, or its result, needs. Settings are checked by `stores.choice`."""
OUTSIDE = ("docker", "filelock", "paramiko", "xxhash", "zstandard")
DECLARED = (f"{PACKAGE}.procedures.call_notes", f"{PACKAGE}.procedures.restore.options")
"""Modules of procedures that say what one may be asked for."""
HANDSHAKE = """\
{"jsonrpc": "2.0", "id": 0, "method": "initialize", "params":
 {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}}
{"jsonrpc": "2.0", "method": "notifications/initialized"}
{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
""".replace("\n ", " ")


def imported(*arguments: str, stdin: str = "", **environment: str) -> tuple[set[str], str]:
    """The modules that a run imports, and what it writes."""
    command = [sys.executable, "-X", "importtime", "-m", PACKAGE, *arguments]
    done = subprocess.run(
        command, input=stdin, capture_output=True, encoding="utf-8", env=os.environ | environment, check=False
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}, done.stdout


def procedures(modules: set[str]) -> list[str]:
    """The modules of procedures among them, without packages and declarations."""
    packages = {name.rpartition(".")[0] for name in DECLARED}
    return sorted(name for name in modules - {*DECLARED, *packages} if name.startswith(f"{PACKAGE}.procedures"))


def within(modules: set[str], *packages: str) -> list[str]:
    """Those of the modules that are in these packages."""
    return sorted(name for name in modules if f"{name}.".startswith(tuple(f"{package}." for package in packages)))


@pytest.mark.parametrize("words", [["--version"], ["--help"], []])
def test_help_and_names_of_commands_import_no_command(words: list[str]) -> None:
    asks = {} if words else {"_SCARLET_BACKUP_MCP_COMPLETE": "bash_complete", "COMP_WORDS": "x ve", "COMP_CWORD": "1"}
    modules, output = imported(*words, **asks)
    assert ("verify" in output) == (words != ["--version"])
    assert within(modules, "pydantic", "asyncio", "rich", f"{PACKAGE}.models", *WORK, *OUTSIDE) == []
    assert modules & {f"{PACKAGE}.procedures", f"{PACKAGE}.cli.command"} == set()


@pytest.mark.parametrize("command", ["backup", "list", "restore", "doctor"])
def test_help_of_a_command_imports_no_procedure(command: str) -> None:
    modules, output = imported(command, "--help")
    assert "--container" in output
    assert procedures(modules) == []
    assert within(modules, "mcp", "rich", *WORK, *OUTSIDE) == []


def test_command_imports_its_own_procedure_only(tmp_path: Path) -> None:
    server = ("--via", "local", "--dsn", "postgresql://nobody@127.0.0.1:1/letta")
    modules, output = imported("list", "--dir", str(tmp_path), *server)
    assert "There is no good SQL backup" in output
    others = ("backup.service", "drill.sql", "prune", "restore.sql_restore", "sandbox.lifecycle", "verify.sql")
    assert within(modules, "mcp", "docker") == []
    assert modules & {f"{PACKAGE}.procedures.{name}" for name in others} == set()
    assert f"{PACKAGE}.procedures.listing" in modules


def test_list_of_tools_imports_no_procedure() -> None:
    modules, output = imported("serve", stdin=HANDSHAKE)
    assert json.loads(output.splitlines()[-1])["result"]["tools"]
    assert procedures(modules) == []
    assert within(modules, *WORK[:4], *OUTSIDE) == []
