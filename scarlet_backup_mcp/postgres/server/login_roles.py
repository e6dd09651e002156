"""Roles created for one load and dropped after it, and what they own meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

from .quoting import identifier, literal
from .session import Session

# What an extension has created for its users to fill or use.
_GRANTS = """SELECT CASE c.relkind WHEN 'S' THEN 'UPDATE ON SEQUENCE ' ELSE 'INSERT ON ' END || c.oid::regclass AS what
             FROM pg_extension e, unnest(e.extconfig) AS config JOIN pg_class c ON c.oid = config
             UNION ALL SELECT 'USAGE ON FOREIGN DATA WRAPPER ' || quote_ident(fdwname) FROM pg_foreign_data_wrapper"""


def create(session: Session, name: str, verifier: str, comment: str) -> None:
    """Create a role that can log in; `verifier` is its password's, for SCRAM. Its only right is BYPASSRLS, so that row
    security in the file, even if forced on owners, hides no row from it."""
    session.execute("BEGIN")
    session.execute(f"CREATE ROLE {identifier(name)} LOGIN BYPASSRLS PASSWORD {literal(verifier)}")
    session.execute(f"ALTER ROLE {identifier(name)} SET lc_messages = 'C'")
    session.execute(f"COMMENT ON ROLE {identifier(name)} IS {literal(comment)}")
    session.execute("COMMIT")


def unused(session: Session, beginning: str) -> list[str]:
    """List the roles with a comment that begins so which neither own a database nor are connected."""
    rows = session.rows(
        f"""SELECT rolname AS name FROM pg_roles r
            WHERE starts_with(shobj_description(r.oid, 'pg_authid'), {literal(beginning)})
              AND NOT EXISTS (SELECT FROM pg_database WHERE datdba = r.oid)
              AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE usesysid = r.oid)"""
    )
    return [row["name"] for row in rows]


def drop(session: Session, name: str) -> None:
    """Drop a role with its rights on tablespaces; in the connected database it owns nothing any more."""
    session.execute(f"DROP OWNED BY {identifier(name)}")
    session.execute(f"DROP ROLE {identifier(name)}")


def give_database(session: Session, name: str, database: str, tablespaces: Iterable[str]) -> None:
    """Let the role own an empty database and connect to it, and use the tablespaces."""
    session.execute(f"ALTER DATABASE {identifier(database)} OWNER TO {identifier(name)}")
    session.execute(f"ALTER DATABASE {identifier(database)} CONNECTION LIMIT -1")
    for tablespace in tablespaces:
        session.execute(f"GRANT CREATE ON TABLESPACE {identifier(tablespace)} TO {identifier(name)}")


def equip(session: Session, name: str, schemas: Iterable[str], extensions: Iterable[tuple[str, str]]) -> None:
    """Create in the connected database the role's `schemas`, and the `extensions` (name and schema) it may use."""
    for schema in schemas:
        session.execute(f"CREATE SCHEMA {identifier(schema)} AUTHORIZATION {identifier(name)}")
    for extension, schema in extensions:
        session.execute(f"CREATE EXTENSION {identifier(extension)} SCHEMA {identifier(schema)}")
    for row in session.rows(_GRANTS):
        session.execute(f"GRANT {row['what']} TO {identifier(name)}")


def taking_over(name: str, by: str, database: str) -> list[bytes]:
    """Return statements for psql with which `by` takes over what the role owns in the connected `database`.

    They also undo settings and access that the role may have changed there."""
    statements = (
        "SELECT pg_catalog.set_config('search_path', '', false);",
        f"REASSIGN OWNED BY {identifier(name)} TO {identifier(by)};",
        f"DROP OWNED BY {identifier(name)};",
        f"ALTER DATABASE {identifier(database)} RESET ALL;",
        f"ALTER DATABASE {identifier(database)} WITH IS_TEMPLATE false ALLOW_CONNECTIONS true CONNECTION LIMIT 0;",
    )
    return [statement.encode() for statement in statements]
