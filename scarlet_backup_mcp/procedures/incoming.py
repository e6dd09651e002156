"""What comes in by a restore: a backup loaded into a database beside the live one, or an undo point that is there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from ..errors import (
    BackupNotValid,
    ConfirmationStale,
    ConstraintViolated,
    PermissionDenied,
    PreflightFailed,
    QueryFailed,
    RestoreFailed,
    WillNotLoad,
)
from ..hosts.endings import still_there
from ..models import Check, CodePage, DatabaseProperties, Drill, Manifest, SearchPath, Step, TableData, rows_by_table
from ..postgres import analysing, counting, databases, programs
from ..postgres import catalogue as pg
from ..postgres.contents import Contents
from ..postgres.effective import SEARCH_PATH
from ..postgres.quoting import identifier
from ..postgres.script import Handler
from ..postgres.server import OWN_SEARCH_PATH, Session
from ..progress import Progress
from . import archived, checks, computed_anew, outside, preflight, rescue, smaller, verify
from .catalogue import Known
from .doors import closed_doors
from .drill import Rehearsal, rehearsal
from .load import LoadFailed, script_of
from .proof import rows_told
from .room import drop, drop_after
from .same_definitions import require_same_definitions, require_same_meanings
from .set_aside import MARK, scratch_prefix
from .sources import Plan
from .target import TAG, Target
from .ways import HOPELESS, Loader, Way, as_error, refuse_broken, settings_of, told_of, trusts_path, violations


@dataclass
class Work:
    """What a restore has come to know on its way."""

    incoming: str
    incoming_oid: int = 0
    rows_compared: int = 0
    integrity_rows: int | None = None
    comment: str | None = None
    drill: Drill | None = None
    code_page: CodePage | None = None
    journalled: bool = False
    """Whether the journal tells of `incoming`: what becomes of it is then for whoever settles that to decide."""
    steps: list[Step] = field(default_factory=list[Step])
    warnings: list[str] = field(default_factory=list[str])

    def did(self, title: str, detail: str = "") -> None:
        """Note a step that succeeded."""
        self.steps.append(Step(step="Restore", title=title, ok=True, detail=detail))


@dataclass(frozen=True)
class Script:
    """What is loaded, from its beginning at each call, and the tables in it, which may be known only at its end."""

    chunks: Callable[..., Iterator[bytes]]
    tables: Callable[[], list[TableData]]


def from_undo_point(planned: Plan) -> Work:
    """It is all there."""
    work = Work(incoming=planned.source, incoming_oid=planned.databases[planned.source].oid)
    work.comment = planned.databases[planned.source].comment
    work.integrity_rows = planned.integrity_rows
    work.did("Find the undo point", planned.source)
    return work


def verified(
    target: Target, planned: Plan, known: Known[Manifest], progress: Progress, *extra: Handler, store: bool
) -> verify.Reading:
    """The backup's file, or the script that it was converted into, read in full.

    Raises BackupNotValid, CodePageNeeded, or ConfirmationStale when it changed.
    """
    code_page = planned.wishes.code_page
    reading = verify.full(target, known, progress, *extra, store=store, code_page=code_page)
    if reading.ambiguous is not None and code_page is None:
        raise rescue.code_page_needed(known, reading.ambiguous)
    failed = [check for check in reading.failed if not _excused(planned, check)]
    if failed:
        raise BackupNotValid(
            f"{planned.source} did not pass verification: {checks.describe(failed)}.",
            verify.remedy_for(known, reading) if known.foreign else None,
        )
    assert reading.examination is not None
    if planned.sha256 != (known.archive or reading.examination.sha256):
        raise ConfirmationStale(f"{planned.source} changed while it was looked at.", "Call `restore` again.")
    return reading


def _excused(planned: Plan, check: Check) -> bool:
    """A wrong clock or a missing manifest is the user's to accept (and was), damage is not."""
    return check.check == checks.CLOCK or (planned.manifest is None and check.check == checks.MANIFEST)


def from_backup(target: Target, guard: Session, planned: Plan, stamp: str, progress: Progress) -> Work:
    """Verify, look at the server, try it out first where that is wished, load, compare, and put owner, privileges and
    settings back. Nothing stays when any of it fails."""
    assert planned.known is not None
    with archived.as_script(target, planned.known, progress) as script:
        return _from_script(target, guard, planned, script, stamp, progress)


def _from_script(
    target: Target, guard: Session, planned: Plan, known: Known[Manifest], stamp: str, progress: Progress
) -> Work:
    work = Work(incoming=scratch_prefix(target.database) + stamp)
    contents = Contents()
    reads = planned.drills or known.archive is not None
    reading = verified(target, planned, known, progress, *([contents] if reads else []), store=True)
    reading = replace(reading, sha256=known.archive)
    examination = reading.examination
    assert examination is not None
    work.code_page = examination.code_page
    work.warnings += [*reading.warnings, *filter(None, [reading.told])]
    if known.archive is not None:
        outside.check_choice(known, reading.choice)
        brings, accepted = outside.brought(target, reading, contents), planned.wishes.accept_smaller
        work.warnings += smaller.check(
            known.name, brings, planned.now, target.settings.integrity_table, accepted=accepted
        )
    work.did("Verify the backup in full", f"{examination.bytes:,} bytes, {examination.rows:,} rows")
    made = reading.choice.roles if reading.choice else []
    preflight.check_load(target, guard, planned, examination.roles, preflight.copy_bytes(planned), made)
    work.did("Look whether the server is ready for it", "room, roles, extensions and names")

    def of_file(*, rows: bool = True) -> Iterator[bytes]:
        return script_of(known.entry, examination.sha256, examination.through, progress, rows=rows)

    source = Script(of_file, lambda: examination.tables)
    outcome = planned.known.verification if planned.known else None
    search_path = outcome.search_path if outcome else None
    if not planned.drills:
        _bring_in(target, guard, planned, work, source, search_path, progress)
        return work
    with rehearsal(target, known, examination, contents, progress) as rehearsed:
        assert planned.known is not None
        work.warnings += verify.keep(target, planned.known.entry, reading, rehearsed.report)
        _require_proof(planned, work, rehearsed)
        search_path = rehearsed.report.search_path
        if planned.manifest is None:  # whatever else a file from elsewhere did, it did in the throw-away server
            source = Script(lambda: rehearsed.script(progress), lambda: rehearsed.tables)
        _bring_in(target, guard, planned, work, source, search_path, progress)
    work.warnings += rehearsed.report.warnings
    return work


def _require_proof(planned: Plan, work: Work, rehearsed: Rehearsal) -> None:
    work.drill = rehearsed.report
    detail = rehearsed.report.detail
    verdict = rehearsed.report.verdict
    if verdict == "constraint_violated":
        if not (rehearsed.loaded and planned.wishes.accept_violations):
            remedy = None if rehearsed.loaded else HOPELESS
            raise ConstraintViolated(f"{planned.source} can't be loaded as it is: {detail}.", remedy)
        work.did(
            "Restore it into a throw-away server and compare", f"{rehearsed.report.rows_compared:,} rows; {detail}"
        )
        return
    if verdict == "will_not_load":
        raise WillNotLoad(
            f"{planned.source} could not be loaded in a drill. {detail}", "Do what it says, or choose another backup."
        )
    at_any_rate = "If the user wants it all the same, call again with drill=false: then it is loaded as it is."
    if rehearsed.report.proved is False:
        raise BackupNotValid(
            f"{planned.source} did not bring the same data back in a drill: {detail}",
            f"Choose another backup. {at_any_rate}",
        )
    if not rehearsed.loaded or (
        rehearsed.report.proved is None and not rehearsed.report.sound and planned.wishes.drill
    ):
        raise PreflightFailed(f"A drill could not prove {planned.source}: {detail}", at_any_rate)
    if rehearsed.report.proved is None:
        work.warnings.append(f"A drill could not prove {planned.source}: {detail}")
    work.did("Restore it into a throw-away server and compare", f"{rehearsed.report.rows_compared:,} rows")


def _bring_in(
    target: Target,
    guard: Session,
    planned: Plan,
    work: Work,
    script: Script,
    search_path: SearchPath | None,
    progress: Progress,
) -> None:
    """Load it into a new database; at once with the database's own search_path where a drill had to."""
    wanted = _wanted_properties(target, planned)
    # A mark of ours, as on a scratch database that somebody has renamed, is not to go live.
    work.comment = wanted.comment if wanted and not (wanted.comment or "").startswith(MARK) else None
    progress.stage("making a new database beside the live one")
    quietly = databases.quietly(planned.facts.version_num)
    size = planned.entry.bytes if planned.entry else None

    def made(name: str) -> list[str]:
        oid, warnings = _create(target, guard, planned, name, wanted, quietly, progress)
        work.incoming_oid = oid if name == work.incoming else work.incoming_oid
        return warnings

    def fresh() -> None:
        drop(target.server, guard, work.incoming)
        made(work.incoming)

    @contextmanager
    def another() -> Generator[str]:
        name = f"{scratch_prefix(target.database)}{datetime.now(UTC) + timedelta(seconds=1):%Y%m%d_%H%M%S}"
        try:
            made(name)
            yield name
        finally:
            drop(target.server, guard, name)

    settings = settings_of(target, planned.manifest)
    path = settings.get(SEARCH_PATH, "")
    proved_path = path if path and search_path == "database" and planned.manifest else None
    loader = Loader(
        server=target.server,
        maintenance=target.maintenance_database,
        database=work.incoming,
        name=planned.source,
        script=script.chunks,
        settings=settings,
        options=quietly,
        progress=progress,
        fresh=fresh,
        trusted=trusts_path(path, wanted.owner if wanted else "") if planned.manifest else None,
        meant=planned.manifest.meanings if planned.manifest else None,
        foreign=planned.manifest is None,
        way=Way(proved_path, relaxed=planned.wishes.accept_violations),
    )
    try:
        work.warnings += made(work.incoming)
        progress.stage(f"loading {planned.source}", size)
        try:
            with still_there("the load"):
                loader.load(size)
        except LoadFailed as error:
            raise as_error(error, loader, foreign=planned.manifest is None) from error
        if not planned.wishes.accept_violations:
            refuse_broken(loader, foreign=planned.manifest is None)
        work.warnings += loader.warnings + told_of(loader.broken)
        work.did(
            "Load it into a new database beside the live one", ", ".join(filter(None, [work.incoming, loader.how]))
        )
        work.warnings += require_same_meanings(loader, accepted=planned.wishes.drill is False)
        loaded = len(work.steps)
        if loader.way.search_path is not None:
            assert planned.manifest is not None
            require_same_definitions(
                loader,
                wanted.encoding if wanted else "UTF8",
                lambda: script.chunks(rows=False),
                another(),
                violations(loader, with_keys=False),
                same_version=programs.major(planned.manifest.pg_dump_version) == programs.major(planned.facts.version),
            )
            work.did("Compare the definitions, since names were looked for in the database's own search_path")
        if planned.manifest is None:
            _settle_schemas(target, planned, work, quietly)
        if wanted is not None:
            progress.stage("putting back owner, privileges and settings")
            maintenance = target.maintenance_database
            work.warnings += databases.apply_properties(target.server, maintenance, work.incoming, wanted, quietly)
            work.did("Put back owner, privileges and settings", f"{len(wanted.settings)} settings")
        _check_integrity_rows(target, planned, work, quietly)
        work.warnings += computed_anew.warnings(
            computed_anew.unlike_the_backup(target.server, work.incoming, planned.facts, planned.manifest, progress)
        )
        with closed_doors(target, work.incoming, wanted, quietly, progress) as session:
            _compare(work, script.tables(), session, progress)
        work.steps.insert(loaded, work.steps.pop())  # as the procedure has them
    except BaseException as error:
        drop_after(error, target.server, target.maintenance_database, work.incoming)
        raise


def _create(
    target: Target,
    guard: Session,
    planned: Plan,
    name: str,
    wanted: DatabaseProperties | None,
    quietly: Mapping[str, str],
    progress: Progress,
) -> tuple[int, list[str]]:
    """Make a database, empty, with the settings that the loaded one is to have. Gives its OID, and warnings."""
    marker = f"{TAG}: scratch of a restore of {planned.source}"
    with progress.uninterrupted():
        oid, warnings = databases.create(guard, name, wanted, marker, private=True)
    if planned.manifest is not None and "public" not in (planned.manifest.schemas or ["public"]):
        with target.server.session(name, quietly) as session:
            session.execute("DROP SCHEMA IF EXISTS public")
    settings = wanted.settings if wanted else []
    return oid, warnings + databases.apply_settings(target.server, name, settings, quietly)


def _wanted_properties(target: Target, planned: Plan) -> DatabaseProperties | None:
    """From the manifest; for a file without one, what the live database has."""
    if planned.properties is not None or planned.live_oid is None:
        return planned.properties
    with target.server.session(target.database) as session:
        return pg.properties(session)


def _compare(work: Work, loaded: list[TableData], session: Session, progress: Progress) -> None:
    progress.stage("comparing the rows of every table")
    tables = pg.tables(session)
    dumped = rows_by_table(loaded)
    counted = counting.count_rows(session, tables)
    if damaged := [lost for lost in counted.failed if lost.damaged]:
        raise RestoreFailed(f"What was loaded could not be read again: {counting.listed(damaged)}.")
    work.warnings += counted.told("The rows of some tables could not be counted, so they were not compared")
    unknown = counted.unknown_roots(tables)
    work.rows_compared, differences = pg.compare_rows(dumped, tables, counted.by_root(tables), unknown)
    if differences:
        shown = "; ".join(f"{d.table}: {d.dumped} in the file, {d.counted} loaded" for d in differences[:5])
        raise RestoreFailed(f"The loaded database does not hold the backup's rows: {shown}.")
    work.did("Compare the rows of every table", f"{work.rows_compared:,} rows in {len(dumped)} tables")
    progress.stage("analysing the tables for the planner")
    work.warnings += analysing.analyse(session)


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
        if counting.find(session, table) is not None:
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


def _check_integrity_rows(target: Target, planned: Plan, work: Work, options: Mapping[str, str]) -> None:
    """PROC-004's step 5 in the new database, by its own search_path."""
    manifest = planned.manifest
    table = manifest.integrity_table if manifest else target.settings.integrity_table
    try:
        count = counting.count_table(target.server, work.incoming, table, options)
    except (PermissionDenied, QueryFailed) as error:
        work.warnings.append(f"{table} could not be counted in the restored database: {error.message}")
        return
    found = count.rows
    if manifest is not None and found != manifest.integrity_rows:
        raise RestoreFailed(
            f"In the restored database {table} shows {count.told}, not {rows_told(manifest.integrity_rows)}. "
            "The live database is as it was.",
            _role_settings(target, manifest),
        )
    if found is None and planned.integrity_rows_now is not None:
        raise RestoreFailed(f"The file holds no table {table}, which the live database has. That is as it was.")
    if found is not None and found * 2 < (planned.integrity_rows_now or 0):
        work.warnings.append(
            f"It holds {found:,} rows in {table}; the database before it {planned.integrity_rows_now:,}."
        )
    work.integrity_rows = found
    work.did(f"SELECT count(*) FROM {table}, in the new database", count.told)


def _role_settings(target: Target, manifest: Manifest) -> str | None:
    """A search_path of the role's own is in no dump of a database: how to give it back."""
    user = target.server.user
    settings = "; ".join(setting for role in manifest.roles if role.name == user for setting in role.settings)
    return f"The role {user} had settings of its own then. Set them again first: {settings}." if settings else None
