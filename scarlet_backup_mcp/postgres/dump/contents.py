"""Compare two plain dumps as databases.

Dumps of equal databases need not be equal byte for byte: after updates, rows come in another order; rows of a table
partitioned by the hash of an enum move between partitions; and a server rewrites some expressions when it loads them.
Both dumps must have the same encoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from .definitions import OUTSIDE, Definition, ObjectKey, beginning, heading, partitioned
from .differences import DumpDifference, Rewritten, differing, shown, unequal
from .digests import RowDigests
from .encodings import codec_set_by
from .events import Handler, Target
from .form import AUTHORIZATION, STANDARD_COMMENT, Form
from .inserts import INSERT, InsertDigests
from .large_objects import DEFINES, EMPTY, LargeObjects, is_large_object
from .lexer import unquote
from .script import RESTRICT_LINE, TRAILER

_DATA = frozenset({"TABLE DATA", "BLOBS", "STATISTICS DATA"})
"""Entry types that define nothing: rows, content of large objects, the planner's statistics."""

_ENCODING = re.compile(rb"SET client_encoding = '(\w+)';")
_COPY = re.compile(rb"COPY\s.*\sFROM\s+STDIN\s*;", re.IGNORECASE | re.DOTALL)
_OWN_TABLESPACE = (b"''", b'""')
_CONTEXT = re.compile(rb"SET (default_tablespace|default_table_access_method) = (.*);", re.DOTALL)
# These affect the load, not the content; versions of pg_dump differ in them (PostgreSQL 18: transaction_timeout).
_LOADING = re.compile(
    rb"SET (?:statement_timeout|lock_timeout|idle_in_transaction_session_timeout|transaction_timeout|"
    rb"session_replication_role|"
    rb"check_function_bodies|xmloption|client_min_messages|row_security|escape_string_warning|default_with_oids) = "
)
# What pg_dump --clean --if-exists begins with.
_CLEANING = re.compile(rb"DROP |ALTER [^;]*? DROP |CREATE OR REPLACE VIEW |SELECT pg_catalog\.lo_unlink\(")
_OF_STATISTICS = re.compile(rb"SELECT \* FROM pg_catalog\.pg_restore_\w+_stats\(")
_STORED = re.compile(rb"CREATE (?:(?:UNLOGGED )?TABLE|MATERIALIZED VIEW) ")
_INDEX = re.compile(
    rb"CREATE (?:UNIQUE )?INDEX "
    rb'|ALTER TABLE [^;]*? ADD CONSTRAINT (?:"(?:[^"]|"")*"|\S+) (?:UNIQUE|PRIMARY KEY|EXCLUDE) '
)


@dataclass(frozen=True)
class Rows:
    """The rows of one table: how many (None: the script does not show it), how they are written, and a digest. The
    digest does not depend on the rows' order, and can only be compared with one of the same form; "mixed" has none."""

    rows: int | None
    form: Literal["copy", "insert", "mixed"]
    digest: str


class Contents(Handler):
    """The contents of a script: digests of rows and large objects, and every other statement, grouped by object. Memory
    grows with the definitions only. `like` is the script to compare with, read before this one: a table's columns can
    be in another order after a reload; its rows are then digested in the order of `like`."""

    def __init__(self, like: Contents | None = None) -> None:
        self._copied = RowDigests(like._copied if like else None)
        self._inserted = InsertDigests(like._inserted if like else None)
        self._codec, self._encoding = "utf-8", ""
        self._current: list[bytes] = []
        self._found: list[tuple[ObjectKey, str, list[bytes]]] = []
        self._context: dict[bytes, bytes] = {}
        self._large_objects = LargeObjects()
        self._form = Form()
        self._objects = False
        self.tablespaces: set[str] = set()
        """Tablespaces of its tables and indexes, except the database's own."""
        self._set_down(OUTSIDE, "")

    @property
    def rows(self) -> dict[tuple[str, str], Rows]:
        """The rows by schema and name of their table; a table without rows may be missing."""
        copied = {(d.target.schema, d.target.name): Rows(d.rows, "copy", d.digest) for d in self._copied.rows}
        inserted = {(d.target.schema, d.target.name): Rows(d.rows, "insert", d.digest) for d in self._inserted.rows}
        both = {
            table: Rows((copied[table].rows or 0) + (inserted[table].rows or 0), "mixed", "")
            for table in copied.keys() & inserted.keys()
        }
        uncertain = {table: Rows(None, "mixed", "") for table in self._inserted.uncertain}
        return {**copied, **inserted, **both, **uncertain}

    @property
    def large_objects(self) -> dict[str, str]:
        """Digest of each large object's content, by its OID."""
        return self._large_objects.digests

    @property
    def has_objects(self) -> bool:
        """Whether pg_dump's comments assign statements to objects; without them each statement stands alone."""
        return self._objects

    @property
    def options(self) -> list[str]:
        """pg_dump's options to write another database in the same form, so that everything can be compared."""
        inserted = self._inserted.rows
        named = any(digest.target.columns for digest in inserted)
        return [
            *([f"--encoding={self._encoding}"] if self._encoding else []),
            *(["--no-owner"] if self._objects and not self._owned else []),
            *([("--column-inserts" if named else "--inserts")] if inserted else []),
            *self._form.options(self.rows, self._objects),
        ]

    def columns(self, table: tuple[str, str]) -> tuple[str, ...] | None:
        """Return the order of a table's columns in its digest; None without rows."""
        return self._copied.columns(table) or self._inserted.columns(table)

    def definitions(self, by_object: bool = True) -> dict[ObjectKey, list[Definition]]:
        """Group everything except rows and the content of large objects by object, or by each statement's beginning."""
        grouped: dict[ObjectKey, list[Definition]] = {}
        owners_are_told = by_object and self._owned
        for key, owner, current in self._found:
            statements = [sql for sql in current if not (owners_are_told and AUTHORIZATION.fullmatch(sql))]
            if STANDARD_COMMENT in statements:
                statements.remove(STANDARD_COMMENT)
                if key != OUTSIDE and not statements:
                    continue
            if not by_object:
                for sql in statements:
                    grouped.setdefault(ObjectKey("", "", beginning(sql)), []).append(Definition("", (sql,)))
            elif key == OUTSIDE:
                grouped.setdefault(key, []).extend(Definition("", (sql,)) for sql in statements)
            else:
                grouped.setdefault(key, []).append(Definition(owner, tuple(statements)))
        return grouped

    def comment(self, data: bytes, line: int) -> None:
        """Begin an object if the comment is its heading."""
        if data == TRAILER:
            self._set_down(OUTSIDE, "")
        elif (found := heading(data, self._codec)) is not None:
            key, owner = found
            if not self._objects:
                self._objects = True
                self._current[:] = [sql for sql in self._current if not _CLEANING.match(sql)]
            elsewhere = key.type in _DATA or is_large_object(key.type, key.name)
            self._set_down(*((OUTSIDE, "") if elsewhere else (key, owner)))

    def meta_command(self, command: bytes, line: int) -> None:
        """Treat any command except pg_dump's own restriction as a statement."""
        if not RESTRICT_LINE.fullmatch(command):
            self._current.append(command)

    def statement(self, sql: bytes, line: int) -> None:
        """Assign the statement to its object."""
        if encoding := _ENCODING.fullmatch(sql):
            self._encoding, self._codec = encoding[1].decode(), codec_set_by(sql) or self._codec
        self._form.take(sql, self._codec)
        if INSERT.match(sql):
            self._inserted.insert(sql, self._codec)
        elif context := _CONTEXT.fullmatch(sql):
            self._context[context[1]] = context[2]
            if context[1] == b"default_tablespace" and context[2] not in _OWN_TABLESPACE:
                self.tablespaces.add(unquote(context[2], self._codec))
        elif found := DEFINES.match(sql):
            self._found.append((ObjectKey("LARGE OBJECT", "", found[1].decode()), self._form.role, [sql]))
        elif not (
            self._large_objects.take(sql)
            or _COPY.match(sql)
            or _LOADING.match(sql)
            or _OF_STATISTICS.match(sql)
            or sql in (b"BEGIN;", b"COMMIT;")
        ):
            self._current.extend((*self._context_of(sql), sql))

    def copy_begin(self, target: Target, line: int) -> None:
        """Begin a table's rows."""
        self._copied.copy_begin(target, line)

    def copy_data(self, data: bytes) -> None:
        """Hash rows."""
        self._copied.copy_data(data)

    def copy_end(self, rows: int) -> None:
        """Count rows."""
        self._copied.copy_end(rows)

    @property
    def _owned(self) -> bool:
        return any(owner for _, owner, _ in self._found)

    def _set_down(self, key: ObjectKey, owner: str) -> None:
        self._current = []
        self._found.append((key, owner, self._current))

    def _context_of(self, sql: bytes) -> list[bytes]:
        """Return the settings that decide how the created object is stored, unless they are the defaults."""
        tablespace = self._context.get(b"default_tablespace", b"''")
        method = self._context.get(b"default_table_access_method", b"heap")
        found: list[bytes] = []
        if tablespace not in _OWN_TABLESPACE and (_STORED.match(sql) or _INDEX.match(sql)):
            found.append(b"SET default_tablespace = %b;" % tablespace)
        if method not in (b"heap", b'"heap"') and _STORED.match(sql) and not partitioned(sql):
            found.append(b"SET default_table_access_method = %b;" % method)
        return found


@dataclass(frozen=True)
class Comparison:
    """The result of comparing a backup (before) with the dump of a database made from it (after).

    `rows_compared` counts the rows whose content was compared and is equal, `objects_compared` the definitions. Of the
    tables in `by_number` only the numbers of rows were compared; of those in `not_compared` nothing, because of the way
    their rows are written. Whether `rewritten` are equal is unknown until `confirmed`.
    """

    rows_compared: int
    objects_compared: int
    differences: list[DumpDifference]
    rewritten: list[Rewritten]
    by_number: list[str]
    not_compared: list[str]
    by_object: bool
    confirmed: bool

    @property
    def equal(self) -> bool:
        """Whether nothing differs and nothing is left to confirm; rows in `by_number` and `not_compared` may differ."""
        return not self.differences and self.confirmed

    @property
    def complete(self) -> bool:
        """Whether the content of every table was compared."""
        return not (self.by_number or self.not_compared)


def compare(before: Contents, after: Contents, *, same_version: bool = True) -> Comparison:
    """Compare a backup with the dump of a database made from it, which was read with `Contents(like=before)`.

    Without `same_version`, another major version's pg_dump or server wrote `before`: any different text of an object
    then has to be confirmed. Raises ValueError if a table's columns were digested in different orders.
    """
    differences: list[DumpDifference] = []
    by_number: list[str] = []
    not_compared: list[str] = []
    rows_compared = 0
    nothing = Rows(0, "copy", "")
    rows_before, rows_after = before.rows, after.rows
    for table in sorted({**rows_before, **rows_after}):
        one, other = rows_before.get(table, nothing), rows_after.get(table, nothing)
        name = ".".join(filter(None, table))
        if one.rows is None or other.rows is None:
            not_compared.append(name)
        elif one.rows != other.rows:
            differences.append(DumpDifference(f"rows of {name}", str(one.rows), str(other.rows)))
        elif one.rows and (one.form != other.form or one.form == "mixed"):
            by_number.append(name)
        elif one.rows and one.digest != other.digest:
            _require_same_order(before, after, table)
            differences.append(
                DumpDifference(f"rows of {name}", str(one.rows), f"{other.rows}, with different content,")
            )
        else:
            rows_compared += one.rows
    differences += _large_objects(before, after)
    by_object = before.has_objects and after.has_objects
    found = list(differing(before.definitions(by_object), after.definitions(by_object), same_version))
    rewritten = [difference for difference in found if isinstance(difference, Rewritten)]
    differences += [difference for difference in found if not isinstance(difference, Rewritten)]
    return Comparison(
        rows_compared=rows_compared,
        objects_compared=sum(map(len, before.definitions(by_object).values())),
        differences=differences,
        rewritten=rewritten,
        by_number=by_number,
        not_compared=not_compared,
        by_object=by_object,
        confirmed=not rewritten,
    )


def confirm(comparison: Comparison, again: Contents, after: Contents) -> Comparison:
    """Decide each of `rewritten`: it stays if `again` defines it like `after`, and becomes a difference otherwise.

    `again` is a dump, made with the same options as `after`, of an empty database into which the backup's definitions
    were loaded once more."""
    fresh, restored = again.definitions(comparison.by_object), after.definitions(comparison.by_object)
    kept: list[Rewritten] = []
    refused: list[DumpDifference] = []
    for item in comparison.rewritten:
        ones, others = unequal(fresh.get(item.key, []), restored.get(item.key, []))
        if ones or others:
            refused.append(DumpDifference(item.what, item.before, item.after))
        else:
            kept.append(item)
    return replace(comparison, differences=[*comparison.differences, *refused], rewritten=kept, confirmed=True)


def _require_same_order(before: Contents, after: Contents, table: tuple[str, str]) -> None:
    one, other = before.columns(table) or (), after.columns(table) or ()
    if one != other and sorted(one) == sorted(other):
        raise ValueError("the second script has to be read with Contents(like=…) of the first")


def _large_objects(before: Contents, after: Contents) -> Iterator[DumpDifference]:
    ones, others = before.large_objects, after.large_objects
    for oid in sorted({**ones, **others}, key=int):
        if ones.get(oid, EMPTY) != others.get(oid, EMPTY):
            yield DumpDifference(f"content of large object {oid}", *shown(ones.get(oid, ""), others.get(oid, "")))
