"""The Inspector's web UI in a headless browser: the tools as a person meets them there."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scarlet_backup_mcp.settings import TOOLS, Settings

from ..conftest import PROJECT_ROOT
from ..helpers.faces import environment_of, until
from ..helpers.node import Packages, missing

INSPECTOR = "@modelcontextprotocol/inspector"
SECONDS = 300
TOKEN = "of-this-test"


@pytest.mark.long
def test_every_tool_works_in_the_inspectors_web_ui(local: Settings, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        missing("There is no Chromium (Debian's package chromium).")
    packages = Packages(tmp_path / "npm", f"{INSPECTOR}@2.12.0", "playwright-core")
    environment = {k: v for k, v in environment_of(local).items() if k.startswith(("PYTHONPATH", "SCARLET_BACKUP_"))}
    server = {"command": sys.executable, "args": ["-m", "scarlet_backup_mcp", "serve"], "env": environment}
    config = tmp_path / "servers.json"
    config.write_text(json.dumps({"mcpServers": {"scarlet": server}}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = packages.directory / "node_modules" / INSPECTOR / "clients" / "launcher" / "build" / "index.js"
    variables = {"MCP_AUTO_OPEN_ENABLED": "false", "CLIENT_PORT": str(port), "MCP_INSPECTOR_API_TOKEN": TOKEN}
    with (tmp_path / "inspector.log").open("wb") as log:
        inspector = subprocess.Popen(
            [str(packages.node), str(launcher), "--web", "--config", str(config)],
            cwd=tmp_path,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            until(lambda: b"running at" in (tmp_path / "inspector.log").read_bytes(), 60, "the Inspector")
            address = f"http://127.0.0.1:{port}/?MCP_INSPECTOR_API_TOKEN={TOKEN}"
            script = PROJECT_ROOT / "tests" / "helpers" / "inspector_web.mjs"
            done = packages.run(script, address, browser, str(tmp_path), seconds=SECONDS)
        finally:
            inspector.terminate()
            inspector.wait()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "failed" not in found, found["failed"] + found["body"]
    assert set(found["answers"]) == set(TOOLS)
    assert "Restore the backup" in found["dialogs"][0]
    first, last = (int(re.findall(r"\((\d+)%\)", shown)[-1]) for shown in found["progress"])
    assert 0 <= first < last <= 100, found["progress"]
    assert "554 rows compared" in " ".join(found["answers"]["restore"].split())
