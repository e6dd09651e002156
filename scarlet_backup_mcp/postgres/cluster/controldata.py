"""What `pg_controldata` tells of a cluster whose server does not run, and which version its files are of."""

from __future__ import annotations

import re
from dataclasses import dataclass

CLEAN = ("shut down", "shut down in recovery")
"""States of a cluster whose server was shut down in an orderly way. After any other it replays its own WAL when it is
started again (`DBState` in pg_control.h)."""
_FIELD = re.compile(r"^([^:\n]+):[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_VERSION = re.compile(r"(\d+)(?:\.(\d+))?")


class ControlDataDamaged(Exception):
    """The text is not what pg_controldata writes about a cluster."""


@dataclass(frozen=True)
class ControlData:
    """`state` in the program's words, as "shut down" or "in production"; every server that starts or ends there writes
    another time or another checkpoint."""

    system_identifier: str
    state: str
    modified: str
    checkpoint: str

    @property
    def clean(self) -> bool:
        """Whether the server was shut down in an orderly way."""
        return self.state in CLEAN


def parse(text: str) -> ControlData:
    """The program's output with LC_ALL=C. Raises ControlDataDamaged.

    The first two are read rightly by a program of another major version, too: 15's files by 17 and 18 (seen).
    """
    fields = {found[1]: found[2] for found in _FIELD.finditer(text)}
    identifier, state = fields.get("Database system identifier", ""), fields.get("Database cluster state", "")
    if not re.fullmatch(r"[1-9]\d*", identifier) or not state:
        raise ControlDataDamaged("pg_controldata does not tell the system identifier and the state")
    modified, checkpoint = fields.get("pg_control last modified", ""), fields.get("Latest checkpoint location", "")
    return ControlData(identifier, state, modified, checkpoint)


def is_of(pg_control: bytes, system_identifier: str) -> bool:
    """Whether a `global/pg_control` is of that cluster: its first eight bytes are the identifier, in the byte order of
    the server's machine (`ControlFileData` in pg_control.h)."""
    return any(str(int.from_bytes(pg_control[:8], order)) == system_identifier for order in ("little", "big"))


def version_of(pg_version: str, program: str) -> tuple[str, int]:
    """The version of a data directory, in words and as `server_version_num`.

    `pg_version` is the content of its PG_VERSION ("15"), which tells the major one only; `program` is what `postgres
    --version` says there, whose version it is if that is the same major one. Raises ControlDataDamaged.
    """
    number = re.fullmatch(r"[1-9]\d*", pg_version.strip())
    if number is None:
        raise ControlDataDamaged(f"PG_VERSION holds {pg_version.strip()[:20]!r}")
    major = int(number[0])
    there = re.match(r"postgres \(PostgreSQL\) (.+)", program.strip())
    found = _VERSION.match(there[1]) if there else None
    if there is None or found is None or int(found[1]) != major:
        return str(major), major * 10000
    return there[1], major * 10000 + int(found[2] or 0)
