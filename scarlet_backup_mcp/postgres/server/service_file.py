"""Read libpq's connection service file, for a `service=` in a connection string.

It is read like libpq does (`parseServiceInfo` and `parseServiceFile` in src/interfaces/libpq/fe-connect.c), so that
programs get each parameter separately: a service's `dbname` beats PGDATABASE, and a restore would load into it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ...errors import ConfigurationError

NAME = "pg_service.conf"


def parameters(service: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a service; `environment` may locate the file (PGSERVICEFILE, PGSYSCONFDIR).

    Raises ConfigurationError if no file has the service, or it can't be read like libpq does.
    """
    searched = _files(environment)
    for file in searched:
        found = _section(file, service)
        if found is not None:
            return found
    raise ConfigurationError(
        f"SCARLET_BACKUP_DSN names the service {service!r}, which is in none of: {', '.join(map(str, searched))}.",
        "Set PGSERVICEFILE to the file that has it, or write host, port and database into the DSN.",
    )


def _files(environment: Mapping[str, str]) -> list[Path]:
    """List the user's file, then the system's if PGSYSCONFDIR is set: its default directory is compiled into libpq."""
    if named := environment.get("PGSERVICEFILE"):
        own = Path(named)
    elif sys.platform == "win32":
        own = Path(environment.get("APPDATA", "")) / "postgresql" / f".{NAME}"
    else:
        own = Path.home() / f".{NAME}"
    system = environment.get("PGSYSCONFDIR")
    return [own, *([Path(system) / NAME] if system else [])]


def _section(file: Path, service: str) -> dict[str, str] | None:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The service file {file} can't be read: {error}.") from error
    found: dict[str, str] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r\f\v")
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if found is not None:
                break
            found = {} if line.startswith(f"[{service}]") else None
        elif found is not None:
            name, equals, value = line.partition("=")
            if not equals or name in ("service", "servicefile") or line.startswith("ldap"):
                raise ConfigurationError(
                    f"This tool can't interpret line {number} of the service file {file}.",
                    "Write one parameter=value per line, or put host, port and database into SCARLET_BACKUP_DSN.",
                )
            found.setdefault(name, value)
    return found
