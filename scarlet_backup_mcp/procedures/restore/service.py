"""`restore`: load beside the live database, check, then swap by name. Until the swap the live database is not touched.

The steps read top to bottom in `_restore_database`; those of a whole volume are in `volume_restore`. Whatever fails
before the swap leaves the live database as it was; what is cut off around it is finished or rolled back by the journal.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from ...errors import ConfirmationStale, RestoreInterrupted
from ...models.common import Step
from ...models.results import DependentReport, Restore
from ...progress import Progress
from ...store.lock import writer_lock
from ..catalog import records
from ..context import Target
from ..disk_space import drop_after
from ..own_names import scratch_prefix, undo_prefix
from ..recovery import journal as journals
from ..recovery.journal import VolumeJournal, maintenance_session, tidy_up
from ..recovery.volume_settlement import settle_first
from ..sandbox import pg_restore
from . import preflight, volume_plan, volume_restore
from .sql_comparison import Work
from .sql_plan import AS_USUAL, Plan, Wishes, plan
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
    target: Target,
    progress: Progress,
    backup: str,
    wishes: Wishes = AS_USUAL,
    *,
    confirmed: Confirmed | None = None,
) -> Restore:
    """Bring the database back from a backup's file, `latest`, or an undo point.

    `confirmed` None means that the caller has the user's consent for whatever `backup` names. Raises BackupToolError;
    its message says when the live database is not as it was.
    """
    settle_first(target, progress)
    if not is_volume(target, backup):
        return _restore_database(target, progress, backup, wishes, confirmed)
    target.directory.prepare()
    with writer_lock(target.directory.path, "restore"):
        _settle_database(target, progress)
        planned = volume_plan.plan(target, progress, backup, wishes)
        if confirmed is not None and confirmed != _confirms_volume(planned):
            raise ConfirmationStale(f"{planned.source} or the container is not the one that was confirmed.")
        _announce(target, planned)
        return volume_restore.restore(target, progress, planned)


def _restore_database(
    target: Target, progress: Progress, backup: str, wishes: Wishes, confirmed: Confirmed | None
) -> Restore:
    began = time.monotonic()
    progress.stage("looking at the container")
    journals.require_running(target)
    target.directory.prepare()
    with writer_lock(target.directory.path, "restore"), maintenance_session(target, progress) as guard:
        tidy_up(target, guard, restoring=True)
        with journals.reserve(target.directory.path) as reserved:
            planned = plan(target, progress, backup, guard, wishes)
            _check_confirmed(planned, confirmed)
            preflight.check_swap(target, guard, planned)
            stamp = _free_stamp(target, planned)
            undo = undo_prefix(target.database) + stamp if planned.live_oid else None
            if planned.undo is not None:
                work = from_undo_point(planned)
            else:
                work = from_backup(target, guard, planned, stamp, progress)
            work.warnings[:0] = [*target.settled, *planned.warnings]
            _announce(target, planned)
            try:
                progress.stage("swapping")
                with progress.uninterrupted():
                    unavailable, dependents = swap(target, guard, planned, work, undo, reserved)
                    if preflight.drops_undo(planned):
                        drop_the_oldest_undo(target, guard, planned, work)
            except BaseException as error:
                if planned.undo is None and not work.journalled:
                    drop_after(error, target.server, target.maintenance_database, work.incoming)
                raise
    return Restore(
        restored=True,
        dry_run=False,
        source=planned.source,
        source_kind="undo_point" if planned.undo else "backup",
        source_created_at=planned.created_at,
        source_proved_at=_proved_at(target, planned, work),
        drill=work.drill,
        database=target.database,
        server=target.about,
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


def propose(target: Target, progress: Progress, backup: str, wishes: Wishes = AS_USUAL) -> Proposal:
    """What a user has to be asked before a restore, and what the answer is bound to. Raises what a restore would refuse
    with, as far as a moment's look tells; RestoreInterrupted while a volume's restore waits to be settled, since its
    server does not run until then."""
    if isinstance(journals.read(target.directory.path), VolumeJournal):
        _refuse_while_one_waits(target)
    if is_volume(target, backup):
        volume = volume_plan.plan(target, progress, backup, wishes)
        return Proposal(volume.source, volume.question(target.settings.integrity_table), _confirms_volume(volume))
    journals.require_running(target)
    with target.server.session(target.maintenance_database, progress=progress) as session:
        planned = plan(target, progress, backup, session, wishes)
        preflight.check_swap(target, session, planned)
    dropping = planned.undo_points[-1].name if preflight.drops_undo(planned) else None
    question = planned.question(target.settings.integrity_table, dropping)
    return Proposal(planned.source, question, _confirms(planned))


def dry_run(target: Target, progress: Progress, backup: str, wishes: Wishes = AS_USUAL) -> Restore:
    """Everything that `restore` would check but for a drill, and what it would do. Writes nothing, neither here nor on
    the server."""
    began = time.monotonic()
    _refuse_while_one_waits(target)
    if is_volume(target, backup):
        return volume_restore.dry_run(target, progress, volume_plan.plan(target, progress, backup, wishes))
    journals.require_running(target)
    with target.server.session(target.maintenance_database, progress=progress) as session:
        planned = plan(target, progress, backup, session, wishes)
        work = Work(incoming=planned.source)
        work.warnings += planned.warnings
        preflight.check_swap(target, session, planned)
        if planned.known is not None and pg_restore.is_archive(planned.known):
            pg_restore.require_readable(planned.known, progress)
            work.did("Read the archive", f"{planned.known.entry.bytes:,} bytes; it is converted before it is loaded")
        elif planned.known is not None:
            reading = verified(target, planned, planned.known, progress, store=False)
            examination = reading.examination
            assert examination is not None
            work.code_page = examination.code_page
            work.rows_compared = examination.rows
            work.did("Verify the backup in full", f"{examination.bytes:,} bytes, {examination.rows:,} rows")
            made = reading.choice.roles if reading.choice else []
            preflight.check_load(target, session, planned, examination.roles, preflight.copy_bytes(planned), made)
        work.did("Look whether the server is ready for it", "room, roles, extensions and names")
    undo = f"{undo_prefix(target.database)}<time>" if planned.live_oid else None
    running = [d for d in target.host.dependents() if d.running] if wishes.stop_dependents else []
    for title in _would_do(planned, undo):
        work.steps.append(Step(step="Restore", title=title, ok=None, detail="not done: dry run"))
    return Restore(
        restored=False,
        dry_run=True,
        source=planned.source,
        source_kind="undo_point" if planned.undo else "backup",
        source_created_at=planned.created_at,
        source_proved_at=_proved_at(target, planned, work),
        database=target.database,
        server=target.about,
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


def _announce(target: Target, planned: Plan | VolumePlan) -> None:
    target.announce({"source": planned.source, **({"sha256": planned.sha256} if planned.sha256 else {})})


def _refuse_while_one_waits(target: Target) -> None:
    if waiting := journals.waiting(target):
        raise RestoreInterrupted(waiting, "Wait until it ends, or do that; then call `restore` again.")


def _would_do(planned: Plan, undo: str | None) -> list[str]:
    drilling = ["Restore it into a throw-away server and compare"] if planned.drills else []
    loading = (
        []
        if planned.undo
        else [*drilling, "Load it into a new database beside the live one", "Compare the rows of every table"]
    )
    keep = f"Keep the present database as {undo}" if undo else f"Give the new database the name {planned.database}"
    return [*loading, "Stop the services that depend on the database", keep, "Start those services again"]


def _proved_at(target: Target, planned: Plan, work: Work) -> datetime | None:
    return records.know(target, planned.entry).proved_with(work.code_page) if planned.entry else None


# -- up to the swap --------------------------------------------------------------------------------------------------


def _check_confirmed(planned: Plan, confirmed: Confirmed | None) -> None:
    if confirmed is not None and confirmed != _confirms(planned):
        raise ConfirmationStale(f"{planned.source} or the live database is not the one that was confirmed.")


def _confirms(planned: Plan) -> Confirmed:
    return Confirmed(planned.sha256, planned.live_oid)


def _confirms_volume(planned: VolumePlan) -> Confirmed:
    container = planned.place.container_id if planned.place else None
    return Confirmed(planned.sha256, None, container)


def _settle_database(target: Target, progress: Progress) -> None:
    """Before a volume is exchanged: settle a database's restore that was cut off there. Raises RestoreInterrupted."""
    if journals.read(target.directory.path) is not None:
        with maintenance_session(target, progress) as guard:
            tidy_up(target, guard, restoring=True)


def _free_stamp(target: Target, planned: Plan) -> str:
    """UTC now, to the second; waits for the next one while databases are named after this one."""
    prefixes = undo_prefix(target.database), scratch_prefix(target.database)
    while True:
        stamp = f"{datetime.now(UTC):%Y%m%d_%H%M%S}"
        if planned.databases.keys().isdisjoint(prefix + stamp for prefix in prefixes):
            return stamp
        time.sleep(0.05)
