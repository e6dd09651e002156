"""The tools as the MCP Inspector's command line sees them: a client in another language, with its own checks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..conftest import LocalDatabase
from ..helpers.faces import environment_of, local_settings

INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
FETCH_SECONDS = 180
CALL_SECONDS = 60
TOOL_ERROR = 5
"""The Inspector's exit code for a tool's result that is an error."""
TOOLS = ["backup", "db_integrity", "list_backups", "prune_backups", "restore", "verify_backup"]

each_era = pytest.mark.parametrize("era", ["legacy", "modern"])


@pytest.fixture(scope="module")
def npx() -> str:
    """The program that runs the Inspector, which it has in its cache from here on. Without it tests are skipped, or
    fail where everything has to be there."""
    missing = None
    found = shutil.which("npx")
    if found is None:
        missing = "There is no npx (Node.js)."
    else:
        try:
            done = subprocess.run(
                [found, "-y", "--prefer-offline", INSPECTOR, "--cli", "--help"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=FETCH_SECONDS,
                check=False,
            )
            if done.returncode != 0:
                missing = f"The Inspector can't be had: {done.stderr.decode(errors='replace')[-500:]}"
        except subprocess.TimeoutExpired:
            missing = f"The Inspector could not be fetched within {FETCH_SECONDS} s."
    if missing and os.environ.get("SCARLET_TEST_REQUIRE_DOCKER") == "1":
        pytest.fail(missing)
    if missing or found is None:
        pytest.skip(missing or "")
    return found


class Inspector:
    """Calls of the Inspector, each with a server of its own on the embedded PostgreSQL."""

    def __init__(self, npx: str, database: LocalDatabase, directory: Path, era: str) -> None:
        ours = ("PYTHONPATH", "SCARLET_BACKUP_")
        environment = environment_of(local_settings(database, directory / "backups"))
        variables = [f"{name}={value}" for name, value in environment.items() if name.startswith(ours)]
        server = [sys.executable, "-m", "scarlet_backup_mcp"]
        settings = [word for variable in variables for word in ("-e", variable)]
        self._command = [npx, "-y", "--prefer-offline", INSPECTOR, "--cli", *server, *settings]
        self._command += ["--protocol-era", era]
        self._directory = directory

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            cwd=self._directory,
            timeout=CALL_SECONDS,
            check=False,
        )

    def call(self, tool: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        """A tool call; gives its structured content."""
        words = [word for argument in arguments for word in ("--tool-arg", argument)]
        done = self.run("--method", "tools/call", "--tool-name", tool, *words)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)["structuredContent"]


@pytest.fixture
def inspector(npx: str, local_database: LocalDatabase, tmp_path: Path, era: str) -> Inspector:
    return Inspector(npx, local_database, tmp_path, era)


@each_era
def test_inspector_lists_the_tools_and_finds_no_fault(inspector: Inspector) -> None:
    """`--strict` ends with code 6 where a schema is one that some model's provider refuses."""
    done = inspector.run("--method", "tools/list", "--strict")
    assert done.returncode == 0, done.stderr
    tools = json.loads(done.stdout)["tools"]
    assert sorted(tool["name"] for tool in tools) == TOOLS
    assert all(tool["title"] and tool["outputSchema"]["type"] == "object" for tool in tools)


@pytest.mark.sample(1)
@each_era
def test_inspector_calls_tools_and_shows_errors(inspector: Inspector) -> None:
    """It has no way to ask a user, so a restore ends with the words that confirm it."""
    made = inspector.call("backup", "label=from the inspector")
    assert (made["safe_to_proceed"], made["label"]) == (True, "from the inspector")
    listing = inspector.call("list_backups", "limit=1")
    assert [(item["name"], item["state"]) for item in listing["backups"]] == [(made["name"], "good")]
    needed = inspector.call("restore", "backup=latest", code=TOOL_ERROR)
    assert needed["code"] == "confirmation_needed"
    assert f"restore {made['name']}" in needed["remedy"]
