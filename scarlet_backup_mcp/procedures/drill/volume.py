"""Drill a volume backup: unpack it in a throw-away container, let a server recover from it, and read all that it holds.

Nothing of it reaches a network, and none of its own configuration takes effect.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...errors import DrillFailed, DrillImpossible, HostError, PermissionDenied, ServerError
from ...hosts import run
from ...models.manifest import VolumeManifest
from ...models.verification import Check, Drill
from ...postgres.cluster import configuration, recovery
from ...postgres.cluster.controldata import ControlDataDamaged
from ...postgres.dump.events import Handler, ScriptDamaged
from ...postgres.dump.events import Target as CopyTarget
from ...postgres.dump.script import ScriptReader
from ...postgres.dump.too_large import too_large_table, without_rows_of
from ...postgres.server import catalogue as pg
from ...postgres.server import databases, programs
from ...postgres.server.counting import count_table
from ...postgres.server.session import Server
from ...progress import Progress
from ...wording import number_of
from .. import durations
from ..catalog import records
from ..catalog.records import BackupRecord
from ..context import BackupContext
from ..loading import load_checks
from ..reading.archive import Archive
from ..reading.archive_checks import POSTMASTER_PID, is_base_backup
from ..sandbox.lifecycle import vacant_container
from . import volume_checks
from .own_server import its_own_failures
from .recovered_cluster import VERIFIED, RecoveredCopy
from .volume_checks import Name

DUMPED = "drill_dump"
OF_THE_FILES = (VERIFIED, load_checks.LOAD, DUMPED)
"""Checks that fail because files are damaged; the others say what a server that runs on them did not find."""
STOP_AND_START_SECONDS = 2
KEPT_FROM_STARTING = "own configuration keeps a server from starting"
MOST_UNREAD = 10
"""Most tables of a database whose rows are too large for pg_dump: each one makes the dump start again."""


def drill_volume(
    context: BackupContext, record: BackupRecord[VolumeManifest], read: Archive, progress: Progress
) -> tuple[Drill, list[Check]]:
    """Drill an archive that was `read` and found intact. Needs the live container's image; it need not run.

    The verdict is False only for what is certainly wrong with the archive. Raises DrillImpossible (no Docker, another
    major version), DiskFull, DrillFailed, Busy, or what keeps the container from starting.
    """
    require_docker(context)
    began = time.monotonic()
    with vacant_container(context, progress) as vacant:
        copy = RecoveredCopy(vacant, record.entry, read, progress)
        report = Drill(proved=None, where=vacant.where, server_version="", duration_seconds=0)
        drill = _VolumeDrill(context, record, copy, progress, report)
        with its_own_failures(vacant.where):
            drill.run()
    report.warnings = vacant.warnings
    report.duration_seconds = round(time.monotonic() - began, 3)
    return report, drill.checks


def require_docker(context: BackupContext) -> None:
    """Raise DrillImpossible unless servers run in containers."""
    if context.settings.via != "docker":
        raise DrillImpossible(
            "A drill of a whole volume needs Docker: it starts a server in a container that nothing else can reach.",
            "Verify it with level full, which compares every file with the server's own list; or drill an "
            "SQL backup, which needs no Docker.",
        )


class _Stop(Exception):
    """The drill can't go on: the last check says why."""


@dataclass
class _VolumeDrill:
    """One archive that is being drilled. `doubts` keep it from being proved or sound; `uncounted` says why a sound one
    is not proved; `remarks` are what else there is to know."""

    context: BackupContext
    record: BackupRecord[VolumeManifest]
    copy: RecoveredCopy
    progress: Progress
    report: Drill
    checks: list[Check] = field(default_factory=list[Check])
    doubts: list[str] = field(default_factory=list[str])
    uncounted: list[str] = field(default_factory=list[str])
    remarks: list[str] = field(default_factory=list[str])
    unread: dict[str, list[Name]] = field(default_factory=dict[str, list[Name]])
    """By database, the tables with rows that are too large for any dump."""
    options: dict[str, str] = field(default_factory=lambda: {"lock_timeout": str(programs.LOCK_WAIT_MS)})

    @property
    def server(self) -> Server:
        return self.copy.vacant.server

    @property
    def manifest(self) -> VolumeManifest | None:
        return self.record.manifest

    def run(self) -> None:
        self.report.server_version = self.copy.version()
        began = time.monotonic()
        self.copy.unpack()
        try:
            if (verified := self.copy.verify()) is not None:
                self._add(verified)
            self._check_configuration()
            self._start()
            self.report.load_seconds = round(time.monotonic() - began, 3)
            if not self.remarks:
                self.report.restore_seconds = round(self.report.load_seconds + STOP_AND_START_SECONDS, 1)
            self._check_content()
        except _Stop:
            pass
        wrong = [check for check in self.checks if check.ok is False]
        failed = [f"{check.check}: {check.detail}" for check in wrong]
        remarks = [] if failed else self.remarks
        load_checks.judge(self.report, failed, self.doubts, [] if failed else self.uncounted, remarks)
        self.report.sound = not failed and not self.doubts
        if any(check.check in OF_THE_FILES for check in wrong):
            self.report.verdict = "damaged"

    def _check_configuration(self) -> None:
        if fault := self.copy.configuration_fault():
            self.remarks.append(f"its {KEPT_FROM_STARTING}")
            self.copy.vacant.warnings.append(
                f"Its {KEPT_FROM_STARTING}: {fault}. Unless another mount of the container fixes that, `restore` would "
                "put the old contents back: docs/choosing.md has the commands to unpack it by hand and fix it first."
            )

    def _start(self) -> None:
        began = time.monotonic()
        try:
            control, needed = self.copy.control()
        except ControlDataDamaged as error:
            return self._add(
                Check(check=load_checks.LOAD, ok=False, detail=f"global/pg_control can't be read: {error}")
            )
        files = self.copy.read.contents.files
        listed = self.manifest is not None or is_base_backup(self.copy.read.contents)
        if not listed and (POSTMASTER_PID in files or not control.clean):
            self.doubts.append(
                "it may be torn, without any error: its files were copied while the server ran, or after it was killed "
                f"(its state is {control.state!r})"
            )
        if (ended := self.copy.start(needed, self.report.server_version)) is not None:
            self._give_up(load_checks.LOAD, f"PostgreSQL did not start: {ended}")
        self._add(Check(check=load_checks.LOAD, ok=True, detail=f"ready after {time.monotonic() - began:.1f} s"))

    # -- while it runs -----------------------------------------------------------------------------------------------

    def _check_content(self) -> None:
        configured = self.context.database
        if self.manifest is not None and self.manifest.identity is not None:
            configured = self.manifest.identity.database
        names = [*databases.USUAL, *(self.manifest.databases if self.manifest else []), configured]
        with self._giving_up(DUMPED), databases.first_session(self.server, names, self.progress) as session:
            facts, sizes = pg.server_facts(session), pg.databases(session)
            found, prepared = recovery.accessible(session), recovery.prepared_transactions(session)
            settings = configuration.of_roles(session)
        if facts.superuser:
            self.options |= databases.quietly(facts.version_num)
        self.report.database_bytes = sum(database.bytes or 0 for database in sizes.values())
        if prepared:
            self.copy.vacant.warnings.append(
                f"It contains {prepared} prepared transactions, to be committed or rolled back."
            )
        if settings:
            found_there = "; ".join(settings)
            self.copy.vacant.warnings.append(f"Settings of its roles and databases come back with it: {found_there}.")
        self._add(volume_checks.of_databases(self.manifest, configured, list(found)))
        dumped: dict[str, dict[Name, int]] = {}
        for name in (name for name, accessible in sorted(found.items()) if accessible):
            dumped[name] = self._dump(name, sizes[name].bytes)
        rows = sum(sum(tables.values()) for tables in dumped.values())
        read = f"{number_of(rows, 'row')} of {', '.join(dumped)}"
        self._add(Check(check=DUMPED, ok=True, expected="complete dumps of all databases", found=read))
        self._compare(configured, dumped.get(configured))
        self._check_structure(list(dumped))

    def _dump(self, name: str, size: int | None) -> dict[Name, int]:
        """Dump a database to read every row; return the rows of each table, without those too large for a dump."""
        with self._giving_up(DUMPED):
            with self.server.session(name, self.options, self.progress) as session:
                encoding = pg.properties(session).encoding
            self.progress.stage(f"dumping {name}", size, durations.of_dumping(size or 0))
            unread = self.unread.setdefault(name, [])
            while True:
                dumped = self._try_to_dump(name, encoding, unread)
                if isinstance(dumped, dict):
                    return dumped
                table = too_large_table(dumped)
                if table is None or table in unread or len(unread) == MOST_UNREAD:
                    self._give_up(DUMPED, f"{name} could not be dumped: {dumped}")
                else:
                    unread.append(table)
                    self.doubts.append(
                        f"{'.'.join(table)} of {name} has a row too large for any dump: its rows could be counted, but "
                        "not read"
                    )
        raise DrillFailed(f"The dump of {name} did not finish.")

    def _try_to_dump(self, name: str, encoding: str, unread: list[Name]) -> dict[Name, int] | str:
        """Dump it once; return the rows of each table, or why pg_dump failed."""
        rows, read = _Rows(), 0
        reader = ScriptReader(rows)

        def sink(chunk: bytes) -> None:
            nonlocal read
            read += len(chunk)
            self.progress.report(read)
            reader.feed(chunk)

        argv = programs.pg_dump(encoding, options=[without_rows_of(table) for table in unread])
        environment = self.server.environment(name, self.options)
        try:
            ended = run(self.server.host, argv, env=environment, sink=sink, progress=self.progress)
            if ended.code != 0:
                return ended.stderr.strip() or str(ended.code)
            if reader.finish().trailer:
                return rows.found
        except ScriptDamaged as error:
            raise DrillFailed(f"The dump of {name} can't be read: {error}") from None
        raise DrillFailed(f"The dump of {name} did not finish.")

    def _compare(self, database: str, dumped: dict[Name, int] | None) -> None:
        table = self.manifest.integrity_table if self.manifest else self.context.settings.integrity_table
        rows, watched = sum((dumped or {}).values()), None
        if dumped is None:
            detail = f"it has no database {database} that allows connections"
            self._add(Check(check=load_checks.INTEGRITY, ok=None, detail=detail))
        else:
            watched = self._count(database, dumped, table)
        if not volume_checks.counted_when_copied(self.manifest):
            self.uncounted.append(
                f"a server started on it and all of it could be read, {number_of(rows, 'row')} of {database}; nobody "
                "counted what should be in it, so it can't be proved"
            )
            self._compare_with_last_full(rows, table, watched)

    def _count(self, database: str, dumped: dict[Name, int], table: str) -> int | None:
        """Check the rows of the configured database; return how many the integrity `table` has."""
        self.progress.stage(f"counting the rows of {database}", None)
        with self._giving_up(load_checks.ROWS):
            with self.server.session(database, self.options, self.progress) as session:
                counted = volume_checks.count(session, dumped, self.unread[database])
            watched = count_table(self.server, database, table)
        if counted.unlogged:
            names = ", ".join(sorted(".".join(name) for name in counted.unlogged))
            self.copy.vacant.warnings.append(
                f"Unlogged tables come back empty unless the server was shut down cleanly: {names}."
            )
        known = volume_checks.counted_when_copied(self.manifest)
        self._add(volume_checks.of_rows(self.manifest, counted, self.report), doubtful=known)
        self._add(volume_checks.of_integrity(self.manifest, table, watched.rows, watched.why), doubtful=False)
        return watched.rows

    def _compare_with_last_full(self, rows: int, table: str, watched: int | None) -> None:
        if self.manifest is not None and not self.context.is_ours(self.manifest):
            return
        full = records.last_full(self.context, ("sql", "volume"))
        if full is not None and (lost := volume_checks.lost_since(full, rows, table, watched)):
            self.copy.vacant.warnings.append(lost)

    def _check_structure(self, names: list[str]) -> None:
        found: list[tuple[str, Check]] = []
        for name in names:
            restored = load_checks.Restored(self.server, name, self.options, unread=self.unread[name])
            with self._giving_up(load_checks.AMCHECK):
                found += [(name, check) for check in load_checks.of_structure(restored, self.progress)]
        verdicts = {check.ok for _, check in found}
        details = [f"{name}: {check.detail}" for name, check in found if check.detail]
        checked = [f"{name}: {check.found}" for name, check in found if check.found]
        ok = False if False in verdicts else None if None in verdicts else True
        check = Check(check=load_checks.AMCHECK, ok=ok, found="; ".join(checked), detail="; ".join(details))
        self._add(check, doubtful=False)

    # -- verdicts ----------------------------------------------------------------------------------------------------

    def _add(self, check: Check, *, doubtful: bool = True) -> None:
        """Record a check; if it is inconclusive and `doubtful`, as a doubt. Raises _Stop at damage: later checks would
        only find it again."""
        self.checks.append(check)
        if check.ok is None and doubtful:
            self.doubts.append(f"{check.check}: {check.detail}")
        if check.ok is False and check.check in OF_THE_FILES:
            raise _Stop

    def _give_up(self, check: str, said: str) -> None:
        """Record that the server could not do it, and raise _Stop. The check fails only if its log shows damage."""
        damaged = recovery.damage(self.copy.log())
        self._add(Check(check=check, ok=False if damaged else None, detail=damaged or said))
        raise _Stop

    @contextmanager
    def _giving_up(self, check: str) -> Generator[None]:
        try:
            yield
        except (ServerError, HostError) as error:
            if isinstance(error, HostError) and self.copy.ended() is None:
                raise
            words = "its role could not be used" if isinstance(error, PermissionDenied) else "it could not be read"
            self._give_up(check, f"{words}: {error.message}")


class _Rows(Handler):
    """Count the rows of each table of a dump."""

    def __init__(self) -> None:
        self.found: dict[Name, int] = {}
        self._at: Name = ("", "")

    def copy_begin(self, target: CopyTarget, line: int) -> None:
        self._at = (target.schema, target.name)

    def copy_end(self, rows: int) -> None:
        self.found[self._at] = self.found.get(self._at, 0) + rows
