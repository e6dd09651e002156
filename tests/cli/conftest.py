"""The command line, on a small database of the embedded server."""

from __future__ import annotations

from pathlib import Path

import pytest

from scarlet_backup_mcp.settings import Settings

from ..conftest import LocalDatabase
from ..helpers.command_line import CommandLine
from ..helpers.faces import (
    local_settings,
)


@pytest.fixture
def local(local_database: LocalDatabase, tmp_path: Path) -> Settings:
    return local_settings(local_database, tmp_path / "backups")


@pytest.fixture
def command_line(local: Settings, tmp_path: Path) -> CommandLine:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return CommandLine(local, work)
