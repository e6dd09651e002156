"""What is read in the dump's snapshot besides the dump: while it runs if that takes nothing from it, else after it."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import suppress

from ...errors import HostError, ServerError
from ...models.manifest import Recomputed
from ...postgres.server.counting import Counted
from ...postgres.server.recomputed import recomputed
from ...progress import Progress
from .. import durations
from ..context import BackupContext
from .meanwhile import Meanwhile, result
from .sql_dump import Snapshot, count, size_of, tables_to_count

MOST_TABLES = 100
"""Most tables to read during the dump: reading locks them too, and the server's space for locks may be short."""
RECOMPUTED_SECONDS = 180
"""Time limit for reading what a load will recompute."""


class SnapshotReading:
    """Counts rows, and reads what a load will recompute. What can't be read during the dump is read after it, when the
    locks of pg_dump and of whoever waited for those are gone."""

    def __init__(self, context: BackupContext, snapshot: Snapshot, meanwhile: Meanwhile) -> None:
        self._context, self._snapshot, self._meanwhile = context, snapshot, meanwhile
        self._counted: Future[Counted] | None = None
        self._recomputed: Future[list[Recomputed]] | None = None

    def begin(self) -> None:
        """Begin during the dump, which has its connection and its locks by now."""
        if self._counted is None and len(tables_to_count(self._snapshot)) <= MOST_TABLES:
            progress = self._meanwhile.progress
            counted = self._counted = self._meanwhile.start(lambda: self._count(progress))

            def recompute() -> list[Recomputed]:
                counted.exception()  # one connection at a time
                return self._recompute(progress)

            self._recomputed = self._meanwhile.start(recompute)

    def counted(self, progress: Progress) -> Counted:
        """Return the rows that were counted during the dump."""
        progress.stage("counting the rows of the snapshot", seconds=durations.of_reading(size_of(self._snapshot)))
        if self._counted is not None:
            with suppress(ServerError, HostError):
                return result(self._counted, progress)
        return Counted()

    def recomputed(self, progress: Progress) -> tuple[list[Recomputed] | None, list[str]]:
        """Read what a load will recompute; return a warning if that can't be read: the dump is complete without it."""
        progress.stage("reading what a load will recompute")
        if self._recomputed is not None:
            with suppress(ServerError, HostError):
                found = result(self._recomputed, progress)
                if not any(one.why_not for one in found):
                    return found, []
        try:
            return self._recompute(progress), []
        except (ServerError, HostError) as error:
            return None, [
                "What a load recomputes (stored generated columns, materialised views) could not be read, so no drill "
                f"or restore of this backup compares it. The backup is complete all the same: {error.message}"
            ]

    def _count(self, progress: Progress) -> Counted:
        return count(self._context, self._snapshot, tables_to_count(self._snapshot), progress)

    def _recompute(self, progress: Progress) -> list[Recomputed]:
        context, snapshot = self._context, self._snapshot
        return recomputed(
            context.server, context.database, snapshot.server, progress, RECOMPUTED_SECONDS, snapshot.name
        )
