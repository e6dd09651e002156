"""Names that restores create on a server: undo points, scratch databases, and a volume's former contents.

Each begins with the database's name. A name too long for that, as PostgreSQL's end at 63 bytes, is shortened and
followed by a digest of it; an undo point then has the whole name in its comment, below the database's own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime

from ..models.results import UndoPoint
from ..postgres.server import catalogue as pg
from ..postgres.server.databases import NAME_BYTES
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


_STAMP_BYTES = len("YYYYMMDD_HHMMSS")
_DIGITS = 8
_NOTED = re.compile(rf"(?:(?P<own>.*)\n)?{TAG}: undo point of (?P<database>[^\n]+)", re.DOTALL)


def undo_prefix(database: str) -> str:
    """Return the prefix of a database's undo points; a UTC time `YYYYMMDD_HHMMSS` follows."""
    return _prefix(database, "_before_restore_")


def scratch_prefix(database: str) -> str:
    """Return the prefix of a database's scratch databases; a UTC time `YYYYMMDD_HHMMSS` follows."""
    return _prefix(database, "_restore_")


def _prefix(database: str, kind: str) -> str:
    if len(f"{database}{kind}".encode()) + _STAMP_BYTES <= NAME_BYTES:
        return f"{database}{kind}"
    name = database.encode()
    kept = name[: NAME_BYTES - _STAMP_BYTES - len(kind) - _DIGITS - 1].decode(errors="ignore")
    return f"{kept}_{hashlib.sha256(name).hexdigest()[:_DIGITS]}{kind}"


def noted(comment: str | None, database: str) -> str | None:
    """Return the comment for an undo point of a database with that comment."""
    own = without_note(comment)
    if undo_prefix(database).startswith(database):
        return own
    return "\n".join(filter(None, [own, f"{TAG}: undo point of {database}"]))


def without_note(comment: str | None) -> str | None:
    """Return the comment that an undo point's database had."""
    found = _NOTED.fullmatch(comment or "")
    return found["own"] if found else comment


def _is_of(database: str, undo_point: pg.DatabaseFacts) -> bool:
    """Tell whether an undo point with the database's prefix is not another one's, whose name has the same digest."""
    if found := _NOTED.fullmatch(undo_point.comment or ""):
        return found["database"] == database
    return undo_prefix(database).startswith(database)


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
        if (made := stamped(prefix, database.name)) is not None
        and not is_going(database)
        and _is_of(context.database, database)
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
