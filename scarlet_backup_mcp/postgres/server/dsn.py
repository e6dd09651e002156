"""Split a connection string into libpq's environment variables, so that no argument contains a secret.

Reads both forms of libpq's documentation ("Connection Strings", section 34.1.1): URI and keyword/value.
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from ...errors import ConfigurationError
from . import service_file

VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "sslmode": "PGSSLMODE",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
# The grammar of libpq's conninfo_uri_parse: the first "@" ends the credentials unless a "/" comes before it.
_URI = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^:@/\s]*)(?::(?P<password>[^@/\s]*))?@)?"
    r"(?:\[(?P<address>[^\]\s%@/]+)\]|(?P<host>[^][:/?\s]*))(?::(?P<port>[^/?\s]*))?"
    r"(?:/(?P<dbname>[^?\s]*))?(?:\?(?P<query>\S*))?",
    re.ASCII,
)
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))\s*", re.ASCII)
# Other parameters of libpq ("Parameter Key Words"). Errors name only these, since a misread password could look like a
# parameter.
_OTHERS = {
    "application_name", "client_encoding", "fallback_application_name", "gsslib", "gssdelegation", "keepalives",
    "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname", "load_balance_hosts", "options",
    "replication", "require_auth", "requirepeer", "scram_client_key", "scram_server_key", "servicefile",
    "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcertmode", "sslcompression", "sslcrl", "sslcrldir",
    "sslkeylogfile", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni", "tcp_user_timeout",
}  # fmt: skip


def environment_of(dsn: str) -> dict[str, str]:
    """Return libpq's environment variables for `dsn`, including the parameters of its service, if it names one.

    Raises ConfigurationError without showing the string.
    """
    pairs = _written(dsn)
    if service := pairs.pop("service", ""):
        of_service = service_file.parameters(service, os.environ)
        pairs = {**pairs, **of_service, **{name: value for name, value in pairs.items() if value}}
    if unknown := set(pairs) - set(VARIABLES):
        named = ", ".join(sorted(unknown & _OTHERS)) or "(not shown)"
        raise ConfigurationError(
            f"SCARLET_BACKUP_DSN has parameters this tool can't pass on: {named}.",
            f"Remove them. Supported are {', '.join(sorted([*VARIABLES, 'service']))}.",
        )
    if any("," in pairs.get(name, "") for name in ("host", "hostaddr", "port")):
        raise ConfigurationError("SCARLET_BACKUP_DSN names several hosts.", "Name the one server to back up.")
    if not re.fullmatch(r"\d*", pairs.get("port", ""), re.ASCII):
        raise _unreadable()
    return {VARIABLES[name]: value for name, value in pairs.items() if value}


def holds_password(dsn: str) -> bool:
    """Tell whether the string itself contains a password. Raises ConfigurationError."""
    return bool(_written(dsn).get("password"))


def _written(dsn: str) -> dict[str, str]:
    return _uri(dsn) if re.match(r"postgres(ql)?://", dsn) else _keywords(dsn)


def _uri(dsn: str) -> dict[str, str]:
    parts = _URI.fullmatch(dsn)
    if parts is None or re.search(r"%(?![0-9A-Fa-f]{2})|%00", dsn):
        raise _unreadable()
    found = {name: value for name, value in parts.groupdict().items() if value and name != "query"}
    if address := found.pop("address", None):
        found["host"] = address
    for pair in parts["query"].split("&") if parts["query"] else ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise _unreadable()
        found[name] = value
    try:
        return {unquote(name, errors="strict"): unquote(value, errors="strict") for name, value in found.items()}
    except UnicodeDecodeError:
        raise _unreadable() from None


def _keywords(dsn: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(dsn):
        pair = _PAIR.match(dsn, at)
        if pair is None or pair.end() == at:
            raise _unreadable()
        value = pair[2] if pair[2] is not None else pair[3]
        found[pair[1]] = re.sub(r"\\(.)", r"\1", value)
        at = pair.end()
    return found


def _unreadable() -> ConfigurationError:
    return ConfigurationError(
        "SCARLET_BACKUP_DSN is neither a connection URI nor keyword=value pairs.",
        "Write postgresql://user:password@host:port/database.",
    )
