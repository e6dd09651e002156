"""Rows of tables, counted without running anything that users have defined.

`SELECT count(*)` is planned, and the planner evaluates the predicates and expressions of a table's indexes and of its
extended statistics: functions that whoever made them declared IMMUTABLE run with our rights, which are mostly a
superuser's (seen on 15.20). `SET ROLE` to the owner is no way out: such a function can RESET it. `COPY table (column)
TO STDOUT` of a plain table plans nothing, uses no index, takes one lock, refuses views, and calls only the output
function of the column's type, which only a superuser can make. psql throws the rows away where it runs and tells how
many there were.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import QueryFailed, ServerError
from ...wording import shortened
from .catalogue import Table
from .quoting import identifier, literal, qualified
from .session import OWN_SEARCH_PATH, Server, Session

BATCH = 100
"""Tables counted in one transaction: as many locks are held at once."""
LOCK_WAIT = {"lock_timeout": "5s"}
"""How long a count waits behind a migration: nothing but a comparison depends on it."""
_KINDS = {
    "v": "a view",
    "m": "a materialised view",
    "f": "a foreign table",
    "S": "a sequence",
    "c": "a composite type",
    "i": "an index",
    "I": "an index",
}
_DAMAGE = ("XX", "58")
"""SQLSTATE classes of what could not be read: "internal error", which holds data_corrupted, and "system error"."""


@dataclass(frozen=True)
class Uncounted:
    """A table whose rows could not be counted."""

    table: Table
    error: ServerError

    @property
    def damaged(self) -> bool:
        """Whether the table could not be read, so that its data are in doubt."""
        return isinstance(self.error, QueryFailed) and self.error.sqlstate[:2] in _DAMAGE

    def __str__(self) -> str:
        return f"{self.table.schema}.{self.table.name} ({self.error.message.removesuffix('.')})"


@dataclass(frozen=True)
class Counted:
    """Rows by the OID of each table, its partitions and children not included; and what could not be counted."""

    rows: dict[int, int] = field(default_factory=dict[int, int])
    failed: list[Uncounted] = field(default_factory=list[Uncounted])

    def by_root(self, tables: Iterable[Table]) -> dict[int, int]:
        """Rows of those of `tables` that were counted, summed by the OID of their root."""
        found: dict[int, int] = {}
        for table in tables:
            if table.oid in self.rows:
                found[table.root] = found.get(table.root, 0) + self.rows[table.oid]
        return found

    def unknown_roots(self, tables: Iterable[Table]) -> set[int]:
        """OIDs of the roots whose sum lacks the rows of a table that could not be counted."""
        failed = {lost.table.oid for lost in self.failed}
        return {table.root for table in tables if table.oid in failed}

    def failed_of(self, tables: Iterable[Table]) -> list[Uncounted]:
        """Which of `tables` could not be counted."""
        oids = {table.oid for table in tables}
        return [lost for lost in self.failed if lost.table.oid in oids]

    def told(self, what: str) -> list[str]:
        """A warning in words, `what` first, where some could not be counted."""
        return [f"{what}: {listed(self.failed)}."] if self.failed else []

    def require(self) -> None:
        """Raises the first error, if there was one."""
        if self.failed:
            raise self.failed[0].error


@dataclass(frozen=True)
class Relation:
    """What a name means by the database's own search_path. `tables`, of which each has this one as its root, hold its
    rows: itself, its partitions and children. `rules` are their names."""

    oid: int
    schema: str
    name: str
    kind: str
    rules: list[str]
    tables: list[Table]

    @property
    def no_table(self) -> str:
        """What it is instead, in words; "" for a table."""
        kind = _KINDS.get(self.kind, "")
        return f"{self.schema}.{self.name} is {kind}, not a table" if kind else ""


@dataclass(frozen=True)
class Count:
    """Rows of the table that a name means. None where there is no such table; `why` says what else there is."""

    rows: int | None
    why: str = ""
    rules: Sequence[str] = ()

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.rows:,} rows" if self.rows is not None else self.why or "no such table"


def listed(failed: Sequence[Uncounted]) -> str:
    """The first few in words."""
    return shortened(failed, separator="; ")


def count_rows(
    session: Session, of: Iterable[Table], snapshot: str | None = None, *, until: float | None = None
) -> Counted:
    """Count the rows of each table in `of` that has rows of its own, in short transactions that see an exported
    `snapshot` (None: what is there when each begins).

    `session` is in no transaction. What can't be counted is in the answer; raises ServerError only when the connection
    is lost, or when it is later than `until` by `time.monotonic()`: then the session is closed.
    """
    counted, plain = Counted(), [table for table in of if table.kind == "r"]
    for at in range(0, len(plain), BATCH):
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if snapshot is not None:
            session.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
        left = None if until is None else max(0.0, until - time.monotonic())
        _count(session, plain[at : at + BATCH], counted, left)
        session.execute("COMMIT")
    return counted


def _count(session: Session, batch: list[Table], counted: Counted, timeout: float | None) -> None:
    columns = _columns(session, batch)
    copies = [
        f"COPY {qualified(t.schema, t.name)}{columns.get(t.oid, '')} TO STDOUT (ENCODING 'SQL_ASCII')" for t in batch
    ]
    done: list[tuple[Table, int]] = []
    for table, rows in zip(batch, session.copy_away(copies, timeout), strict=True):
        if isinstance(rows, int):
            done.append((table, rows))
        else:
            counted.failed.append(Uncounted(table, rows))
    others = _others(session, [table for table, _ in done])
    for table, rows in done:
        if table.oid in others:
            counted.failed.append(Uncounted(table, QueryFailed("another table has its name by now", sqlstate="42P01")))
        else:
            counted.rows[table.oid] = rows


def _columns(session: Session, of: list[Table]) -> dict[int, str]:
    """The column of each table that costs least to write, in parentheses, by the table's OID: one of a fixed length is
    never read from a TOAST table. Generated ones can't be copied; of a table without any other, all are: none.

    Without a conversion (SQL_ASCII) what is in a text does not matter.
    """
    oids = ", ".join(str(table.oid) for table in of)
    rows = session.rows(
        f"""SELECT DISTINCT ON (a.attrelid) a.attrelid::bigint AS oid, a.attname AS name
            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid IN ({oids}) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
            ORDER BY a.attrelid, t.typtype = 'b' AND t.typlen > 0 DESC, t.typlen > 0 DESC, t.typlen, a.attnum"""
    )
    return {row["oid"]: f" ({identifier(row['name'])})" for row in rows}


def _others(session: Session, of: list[Table]) -> set[int]:
    """OIDs of tables whose name means another one by now. The names of those that were read are locked."""
    if not of:
        return set()
    found = ", ".join(f"({t.oid}, to_regclass({literal(qualified(t.schema, t.name))}))" for t in of)
    rows = session.rows(
        f"""SELECT known::bigint AS oid FROM (VALUES {found}) AS names (known, found)
            WHERE found::oid::bigint IS DISTINCT FROM known"""
    )
    return {row["oid"] for row in rows}


# -- the integrity table ---------------------------------------------------------------------------------------------


def find(session: Session, name: str) -> Relation | None:
    """What `name` means by the database's own search_path; None if nothing.

    The session was opened with OWN_SEARCH_PATH; afterwards it has `pg_catalog` alone, as others have. On the user's
    path only this one look-up happens: there an operator or a function of the user's can stand in for any that is not
    qualified (`=` of two OIDs did, seen on 15.20).
    """
    looked = f"SELECT pg_catalog.to_regclass({literal(identifier(name))})::pg_catalog.oid::pg_catalog.int8 AS oid"
    oid: int | None = session.rows(looked)[0]["oid"]
    session.execute("SET search_path = pg_catalog")
    if oid is None:
        return None
    rows = session.rows(
        f"""WITH RECURSIVE tree (oid) AS (
                SELECT {oid}::oid
                UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON i.inhparent = t.oid)
            SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
                   {oid} AS root, 0 AS bytes, NULL AS estimated_rows, false AS in_extension
            FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
            ORDER BY c.oid <> {oid}, n.nspname, c.relname"""
    )
    tables = [Table(**row) for row in rows]
    if not tables or tables[0].oid != oid:
        return None
    rules = session.rows(f"SELECT rulename AS name FROM pg_rewrite WHERE ev_class = {oid} ORDER BY rulename")
    found = tables[0]
    return Relation(oid, found.schema, found.name, found.kind, [rule["name"] for rule in rules], tables)


def count_of(found: Relation | None, counted: Counted) -> Count:
    """How many of the rows that were counted are `found`'s."""
    if found is None:
        return Count(None)
    if found.no_table:
        return Count(None, found.no_table)
    if failed := counted.failed_of(found.tables):
        return Count(None, f"the rows of {listed(failed)} could not be counted")
    return Count(sum(counted.rows.get(table.oid, 0) for table in found.tables), rules=found.rules)


def count_table(server: Server, database: str, name: str, options: Mapping[str, str | None] | None = None) -> Count:
    """Rows of the table that `name` means by the database's own search_path, partitions and children included.

    `options` are for the session, which a login trigger would see: in a database that is being restored none may fire.
    Raises ServerError where they can't be read; TableLocked after 3 s behind a migration.
    """
    with server.session(database, {**(options or {}), **OWN_SEARCH_PATH, "lock_timeout": "3s"}) as session:
        found = find(session, name)
        counted = Counted() if found is None or found.no_table else count_rows(session, found.tables)
        counted.require()
        return count_of(found, counted)
