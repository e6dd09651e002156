"""docs/architecture.md and PROC-004's table name what is there."""

from __future__ import annotations

import re
from pathlib import Path

from scarlet_backup_mcp.procedures import proc004

from .conftest import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "scarlet_backup_mcp"


def is_there(name: str) -> bool:
    """Whether that file or package is in the package, or among the procedures."""
    return any((room / name).exists() for room in (PACKAGE, PACKAGE / "procedures", PROJECT_ROOT))


def test_files_that_the_architecture_names_are_there() -> None:
    text = (PROJECT_ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?|\w+\.py)`", text)
    assert len(named) > 25
    foreseen = {"offsite/", "ui/"}
    assert [name for name in named if name not in foreseen and not is_there(name)] == []


def test_modules_that_do_a_step_of_the_procedure_are_there() -> None:
    named = re.findall(r"`((?:\w+\.)*\w+)`", proc004.__doc__ or "")
    modules = [
        name
        for name in named
        if re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", name) and name not in ("pg_dump", "backups")
    ]
    assert len(modules) > 10
    missing = [name for name in modules if not is_module(name)]
    assert missing == []


def is_module(name: str) -> bool:
    """Whether `a.b`, perhaps with a name in it behind, is a module among the procedures, or `a` one of the package."""
    parts = name.split(".")
    paths = [Path(*parts[:end]) for end in range(len(parts), 0, -1)]
    return any(is_there(f"{path.as_posix()}.py") or is_there(f"{path.as_posix()}/__init__.py") for path in paths)
