"""Make sure that a session is in the intended server, by what that server wrote into its data directory.

Lines of `postmaster.pid`: src/include/utils/pidfile.h (3: start time, 4: port, 5: socket directory, 6: address).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import WrongServer
from ...hosts import Host, run

FILE = "postmaster.pid"
START_SECONDS = 5.0
"""The server's own start time may be this much later than the one in the file (seen on 15.20: 0.3 s): in between it
preloads libraries, resolves names and clears temporary files."""
_ANY_ADDRESS = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Postmaster:
    """A running server. `started_at` is in seconds since 1970; `host` is a socket directory or an address."""

    started_at: float
    port: str
    host: str

    def is_of(self, found: ServerIdentity) -> bool:
        """Tell whether that server wrote this."""
        return -1 <= found.started_at - self.started_at <= START_SECONDS


@dataclass(frozen=True)
class ServerIdentity:
    """The identity of a session's server, as the session sees it."""

    database: str
    database_oid: int
    system_identifier: str
    started_at: float
    data_directory: str | None

    @property
    def proof(self) -> str:
        """A statement that fails with WRONG_SERVER in any other server or database."""
        return f"""DO $$ BEGIN
IF (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) <> {self.database_oid}
    OR (SELECT system_identifier FROM pg_catalog.pg_control_system()) <> {self.system_identifier}
    OR EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) <> {self.started_at!r}
THEN RAISE EXCEPTION 'this is another server or database' USING ERRCODE = '{WRONG_SERVER}'; END IF;
END $$;
"""


WRONG_SERVER = "SB001"
"""SQLSTATE of the proof's failure; PostgreSQL does not use that class."""
IDENTITY = """pg_catalog.current_database() AS database,
    (SELECT d.oid::pg_catalog.int8 FROM pg_catalog.pg_database d
     WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) AS database_oid,
    (SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()) AS system_identifier,
    EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) AS started_at,
    CASE WHEN pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')
         THEN pg_catalog.current_setting('data_directory') END AS data_directory"""
"""Columns of a SELECT for it. EXTRACT returns a numeric: `extra_float_digits` would round a float8."""


class Whereabouts:
    """The one server that a call works on. Threads may share it.

    With a `data_directory` it is the server that runs on that directory in `host`'s container; without one, it is the
    first session's server. `otherwise` are PGHOST and PGPORT for a server whose file can't be read there.
    """

    def __init__(self, host: Host, data_directory: str | None, otherwise: Mapping[str, str] | None = None) -> None:
        self._host, self._directory, self._otherwise = host, data_directory, dict(otherwise or {})
        self._postmaster: Postmaster | None = None
        self._first: ServerIdentity | None = None

    def environment(self) -> dict[str, str]:
        """Return PGHOST and PGPORT, as far as they are known. Raises HostError."""
        if self._directory is not None and self._postmaster is None:
            self._postmaster = read(self._host, self._directory)
        found = self._postmaster
        return self._otherwise if found is None else {"PGHOST": found.host, "PGPORT": found.port}

    def require(self, found: ServerIdentity, database: str) -> None:
        """Raise WrongServer unless a session that was opened for `database` is there, in the intended server."""
        if found.database != database:
            raise WrongServer(f"A session for the database {database!r} ended up in {found.database!r}.")
        if self._directory is not None and not self._runs_here(found):
            raise WrongServer(
                f"The server that answered is not the container's: it has been running since {found.started_at:.0f} "
                f"(seconds since 1970), but the container's {self._directory}/{FILE} {self._recorded()}.",
                f"{WrongServer.default_remedy} If it was only slow to start, restart it. If the server keeps its data "
                "elsewhere, set PGDATA in the container's environment.",
            )
        first = self._first = self._first or found
        if found.system_identifier != first.system_identifier:
            raise WrongServer(
                f"Two clusters answered one call: {first.system_identifier}, then {found.system_identifier}."
            )
        if self._directory is None and found.started_at != first.started_at:
            raise WrongServer("The server was restarted during this call, or another one now answers.")

    def forget(self) -> None:
        """Forget the server. Call it after exchanging the data directory's contents: another cluster may run there."""
        self._postmaster = self._first = None

    def _recorded(self) -> str:
        if self._postmaster is None:
            return "does not exist"
        slow = f"a server that took more than {START_SECONDS:g} s to start, as on a cold disk, looks the same"
        return f"says {self._postmaster.started_at:.0f}; {slow}"

    def _runs_here(self, found: ServerIdentity) -> bool:
        if self._postmaster is not None and self._postmaster.is_of(found):
            return True
        # It was restarted, or the server keeps its data elsewhere than PGDATA in the container's environment says.
        for directory in filter(None, (self._directory, found.data_directory)):
            self._postmaster = read(self._host, directory)
            if self._postmaster is not None and self._postmaster.is_of(found):
                return True
        return False


def read(host: Host, data_directory: str) -> Postmaster | None:
    """Read what the server on a data directory wrote about itself; None if none runs, or it is only just starting."""
    output = bytearray()
    ended = run(host, ["cat", "--", f"{data_directory}/{FILE}"], sink=output.extend)
    lines = output.decode(errors="replace").splitlines()
    if ended.code != 0 or len(lines) < 6 or not lines[2].isdigit():
        return None
    address = lines[5].strip()
    return Postmaster(float(lines[2]), lines[3], lines[4] or _ANY_ADDRESS.get(address, address))
