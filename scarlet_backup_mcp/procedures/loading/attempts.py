"""Load a script: with which settings, and what to try if the server refuses it as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...errors import ConstraintViolated, RestoreFailed, WillNotLoad, again
from ...models.common import SearchPath, Verdict
from ...models.verification import Violation
from ...postgres.dump import constraints
from ...postgres.dump.builds import Batch
from ...postgres.dump.constraints import Broken, Relaxed
from ...postgres.dump.differences import DumpDifference
from ...postgres.dump.meanings import Meanings, meanings, other_meanings
from ...postgres.dump.put_off import PutOff
from ...postgres.dump.rewriting import (
    SETS_TRANSACTION_TIMEOUT,
    rewritten,
    with_search_path,
    with_settings_for_the_data,
    without_transaction_timeout,
)
from ...postgres.server.capacity import SHARED_MEMORY_AT, Capacity, capacity
from ...postgres.server.effective import SEARCH_PATH, for_options, late, preamble, usable
from ...postgres.server.quoting import identifier
from ...postgres.server.search_paths import functions_named, schemas_of_others
from ...postgres.server.session import Server, Session
from ...postgres.server.sqlstates import UNKNOWN_NAMES
from ...progress import Progress
from ..disk_space import watched
from .load_role import TRUSTING, LoadRole
from .psql import NO_SHARED_MEMORY, LoadFailed, load

HOPELESS = "Fix the rows in the live database, then take a new backup."
"""The remedy if rows violate what can be neither NOT VALID nor left out."""
# Classes of errors (PostgreSQL's documentation, appendix A): bad values; and errors that every attempt would repeat.
_BAD_DATA = re.compile(r"22(?!023)")
_BAD_SYNTAX = "42601"
_DEFINITE = re.compile(r"22|23|2F|38|39|3F|42|44|P0")


@dataclass(frozen=True)
class Way:
    """How to load. `search_path` None is the script's own empty one; `frugal`: build indexes with little memory;
    `relaxed`: checks come after the data, which are loaded even if they violate constraints; `alone`: the one session
    also builds the indexes."""

    search_path: str | None = None
    frugal: bool = False
    relaxed: bool = False
    alone: bool = False


@dataclass
class Loader:
    """Loads a script into an empty database, and again into a new one if another way may help.

    Meanwhile the server's free space is watched through `maintenance`, another database. `fresh` drops what an attempt
    left and creates the database again. `script` takes `rows`: False is for the definitions only. `trusted` decides, in
    a session in what the first attempt left, whether functions on the database's own search_path may run (None: they
    may not). `way` is the one to begin with, and afterwards the one that was taken.
    """

    server: Server
    maintenance: str
    database: str
    name: str
    script: Callable[..., Iterator[bytes]]
    settings: Mapping[str, str]
    options: Mapping[str, str]
    progress: Progress
    trusted: Callable[[Session], bool] | None
    apart: Callable[[bytes], Iterator[bytes | Batch]] | None = None
    fresh: Callable[[], object] = lambda: None
    way: Way = field(default_factory=Way)
    warnings: list[str] = field(default_factory=list[str])
    """Settings of the backup's database that the server does not accept."""
    broken: list[Broken] = field(default_factory=list[Broken])
    """Constraints of the script that the data violate, after a relaxed load."""
    refused: list[str] = field(default_factory=list[str])
    """The server's error for each attempt before the last one."""
    meant: Meanings | None = None
    """What names in the backed-up database's expressions mean; None: unknown."""
    foreign: bool = False
    """Whether the script was not made by `backup`."""
    role: LoadRole | None = None
    """The role without rights that loads it; what needs a superuser is then in `put_off`."""
    put_off: PutOff | None = None
    remedy: str = ""
    """After an attempt that failed for an unknown name: what would make it work."""
    usable: dict[str, str] = field(default_factory=dict[str, str])
    """Those of `settings` that the server accepts, known once it is loaded."""
    _knows_transaction_timeout: bool = True
    _capacity: Capacity | None = None
    _loads_with_none: bool = False
    _its_path_failed: bool = False
    """Whether the database's own search_path failed, tried for the meaning of names after a load without any."""

    @property
    def path(self) -> str:
        """The database's own search_path; "" if it is unknown or empty."""
        return self.settings.get(SEARCH_PATH, "")

    @property
    def search_path(self) -> SearchPath:
        """The search_path that it was loaded with."""
        return "empty" if self.way.search_path is None else "database"

    @property
    def formats(self) -> dict[str, str | None]:
        """Options for a dump to compare with the backup: the format of money, which pg_dump leaves to the session."""
        return {name: for_options(value) for name, value in self.usable.items() if name == "lc_monetary"}

    @property
    def as_loaded(self) -> str:
        """SQL that gives another session the settings of the load."""
        path = f"pg_catalog, {self.way.search_path}" if self.way.search_path is not None else "pg_catalog"
        return preamble({**self.usable, SEARCH_PATH: path}).decode()

    @property
    def loading(self) -> Server:
        """The server, connected to as the role that loads."""
        return self.role.server if self.role else self.server

    @property
    def loading_options(self) -> Mapping[str, str]:
        """`options` for that role: only a superuser can be a replica."""
        return {} if self.role else self.options

    def load(self, size: int | None = None) -> None:
        """Load the script. Raises the last attempt's LoadFailed, and what `load` raises."""
        with self.loading.session(self.database, self.loading_options) as session:
            self.usable, self.warnings = usable(session, self.settings)
            self._knows_transaction_timeout = session.version >= 170000
            if self.apart is not None and self.role is None:
                self._capacity = capacity(session, self.server.host.free_bytes(SHARED_MEMORY_AT))
        while True:
            try:
                with watched(self.server, self.maintenance, self.progress) as look:
                    self._attempt(self.database, look)
                following = self._for_the_meaning()
                if following is None:
                    return
                self.way = following
            except LoadFailed as error:
                following = self._after(error)
                if following is None or error.sqlstate in UNKNOWN_NAMES:
                    self.remedy = self._remedy(error)
                if following is None:
                    raise
                if following.alone == self.way.alone:
                    self.refused.append(error.said)
                self.way = following
            self.progress.stage(f"loading {self.name} once more, {self.how}", size)
            self.fresh()

    def load_definitions(self, database: str) -> None:
        """Load the script without its rows, in the way that worked, into another empty database."""
        self._load(database, self.script(rows=False))

    @property
    def how(self) -> str:
        """The way in words; "" for the usual one."""
        words = [
            *(["with the database's own search_path"] if self.way.search_path is not None else []),
            *(["with little memory for its indexes"] if self.way.frugal else []),
            *(["with its constraints created after its rows"] if self.way.relaxed else []),
            *(["in one session"] if self.way.alone else []),
        ]
        return " and ".join(words)

    def _attempt(self, database: str, look: Callable[[], None]) -> None:
        """Load the script, with sessions that build its indexes if this is the usual way."""
        usual = not (self.way.search_path is not None or self.way.frugal or self.way.relaxed or self.way.alone)
        if not usual or self.apart is None or self._capacity is None or late(self.usable):
            self._load(database, self.script(), look)
            return
        script = self.apart(b"" if self._knows_transaction_timeout else SETS_TRANSACTION_TIMEOUT)
        begin, options = preamble(self.usable), self.options
        load(self.server, database, self.name, script, options, self.progress, look, begin, self._capacity)

    def _load(self, database: str, script: Iterator[bytes], look: Callable[[], None] = lambda: None) -> None:
        """Load the script in one session."""
        relaxed = Relaxed() if self.way.relaxed else None
        if not self._knows_transaction_timeout:
            script = without_transaction_timeout(script)
        if self.role is not None:
            self.put_off = PutOff(self.role.schemas)
            script = rewritten(script, self.put_off.rewrite)
        begin, options = preamble(self.usable, frugal=self.way.frugal), self.loading_options
        load(self.loading, database, self.name, self._stream(script, relaxed), options, self.progress, look, begin)
        if relaxed is not None and database == self.database:
            with self.loading.session(database, options) as session:
                self.broken = constraints.broken(session, relaxed.constraints)

    def _stream(self, script: Iterator[bytes], relaxed: Relaxed | None) -> Iterator[bytes]:
        if deferred := late(self.usable):
            script = rewritten(script, with_settings_for_the_data(deferred))
        if self.way.search_path is not None:
            script = rewritten(script, with_search_path(self.way.search_path))
        if relaxed is not None:
            script = rewritten(script, relaxed.rewrite)
        yield from script
        if relaxed is not None:
            yield b"\n".join(relaxed.last())

    def _after(self, error: LoadFailed) -> Way | None:
        """Return the way to try after that error; None if there is none."""
        way = self.way
        if NO_SHARED_MEMORY in error.said and not way.frugal:
            return replace(way, frugal=True)
        if error.building and error.sqlstate not in constraints.VIOLATIONS:
            return replace(way, alone=True)
        if error.sqlstate in UNKNOWN_NAMES and way.search_path is None and self.path and self._trusts():
            return replace(way, search_path=self.path)
        if error.sqlstate in constraints.VIOLATIONS and not way.relaxed:
            return replace(way, relaxed=True)
        return self._with_none_again() if self._loads_with_none else None

    def _for_the_meaning(self) -> Way | None:
        """Return a way in which names may keep their meaning, after a load in which they did not; None if none."""
        if self._loads_with_none and self.other_meanings():
            return self._with_none_again()
        if self._its_path_failed or self.way.search_path is not None or not self.path:
            return None
        if not self.other_meanings() or not self._trusts():
            return None
        self._loads_with_none = True
        self.refused.append("names in its expressions changed their meaning")
        return replace(self.way, search_path=self.path)

    def _with_none_again(self) -> Way:
        self._loads_with_none, self._its_path_failed = False, True
        return replace(self.way, search_path=None)

    def other_meanings(self) -> list[DumpDifference]:
        """List what uses something else than in the backed-up database, except constraints that the data violate."""
        if self.meant is None:
            return []
        with self.server.session(self.database, self.options) as session:
            found = other_meanings(self.meant, meanings(session))
        left_out = [
            end
            for one in (item.constraint for item in self.broken if item.left_out)
            for end in (f" {one.name} on {one.schema}.{one.of}", f" {one.schema}.{one.name}")
        ]
        return [one for one in found if not one.what.replace('"', "").endswith(tuple(left_out))]

    def _trusts(self) -> bool:
        if self.trusted is None:
            return False
        with self.server.session(self.database, self.options) as session:
            return self.trusted(session)

    def _remedy(self, error: LoadFailed) -> str:
        """Say what would make a load work that failed for a name in a function's body; "" if unknown."""
        if error.sqlstate not in UNKNOWN_NAMES or not error.function:
            return ""
        with self.server.session(self.database, self.options) as session:
            functions = functions_named(session, error.function)
        path = self.path or "…"
        where, again = "the live database", "take a new backup"
        if self.foreign:
            where, again = "the database that it was dumped from", "dump it again"
        own = " ".join(
            f"ALTER {one.kind} {one.name} SET search_path = {path};" for one in functions if one.extension is None
        )
        if own:
            return f"Run this in {where}, then {again}: {own}"
        theirs = next((one for one in functions if one.extension), None)
        if theirs is None:
            return ""
        return (
            f"{theirs.name} belongs to the extension {theirs.extension}, whose functions no dump changes. Call it "
            f"from a function of your own that is created with SET search_path = {path}, then {again}."
        )


def trusts_path(path: str, owner: str) -> Callable[[Session], bool]:
    """Return a test that only superusers and the database's `owner` own the schemas of that search_path: a function
    there that fits better wins over pg_catalog's, and a load runs as a superuser."""

    return lambda session: not schemas_of_others(session, path, owner)


def violations(loader: Loader, *, with_keys: bool) -> list[Violation]:
    """List the constraints that the loaded data violate, `with_keys` of some rows (on a sandbox server only)."""
    found = loader.broken
    if found and with_keys:
        with loader.server.session(loader.database, loader.options) as session:
            session.execute(loader.as_loaded)
            found = constraints.with_keys(session, found)
    return [
        Violation(
            table=f"{item.constraint.schema}.{item.constraint.of}",
            constraint=item.constraint.name,
            kind=item.constraint.kind,
            rows=item.rows,
            keys=list(item.keys),
        )
        for item in found
    ]


def violation_warnings(broken: list[Broken]) -> list[str]:
    """Return warnings about violations that a load has accepted."""
    return [_violation(item, f"{item.constraint.schema}.{item.constraint.of}") for item in broken]


def _violation(item: Broken, of: str) -> str:
    one = item.constraint
    if item.lacks:
        return (
            f"The {one.kind} {one.name} of {of} could not be created, because the unique index {item.lacks} that it "
            "refers to was left out. Create that index first, then the foreign key."
        )
    if item.left_out:
        return f"Rows violate the {one.kind} {one.name} of {of}: it was left out. Fix the rows, then create it."
    return (
        f"Rows violate the {one.kind} {one.name} of {of}: it is NOT VALID now. Fix the rows, then VALIDATE CONSTRAINT "
        f"{identifier(one.name)}."
    )


def violated(names: list[str], *, foreign: bool) -> str:
    """Say in a sentence whose rows violate these constraints."""
    if foreign:
        return f"Its rows violate {', '.join(names)}."
    return f"The database had rows that violate {', '.join(names)}; the backup is faithful."


def refuse_broken(loader: Loader, *, foreign: bool) -> None:
    """Raise ConstraintViolated if the loaded data violate constraints."""
    broken = [item.constraint for item in loader.broken if not item.lacks]
    names = [f"{one.name} of {one.schema}.{one.of}" for one in broken]
    if names:
        why = f" ({'; '.join(loader.refused)})" if loader.refused else ""
        raise ConstraintViolated(f"{violated(names, foreign=foreign)}{why} The live database is unchanged.")


def as_error(error: LoadFailed, loader: Loader, *, foreign: bool) -> RestoreFailed:
    """Return the error of a restore that could not load its source."""
    untouched = "The live database is unchanged."
    if error.sqlstate == "42501" and loader.role is not None:
        return RestoreFailed(f"{error.message}: that needs a superuser. {untouched}", TRUSTING, again(drill="never"))
    if error.sqlstate in constraints.VIOLATIONS:
        what = f"{error.constraint} of {error.table}" if error.constraint else "a constraint"
        return ConstraintViolated(f"{violated([what], foreign=foreign)} {error.message} {untouched}", HOPELESS)
    if error.sqlstate in UNKNOWN_NAMES and (loader.remedy or not foreign):
        unsure = not foreign and loader.way.search_path is None and loader.path
        drill = "Restore it with a drill: if it loads in the sandbox, it is loaded in the same way here."
        remedy = " Or: ".join(filter(None, [drill if unsure else "", loader.remedy]))
        return WillNotLoad(f"{error.message} {untouched}", remedy or None, again(drill="always") if unsure else None)
    return error


def only_with_its_path(loader: Loader) -> str:
    """Say why a foreign file that loaded with the database's own search_path in a drill can't be restored."""
    unused = f"which a restore never uses for a file that `backup` did not make ({'; '.join(loader.refused)})"
    return f"The file is intact, but only loads with the database's own search_path, {unused}. {loader.remedy}".strip()


def verdict_on(
    error: LoadFailed, remedy: str, dumped: int, here: int, *, foreign: bool, lacking: Sequence[str] = ()
) -> tuple[Verdict, str]:
    """Return a drill's verdict, and why, on a dump of PostgreSQL `dumped` that PostgreSQL `here` did not accept.

    It is "unknown" unless the file is certainly the cause. `dumped` is 0 if unknown. A file with our manifest is what
    was written, so it is never "damaged". `lacking` are settings of its database that could not be used there: they may
    be why `money` or a check rejects a value.
    """
    other_version = dumped not in (0, here)
    if lacking and not foreign and (_BAD_DATA.match(error.sqlstate) or error.sqlstate in constraints.VIOLATIONS):
        why = f"The drill was inconclusive, because its server has other settings: {error.said}."
        return "unknown", " ".join([why, *lacking])
    if error.sqlstate in constraints.VIOLATIONS:
        faithful = "" if foreign else "the backup is faithful, but "
        return "constraint_violated", f"{error.message}; {faithful}it can't be loaded as it is"
    if foreign and (_BAD_DATA.match(error.sqlstate) or (error.sqlstate == _BAD_SYNTAX and not other_version)):
        return "damaged", error.message
    if other_version:
        return "unknown", (
            f"The file is a dump of PostgreSQL {dumped}, and PostgreSQL {here} rejects part of it: {error.said}. "
            f"This does not mean that the file is damaged: drill or restore it in PostgreSQL {dumped}."
        )
    if _DEFINITE.match(error.sqlstate):
        why = f"The file is intact, but the server rejects part of it: {error.said}."
        return "will_not_load", f"{why} {remedy or ('' if foreign else WillNotLoad.default_remedy)}".strip()
    return "unknown", f"The drill was inconclusive: its server rejected part of the file: {error.said}."
