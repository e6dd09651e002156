"""Drill an SQL backup: load it into a server that is not the live one, dump that database, and compare.

What compares equal is proved: the file brings the same data back. The live server bears no load and no risk.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from ...errors import Busy, DrillFailed, ForeignRefused, HostError, RestoreFailed, ServerError, again
from ...hosts import output_of
from ...models.common import Verdict
from ...models.manifest import DatabaseProperties, Manifest, TableData
from ...models.verification import Check, Drill
from ...postgres.dump.contents import Contents
from ...postgres.dump.digests import BlockDigests
from ...postgres.dump.filters import strip_restrict
from ...postgres.dump.refusals import Refusals, refused
from ...postgres.dump.roles import create_tablespaces, create_without_login
from ...postgres.dump.sample import ROWS, sampled
from ...postgres.dump.script import ScriptReader
from ...postgres.server import catalogue as pg
from ...postgres.server import databases, programs
from ...postgres.server.effective import SEARCH_PATH
from ...postgres.server.installation import extensions_of
from ...postgres.server.session import Server, Session
from ...progress import Progress
from .. import disk_space, durations
from ..catalog import recorded
from ..catalog.records import BackupRecord
from ..context import TAG, BackupContext
from ..loading import computed_anew, load_checks
from ..loading.attempts import Loader, only_with_its_path, trusts_path, verdict_on, violations
from ..loading.file_script import FileScript
from ..loading.psql import LoadFailed
from ..loading.source_settings import settings_of
from ..loading.staging import Staging
from ..own_names import scratch_prefix
from ..reading.sql import Examination, table_data
from ..recovery.journal import require_running
from ..sandbox.lifecycle import sandbox_server
from .own_server import its_own_failures, require_room

ROOM = 1.2
"""Free space required, in sizes of the database."""
LIVE_IS_SLOWER = 1.2
"""How many times longer a load takes on a live server than in a sandbox, which makes nothing durable."""


@dataclass(frozen=True)
class DrillServer:
    """The server that a drill uses. `throw_away`: it is a sandbox, which nobody else uses. The second of `databases` is
    for definitions that have to be loaded once more."""

    server: Server
    where: str
    maintenance_database: str
    databases: tuple[str, str]
    throw_away: bool
    warnings: list[str] = field(default_factory=list[str])


@dataclass
class Rehearsal:
    """A backup that was restored into another server, for as long as the block. `loaded` is false if that failed."""

    trial: DrillServer
    database: str
    report: Drill
    checks: list[Check] = field(default_factory=list[Check])
    loaded: bool = False
    encoding: str = "UTF8"
    formats: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    """Settings for its dump, see `Loader.formats`."""
    tables: list[TableData] = field(default_factory=list[TableData])
    """The tables in the dump that `script` gave, known at its end; `contents` is the rest of it."""
    contents: Contents = field(default_factory=Contents)

    def script(self, progress: Progress, *, rows: bool = True) -> Iterator[bytes]:
        """Dump the restored database for psql; without `rows` only what creates its tables. Raises DrillFailed before
        the end unless the dump is complete."""
        yield from strip_restrict(self._dump(progress), rows=rows)

    def extensions(self) -> list[tuple[str, str]]:
        """List its extensions, name and schema, in the order in which they were created."""
        with self.trial.server.session(self.database) as session:
            return extensions_of(session)

    def _dump(self, progress: Progress) -> Iterator[bytes]:
        digests, refusals, contents = BlockDigests(), Refusals(), Contents()
        reader = ScriptReader(digests, refusals, contents)
        argv = programs.pg_dump(self.encoding)
        environment = self.trial.server.environment(self.database, self.formats)

        def watch(chunk: bytes) -> None:
            reader.feed(chunk)
            if found := refused(refusals.found, foreign=False):
                raise DrillFailed(f"The dump of the restored database contains what no restore loads: {found[0]}.")

        host = self.trial.server.host
        ended = yield from output_of(host, argv, watch, env=environment, progress=progress, packed=True)
        if ended.code != 0 or not reader.finish().trailer:
            raise DrillFailed(f"The dump of the restored database is incomplete. {ended.stderr.strip()}")
        self.tables, self.contents = table_data(digests), contents


@contextmanager
def rehearsal(
    context: BackupContext,
    record: BackupRecord[Manifest],
    examination: Examination,
    contents: Contents,
    progress: Progress,
    on_live_server: bool = False,
    sample: bool = False,
) -> Generator[Rehearsal]:
    """Restore a backup into a sandbox and compare it with `contents`, which its file was examined into.

    `on_live_server` uses a scratch database on the live server instead, for machines that can start no sandbox.
    `sample` loads only the first rows of each table and no foreign keys, of a backup of ours: that proves its
    definitions. Raises DrillFailed, DiskFull, Busy, ForeignRefused, or what keeps the server from starting: then
    nothing is known about the backup.
    """
    if on_live_server and record.foreign:
        raise ForeignRefused(
            f"{record.name} was not made by `backup`, so it is not drilled on the live server.",
            "Leave on_live_server out: then it is loaded in a sandbox.",
            again(on_live_server=None),
        )
    began = time.monotonic()
    with _trial(context, progress, on_live_server, len(examination.tables)) as trial:
        report = Drill(proved=None, where=trial.where, server_version="", duration_seconds=0)
        found = Rehearsal(trial, trial.databases[0], report)
        try:
            with its_own_failures(trial.where) if trial.throw_away else nullcontext():
                file = FileScript(record.entry, examination, contents, progress)
                _Restorer(context, record, examination, file, progress, found, sample).rehearse(contents)
            report.duration_seconds = round(time.monotonic() - began, 3)
            yield found
        except BaseException as error:
            if not trial.throw_away:
                disk_space.drop_after(error, trial.server, trial.maintenance_database, found.database)
            raise
        if not trial.throw_away:
            hindered = disk_space.give_back(trial.server, trial.maintenance_database, found.database)
            trial.warnings.extend([hindered.message] if hindered else [])
    report.warnings = list(trial.warnings)  # stopping the server may have added some


@contextmanager
def _trial(context: BackupContext, progress: Progress, on_live_server: bool, tables: int) -> Generator[DrillServer]:
    if not on_live_server:
        with sandbox_server(context, progress, tables) as found:
            yield DrillServer(found.server, found.where, "postgres", ("drill", "drill_again"), True, found.warnings)
        return
    require_running(context)
    with context.maintenance_session(progress) as guard:
        if not databases.advisory_lock(guard):
            raise Busy("Another restore, drill or backup is running on this server.")
        if pg.server_facts(guard).in_recovery:
            raise DrillFailed(
                "The server is a standby, which can't be written to, so no drill can be done on it.",
                "Drill in a sandbox, or on its primary.",
                again(on_live_server=None),
            )
        # Not the tag of backups: the next backup ends all sessions that have it.
        server = context.server.tagged(f"{TAG} drill")
        where, now = f"a scratch database on the live {context.describe()}", datetime.now(UTC)
        first, second = (
            f"{scratch_prefix(context.database)}{moment:%Y%m%d_%H%M%S}" for moment in (now, now + timedelta(seconds=1))
        )
        yield DrillServer(server, where, context.maintenance_database, (first, second), throw_away=False)


# -- the steps -------------------------------------------------------------------------------------------------------


@dataclass
class _Restorer:
    """One backup that is being restored for a drill."""

    context: BackupContext
    record: BackupRecord[Manifest]
    examination: Examination
    file: FileScript
    progress: Progress
    found: Rehearsal
    sample: bool = False
    in_sample: Contents | None = None
    """Of the sample that was loaded, known at its end."""

    @property
    def server(self) -> Server:
        return self.found.trial.server

    @property
    def manifest(self) -> Manifest | None:
        """The manifest; None for a file that `backup` did not make."""
        return None if self.record.foreign else self.record.manifest

    def rehearse(self, before: Contents) -> None:
        report, checks, trial = self.found.report, self.found.checks, self.found.trial
        self.progress.stage("creating an empty database for the drill")
        properties = self._wanted()
        with self.server.session(trial.maintenance_database, progress=self.progress) as session:
            facts = pg.server_facts(session)
            report.server_version = facts.version
            self._require_room(facts)
            self._create_roles_and_tablespaces(session, before, properties)
        quietly = databases.quietly(facts.version_num) if facts.superuser else {}
        staging = self._staging(properties, quietly)
        staging.create()
        if not self._load(staging):
            return
        trial.warnings.extend(staging.analyse())
        ungranted = staging.put_back()
        before = self.in_sample or before
        try:
            comparison = staging.compare(before)
        except RestoreFailed as error:
            raise DrillFailed(error.message) from error
        meant = replace(comparison, differences=[*comparison.differences, *staging.loader.other_meanings()])
        comparison = load_checks.without_violations(meant, report.violations)
        excused = staging.of_other_formats() if comparison.differences else set[str]()
        checks += load_checks.of_contents(comparison, report, foreign=self.record.foreign, excused=excused)
        restored = load_checks.Restored(self.server, self.found.database, quietly, staging.loader.as_loaded)
        lacking = [*staging.warnings, *staging.loader.warnings]
        unlike = [*ungranted, *staging.unlike()]
        whole = load_checks.of_database(restored, self.manifest, self.context.settings.integrity_table, unlike, lacking)
        checks += [check for check in whole if not (self.sample and check.check == load_checks.INTEGRITY)]
        checks += load_checks.of_structure(restored, self.progress)
        compared = self.manifest.recomputed if self.manifest and not self.sample else None  # a sample lacks rows
        report.except_recomputed = computed_anew.unlike_the_backup(
            self.server, self.found.database, facts, compared, self.progress
        )
        left_out = [said.removesuffix(".") for said in recorded.not_dumped(self.manifest)]
        load_checks.conclude(report, checks, left_out, sample=self.sample)

    @property
    def _written_by(self) -> str:
        """The version of pg_dump that wrote the file."""
        return (self.examination.summary and self.examination.summary.pg_dump_version) or ""

    @property
    def _dumped_from(self) -> str:
        """The server's version, as far as it is known: it decides what can be in a dump, not that of pg_dump alone."""
        identity = self.manifest.identity if self.manifest else None
        return identity.server_version if identity else self._written_by

    def _require_room(self, facts: pg.ServerFacts) -> None:
        size = max(self.examination.script_bytes, (self.manifest and self.manifest.database_bytes) or 0)
        needed = disk_space.needed(0 if self.sample else size, ROOM, facts)
        free = self.server.host.free_bytes(facts.data_directory) if facts.data_directory else None
        require_room(self.found.trial.where, free, needed)

    def _wanted(self) -> DatabaseProperties | None:
        """Find the properties for the database: the file's own; without any the live database's, as a restore does."""
        if self.manifest is not None:
            return self.manifest.properties
        with suppress(HostError, ServerError), self.context.server.session(self.context.database) as session:
            return pg.properties(session)
        return None

    def _create_roles_and_tablespaces(
        self, session: Session, contents: Contents, properties: DatabaseProperties | None
    ) -> None:
        if self.found.trial.throw_away:
            named = load_checks.roles_of(properties) if properties else set[str]()
            # Nobody knows the rights of a foreign file's roles; one of them may have to create its tables.
            known = self.manifest.roles if self.manifest else []
            create_without_login(session, named | {*self.examination.roles}, known)
            own = {properties.tablespace} if properties and properties.tablespace else set[str]()
            create_tablespaces(session, contents.tablespaces | own)

    def _staging(self, properties: DatabaseProperties | None, quietly: Mapping[str, str]) -> Staging:
        trial, settings, manifest = self.found.trial, settings_of(self.context, self.manifest), self.manifest
        safely = trusts_path(settings.get(SEARCH_PATH, ""), properties.owner if properties else "")
        loader = Loader(
            server=self.server,
            maintenance=trial.maintenance_database,
            database=self.found.database,
            name=self.record.name,
            script=self._sampled_script if self.sample else self.file,
            apart=None if self.sample else self.file.apart,
            settings=settings,
            options=quietly,
            progress=self.progress,
            trusted=(lambda _: True) if trial.throw_away else safely,
            meant=self.manifest.meanings if self.manifest else None,
            foreign=self.record.foreign,
        )
        written = programs.major(self._written_by)
        return Staging(
            context=self.context,
            loader=loader,
            again=lambda: trial.databases[1],
            marker=f"{TAG}: drill of {self.record.name}",
            properties=properties,
            settings=properties.settings if properties else [],
            public=manifest is None or "public" in (manifest.schemas or ["public"]),
            private=False,
            foreign=self.record.foreign,
            same_version=written in (0, programs.major(self.found.report.server_version)),
        )

    def _load(self, staging: Staging) -> bool:
        name, report, loader = self.record.name, self.found.report, staging.loader
        size = self.record.entry.bytes
        seconds = durations.of_loading(durations.content_bytes(self.record.entry))
        self.progress.stage(f"restoring {name} into {self.found.trial.where}", size, seconds)
        began = time.monotonic()
        try:
            staging.load(size)
        except LoadFailed as error:
            dumped, here = programs.major(self._dumped_from), programs.major(report.server_version)
            lacking, foreign = loader.warnings, self.record.foreign
            verdict, detail = verdict_on(error, loader.remedy, dumped, here, foreign=foreign, lacking=lacking)
            identity = self.manifest.identity if self.manifest else None
            if verdict == "will_not_load" and identity and self._is_older_than(identity.server_version_num):
                detail = (
                    f"The backup is of PostgreSQL {identity.server_version}. An older one, {report.server_version}, "
                    f"rejects part of it: {error.said}. Drill it with programs as new as that server."
                )
                verdict = "unknown"
            return self._refused(verdict, detail)
        except RestoreFailed as error:
            raise DrillFailed(error.message) from error
        finally:
            self.found.trial.warnings.extend(loader.warnings)
        if self.record.foreign and loader.search_path == "database":
            return self._refused("will_not_load", only_with_its_path(loader))
        seconds = time.monotonic() - began
        with self.server.session(self.found.database, loader.options, self.progress) as session:
            self.found.encoding = pg.properties(session).encoding
            report.database_bytes = pg.connected_database(session).bytes
        self.found.loaded, self.found.formats = True, loader.formats
        report.search_path = loader.search_path
        report.violations = violations(loader, with_keys=self.found.trial.throw_away)
        report.load_seconds = round(seconds, 3)
        report.restore_seconds = round(seconds * LIVE_IS_SLOWER + 2, 1)
        seen = [one for one, item in zip(report.violations, loader.broken, strict=True) if not item.lacks]
        detail = load_checks.broken(seen, loader.refused, foreign=self.record.foreign) or "; ".join(
            filter(None, [f"{seconds:.1f} s, {report.where}", loader.how])
        )
        self.found.checks.append(Check(check=load_checks.LOAD, ok=not report.violations, detail=detail))
        return True

    def _is_older_than(self, server_version_num: int) -> bool:
        return programs.is_older(self.found.report.server_version, server_version_num)

    def _refused(self, verdict: Verdict, detail: str) -> bool:
        """Record why the file can't be loaded; return False."""
        report = self.found.report
        report.verdict, report.detail, report.proved = verdict, detail, None if verdict == "unknown" else False
        self.found.checks.append(Check(check=load_checks.LOAD, ok=report.proved, detail=detail))
        return False

    def _sampled_script(self, *, rows: bool = True) -> Iterator[bytes]:
        return self._sampled(self.file(rows=rows), ROWS if rows else 0)

    def _sampled(self, script: Iterator[bytes], rows: int) -> Iterator[bytes]:
        contents = Contents()
        reader = ScriptReader(contents)
        for chunk in sampled(script, rows):
            reader.feed(chunk)
            yield chunk
        reader.finish()
        if rows:
            self.in_sample = contents
