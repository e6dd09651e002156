"""Check the structure of tables and indexes with the server's own extension amcheck."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ...errors import PermissionDenied, QueryFailed
from .quoting import identifier
from .session import Session
from .sqlstates import UNKNOWN_NAMES

SCHEMA = "scarlet_amcheck"
SHOWN = 20


@dataclass(frozen=True)
class Checked:
    """How many tables and btree indexes were checked, and a description of each problem."""

    tables: int
    indexes: int
    problems: list[str]


def check(
    session: Session, watch: Callable[[], object] = lambda: None, *, toast: Collection[tuple[str, str]] = ()
) -> Checked | None:
    """Check every table and btree index of the connected database; None if the server has no amcheck.

    Uses `verify_heapam`, and `bt_index_check` with a check that each of the table's rows is in the index. Calls `watch`
    before each. For the `toast` tables (schema and name), values stored out of line are checked, too.

    All of it, including the extension's installation, happens in a transaction that is rolled back. Returns None also
    if this role or an event trigger forbids it. A `heapallindexed` check needs memory and time like an index build
    ("amcheck", section F.1 of PostgreSQL's documentation).
    """
    session.execute("BEGIN")
    try:
        schema = _install(session)
        return (
            None if schema is None else _check(session, identifier(schema), watch, {".".join(table) for table in toast})
        )
    except (QueryFailed, PermissionDenied):
        return None
    finally:
        session.execute("ROLLBACK")


def _install(session: Session) -> str | None:
    """Install the extension unless it is there; return its schema, None if the server lacks it. Raises QueryFailed."""
    found = session.rows(
        """SELECT n.nspname AS schema FROM pg_available_extensions a LEFT JOIN pg_extension e ON e.extname = a.name
           LEFT JOIN pg_namespace n ON n.oid = e.extnamespace WHERE a.name = 'amcheck'"""
    )
    if not found or found[0]["schema"] is not None:
        return found[0]["schema"] if found else None
    session.execute(f"CREATE SCHEMA {identifier(SCHEMA)}")
    session.execute(f"CREATE EXTENSION amcheck SCHEMA {identifier(SCHEMA)}")
    return SCHEMA


def _check(session: Session, schema: str, watch: Callable[[], object], toast: set[str]) -> Checked:
    problems: list[str] = []
    heaps = session.rows(
        """SELECT c.oid::bigint AS oid, n.nspname || '.' || c.relname AS name
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam
           WHERE a.amname = 'heap' AND c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_'
             AND n.nspname <> 'information_schema' ORDER BY 2"""
    )
    for table in heaps:
        watch()
        # All arguments, with exact types: else another function of that name could be called, or make it ambiguous.
        deep = "true" if table["name"] in toast else "false"
        arguments = f"{table['oid']}::oid::regclass, false, {deep}, 'none'::text, NULL::bigint, NULL::bigint"
        damaged = f"SELECT blkno, msg FROM {schema}.verify_heapam({arguments}) LIMIT {SHOWN}"
        rows, error = _try(session, damaged)
        problems += [f"table {table['name']}, block {row['blkno']}: {row['msg']}" for row in rows]
        problems += [f"table {table['name']}: {error}"] if error else []
    indexes = session.rows(
        """SELECT c.oid::bigint AS oid, n.nspname || '.' || c.relname AS name
           FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_am a ON a.oid = c.relam
           WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisready AND i.indisvalid
             AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 2"""
    )
    for index in indexes:
        watch()
        query = f"SELECT {schema}.bt_index_check({index['oid']}::oid::regclass, {{}}) AS nothing"
        try:
            _, error = _try(session, query.format("true"), but=UNKNOWN_NAMES)
        except QueryFailed:  # amcheck computes expressions with a search_path of its own (seen on 15.20)
            _, error = _try(session, query.format("false"))
        problems += [f"index {index['name']}: {error}"] if error else []
    return Checked(len(heaps), len(indexes), problems[:SHOWN])


def _try(session: Session, query: str, but: frozenset[str] = frozenset()) -> tuple[list[dict[str, Any]], str]:
    """Return a query's rows, or the server's error; the transaction goes on. Raises QueryFailed for those in `but`."""
    session.execute("SAVEPOINT looking")
    try:
        return session.rows(query), ""
    except QueryFailed as error:
        session.execute("ROLLBACK TO looking")
        if error.sqlstate in but:
            raise
        return [], error.message
