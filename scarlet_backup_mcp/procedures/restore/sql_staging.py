"""What comes in by a restore: a backup loaded into a database next to the live one, or an undo point that is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ...errors import (
    BackupNotValid,
    ConfirmationStale,
    ConstraintViolated,
    PreflightFailed,
    QueryFailed,
    WillNotLoad,
    again,
)
from ...hosts.endings import still_there
from ...models.common import SearchPath
from ...models.manifest import DatabaseProperties, Manifest
from ...models.verification import Check
from ...postgres.dump.brought_code import BroughtCode
from ...postgres.dump.contents import Contents
from ...postgres.dump.events import Handler
from ...postgres.dump.roles import role_names
from ...postgres.server import catalogue as pg
from ...postgres.server import counting, databases, programs
from ...postgres.server.effective import SEARCH_PATH
from ...postgres.server.quoting import identifier
from ...postgres.server.session import OWN_SEARCH_PATH, Session
from ...progress import Progress
from ...wording import number_of
from .. import durations
from ..catalog.records import BackupRecord
from ..context import TAG, BackupContext
from ..disk_space import drop_after
from ..drill.sql import Rehearsal, rehearsal
from ..loading import computed_anew
from ..loading.attempts import (
    HOPELESS,
    Loader,
    Way,
    as_error,
    refuse_broken,
    trusts_path,
    violation_warnings,
)
from ..loading.file_script import FileScript
from ..loading.load_role import TRUSTING, LoadRole, load_role
from ..loading.psql import LoadFailed
from ..loading.source_settings import settings_of
from ..loading.staging import Staging
from ..own_names import MARK, scratch_prefix
from ..reading import checks, reencoded
from ..reading.sql import recorded
from ..sandbox import pg_restore
from ..verify import sql as verify_sql
from . import foreign_source, preflight, size_guard
from .closed_staging import closed_doors
from .sql_comparison import Script, Staged, check_integrity_rows, compare_counts, require_equal, require_same_meanings
from .sql_plan import SqlPlan


def from_undo_point(planned: SqlPlan) -> Staged:
    """Find the undo point, which is complete."""
    work = Staged(staging=planned.source, incoming_oid=planned.databases[planned.source].oid)
    work.comment = planned.databases[planned.source].comment
    work.integrity_rows = planned.brings.integrity_rows
    work.did("Find the undo point", planned.source)
    return work


def verified(
    context: BackupContext,
    planned: SqlPlan,
    record: BackupRecord[Manifest],
    progress: Progress,
    *extra: Handler,
    store: bool,
    unread: bool = False,
) -> verify_sql.SqlReading:
    """Read the backup's file in full, or the script that it was converted into. `unread`: an unchanged file need not be
    examined, because that is done while it is loaded; `extra` handlers then get nothing.

    Raises BackupNotValid, CodePageNeeded, or ConfirmationStale when it changed.
    """
    code_page = planned.options.code_page
    reading = verify_sql.unchanged(context, record, progress) if unread else None
    reading = reading or verify_sql.full(context, record, progress, *extra, store=store, code_page=code_page)
    if reading.ambiguous is not None and code_page is None:
        raise reencoded.code_page_needed(record, reading.ambiguous)
    failed = [check for check in reading.failed if not _excused(planned, check)]
    if failed:
        raise BackupNotValid(
            f"{planned.source} did not pass verification: {checks.describe(failed)}.",
            verify_sql.remedy_for(record, reading) if record.foreign else None,
        )
    examined = reading.examination
    if planned.sha256 != (record.archive or (examined.sha256 if examined else reading.sha256)):
        raise ConfirmationStale(f"{planned.source} changed while it was being checked.", "Restore again.", again())
    return reading


def _names_no_missing_role(session: Session, planned: SqlPlan) -> bool:
    """Tell whether the server surely has every role that a backup of ours names: those of its server."""
    manifest = planned.manifest
    if manifest is None or manifest.identity is None:
        return False
    if programs.major(manifest.identity.server_version) > programs.major(planned.facts.version):
        return False  # the older server may lack one of PostgreSQL's own, which no manifest lists
    return {role.name for role in manifest.roles} <= role_names(session)


def _excused(planned: SqlPlan, check: Check) -> bool:
    """A wrong clock or a missing manifest is the user's to accept (and was), damage is not."""
    return check.check == checks.CLOCK or (planned.manifest is None and check.check == checks.MANIFEST)


def from_backup(context: BackupContext, guard: Session, planned: SqlPlan, stamp: str, progress: Progress) -> Staged:
    """Verify, look at the server, try it out first where that is wished, load, compare, and put owner, privileges and
    settings back. Nothing stays when any of it fails."""
    assert planned.record is not None
    with pg_restore.as_script(context, planned.record, progress) as script:
        return _from_script(context, guard, planned, script, stamp, progress)


def _from_script(
    context: BackupContext,
    guard: Session,
    planned: SqlPlan,
    record: BackupRecord[Manifest],
    stamp: str,
    progress: Progress,
) -> Staged:
    work = Staged(staging=scratch_prefix(context.database) + stamp)
    contents, code = Contents(), BroughtCode()
    unread = not planned.drills and planned.options.code_page is None and _names_no_missing_role(guard, planned)
    reading = verified(context, planned, record, progress, contents, code, store=True, unread=unread)
    if reading.examination is not None:
        reading = replace(reading, sha256=record.archive)
    examination = reading.examination or (recorded(planned.manifest) if planned.manifest else None)
    assert examination is not None
    work.code_page = examination.code_page
    work.warnings += [*reading.warnings, *filter(None, [reading.encoding])]
    if record.archive is not None:
        work.warnings += code.warnings()
        foreign_source.check_choice(record, reading.choice)
        brings, accepted = foreign_source.brought(context, reading, contents), planned.options.accept_smaller
        work.warnings += size_guard.check(
            record.name, brings, planned.now, context.settings.integrity_table, accepted=accepted
        )
    work.did("Verify the backup in full", f"{examination.bytes:,} bytes, {number_of(examination.rows, 'row')}")
    made = reading.choice.roles if reading.choice else []
    preflight.check_load(context, guard, planned, examination.roles, preflight.copy_bytes(planned), made)
    work.did("Check that the server is ready", "space, roles, extensions and names")

    unread = reading.unchanged
    file = FileScript(record.entry, examination, None if unread else contents, progress)
    written_by = (
        unread.pg_dump_version if unread else examination.summary.pg_dump_version if examination.summary else ""
    )
    foreign = planned.manifest is None
    before = planned.manifest.recomputed if planned.manifest else None
    source = Script(
        file, lambda: examination.tables, lambda: file.contents, lambda: before, written_by or "", foreign, file.apart
    )
    outcome = planned.record.verification if planned.record else None
    search_path = outcome.search_path if outcome else None
    if not planned.drills:
        _bring_in(context, planned, work, source, search_path, progress)
        return work
    with rehearsal(context, record, examination, contents, progress) as rehearsed:
        assert planned.record is not None
        work.warnings += verify_sql.keep(context, planned.record.entry, reading, rehearsed.report)
        _require_proof(planned, work, rehearsed)
        search_path = rehearsed.report.search_path
        if planned.manifest is None:  # whatever else a file from elsewhere did, it did in the sandbox
            source, extensions = _its_own_dump(rehearsed, progress), rehearsed.extensions()
            with load_role(context, planned.source, extensions, contents.tablespaces, work.warnings) as role:
                _bring_in(context, planned, work, source, search_path, progress, role)
        else:
            _bring_in(context, planned, work, source, search_path, progress)
    work.warnings += rehearsed.report.warnings
    return work


def _its_own_dump(rehearsed: Rehearsal, progress: Progress) -> Script:
    def chunks(*, rows: bool = True) -> Iterator[bytes]:
        return rehearsed.script(progress, rows=rows)

    written_by = rehearsed.report.server_version
    server, database = rehearsed.trial.server, rehearsed.database
    return Script(
        chunks,
        lambda: rehearsed.tables,
        lambda: rehearsed.contents,
        lambda: computed_anew.in_the_sandbox(server, database, progress),
        written_by,
        foreign=False,
    )


def _require_proof(planned: SqlPlan, work: Staged, rehearsed: Rehearsal) -> None:
    work.drill = rehearsed.report
    detail = rehearsed.report.detail
    verdict = rehearsed.report.verdict
    if verdict == "constraint_violated":
        if not (rehearsed.loaded and planned.options.accept_violations):
            remedy = None if rehearsed.loaded else HOPELESS
            raise ConstraintViolated(f"{planned.source} can't be loaded as it is: {detail}.", remedy)
        work.did(
            "Restore it into a sandbox and compare", f"{number_of(rehearsed.report.rows_compared, 'row')}; {detail}"
        )
        return
    if verdict == "will_not_load":
        raise WillNotLoad(
            f"{planned.source} could not be loaded in a drill. {detail}", "Follow its advice, or choose another backup."
        )
    at_any_rate = "If the user still wants it, restore it without a drill: it is then loaded as it is."
    if planned.manifest is None:
        at_any_rate = TRUSTING
    if rehearsed.report.proved is False:
        raise BackupNotValid(
            f"{planned.source} did not bring the same data back in a drill: {detail}",
            f"Choose another backup. {at_any_rate}",
            again(drill="never"),
        )
    if not rehearsed.loaded or (
        rehearsed.report.proved is None and not rehearsed.report.sound and planned.options.drill == "always"
    ):
        raise PreflightFailed(f"A drill could not prove {planned.source}: {detail}", at_any_rate, again(drill="never"))
    if rehearsed.report.proved is None:
        work.warnings.append(f"A drill could not prove {planned.source}: {detail}")
    work.did("Restore it into a sandbox and compare", number_of(rehearsed.report.rows_compared, "row"))


def _bring_in(
    context: BackupContext,
    planned: SqlPlan,
    work: Staged,
    script: Script,
    search_path: SearchPath | None,
    progress: Progress,
    role: LoadRole | None = None,
) -> None:
    """Load it into a new database; at once with the database's own search_path where a drill had to. `role` is the one
    that loads it, if it is not us."""
    wanted = _wanted_properties(context, planned)
    # A mark of ours, as on a scratch database that somebody has renamed, is not to go live.
    work.comment = wanted.comment if wanted and not (wanted.comment or "").startswith(MARK) else None
    work.template = wanted is not None and wanted.template
    quietly = databases.quietly(planned.facts.version_num)
    staging = _staging(context, planned, work, script, wanted, search_path, quietly, progress)
    staging.loader.role = role
    loader, size = staging.loader, planned.entry.bytes if planned.entry else None
    try:
        progress.stage("creating a new database next to the live one")
        staging.create()
        seconds = durations.of_loading(durations.content_bytes(planned.entry)) if planned.entry else None
        progress.stage(f"loading {planned.source}", size, seconds)
        try:
            with still_there("the load"):
                staging.load(size)
        except LoadFailed as error:
            raise as_error(error, loader, foreign=planned.manifest is None) from error
        if not planned.options.accept_violations:
            refuse_broken(loader, foreign=planned.manifest is None)
        work.incoming_oid = staging.oid
        work.warnings += staging.warnings + loader.warnings + violation_warnings(loader.broken)
        work.did(
            "Load it into a new database next to the live one", ", ".join(filter(None, [work.staging, loader.how]))
        )
        work.warnings += require_same_meanings(loader, accepted=planned.options.drill == "never")
        loaded = len(work.steps)
        work.warnings += staging.analyse()
        try:
            staging.hand_over()
        except LoadFailed as error:
            raise as_error(error, loader, foreign=True) from error
        if wanted is not None:
            progress.stage("putting back owner, privileges and settings")
            work.warnings += [*staging.put_back(), *staging.unlike()]
            work.did("Put back owner, privileges and settings", f"{len(wanted.settings)} settings")
        require_equal(planned, work, staging, script)
        if planned.manifest is None:
            _settle_schemas(context, planned, work, quietly)
        check_integrity_rows(context, planned, work, quietly)
        work.warnings += computed_anew.warnings(
            computed_anew.unlike_the_backup(context.server, work.staging, planned.facts, script.recomputed(), progress)
        )
        with closed_doors(context, work.staging, wanted, quietly, progress) as session:
            compare_counts(work, script.tables(), session, progress)
        work.steps.insert(loaded, work.steps.pop())  # as the procedure has them
    except BaseException as error:
        drop_after(error, context.server, context.maintenance_database, work.staging)
        raise


def _staging(
    context: BackupContext,
    planned: SqlPlan,
    work: Staged,
    script: Script,
    wanted: DatabaseProperties | None,
    search_path: SearchPath | None,
    quietly: Mapping[str, str],
    progress: Progress,
) -> Staging:
    manifest, settings = planned.manifest, settings_of(context, planned.manifest)
    path = settings.get(SEARCH_PATH, "")
    proved_path = path if path and search_path == "database" and manifest else None

    def again() -> str:
        return f"{scratch_prefix(context.database)}{datetime.now(UTC) + timedelta(seconds=1):%Y%m%d_%H%M%S}"

    loader = Loader(
        server=context.server,
        maintenance=context.maintenance_database,
        database=work.staging,
        name=planned.source,
        script=script.chunks,
        apart=script.apart,
        settings=settings,
        options=quietly,
        progress=progress,
        trusted=trusts_path(path, wanted.owner if wanted else "") if manifest else None,
        meant=manifest.meanings if manifest else None,
        foreign=manifest is None,
        way=Way(proved_path, relaxed=planned.options.accept_violations),
    )
    written = programs.major(script.written_by)
    return Staging(
        context=context,
        loader=loader,
        again=again,
        marker=f"{TAG}: scratch of a restore of {planned.source} as {context.database}",
        properties=wanted,
        settings=wanted.settings if wanted else [],
        public=manifest is None or "public" in (manifest.schemas or ["public"]),
        private=True,
        foreign=script.foreign,
        same_version=written in (0, programs.major(planned.facts.version)),
    )


def _wanted_properties(context: BackupContext, planned: SqlPlan) -> DatabaseProperties | None:
    """Return the manifest's properties; for a file without one, the live database's."""
    if planned.properties is not None or planned.live_oid is None:
        return planned.properties
    with context.server.session(context.database) as session:
        return pg.properties(session)


def _settle_schemas(context: BackupContext, planned: SqlPlan, work: Staged, options: Mapping[str, str]) -> None:
    """Settle what a file without a manifest does not say: whether there was a `public`, and a search_path if there is
    no live database to take it from. Without its search_path Letta finds no table."""
    if planned.live_oid is not None:
        with context.server.session(context.database) as session:
            had_public = "public" in pg.schemas(session)
        if not had_public:
            with suppress(QueryFailed), context.server.session(work.staging, options) as session:
                databases.drop_public(session)  # refused, and rightly, when it holds something
        return
    table = context.settings.integrity_table
    with context.server.session(work.staging, {**options, **OWN_SEARCH_PATH}) as session:
        if counting.find(session, table) is not None:
            return
    with context.server.session(work.staging, options) as session:
        holders = [t.schema for t in pg.tables(session) if t.name == table]
        if len(holders) == 1:
            schema = identifier(holders[0])
            databases.set_search_path(session, work.staging, holders[0])
            work.warnings.append(
                f"The file lacks the database's settings. search_path was set to {schema}, because {table} is there; "
                "set others by hand."
            )
        else:
            work.warnings.append(
                f"The file lacks the database's settings, and {table} is not found by the search_path: "
                f"set it with ALTER DATABASE {identifier(context.database)} SET search_path = …"
            )
