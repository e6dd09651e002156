"""Digest the rows of a dump written as INSERT statements (pg_dump --inserts and the like)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

from .digests import RowDigest, reordering
from .events import Target
from .lexer import tokens, unquote

INSERT = re.compile(rb"INSERT\s+INTO\b", re.IGNORECASE)
_OVERRIDING = [b"OVERRIDING", b"SYSTEM", b"VALUE"]


@dataclass
class _Inserted:
    target: Target
    rows: int = 0
    sum: int = 0
    certain: bool = True


class InsertDigests:
    """Digests of each table's rows in INSERT statements, regardless of their order and of how many a statement has.

    They can only be compared with those of another dump in INSERT statements: COPY writes values differently. `like`
    are the digests of the script to compare with, whose order of columns then applies.
    """

    def __init__(self, like: InsertDigests | None = None) -> None:
        self._like = like
        self._tables: dict[tuple[str, str], _Inserted] = {}

    @property
    def rows(self) -> list[RowDigest]:
        """The digests in the order of each table's first statement."""
        return [RowDigest(found.target, found.rows, f"{found.sum:032x}") for found in self._tables.values()]

    @property
    def uncertain(self) -> set[tuple[str, str]]:
        """Tables (schema, name) with a statement whose number of rows is uncertain, such as one with ON CONFLICT."""
        return {table for table, found in self._tables.items() if not found.certain}

    def columns(self, table: tuple[str, str]) -> tuple[str, ...] | None:
        """Return the order of a table's columns in its digest: () if no statement names them, None without one."""
        if self._like is not None and (columns := self._like.columns(table)) is not None:
            return columns
        return self._tables[table].target.columns if table in self._tables else None

    def insert(self, sql: bytes, codec: str) -> None:
        """Count and hash the rows of a statement that `INSERT` matches."""
        words = tokens(sql)
        target, at = _target(words, codec)
        table = (target.schema, target.name)
        found = self._tables.setdefault(table, _Inserted(target))
        order = reordering(target.columns, self.columns(table))
        if [word.upper() for word in words[at : at + 3]] == _OVERRIDING:
            at += 3
        rows = list(_rows(words[at:]))
        if not rows or any(not row for row in rows):
            found.certain = False
            return
        for row in rows:
            values = row if order is None or len(row) != len(order) else [row[position] for position in order]
            found.sum = (found.sum + xxhash.xxh3_128_intdigest(b",".join(values))) % (1 << 128)
        found.rows += len(rows)


def _target(words: list[bytes], codec: str) -> tuple[Target, int]:
    """Return the table that is filled, and where the statement continues."""
    at = 3
    while words[at : at + 1] == [b"."]:
        at += 2
    names = [unquote(word, codec) for word in words[2:at:2]]
    columns: list[str] = []
    if words[at : at + 1] == [b"("] and b")" in words[at:]:
        end = words.index(b")", at)
        columns, at = [unquote(word, codec) for word in words[at + 1 : end : 2]], end + 1
    return Target("".join(names[:-1]), names[-1], tuple(columns)), at


def _rows(words: list[bytes]) -> Iterator[list[bytes]]:
    """Yield the values of each row in `VALUES (…), …;` or `DEFAULT VALUES;`; in the end [] for any other text."""
    if [word.upper() for word in words[:3]] == [b"DEFAULT", b"VALUES", b";"]:
        yield [b"DEFAULT"]
        return
    if [word.upper() for word in words[:1]] != [b"VALUES"]:
        return
    at = 1
    while words[at : at + 1] == [b"("]:
        values, value, depth = list[bytes](), list[bytes](), 1
        while depth and at + 1 < len(words):
            at += 1
            word = words[at]
            depth += (word in b"([") - (word in b")]")
            if depth == 0 or (depth == 1 and word == b","):
                values.append(b" ".join(value))
                value = []
            else:
                value.append(word)
        yield values
        at += 1
        if words[at:] == [b";"]:
            return
        if words[at : at + 1] != [b","]:
            break
        at += 1
    yield []
