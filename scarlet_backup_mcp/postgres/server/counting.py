"""Count the rows of tables without running any code of users.

For `SELECT count(*)` the planner evaluates the predicates and expressions of a table's indexes and extended statistics:
functions that their authors declared IMMUTABLE then run with our rights, mostly a superuser's (seen on 15.20).
`SET ROLE` to the owner does not help: such a function can RESET it. `COPY table (column) TO STDOUT` of a plain table
plans nothing, uses no index, takes one lock, refuses views, and calls only the output function of the column's type,
which only a superuser can create. psql discards the rows where it runs, and reports their number.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import QueryFailed, ServerError
from ...wording import number_of, shortened
from . import snapshots
from .catalogue import Table
from .quoting import identifier, literal, qualified
from .session import OWN_SEARCH_PATH, Server, Session
from .sqlstates import OUT_OF_LOCKS

BATCH = 100
"""Number of tables to count in one transaction, which holds a lock on each."""
LOCK_WAIT = {"lock_timeout": "5s"}
"""How long a count waits for a migration: only a comparison depends on it."""
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
"""SQLSTATE classes of failed reads: "internal error", which includes data_corrupted, and "system error"."""


@dataclass(frozen=True)
class Uncounted:
    """A table whose rows could not be counted."""

    table: Table
    error: ServerError

    @property
    def damaged(self) -> bool:
        """Whether the table could not be read, so that its data may be damaged."""
        return isinstance(self.error, QueryFailed) and self.error.sqlstate[:2] in _DAMAGE

    def __str__(self) -> str:
        return f"{self.table.schema}.{self.table.name} ({self.error.message.removesuffix('.')})"


@dataclass(frozen=True)
class Counted:
    """Rows by the OID of each table, without its partitions and children; and the tables that could not be counted."""

    rows: dict[int, int] = field(default_factory=dict[int, int])
    failed: list[Uncounted] = field(default_factory=list[Uncounted])

    def by_root(self, tables: Iterable[Table]) -> dict[int, int]:
        """Sum the rows of those of `tables` that were counted, by the OID of their root."""
        found: dict[int, int] = {}
        for table in tables:
            if table.oid in self.rows:
                found[table.root] = found.get(table.root, 0) + self.rows[table.oid]
        return found

    def unknown_roots(self, tables: Iterable[Table]) -> set[int]:
        """Return the OIDs of roots whose sum lacks the rows of a table that could not be counted."""
        failed = {lost.table.oid for lost in self.failed}
        return {table.root for table in tables if table.oid in failed}

    def failed_of(self, tables: Iterable[Table]) -> list[Uncounted]:
        """Return those of `tables` that could not be counted."""
        oids = {table.oid for table in tables}
        return [lost for lost in self.failed if lost.table.oid in oids]

    def warnings(self, what: str) -> list[str]:
        """Return a warning that begins with `what` if some tables could not be counted."""
        return [f"{what}: {listed(self.failed)}."] if self.failed else []

    def require(self) -> None:
        """Raise the first error, if there was one."""
        if self.failed:
            raise self.failed[0].error


@dataclass(frozen=True)
class Relation:
    """What a name refers to on the database's own search_path. `tables`, which all have this one as their root, hold
    its rows: itself, its partitions and children. `rules` are the names of its rules."""

    oid: int
    schema: str
    name: str
    kind: str
    rules: list[str]
    tables: list[Table]

    @property
    def no_table(self) -> str:
        """A sentence on what it is instead of a table; "" for a table."""
        kind = _KINDS.get(self.kind, "")
        return f"{self.schema}.{self.name} is {kind}, not a table" if kind else ""


@dataclass(frozen=True)
class Count:
    """Rows of the table that a name refers to; None if there is no such table: `why` then says what there is."""

    rows: int | None
    why: str = ""
    rules: Sequence[str] = ()

    @property
    def in_words(self) -> str:
        """The count in words."""
        return number_of(self.rows, "row") if self.rows is not None else self.why or "no such table"


def listed(failed: Sequence[Uncounted]) -> str:
    """List the first few in words."""
    return shortened(failed, separator="; ")


def count_rows(
    session: Session, of: Iterable[Table], snapshot: str | None = None, *, until: float | None = None
) -> Counted:
    """Count the rows of each table in `of` that has rows of its own, in short transactions.

    These see an exported `snapshot`; with None, each sees what is there when it begins. `session` must not be in a
    transaction. The result includes the tables that can't be counted; raises ServerError only when the connection is
    lost, or when `time.monotonic()` passes `until`: the session is then closed. Tables for whose locks a server has no
    space together are counted one by one.
    """
    counted, plain = Counted(), [table for table in of if table.kind == "r"]
    columns = _columns(session, plain)

    def count(batch: list[Table]) -> None:
        snapshots.begin(session, snapshot)
        left = None if until is None else max(0.0, until - time.monotonic())
        try:
            _count(session, batch, columns, counted, left)
        except QueryFailed as error:
            if OUT_OF_LOCKS not in error.message:
                raise
            counted.failed.extend(Uncounted(table, error) for table in batch)
        session.execute("COMMIT")

    for at in range(0, len(plain), BATCH):
        count(plain[at : at + BATCH])
    if short := [lost for lost in counted.failed if OUT_OF_LOCKS in lost.error.message]:
        counted.failed[:] = [lost for lost in counted.failed if lost not in short]
        for lost in short:
            count([lost.table])
    return counted


def _count(
    session: Session, batch: list[Table], columns: Mapping[int, str], counted: Counted, timeout: float | None
) -> None:
    copies = [
        f"COPY {qualified(t.schema, t.name)}{columns.get(t.oid, '')} TO STDOUT (ENCODING 'SQL_ASCII')" for t in batch
    ]
    answers = list(zip(batch, session.copy_away(copies, timeout), strict=True))
    others = _others(session, [table for table, rows in answers if isinstance(rows, int)])
    for table, rows in answers:
        if not isinstance(rows, int):
            counted.failed.append(Uncounted(table, rows))
        elif table.oid in others:
            counted.failed.append(Uncounted(table, QueryFailed("another table now has its name", sqlstate="42P01")))
        else:
            counted.rows[table.oid] = rows


def _columns(session: Session, of: list[Table]) -> dict[int, str]:
    """Return, in parentheses, the column of each table that is cheapest to write, by the table's OID.

    One of a fixed length is never read from a TOAST table. Generated ones can't be copied; a table that has no other is
    missing here, and copied as a whole. Without a conversion (SQL_ASCII) the content of texts does not matter.
    """
    oids = ",".join(str(table.oid) for table in of)
    rows = session.rows(
        f"""SELECT DISTINCT ON (a.attrelid) a.attrelid::bigint AS oid, a.attname AS name
            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid = ANY ('{{{oids}}}'::oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
            ORDER BY a.attrelid, t.typtype = 'b' AND t.typlen > 0 DESC, t.typlen > 0 DESC, t.typlen, a.attnum"""
    )
    return {row["oid"]: f" ({identifier(row['name'])})" for row in rows}


def _others(session: Session, of: list[Table]) -> set[int]:
    """Return the OIDs of tables whose name now belongs to another one. The names of those that were read are locked."""
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
    """Look `name` up on the database's own search_path; None if there is nothing of that name.

    The session was opened with OWN_SEARCH_PATH; afterwards its path is `pg_catalog`, as in other sessions. Only this
    one query runs on the user's path: there a user's operator or function can replace any that is not qualified (`=` of
    two OIDs was, seen on 15.20).
    """
    lookup = f"SELECT pg_catalog.to_regclass({literal(identifier(name))})::pg_catalog.oid::pg_catalog.int8 AS oid"
    oid: int | None = session.rows(lookup)[0]["oid"]
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
    """Return how many of the counted rows are `found`'s."""
    if found is None:
        return Count(None)
    if found.no_table:
        return Count(None, found.no_table)
    if failed := counted.failed_of(found.tables):
        return Count(None, f"the rows of {listed(failed)} could not be counted")
    return Count(sum(counted.rows.get(table.oid, 0) for table in found.tables), rules=found.rules)


def count_table(server: Server, database: str, name: str, options: Mapping[str, str | None] | None = None) -> Count:
    """Count the rows of the table `name`, found on the database's own search_path, with its partitions and children.

    `options` are for the session: in a database that is being restored no login trigger may fire. Raises ServerError
    if the rows can't be read; TableLocked after waiting 3 s for a migration.
    """
    with server.session(database, {**(options or {}), **OWN_SEARCH_PATH, "lock_timeout": "3s"}) as session:
        found = find(session, name)
        counted = Counted() if found is None or found.no_table else count_rows(session, found.tables)
        counted.require()
        return count_of(found, counted)
