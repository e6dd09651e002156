"""How a server is set up that takes in one dump and gives it back, and how it is made."""

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
    # pg_dump locks every table, and the lock table's size goes with the few connections.
    "max_locks_per_transaction": "4096",
    "maintenance_work_mem": "256MB",
    "timezone": "UTC",
    "lc_messages": "C",
    # A failed COPY would put rows of the user's into the log.
    "log_min_error_statement": "panic",
}
"""Nothing there has to outlive a power cut."""


DATA = "data"
COMPLETE = "complete"
"""The file beside it that is made when all of a cluster that is to be copied is on the disk."""
PORT = "5432"
"""Part of a socket's name, whatever the live server's is."""


_INITDB = f'"${{bin}}initdb" -D "$data" -U "$user" --auth=trust {" ".join(INITDB)}'
_INITDB_ON_DISK = _INITDB.replace(" --no-sync", "")


def command_in_container(
    bin_dir: str, home: str, user: str, settings: Mapping[str, str], seed_home: str = ""
) -> list[str]:
    """What makes a cluster in `home`/DATA and becomes its server, listening on a socket in `home` and nowhere else.

    `bin_dir` holds its programs; "" is for PATH. `user` is the superuser, whom the socket trusts. With a `seed_home`
    it is a copy of what `seed_command` has made there, and fails where that is not complete.
    """
    made = f'[ -f "$seed/{COMPLETE}" ] && cp -Rp "$seed/{DATA}" "$data"' if seed_home else _INITDB
    script = f'bin=$1 data=$2 user=$3 seed=$4; shift 4; {made} && exec "${{bin}}postgres" -D "$data" "$@"'
    reached = {"listen_addresses": "", "unix_socket_directories": home, "port": PORT}
    options = [part for name, value in {**settings, **reached}.items() for part in ("-c", f"{name}={value}")]
    return ["sh", "-c", script, "sh", *_places(bin_dir, home, user), seed_home, *options]


def seed_command(bin_dir: str, home: str, user: str) -> list[str]:
    """What makes such a cluster and no more; its last line begins with the size in KiB."""
    script = f'bin=$1 data=$2 user=$3 done=$4; {_INITDB_ON_DISK} && du -sk "$data" && : >"$done"'
    return ["sh", "-c", script, "sh", *_places(bin_dir, home, user), f"{home}/{COMPLETE}"]


def _places(bin_dir: str, home: str, user: str) -> list[str]:
    return [f"{bin_dir}/" if bin_dir else "", f"{home}/{DATA}", user]


def find_server_programs(directories: Iterable[Path]) -> Path:
    """The first directory from which a cluster can be made. Raises ProgramMissing: client packages have no initdb."""
    looked_at = list(directories)
    for directory in looked_at:
        programs = (directory / executable("initdb")).resolve().parent  # Homebrew links it from elsewhere
        if all((programs / executable(name)).is_file() for name in ("initdb", "postgres", "pg_ctl")):
            return programs
    raise ProgramMissing(f"There are no initdb, postgres and pg_ctl in {', '.join(map(str, looked_at)) or 'PATH'}.")
