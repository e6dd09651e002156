"""Rewrite statements of a script before psql gets it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from ..server.effective import set_config
from .filters import Filter, passed_through

EMPTY_PATH = b"SELECT pg_catalog.set_config('search_path', '', false);"
"""pg_dump (from 10.3 on) begins with it: every name in the script is qualified, except those in functions' bodies."""
_OF_DATA = (b"COPY ", b"INSERT ", b"REFRESH ", b"CREATE INDEX ", b"CREATE UNIQUE INDEX ")

SETS_TRANSACTION_TIMEOUT = b"SET transaction_timeout = 0;"
# What is before the first definition.
_TIME_OUT = re.compile(rb"\A((?:(?:--[^\n]*|SET [a-z_]+ = [^\n]*)?\n)*?)%b\n" % SETS_TRANSACTION_TIMEOUT)
_HEAD = 8192


def without_transaction_timeout(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Remove the one setting at a dump's head that servers before 17 reject, whatever server it is a dump of (pg_dump
    from 17 on writes it; seen with 18.6 and a server 15.20). Every other line keeps its number."""
    head, rest = bytearray(), iter(chunks)
    while len(head) < _HEAD and (chunk := next(rest, None)) is not None:
        head += chunk
    yield _TIME_OUT.sub(rb"\1\n", bytes(head), count=1)
    yield from rest


def with_search_path(path: str) -> Callable[[bytes], Iterator[bytes]]:
    """Return a rewriter with which a script loads with pg_catalog and then that path, instead of an empty one."""
    given = f"{set_config('search_path', f'pg_catalog, {path}')};".encode()

    def rewrite(sql: bytes) -> Iterator[bytes]:
        yield given if sql == EMPTY_PATH else sql

    return rewrite


def with_settings_for_the_data(settings: Mapping[str, str]) -> Callable[[bytes], Iterator[bytes]]:
    """Return a rewriter that sets these after a dump has created functions, types and tables, and before its rows."""
    waiting = [f"{set_config(name, value)};".encode() for name, value in settings.items()]

    def rewrite(sql: bytes) -> Iterator[bytes]:
        if sql.startswith(_OF_DATA):
            yield from waiting
            waiting.clear()
        yield sql

    return rewrite


class _Rewriter(Filter):
    def __init__(self, rewrite: Callable[[bytes], Iterable[bytes]]) -> None:
        super().__init__()
        self._rewrite = rewrite

    def statement(self, sql: bytes, line: int) -> None:
        self.out += [part + b"\n" for part in self._rewrite(sql)]

    def meta_command(self, command: bytes, line: int) -> None:
        self.out.append(command + b"\n")

    def copy_data(self, data: bytes) -> None:
        self.out.append(data)

    def copy_end(self, rows: int) -> None:
        self.out.append(b"\\.\n")


def rewritten(chunks: Iterable[bytes], rewrite: Callable[[bytes], Iterable[bytes]]) -> Iterator[bytes]:
    """Replace each statement of a script by what `rewrite` returns for it, and remove comments. `rewrite` has to return
    COPY statements unchanged. Raises ScriptDamaged, at the latest after the last chunk."""
    return passed_through(_Rewriter(rewrite), chunks)
