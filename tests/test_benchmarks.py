"""The benchmarks run; what they measure on a busy machine is nobody's business here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from .conftest import PROJECT_ROOT

BENCHMARKS = PROJECT_ROOT / "benchmarks"


def row(step: str, base: str | None, megabytes: float, *seconds: float, **more: Any) -> dict[str, Any]:
    ratios = [one / 2 for one in seconds] if base else []
    data = f"{megabytes:,.0f} MB" if megabytes else "starts"
    return {
        **{"data": data, "megabytes": megabytes, "step": step, "base": base},
        **{"seconds": seconds, "ratios": ratios, **more},
    }


def test_page_has_the_figures_of_all_files_and_a_drawing(tmp_path: Path) -> None:
    shutil.copytree(BENCHMARKS, tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    page = tmp_path / "docs" / "performance.md"
    page.parent.mkdir()
    shutil.copy(PROJECT_ROOT / "docs" / "performance.md", page)
    dump = "docker exec pg_dump > file"
    origin = {"measured_at": "2026-01-02", "machine": "Linux", "cores": 2, "load": [0.1, 0.2], "rounds": 3}
    for number, megabytes in enumerate((50, 2000)):
        rows = [
            row(dump, None, megabytes, 4, bytes=megabytes * 1_000_000),
            row("backup", dump, megabytes, 1, 3, 2, peak_megabytes=123),
            row("verify full", None, megabytes, 0.5),
            row("`--help`", None, 0, 0.1),
        ]
        (tmp_path / f"{number}.json").write_text(json.dumps({**origin, "rows": rows}))
    command = [sys.executable, "benchmarks/page.py", "0.json", "1.json"]
    for _ in range(2):  # the second time it replaces what it wrote
        subprocess.run(command, cwd=tmp_path, check=True)
    text = page.read_text(encoding="utf-8")
    assert text.count("| backup | `docker exec pg_dump > file` | 2.00 s, **1.00 × (0.50 to 1.50)**, 123 MB") == 1
    assert "| `docker exec pg_dump > file` | 50 MB | 2,000 MB |" in text
    assert "0.50 s, 4,000 MB/s" in text
    assert text.count("2026-01-02") == 2
    before, _, after = (PROJECT_ROOT / "docs" / "performance.md").read_text(encoding="utf-8").partition("<!-- measured")
    assert text.startswith(before)
    assert text.endswith(after.partition("<!-- end")[2])
    drawn = ElementTree.parse(tmp_path / "docs" / "performance.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    assert drawn.find(f"{name}title") is not None
    assert "backup: 2.0 s for 50 MB, 2.0 s for 2,000 MB" in (drawn.findtext(f"{name}desc") or "")
    assert len(drawn.findall(f"{name}polyline")) == 3


@pytest.mark.docker
@pytest.mark.long
def test_every_step_is_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / "run.py"), "20", "--rounds", "1", "--backups", "10"]
    done = subprocess.run(
        [*command, "--json", str(figures)], capture_output=True, encoding="utf-8", timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {row["step"]: row for row in json.loads(figures.read_text())["rows"]}
    assert {"backup", "backup, zstd", "restore", "undo", "drill", "backup, volume", "restore, volume"} <= rows.keys()
    assert {"list_backups, 10 backups", "`--help`"} <= rows.keys()
    assert all(row["seconds"][0] > 0 for row in rows.values())
    assert all(row["ratios"] for row in rows.values() if row["base"])
    assert rows["backup, zstd"]["bytes"] < rows["backup"]["bytes"]
    assert rows["backup"]["peak_megabytes"] > 20
