"""Space for the write-ahead log on a server's disk."""

from __future__ import annotations

from .session import Session


def growth(session: Session) -> int:
    """Return by how many bytes the WAL may grow before it reaches `max_wal_size`. Raises ServerError if the role may
    not look at it (`pg_monitor` may), ServerUnreachable after 10 s."""
    query = """SELECT greatest(0, pg_size_bytes(current_setting('max_wal_size')) - sum(size))::bigint AS bytes
               FROM pg_ls_waldir()"""
    return session.rows(query, timeout=10)[0]["bytes"]


def room(session: Session) -> int:
    """Return how many bytes of WAL fit into existing files: if a new one can't be created, the server PANICs (seen on
    15.20)."""
    query = """SELECT w.segment - (pg_walfile_name_offset(w.here)).file_offset + w.segment *
                  (SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND name > pg_walfile_name(w.here))
                  AS bytes
               FROM (SELECT pg_size_bytes(current_setting('wal_segment_size')) AS segment,
                            pg_current_wal_insert_lsn() AS here) AS w"""
    return session.rows(query)[0]["bytes"]
