"""From a sentence of PROC-004 to the function that does it, and from the project to its home."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from scarlet_backup_mcp.procedures import proc004

from .conftest import PROJECT_ROOT

OWN = {".git", ".venv", "build", "dist", "tests"}
"""Directories whose files are not the project's, or are about the placeholder."""


def functions_for(words: str) -> list[str]:
    """The functions that the table of `proc004` names for the step that has these words."""
    rows = [row.split("|")[1:3] for row in (proc004.__doc__ or "").splitlines() if row.startswith("|")]
    (right,) = [right for left, right in rows if words in left]
    return re.findall(r"`([a-z_]\w*(?:\.\w+)+)`", right)


def found(name: str) -> object:
    """What `a.b.c` is, below the package of procedures: an attribute of a module, or of a class in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            what: object = importlib.import_module(".".join([proc004.__package__ or "", *parts[:end]]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            what = getattr(what, part)
        return what
    raise AssertionError(f"No module of {name} is there.")


@pytest.mark.parametrize(
    "words",
    [
        "keep at least 3 recent backups",
        "not of size 0",
        "`up -d`, then wait ten seconds",
        "Restore da backup SQL",
        "Restore da volume",
        "count the agents",
        "the container is Up",
    ],
)
def test_each_step_leads_to_functions_that_are_there(words: str) -> None:
    names = functions_for(words)
    assert names
    assert [name for name in names if not callable(found(name))] == []


def test_places_that_name_the_owner_are_known() -> None:
    """`OWNER` stands for whoever hosts the project; these are the places to fill in."""
    text = (PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    [owner] = re.findall(r'^Repository = "https://github\.com/([^/]+)/scarlet-backup-mcp"$', text, re.MULTILINE)
    places = {
        (path.relative_to(PROJECT_ROOT).as_posix(), line.strip().replace(owner, "OWNER"))
        for path in project_files()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if f"/{owner}/" in line or f"io.github.{owner}/" in line
    }
    assert places == {
        ("pyproject.toml", 'Repository = "https://github.com/OWNER/scarlet-backup-mcp"'),
        ("README.md", "<!-- mcp-name: io.github.OWNER/scarlet-backup-mcp -->"),
        ("server.json", '"name": "io.github.OWNER/scarlet-backup-mcp",'),
        ("server.json", '"repository": {"url": "https://github.com/OWNER/scarlet-backup-mcp", "source": "github"},'),
    }


def project_files() -> list[Path]:
    """Every file but of what is installed, built or cached, and of the tests."""
    files = [path for path in PROJECT_ROOT.iterdir() if path.is_file()]
    for directory in PROJECT_ROOT.iterdir():
        if directory.is_dir() and directory.name not in OWN and not directory.name.endswith(("_cache", ".egg-info")):
            files += [path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return files
