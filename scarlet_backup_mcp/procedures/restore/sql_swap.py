"""The moments of a restore in which the live database changes, under the journal."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from ...errors import BackupToolError, NextCall, RestoreFailed, RestoreInterrupted, StoreError
from ...models.results import DependentReport
from ...postgres.server import catalogue as pg
from ...postgres.server import databases
from ...postgres.server.session import Session
from ...store.reserved import Reserved
from .. import disk_space
from ..context import BackupContext
from ..own_names import noted, without_note
from ..recovery import journal as journals
from ..recovery.journal import Journal, StoppedContainer
from . import preflight
from .sql_comparison import Staged
from .sql_plan import SqlPlan


def swap(
    context: BackupContext, guard: Session, planned: SqlPlan, work: Staged, undo: str | None, reserved: Reserved
) -> tuple[float, list[DependentReport]]:
    """Swap; return the seconds in which nobody could connect, and what was done to dependents. The journal takes the
    space that is `reserved` for it."""
    all_dependents = context.host.dependents()
    running = [d for d in all_dependents if d.running]
    stopping = [StoppedContainer(id=d.id, name=d.name) for d in running] if planned.options.stop_dependents else []
    journal = Journal(
        source=planned.source,
        source_kind="undo_point" if planned.undo else "backup",
        container=context.container_info.container,
        database=context.database,
        live_oid=planned.live_oid,
        incoming=work.staging,
        incoming_oid=work.incoming_oid,
        undo=undo,
        system_identifier=planned.facts.system_identifier,
        dependents=stopping,
        started_at=datetime.now(UTC),
    )
    journals.write(context.directory.path, journal, reserved)
    work.journalled = True
    try:
        if planned.undo is None:
            databases.set_comment(guard, work.staging, work.comment)
        for container in stopping:
            context.host.stop_container(container.id)
        with context.maintenance_session() as ending:
            comments = _comments(context, guard, work, undo)
            began = databases.swap(guard, ending, context.database, work.staging, undo, comments)
        with context.server.session(context.database):
            unavailable = time.monotonic() - began
    except BaseException as error:
        _settle(context, journal, error)
        raise
    if work.template:
        databases.set_template(guard, context.database, template=True)  # only now: a template can't be dropped
    work.did("Swap the databases by name, in one transaction", f"{unavailable:.3f} s without connections")
    reports = journals.start(context, stopping)
    reports += [DependentReport(name=d.name, action="left stopped") for d in all_dependents if not d.running]
    reports += [
        DependentReport(name=d.name, action="left running") for d in running if not planned.options.stop_dependents
    ]
    try:
        journals.remove(context.directory.path)
    except StoreError as error:
        work.warnings.append(f"{error.message} The next backup or restore removes it and finds nothing else to do.")
    for report in reports:
        if report.action == "start failed":
            work.warnings.append(f"{report.name} could not be started again: {report.detail} Start it by hand.")
    work.did("Start the services that depend on the database", ", ".join(r.name for r in reports) or "there are none")
    return unavailable, reports


def _comments(context: BackupContext, guard: Session, work: Staged, undo: str | None) -> dict[str, str | None]:
    """Return the comments that change with the swap, by the databases' names after it."""
    found = pg.databases(guard, sizes=False)
    now = {context.database: found[work.staging].comment}
    if undo is not None:
        now[undo] = found[context.database].comment
    wanted = {context.database: without_note(now[context.database])}
    if undo is not None:
        wanted[undo] = noted(now[undo], context.database)
    return {name: comment for name, comment in wanted.items() if comment != now[name]}


def _settle(context: BackupContext, journal: Journal, error: BaseException) -> None:
    """Finish or roll back after a failure around the swap, as the server is on one side or the other of it."""
    try:
        with context.maintenance_session() as session:
            swapped, reports = journals.settle(context, session, journal)
    except BackupToolError as problem:
        raise RestoreInterrupted(
            f"The restore was interrupted at the swap ({error}), and can't be settled now: {problem.message} "
            "Both databases exist, whichever name they have."
        ) from error
    down = "".join(
        f" {report.name} could not be started again: {report.detail}"
        for report in reports
        if report.action == "start failed"
    )
    if swapped:
        raise RestoreFailed(
            f"The databases were swapped, but afterwards something failed: {error}{down}",
            f"Check the database. To undo the restore, restore {journal.undo}.",
            NextCall(tool="db_integrity"),
        ) from error
    if down and isinstance(error, BackupToolError):
        error.message += down
        error.remedy += " Start by hand what could not be started."


def drop_the_oldest_undo(context: BackupContext, guard: Session, planned: SqlPlan, work: Staged) -> None:
    """Drop it only once the restore has succeeded: until then every undo point may be needed."""
    for point in planned.undo_points[preflight.UNDO_POINTS - 1 :]:
        try:
            disk_space.drop(context.server, guard, point.name)
            work.did("Drop the oldest undo point, as asked", point.name)
        except BackupToolError as error:
            work.warnings.append(f"The undo point {point.name} could not be dropped: {error.message}")
