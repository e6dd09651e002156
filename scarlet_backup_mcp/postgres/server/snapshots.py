"""Transactions that only read, and the snapshots that other sessions and pg_dump import from them."""

from __future__ import annotations

from .quoting import literal
from .session import Session


def begin(session: Session, snapshot: str | None = None) -> None:
    """Begin one that sees what is there now, or an exported `snapshot`."""
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if snapshot is not None:
        session.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")


def export(session: Session) -> str:
    """The name of what the present transaction sees; it holds as long as that."""
    return session.rows("SELECT pg_export_snapshot() AS name")[0]["name"]
