"""The protocol's own conformance package, over HTTP.

Most of its scenarios use tools, prompts and resources that a server has to have for it; ours fail there because they do
not exist, and for no other reason. What applies: the handshake and sessions, ping, the lists, unknown resources,
caching, headers, statelessness, DNS rebinding.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import PROJECT_ROOT
from ..helpers.faces import until
from ..helpers.node import Packages

SECONDS = 300
PACKAGE = "@modelcontextprotocol/conformance"
RUNS = {
    "0.1.16": ["2025-11-25"],
    "0.2.0-alpha.12": ["2025-11-25", "2026-07-28"],
}
"""Versions of the package, and of the protocol in each."""
APPLY = {
    "2025-11-25": {"server-initialize", "ping", "tools-list", "resources-list", "prompts-list"},
    "2026-07-28": {
        "tools-list",
        "resources-list",
        "prompts-list",
        "sep-2164-resource-not-found",
        "caching",
        "http-header-validation",
        "server-sse-multiple-streams",
    },
}
"""Scenarios of which every check has to pass."""
FIXTURES = re.compile(
    r"There is no (tool|prompt|resource) '(test_|test://)"
    r"|Tool 'json_schema_2020_12_tool' not found"
    r"|Not testable: server (does not list the diagnostic tool 'test_|exposes no tool with x-mcp-header)"
)
"""What checks say that need the package's own tools, prompts and resources."""
UNDECLARED = {
    "logging-set-level",
    "tools-call-with-logging",
    "completion-complete",
    "resources-subscribe",
    "resources-unsubscribe",
}
"""Scenarios of capabilities that the server does not declare: they end with "Method not found"."""
AFTERWARDS = {"input-required-result-multi-round", "input-required-result-tampered-state"}
"""Scenarios that go on with the answer of a tool of the package's own."""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The address of a server over HTTP."""
    directory = tmp_path_factory.mktemp("front")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.helpers.http_front", str(port), str(directory / "backups")]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, env=os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}, stdout=log, stderr=log
        )
        try:
            until(lambda: _answers(port), 30, "a server over HTTP")
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.long
@pytest.mark.parametrize("version", RUNS)
def test_no_scenario_that_applies_fails(front: str, version: str, tmp_path: Path) -> None:
    packages = Packages(tmp_path, f"{PACKAGE}@{version}")
    script = tmp_path / "node_modules" / PACKAGE / "dist" / "index.js"
    for spec in RUNS[version]:
        results = tmp_path / spec
        arguments = ["server", "--url", front, "--suite", "all", "--spec-version", spec, "-o", str(results)]
        done = packages.run(script, *arguments, seconds=SECONDS)
        found = {_scenario(path): json.loads(path.read_text()) for path in results.glob("*/checks.json")}
        assert set(found) >= APPLY[spec], done.stderr
        for scenario, checks in found.items():
            failed = [check for check in checks if check["status"] == "FAILURE"]
            assert [check for check in failed if not _excused(scenario, check)] == [], scenario
            assert not failed or scenario not in APPLY[spec], failed


def _scenario(path: Path) -> str:
    """From a name like server-tools-list-2026-11-30T14-07-24-621Z."""
    return re.sub(r"^server-(.*)-\d{4}-\d\d-\d\dT[\d-]+Z$", r"\1", path.parent.name)


def _excused(scenario: str, check: dict[str, Any]) -> bool:
    message = str(check.get("errorMessage", ""))
    if scenario in UNDECLARED:
        return "Method not found" in message
    return scenario in AFTERWARDS or FIXTURES.search(message) is not None
