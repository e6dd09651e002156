"""A server's installation: its programs, libraries and extensions, and what its databases expect of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .quoting import literal
from .session import Session


@dataclass(frozen=True)
class Installation:
    """A server's installation. `bin_dir` is "" if the role may not see it; the server preloads `libraries`, each
    session `session_libraries`; `building` are settings for building indexes, with their units."""

    bin_dir: str
    libraries: str
    session_libraries: str
    building: dict[str, str]


def installation(session: Session, timeout: float) -> Installation:
    """Query the server's installation, for at most `timeout` seconds. Raises ServerError."""
    query = """SELECT (SELECT setting FROM pg_config WHERE name = 'BINDIR') AS bin_dir,
                      current_setting('shared_preload_libraries') AS libraries,
                      current_setting('session_preload_libraries') AS session_libraries,
                      (SELECT json_object_agg(name, concat(setting, unit)) FROM pg_settings
                       WHERE name IN ('maintenance_work_mem', 'max_parallel_maintenance_workers')) AS building"""
    found = session.rows(query, timeout)[0]
    return Installation(found["bin_dir"] or "", found["libraries"], found["session_libraries"], found["building"])


def available_extensions(session: Session, names: Iterable[str]) -> set[str]:
    """Return those extensions of `names` that can be created."""
    wanted = ", ".join(literal(name) for name in names) or "NULL"
    rows = session.rows(f"SELECT name FROM pg_available_extensions WHERE name IN ({wanted})")
    return {row["name"] for row in rows}


def trusted_extensions(session: Session) -> set[str]:
    """Return the extensions that a database's owner may create, because their authors mark them as trusted."""
    return {row["name"] for row in session.rows("SELECT name FROM pg_available_extension_versions WHERE trusted")}


def extensions_of(session: Session) -> list[tuple[str, str]]:
    """List name and schema of the connected database's extensions, without plpgsql, in the order of their creation."""
    query = """SELECT e.extname AS name, n.nspname AS schema FROM pg_extension e
               JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql' ORDER BY e.oid"""
    return [(row["name"], row["schema"]) for row in session.rows(query)]


def databases_of_other_collations(session: Session) -> list[str]:
    """List the databases created with another version of their collation than the server has now; [] before 15, where
    that is unknown."""
    if session.version < 150000:
        return []
    query = """SELECT datname AS name FROM pg_database
               WHERE datallowconn AND datcollversion <> pg_database_collation_actual_version(oid) ORDER BY 1"""
    return [row["name"] for row in session.rows(query)]
