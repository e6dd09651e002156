"""The steps that turn a backup into a database. Drills and restores take the same ones, in this order: an empty
database with its settings, the load, statistics for the planner, owner and privileges, and a dump to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import HostError, RestoreFailed, ServerError
from ...hosts import run
from ...models.manifest import DatabaseProperties, Setting
from ...postgres.dump.contents import Comparison, Contents, compare, confirm
from ...postgres.dump.events import ScriptDamaged
from ...postgres.dump.script import ScriptReader
from ...postgres.server import analysing, databases, dump_failures, programs
from ...postgres.server import catalogue as pg
from ...postgres.server.effective import current_settings
from ...postgres.server.session import OPTIONS, OWN_FORMATS, Server
from .. import disk_space, durations
from ..context import BackupContext
from ..lock_shortage import TABLES, too_few_locks
from . import load_checks
from .attempts import Loader, violations

PINNED: Mapping[str, str | None] = {}
"""The formats of a dump that all our sessions use."""


@dataclass
class Staging:
    """A database that a backup is loaded into. `loader` loads it, and knows where; `again` names a second one, for
    definitions that have to be loaded once more; `marker` is the comment of both.

    `properties` None: the backed-up database's are unknown. `public`: it has that schema. `private`: only superusers
    can connect. `foreign`: the settings of the script's dump are unknown. `warnings` say what this server can't give
    it.
    """

    context: BackupContext
    loader: Loader
    again: Callable[[], str]
    marker: str
    properties: DatabaseProperties | None
    settings: Sequence[Setting]
    public: bool
    private: bool
    foreign: bool
    same_version: bool
    oid: int = 0
    warnings: list[str] = field(default_factory=list[str])

    @property
    def server(self) -> Server:
        """The server that has the database."""
        return self.loader.server

    @property
    def name(self) -> str:
        """The database's name until it goes live."""
        return self.loader.database

    # -- the steps ---------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Create the database, empty, with the settings that it should have after the load."""
        self.loader.fresh = self._anew
        self.oid, self.warnings = self._create(self.name)

    def load(self, size: int | None) -> None:
        """Load the script. Raises what `Loader.load` raises."""
        self.loader.load(size)

    def analyse(self) -> list[str]:
        """Gather statistics for the planner; return a warning for each table that has none afterwards.

        This comes before any comparison, because it evaluates indexes' expressions, which are the user's code.
        """
        self.loader.progress.stage("analysing the tables for the planner")
        with self.loader.loading.session(self.name, self.loader.loading_options, self.loader.progress) as session:
            return analysing.analyse(session)

    def hand_over(self) -> None:
        """If a role without rights loaded it, give everything to its owner, then do what only a superuser can do."""
        self._hand_over(self.name)

    def put_back(self) -> list[str]:
        """Restore owner and privileges; return a warning for each that failed."""
        if self.properties is None:
            return []
        return databases.apply_properties(self.server, self.loader.maintenance, self.name, self.properties)

    def unlike(self) -> list[str]:
        """Return a warning if its settings or privileges differ from before."""
        if self.properties is None:
            return []
        return databases.unlike(self.server, self.name, self.properties, self.loader.options)

    def compare(self, before: Contents) -> Comparison:
        """Dump what was loaded, and compare it with the script. Raises RestoreFailed if it can't be dumped."""
        comparison = self._compare(before, PINNED)
        if self.foreign and comparison.differences and (formats := self._formats_of_the_live_server()):
            comparison = self._compare(before, formats)
        return comparison

    def of_other_formats(self) -> set[str]:
        """List tables whose rows depend on the settings of their dump, if the file's settings are unknown."""
        if not self.foreign:
            return set()
        with self.server.session(self.name, self.loader.options) as session:
            return pg.tables_of_types(session, ("timestamptz", "tstzrange", "tstzmultirange", "bytea"))

    # -- details -----------------------------------------------------------------------------------------------------

    def _create(self, name: str) -> tuple[int, list[str]]:
        loader = self.loader
        with databases.session_in(self.server, loader.maintenance) as session, loader.progress.uninterrupted():
            oid, warnings = databases.create(session, name, self.properties, self.marker, private=self.private)
        if not self.public:
            with self.server.session(name, loader.options) as inside:
                databases.drop_public(inside)
        warnings += databases.apply_settings(self.server, name, self.settings, loader.options)
        if loader.role is not None:
            loader.role.prepare(self.server, loader.maintenance, name, loader.options)
        return oid, warnings

    def _anew(self) -> None:
        with databases.session_in(self.server, self.loader.maintenance) as session:
            disk_space.drop(self.server, session, self.name)
        self.create()

    def _hand_over(self, name: str) -> None:
        loader = self.loader
        if loader.role is not None and loader.put_off is not None:
            loader.role.hand_over(self.server, name, loader.put_off, loader.options, loader.progress)
            with databases.session_in(self.server, loader.maintenance) as session:
                databases.set_comment(session, name, self.marker)
            databases.apply_settings(self.server, name, self.settings, loader.options)

    def _compare(self, before: Contents, formats: Mapping[str, str | None]) -> Comparison:
        after = self._dump(self.name, before, formats)
        comparison = compare(before, after, same_version=self.same_version)
        if not comparison.confirmed:
            comparison = confirm(comparison, self._definitions_once_more(before, formats), after)
        return load_checks.without_violations(comparison, violations(self.loader, with_keys=False))

    def _dump(self, database: str, like: Contents, formats: Mapping[str, str | None]) -> Contents:
        """Dump a database in the form of `like`."""
        loader, contents = self.loader, Contents(like)
        with self.server.session(database, loader.options) as session:
            encoding, size = pg.properties(session).encoding, pg.connected_database(session).bytes
        loader.progress.stage("dumping what was restored", size, durations.of_dumping(size or 0))
        reader = ScriptReader(contents)
        read = 0

        def sink(chunk: bytes) -> None:
            nonlocal read
            read += len(chunk)
            reader.feed(chunk)
            loader.progress.report(read)

        argv = programs.pg_dump(encoding, options=like.options)
        environment = self.server.environment(database, {**loader.options, **loader.formats, **formats})
        try:
            ended = run(self.server.host, argv, env=environment, sink=sink, progress=loader.progress, packed=True)
            if ended.code != 0:
                why = ended.stderr.strip() or f"exit code {ended.code}"
                if dump_failures.kind_of(why) == "locks":
                    what = "The restored database could not be compared: pg_dump locks every table"
                    raise too_few_locks(self.server, database, what, TABLES, unchanged=True)
                raise RestoreFailed(f"The restored database could not be dumped: {why}")
            whole = reader.finish().trailer
        except ScriptDamaged as error:
            raise RestoreFailed(f"The dump of the restored database can't be read: {error}") from None
        if not whole:
            raise RestoreFailed("The dump of the restored database is cut off.")
        return contents

    def _definitions_once_more(self, before: Contents, formats: Mapping[str, str | None]) -> Contents:
        """Load the script's definitions alone into a second database, and dump that."""
        again = self.again()
        try:
            self._create(again)
            self.loader.progress.stage("loading the definitions once more")
            self.loader.load_definitions(again)
            self._hand_over(again)
            return self._dump(again, before, formats)
        finally:
            disk_space.give_back(self.server, self.loader.maintenance, again)

    def _formats_of_the_live_server(self) -> dict[str, str | None]:
        """Return the live server's settings for how pg_dump writes timestamps and bytea; {} if unknown, or equal to
        ours."""
        try:
            with self.context.server.session(self.context.database, OWN_FORMATS) as session:
                found: dict[str, str | None] = {**current_settings(session, OWN_FORMATS)}
        except (HostError, ServerError):
            return {}
        return {} if all(found[name] == OPTIONS[name] for name in found) else found
