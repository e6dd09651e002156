"""`restore`: load beside the live database, check, then swap by name. Until the swap the live database is not touched.

The steps read top to bottom in `restore`. Whatever fails before the swap leaves the live database as it was; what is
cut off around the swap is finished or rolled back by the journal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..errors import (
    BackupNotValid,
    BackupToolError,
    ConfirmationStale,
    QueryFailed,
    RestoreFailed,
    RestoreInterrupted,
)
from ..models import Check, DatabaseProperties, DependentReport, Manifest, Restore, Step, rows_by_table
from ..postgres import catalogue as pg
from ..postgres import databases
from ..postgres.quoting import identifier
from ..postgres.server import OWN_SEARCH_PATH, Session
from ..progress import Progress
from ..store.lock import writer_lock
from . import journal as journals
from . import preflight, verify
from .catalogue import scratch_prefix, undo_prefix
from .examine import Examination
from .journal import Journal, StoppedContainer, maintenance_session, tidy_up
from .load import load
from .sources import Plan, plan
from .target import TAG, Target

# What the checks are about that only a manifest makes possible.
_MANIFEST_ONLY = ("manifest", "name")


@dataclass(frozen=True)
class Confirmed:
    """What a user said yes to: this very content over this very database."""

    sha256: str | None
    live_oid: int | None


@dataclass
class Work:
    """What a restore has come to know on its way."""

    incoming: str
    incoming_oid: int = 0
    rows_compared: int = 0
    integrity_rows: int | None = None
    comment: str | None = None
    steps: list[Step] = field(default_factory=list[Step])
    warnings: list[str] = field(default_factory=list[str])

    def did(self, title: str, detail: str = "") -> None:
        """Note a step that succeeded."""
        self.steps.append(Step(step="Restore", title=title, ok=True, detail=detail))


def restore(
    target: Target,
    progress: Progress,
    backup: str,
    *,
    accept_foreign: bool = False,
    accept_other_database: bool = False,
    stop_dependents: bool = True,
    drop_oldest_undo: bool = False,
    confirmed: Confirmed | None = None,
) -> Restore:
    """Bring the database back from a backup's file, `latest`, or an undo point.

    `confirmed` None means that the caller has the user's consent for whatever `backup` names. Raises BackupToolError;
    its message says when the live database is not as it was.
    """
    began = time.monotonic()
    progress.stage("looking at the container")
    journals.require_running(target)
    target.directory.prepare()
    with writer_lock(target.directory.path, "restore"), maintenance_session(target, progress) as guard:
        told = tidy_up(target, guard, restoring=True)
        planned = plan(
            target,
            progress,
            backup,
            guard,
            accept_foreign=accept_foreign,
            accept_other_database=accept_other_database,
        )
        _check_confirmed(planned, confirmed)
        preflight.check_swap(target, guard, planned, drop_oldest_undo=drop_oldest_undo)
        stamp = _free_stamp(target, planned)
        undo = undo_prefix(target.database) + stamp if planned.live_oid else None
        if planned.undo is not None:
            work = _from_undo_point(target, planned)
        else:
            work = _from_backup(target, guard, planned, stamp, progress)
        work.warnings[:0] = [*told, *planned.warnings]
        try:
            progress.stage("swapping")
            with progress.uninterrupted():
                unavailable, dependents = _swap(target, guard, planned, work, undo, stop_dependents)
                if preflight.drops_undo(planned, drop_oldest_undo):
                    _drop_oldest_undo(guard, planned, work)
        except BaseException:
            if planned.undo is None:
                _drop_scratch(target, work)
            raise
    return Restore(
        restored=True,
        dry_run=False,
        source=planned.source,
        source_kind="undo_point" if planned.undo else "backup",
        source_created_at=planned.created_at,
        database=target.database,
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


def propose(
    target: Target,
    progress: Progress,
    backup: str,
    *,
    accept_foreign: bool = False,
    accept_other_database: bool = False,
    drop_oldest_undo: bool = False,
) -> tuple[Plan, str]:
    """What a user has to be asked before a restore, and what the answer is bound to. Raises what a restore would refuse
    with, as far as a moment's look tells."""
    journals.require_running(target)
    with target.server.session(target.maintenance_database, progress=progress) as session:
        planned = plan(
            target,
            progress,
            backup,
            session,
            accept_foreign=accept_foreign,
            accept_other_database=accept_other_database,
        )
        preflight.check_swap(target, session, planned, drop_oldest_undo=drop_oldest_undo)
    dropping = planned.undo_points[-1].name if preflight.drops_undo(planned, drop_oldest_undo) else None
    return planned, planned.question(target.settings.integrity_table, dropping)


def dry_run(
    target: Target,
    progress: Progress,
    backup: str,
    *,
    accept_foreign: bool = False,
    accept_other_database: bool = False,
    stop_dependents: bool = True,
    drop_oldest_undo: bool = False,
) -> Restore:
    """Everything that `restore` would check, and what it would do. Writes nothing, neither here nor on the server."""
    began = time.monotonic()
    if journals.read(target.directory.path) is not None:
        raise RestoreInterrupted(
            "A restore was cut off and has not been tidied up yet.", "Call `backup` or `restore`: either does it first."
        )
    with target.server.session(target.maintenance_database, progress=progress) as session:
        planned = plan(
            target,
            progress,
            backup,
            session,
            accept_foreign=accept_foreign,
            accept_other_database=accept_other_database,
        )
        work = Work(incoming=planned.source)
        work.warnings += planned.warnings
        preflight.check_swap(target, session, planned, drop_oldest_undo=drop_oldest_undo)
        if planned.known is not None:
            examination = _verified(target, planned, progress, store=False)
            work.rows_compared = examination.rows
            work.did("Verify the backup in full", f"{examination.bytes:,} bytes, {examination.rows:,} rows")
            preflight.check_load(target, session, planned, examination.roles, preflight.copy_bytes(planned))
        work.did("Look whether the server is ready for it", "room, roles, extensions and names")
    undo = f"{undo_prefix(target.database)}<time>" if planned.live_oid else None
    running = [d for d in target.host.dependents() if d.running] if stop_dependents else []
    for title in _would_do(planned, undo):
        work.steps.append(Step(step="Restore", title=title, ok=None, detail="not done: dry run"))
    return Restore(
        restored=False,
        dry_run=True,
        source=planned.source,
        source_kind="undo_point" if planned.undo else "backup",
        source_created_at=planned.created_at,
        database=target.database,
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


def _would_do(planned: Plan, undo: str | None) -> list[str]:
    loading = (
        [] if planned.undo else ["Load it into a new database beside the live one", "Compare the rows of every table"]
    )
    keep = f"Keep the present database as {undo}" if undo else f"Give the new database the name {planned.database}"
    return [*loading, "Stop the services that depend on the database", keep, "Start those services again"]


# -- up to the swap --------------------------------------------------------------------------------------------------


def _check_confirmed(planned: Plan, confirmed: Confirmed | None) -> None:
    if confirmed is not None and confirmed != Confirmed(planned.sha256, planned.live_oid):
        raise ConfirmationStale(f"{planned.source} or the live database is not the one that was confirmed.")


def _free_stamp(target: Target, planned: Plan) -> str:
    """UTC now, to the second; waits for the next one while databases are named after this one."""
    prefixes = undo_prefix(target.database), scratch_prefix(target.database)
    while True:
        stamp = f"{datetime.now(UTC):%Y%m%d_%H%M%S}"
        if planned.databases.keys().isdisjoint(prefix + stamp for prefix in prefixes):
            return stamp
        time.sleep(0.05)


def _from_undo_point(target: Target, planned: Plan) -> Work:
    work = Work(incoming=planned.source, incoming_oid=planned.databases[planned.source].oid)
    work.comment = planned.databases[planned.source].comment
    work.integrity_rows = planned.integrity_rows
    work.did("Find the undo point", planned.source)
    return work


def _verified(target: Target, planned: Plan, progress: Progress, *, store: bool) -> Examination:
    assert planned.known is not None
    checks, examination = verify.full(target, planned.known, progress, store=store)
    failed = [check for check in checks if check.ok is False and not _excused(planned, check)]
    if failed:
        shown = "; ".join(f"{c.check}: {c.detail or f'expected {c.expected}, found {c.found}'}" for c in failed)
        raise BackupNotValid(f"{planned.source} did not pass verification: {shown}.")
    if planned.sha256 != examination.sha256:
        raise ConfirmationStale(f"{planned.source} changed while it was looked at.", "Call `restore` again.")
    return examination


def _excused(planned: Plan, check: Check) -> bool:
    """A wrong clock or a missing manifest is the user's to accept (and was), damage is not."""
    return check.check == verify.CLOCK_CHECK or (planned.manifest is None and check.check in _MANIFEST_ONLY)


def _from_backup(target: Target, guard: Session, planned: Plan, stamp: str, progress: Progress) -> Work:
    assert planned.entry is not None
    examination = _verified(target, planned, progress, store=True)
    preflight.check_load(target, guard, planned, examination.roles, preflight.copy_bytes(planned))
    wanted = _wanted_properties(target, planned)
    work = Work(incoming=scratch_prefix(target.database) + stamp)
    work.comment = wanted.comment if wanted else None
    work.did("Verify the backup in full", f"{examination.bytes:,} bytes, {examination.rows:,} rows")
    work.did("Look whether the server is ready for it", "room, roles, extensions and names")
    progress.stage("making a new database beside the live one")
    quietly = databases.quietly(planned.facts.version_num)
    marker = f"{TAG}: scratch of a restore of {planned.source}"
    try:
        with progress.uninterrupted():
            work.incoming_oid, warnings = databases.create(guard, work.incoming, wanted, marker)
        work.warnings += warnings
        if planned.manifest is not None and "public" not in planned.manifest.schemas:
            with target.server.session(work.incoming, quietly) as session:
                session.execute("DROP SCHEMA IF EXISTS public")
        load(target.server, work.incoming, planned.entry, examination.sha256, quietly, progress)
        work.did("Load it into a new database beside the live one", work.incoming)
        _compare(target, work, examination, quietly, progress)
        if planned.manifest is None:
            _settle_schemas(target, planned, work, quietly)
        if wanted is not None:
            progress.stage("putting back owner, privileges and settings")
            maintenance = target.maintenance_database
            work.warnings += databases.apply_properties(target.server, maintenance, work.incoming, wanted, quietly)
            work.did("Put back owner, privileges and settings", f"{len(wanted.settings)} settings")
        _check_integrity_rows(target, planned, work)
    except BaseException:
        _drop_scratch(target, work)
        raise
    return work


def _wanted_properties(target: Target, planned: Plan) -> DatabaseProperties | None:
    """From the manifest; for a file without one, what the live database has."""
    if planned.manifest is not None:
        return planned.manifest.properties
    if planned.live_oid is None:
        return None
    with target.server.session(target.database) as session:
        return pg.properties(session)


def _compare(
    target: Target, work: Work, examination: Examination, options: Mapping[str, str], progress: Progress
) -> None:
    progress.stage("comparing the rows of every table")
    with target.server.session(work.incoming, options, progress) as session:
        tables = pg.tables(session)
        dumped = rows_by_table(examination.tables)
        work.rows_compared, differences = pg.compare_rows(dumped, tables, pg.count_rows(session, tables))
        if differences:
            shown = "; ".join(f"{d.table}: {d.dumped} in the file, {d.counted} loaded" for d in differences[:5])
            raise RestoreFailed(f"The loaded database does not hold the backup's rows: {shown}.")
        work.did("Compare the rows of every table", f"{work.rows_compared:,} rows in {len(dumped)} tables")
        progress.stage("analysing the tables for the planner")
        session.execute("ANALYZE")


def _settle_schemas(target: Target, planned: Plan, work: Work, options: Mapping[str, str]) -> None:
    """What a file without a manifest does not say: whether there was a `public`, and a search_path where there is no
    live database to take it from. Without its search_path Letta finds no table."""
    if planned.live_oid is not None:
        with target.server.session(target.database) as session:
            had_public = "public" in pg.schemas(session)
        if not had_public:
            with suppress(QueryFailed), target.server.session(work.incoming, options) as session:
                session.execute("DROP SCHEMA IF EXISTS public")  # refused, and rightly, when it holds something
        return
    table = target.settings.integrity_table
    with target.server.session(work.incoming, {**options, **OWN_SEARCH_PATH}) as session:
        if pg.find_table(session, table) is not None:
            return
    with target.server.session(work.incoming, options) as session:
        holders = [t.schema for t in pg.tables(session) if t.name == table]
        if len(holders) == 1:
            schema, database = identifier(holders[0]), identifier(work.incoming)
            session.execute(f'ALTER DATABASE {database} SET search_path = {schema}, "$user", public')
            work.warnings.append(
                f"The file does not tell the database's settings. search_path was set to {schema}, since {table} lies "
                "there; set others again by hand."
            )
        else:
            work.warnings.append(
                f"The file does not tell the database's settings, and {table} is not found by the search_path: "
                f"set it with ALTER DATABASE {identifier(target.database)} SET search_path = …"
            )


def _check_integrity_rows(target: Target, planned: Plan, work: Work) -> None:
    """PROC-004's step 5 in the new database, by its own search_path."""
    manifest = planned.manifest
    table = manifest.integrity_table if manifest else target.settings.integrity_table
    found = pg.count_table(target.server, work.incoming, table)
    if manifest is not None and found != manifest.integrity_rows:
        raise RestoreFailed(
            f"In the restored database {table} shows {_rows(found)} instead of {_rows(manifest.integrity_rows)}. "
            "The live database is as it was.",
            _role_settings(target, manifest),
        )
    if found is None and planned.integrity_rows_now is not None:
        raise RestoreFailed(f"The file holds no table {table}, which the live database has. That is as it was.")
    work.integrity_rows = found
    work.did(f"SELECT count(*) FROM {table}, in the new database", _rows(found))


def _rows(count: int | None) -> str:
    return "no such table" if count is None else f"{count:,} rows"


def _role_settings(target: Target, manifest: Manifest) -> str | None:
    """A search_path of the role's own is in no dump of a database: how to give it back."""
    user = target.server.user
    settings = "; ".join(setting for role in manifest.roles if role.name == user for setting in role.settings)
    return f"The role {user} had settings of its own then. Set them again first: {settings}." if settings else None


def _drop_oldest_undo(guard: Session, planned: Plan, work: Work) -> None:
    """Only once the restore has succeeded: until then every undo point may be needed."""
    for point in planned.undo_points[preflight.UNDO_POINTS - 1 :]:
        try:
            databases.drop(guard, point.name)
            work.did("Drop the oldest undo point, as asked", point.name)
        except BackupToolError as error:
            work.warnings.append(f"The undo point {point.name} could not be dropped: {error.message}")


def _drop_scratch(target: Target, work: Work) -> None:
    """Drop what was loaded; once swapped it no longer has this name. Failing that, the next call sweeps it."""
    with suppress(BackupToolError), target.server.session(target.maintenance_database) as session:
        databases.drop(session, work.incoming)


# -- the swap --------------------------------------------------------------------------------------------------------


def _swap(
    target: Target, guard: Session, planned: Plan, work: Work, undo: str | None, stop_dependents: bool
) -> tuple[float, list[DependentReport]]:
    """Gives the seconds in which nobody could connect, and what was done to dependents."""
    all_dependents = target.host.dependents()
    running = [d for d in all_dependents if d.running]
    stopping = [StoppedContainer(id=d.id, name=d.name) for d in running] if stop_dependents else []
    journal = Journal(
        source=planned.source,
        source_kind="undo_point" if planned.undo else "backup",
        container=target.place.container,
        database=target.database,
        live_oid=planned.live_oid,
        incoming=work.incoming,
        incoming_oid=work.incoming_oid,
        undo=undo,
        system_identifier=planned.facts.system_identifier,
        dependents=stopping,
        started_at=datetime.now(UTC),
    )
    journals.write(target.directory.path, journal)
    try:
        if planned.undo is None:
            databases.set_comment(guard, work.incoming, work.comment)
        for container in stopping:
            target.host.stop_container(container.id)
        with target.server.session(target.maintenance_database) as ending:
            began = databases.swap(guard, ending, target.database, work.incoming, undo)
        with target.server.session(target.database):
            unavailable = time.monotonic() - began
    except BaseException as error:
        _settle(target, journal, error)
        raise
    work.did("Swap the databases by name, in one transaction", f"{unavailable:.3f} s without connections")
    reports = journals.start(target, stopping)
    reports += [DependentReport(name=d.name, action="left stopped") for d in all_dependents if not d.running]
    reports += [DependentReport(name=d.name, action="left running") for d in running if not stop_dependents]
    journals.remove(target.directory.path)
    for report in reports:
        if report.action == "start failed":
            work.warnings.append(f"{report.name} could not be started again: {report.detail} Start it by hand.")
    work.did("Start the services that depend on the database", ", ".join(r.name for r in reports) or "there are none")
    return unavailable, reports


def _settle(target: Target, journal: Journal, error: BaseException) -> None:
    """After a failure around the swap: finish or roll back, as the server is on one side or the other of it."""
    try:
        with target.server.session(target.maintenance_database) as session:
            swapped, reports = journals.settle(target, session, journal)
    except BackupToolError as problem:
        raise RestoreInterrupted(
            f"The restore was cut off around the swap ({error}), and can't be settled now: {problem.message} "
            "Whichever side it is on, both databases are there."
        ) from error
    down = "".join(
        f" {report.name} could not be started again: {report.detail}"
        for report in reports
        if report.action == "start failed"
    )
    if swapped:
        raise RestoreFailed(
            f"The databases were swapped, but afterwards something failed: {error}{down}",
            f'Call `db_integrity`; to undo the restore call `restore` with backup="{journal.undo}".',
        ) from error
    if down and isinstance(error, BackupToolError):
        error.message += down
        error.remedy += " Start by hand what could not be started."
