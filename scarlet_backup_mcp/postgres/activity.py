"""Whether anything was written to a database since a moment, as far as the server can tell without reading its rows."""

from __future__ import annotations

from ..models import Activity
from .server import Session

SETTLED_SECONDS = 15
"""A session that does nothing reports its statistics after 10 s at the latest (PGSTAT_IDLE_INTERVAL in pgstat.c)."""


def activity(session: Session) -> Activity:
    """As of the session's snapshot; the counts are as of now."""
    row = session.rows(
        """SELECT pg_current_snapshot()::text AS transactions,
                  (SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_all_tables
                   WHERE relid NOT IN (SELECT unnest(ARRAY[oid, reltoastrelid]) FROM pg_class
                                       WHERE oid IN ('pg_statistic'::regclass, 'pg_statistic_ext_data'::regclass)))
                    AS changed_rows,
                  (SELECT md5(coalesce(string_agg(concat(schemaname, '.', sequencename, ' ', last_value), ','
                                                  ORDER BY schemaname, sequencename), '')) FROM pg_sequences)
                    AS sequences,
                  (SELECT stats_reset::text FROM pg_stat_database WHERE datname = current_database())
                    AS counted_since"""
    )[0]
    return Activity(**row)


def written_since(session: Session, before: Activity) -> tuple[bool | None, str]:
    """Whether something was written to the session's database since: True, False, or None where it can't be told; and
    how that is known, in a sentence."""
    now = activity(session)
    if now.sequences != before.sequences:  # which need no transaction of their own
        return True, "Sequences have moved on since."
    if session.rows("SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = current_database()"):
        return None, "A transaction that writes is under way."
    if before.quiet and now.transactions == before.transactions:
        return False, "No transaction has written anything on this server since."
    if now.counted_since != before.counted_since or now.changed_rows < before.changed_rows:
        return None, "The server's count of changed rows went back since: a table was dropped, or it crashed."
    if now.changed_rows > before.changed_rows:
        return True, f"{now.changed_rows - before.changed_rows:,} rows were inserted, updated or deleted since."
    busy = session.rows(
        f"""SELECT count(*) AS busy FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
              AND (state <> 'idle' OR state_change > clock_timestamp() - interval '{SETTLED_SECONDS} s')"""
    )[0]["busy"]
    if busy or not before.quiet:
        return None, (
            f"Transactions were written on this server since, and {busy} sessions of this database were at work within "
            f"the last {SETTLED_SECONDS} s."
        )
    return False, (
        "Transactions were written on this server since, but none that changed a row or a definition of this database: "
        "its statistics say so."
    )
