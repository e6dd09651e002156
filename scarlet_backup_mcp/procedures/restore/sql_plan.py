"""What a restore restores from, and what it would do: found out before anything is asked or changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from ...errors import (
    ArgumentsInvalid,
    BackupMissing,
    BackupNotValid,
    ConstraintViolated,
    ForeignRefused,
    OtherDatabaseRefused,
    ServerError,
    again,
)
from ...models.manifest import DatabaseProperties, Manifest, ManifestHead
from ...models.results import UndoPoint
from ...postgres.server import catalogue as pg
from ...postgres.server.counting import Count, count_table
from ...postgres.server.session import Session
from ...progress import Progress
from ...store.directory import Entry
from .. import own_names
from ..catalog import recorded, records
from ..catalog.records import BackupRecord
from ..context import BackupContext
from ..reading import checks
from ..sandbox import pg_restore
from ..verify import sql as verify_sql
from . import foreign_source, size_guard
from .options import WITHOUT_DRILL, RestoreOptions
from .size_guard import Size

M = TypeVar("M", bound=ManifestHead)


@dataclass(frozen=True)
class SqlPlan:
    """What would be restored over what. `sha256` and `live_oid` are what a confirmation is bound to. `brings` and `now`
    say how much comes and how much is there, as far as it was counted."""

    source: str
    options: RestoreOptions
    record: BackupRecord[Manifest] | None
    undo: UndoPoint | None
    created_at: datetime
    database: str
    server: str
    sha256: str | None
    live_oid: int | None
    brings: Size
    now: Size
    undo_points: list[UndoPoint]
    databases: dict[str, pg.DatabaseFacts]
    facts: pg.ServerFacts
    warnings: list[str]

    @property
    def identity(self) -> dict[str, str]:
        """What the audit log keeps of the source."""
        return {"source": self.source, **({"sha256": self.sha256} if self.sha256 else {})}

    @property
    def entry(self) -> Entry | None:
        """The file; None for an undo point."""
        return self.record.entry if self.record else None

    @property
    def manifest(self) -> Manifest | None:
        """What `backup` recorded of the database; None for an undo point or a foreign file."""
        return self.record.manifest if self.record and not self.record.foreign else None

    @property
    def properties(self) -> DatabaseProperties | None:
        """The database's properties, if the manifest records them."""
        return self.manifest.properties if self.manifest else None

    @property
    def drills(self) -> bool:
        """Whether the backup is tried out in a sandbox first."""
        return self.options.drills(self.record)

    def comparison(self, table: str) -> str:
        """Describe what comes and what it replaces, loudly if that is more."""
        return size_guard.compared(self.brings, None if self.live_oid is None else self.now, table)

    def question(self, table: str, dropping: str | None) -> str:
        """Write the question that a user is asked before the restore. `dropping` is the undo point that is dropped."""
        kind, inside = "the undo point" if self.undo else "the backup", ""
        if self.record is not None:
            outcome, page = self.record.verification, self.options.code_page
            page = page or (outcome.code_page if outcome else None)
            proved = self.record.proved_with(page)
            read = f" when read with code page {page}" if page else ""
            inside = f", proved by a restore drill on {proved:%Y-%m-%d}{read}" if proved else ", not proved by a drill"
        now = ", which does not exist now" if self.live_oid is None else ""
        words = [
            f"Restore {kind} {self.source} (of {self.created_at:%Y-%m-%d %H:%M:%S} UTC{inside}) as the database "
            f"{self.database} of {self.server}{now}?",
            self.comparison(table),
            *self.warnings,
        ]
        if self.live_oid is not None:
            words.append("The current database is kept as an undo point.")
        if self.options.accept_violations and self.record is not None:
            words.append(
                "Constraints that its rows violate do not come back as before: foreign keys and checks will be NOT "
                "VALID, unique indexes are left out."
            )
        if dropping is not None:
            words.append(f"The oldest undo point, {dropping}, is dropped permanently.")
        return " ".join(words)


def plan(
    context: BackupContext,
    progress: Progress,
    source: str,
    session: Session,
    options: RestoreOptions,
    *,
    asked: bool = False,
) -> SqlPlan:
    """Resolve `source` (a backup's name, `latest`, or an undo point's name) and look at what it would replace.

    `session` is one in the maintenance database. If the user was `asked`, and so has seen how much each side has, that
    is not counted again. Reads only. Raises RestoreRefused's children, BackupMissing and NameRefused.
    """
    progress.stage("looking at the source and the live database")
    facts, databases = pg.server_facts(session), pg.databases(session)
    points = own_names.undo_points(context, databases.values())
    live = databases.get(context.database)
    now = _integrity(context, context.database) if live else Count(None)
    undo = _undo_point(context, source, points)
    size_now = Size(None, now.rows)
    if undo is not None:
        if options.code_page is not None or options.drill == "always" or options.accept_violations:
            raise ArgumentsInvalid(
                f"{source} is an undo point, a database that still exists: it has no code page, needs no drill, and no "
                "constraint is checked when it comes back.",
                "Leave these three arguments out.",
                again(code_page=None, drill=None, accept_violations=None),
            )
        record, sha256, created, warnings = None, None, undo.created_at, list[str]()
        brings = Size(None, _integrity(context, undo.name).rows)
        if not asked:
            brings = size_guard.measured(context, undo.name, brings.integrity_rows, progress)
            size_now = size_guard.measured(context, context.database, now.rows, progress) if live else size_now
        brings = replace(brings, written=f"it was set aside at {created:%Y-%m-%d %H:%M:%S} UTC")
    else:
        record = _known(context, source, facts)
        manifest = record.manifest
        warnings = _check_origin(context, record, facts, options)
        warnings += _newer_volume(context, record)
        if manifest is not None:
            sha256, brings = manifest.sha256, size_guard.recorded(manifest)
        else:
            sha256, brings, told = foreign_source.inspect(
                context, record, options.accept_other_database, options.code_page, progress
            )
            warnings += told
        if live and (not asked or pg_restore.is_archive(record)):  # whose size nobody knew when the user was asked
            size_now = size_guard.measured(context, context.database, now.rows, progress, manifest)
        table = context.settings.integrity_table
        warnings += size_guard.check(record.name, brings, size_now, table, accepted=options.accept_smaller)
        created = record.created_at
    warnings += [f"In the current database {now.why}."] if now.why else []
    return SqlPlan(
        source=undo.name if undo else record.name if record else source,
        options=options,
        record=record,
        undo=undo,
        created_at=created,
        database=context.database,
        server=f"{context.describe()}, PostgreSQL {facts.version}",
        sha256=sha256,
        live_oid=live.oid if live else None,
        brings=brings,
        now=size_now,
        undo_points=points,
        databases=databases,
        facts=facts,
        warnings=warnings,
    )


def _undo_point(context: BackupContext, source: str, points: list[UndoPoint]) -> UndoPoint | None:
    if own_names.stamped(own_names.undo_prefix(context.database), source) is None:
        return None
    found = next((point for point in points if point.name == source), None)
    if found is None:
        there = ", ".join(point.name for point in points) or "none"
        raise BackupMissing(f"There is no undo point {source} on the server.", f"There are: {there}.")
    return found


def _known(context: BackupContext, source: str, facts: pg.ServerFacts) -> BackupRecord[Manifest]:
    cluster = facts.system_identifier
    name = records.latest(context, for_restore=True, cluster=cluster) if source == "latest" else source
    return records.sql_record(context, context.directory.find(name))


def _check_origin(
    context: BackupContext, record: BackupRecord[Manifest], facts: pg.ServerFacts, options: RestoreOptions
) -> list[str]:
    warnings = refuse_damaged(record, options)
    manifest = record.manifest
    if manifest is None or manifest.identity is None:
        _refuse_the_useless(record)
        why = (
            "is a repaired copy" if manifest else "has no manifest: this tool did not make it, or its manifest is lost"
        )
        if not options.accept_foreign:
            raise ForeignRefused(f"{record.name} {why}. A dump runs as a superuser, so a foreign file can do anything.")
        return [
            *warnings,
            f"{record.name} {why}: it lacks the database's settings; the live database's are used, if there is one.",
        ]
    identity = manifest.identity
    if not context.is_ours(manifest) and not options.accept_other_database:
        raise OtherDatabaseRefused(
            f"{record.name} is a backup of {identity.database} in {identity.container or 'a local server'} "
            f"(project {identity.project}), not of {context.database} in {context.describe()}."
        )
    if identity.system_identifier != facts.system_identifier:
        warnings.append("The backup is of another cluster (a fresh volume since, or another machine).")
    warnings += recorded.not_dumped(manifest)
    if record.in_future:
        warnings.append("The backup's time is in the future: a clock is or was wrong.")
    if manifest.shrunk:
        warnings.append(f"The backup is of a database that had shrunk: {'; '.join(manifest.shrunk_reasons)}.")
    if identity.server_version_num // 10000 > facts.version_num // 10000:
        warnings.append(
            f"The backup is of PostgreSQL {identity.server_version}, the server is {facts.version}: it may not load."
        )
    return warnings


def refuse_damaged(record: BackupRecord[M], options: RestoreOptions) -> list[str]:
    """Return a warning if a backup that failed a drill is still wanted. Raises BackupNotValid, and ConstraintViolated
    if that is known and not accepted."""
    if record.state == "constraint_violated" and not options.accept_violations:
        raise ConstraintViolated(f"{record.name} can't be loaded as it is: {record.detail}.")
    if record.state == "will_not_load":
        return [f"In a drill {record.name} could not be loaded: {record.detail}."]
    if record.state == "damaged":
        raise BackupNotValid(f"{record.name} is damaged: {record.detail.removesuffix('.')}.")
    if record.state != "differs":
        return []
    if options.drill == "never":
        return [f"{record.name} did not bring the same data back in a drill; it is restored as requested."]
    raise BackupNotValid(
        f"{record.name} did not bring the same data back in a drill.",
        *WITHOUT_DRILL,
    )


def _newer_volume(context: BackupContext, record: BackupRecord[Manifest]) -> list[str]:
    volumes = records.ours(context, records.all_backups(context), ("volume",))
    newest = next((item for item, _ in volumes if item.created_at > record.created_at), None)
    return [f"{newest.name}, a backup of the whole volume, is newer than this one."] if newest else []


def _refuse_the_useless(record: BackupRecord[Manifest]) -> None:
    """Raise BackupNotValid for a file that can't be restored, whoever made it."""
    script = record.form == "script"
    looked = verify_sql.SqlReading(checks.quick_checks(record) if script else pg_restore.form_checks(record))
    if not looked.whole:
        wrong = [check for check in looked.failed if check.check != checks.MANIFEST]
        raise BackupNotValid(
            f"{record.name} can't be restored: {checks.describe(wrong)}.", verify_sql.remedy_for(record, looked)
        )


def _integrity(context: BackupContext, database: str) -> Count:
    try:
        return count_table(context.server, database, context.settings.integrity_table)
    except ServerError as error:
        return Count(
            None, f"{context.settings.integrity_table} could not be counted ({error.message.removesuffix('.')})"
        )
