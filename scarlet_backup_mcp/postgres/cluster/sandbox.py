"""The settings of a sandbox server, which loads one dump and dumps it again, and the commands that create it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ...errors import ProgramMissing
from .local import INITDB, executable

SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "autovacuum": "off",
    "max_connections": "20",
    # pg_dump locks every table, and the lock table is small with so few connections.
    "max_locks_per_transaction": "4096",
    "maintenance_work_mem": "256MB",
    "timezone": "UTC",
    "lc_messages": "C",
    # A failed COPY would write the user's rows into the log.
    "log_min_error_statement": "panic",
}
"""Nothing in it has to survive a power cut."""


def with_locks(settings: Mapping[str, str], tables: int) -> dict[str, str]:
    """Return the settings with enough locks for a pg_dump of so many tables."""
    locks = max(int(settings["max_locks_per_transaction"]), 2 * tables // int(settings["max_connections"]))
    return {**settings, "max_locks_per_transaction": str(locks)}


DATA = "data"
COMPLETE = "complete"
"""A file next to a cluster to copy, created when all of the cluster is on the disk."""
PORT = "5432"
"""Part of a socket's name, whatever the live server's port is."""


_INITDB = f'"${{bin}}initdb" -D "$data" -U "$user" --auth=trust {" ".join(INITDB)}'
_INITDB_ON_DISK = _INITDB.replace(" --no-sync", "")


def command_in_container(
    bin_dir: str, home: str, user: str, settings: Mapping[str, str], seed_home: str = ""
) -> list[str]:
    """Return a command that creates a cluster in `home`/DATA and becomes its server, on a socket in `home` only.

    `bin_dir` holds its programs; "" means PATH. `user` is the superuser, whom the socket trusts. With a `seed_home` the
    cluster is a copy of the one that `seed_command` created there; the command fails if that is not complete.
    """
    made = f'[ -f "$seed/{COMPLETE}" ] && cp -Rp "$seed/{DATA}" "$data"' if seed_home else _INITDB
    script = f'bin=$1 data=$2 user=$3 seed=$4; shift 4; {made} && exec "${{bin}}postgres" -D "$data" "$@"'
    reached = {"listen_addresses": "", "unix_socket_directories": home, "port": PORT}
    options = [part for name, value in {**settings, **reached}.items() for part in ("-c", f"{name}={value}")]
    return ["sh", "-c", script, "sh", *_places(bin_dir, home, user), seed_home, *options]


def seed_command(bin_dir: str, home: str, user: str) -> list[str]:
    """Return a command that creates a cluster to copy; its last line of output begins with the size in KiB."""
    script = f'bin=$1 data=$2 user=$3 done=$4; {_INITDB_ON_DISK} && du -sk "$data" && : >"$done"'
    return ["sh", "-c", script, "sh", *_places(bin_dir, home, user), f"{home}/{COMPLETE}"]


def _places(bin_dir: str, home: str, user: str) -> list[str]:
    return [f"{bin_dir}/" if bin_dir else "", f"{home}/{DATA}", user]


def find_server_programs(directories: Iterable[Path]) -> Path:
    """Return the first directory with a server's programs. Raises ProgramMissing: client packages have no initdb."""
    searched = list(directories)
    for directory in searched:
        programs = (directory / executable("initdb")).resolve().parent  # Homebrew has links to another directory
        if all((programs / executable(name)).is_file() for name in ("initdb", "postgres", "pg_ctl")):
            return programs
    raise ProgramMissing(f"There are no initdb, postgres and pg_ctl in {', '.join(map(str, searched)) or 'PATH'}.")
