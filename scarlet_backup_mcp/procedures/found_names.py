"""Which role and database are meant if no setting names them: by the container's environment, else by the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import BackupToolError
from ..hosts import ContainerInfo
from ..postgres.server.counting import find
from ..postgres.server.databases import USUAL, connectable, first_session
from ..postgres.server.session import OWN_SEARCH_PATH, Server

OF_CONTAINER = " of the container"
TEMPLATES = ("template0", "template1")
_DERIVED = re.compile(r".*_(before_)?restore_\d{8}_\d{6}")


@dataclass(frozen=True)
class Named:
    """A name, and `why` it is this one; "" if a setting says so."""

    value: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.why})" if self.why else self.value

    @property
    def in_brief(self) -> str:
        """The name and why, without saying whose variable it is."""
        return str(Named(self.value, self.why.removesuffix(OF_CONTAINER)))


def user_in(environment: Mapping[str, str], read: Callable[[str], str]) -> Named | None:
    """Return the role that the official image makes a superuser of; None if nothing names it. `read` returns a file of
    the container, and what it raises goes on."""
    return _named(environment, "POSTGRES_USER", read)


def database_in(environment: Mapping[str, str], read: Callable[[str], str]) -> Named | None:
    """Return the database that the official image makes, which without POSTGRES_DB has the role's name; None if that is
    `postgres`, which every cluster has. `read` returns a file of the container, and what it raises goes on."""
    found = _named(environment, "POSTGRES_DB", read) or _named(environment, "POSTGRES_USER", read)
    return None if found is None or found.value in ("postgres", *TEMPLATES) else found


def database_on(server: Server, default: str, table: str) -> Named | None:
    """Look on the server, whose container names no database: return `default` if there is one, else the only database
    with that table; None if there is none, or several, or the server does not answer."""
    try:
        with first_session(server, [*USUAL, default]) as session:
            names = connectable(session)
        if default in names:
            return Named(default, "the default")
        having = [name for name in names if not _DERIVED.fullmatch(name) and _has(server, name, table)]
    except BackupToolError:
        return None
    return Named(having[0], f"the only one with a table {table}") if len(having) == 1 else None


def listening(info: ContainerInfo) -> dict[str, str]:
    """Return PGHOST and PGPORT by the container's command and environment, as far as they say it."""
    directory, _, _ = info.server_options.get("unix_socket_directories", "").partition(",")
    port = info.server_options.get("port") or info.environment.get("PGPORT", "")
    return {name: value for name, value in (("PGHOST", directory.strip()), ("PGPORT", port)) if value}


def _has(server: Server, database: str, table: str) -> bool:
    with server.session(database, OWN_SEARCH_PATH) as session:
        return find(session, table) is not None


def _named(environment: Mapping[str, str], variable: str, read: Callable[[str], str]) -> Named | None:
    value, why = environment.get(variable), variable
    if not value and (file := environment.get(f"{variable}_FILE")):
        value, why = read(file), f"{variable}_FILE"
    if not value or len(value.encode()) > 63 or any(ord(character) < 32 for character in value):
        return None
    return Named(value, why + OF_CONTAINER)
