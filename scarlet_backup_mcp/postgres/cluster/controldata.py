"""Read `pg_controldata` for a cluster whose server is not running, and the version of its files."""

from __future__ import annotations

import re
from dataclasses import dataclass

CLEAN = ("shut down", "shut down in recovery")
"""States of a cluster whose server was shut down cleanly. From any other state it replays its own WAL at the next start
(`DBState` in pg_control.h)."""
_FIELD = re.compile(r"^([^:\n]+):[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_VERSION = re.compile(r"(\d+)(?:\.(\d+))?")


class ControlDataDamaged(Exception):
    """The text is not what pg_controldata writes about a cluster."""


@dataclass(frozen=True)
class ControlData:
    """What identifies a cluster's state. `state` is the program's text, such as "shut down" or "in production"; every
    server that starts or ends there changes the time or the checkpoint."""

    system_identifier: str
    state: str
    modified: str
    checkpoint: str

    @property
    def clean(self) -> bool:
        """Whether the server was shut down cleanly."""
        return self.state in CLEAN


def parse(text: str) -> ControlData:
    """Parse the program's output with LC_ALL=C. Raises ControlDataDamaged.

    A program of another major version reads the first two correctly, too: 17 and 18 those of 15's files (seen).
    """
    fields = {found[1]: found[2] for found in _FIELD.finditer(text)}
    identifier, state = fields.get("Database system identifier", ""), fields.get("Database cluster state", "")
    if not re.fullmatch(r"[1-9]\d*", identifier) or not state:
        raise ControlDataDamaged("pg_controldata shows no system identifier or no state")
    modified, checkpoint = fields.get("pg_control last modified", ""), fields.get("Latest checkpoint location", "")
    return ControlData(identifier, state, modified, checkpoint)


def is_of(pg_control: bytes, system_identifier: str) -> bool:
    """Tell whether a `global/pg_control` belongs to that cluster: its first eight bytes are the identifier, in the byte
    order of the server's machine (`ControlFileData` in pg_control.h)."""
    return any(str(int.from_bytes(pg_control[:8], order)) == system_identifier for order in ("little", "big"))


def version_of(pg_version: str, program: str) -> tuple[str, int]:
    """Return a data directory's version as text and as `server_version_num`.

    `pg_version` is the content of its PG_VERSION ("15"), the major version only; `program` is the output of `postgres
    --version` there, whose full version is used if its major version is the same. Raises ControlDataDamaged.
    """
    number = re.fullmatch(r"[1-9]\d*", pg_version.strip())
    if number is None:
        raise ControlDataDamaged(f"PG_VERSION holds {pg_version.strip()[:20]!r}")
    major = int(number[0])
    printed = re.match(r"postgres \(PostgreSQL\) (.+)", program.strip())
    found = _VERSION.match(printed[1]) if printed else None
    if printed is None or found is None or int(found[1]) != major:
        return str(major), major * 10000
    return printed[1], major * 10000 + int(found[2] or 0)
