"""A connection string taken apart into libpq's environment variables, so that no secret stands in an argument.

Both forms of libpq's documentation ("Connection Strings", section 34.1.1) are read: URI and keyword/value.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import ConfigurationError

VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "service": "PGSERVICE",
    "sslmode": "PGSSLMODE",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))\s*")


def environment_of(dsn: str) -> dict[str, str]:
    """libpq's environment variables for `dsn`. Raises ConfigurationError without showing the string."""
    pairs = _uri(dsn) if re.match(r"postgres(ql)?://", dsn) else _keywords(dsn)
    unknown = sorted(set(pairs) - set(VARIABLES))
    if unknown:
        raise ConfigurationError(
            f"SCARLET_BACKUP_DSN has parameters this tool can't pass on: {', '.join(unknown)}.",
            f"Leave them out; known are {', '.join(sorted(VARIABLES))}.",
        )
    return {VARIABLES[name]: value for name, value in pairs.items() if value}


def _uri(dsn: str) -> dict[str, str]:
    try:
        parts = urlsplit(dsn)
        hosts = parts.netloc.rpartition("@")[2]
        if "," in hosts:
            raise ConfigurationError("SCARLET_BACKUP_DSN names several hosts.", "Name the one server to back up.")
        found = {
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "host": unquote(parts.hostname or ""),
            "port": str(parts.port or ""),
            "dbname": unquote(parts.path.removeprefix("/")),
        }
        return {name: value for name, value in (*found.items(), *parse_qsl(parts.query)) if value}
    except ValueError:
        raise ConfigurationError(
            "SCARLET_BACKUP_DSN is no connection URI.", "Write postgresql://user:password@host:port/database."
        ) from None


def _keywords(dsn: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(dsn):
        pair = _PAIR.match(dsn, at)
        if pair is None or pair.end() == at:
            raise ConfigurationError(
                "SCARLET_BACKUP_DSN is neither a URI nor keyword=value pairs.",
                "Write postgresql://user:password@host:port/database.",
            )
        value = pair[2] if pair[2] is not None else pair[3]
        found[pair[1]] = re.sub(r"\\(.)", r"\1", value)
        at = pair.end()
    return found
