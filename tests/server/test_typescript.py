"""The server as the TypeScript SDK's client meets it, which refuses results that the output schemas do not allow."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from scarlet_backup_mcp.settings import TOOLS, Settings

from ..conftest import PROJECT_ROOT
from ..helpers.faces import environment_of
from ..helpers.node import Packages

SDK = "@modelcontextprotocol/sdk@1"
SECONDS = 180


@pytest.mark.long
def test_typescript_client_takes_every_result(local: Settings, tmp_path: Path) -> None:
    packages = Packages(tmp_path / "npm", SDK)
    done = packages.run(
        PROJECT_ROOT / "tests" / "helpers" / "typescript_client.mjs",
        *(sys.executable, "-m", "scarlet_backup_mcp", "serve"),
        seconds=SECONDS,
        environment=environment_of(local),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    results = found["results"]
    assert set(found["tools"]) == set(TOOLS)
    assert [name for name, result in results.items() if result["isError"]] == ["refused"]
    assert results["restore"]["restored"]
    assert [item["action"] for item in results["prune_backups"]["items"]] == ["kept", "removed"]
    assert found["running"]["status"] == "running"
    assert results["waited"]["status"] == "done"
    assert len(found["questions"]) == 2
    assert all(0 <= done <= total == 100 for _, done, total in found["progress"])
    assert {name for name, done, _ in found["progress"] if done == 100} == {
        "backup",
        "verify_backup",
        "restore",
        "prune_backups",
    }
