"""Restore a database: load it next to the live one, check, then swap by name.

The steps read top to bottom in `SqlRestore.run`. Whatever fails before the swap leaves the live database unchanged;
what is interrupted around it is finished or rolled back by the journal.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from ...errors import ConfirmationStale
from ...models.results import DependentReport, Restore
from ...postgres.server.session import Session
from ...progress import Progress
from ...store.lock import writer_lock
from ...wording import number_of
from .. import durations
from ..call_notes import CallNotes
from ..catalog import records
from ..context import BackupContext
from ..disk_space import drop_after
from ..own_names import scratch_prefix, undo_prefix
from ..proc004 import RESTORE
from ..recovery import journal as journals
from ..recovery.journal import maintenance_session, tidy_up
from ..sandbox import pg_restore
from . import preflight
from .options import AS_USUAL, UNDO, Confirmed, Proposal, RestoreOptions
from .outside import outside
from .sql_comparison import Staged
from .sql_plan import SqlPlan, plan
from .sql_staging import from_backup, from_undo_point, verified
from .sql_swap import drop_the_oldest_undo, swap


@dataclass(frozen=True)
class SqlRestore:
    """A restore of the database from an SQL backup or an undo point."""

    context: BackupContext
    progress: Progress
    source: str
    options: RestoreOptions
    notes: CallNotes

    def propose(self) -> Proposal:
        """Write the question. Raises RestoreRefused's children, HostError and ServerError."""
        context = self.context
        journals.require_running(context)
        with context.maintenance_session(self.progress) as session:
            planned = self._plan(session)
            preflight.check_swap(context, session, planned)
        dropping = planned.undo_points[-1].name if preflight.drops_undo(planned) else None
        question = planned.question(context.settings.integrity_table, dropping)
        return Proposal(planned.source, question, _confirms(planned))

    def dry_run(self) -> Restore:
        """Check what can be checked without writing anything."""
        began = time.monotonic()
        context, options = self.context, self.options
        journals.require_running(context)
        with context.maintenance_session(self.progress) as session:
            planned = self._plan(session)
            if planned.entry is not None:
                self.progress.expect(durations.of_verification(durations.content_bytes(planned.entry), "full"))
            work = Staged(staging=planned.source)
            work.warnings += planned.warnings
            preflight.check_swap(context, session, planned)
            self._check_source(session, planned, work)
            work.did("Check that the server is ready", "space, roles, extensions and names")
        undo = f"{undo_prefix(context.database)}<time>" if planned.live_oid else None
        running = [d for d in context.host.dependents() if d.running] if options.stop_dependents else []
        for title in _would_do(planned, undo):
            work.steps.append(RESTORE.titled(title).reported(None, "not done: dry run"))
        return self._report(planned, work, began, undo).model_copy(
            update={
                "comparison": planned.comparison(context.settings.integrity_table),
                "integrity_rows": planned.brings.integrity_rows,
                "dependents": [DependentReport(name=d.name, action="would be restarted") for d in running],
                "remedy": "To do it, restore without the dry run.",
                "next_call": self.options.call(planned.source),
            }
        )

    def run(self, confirmed: Confirmed | None) -> Restore:
        """Do it. Raises BackupToolError; its message says if the live database has changed."""
        began = time.monotonic()
        context, progress = self.context, self.progress
        progress.stage("looking at the container")
        journals.require_running(context)
        context.directory.prepare()
        left: list[str] = []
        with writer_lock(context.directory.path, "restore"), maintenance_session(context, progress) as guard:
            tidy_up(context, guard, self.notes, restoring=True)
            with (
                outside(context, guard, progress, left) as guard,
                journals.reserve(context.directory.path) as reserved,
            ):
                planned = self._plan(guard, asked=confirmed is not None)
                if planned.entry is not None:
                    size = durations.content_bytes(planned.entry)
                    progress.expect(durations.of_restore(size, drills=planned.drills))
                if confirmed is not None and confirmed != _confirms(planned):
                    raise ConfirmationStale(
                        f"{planned.source} or the live database has changed since the confirmation."
                    )
                preflight.check_swap(context, guard, planned)
                stamp = _free_stamp(context, planned)
                undo = undo_prefix(context.database) + stamp if planned.live_oid else None
                if planned.undo is not None:
                    work = from_undo_point(planned)
                else:
                    work = from_backup(context, guard, planned, stamp, progress)
                work.warnings[:0] = [*self.notes.settled, *planned.warnings]
                self.notes.announce(planned.identity)
                try:
                    progress.stage("swapping")
                    with progress.uninterrupted():
                        unavailable, dependents = swap(context, guard, planned, work, undo, reserved)
                        if preflight.drops_undo(planned):
                            drop_the_oldest_undo(context, guard, planned, work)
                except BaseException as error:
                    if planned.undo is None and not work.journalled:
                        drop_after(error, context.server, context.maintenance_database, work.staging)
                    raise
        work.warnings += left
        return self._report(planned, work, began, undo).model_copy(
            update={
                "restored": True,
                "dry_run": False,
                "unavailable_seconds": round(unavailable, 3),
                "dependents": dependents,
                "remedy": UNDO if undo else None,
                "next_call": AS_USUAL.call(undo) if undo else None,
            }
        )

    # ----------------------------------------------------------------------------------------------------------------

    def _plan(self, session: Session, *, asked: bool = False) -> SqlPlan:
        return plan(self.context, self.progress, self.source, session, self.options, asked=asked)

    def _check_source(self, session: Session, planned: SqlPlan, work: Staged) -> None:
        record = planned.record
        if record is None:
            return
        if pg_restore.is_archive(record):
            pg_restore.require_readable(record, self.progress)
            work.did("Read the archive", f"{record.entry.bytes:,} bytes; it is converted before it is loaded")
            return
        reading = verified(self.context, planned, record, self.progress, store=False)
        examination = reading.examination
        assert examination is not None
        work.code_page = examination.code_page
        work.rows_compared = examination.rows
        work.did("Verify the backup in full", f"{examination.bytes:,} bytes, {number_of(examination.rows, 'row')}")
        made = reading.choice.roles if reading.choice else []
        preflight.check_load(self.context, session, planned, examination.roles, preflight.copy_bytes(planned), made)

    def _report(self, planned: SqlPlan, work: Staged, began: float, undo: str | None) -> Restore:
        """What a dry run and a restore have in common; as of a dry run."""
        record = records.sql_record(self.context, planned.entry) if planned.entry else None
        return Restore(
            restored=False,
            dry_run=True,
            source=planned.source,
            source_kind="undo_point" if planned.undo else "backup",
            source_created_at=planned.created_at,
            source_proved_at=record.proved_with(work.code_page) if record else None,
            drill=work.drill,
            database=self.context.database,
            server=self.context.about,
            undo_point=undo,
            rows_compared=work.rows_compared,
            integrity_rows=work.integrity_rows,
            integrity_rows_before=planned.now.integrity_rows,
            unavailable_seconds=None,
            dependents=[],
            steps=work.steps,
            warnings=work.warnings,
            duration_seconds=round(time.monotonic() - began, 3),
            remedy=None,
        )


def _confirms(planned: SqlPlan) -> Confirmed:
    return Confirmed(planned.sha256, planned.live_oid)


def _would_do(planned: SqlPlan, undo: str | None) -> list[str]:
    drilling = ["Restore it into a sandbox and compare"] if planned.drills else []
    loading = (
        []
        if planned.undo
        else [*drilling, "Load it into a new database next to the live one", "Compare the rows of every table"]
    )
    keep = f"Keep the current database as {undo}" if undo else f"Give the new database the name {planned.database}"
    return [*loading, "Stop the services that depend on the database", keep, "Start those services again"]


def _free_stamp(context: BackupContext, planned: SqlPlan) -> str:
    """UTC now, to the second; waits for the next one while databases are named after this one."""
    prefixes = undo_prefix(context.database), scratch_prefix(context.database)
    while True:
        stamp = f"{datetime.now(UTC):%Y%m%d_%H%M%S}"
        if planned.databases.keys().isdisjoint(prefix + stamp for prefix in prefixes):
            return stamp
        time.sleep(0.05)
