"""Rows that a server keeps and that no dump can hold: what it writes of one has to be shorter than a gigabyte, and a
bytea takes two characters for each byte."""

from __future__ import annotations

import re

from .lexer import tokens, unquote

_LONGEST = 0x3FFFFFFF
"""MaxAllocSize in memutils.h. What a sound row asks for is at most twice that; a damaged length asks for anything."""
_ALLOCATION = re.compile(r"invalid memory alloc request size (\d+)")
_BUFFER = re.compile(r"Cannot enlarge string buffer containing \d+ bytes by \d+ more bytes")
_COMMAND = re.compile(r"^pg_dump: detail: Command was: (COPY .*)", re.MULTILINE | re.DOTALL)


def is_too_large(said: str) -> bool:
    """Whether a server's error is of a row that is only too large (seen on 15.20: 1200000003 for 600 MB of bytea)."""
    size = _ALLOCATION.search(said)
    return _LONGEST < int(size[1]) <= 2 * _LONGEST + 3 if size else _BUFFER.search(said) is not None


def too_large_table(stderr: str) -> tuple[str, str] | None:
    """Schema and name of the table that has such a row, by what pg_dump says when it fails; None if that is not why."""
    command = _COMMAND.search(stderr)
    if command is None or not is_too_large(stderr[: command.start()]):
        return None
    words = tokens(command[1].encode())
    return (unquote(words[1], "utf-8"), unquote(words[3], "utf-8")) if words[2:3] == [b"."] else None


def without_rows_of(table: tuple[str, str]) -> str:
    """pg_dump's option that leaves them out."""
    return f"--exclude-table-data={'.'.join(map(_pattern, table))}"


def _pattern(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
