"""Find what a data directory's configuration makes a server do: run commands, load libraries, let people in.

The files are read like guc-file.l and hba.c of PostgreSQL 15 do, line by line: no setting or string continues on the
next line, and a rule of pg_hba.conf does so only after a backslash. Every line that sets something is reported, even if
a later line overrides it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...redaction import printable
from ..server.quoting import literal
from ..server.session import Session

MAIN, AUTO, HBA, IDENT = "postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"
SIGNALS = ("recovery.signal", "standby.signal")
MARK = "# scarlet-backup-mcp commented out the next line, since it"
SHOWN = 8
LONGEST_VALUE = 60

_COMMAND, _LIBRARY, _PLACE = "runs a command", "loads a library", "names a place outside of the data directory"
_RISKS: Mapping[str, str] = {
    "archive_command": _COMMAND,
    "archive_cleanup_command": _COMMAND,
    "recovery_end_command": _COMMAND,
    "restore_command": _COMMAND,
    "ssl_passphrase_command": _COMMAND,
    "archive_mode": "starts archiving the write-ahead log",
    "archive_library": _LIBRARY,
    "dynamic_library_path": _LIBRARY,
    "extension_control_path": _LIBRARY,
    "jit_provider": _LIBRARY,
    "local_preload_libraries": _LIBRARY,
    "oauth_validator_libraries": _LIBRARY,
    "session_preload_libraries": _LIBRARY,
    "shared_preload_libraries": _LIBRARY,
    "data_directory": _PLACE,
    "external_pid_file": _PLACE,
    "hba_file": _PLACE,
    "ident_file": _PLACE,
    "log_directory": _PLACE,
    "log_filename": _PLACE,
    "stats_temp_directory": _PLACE,
    "unix_socket_directories": _PLACE,
    "unix_socket_group": "changes who may reach the server's socket",
    "unix_socket_permissions": "changes who may reach the server's socket",
    "primary_conninfo": "connects to another server",
    "fsync": "may lose rows when the power fails",
    "full_page_writes": "may lose rows when the power fails",
    "ignore_checksum_failure": "ignores damaged pages",
    "ignore_invalid_pages": "ignores damaged pages",
    "zero_damaged_pages": "discards the rows of damaged pages",
}
_OFF, _ON, _INSIDE = r"(?i:of|f|n|0).*", r"(?i:on|t|y|1).*", r"(?!/|.*\.\.).*"
_HARMLESS: Mapping[str, str] = {
    "archive_mode": _OFF,
    "dynamic_library_path": r"\$libdir",
    "extension_control_path": r"\$system",
    "jit_provider": "llvmjit",
    "log_directory": _INSIDE,
    "log_filename": "[^/]*",
    "stats_temp_directory": _INSIDE,
    "unix_socket_directories": '(?:/var/run/postgresql|/tmp|[", ])*',
    "unix_socket_permissions": "0?777",
    "fsync": _ON,
    "full_page_writes": _ON,
    "ignore_checksum_failure": _OFF,
    "ignore_invalid_pages": _OFF,
    "zero_damaged_pages": _OFF,
}
"""Values that are defaults, or stay within the data directory. An empty one is always harmless."""
_LINE = re.compile(
    rb"""[ \t\r]*(?P<name>[A-Za-z_\x80-\xff][A-Za-z_0-9\x80-\xff]*(?:\.[A-Za-z_\x80-\xff][A-Za-z_0-9\x80-\xff]*)?)
         [ \t\r]*=?[ \t\r]*(?P<value>'(?:[^'\\]|\\.|'')*'|[^ \t\r#']*)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"''|\\([0-7]{1,3}|.)", re.DOTALL)
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ITEM = r'(?:"[^"]*"|[^ \t\r,"#])+'
_FIELD = re.compile(rf'#.*|{_ITEM}(?:,[ \t\r]*{_ITEM})*|"', re.DOTALL)
_LOOPBACK = ("127.0.0.1/32", "::1/128", "localhost", "samehost")
_MASKED = {"127.0.0.1": "255.255.255.255", "::1": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./ -]+")
_INCLUDES = ("include", "include_if_exists", "include_dir")


@dataclass(frozen=True)
class ConfigurationFinding:
    """A line of a configuration file (1-based; 0 is the file as a whole) and what it makes the server do. `what` is a
    setting, with its value only if that is a library or a path: a command may hold a secret."""

    file: str
    line: int
    what: str
    why: str

    def __str__(self) -> str:
        where = f" ({self.file}, line {self.line})" if self.line else ""
        return printable(f"{self.what}{where} {self.why}").replace("\n", "\\n")

    @property
    def unread(self) -> bool:
        """Whether the file's content is unknown."""
        return not self.line and self.file not in SIGNALS


def findings(files: Mapping[str, bytes], names: Iterable[str], live: Mapping[str, str]) -> list[ConfigurationFinding]:
    """List what is risky in the configuration of a data directory with files called `names`, of which `files` could be
    read. Settings that have the same value in `live` are left out."""
    there = set(names)
    found = [
        ConfigurationFinding(name, 0, name, "makes the server recover or follow another one")
        for name in SIGNALS
        if name in there
    ]
    for name in (MAIN, AUTO, HBA, IDENT):
        if name in there and name not in files:
            found.append(ConfigurationFinding(name, 0, name, "is too large to check"))
    read = set[str]()
    for name in (MAIN, AUTO):
        found += _of_settings(name, files, there, live, read)
    for name, reason in ((HBA, _of_rule), (IDENT, _of_mapping)):
        for line, text in _joined(files.get(name, b"")):
            if why := reason(fields := [field for field in _FIELD.findall(text) if not field.startswith("#")]):
                found.append(ConfigurationFinding(name, line, _shown(" ".join(fields[:4]))[1:-1], why))
    return found


def described(found: Sequence[ConfigurationFinding | str]) -> str:
    """Describe the findings, the first few in full."""
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(str(finding) for finding in found[:SHOWN]) + more


def disarmed(files: Mapping[str, bytes], found: Iterable[ConfigurationFinding]) -> dict[str, bytes]:
    """Comment out the lines that were `found`; return those of `files` that change."""
    lines = dict[str, dict[int, str]]()
    for finding in found:
        if finding.line:
            lines.setdefault(finding.file, {})[finding.line] = finding.why
    return {name: _commented(files[name], reasons, name in (HBA, IDENT)) for name, reasons in lines.items()}


def effective(files: Mapping[str, bytes], names: Iterable[str], wanted: Collection[str]) -> dict[str, str]:
    """Return the values that the configuration of a data directory gives to the `wanted` settings. A line overrides
    those before it, and postgresql.auto.conf comes last."""
    there, found = set(names), dict[str, str]()
    read = set[str]()
    for name in (MAIN, AUTO):
        _take_settings(name, files, there, found, read)
    return {name: value for name, value in found.items() if name in wanted}


def live_settings(session: Session) -> dict[str, str]:
    """Read a server's values of the settings that `findings` checks, as far as the role may see them."""
    names = ", ".join(literal(name) for name in _RISKS)
    rows = session.rows(f"SELECT name, setting FROM pg_settings WHERE name IN ({names})")
    return {row["name"]: row["setting"] for row in rows}


def of_roles(session: Session) -> list[str]:
    """Describe, without values, what settings of a cluster's databases and roles make its sessions do."""
    rows = session.rows(
        """SELECT d.datname AS database, r.rolname AS role, split_part(one.setting, '=', 1) AS name,
                  substr(one.setting, strpos(one.setting, '=') + 1) AS value
           FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS one (setting)
           LEFT JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
           ORDER BY 1, 2, 3"""
    )
    return [
        f"{row['name']} of {' in '.join(filter(None, (row['role'], row['database'])))} {_RISKS[row['name']]}"
        for row in rows
        if row["name"] in _RISKS and not _is_harmless(row["name"], row["value"])
    ]


# -- settings --------------------------------------------------------------------------------------------------------


def _of_settings(
    file: str, files: Mapping[str, bytes], there: set[str], live: Mapping[str, str], read: set[str]
) -> Iterator[ConfigurationFinding]:
    """Check one file and those that it includes, each once: a server refuses circles."""
    read.add(file)
    for number, line in enumerate(files.get(file, b"").split(b"\n"), 1):
        matched = _LINE.match(line)
        if matched is None:
            continue
        name, value = matched["name"].decode("latin-1").lower(), _value(matched["value"])
        if name in _INCLUDES:
            included = _included(file, name, value, there)
            if included is None or included - files.keys():
                yield ConfigurationFinding(file, number, f"{name} {_shown(value)}", "reads settings from another file")
                continue
            for other in sorted(included - read):
                yield from _of_settings(other, files, there, live, read)
        elif (why := _RISKS.get(name)) and not _is_harmless(name, value) and live.get(name) != value:
            shown = f"{name} = {_shown(value)}" if why in (_LIBRARY, _PLACE) else name
            yield ConfigurationFinding(file, number, shown, why)


def _take_settings(
    file: str, files: Mapping[str, bytes], there: set[str], found: dict[str, str], read: set[str]
) -> None:
    read.add(file)
    for matched in filter(None, map(_LINE.match, files.get(file, b"").split(b"\n"))):
        name, value = matched["name"].decode("latin-1").lower(), _value(matched["value"])
        if name not in _INCLUDES:
            found[name] = value
            continue
        for other in sorted((_included(file, name, value, there) or set()) - read):
            _take_settings(other, files, there, found, read)


def _included(file: str, how: str, value: str, there: set[str]) -> set[str] | None:
    """List the files that a line includes; None if that is unknown, or leads out of the data directory. Names are
    relative to the directory of the file with that line. Of a directory, files that end in `.conf` are read."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(file), value))
    if value.startswith("/") or path.startswith("..") or not _PLAIN_PATH.fullmatch(value):
        return None
    if how == "include_dir":
        prefix = "" if path == "." else f"{path}/"
        inside = {name for name in there if name.startswith(prefix) and "/" not in name[len(prefix) :]}
        return {name for name in inside if name.endswith(".conf") and not name[len(prefix) :].startswith(".")}
    return {path} & there if path in there or how == "include_if_exists" else None


def _value(text: bytes) -> str:
    """Unquote a value like `DeescapeQuotedString` of guc-file.l."""
    value = text.decode("utf-8", "replace")
    return _ESCAPE.sub(_unescaped, value[1:-1]) if value.startswith("'") and len(value) > 1 else value


def _unescaped(found: re.Match[str]) -> str:
    if (code := found[1]) is None:
        return "'"
    return chr(int(code, 8) & 0xFF) if code[0] in "01234567" else _CONTROLS.get(code, code)


def _is_harmless(name: str, value: str) -> bool:
    harmless = _HARMLESS.get(name)
    return not value.strip() or (harmless is not None and re.fullmatch(harmless, value, re.DOTALL) is not None)


def _shown(value: str) -> str:
    return f"'{value}'" if len(value) <= LONGEST_VALUE else f"'{value[:LONGEST_VALUE]}...'"


# -- who may connect -------------------------------------------------------------------------------------------------


def _of_rule(fields: list[str]) -> str:
    """Say what is risky about a record of pg_hba.conf; "" if nothing is."""
    if not fields or fields[0] in _INCLUDES:
        return "reads rules from another file" if fields else ""
    plain = [field.replace('"', "") for field in fields]
    if {"ldap", "radius"} & set(plain[3:6]):
        return "sends passwords to another server"
    # With `ident`, the connecting machine itself says who the user is.
    if plain[0].startswith("host") and {"trust", "ident"} & set(plain[4:6]):
        address, mask = plain[3], plain[4]
        if address not in _LOOPBACK and _MASKED.get(address) != mask:
            return "lets other machines connect without a password"
    return ""


def _of_mapping(fields: list[str]) -> str:
    """Say what is risky about a record of pg_ident.conf; "" if nothing is."""
    if not fields or fields[0] in _INCLUDES:
        return "reads rules from another file" if fields else ""
    wide = any(field.replace('"', "").startswith("/") for field in fields[1:]) or fields[2:] == ["all"]
    return "lets in every user whose name matches" if wide else ""


def _joined(text: bytes) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers (1-based), each joined with those that continue it after a backslash."""
    begin, line = 1, ""
    for number, part in enumerate(text.decode("utf-8", "replace").split("\n"), 1):
        line += part.rstrip("\r")
        if line.endswith("\\"):
            line = line[:-1]
            continue
        yield begin, line
        begin, line = number + 1, ""
    if line:
        yield begin, line


def _commented(text: bytes, reasons: Mapping[int, str], joined: bool) -> bytes:
    done, going_on = list[bytes](), False
    for number, line in enumerate(text.split(b"\n"), 1):
        if number in reasons:
            done.append(f"{MARK} {reasons[number]}:".encode())
            going_on = True
        done.append(b"#" + line if going_on else line)
        going_on = going_on and joined and line.rstrip(b"\r").endswith(b"\\")
    return b"\n".join(done)
