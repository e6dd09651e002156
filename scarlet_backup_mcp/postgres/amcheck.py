"""The structure of tables and indexes, looked at by the server's own extension amcheck."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import QueryFailed
from .catalogue import Table, tables
from .quoting import identifier
from .server import Session

SCHEMA = "scarlet_amcheck"
SHOWN = 20


@dataclass(frozen=True)
class Checked:
    """How many tables and btree indexes were looked at, and what is wrong with some, in words."""

    tables: int
    indexes: int
    problems: list[str]


def check(session: Session, watch: Callable[[], object] = lambda: None) -> Checked | None:
    """Every table (`verify_heapam`) and every btree index (`bt_index_check`, with a look whether each row of its table
    is in it) of the connected database; None where the server has no amcheck. `watch` is called between two of them.

    Where the extension is not installed it is, for as long as this takes. A `heapallindexed` check needs memory and
    time like an index build ("amcheck", section F.1 of PostgreSQL's documentation).
    """
    if not session.rows("SELECT name FROM pg_available_extensions WHERE name = 'amcheck'"):
        return None
    with _installed(session) as schema:
        return _check(session, identifier(schema), watch)


@contextmanager
def _installed(session: Session) -> Generator[str]:
    """Gives the schema of the extension."""
    found = session.rows(
        """SELECT n.nspname AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
           WHERE e.extname = 'amcheck'"""
    )
    if found:
        yield found[0]["schema"]
        return
    session.execute(f"CREATE SCHEMA {identifier(SCHEMA)}")
    session.execute(f"CREATE EXTENSION amcheck SCHEMA {identifier(SCHEMA)}")
    yield SCHEMA
    session.execute("DROP EXTENSION amcheck")
    session.execute(f"DROP SCHEMA {identifier(SCHEMA)}")


def _check(session: Session, schema: str, watch: Callable[[], object]) -> Checked:
    problems: list[str] = []
    heaps = [table for table in tables(session) if table.kind == "r"]
    for table in heaps:
        watch()
        problems += _problems_of(session, schema, table)
    indexes = session.rows(
        """SELECT c.oid::bigint AS oid, n.nspname || '.' || c.relname AS name
           FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_am a ON a.oid = c.relam
           WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisready AND i.indisvalid
             AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 2"""
    )
    for index in indexes:
        watch()
        try:
            session.execute(f"SELECT {schema}.bt_index_check({index['oid']}::oid::regclass, true)")
        except QueryFailed as error:
            problems.append(f"index {index['name']}: {error.message}")
    return Checked(len(heaps), len(indexes), problems[:SHOWN])


def _problems_of(session: Session, schema: str, table: Table) -> list[str]:
    name = f"{table.schema}.{table.name}"
    try:
        rows = session.rows(
            f"""SELECT blkno, msg FROM {schema}.verify_heapam({table.oid}::oid::regclass)
                ORDER BY blkno LIMIT {SHOWN}"""
        )
    except QueryFailed as error:
        return [f"table {name}: {error.message}"]
    return [f"table {name}, block {row['blkno']}: {row['msg']}" for row in rows]
