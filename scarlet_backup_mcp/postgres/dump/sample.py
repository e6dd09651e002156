"""Take a sample of a plain dump: all its definitions except foreign keys, and the first rows of every table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .filters import Filter, passed_through
from .lexer import tokens

ROWS = 1000
"""Number of rows to keep of each block of COPY data."""

_MAYBE_FOREIGN_KEY = re.compile(rb"ALTER (?:FOREIGN )?TABLE .*? FOREIGN KEY ", re.DOTALL)
_ON_CONSTRAINT = b"COMMENT ON CONSTRAINT "
_FILLS_LARGE_OBJECT = re.compile(rb"SELECT pg_catalog\.(?:lo_open|lowrite|lo_close)\(")


class _Sample(Filter):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = self._left = rows
        self._comments: list[bytes] = []
        self._foreign_keys: set[tuple[bytes, ...]] = set()

    def comment(self, data: bytes, line: int) -> None:
        """Hold a comment back: it shares the fate of the next statement."""
        self._comments.append(data + b"\n")

    def statement(self, sql: bytes, line: int) -> None:
        if not self._left_out(sql):
            self.out += [*self._comments, sql, b"\n"]
        self._comments.clear()

    def copy_data(self, data: bytes) -> None:
        if not self._left:
            return
        rows = data.count(b"\n")
        if rows > self._left:
            end = 0
            for _ in range(self._left):
                end = data.index(b"\n", end) + 1
            data, rows = data[:end], self._left
        self.out.append(data)
        self._left -= rows

    def copy_end(self, rows: int) -> None:
        self.out.append(b"\\.\n")
        self._left = self._rows

    def finish(self) -> list[bytes]:
        """Return the last comments."""
        return self._comments

    def _left_out(self, sql: bytes) -> bool:
        if _FILLS_LARGE_OBJECT.match(sql):
            return True
        if sql.startswith(_ON_CONSTRAINT):
            words = tokens(sql)  # COMMENT ON CONSTRAINT name ON table IS …
            return (*words[5 : _index(words, b"IS")], words[3]) in self._foreign_keys
        if not _MAYBE_FOREIGN_KEY.match(sql):
            return False
        words = tokens(sql)  # ALTER [FOREIGN] TABLE [ONLY] table ADD CONSTRAINT name FOREIGN KEY …
        add = _index(words, b"ADD")
        if words[add + 1 : add + 2] + words[add + 3 : add + 5] != [b"CONSTRAINT", b"FOREIGN", b"KEY"]:
            return False
        begin = _index(words, b"TABLE") + 1
        begin += words[begin] == b"ONLY"
        self._foreign_keys.add((*words[begin:add], words[add + 2]))
        return True


def sampled(chunks: Iterable[bytes], rows: int = ROWS) -> Iterator[bytes]:
    """Turn a script of ours into one that creates the same database with only some rows.

    It keeps the first `rows` rows of each block of COPY data, empties large objects, and leaves out foreign keys, which
    some of the rows would violate. pg_dump adds foreign keys by ALTER TABLE, each in its own statement
    (`dumpConstraint` in pg_dump.c). Backslash commands are left out. Raises ScriptDamaged, and what `chunks` raises.
    """
    kept = _Sample(rows)
    yield from passed_through(kept, chunks)
    yield b"".join(kept.finish())


def _index(words: list[bytes], word: bytes) -> int:
    return words.index(word) if word in words else len(words)
