"""Load a dump's script into an empty database with the server's own psql."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping

from ...errors import DiskFull, RestoreFailed, WrongServer
from ...hosts import Exit, run
from ...hosts.endings import lost
from ...postgres.dump.builds import Batch
from ...postgres.dump.headings import Headings
from ...postgres.server import programs
from ...postgres.server.capacity import Capacity
from ...postgres.server.postmaster import WRONG_SERVER
from ...postgres.server.session import Server
from ...postgres.server.sqlstates import OUT_OF_LOCKS
from ...progress import Progress
from ..disk_space import FREE_SOME
from ..lock_shortage import ALL, too_few_locks
from .building import Builders

_NO_ROOM = "53100"
OUTPUT_KEPT = 64 << 10
# As psql shows an error with VERBOSITY "verbose": ERROR, in any language, then its SQLSTATE, which no warning has.
_REFUSED = re.compile(
    r"(?:^psql:<stdin>:(?P<line>\d+): [^\s:]+ ?|ERROR):  (?P<sqlstate>(?!0[0-2])[0-9A-Z]{5}): (?P<message>.*)",
    re.MULTILINE,
)
_PLACES = re.compile(r"^(SCHEMA|TABLE|DATATYPE|CONSTRAINT) NAME:  (.*)$", re.MULTILINE)
# Innermost first: `SQL function "norm" during inlining`, `PL/pgSQL function public.norm(text) line 1 at RETURN`.
_FUNCTION = re.compile(r'(?:SQL function "(?P<sql>[^"\n]+)"|PL/pgSQL function (?P<plpgsql>[^\n]+?)(?:\(.*?\))? line )')
_OF_ROWS = ("22", "23")
"""SQLSTATE classes of errors whose message names the table, or the line of its data."""
NO_SHARED_MEMORY = "could not resize shared memory segment"


class LoadFailed(RestoreFailed):
    """The server refused part of the script. `said` is its message, without any value; `sqlstate` its code. `table` (or
    a domain) and `constraint` are those that it names, "" if it names none; `function` is the one whose body it
    occurred in, in the server's spelling."""

    building = False
    """Whether it occurred while several sessions built indexes."""

    def __init__(
        self, name: str, said: str, sqlstate: str, table: str = "", constraint: str = "", function: str = ""
    ) -> None:
        super().__init__(f"{name} could not be loaded: {said}")
        self.said, self.sqlstate = said, sqlstate
        self.table, self.constraint, self.function = table, constraint, function

    @classmethod
    def of(cls, name: str, refused: re.Match[str], stderr: str, at: str) -> LoadFailed:
        """Build the error from psql's stderr and the match in it, `at` that object."""
        after = stderr[refused.end() :]
        places = dict(_PLACES.findall(after))
        within = places.get("TABLE") or places.get("DATATYPE") or ""
        table = f"{places.get('SCHEMA', '')}.{within}" if within else ""
        context = after[max(0, after.find("CONTEXT:  ")) :]
        function = _FUNCTION.search(context) if "CONTEXT:  " in after else None
        spelt = (function["sql"] or function["plpgsql"]).rpartition(".")[2] if function else ""
        said = _without_values(refused, stderr, function=spelt, at=at)
        return cls(name, said, refused["sqlstate"], table, places.get("CONSTRAINT", ""), spelt.strip('"'))


def load(
    server: Server,
    database: str,
    name: str,
    script: Iterable[bytes | Batch],
    options: Mapping[str, str],
    progress: Progress,
    look: Callable[[], None] = lambda: None,
    begin: bytes = b"",
    capacity: Capacity | None = None,
) -> None:
    """Load a script into the empty `database`, with these settings in the session, after the statements `begin`.

    Batches of builds in it are done by sessions of their own, for which the server has that `capacity`. `name` is for
    messages. `look` is called all the while; what it raises ends the load. The load is complete only if psql confirms
    it after the last line: cut-off input gives an exit code of 0, too. Raises LoadFailed, DiskFull if the server has no
    space for it, RestoreFailed if the connection was lost, or what `script` raises; the database is then useless.
    """
    key = secrets.token_hex(16) if programs.knows_restrict(server.program_version("psql")) else None
    mark = secrets.token_hex(16)
    output = bytearray()

    def sink(data: bytes) -> None:
        output.extend(data)
        del output[:-OUTPUT_KEPT]
        if builders is not None:
            builders.took(output)

    def failure_of_a_build(ended: Exit, at: str) -> Exception:
        error = _failure(server, ended, name, database, lambda _: at)
        if type(error) is RestoreFailed:  # it could not even connect
            error = LoadFailed(name, error.message, "")
        if isinstance(error, LoadFailed):
            error.building = True
        return error

    with server.session(database, options) as session:
        proof = session.identity.proof
    # A crash may lose the last commits of the load, but the swap's own commit waits for everything before it.
    environment = server.environment(database, {**options, "synchronous_commit": "off"})
    first = proof.encode() + (f"\\restrict {key}\n".encode() if key is not None else b"") + begin
    builders = Builders(server.host, environment, first, capacity, failure_of_a_build) if capacity else None
    headings = Headings()
    pieces = builders.interleaved(script) if builders is not None else _alone(script)
    source = headings.passing(_restricted(first, pieces, key, mark))
    argv = programs.psql_load()
    try:
        ended = run(server.host, argv, env=environment, source=source, sink=sink, progress=progress, look=look)
    finally:
        if builders is not None:
            builders.close()
    if ended.code != 0 or f"{mark}\n".encode() not in output:
        raise _failure(server, ended, name, database, headings.before)


def _failure(server: Server, ended: Exit, name: str, database: str, located: Callable[[int], str]) -> Exception:
    """Return the error to raise for a psql that ended before it had done everything; `located` names the object at a
    line of what it was given."""
    if ended.code in (None, 137) and (gone := lost(server.host, ended, "the load")):
        gone.message += " The live database is unchanged."
        return gone
    if (refused := _REFUSED.search(ended.stderr)) and ended.code == programs.PSQL_STOPPED:
        if refused["sqlstate"] == WRONG_SERVER:
            return WrongServer(
                f"psql was to load {name} into {database!r}, but connected to another server or database."
            )
        if refused["sqlstate"] == _NO_ROOM and "shared memory" not in refused["message"]:
            return DiskFull(
                f"{name} could not be loaded, because the server's disk is full: {refused['message']}. "
                "The live database is unchanged.",
                FREE_SOME,
            )
        if OUT_OF_LOCKS in refused["message"]:
            what = f"Loading {name} takes locks on up to all tables, indexes and sequences at once"
            return too_few_locks(server, database, what, ALL, unchanged=True)
        return LoadFailed.of(name, refused, ended.stderr, located(int(refused["line"] or 0)))
    why = next((line for line in ended.stderr.splitlines() if line.strip()), f"exit code {ended.code}")
    return RestoreFailed(f"{name} could not be loaded, because psql ended early: {why}")


def _alone(script: Iterable[bytes | Batch]) -> Iterator[bytes]:
    for piece in script:
        assert isinstance(piece, bytes), "builds are left to sessions of their own"
        yield piece


def _restricted(first: bytes, script: Iterable[bytes], key: str | None, mark: str) -> Iterator[bytes]:
    yield first
    yield from script
    if key is not None:
        yield f"\n\\unrestrict {key}\n".encode()
    yield f"\n\\echo {mark}\n".encode()


def _without_values(refused: re.Match[str], stderr: str, *, function: str, at: str) -> str:
    """Return the server's first error and where it occurred, without values, which may be secrets."""
    said, sqlstate = refused["message"], refused["sqlstate"]
    if sqlstate.startswith("22"):
        said = re.sub(r'".*', "(a value)", said)
    place = re.search(r"^CONTEXT:  (COPY [^,]+, line \d+)", stderr[refused.end() :], re.MULTILINE)
    places = [place[1]] if place else []
    if not place and sqlstate[:2] not in _OF_ROWS:
        places += [f"in the function {function}"] if function else []
        places += [f"at {at}"] if at else []
    return f"{said} ({', '.join([sqlstate, *places])})"
