"""Read-only transactions, and the snapshots that other sessions and pg_dump import from them."""

from __future__ import annotations

from .quoting import literal
from .session import Session


def begin(session: Session, snapshot: str | None = None) -> None:
    """Begin a read-only transaction that sees the current data, or an exported `snapshot`."""
    imported = "" if snapshot is None else f" \\; SET TRANSACTION SNAPSHOT {literal(snapshot)}"
    session.execute(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY{imported}")


def export(session: Session) -> str:
    """Export the current transaction's snapshot; return its name, valid until that ends."""
    return session.rows("SELECT pg_export_snapshot() AS name")[0]["name"]
