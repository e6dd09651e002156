"""A restore drill: a backup is loaded into a server that is not the live one, dumped again, and compared.

What is equal then is proved: the file brings the same data back. The live server carries no load and no risk.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ..errors import (
    Busy,
    DiskFull,
    DrillFailed,
    ForeignRefused,
    HostError,
    RestoreFailed,
    ServerError,
)
from ..hosts import output_of, run
from ..models import Check, DatabaseProperties, Drill, Manifest, TableData
from ..postgres import catalogue as pg
from ..postgres import databases, programs
from ..postgres.contents import Comparison, Contents, compare, confirm
from ..postgres.digests import BlockDigests
from ..postgres.quoting import identifier, literal
from ..postgres.refusals import NOT_WRITTEN, Refusals
from ..postgres.roles import create_tablespaces, create_without_login
from ..postgres.sample import ROWS, sampled
from ..postgres.script import ScriptDamaged, ScriptReader, strip_restrict
from ..postgres.server import OPTIONS, OWN_FORMATS, Server, Session
from ..progress import Progress
from . import proof, record, room
from .catalogue import Known
from .examine import Examination, table_data
from .journal import require_running
from .load import LoadFailed, load, script_of
from .set_aside import scratch_prefix
from .target import TAG, Target
from .throw_away import throw_away_server

ROOM = 1.2
"""Free space asked for, in sizes of the database."""
PINNED: Mapping[str, str | None] = {}
"""Formats of a dump as every session of ours has them."""
LIVE_IS_SLOWER = 1.2
"""A live server's load takes so many times that of a throw-away one, which writes nothing durably."""
# Classes of errors that are the data's own: bad values, violated constraints (PostgreSQL's documentation, appendix A).
_BAD_DATA = re.compile(r"22(?!023)|23")
_BAD_SYNTAX = "42601"


@dataclass(frozen=True)
class Trial:
    """The server in which a drill takes place. `throw_away`: nothing there is anybody's. The second database is for
    definitions that have to be loaded once more."""

    server: Server
    where: str
    maintenance_database: str
    databases: tuple[str, str]
    throw_away: bool
    warnings: list[str] = field(default_factory=list[str])


@dataclass
class Rehearsal:
    """A backup in another server, which is there as long as the block. `loaded` is false when nothing came of it."""

    trial: Trial
    database: str
    report: Drill
    checks: list[Check] = field(default_factory=list[Check])
    loaded: bool = False
    encoding: str = "UTF8"
    tables: list[TableData] = field(default_factory=list[TableData])
    """What `script` has given, once it has come to its end."""

    def script(self, progress: Progress) -> Iterator[bytes]:
        """Its own dump, for psql. Raises DrillFailed before the end unless it is whole."""
        yield from strip_restrict(self._dump(progress))

    def _dump(self, progress: Progress) -> Iterator[bytes]:
        digests, refusals = BlockDigests(), Refusals()
        reader = ScriptReader(digests, refusals)
        argv = programs.pg_dump(self.encoding)
        environment = self.trial.server.environment(self.database)

        def watch(chunk: bytes) -> None:
            reader.feed(chunk)
            if refused := [refusal for refusal in refusals.found if refusal.reason != NOT_WRITTEN]:
                raise DrillFailed(f"The dump of what was restored holds what no restore loads: {refused[0]}.")

        host = self.trial.server.host
        ended = yield from output_of(host, argv, watch, env=environment, progress=progress)
        if ended.code != 0 or not reader.finish().trailer:
            raise DrillFailed(f"The dump of what was restored is cut off. {ended.stderr.strip()}")
        self.tables = table_data(digests)


@contextmanager
def rehearsal(
    target: Target,
    known: Known[Manifest],
    examination: Examination,
    contents: Contents,
    progress: Progress,
    on_live_server: bool = False,
    sample: bool = False,
) -> Generator[Rehearsal]:
    """Restore a backup, whose file was examined into `contents`, into a throw-away server, and compare.

    `on_live_server`: into a scratch database of the live server instead, where nothing like that server can be made.
    `sample`: only the first rows of each table and no foreign keys, of a backup of ours: that proves its definitions.
    Raises DrillFailed, DiskFull, Busy, ForeignRefused, or what keeps the server from being had: then nothing is known
    of the backup. Whether it is proved is `report.proved`.
    """
    if on_live_server and known.foreign:
        raise ForeignRefused(
            f"{known.name} was not made by `backup`, so it is not tried out on the live server.",
            "Drill it in a throw-away server: call it again without on_live_server.",
        )
    began = time.monotonic()
    with _trial(target, progress, on_live_server) as trial:
        report = Drill(proved=None, where=trial.where, server_version="", duration_seconds=0)
        found = Rehearsal(trial, trial.databases[0], report)
        try:
            with _its_own_failures(trial):
                _Restorer(target, known, examination, progress, found, sample).rehearse(contents)
            report.duration_seconds = round(time.monotonic() - began, 3)
            yield found
        except BaseException as error:
            if not trial.throw_away:
                room.drop_after(error, trial.server, trial.maintenance_database, found.database)
            raise
        if not trial.throw_away:
            hindered = room.give_back(trial.server, trial.maintenance_database, found.database)
            trial.warnings.extend([hindered.message] if hindered else [])
    report.warnings = list(trial.warnings)  # the last ones are of its end


@contextmanager
def _trial(target: Target, progress: Progress, on_live_server: bool) -> Generator[Trial]:
    if not on_live_server:
        with throw_away_server(target, progress) as found:
            yield Trial(found.server, found.where, "postgres", ("drill", "drill_again"), True, found.warnings)
        return
    require_running(target)
    with target.server.session(target.maintenance_database, progress=progress) as guard:
        if not databases.advisory_lock(guard):
            raise Busy("A restore, a drill or a backup that tidies up is under way on this server.")
        # Another mark than a backup's, which ends what is left of backups before it begins.
        server = target.server.tagged(f"{TAG} drill")
        where, now = f"a scratch database on the live {target.describe()}", datetime.now(UTC)
        first, second = (
            f"{scratch_prefix(target.database)}{moment:%Y%m%d_%H%M%S}" for moment in (now, now + timedelta(seconds=1))
        )
        if len(first.encode()) > databases.NAME_BYTES:
            raise DrillFailed(f"The name {target.database} is too long: a scratch database's would pass 63 bytes.")
        yield Trial(server, where, target.maintenance_database, (first, second), throw_away=False)


@contextmanager
def _its_own_failures(trial: Trial) -> Generator[None]:
    """What a throw-away server fails of is nothing that is wrong with the live one, as its errors would say."""
    try:
        yield
    except (HostError, ServerError) as error:
        if not trial.throw_away:
            raise
        raise DrillFailed(
            f"The drill came to no end, since something failed in {trial.where}: {error.message}"
        ) from error


# -- the steps -------------------------------------------------------------------------------------------------------


@dataclass
class _Restorer:
    """One backup on its way into the other server."""

    target: Target
    known: Known[Manifest]
    examination: Examination
    progress: Progress
    found: Rehearsal
    sample: bool = False
    in_sample: Contents | None = None
    """Of what was loaded of a sample, once it has come to its end."""

    @property
    def server(self) -> Server:
        return self.found.trial.server

    @property
    def manifest(self) -> Manifest | None:
        """What tells of the database; None for a file that `backup` did not make."""
        return None if self.known.foreign else self.known.manifest

    def rehearse(self, before: Contents) -> None:
        report, checks = self.found.report, self.found.checks
        self.progress.stage("making an empty database for the drill")
        with self.server.session(self.found.trial.maintenance_database, progress=self.progress) as session:
            facts = pg.server_facts(session)
            report.server_version = facts.version
            self._require_room(facts)
            self._create_what_is_named(session, before)
            warnings = self._create_database(session, self.found.database)
        quietly = databases.quietly(facts.version_num) if facts.superuser else {}
        if not self._load(quietly):
            return
        before = self.in_sample or before
        after = self._dump(self.found.database, before)
        comparison = self._compare(before, after, quietly)
        if self.known.foreign and comparison.differences and (formats := self._formats_of_the_live_server()):
            after = self._dump(self.found.database, before, formats)
            comparison = self._compare(before, after, quietly, formats)
        excused = self._tables_of_other_formats() if self.known.foreign and comparison.differences else set[str]()
        checks += proof.of_contents(comparison, report, foreign=self.known.foreign, excused=excused)
        restored = proof.Restored(self.server, self.found.database, self.found.trial.maintenance_database, quietly)
        whole = proof.of_database(restored, self.manifest, self.target.settings.integrity_table, warnings)
        checks += [check for check in whole if not (self.sample and check.check == proof.INTEGRITY)]
        checks += proof.of_structure(restored, self.progress)
        failed = [check for check in checks if check.ok is False]
        untold = [check for check in checks if check.ok is None and check.check in (proof.ROWS, proof.OBJECTS)]
        lacking = [said.removesuffix(".") for said in record.not_dumped(self.manifest)]
        lacking += [f"only the first {ROWS:,} rows of each table were loaded"] if self.sample else []
        report.proved = False if failed else None if untold or lacking else True
        report.sound = True if lacking and not (failed or untold) else None
        report.proved_by = None if failed or untold else "sample" if self.sample else "full"
        report.detail = "; ".join([f"{check.check}: {check.detail}" for check in failed or untold] + lacking)

    def _compare(
        self, before: Contents, after: Contents, quietly: Mapping[str, str], formats: Mapping[str, str | None] = PINNED
    ) -> Comparison:
        written = programs.major(self._written_by)
        same_version = written in (0, programs.major(self.found.report.server_version))
        comparison = compare(before, after, same_version=same_version)
        if not comparison.confirmed:
            comparison = confirm(comparison, self._definitions_once_more(before, quietly, formats), after)
        return comparison

    def _formats_of_the_live_server(self) -> dict[str, str | None]:
        """How a plain pg_dump there writes timestamps and bytea, which depends on settings; empty where it can't be
        asked, or is as ours."""
        try:
            with self.target.server.session(self.target.database, OWN_FORMATS) as session:
                names = ", ".join(f"current_setting({literal(name)}) AS {identifier(name)}" for name in OWN_FORMATS)
                found: dict[str, str | None] = session.rows(f"SELECT {names}")[0]
        except (HostError, ServerError):
            return {}
        return {} if all(found[name] == OPTIONS[name] for name in found) else found

    def _tables_of_other_formats(self) -> set[str]:
        """Tables whose rows a dump with other settings spells in another way."""
        with self.server.session(self.found.database) as session:
            return pg.tables_of_types(session, ("timestamptz", "tstzrange", "tstzmultirange", "bytea"))

    @property
    def _written_by(self) -> str:
        """Version of the pg_dump that wrote the file."""
        return (self.examination.summary and self.examination.summary.pg_dump_version) or ""

    def _require_room(self, facts: pg.ServerFacts) -> None:
        size = max(self.examination.script_bytes, (self.manifest and self.manifest.database_bytes) or 0)
        needed = room.needed(0 if self.sample else size, ROOM, facts)
        free = self.server.host.free_bytes(facts.data_directory) if facts.data_directory else None
        if free is not None and free < needed:
            raise DiskFull(
                f"There are {free:,} bytes free for {self.found.trial.where}; a drill needs {needed:,}.",
                "Free space there (with Docker, `docker system df` shows what is used), then try again.",
            )

    def _create_what_is_named(self, session: Session, contents: Contents) -> None:
        if self.found.trial.throw_away:
            manifest = self.manifest
            named = proof.roles_of(manifest.properties) if manifest and manifest.properties else set[str]()
            create_without_login(session, named | {*self.examination.roles}, manifest.roles if manifest else [])
            create_tablespaces(session, contents.tablespaces)

    def _create_database(self, session: Session, name: str) -> list[str]:
        """Gives warnings, of a locale that is not there."""
        manifest = self.manifest
        properties = manifest.properties if manifest else self._properties_of_the_live_database()
        with self.progress.uninterrupted():
            _, warnings = databases.create(session, name, properties, f"{TAG}: drill of {self.known.name}")
        if manifest is not None and manifest.schemas is not None and "public" not in manifest.schemas:
            with self.server.session(name) as inside:
                inside.execute("DROP SCHEMA IF EXISTS public")
        return warnings

    def _properties_of_the_live_database(self) -> DatabaseProperties | None:
        """What a file that does not tell its encoding and locale is restored with in the end, too."""
        with suppress(HostError, ServerError), self.target.server.session(self.target.database) as session:
            return pg.properties(session)
        return None

    def _load(self, quietly: Mapping[str, str]) -> bool:
        name, report = self.known.name, self.found.report
        self.progress.stage(f"restoring {name} into {self.found.trial.where}", self.known.entry.bytes)
        began = time.monotonic()
        try:
            with room.watched(self.server, self.found.trial.maintenance_database, self.progress) as look:
                load(self.server, self.found.database, name, self._script(), quietly, self.progress, look)
        except LoadFailed as error:
            report.proved, report.detail = self._why_not(error)
            self.found.checks.append(Check(check=proof.LOAD, ok=report.proved, detail=report.detail))
            return False
        except RestoreFailed as error:
            raise DrillFailed(error.message) from error
        seconds = time.monotonic() - began
        with self.server.session(self.found.database, quietly, self.progress) as session:
            self.found.encoding = pg.properties(session).encoding
            report.database_bytes = pg.databases(session)[self.found.database].bytes
        self.found.loaded = True
        report.load_seconds = round(seconds, 3)
        report.restore_seconds = round(seconds * LIVE_IS_SLOWER + 2, 1)
        self.found.checks.append(Check(check=proof.LOAD, ok=True, detail=f"{seconds:.1f} s, {report.where}"))
        return True

    def _script(self, *, rows: bool = True) -> Iterator[bytes]:
        found = self.examination
        script = script_of(self.known.entry, found.sha256, found.through, self.progress, rows=rows)
        return self._sampled(script, ROWS if rows else 0) if self.sample else script

    def _sampled(self, script: Iterator[bytes], rows: int) -> Iterator[bytes]:
        contents = Contents()
        reader = ScriptReader(contents)
        for chunk in sampled(script, rows):
            reader.feed(chunk)
            yield chunk
        reader.finish()
        if rows:
            self.in_sample = contents

    def _why_not(self, error: LoadFailed) -> tuple[bool | None, str]:
        """The verdict on a file that did not load: None unless it is certainly the file's own fault."""
        written, here = programs.major(self._written_by), programs.major(self.found.report.server_version)
        other_version = written not in (0, here)
        if _BAD_DATA.match(error.sqlstate) or (error.sqlstate == _BAD_SYNTAX and not other_version):
            return False, error.message
        if other_version:
            return None, (
                f"The file was written by pg_dump {written}, and PostgreSQL {here} does not take all of it: "
                f"{error.said}. That need not be damage: drill or restore it in PostgreSQL {written}."
            )
        return None, f"It could not be told, since the server for the drill did not take all of it: {error.said}."

    def _dump(self, database: str, like: Contents, formats: Mapping[str, str | None] = PINNED) -> Contents:
        """A dump of a database of the other server, in the form of `like`."""
        contents = Contents(like)
        self.progress.stage("dumping what was restored", self.found.report.database_bytes)
        reader = ScriptReader(contents)
        read = 0

        def sink(chunk: bytes) -> None:
            nonlocal read
            read += len(chunk)
            reader.feed(chunk)
            self.progress.report(read)

        argv = programs.pg_dump(self.found.encoding, options=like.options)
        environment = self.server.environment(database, formats)
        ended = run(self.server.host, argv, env=environment, sink=sink, progress=self.progress)
        if ended.code != 0:
            raise DrillFailed(
                f"What was restored could not be dumped: {ended.stderr.strip() or f'exit code {ended.code}'}"
            )
        try:
            whole = reader.finish().trailer
        except ScriptDamaged as error:
            raise DrillFailed(f"The dump of what was restored can't be read: {error}") from None
        if not whole:
            raise DrillFailed("The dump of what was restored is cut off.")
        return contents

    def _definitions_once_more(
        self, before: Contents, quietly: Mapping[str, str], formats: Mapping[str, str | None]
    ) -> Contents:
        """What the server makes of the file's definitions alone, in a second database."""
        second = self.found.trial.databases[1]
        with self.server.session(self.found.trial.maintenance_database) as session:
            self._create_database(session, second)
            try:
                self.progress.stage("loading the definitions once more", self.known.entry.bytes)
                load(self.server, second, self.known.name, self._script(rows=False), quietly, self.progress)
                return self._dump(second, before, formats)
            finally:
                # In a throw-away server it may stay, and a subscription in it would keep it from being dropped.
                if not self.found.trial.throw_away:
                    room.give_back(self.server, self.found.trial.maintenance_database, second)
