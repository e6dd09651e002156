"""Dumps as PowerShell wrote them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer

from ..conftest import LocalDatabase, load
from ..helpers.reencoded import Origin, Place, moved_on, pg_dump
from ..helpers.store import execute, shelf, small_database


@pytest.fixture(scope="session")
def origin(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """Loaded from its own dump, so that the server has spelt every definition in its own way already."""
    script = tmp_path_factory.mktemp("origin") / "small.sql"
    with small_database(embedded) as small:
        script.write_bytes(pg_dump(small))
    name = f"origin_{secrets.token_hex(4)}"
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            database = LocalDatabase(embedded, name, embedded.dsn(name))
            execute(database, "DROP SCHEMA public")
            load(database, script)
            yield Origin(database, pg_dump(database))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def untouched(origin: Origin) -> Iterator[LocalDatabase]:
    """The live database of tests that leave it alone."""
    with moved_on(origin) as database:
        yield database


@pytest.fixture
def place(origin: Origin, untouched: LocalDatabase, tmp_path: Path) -> Place:
    """An empty directory for backups."""
    return Place(origin, untouched, shelf(untouched, tmp_path / "backups"))


@pytest.fixture
def live(origin: Origin, place: Place) -> Iterator[Place]:
    """The same with a live database that the test may change."""
    with moved_on(origin) as database:
        yield replace(place, database=database, shelf=shelf(database, place.shelf.directory))
