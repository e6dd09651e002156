"""Nobody but us is in a database from its last comparison to the swap, so that what was compared is what goes live."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from ...errors import RestoreFailed
from ...models.manifest import DatabaseProperties
from ...postgres.server import databases
from ...postgres.server.session import Session
from ...progress import Progress
from ..context import BackupContext


@contextmanager
def closed_doors(
    context: BackupContext, name: str, wanted: DatabaseProperties | None, options: Mapping[str, str], progress: Progress
) -> Generator[Session]:
    """Give the one session in a staging database; all others are ended, and nobody comes in again before the swap.

    Until here superusers could come in, which can't be helped while a load makes connections of its own. Raises
    RestoreFailed when somebody is in there at the end all the same.
    """
    limit = -1 if wanted is None else wanted.connection_limit
    alone = {**options, "max_parallel_workers_per_gather": "0"}
    with (
        context.server.session(name, alone, progress) as inside,
        context.maintenance_session() as outside,
    ):
        databases.close_doors(outside, name, inside.pid, limit)
        yield inside
        if others := databases.strangers(outside, name, inside.pid):
            raise RestoreFailed(
                f"Another client was connected to the new database during the comparison: {'; '.join(others)}. The "
                "live database is unchanged.",
                "End that program's connections, then restore again.",
            )
