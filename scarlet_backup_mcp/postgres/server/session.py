"""Talk to a PostgreSQL server through its own psql, wherever that runs.

psql is the one client that is certain to be there and to match the server. A `Session` is one running psql: it holds a
snapshot, an advisory lock or a transaction until it ends.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

from ...errors import (
    HostError,
    PermissionDenied,
    ProgramMissing,
    QueryFailed,
    ServerError,
    ServerUnreachable,
    ServerUnsupported,
    TableLocked,
    TooFewLocks,
)
from ...hosts import POLL, Exit, Host, run
from ...hosts.endings import lost
from ...progress import Progress
from . import connection_failures
from .postmaster import IDENTITY, ServerIdentity, Whereabouts
from .programs import LOCK_WAIT_MS
from .sqlstates import OUT_OF_LOCKS

OWN_FORMATS: Mapping[str, str | None] = {"TimeZone": None, "bytea_output": None}
"""For dumps that are compared with one made without any of the options below."""
OWN_SEARCH_PATH: Mapping[str, str | None] = {"search_path": None}
"""For queries about the database's own search_path."""
ENGLISH: Mapping[str, str | None] = {"lc_messages": "C"}
"""For programs of superusers; others may not set it."""
REJECTING, NOT_ASKED = 1, 3
"""pg_isready's exit codes for a server that rejects connections, and if it made no attempt ("Exit Status" in its manual
page)."""
MINIMUM_VERSION = 140000
"""`client_connection_check_interval`, and other features used here, exist from 14 on."""
ALL_RESULTS = 150000
"""The version of psql from which on it shows the results of all statements of a message (SHOW_ALL_RESULTS)."""

# What a session would otherwise inherit from the database's or the role's settings. TimeZone and bytea_output change
# how pg_dump writes values (seen on 15.20); the time-outs would end a long dump.
OPTIONS: Mapping[str, str] = {
    # A user's function in public must not be taken for one of the catalogue's.
    "search_path": "pg_catalog",
    "role": "none",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "row_security": "off",
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "lock_timeout": str(LOCK_WAIT_MS),
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "client_min_messages": "warning",
    # Else each commit would wait for a synchronous standby, for ever if that is gone (seen on 15.20 and 18.6).
    "synchronous_commit": "local",
}

_NO_ROOM = (
    "Free some space where the server keeps its data or its temporary files (with Docker, `docker system df` shows "
    "what is used), then try again."
)


class Readiness(NamedTuple):
    """Whether a server accepts connections, what pg_isready says, whether the server answers that it does not accept
    any now, as during its recovery, and whether pg_isready asked it at all."""

    accepts: bool
    message: str
    rejects: bool = False
    asked: bool = True


class Server:
    """How to connect: a host, a role and libpq's parameters. `tag` marks our backends in pg_stat_activity.

    `where` says which server is meant: every session proves that it is there.
    """

    def __init__(
        self, host: Host, user: str, environment: Mapping[str, str], tag: str, where: Whereabouts | None = None
    ) -> None:
        self.host = host
        self.user = user
        self.tag = tag
        self.where = where or Whereabouts(host, None)
        self._environment = dict(environment)
        self._english: Mapping[str, str | None] = {}

    def environment(self, database: str, options: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """Return a client program's environment variables. The database's name is in PGDATABASE, where libpq takes it
        as a name; in `--dbname` it could be read as a connection string."""
        settings: dict[str, str | None] = {**OPTIONS, **self._english, **(options or {})}
        if self.host.kind == "docker" or os.name != "nt":
            # Without it a backend outlives its killed psql until its statement ends. Windows servers lack it.
            settings.setdefault("client_connection_check_interval", "1000")
        return {
            "PGUSER": self.user,
            "PGCONNECT_TIMEOUT": "10",
            # libpq sends it at the start, when it beats PGOPTIONS
            **({"PGTZ": zone} if (zone := settings["TimeZone"]) is not None else {}),
            **self.where.environment(),
            **self._environment,
            "PGDATABASE": database,
            "PGAPPNAME": self.tag,
            "PGCLIENTENCODING": "UTF8",
            "PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in settings.items() if value is not None),
            "LC_MESSAGES": "C",
            "LC_ALL": "",  # which would beat it
        }

    def tagged(self, tag: str) -> Server:
        """Return this server with another mark on its backends."""
        marked = Server(self.host, self.user, self._environment, tag, self.where)
        marked._english = self._english
        return marked

    def logged_in_as(self, user: str, password: str) -> Server:
        """Return this server for another role."""
        given = {**self._environment, "PGUSER": user, "PGPASSWORD": password}
        return Server(self.host, user, given, self.tag, self.where)

    def speak_english(self) -> None:
        """Have the server answer untranslated from now on, like psql and pg_dump. The role has to be a superuser."""
        self._english = ENGLISH

    def session(
        self, database: str, options: Mapping[str, str | None] | None = None, progress: Progress | None = None
    ) -> Session:
        """Connect. Raises ServerError or HostError if that fails, WrongServer if another server answers."""
        return Session(self, database, options, progress)

    def rows(self, database: str, query: str) -> list[dict[str, Any]]:
        """Run one query in a new session; return its rows."""
        with self.session(database) as session:
            return session.rows(query)

    def program_version(self, program: str) -> str:
        """Return the version of a client program, for example "15.20". Raises ProgramMissing, ContainerLost or
        EngineUnreachable."""
        out = bytearray()
        ended = run(self.host, [program, "--version"], sink=out.extend)
        found = re.search(r"\) (\d+(?:\.\d+)*\S*)", out.decode(errors="replace"))
        if ended.code != 0 or found is None:
            if gone := lost(self.host, ended, f"`{program} --version`"):
                raise gone
            raise ProgramMissing(f"`{program} --version` does not work there: {ended.stderr.strip() or ended.code}")
        return found[1]

    def ready(self, timeout: float = 5) -> Readiness:
        """Run pg_isready. If nobody answers where the settings say, ask where the server says that it listens."""
        argv, environment = ["pg_isready", f"--timeout={int(timeout)}"], self.environment("postgres")
        while True:
            out = bytearray()
            ended = run(self.host, argv, env=environment, sink=out.extend)
            elsewhere = {**environment, **self.where.environment()}
            if ended.code in (0, REJECTING, NOT_ASKED) or elsewhere == environment:
                message = (out.decode(errors="replace") or ended.stderr).strip()
                return Readiness(ended.code == 0, message, ended.code == REJECTING, ended.code != NOT_ASKED)
            environment = elsewhere


class Session:
    """A running psql that takes one statement after another. A context manager: its end ends psql and the backend."""

    def __init__(
        self, server: Server, database: str, options: Mapping[str, str | None] | None, progress: Progress | None = None
    ) -> None:
        self._server, self._connected = server, False
        self._progress = progress or Progress()
        self._buffer = bytearray()
        self._nowhere = "NUL" if server.host.kind == "local" and os.name == "nt" else "/dev/null"
        argv = ["psql", "-X", "-q", "-A", "-t", "-w"]
        self._environment = server.environment(database, options)
        self._process = server.host.start(argv, env=self._environment, stdin=True)
        try:
            # Qualified: with OWN_SEARCH_PATH a user's function may come before the catalogue's.
            facts = self.rows(
                f"""SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 AS version,
                           pg_catalog.pg_backend_pid() AS pid, :VERSION_NUM AS psql,
                           pg_catalog.current_setting('is_superuser') = 'on' AS superuser, {IDENTITY}"""
            )[0]
            self._connected = True
            self._psql: int = facts.pop("psql")
            superuser: bool = facts.pop("superuser")
            self.version: int = facts.pop("version")
            self.pid: int = facts.pop("pid")
            self.identity = ServerIdentity(**facts)
            server.where.require(self.identity, database)
            if self.version < MINIMUM_VERSION:
                raise ServerUnsupported(f"The server's version is {self.version}; {MINIMUM_VERSION} is the minimum.")
            if self.version >= 170000:
                self.execute("SET transaction_timeout = 0")
            if superuser:
                server.speak_english()
                self.execute("SET lc_messages = 'C'")
        except BaseException:
            self.close()
            raise

    def execute(self, statement: str, timeout: float | None = None) -> str:
        """Run one statement; return what psql printed: unaligned, tuples only.

        Raises QueryFailed (or PermissionDenied) with the server's message; ServerError if the connection is lost;
        ServerUnreachable after `timeout` seconds, with the session closed.
        """
        mark = secrets.token_hex(12)
        script = f"{statement}\n;\n\\echo {mark} :ERROR :SQLSTATE\n\\echo :LAST_ERROR_MESSAGE\n\\echo {mark}\n"
        self._write(script)
        output = self._read_until(f"{mark}\n".encode(), timeout)
        answer, _, status = output.rpartition(f"{mark} ".encode())
        first, _, message = status.decode(errors="replace").partition("\n")
        failed, _, sqlstate = first.partition(" ")
        if failed == "true":
            raise _query_error(message.strip(), sqlstate)
        return answer.decode()

    def rows(self, query: str, timeout: float | None = None) -> list[dict[str, Any]]:
        """Run a SELECT; return its rows as dictionaries of JSON values. Raises what `execute` raises."""
        wrapped = f"SELECT coalesce(pg_catalog.json_agg(pg_catalog.row_to_json(answer)), '[]') FROM ({query}) AS answer"
        return json.loads(self.execute(wrapped, timeout))

    def ping(self) -> None:
        """Raise ServerUnreachable, and close the session, unless the server answers within 10 s."""
        self.execute("SELECT 1", timeout=10)

    def copy_away(self, statements: Sequence[str], timeout: float | None = None) -> list[int | ServerError]:
        """Run statements `COPY … TO STDOUT` in a transaction; return the number of rows of each, or its error.

        They go to the server together; if one fails, the others go once more, each alone. psql discards the rows where
        it runs. After an error the transaction continues as before that statement. Raises ServerError if the connection
        is lost; ServerUnreachable after `timeout` seconds for all of them, with the session closed.
        """
        until = None if timeout is None else time.monotonic() + timeout
        others: Sequence[str] = statements
        found: list[int | ServerError] = []
        failed: tuple[int, ServerError] | None = None
        if len(statements) > 1 and self._psql >= ALL_RESULTS:
            rows, error = self._copy_away([statements], timeout)[0]
            if error is None:
                return [*rows]
            # What it had locked is unlocked again, so the names of its tables are no longer certain.
            failed = len(rows), error
            others = [*statements[: len(rows)], *statements[len(rows) + 1 :]]
        left = None if until is None else max(0.0, until - time.monotonic())
        for rows, error in self._copy_away([[statement] for statement in others], left):
            found.append(error or rows[0])
        if failed is not None:
            found.insert(*failed)
        return found

    def _copy_away(
        self, groups: Sequence[Sequence[str]], timeout: float | None
    ) -> list[tuple[list[int], ServerError | None]]:
        """Run each group as one message; return the rows of its statements up to the error, if any, that ended it."""
        mark = secrets.token_hex(12)
        script = "\\set ON_ERROR_ROLLBACK on\n\\set QUIET off\n"
        for group in groups:
            together = " \\;\n".join(group)
            script += f"\\echo {mark}\n{together} \\g {self._nowhere}\n\\echo {mark} :ERROR :SQLSTATE\n"
            script += "\\echo :LAST_ERROR_MESSAGE\n"
        script += f"\\set QUIET on\n\\set ON_ERROR_ROLLBACK off\n\\echo {mark}.\n"
        self._write(script)
        answers = self._read_until(f"{mark}.\n".encode(), timeout).decode(errors="replace").split(f"{mark}\n")[1:]
        found: list[tuple[list[int], ServerError | None]] = []
        for answer in answers:
            tags, _, status = answer.partition(f"{mark} ")
            first, _, message = status.partition("\n")
            failed, _, sqlstate = first.partition(" ")
            rows = [int(tag[1]) for tag in re.finditer(r"^COPY (\d+)$", tags, re.MULTILINE)]
            found.append((rows, _query_error(message.strip(), sqlstate) if failed == "true" else None))
        if any(error is None and len(rows) != len(group) for group, (rows, error) in zip(groups, found, strict=True)):
            raise ServerError("psql did not report how many rows it copied.")
        return found

    def close(self) -> Exit:
        """End psql: by closing its input, or by force if it is busy. An open transaction is rolled back."""
        with suppress(OSError):
            self._process.end_input()
        until = time.monotonic() + 2
        with suppress(HostError):
            while (left := until - time.monotonic()) > 0:
                if self._process.read(left) == b"":
                    return self._process.wait()
        self._process.kill()
        return self._process.wait()

    def kill(self) -> None:
        """End psql at once, from any thread; `execute` then raises."""
        self._process.kill()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BaseException):
            self._process.kill()
        self.close()

    def _write(self, script: str) -> None:
        try:
            self._process.write(script.encode())
        except OSError:
            raise self._lost() from None

    def _read_until(self, mark: bytes, timeout: float | None) -> bytes:
        until = None if timeout is None else time.monotonic() + timeout
        begin = 0
        while (at := self._buffer.find(mark, begin)) < 0:
            begin = max(0, len(self._buffer) - len(mark))
            self._progress.check()
            chunk = self._process.read(POLL)
            if chunk == b"":
                raise self._lost()
            self._buffer += chunk or b""
            if until is not None and time.monotonic() > until:
                self._process.kill()
                raise ServerUnreachable(f"The server did not answer within {timeout:g} s.")
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return found

    def _lost(self) -> Exception:
        ended = self._process.wait()
        if self._connected:
            return connection_failures.lost(ended)
        return connection_failures.why(self._server.host, self._environment, ended)


def _query_error(message: str, sqlstate: str) -> ServerError:
    if sqlstate == "55P03":
        return TableLocked(f"Another session holds a lock that is in the way: {message}")
    if sqlstate == "42501":
        return PermissionDenied(f"The server refused: {message}")
    remedy = _NO_ROOM if sqlstate == "53100" else None
    if OUT_OF_LOCKS in message:
        remedy = TooFewLocks.SETTING.format("a higher value")
    return QueryFailed(f"The server said: {message} (SQLSTATE {sqlstate})", remedy, sqlstate=sqlstate)
