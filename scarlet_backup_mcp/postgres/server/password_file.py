"""Read libpq's password file ("The Password File" in PostgreSQL's documentation) like libpq does."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "PGPASSFILE"
_FIELD = re.compile(r"(?:\\.|[^:\\])*")


def path_of(environment: Mapping[str, str]) -> Path:
    """Return the file that PGPASSFILE names, else the user's own."""
    if named := environment.get(VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", "")) / "postgresql" / "pgpass.conf"
    return Path.home() / ".pgpass"


def is_ignored(file: Path) -> bool:
    """Tell whether libpq ignores the file, because others may read it."""
    try:
        return os.name != "nt" and bool(file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


def password(file: Path, host: str, port: str, database: str, user: str) -> str | None:
    """Return the password of the first line that fits; None without one, or if libpq ignores the file. `host` is
    "localhost" for the default socket directory."""
    try:
        lines = [] if is_ignored(file) else file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError:
        return None
    for line in lines:
        found = _fields(line.rstrip("\r"))
        if found and all(
            given in ("*", sought) for given, sought in zip(found, (host, port, database, user), strict=False)
        ):
            return found[4]
    return None


def _fields(line: str) -> list[str] | None:
    """Split a line into its five fields, unescaped; None if it is a comment or has fewer."""
    fields, rest = list[str](), line
    for _ in range(4):
        matched = _FIELD.match(rest)
        end = matched.end() if matched else 0
        if line.startswith("#") or rest[end : end + 1] != ":":
            return None
        fields.append(_unescaped(rest[:end]))
        rest = rest[end + 1 :]
    return [*fields, _unescaped(rest)]


def _unescaped(field: str) -> str:
    return re.sub(r"\\(.)", r"\1", field)
