"""A server whose backups go wrong."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer

from ..helpers.backup_faults import (
    NOVEL,
    SERVER,
    Box,
    a_box,
    remember,
)
from ..helpers.roundtrip import Fresh, Place, embedded_place
from ..helpers.store import shelf, small_database
from ..helpers.volume_copy import Kept, take


@pytest.fixture(scope="session")
def usual_box(require_docker: None) -> Iterator[Box]:
    """A container with Scarlet's memory, some values whose text depends on settings, and a large database."""
    with a_box({}, *SERVER) as box:
        remember(box)
        box.psql("CREATE DATABASE large TEMPLATE letta", "postgres")
        box.psql("ALTER DATABASE large SET search_path TO letta;" + NOVEL, "large")
        yield box


@pytest.fixture
def box(usual_box: Box) -> Box:
    """That container, running."""
    usual_box.bring_up()
    return usual_box


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def copy(box: Box) -> Iterator[str]:
    """A database of the test's own, equal to `letta`."""
    name = f"copy_{secrets.token_hex(4)}"
    box.psql(f"CREATE DATABASE {name} TEMPLATE letta", "postgres")
    box.psql(f"ALTER DATABASE {name} SET search_path TO letta", "postgres")
    yield name
    box.bring_up()
    box.psql(f"DROP DATABASE {name} WITH (FORCE)", "postgres")


@pytest.fixture(scope="session")
def local(embedded: EmbeddedServer) -> Place:
    return embedded_place(embedded)


@pytest.fixture
def fresh(local: Place, tmp_path: Path) -> Iterator[Fresh]:
    """On the embedded server."""
    made = Fresh(local, tmp_path / "backups")
    yield made
    for name in made.names:
        local.remove(name)


@pytest.fixture(scope="session")
def kept(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with small_database(embedded) as database:
        here = shelf(database, tmp_path_factory.mktemp("kept"))
        yield Kept(database, here, take(here.settings).name)
