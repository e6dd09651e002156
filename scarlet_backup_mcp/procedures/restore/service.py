"""`restore`: load beside the live database, check, then swap by name. Until the swap the live database is not touched.

The steps read top to bottom in `_restore_database`; those of a whole volume are in `volume_restore`. Whatever fails
before the swap leaves the live database as it was; what is cut off around it is finished or rolled back by the journal.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from ...errors import ConfirmationStale, RestoreInterrupted
from ...models.results import DependentReport, Restore
from ...progress import Progress
from ...store.lock import writer_lock
from ..catalog import records
from ..context import BackupContext
from ..disk_space import drop_after
from ..own_names import scratch_prefix, undo_prefix
from ..proc004 import RESTORE
from ..recovery import journal as journals
from ..recovery.journal import VolumeJournal, maintenance_session, tidy_up
from ..recovery.volume_settlement import settle_first
from ..sandbox import pg_restore
from . import preflight, volume_plan, volume_restore
from .sql_comparison import Staged
from .sql_plan import AS_USUAL, RestoreOptions, SqlPlan, plan
from .sql_staging import from_backup, from_undo_point, verified
from .sql_swap import drop_the_oldest_undo, swap
from .volume_plan import VolumePlan, is_volume


@dataclass(frozen=True)
class Confirmed:
    """What a user said yes to: this very content over this very database, or into this very container's volume."""

    sha256: str | None
    live_oid: int | None
    container_id: str | None = None


@dataclass(frozen=True)
class Proposal:
    """What a user is asked before a restore of `source`, and what a yes is bound to."""

    source: str
    question: str
    confirms: Confirmed


def restore(
    context: BackupContext,
    progress: Progress,
    backup: str,
    options: RestoreOptions = AS_USUAL,
    *,
    confirmed: Confirmed | None = None,
) -> Restore:
    """Bring the database back from a backup's file, `latest`, or an undo point.

    `confirmed` None means that the caller has the user's consent for whatever `backup` names. Raises BackupToolError;
    its message says when the live database is not as it was.
    """
    settle_first(context, progress)
    if not is_volume(context, backup):
        return _restore_database(context, progress, backup, options, confirmed)
    context.directory.prepare()
    with writer_lock(context.directory.path, "restore"):
        _settle_database(context, progress)
        planned = volume_plan.plan(context, progress, backup, options)
        if confirmed is not None and confirmed != _confirms_volume(planned):
            raise ConfirmationStale(f"{planned.source} or the container is not the one that was confirmed.")
        _announce(context, planned)
        return volume_restore.restore(context, progress, planned)


def _restore_database(
    context: BackupContext, progress: Progress, backup: str, options: RestoreOptions, confirmed: Confirmed | None
) -> Restore:
    began = time.monotonic()
    progress.stage("looking at the container")
    journals.require_running(context)
    context.directory.prepare()
    with writer_lock(context.directory.path, "restore"), maintenance_session(context, progress) as guard:
        tidy_up(context, guard, restoring=True)
        with journals.reserve(context.directory.path) as reserved:
            planned = plan(context, progress, backup, guard, options)
            _check_confirmed(planned, confirmed)
            preflight.check_swap(context, guard, planned)
            stamp = _free_stamp(context, planned)
            undo = undo_prefix(context.database) + stamp if planned.live_oid else None
            if planned.undo is not None:
                work = from_undo_point(planned)
            else:
                work = from_backup(context, guard, planned, stamp, progress)
            work.warnings[:0] = [*context.settled, *planned.warnings]
            _announce(context, planned)
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
    return Restore(
        restored=True,
        dry_run=False,
        source=planned.source,
        source_kind="undo_point" if planned.undo else "backup",
        source_created_at=planned.created_at,
        source_proved_at=_proved_at(context, planned, work),
        drill=work.drill,
        database=context.database,
        server=context.about,
        undo_point=undo,
        rows_compared=work.rows_compared,
        integrity_rows=work.integrity_rows,
        integrity_rows_before=planned.integrity_rows_now,
        unavailable_seconds=round(unavailable, 3),
        dependents=dependents,
        steps=work.steps,
        warnings=work.warnings,
        duration_seconds=round(time.monotonic() - began, 3),
        remedy=f'To undo this, call `restore` with backup="{undo}".' if undo else None,
    )


def propose(context: BackupContext, progress: Progress, backup: str, options: RestoreOptions = AS_USUAL) -> Proposal:
    """What a user has to be asked before a restore, and what the answer is bound to. Raises what a restore would refuse
    with, as far as a moment's look tells; RestoreInterrupted while a volume's restore waits to be settled, since its
    server does not run until then."""
    if isinstance(journals.read(context.directory.path), VolumeJournal):
        _refuse_while_one_waits(context)
    if is_volume(context, backup):
        volume = volume_plan.plan(context, progress, backup, options)
        return Proposal(volume.source, volume.question(context.settings.integrity_table), _confirms_volume(volume))
    journals.require_running(context)
    with context.server.session(context.maintenance_database, progress=progress) as session:
        planned = plan(context, progress, backup, session, options)
        preflight.check_swap(context, session, planned)
    dropping = planned.undo_points[-1].name if preflight.drops_undo(planned) else None
    question = planned.question(context.settings.integrity_table, dropping)
    return Proposal(planned.source, question, _confirms(planned))


def dry_run(context: BackupContext, progress: Progress, backup: str, options: RestoreOptions = AS_USUAL) -> Restore:
    """Everything that `restore` would check but for a drill, and what it would do. Writes nothing, neither here nor on
    the server."""
    began = time.monotonic()
    _refuse_while_one_waits(context)
    if is_volume(context, backup):
        return volume_restore.dry_run(context, progress, volume_plan.plan(context, progress, backup, options))
    journals.require_running(context)
    with context.server.session(context.maintenance_database, progress=progress) as session:
        planned = plan(context, progress, backup, session, options)
        work = Staged(staging=planned.source)
        work.warnings += planned.warnings
        preflight.check_swap(context, session, planned)
        if planned.record is not None and pg_restore.is_archive(planned.record):
            pg_restore.require_readable(planned.record, progress)
            work.did("Read the archive", f"{planned.record.entry.bytes:,} bytes; it is converted before it is loaded")
        elif planned.record is not None:
            reading = verified(context, planned, planned.record, progress, store=False)
            examination = reading.examination
            assert examination is not None
            work.code_page = examination.code_page
            work.rows_compared = examination.rows
            work.did("Verify the backup in full", f"{examination.bytes:,} bytes, {examination.rows:,} rows")
            made = reading.choice.roles if reading.choice else []
            preflight.check_load(context, session, planned, examination.roles, preflight.copy_bytes(planned), made)
        work.did("Look whether the server is ready for it", "room, roles, extensions and names")
    undo = f"{undo_prefix(context.database)}<time>" if planned.live_oid else None
    running = [d for d in context.host.dependents() if d.running] if options.stop_dependents else []
    for title in _would_do(planned, undo):
        work.steps.append(RESTORE.titled(title).reported(None, "not done: dry run"))
    return Restore(
        restored=False,
        dry_run=True,
        source=planned.source,
        source_kind="undo_point" if planned.undo else "backup",
        source_created_at=planned.created_at,
        source_proved_at=_proved_at(context, planned, work),
        database=context.database,
        server=context.about,
        undo_point=undo,
        rows_compared=work.rows_compared,
        integrity_rows=planned.integrity_rows,
        integrity_rows_before=planned.integrity_rows_now,
        unavailable_seconds=None,
        dependents=[DependentReport(name=d.name, action="would be restarted") for d in running],
        steps=work.steps,
        warnings=work.warnings,
        duration_seconds=round(time.monotonic() - began, 3),
        remedy="Call `restore` again with dry_run=false to do it.",
    )


def _announce(context: BackupContext, planned: SqlPlan | VolumePlan) -> None:
    context.announce({"source": planned.source, **({"sha256": planned.sha256} if planned.sha256 else {})})


def _refuse_while_one_waits(context: BackupContext) -> None:
    if waiting := journals.waiting(context):
        raise RestoreInterrupted(waiting, "Wait until it ends, or do that; then call `restore` again.")


def _would_do(planned: SqlPlan, undo: str | None) -> list[str]:
    drilling = ["Restore it into a throw-away server and compare"] if planned.drills else []
    loading = (
        []
        if planned.undo
        else [*drilling, "Load it into a new database beside the live one", "Compare the rows of every table"]
    )
    keep = f"Keep the present database as {undo}" if undo else f"Give the new database the name {planned.database}"
    return [*loading, "Stop the services that depend on the database", keep, "Start those services again"]


def _proved_at(context: BackupContext, planned: SqlPlan, work: Staged) -> datetime | None:
    return records.know(context, planned.entry).proved_with(work.code_page) if planned.entry else None


# -- up to the swap --------------------------------------------------------------------------------------------------


def _check_confirmed(planned: SqlPlan, confirmed: Confirmed | None) -> None:
    if confirmed is not None and confirmed != _confirms(planned):
        raise ConfirmationStale(f"{planned.source} or the live database is not the one that was confirmed.")


def _confirms(planned: SqlPlan) -> Confirmed:
    return Confirmed(planned.sha256, planned.live_oid)


def _confirms_volume(planned: VolumePlan) -> Confirmed:
    container = planned.container_info.container_id if planned.container_info else None
    return Confirmed(planned.sha256, None, container)


def _settle_database(context: BackupContext, progress: Progress) -> None:
    """Before a volume is exchanged: settle a database's restore that was cut off there. Raises RestoreInterrupted."""
    if journals.read(context.directory.path) is not None:
        with maintenance_session(context, progress) as guard:
            tidy_up(context, guard, restoring=True)


def _free_stamp(context: BackupContext, planned: SqlPlan) -> str:
    """UTC now, to the second; waits for the next one while databases are named after this one."""
    prefixes = undo_prefix(context.database), scratch_prefix(context.database)
    while True:
        stamp = f"{datetime.now(UTC):%Y%m%d_%H%M%S}"
        if planned.databases.keys().isdisjoint(prefix + stamp for prefix in prefixes):
            return stamp
        time.sleep(0.05)
