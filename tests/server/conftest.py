"""What the tests in here share."""

from __future__ import annotations

from pathlib import Path

import pytest

from scarlet_backup_mcp.settings import Settings, load_settings

from ..conftest import LocalDatabase
from ..helpers.faces import (
    local_settings,
)


@pytest.fixture
def idle(tmp_path: Path) -> Settings:
    """For tests that come to no database."""
    return load_settings(dir=tmp_path / "backups", via="local", dsn="postgresql://postgres@127.0.0.1:1/letta")


@pytest.fixture
def local(local_database: LocalDatabase, tmp_path: Path) -> Settings:
    return local_settings(local_database, tmp_path / "backups")
