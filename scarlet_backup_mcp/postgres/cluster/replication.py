"""Check that a running cluster can be copied, and keep its WAL meanwhile with a replication slot."""

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
"""configuration_limit_exceeded and object_not_in_prerequisite_state, which slot.c raises."""


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
    """Raise VolumeUnsupported or PermissionDenied, with what to do, if `pg_basebackup` can't copy the cluster."""
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
            f"The role {found.role} may not copy the cluster: it is neither a superuser nor has the attribute "
            "REPLICATION.",
            f"Run `ALTER ROLE {identifier(found.role)} REPLICATION`, or set SCARLET_BACKUP_USER to a superuser.",
        )
    if found.in_recovery:
        raise VolumeUnsupported(
            "The server is a standby, or still in recovery: a copy of it would start as a standby, too.",
            "Copy its primary instead: set SCARLET_BACKUP_CONTAINER (or SCARLET_BACKUP_DSN) to that server.",
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
            f"The server's settings don't allow copying it while it runs: {', '.join(wrong)}.",
            "Set wal_level = replica, max_wal_senders = 10 and max_replication_slots = 10 (the defaults) and restart "
            "the server; or make an SQL backup, which needs none of them.",
        )
    if found.tablespaces:
        raise VolumeUnsupported(
            f"The cluster has tablespaces of its own ({', '.join(found.tablespaces)}), but an archive can only hold "
            "the data directory.",
            "Make an SQL backup with kind sql; or move their contents back with `ALTER … SET TABLESPACE pg_default` "
            "and drop them.",
        )


def unlogged_tables(session: Session) -> set[int]:
    """Return the OIDs of the connected database's tables whose rows no copy of a running server holds: a server that
    starts on a copy empties them ("CREATE TABLE", UNLOGGED)."""
    rows = session.rows("SELECT oid::bigint AS oid FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u'")
    return {row["oid"] for row in rows}


@contextmanager
def wal_kept(session: Session) -> Generator[None]:
    """Keep all WAL from the last checkpoint on the server during this block. A temporary slot does it, which ends with
    the session, however that ends. Without one, a copy under write load fails with "requested WAL segment … has already
    been removed" (seen on 15.20). Raises VolumeUnsupported if all slots are taken."""
    name = f"{SLOT_PREFIX}{secrets.token_hex(8)}"
    try:
        session.rows(f"SELECT slot_name FROM pg_create_physical_replication_slot({literal(name)}, true, true)")
    except QueryFailed as error:
        if error.sqlstate not in _NO_FREE_SLOT:
            raise
        raise VolumeUnsupported(
            f"The server has no replication slot left to keep its WAL while it is copied. {error.message}",
            "See `SELECT * FROM pg_replication_slots`: drop those not in use, or raise max_replication_slots.",
        ) from None
    yield
    with suppress(ServerError):  # a session that was lost has taken its slot with it
        session.rows(f"SELECT pg_drop_replication_slot({literal(name)})")
