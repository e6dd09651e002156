"""Names on a server that restores have made: undo points, scratch databases, and the contents of volumes set aside."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from ..models.results import UndoPoint
from ..postgres.server import catalogue as pg
from ..store.names import moment
from .context import TAG, BackupContext

MARK = f"{TAG}: "
"""What our comments on databases begin with."""
GOING = f"{MARK}being dropped"
"""The comment that marks a database, an undo point too, whose removal has begun."""
VOLUME_UNDO = "postgres_volume_before_restore_"
"""What the names of a volume's undo points begin with; a UTC time `YYYYMMDD_HHMMSS` follows."""
PREFIX = "pgsql_tmp"
"""What the names of our directories in a data directory begin with: no program of PostgreSQL's copies such."""
ASIDE = f"{PREFIX}_before_restore_"
"""The rest of what the directory of a volume's undo point is called before its time."""


def undo_prefix(database: str) -> str:
    """What the names of a database's undo points begin with; a UTC time `YYYYMMDD_HHMMSS` follows."""
    return f"{database}_before_restore_"


def scratch_prefix(database: str) -> str:
    """What the names of a database's scratch databases begin with; a UTC time `YYYYMMDD_HHMMSS` follows."""
    return f"{database}_restore_"


def stamped(prefix: str, name: str) -> datetime | None:
    """The UTC time in a name of ours, `prefix` and `YYYYMMDD_HHMMSS`; None for any other name."""
    if not re.fullmatch(re.escape(prefix) + r"\d{8}_\d{6}", name):
        return None
    found = moment(name.removeprefix(prefix))
    return None if found is None else found.replace(tzinfo=UTC)


def undo_points(context: BackupContext, of: Iterable[pg.DatabaseFacts]) -> list[UndoPoint]:
    """The undo points among a server's databases, newest first."""
    prefix = undo_prefix(context.database)
    found = [
        UndoPoint(name=database.name, created_at=made, bytes=database.bytes or 0)
        for database in of
        if (made := stamped(prefix, database.name)) is not None and not is_going(database)
    ]
    return sorted(found, key=lambda point: point.name, reverse=True)


def volume_undo_points(set_aside: Iterable[str]) -> list[UndoPoint]:
    """The undo points of volumes among the names of directories in the data directory, newest first."""
    found = [
        UndoPoint(name=VOLUME_UNDO + name.removeprefix(ASIDE), kind="volume", created_at=made, bytes=None)
        for name in set_aside
        if (made := stamped(ASIDE, name)) is not None
    ]
    return sorted(found, key=lambda point: point.name, reverse=True)


def scratch_databases(context: BackupContext, of: Iterable[pg.DatabaseFacts]) -> list[pg.DatabaseFacts]:
    """What by its name was made by restores that are under way or were killed (`is_marked` tells if it is certain), and
    undo points whose removal has begun."""
    scratch, undo = scratch_prefix(context.database), undo_prefix(context.database)
    return [
        facts
        for facts in of
        if stamped(scratch, facts.name) is not None or (is_going(facts) and stamped(undo, facts.name) is not None)
    ]


def is_marked(scratch: pg.DatabaseFacts) -> bool:
    """Whether a database carries a comment of ours. So may an undo point: it has the one that the live database had."""
    return (scratch.comment or "").startswith(MARK)


def is_going(database: pg.DatabaseFacts) -> bool:
    """Whether the removal of a database has begun."""
    return database.comment == GOING
