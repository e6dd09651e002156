"""The benchmarks run; what they measure on a busy machine is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.long]
RUN = Path(__file__).parent.parent / "benchmarks" / "run.py"


def test_every_step_is_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(RUN), "20", "--rounds", "1", "--backups", "10", "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(figures.read_text())
    assert {row["step"] for row in rows} >= {"backup", "backup, zstd", "restore", "drill", "backup, volume"}
    assert all(row["seconds"][0] > 0 for row in rows)
    assert all(row["ratios"] for row in rows if row["base"])
    assert "a listing of 10 backups" in done.stdout
