"""Tell whether anything was written to a database since a moment, without reading its rows.

Two things show it: the transactions, of all databases, that the server has numbered, and its statistics of rows
inserted, updated and deleted, for each table and catalogue of this database. Catalogues that all databases share count,
too, except those in which every CREATE DATABASE leaves rows: there this database's own rows are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from ...models.manifest import Activity
from ...wording import number_of
from .session import Session

SETTLED_SECONDS = 15
"""An idle session reports its statistics after 10 s at the latest (PGSTAT_IDLE_INTERVAL in pgstat.c)."""
PROMPT_STATISTICS = 150000
"""Before 15 an idle session does not report pending statistics for as long as it is idle (`pgstat_report_stat` in 14's
postgres.c)."""
TRANSACTIONS = "Transactions were written on this server since"
_BUSY = f"""
    (SELECT count(*) FROM pg_stat_activity AS a
     WHERE datname = current_database() AND application_name <> current_setting('application_name')
       AND (backend_type IS NULL OR backend_type NOT IN ('autovacuum worker', 'parallel worker'))
       AND NOT EXISTS (SELECT FROM pg_stat_replication AS r WHERE r.pid = a.pid AND r.state IN ('catchup', 'streaming'))
       AND (state IS DISTINCT FROM 'idle' OR state_change > clock_timestamp() - interval '{SETTLED_SECONDS} s'))"""
"""Sessions that may have written something they have not reported yet. Our own, which share a name, write nothing."""
_BY_THEIR_ROWS = ("pg_database", "pg_db_role_setting", "pg_shdescription", "pg_shdepend")
"""Shared catalogues whose statistics include other databases. What pg_shdepend has on this one is elsewhere, too."""
_UNCOUNTED = ", ".join(f"'{name}'::regclass" for name in ("pg_statistic", "pg_statistic_ext_data", *_BY_THEIR_ROWS))


def activity(session: Session) -> Activity:
    """Measure the activity so far. Do so before the snapshot or copy that is to hold it: what is written in between
    then counts as written since."""
    row = session.rows(
        f"""SELECT pg_is_in_recovery() AS in_recovery,
                  pg_current_snapshot()::text AS transactions,
                  {_BUSY} = 0 AS settled,
                  changed.sum AS changed_rows,
                  md5(concat(changed.digest, d.row, d.settings, d.comment)) AS changes,
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
                                           WHERE oid IN ({_UNCOUNTED})))
                      AS tables) AS changed,
                (SELECT to_jsonb(pg_database) - 'datfrozenxid' - 'datminmxid' AS row,
                        (SELECT jsonb_agg(to_jsonb(s) ORDER BY s.setdatabase, s.setrole) FROM pg_db_role_setting AS s
                         WHERE s.setdatabase IN (0, pg_database.oid)) AS settings,
                        shobj_description(oid, 'pg_database') AS comment
                 FROM pg_database WHERE datname = current_database()) AS d"""
    )[0]
    return Activity(**row)


def last_commit(session: Session) -> datetime | None:
    """Return when the server last committed a transaction that wrote, in any of its databases; None unless it records
    that (`track_commit_timestamp`) and there was one since its start.

    Nothing else tells when: a table's file also changes when its rows are read for the first time, and not before a
    checkpoint (seen on 18.6).
    """
    row = session.rows(
        """SELECT CASE WHEN current_setting('track_commit_timestamp')::bool
                  THEN (SELECT timestamp FROM pg_last_committed_xact()) END AS at"""
    )[0]
    return None if row["at"] is None else datetime.fromisoformat(row["at"]).astimezone(UTC)


@dataclass(frozen=True)
class Connected:
    """A program that holds sessions in the database. `address` is None on the server's own socket."""

    program: str
    role: str
    address: str | None
    sessions: int

    def __str__(self) -> str:
        where = f"from {self.address}" if self.address else "on the server's own socket"
        return f"{self.program or 'an unnamed program'} (role {self.role}, {where})"


def connected(session: Session) -> list[Connected]:
    """List the other programs that hold sessions in this database, as far as the role may see them."""
    rows = session.rows(
        """SELECT application_name AS program, usename AS role, host(client_addr) AS address, count(*) AS sessions
           FROM pg_stat_activity
           WHERE datname = current_database() AND backend_type = 'client backend'
             AND application_name <> current_setting('application_name')
           GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
    )
    return [Connected(**row) for row in rows]


@dataclass(frozen=True)
class Since:
    """Whether something was written, None if unknown, and how that is known, in a sentence. `by_writers`: those who
    write can change it."""

    written: bool | None
    how: str
    by_writers: bool = True


def written_since(session: Session, before: Activity) -> Since:
    """Tell whether something was written to the session's database since."""
    # Before the counts: a session that ends after this query has reported its own by then.
    around = session.rows(
        f"""SELECT current_setting('track_counts')::bool
                     AND NOT EXISTS (SELECT FROM pg_db_role_setting WHERE setconfig::text ~* 'track_counts') AS counted,
                   EXISTS (SELECT FROM pg_stat_activity
                           WHERE backend_xid IS NOT NULL AND datname = current_database()
                             AND backend_type IS DISTINCT FROM 'autovacuum worker')
                     OR EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database()) AS writing,
                   {_BUSY} AS busy"""
    )[0]
    now = activity(session)
    uncounted = "its statistics do not count what it receives from its primary"
    if now.in_recovery:
        return Since(None, f"The server is a standby: {uncounted}.", False)
    if before.in_recovery is None:
        return Since(None, "The backup does not record whether its server was a standby at the time.", False)
    if before.in_recovery:
        return Since(None, f"The server was a standby when the backup was made: {uncounted}.", False)
    if now.counted_since != before.counted_since:
        return Since(None, "The server was restarted since, or crashed, or its statistics were reset.", False)
    if now.sequences != before.sequences:  # which need no transaction of their own
        return Since(True, "Sequences have moved on since.")
    if around["writing"]:
        return Since(None, "A transaction that writes is running, or prepared.")
    if before.quiet and now.transactions == before.transactions:
        return Since(False, "No transaction has written anything on this server since.")
    if now.changes != before.changes and not before.settled:
        active = f"Sessions active within {SETTLED_SECONDS} s before the backup began have changed rows"
        return Since(None, f"{active}: it is not known whether the backup holds all of them.")
    if (more := now.changed_rows - before.changed_rows) > 0:
        verb = "was" if more == 1 else "were"
        return Since(True, f"{number_of(more, 'row')} {verb} inserted, updated or deleted since.")
    if now.changes != before.changes:
        return Since(True, "Rows, definitions or settings of this database were changed since, or tables dropped.")
    if not around["counted"] or session.version < PROMPT_STATISTICS:
        why = "(track_counts is off, or it is PostgreSQL 14)"
        return Since(None, f"{TRANSACTIONS}, and its statistics are not reliable {why}.")
    # Transactions that were running when the backup began need no check of their own: a session reports what a
    # transaction changed only after its end (pgstat_report_stat), so `before` has none of it.
    if around["busy"]:
        return Since(None, f"{TRANSACTIONS}, and sessions were active within the last {SETTLED_SECONDS} s.")
    none = "according to its statistics none changed a row or a definition of this database"
    return Since(False, f"{TRANSACTIONS}, but {none}.")
