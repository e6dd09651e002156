"""Command lines of PostgreSQL's client programs, and facts about their versions."""

from __future__ import annotations

import re
from collections.abc import Iterable

LOCK_WAIT_MS = 30_000
"""How long pg_dump waits for its table locks, held up by a migration."""

PSQL_STOPPED = 3
"""psql's exit code after an error in a script ("Exit Status" in its manual page)."""

# First minor release of each major version with the fix for CVE-2026-18408.
FIXED_MINORS = {15: 19, 16: 15, 17: 11, 18: 6}
# First minor release of each major version whose pg_dump writes, and whose psql knows, \restrict (August 2025).
RESTRICT_MINORS = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6, 18: 0}


def pg_dump(encoding: str, snapshot: str | None = None, options: Iterable[str] = ()) -> list[str]:
    """Return the command for a plain dump of the database in PGDATABASE, as of an exported snapshot (None: of now). It
    uses the database's own encoding: without `--encoding`, a setting of the role, the database or the environment could
    choose another one. `options` come last, and so win."""
    return [
        "pg_dump",
        "--no-password",
        "--format=plain",
        f"--encoding={encoding}",
        f"--lock-wait-timeout={LOCK_WAIT_MS}",
        *([f"--snapshot={snapshot}"] if snapshot else []),
        *options,
    ]


def pg_basebackup() -> list[str]:
    """Return the command that writes the whole cluster as one tar archive to stdout. It includes the WAL that makes it
    consistent; `backup_manifest` is the last member. Without `--checkpoint=fast` it would wait for a checkpoint that is
    spread over minutes. Python's library lacks the default checksum, CRC32C."""
    return [
        "pg_basebackup",
        "--no-password",
        "--pgdata=-",
        "--format=tar",
        "--wal-method=fetch",
        "--checkpoint=fast",
        "--manifest-checksums=SHA256",
        "--label=scarlet-backup-mcp",
    ]


def psql_load() -> list[str]:
    """Return the command for psql to load a script from stdin into the database in PGDATABASE. The first error ends it
    with code 3, shown with its line (thanks to `--file`) and SQLSTATE. A lost connection ends it with code 2."""
    return ["psql", "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "--file=-"]


def knows_restrict(psql_version: str) -> bool:
    """Tell whether a psql of that version has the `\\restrict` command."""
    number, minor = _numbers(psql_version)
    return number > 18 or (number in RESTRICT_MINORS and minor >= RESTRICT_MINORS[number])


def has_known_holes(version: str) -> str | None:
    """Return the first release without the known hole in pg_dump and psql (CVE-2026-18408) if `version` is older."""
    number, minor = _numbers(version)
    if number < min(FIXED_MINORS):
        return f"{min(FIXED_MINORS)}.{FIXED_MINORS[min(FIXED_MINORS)]}"
    fixed = FIXED_MINORS.get(number, 0)
    return f"{number}.{fixed}" if minor < fixed else None


def writes_for(program_version: str, server_version_num: int) -> bool:
    """Tell whether a pg_dump of that version writes only what a server of that version loads.

    Not an older one: 15.18 dumps of a 15.20 server options that no other server accepts. Nor one of a later major
    version: from 17 on it writes `SET transaction_timeout` (both seen)."""
    number, minor = _numbers(program_version)
    return number == server_version_num // 10000 and minor >= server_version_num % 10000


def copies(program_version: str, server_version_num: int) -> bool:
    """Tell whether a pg_basebackup of that version copies a server of that version: not if its major version is
    older."""
    return major(program_version) >= server_version_num // 10000


def major(version: str) -> int:
    """Return the major version of "15.20" or "15.20 (Debian …)"; 0 if there is none."""
    return _numbers(version)[0]


def _numbers(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)(?:\.(\d+))?", version)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)
