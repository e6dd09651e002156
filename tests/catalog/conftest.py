"""Directories of backups to list, to keep and to prune, and a database that nobody else writes to."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.procedures.context import BackupContext

from ..conftest import LocalDatabase
from ..helpers.keeping import FEW, SETTLED, Full, command_line_of, put
from ..helpers.store import Made, Shelf, small_database


@pytest.fixture
def full(made: Made, tmp_path: Path) -> Full:
    here = made.shelf.copy(tmp_path / "backups")
    here = Shelf(here.settings.model_copy(update=FEW))
    return Full(here, [put(here, made, days) for days in range(5)], command_line_of(here.settings, tmp_path))


@pytest.fixture
def database(embedded: EmbeddedServer) -> Generator[LocalDatabase]:
    """A small one that nobody else writes to."""
    with small_database(embedded) as made:
        time.sleep(SETTLED)
        yield made


@pytest.fixture
def undo_point(made: Made, embedded: EmbeddedServer) -> Iterator[str]:
    """A database such as a restore leaves behind."""
    with BackupContext(made.shelf.settings) as context:
        name = f"{context.database}_before_restore_20260101_000000"
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def here(made: Made, tmp_path: Path) -> Shelf:
    """A directory of the test's own with one backup."""
    return made.shelf.copy(tmp_path / "backups", made.plain)
