"""Session settings that affect values, checks, indexes and views while a dump is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...errors import PermissionDenied, QueryFailed
from ...models.manifest import Setting
from .quoting import identifier, literal
from .session import OWN_FORMATS, OWN_SEARCH_PATH, Session

UNPINNED: Mapping[str, str | None] = {**OWN_SEARCH_PATH, **OWN_FORMATS}
"""Options for a session whose `effective` settings are queried: without our own values for them."""
DECIDING = (
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "default_text_search_config",
    "search_path",
    "bytea_output",
    "extra_float_digits",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmlbinary",
)
SEARCH_PATH = "search_path"
TEXT_SEARCH = "default_text_search_config"
"""It may name an object of the database, and can't be set before that exists."""
# A dump's COPY data rely on it: without it a NULL in an array would become the word NULL.
_FOR_THE_DATA: Mapping[str, str] = {"array_nulls": "on"}
_FRUGAL: Mapping[str, str] = {"max_parallel_maintenance_workers": "0", "maintenance_work_mem": "64MB"}


def effective(session: Session) -> dict[str, str]:
    """Query the settings in `DECIDING`, and the database's custom variables, as a session of the database has them. The
    session was opened with UNPINNED. Everything is qualified and no operator is used, so that nothing on the user's
    path can replace it."""
    stored = "SELECT pg_catalog.unnest(s.setconfig) AS entry FROM pg_catalog.pg_db_role_setting AS s"
    entries: list[str] = [row["entry"] for row in session.rows(stored)]
    names = [*DECIDING, *sorted({name for entry in entries if "." in (name := entry.partition("=")[0])})]
    asked = (f"pg_catalog.current_setting({literal(name)}, true) AS n{at}" for at, name in enumerate(names))
    found: dict[str, str | None] = session.rows(f"SELECT {', '.join(asked)}")[0]
    values = {name: found[f"n{at}"] for at, name in enumerate(names)}
    return {name: value for name, value in values.items() if value is not None}


def current_settings(session: Session, names: Iterable[str]) -> dict[str, str]:
    """Query these settings of the session."""
    wanted = ", ".join(f"current_setting({literal(name)}) AS {identifier(name)}" for name in names)
    return session.rows(f"SELECT {wanted}")[0]


def overlaid(base: Mapping[str, str], settings: Iterable[Setting]) -> dict[str, str]:
    """Return the effective settings of a database with these `settings` of its own, on a server where others have
    `base`."""
    names = {name.lower(): name for name in DECIDING}
    own = {names.get(s.name.lower(), s.name): s.value for s in settings if s.role is None}
    return {**base, **{name: value for name, value in own.items() if name in DECIDING or "." in name}}


def usable(session: Session, wanted: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return those of `wanted` that this server accepts, and a warning for each other one, such as an unknown locale. A
    text search configuration with a schema, which `effective` returns for a user's own, is assumed to come with the
    dump."""
    taken: dict[str, str] = {}
    warnings: list[str] = []
    for name, value in wanted.items():
        if name == SEARCH_PATH:
            continue  # a script sets its own
        try:
            session.execute(set_config(name, value))
            taken[name] = value
        except (QueryFailed, PermissionDenied) as error:
            if name == TEXT_SEARCH and "." in value:
                taken[name] = value
                continue
            warnings.append(f"The setting {name} of the backup's database can't be used there: {error.message}")
    return taken, warnings


def preamble(settings: Mapping[str, str], *, frugal: bool = False) -> bytes:
    """Return the SQL that a load begins with. `frugal`: build indexes with little memory and without parallel workers,
    which may need more shared memory than a container has."""
    given = {**settings, **_FOR_THE_DATA, **(_FRUGAL if frugal else {})}
    now = {name: value for name, value in given.items() if name not in late(settings)}
    return "".join(f"{set_config(name, value)};\n" for name, value in now.items()).encode()


def late(settings: Mapping[str, str]) -> dict[str, str]:
    """Return those settings that can be set only after the dump has created what they name, before its data."""
    found = settings.get(TEXT_SEARCH, "")
    return {TEXT_SEARCH: found} if "." in found and not found.startswith("pg_catalog.") else {}


def for_options(value: str) -> str:
    """Escape a value for PGOPTIONS ("libpq", "options": a backslash before white space and backslashes)."""
    return "".join(f"\\{c}" if c.isspace() or c == "\\" else c for c in value)


def set_config(name: str, value: str) -> str:
    """Return the SELECT that sets a setting for the session."""
    return f"SELECT pg_catalog.set_config({literal(name)}, {literal(value)}, false)"
