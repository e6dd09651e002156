"""Which server is meant: what it has written into its data directory, and the proof that a session is in it.

Lines of `postmaster.pid`: src/include/utils/pidfile.h (3: start time, 4: port, 5: socket directory, 6: address).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import WrongServer
from ...hosts import Host, run

FILE = "postmaster.pid"
START_SECONDS = 5.0
"""The server's own start time is taken so much later, at the most, than the one in the file (seen on 15.20: 0.3 s).
Preloaded libraries, name resolution and the clearing of temporary files come between the two."""
_ANY_ADDRESS = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Postmaster:
    """A server that runs. `started_at` is in seconds since 1970; `host` a socket directory, or else an address."""

    started_at: float
    port: str
    host: str

    def is_of(self, found: ServerIdentity) -> bool:
        """Whether that server wrote this."""
        return -1 <= found.started_at - self.started_at <= START_SECONDS


@dataclass(frozen=True)
class ServerIdentity:
    """What a session tells of the server that it is in."""

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
"""SQLSTATE of the proof's failure; PostgreSQL has none of that class."""
IDENTITY = """pg_catalog.current_database() AS database,
    (SELECT d.oid::pg_catalog.int8 FROM pg_catalog.pg_database d
     WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) AS database_oid,
    (SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()) AS system_identifier,
    EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) AS started_at,
    CASE WHEN pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')
         THEN pg_catalog.current_setting('data_directory') END AS data_directory"""
"""Columns of a SELECT that tells it. EXTRACT gives a numeric: a float8 would be cut as `extra_float_digits` says."""


class Whereabouts:
    """The one server that a call works on. Threads may share it.

    With a `data_directory` it is the server that runs on that directory in `host`'s container; without, the one in
    which the first session was.
    """

    def __init__(self, host: Host, data_directory: str | None) -> None:
        self._host, self._directory = host, data_directory
        self._postmaster: Postmaster | None = None
        self._first: ServerIdentity | None = None

    def environment(self) -> dict[str, str]:
        """PGHOST and PGPORT; empty where no data directory tells them. Raises HostError."""
        if self._directory is not None and self._postmaster is None:
            self._postmaster = read(self._host, self._directory)
        found = self._postmaster
        return {} if found is None else {"PGHOST": found.host, "PGPORT": found.port}

    def require(self, found: ServerIdentity, database: str) -> None:
        """Raises WrongServer unless a session that was opened for `database` is there, in the server that is meant."""
        if found.database != database:
            raise WrongServer(f"A session for the database {database!r} came to {found.database!r}.")
        if self._directory is not None and not self._runs_here(found):
            raise WrongServer(
                f"The server that answered is not the one of the container: it has been running since "
                f"{found.started_at:.0f} (seconds since 1970), and the container's {self._directory}/{FILE} "
                f"{self._told()}.",
                f"{WrongServer.default_remedy} Restart one that was only slow to start. If the server keeps its data "
                "elsewhere, set PGDATA in the container's environment.",
            )
        first = self._first = self._first or found
        if found.system_identifier != first.system_identifier:
            raise WrongServer(
                f"Two clusters answered one call: {first.system_identifier}, then {found.system_identifier}."
            )
        if self._directory is None and found.started_at != first.started_at:
            raise WrongServer("The server was restarted during this call, or another one answers in its place.")

    def forget(self) -> None:
        """Call it where the contents of the data directory were exchanged: another cluster may run there now."""
        self._postmaster = self._first = None

    def _told(self) -> str:
        if self._postmaster is None:
            return "is not there"
        slow = f"a server that took more than {START_SECONDS:g} s to start, as on a cold disk, looks the same"
        return f"tells {self._postmaster.started_at:.0f}; {slow}"

    def _runs_here(self, found: ServerIdentity) -> bool:
        if self._postmaster is not None and self._postmaster.is_of(found):
            return True
        # It was started again, or PGDATA of the container's environment is not where the server keeps its data.
        for directory in filter(None, (self._directory, found.data_directory)):
            self._postmaster = read(self._host, directory)
            if self._postmaster is not None and self._postmaster.is_of(found):
                return True
        return False


def read(host: Host, data_directory: str) -> Postmaster | None:
    """What the server on a data directory tells of itself; None where none runs, or is only just starting."""
    output = bytearray()
    ended = run(host, ["cat", "--", f"{data_directory}/{FILE}"], sink=output.extend)
    lines = output.decode(errors="replace").splitlines()
    if ended.code != 0 or len(lines) < 6 or not lines[2].isdigit():
        return None
    address = lines[5].strip()
    return Postmaster(float(lines[2]), lines[3], lines[4] or _ANY_ADDRESS.get(address, address))
