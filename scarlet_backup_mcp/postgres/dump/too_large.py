"""Rows that a server stores but no dump can contain: a row's text must be shorter than a gigabyte, and a bytea takes
two characters for each byte."""

from __future__ import annotations

import re

from .lexer import tokens, unquote

_LONGEST = 0x3FFFFFFF
"""MaxAllocSize in memutils.h. An intact row requests at most twice that; a damaged length can request anything."""
_ALLOCATION = re.compile(r"invalid memory alloc request size (\d+)")
_BUFFER = re.compile(r"Cannot enlarge string buffer containing \d+ bytes by \d+ more bytes")
_COMMAND = re.compile(r"^pg_dump: detail: Command was: (COPY .*)", re.MULTILINE | re.DOTALL)


def is_too_large(error: str) -> bool:
    """Tell whether a server's error is due to a row that is just too large (seen on 15.20: 1200000003 for 600 MB of
    bytea)."""
    size = _ALLOCATION.search(error)
    return _LONGEST < int(size[1]) <= 2 * _LONGEST + 3 if size else _BUFFER.search(error) is not None


def too_large_table(stderr: str) -> tuple[str, str] | None:
    """Return schema and name of the table with such a row, from pg_dump's error; None if it failed for another
    reason."""
    command = _COMMAND.search(stderr)
    if command is None or not is_too_large(stderr[: command.start()]):
        return None
    words = tokens(command[1].encode())
    return (unquote(words[1], "utf-8"), unquote(words[3], "utf-8")) if words[2:3] == [b"."] else None


def without_rows_of(table: tuple[str, str]) -> str:
    """Return pg_dump's option that leaves a table's rows out."""
    pattern = ".".join('"' + name.replace('"', '""') + '"' for name in table)
    return f"--exclude-table-data={pattern}"
