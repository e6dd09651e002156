"""libpq's connection service file: what a `service=` in a connection string stands for.

Read as libpq does (`parseServiceInfo` and `parseServiceFile` in src/interfaces/libpq/fe-connect.c), so that each
program can be given every parameter by itself: a service's `dbname` beats PGDATABASE, and a restore would then load
into it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ...errors import ConfigurationError

NAME = "pg_service.conf"


def parameters(service: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a service; `environment` may say where the file is (PGSERVICEFILE, PGSYSCONFDIR).

    Raises ConfigurationError where no file has it, or it can't be read as libpq would.
    """
    looked = _files(environment)
    for file in looked:
        found = _section(file, service)
        if found is not None:
            return found
    raise ConfigurationError(
        f"SCARLET_BACKUP_DSN names the service {service!r}, which is in none of: {', '.join(map(str, looked))}.",
        "Set PGSERVICEFILE to the file that has it, or write host, port and database into the DSN.",
    )


def _files(environment: Mapping[str, str]) -> list[Path]:
    """The user's file, then the system's, whose directory is compiled into libpq: PGSYSCONFDIR stands for it."""
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
                    f"Line {number} of the service file {file} is none that this tool can follow.",
                    "Write one parameter=value a line, or write host, port and database into SCARLET_BACKUP_DSN.",
                )
            found.setdefault(name, value)
    return found
