"""Where a restore is connected while it renames the database."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime

from ...postgres.server import databases
from ...postgres.server.session import Session
from ...progress import Progress
from .. import disk_space
from ..context import TAG, BackupContext
from ..own_names import scratch_prefix


@contextmanager
def outside(context: BackupContext, guard: Session, progress: Progress, warnings: list[str]) -> Generator[Session]:
    """Give a session in another database than the one that is renamed: `guard`, unless the server had no other database
    for that. Then it is one in a scratch database, which is dropped at the end; add to `warnings` if that fails.

    PostgreSQL renames no database that its own session is in, or any other, so that the swap ends `guard`, which holds
    the server's restore lock, with all other sessions in the database."""
    if guard.identity.database != context.database:
        yield guard
        return
    name = f"{scratch_prefix(context.database)}{datetime.now(UTC):%Y%m%d_%H%M%S}"
    try:
        databases.create(guard, name, None, f"{TAG}: a restore of {context.database} is connected to it", private=True)
        context.maintained_from = name
        with context.maintenance_session(progress) as session:
            yield session
    finally:
        context.maintained_from = None
        if problem := disk_space.give_back(context.server, context.database, name):
            warnings.append(f"{problem.message} {problem.remedy}")
