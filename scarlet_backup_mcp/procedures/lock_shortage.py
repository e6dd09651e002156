"""A server that ran out of locks: how many it takes, and where to set that."""

from __future__ import annotations

from contextlib import suppress

from ..errors import HostError, ServerError, TooFewLocks
from ..postgres.server import locks
from ..postgres.server.session import Server

TABLES, ALL = "rp", "rpiItSmvf"
"""Kinds of relations: those that pg_dump locks, and all, which a change of owner locks."""


def too_few_locks(server: Server, database: str, what: str, kinds: str, *, unchanged: bool = False) -> TooFewLocks:
    """Return the error for `what`, which locks all relations of these `kinds` in `database` at once. `unchanged`: for a
    restore, not a backup."""
    number, space, value = "", "", "a higher value"
    with suppress(HostError, ServerError), server.session(database) as session:
        table, needed = locks.lock_table(session), locks.relations(session, kinds)
        number, space, value = f", {needed:,} here", f" ({table.locks:,} locks)", str(table.needed(needed))
    said = f"{what}{number}, and the server ran out of locks: its max_locks_per_transaction is too low{space}."
    remedy = TooFewLocks.SETTING.format(value)
    if unchanged:
        return TooFewLocks(f"{said} The live database is unchanged.", remedy)
    return TooFewLocks(said, f"{remedy} {TooFewLocks.OR_A_VOLUME}", TooFewLocks.default_next_call)
