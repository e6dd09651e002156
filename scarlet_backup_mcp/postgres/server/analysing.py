"""Gather statistics for the planner, which a freshly loaded database lacks."""

from __future__ import annotations

from ...errors import PermissionDenied, QueryFailed, TableLocked
from .quoting import qualified
from .session import Session


def analyse(session: Session) -> list[str]:
    """ANALYZE every table of the connected database; return a warning for each that failed.

    It evaluates expressions of indexes and statistics, as the table's owner and in a restricted operation
    ("ANALYZE", "Notes"; seen on 15.20), and queries the servers of foreign partitions. For a whole database the first
    error ends it; it is then done table by table.
    """
    try:
        session.execute("ANALYZE")
        return []
    except (QueryFailed, PermissionDenied, TableLocked):
        pass
    warnings: list[str] = []
    rows = session.rows(
        """SELECT n.nspname AS schema, c.relname AS name
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema'
             AND n.nspname !~ '^pg_' ORDER BY c.relkind = 'p', n.nspname, c.relname"""
    )
    for row in rows:
        try:
            session.execute(f"ANALYZE {qualified(row['schema'], row['name'])}")
        except (QueryFailed, PermissionDenied, TableLocked) as error:
            warnings.append(
                f"The planner has no statistics for {row['schema']}.{row['name']}; its rows are all there. "
                f"{error.message} ANALYZE it by hand."
            )
    return warnings
