"""How many locks a server has space for, and how many are needed."""

from __future__ import annotations

from dataclasses import dataclass

from .catalogue import FIRST_OF_USERS
from .session import Session


@dataclass(frozen=True)
class LockTable:
    """The settings that decide how many locks a server has space for."""

    per_transaction: int
    sessions: int

    @property
    def locks(self) -> int:
        """About how many locks fit."""
        return self.per_transaction * self.sessions

    def needed(self, relations: int) -> int:
        """Return the smallest max_locks_per_transaction for so many locks at once, besides those of other sessions."""
        return max(self.per_transaction + 1, -(-relations * 5 // (self.sessions * 4)))


def lock_table(session: Session) -> LockTable:
    """Query the size of the server's lock table: the product of the two ("Lock Management" in its documentation)."""
    row = session.rows(
        """SELECT current_setting('max_locks_per_transaction')::int AS per_transaction,
                  current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int
                  AS sessions"""
    )[0]
    return LockTable(**row)


def relations(session: Session, kinds: str) -> int:
    """Count the relations of users in the connected database whose relkind is one of `kinds`."""
    of = ", ".join(f"'{kind}'" for kind in kinds)
    query = f"SELECT count(*) AS number FROM pg_class WHERE relkind IN ({of}) AND oid >= {FIRST_OF_USERS}"
    return session.rows(query)[0]["number"]
