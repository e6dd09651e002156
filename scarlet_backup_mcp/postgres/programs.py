"""How PostgreSQL's client programs are called, and what is known of their versions."""

from __future__ import annotations

import re

LOCK_WAIT_MS = 30_000
"""How long pg_dump waits for its table locks behind a migration."""

# First minor release of each major version with the fix of CVE-2026-18408.
FIXED_MINORS = {15: 19, 16: 15, 17: 11, 18: 6}
# First minor release of each major version whose pg_dump writes, and whose psql knows, \restrict (August 2025).
RESTRICT_MINORS = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6, 18: 0}


def pg_dump(snapshot: str, encoding: str) -> list[str]:
    """A plain dump of the database in PGDATABASE, as of an exported snapshot, in the database's own encoding: without
    `--encoding` a setting of the role, the database or the environment would choose another one."""
    return [
        "pg_dump",
        "--no-password",
        "--format=plain",
        f"--snapshot={snapshot}",
        f"--encoding={encoding}",
        f"--lock-wait-timeout={LOCK_WAIT_MS}",
    ]


def psql_load() -> list[str]:
    """psql reading a script from its stdin into the database in PGDATABASE; the first error ends it with code 3."""
    return ["psql", "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1"]


def knows_restrict(psql_version: str) -> bool:
    """Whether a psql of that version has the `\\restrict` command."""
    major, minor = _numbers(psql_version)
    return major > 18 or (major in RESTRICT_MINORS and minor >= RESTRICT_MINORS[major])


def has_known_holes(version: str) -> str | None:
    """The first release without the known hole in pg_dump and psql (CVE-2026-18408), if `version` is older than it."""
    major, minor = _numbers(version)
    if major < min(FIXED_MINORS):
        return f"{min(FIXED_MINORS)}.{FIXED_MINORS[min(FIXED_MINORS)]}"
    fixed = FIXED_MINORS.get(major, 0)
    return f"{major}.{fixed}" if minor < fixed else None


def _numbers(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)(?:\.(\d+))?", version)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)
