"""Where the settings say that the server is, and with which password."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ConfigurationError
from ..postgres.server import password_file
from ..postgres.server.dsn import environment_of
from ..settings import Settings


def connection_of(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return libpq's variables that the settings give: those of the DSN and those that have a setting of their own.
    Raises ConfigurationError if the two differ."""
    found = environment_of(settings.dsn.get_secret_value()) if settings.dsn else {}
    password = settings.password.get_secret_value() if settings.password else None
    for name, value in (("PORT", settings.port), ("SOCKET", settings.socket), ("PASSWORD", password)):
        variable = "PGHOST" if name == "SOCKET" else f"PG{name}"
        if value is not None and found.setdefault(variable, str(value)) != str(value):
            raise ConfigurationError(
                f"SCARLET_BACKUP_DSN and SCARLET_BACKUP_{name} differ.",
                "Use the same in both, or leave it out of one of them.",
            )
    if settings.via == "local" and (file := environment.get(password_file.VARIABLE)):
        found.setdefault(password_file.VARIABLE, file)
    return found
