"""Whether anything was written to a database since a moment, as far as the server can tell without reading its rows.

Two things tell: the transactions that the server has given numbers to, of all its databases, and its own statistics of
rows inserted, updated and deleted, of each table and catalogue of this one.
"""

from __future__ import annotations

from ..models import Activity
from .server import Session

SETTLED_SECONDS = 15
"""A session that does nothing reports its statistics after 10 s at the latest (PGSTAT_IDLE_INTERVAL in pgstat.c)."""
PROMPT_STATISTICS = 150000
"""Before 15 a session that does nothing keeps to itself what it has not reported yet, for as long as it does nothing
(`pgstat_report_stat` in 14's postgres.c)."""


def activity(session: Session) -> Activity:
    """As of now. Ask before the snapshot or copy that is to hold all of it: what is written between the two then counts
    as written since."""
    row = session.rows(
        """SELECT pg_current_snapshot()::text AS transactions,
                  changed.sum AS changed_rows,
                  changed.digest AS changes,
                  (SELECT md5(coalesce(string_agg(concat(schemaname, '.', sequencename, ' ', last_value), ','
                                                  ORDER BY schemaname, sequencename), '')) FROM pg_sequences)
                    AS sequences,
                  concat_ws(' ', pg_postmaster_start_time(),
                            (SELECT stats_reset FROM pg_stat_bgwriter),
                            (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()))
                    AS counted_since
           FROM (SELECT coalesce(sum(rows), 0)::bigint AS sum,
                        md5(coalesce(string_agg(concat(relid, ' ', rows), ',' ORDER BY relid), '')) AS digest
                 FROM (SELECT relid, n_tup_ins + n_tup_upd + n_tup_del AS rows FROM pg_stat_all_tables
                       WHERE relid NOT IN (SELECT unnest(ARRAY[oid, reltoastrelid]) FROM pg_class
                                           WHERE oid IN ('pg_statistic'::regclass, 'pg_statistic_ext_data'::regclass)))
                      AS tables) AS changed"""
    )[0]
    return Activity(**row)


def written_since(session: Session, before: Activity) -> tuple[bool | None, str]:
    """Whether something was written to the session's database since: True, False, or None where it can't be told; and
    how that is known, in a sentence."""
    # Before the counts: a session that ends after this look has reported its own by then.
    around = session.rows(
        f"""SELECT pg_is_in_recovery() AS standby,
                   current_setting('track_counts')::bool
                     AND NOT EXISTS (SELECT FROM pg_db_role_setting WHERE setconfig::text ~* 'track_counts') AS counted,
                   EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = current_database())
                     OR EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database()) AS writing,
                   (SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()
                      AND (backend_type IS NULL OR backend_type IN ('client backend', 'logical replication worker',
                                                                    'logical replication apply worker'))
                      AND (state IS DISTINCT FROM 'idle'
                           OR state_change > clock_timestamp() - interval '{SETTLED_SECONDS} s')) AS busy"""
    )[0]
    now = activity(session)
    if around["standby"]:
        return None, "The server is a standby: what it gets from its primary is in no statistics of its own."
    if now.counted_since != before.counted_since:
        return None, "The server was started anew since, or crashed, or its statistics were reset."
    if now.sequences != before.sequences:  # which need no transaction of their own
        return True, "Sequences have moved on since."
    if around["writing"]:
        return None, "A transaction that writes is under way, or prepared."
    if before.quiet and now.transactions == before.transactions:
        return False, "No transaction has written anything on this server since."
    if now.changed_rows > before.changed_rows:
        return True, f"{now.changed_rows - before.changed_rows:,} rows were inserted, updated or deleted since."
    if now.changes != before.changes:
        return True, "Tables were changed or dropped since."
    if not around["counted"] or session.version < PROMPT_STATISTICS:
        return None, (
            "Transactions were written on this server since, and its statistics can't be relied on for them "
            "(track_counts is off, or it is PostgreSQL 14)."
        )
    if around["busy"] or not before.quiet:
        return None, (
            f"Transactions were written on this server since, and {around['busy']} sessions of this database were at "
            f"work within the last {SETTLED_SECONDS} s."
        )
    return False, (
        "Transactions were written on this server since, but none that changed a row or a definition of this database: "
        "its statistics say so."
    )
