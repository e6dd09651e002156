"""Find out why pg_dump failed: from its message and the server's, and by querying the server.

pg_dump shows a server's error without its SQLSTATE (seen from 15.20 to 18.6), so it is recognised by its text, in the
language of lc_messages=C.
"""

from __future__ import annotations

import re
from typing import Literal

from . import snapshots
from .quoting import identifier, literal, qualified
from .session import Session
from .sqlstates import OUT_OF_LOCKS

Kind = Literal["too large", "locks", "damage", "denied", "locked", "spilled", "limit", "changed", "other"]

MOST_ROWS = 1_000_000
"""The faulty row's key is searched for only up to this row, because all keys before it are read."""
KEY_LENGTH = 80

_NOT_THE_FILES = r"[^\n]*: (?:Too many open files|Permission denied|Operation not permitted|Cannot allocate memory)"
"""Reasons for which the operating system does not open a file that may be intact."""
# In this order: a message may contain words of a later kind, in the statement that it shows.
_KINDS: tuple[tuple[Kind, str], ...] = (
    ("denied", r"permission denied|row-level security"),
    ("locked", r"(?:lock|statement) timeout(?=.*LOCK TABLE)"),
    ("locks", OUT_OF_LOCKS),
    (
        "too large",
        r"invalid memory alloc request size \d{1,10}\b|Cannot enlarge string buffer|array size exceeds the maximum",
    ),
    ("spilled", r"No space left on device|could not extend file"),
    (
        "damage",
        rf"invalid page in block|could not (?:read|open) (?:block|file)(?!{_NOT_THE_FILES})|"
        r"missing chunk number|unexpected chunk number|unexpected chunk size|found toasted toast chunk|"
        r"compressed \w+ data is corrupt|could not access status of|"
        r"page verification failed|uncommitted xmin|found xm(?:in|ax) .* from before|"
        r"invalid memory alloc request size \d{11}",
    ),
    ("limit", r"exceeds temp_file_limit"),
    ("changed", r"cache lookup failed|does not exist|could not open relation|could not find|out of sync"),
)
# With "Command was:" pg_dump shows the statement that failed.
_NAME = r'(?:"(?:[^"]|"")+"|[^\s."(]+)'
_COMMAND = re.compile(rf"Command was: COPY ({_NAME})\.({_NAME}) ")


def kind_of(message: str) -> Kind:
    """Classify a message of pg_dump."""
    for kind, words in _KINDS:
        if re.search(words, message, re.DOTALL):
            return kind
    return "other"


def table_of(message: str) -> tuple[str, str] | None:
    """Return schema and name of the table whose rows were being read, if the message names it."""
    found = _COMMAND.search(message)
    return (_unquoted(found[1]), _unquoted(found[2])) if found else None


def reason_of(message: str) -> str:
    """Return the server's own message, without what pg_dump adds."""
    found = re.search(r"(?:ERROR|FATAL|PANIC):\s+(.*?)(?=\npg_dump: |$)", message, re.DOTALL)
    return " ".join((found[1] if found else message).split())


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


# -- queries to the server -------------------------------------------------------------------------------------------


def key_at(session: Session, schema: str, name: str, row: int, snapshot: str) -> str:
    """Describe the primary key of the `row`th row (from 0) in the order in which pg_dump reads; "" if unknown.

    `session` must not be in a transaction. Nothing is planned (see `counting`), and only keys are read. Raises
    ServerError.
    """
    if row >= MOST_ROWS:
        return ""
    columns = _key_columns(session, schema, name)
    if not columns:
        return ""
    snapshots.begin(session, snapshot)
    session.execute("SET LOCAL synchronize_seqscans = off")
    wanted = ", ".join(identifier(column) for column in columns)
    keys = session.execute(f"COPY {qualified(schema, name)} ({wanted}) TO STDOUT").split("\n")
    session.execute("COMMIT")
    values = keys[row].split("\t") if row < len(keys) and keys[row] else []
    key = ", ".join(f"{column}={value}" for column, value in zip(columns, values, strict=False))
    return key if len(key) <= KEY_LENGTH else f"{key[:KEY_LENGTH]}..."


def _key_columns(session: Session, schema: str, name: str) -> list[str]:
    rows = session.rows(
        f"""SELECT a.attname AS name FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
            WHERE i.indrelid = to_regclass({literal(qualified(schema, name))}) AND i.indisprimary
            AND a.attnum = ANY (i.indkey) ORDER BY a.attnum"""
    )
    return [row["name"] for row in rows]
