"""What drills are tried on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.drill import sql as drills
from scarlet_backup_mcp.procedures.sandbox.lifecycle import SandboxServer, sandbox_server
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings

from ..helpers.drill import (
    FOREIGN,
    Databases,
    SandboxServers,
)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> SandboxServers:
    """Each drill has a throw-away server of its own, as always; the test can reach into it."""
    kept = SandboxServers()

    @contextmanager
    def remembered(context: BackupContext, progress: Progress, tables: int = 0) -> Generator[SandboxServer]:
        with sandbox_server(context, progress, tables) as ready:
            kept.found.append(ready)
            yield ready

    monkeypatch.setattr(drills, "sandbox_server", remembered)
    return kept


@pytest.fixture(scope="session")
def foreign(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Databases, Settings]]:
    databases = Databases(embedded, tmp_path_factory.mktemp("foreign"))
    role = databases.make_role()
    yield databases, databases.make(f"{FOREIGN} GRANT SELECT ON moods TO {role}; ALTER TABLE moods OWNER TO {role};")
    databases.drop()
