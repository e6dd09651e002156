"""Names that restores create on a server: undo points, scratch databases, and a volume's former contents."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from ..models.results import UndoPoint
from ..postgres.server import catalogue as pg
from ..store.names import moment
from .context import TAG, BackupContext

MARK = f"{TAG}: "
"""Prefix of our comments on databases."""
GOING = f"{MARK}being dropped"
"""The comment that marks a database, an undo point too, whose removal has begun."""
VOLUME_UNDO = "postgres_volume_before_restore_"
"""Prefix of the names of a volume's undo points; a UTC time `YYYYMMDD_HHMMSS` follows."""
PREFIX = "pgsql_tmp"
"""Prefix of our directories in a data directory: PostgreSQL's programs don't copy those."""
ASIDE = f"{PREFIX}_before_restore_"
"""Prefix of the directory of a volume's undo point; a UTC time follows."""


def undo_prefix(database: str) -> str:
    """Return the prefix of a database's undo points; a UTC time `YYYYMMDD_HHMMSS` follows."""
    return f"{database}_before_restore_"


def scratch_prefix(database: str) -> str:
    """Return the prefix of a database's scratch databases; a UTC time `YYYYMMDD_HHMMSS` follows."""
    return f"{database}_restore_"


def stamped(prefix: str, name: str) -> datetime | None:
    """Return the UTC time in a name of ours, `prefix` and `YYYYMMDD_HHMMSS`; None for any other name."""
    if not re.fullmatch(re.escape(prefix) + r"\d{8}_\d{6}", name):
        return None
    found = moment(name.removeprefix(prefix))
    return None if found is None else found.replace(tzinfo=UTC)


def undo_points(context: BackupContext, of: Iterable[pg.DatabaseFacts]) -> list[UndoPoint]:
    """List the undo points among a server's databases, newest first."""
    prefix = undo_prefix(context.database)
    found = [
        UndoPoint(name=database.name, created_at=made, bytes=database.bytes or 0)
        for database in of
        if (made := stamped(prefix, database.name)) is not None and not is_going(database)
    ]
    return sorted(found, key=lambda point: point.name, reverse=True)


def volume_undo_points(set_aside: Iterable[str]) -> list[UndoPoint]:
    """List the volume's undo points among directory names in the data directory, newest first."""
    found = [
        UndoPoint(name=VOLUME_UNDO + name.removeprefix(ASIDE), kind="volume", created_at=made, bytes=None)
        for name in set_aside
        if (made := stamped(ASIDE, name)) is not None
    ]
    return sorted(found, key=lambda point: point.name, reverse=True)


def scratch_databases(context: BackupContext, of: Iterable[pg.DatabaseFacts]) -> list[pg.DatabaseFacts]:
    """List databases that, by their names, running or killed restores made (`is_marked` confirms it), and undo points
    whose removal has begun."""
    scratch, undo = scratch_prefix(context.database), undo_prefix(context.database)
    return [
        facts
        for facts in of
        if stamped(scratch, facts.name) is not None or (is_going(facts) and stamped(undo, facts.name) is not None)
    ]


def is_marked(scratch: pg.DatabaseFacts) -> bool:
    """Tell whether a database has a comment of ours. An undo point may, too: it keeps the live database's comment."""
    return (scratch.comment or "").startswith(MARK)


def is_going(database: pg.DatabaseFacts) -> bool:
    """Tell whether the removal of a database has begun."""
    return database.comment == GOING
