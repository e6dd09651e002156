"""What a copy of a whole running cluster needs of the server, and the replication slot that keeps WAL for it."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ...errors import PermissionDenied, QueryFailed, ServerError, VolumeUnsupported
from ..server.quoting import identifier, literal
from ..server.session import Session

SLOT_PREFIX = "scarlet_backup_"
_NO_FREE_SLOT = ("53400", "55000")
"""configuration_limit_exceeded and object_not_in_prerequisite_state, as slot.c raises them."""


@dataclass(frozen=True)
class _Readiness:
    wal_level: str
    max_wal_senders: int
    max_replication_slots: int
    role: str
    may_replicate: bool
    in_recovery: bool
    tablespaces: list[str]


def require_readiness(session: Session) -> None:
    """Raises VolumeUnsupported or PermissionDenied, with what to do, where `pg_basebackup` can't copy the cluster."""
    row = session.rows(
        """SELECT current_setting('wal_level') AS wal_level,
                  current_setting('max_wal_senders')::int AS max_wal_senders,
                  current_setting('max_replication_slots')::int AS max_replication_slots,
                  current_user AS role,
                  (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) AS may_replicate,
                  pg_is_in_recovery() AS in_recovery,
                  (SELECT coalesce(json_agg(spcname ORDER BY spcname), '[]') FROM pg_tablespace
                   WHERE spcname NOT IN ('pg_default', 'pg_global')) AS tablespaces"""
    )[0]
    found = _Readiness(**row)
    if not found.may_replicate:
        raise PermissionDenied(
            f"The role {found.role} may not copy the cluster: it is no superuser and lacks the attribute REPLICATION.",
            f"Run `ALTER ROLE {identifier(found.role)} REPLICATION`, or set SCARLET_BACKUP_USER to a superuser.",
        )
    if found.in_recovery:
        raise VolumeUnsupported(
            "The server is a standby, or still in recovery: a copy of it would come up as a standby, too.",
            "Take the copy of its primary: set SCARLET_BACKUP_CONTAINER (or SCARLET_BACKUP_DSN) to that.",
        )
    wrong = [
        f"{name} is {value}"
        for name, value, bad in (
            ("wal_level", found.wal_level, found.wal_level == "minimal"),
            ("max_wal_senders", found.max_wal_senders, found.max_wal_senders == 0),
            ("max_replication_slots", found.max_replication_slots, found.max_replication_slots == 0),
        )
        if bad
    ]
    if wrong:
        raise VolumeUnsupported(
            f"The server is set up so that it can't be copied while it runs: {', '.join(wrong)}.",
            "Set wal_level = replica, max_wal_senders = 10 and max_replication_slots = 10 (the defaults) and restart "
            "the server; or take an SQL backup, which needs none of them.",
        )
    if found.tablespaces:
        raise VolumeUnsupported(
            f"The cluster has tablespaces of its own ({', '.join(found.tablespaces)}), and one archive can hold the "
            "data directory only.",
            "Take an SQL backup with kind sql; or move what is in them back with `ALTER … SET TABLESPACE pg_default` "
            "and drop them.",
        )


def unlogged_tables(session: Session) -> set[int]:
    """OIDs of the connected database's tables whose rows are in no copy of a running server: it empties them when it is
    started on one ("CREATE TABLE", UNLOGGED)."""
    rows = session.rows("SELECT oid::bigint AS oid FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u'")
    return {row["oid"] for row in rows}


@contextmanager
def wal_kept(session: Session) -> Generator[None]:
    """All WAL from the last checkpoint on stays on the server during this block.

    A temporary slot does it: it goes with the session, whatever ends that. Without one a copy under write load fails
    with "requested WAL segment … has already been removed" (seen on 15.20). Raises VolumeUnsupported when all slots
    are taken.
    """
    name = f"{SLOT_PREFIX}{secrets.token_hex(8)}"
    try:
        session.rows(f"SELECT slot_name FROM pg_create_physical_replication_slot({literal(name)}, true, true)")
    except QueryFailed as error:
        if error.sqlstate not in _NO_FREE_SLOT:
            raise
        raise VolumeUnsupported(
            f"The server has no replication slot left to keep its WAL with while it is copied. {error.message}",
            "See `SELECT * FROM pg_replication_slots`: drop those that nobody uses, or raise max_replication_slots.",
        ) from None
    yield
    with suppress(ServerError):  # a session that was lost has taken its slot with it
        session.rows(f"SELECT pg_drop_replication_slot({literal(name)})")
