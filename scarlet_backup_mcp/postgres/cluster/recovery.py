"""Start a server on a copy of a data directory, with only its data in effect, and judge the server's log.

The copy's own configuration is not used: it might listen, archive, preload or replicate. Nor is its pg_hba.conf.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..dump.too_large import is_too_large
from ..server.session import Session
from .controldata import ControlDataDamaged
from .sandbox import PORT, SETTINGS

COPY, READY, LOG = "copy", "ready", "server.log"
"""In the directory `home`: where the copy is unpacked, the mark that the server may start, and the server's log."""
LOG_LINES = 1000
CONNECTIONS, MOST_CONNECTIONS = 20, 10_000
LOCKS = 80_000
"""Minimum size of the lock table: pg_dump locks every table."""
SLOTS = 1000

_LINE = re.compile(r"^(?P<sqlstate>[0-9A-Z]{5}) (?P<level>ERROR|FATAL|PANIC|DETAIL):  (?P<said>.+)$", re.MULTILINE)
_CORRUPTED = ("XX001", "XX002")
_INTERNAL = "XX000"
# The server can't find something: its own library, or a file of the copy.
_NAMES_A_FILE = ("58P01", "22023", "3D000")
_FILE_OF_THE_COPY = re.compile(r'"(?:base|global|pg_(?:xact|multixact|subtrans|commit_ts|twophase|logical|wal))\b')
_CAN_NOT_START = re.compile(r"checkpoint record|control file|WAL ends before|relation mapping")
_NOT_THE_COPYS = re.compile(r"locale|collat|library|too many|could not find free", re.IGNORECASE)


def command(bin_dir: str, home: str) -> list[str]:
    """Return the container's own program: it waits for `home`/READY, runs the server, and ends like it. It then prints
    the end of the server's log on stderr. `bin_dir` as in `sandbox.command_in_container`."""
    script = (
        f'until [ -e "$2/{READY}" ]; do sleep 0.2; done; "$1" -D "$2" > "$2/{LOG}" 2>&1; '
        f'code=$?; tail -n 15 "$2/{LOG}" >&2; exit "$code"'
    )
    return ["sh", "-c", script, "sh", program("postgres", bin_dir), home]


def program(name: str, bin_dir: str) -> str:
    """Return the path of one of the server's programs; without `bin_dir` its name, for PATH."""
    return f"{bin_dir}/{name}" if bin_dir else name


def unpack(home: str) -> list[str]:
    """Return a command that unpacks an archive from its stdin, and reads stdin to the last byte."""
    script = 'umask 077 && mkdir "$1" && tar -xf - -C "$1" && cat > /dev/null && chmod -R u+rwX,go= "$1"'
    return ["sh", "-c", script, "sh", f"{home}/{COPY}"]


def clear(directory: str) -> list[str]:
    """Return a command that removes from a data directory what stops a server or makes it follow another one."""
    script = 'cd "$1" && rm -f postmaster.pid standby.signal recovery.signal && : > postgresql.auto.conf'
    return ["sh", "-c", script, "sh", directory]


def make_ready(home: str) -> list[str]:
    """Return a command that stores the configuration from stdin and lets the server start; its socket trusts anyone."""
    script = (
        'umask 077 && cat > "$1/postgresql.conf" && echo "local all all trust" > "$1/pg_hba.conf" && '
        f': > "$1/pg_ident.conf" && : > "$1/{READY}"'
    )
    return ["sh", "-c", script, "sh", home]


# -- its settings ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Demands:
    """What a cluster needs room for, according to pg_controldata."""

    segment_bytes: int
    connections: int
    prepared_transactions: int
    locks_per_transaction: int


def demands(text: str) -> Demands:
    """Parse pg_controldata's output with LC_ALL=C. Raises ControlDataDamaged, also if it says that the file's own
    checksum is wrong: the rest is then useless."""
    if "does not match value stored in" in text:
        raise ControlDataDamaged("its checksum is wrong")
    found = {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    try:
        return Demands(
            segment_bytes=int(found["Bytes per WAL segment"]),
            connections=int(found["max_connections setting"]),
            prepared_transactions=int(found["max_prepared_xacts setting"]),
            locks_per_transaction=int(found["max_locks_per_xact setting"]),
        )
    except (KeyError, ValueError):
        raise ControlDataDamaged(f"pg_controldata says: {text.strip()}") from None


def configuration(needed: Demands, major: int, home: str, directory: str, libraries: str) -> str:
    """Write a complete postgresql.conf for the data directory `directory`. It has room for everything that recovery
    brings back: prepared transactions with their locks, replication slots and origins. `libraries` are preloaded, but
    run nothing in the background, and no subscription is active."""
    connections = min(max(CONNECTIONS, needed.connections), MOST_CONNECTIONS)
    prepared = min(needed.prepared_transactions, MOST_CONNECTIONS)
    settings: Mapping[str, str] = {
        **SETTINGS,
        "data_directory": directory,
        "listen_addresses": "",
        "unix_socket_directories": home,
        "port": PORT,
        "shared_preload_libraries": libraries,
        "max_connections": str(connections),
        "max_prepared_transactions": str(prepared),
        "max_locks_per_transaction": str(
            max(min(needed.locks_per_transaction, LOCKS), LOCKS // (connections + prepared) + 1)
        ),
        # With slots in pg_replslot a server does not start at a lower level, or with fewer slots allowed.
        "wal_level": "logical",
        "max_replication_slots": str(SLOTS),
        **({"max_active_replication_origins": str(SLOTS)} if major >= 18 else {}),
        "max_worker_processes": "0",
        "max_logical_replication_workers": "0",
        **({"event_triggers": "off"} if major >= 17 else {}),
        "min_wal_size": f"{5 * needed.segment_bytes >> 20}MB",
        "max_wal_size": f"{64 * needed.segment_bytes >> 20}MB",
        "restart_after_crash": "off",
        "log_line_prefix": "%e ",
    }
    return "".join(f"{name} = '{_escaped(value)}'\n" for name, value in settings.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


# -- its log ---------------------------------------------------------------------------------------------------------


def damage(log: str) -> str:
    """Return the first line of a server's log that only damaged data can explain; "" if there is none.

    The log has the prefix that `configuration` sets. Such lines are a missing file of the cluster, an error of the
    classes for corruption (XX001, XX002) or internal errors (XX000; PostgreSQL's documentation, appendix A), and
    whatever keeps recovery from beginning or ending. A full disk, a missing library or locale, and a row too large to
    be written out are no damage.
    """
    return next((found["said"] for found in _LINE.finditer(log) if _is_damage(**found.groupdict())), "")


def _is_damage(sqlstate: str, level: str, said: str) -> bool:
    if sqlstate in _NAMES_A_FILE:
        return _FILE_OF_THE_COPY.search(said) is not None
    if level == "DETAIL" or _NOT_THE_COPYS.search(said) or is_too_large(said):
        return False
    if level == "FATAL" and sqlstate not in _CORRUPTED:
        return _CAN_NOT_START.search(said) is not None
    return sqlstate in (*_CORRUPTED, _INTERNAL)


# -- its contents ----------------------------------------------------------------------------------------------------


def accessible(session: Session) -> dict[str, bool]:
    """List every database, and whether connections to it are allowed: not to template0, nor to the remains of one
    whose removal failed (its connection limit is -2)."""
    rows = session.rows("SELECT datname AS name, datallowconn AND datconnlimit <> -2 AS open FROM pg_database")
    return {row["name"]: row["open"] for row in rows}


def unlogged(session: Session) -> set[int]:
    """Return the OIDs of unlogged tables, or of their topmost partitioned tables: recovery empties them."""
    rows = session.rows(
        """SELECT DISTINCT coalesce(pg_partition_root(oid)::oid, oid)::bigint AS root
           FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u'"""
    )
    return {row["root"] for row in rows}


def prepared_transactions(session: Session) -> int:
    """Count the prepared transactions of all databases."""
    return session.rows("SELECT count(*) AS prepared FROM pg_prepared_xacts")[0]["prepared"]
