"""Find out who owns the schemas of a search_path, and which functions have a name."""

from __future__ import annotations

from dataclasses import dataclass

from .quoting import literal
from .session import Session


@dataclass(frozen=True)
class Function:
    """A function or procedure; `name` is quoted and has its arguments' types, `extension` is the one it belongs to."""

    name: str
    kind: str
    extension: str | None


def functions_named(session: Session, name: str) -> list[Function]:
    """List the functions of that name in any schema except pg_catalog."""
    rows = session.rows(
        f"""SELECT p.oid::regprocedure::text AS name, e.extname AS extension,
                   CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END AS kind
            FROM pg_proc p LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
              AND d.deptype = 'e' LEFT JOIN pg_extension e ON e.oid = d.refobjid
            WHERE p.proname = {literal(name)} AND p.pronamespace <> 'pg_catalog'::regnamespace
            ORDER BY 1"""
    )
    return [Function(**row) for row in rows]


def schemas_of_others(session: Session, path: str, owner: str) -> list[str]:
    """List the schemas of that search_path that neither a superuser nor `owner`, the database's owner, owns."""
    session.execute(f"SELECT pg_catalog.set_config('search_path', {literal(path)}, false)")
    schemas = session.rows("SELECT pg_catalog.current_schemas(false) AS schemas")[0]["schemas"]
    session.execute("SELECT pg_catalog.set_config('search_path', 'pg_catalog', false)")
    names = ", ".join(literal(name) for name in schemas) or "NULL"
    rows = session.rows(
        f"""SELECT n.nspname AS name FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
            WHERE n.nspname IN ({names})
              AND NOT (r.rolsuper OR r.rolname IN ({literal(owner)}, 'pg_database_owner'))"""
    )
    return [row["name"] for row in rows]
