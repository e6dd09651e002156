"""Whether a restore brings less than it replaces: then it needs a consent of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ...errors import HostError, ServerError, SmallerRefused
from ...postgres.server import catalogue as pg
from ...postgres.server.counting import count_rows
from ...progress import Progress
from ..context import BackupContext

SECONDS = 20
"""How long all of the live database's rows may take to be counted: a question waits for it."""


@dataclass(frozen=True)
class Size:
    """How much there is; None: nobody knows. `integrity_rows` are those of the integrity table."""

    rows: int | None
    integrity_rows: int | None
    tables: int | None = None

    def told(self, table: str) -> str:
        """Describe it in words."""
        rows = "an unknown number of rows" if self.rows is None else f"{self.rows:,} rows"
        tables = "" if self.tables is None else f" in {self.tables:,} tables"
        of_those = "" if self.integrity_rows is None else f", {self.integrity_rows:,} of them in {table}"
        return f"{rows}{tables}{of_those}"


def live(context: BackupContext, integrity_rows: int | None, progress: Progress) -> Size:
    """Measure the live database. What can't be counted in time, or not behind a migration, is unknown."""
    until, number = time.monotonic() + SECONDS, None
    options = {"lock_timeout": "3s", "statement_timeout": f"{SECONDS}s"}
    progress.stage("counting the live database's rows")
    try:
        with context.server.session(context.database, options, progress) as session:
            tables = [table for table in pg.tables(session) if not table.in_extension]
            number = len(tables)
            counted = count_rows(session, tables, until=until)
            rows = None if counted.failed else sum(counted.rows.values())
    except (HostError, ServerError):
        rows = None
    return Size(rows, integrity_rows, number)


def compared(brings: Size, now: Size, table: str) -> str:
    """Say what is there now, and loudly where that is more than what comes. "" if its rows are not known."""
    if now.rows is None:
        return ""
    pairs = (
        ("rows", brings.rows, now.rows),
        (f"rows in {table}", brings.integrity_rows, now.integrity_rows),
        ("tables", brings.tables, now.tables),
    )
    more = [
        f"{old - new:,} more {what}" for what, new, old in pairs if new is not None and old is not None and new < old
    ]
    caution = f" CAUTION: it has {', '.join(more)} than the backup!" if more else ""
    return f"The live database has {now.told(table)}.{caution}"


def check(source: str, brings: Size, now: Size, table: str, *, accepted: bool) -> list[str]:
    """Return a warning with both sizes if it is less than half and `accepted`. Raises SmallerRefused otherwise."""
    pairs = (
        (brings.rows, now.rows),
        (brings.integrity_rows, now.integrity_rows),
        (brings.tables, now.tables),
    )
    if not any(new is not None and old is not None and new * 2 < old for new, old in pairs):
        return []
    told = f"{source} contains {brings.told(table)}, and would replace {now.told(table)}."
    if not accepted:
        raise SmallerRefused(f"It has less than half of what it replaces: {told}")
    return [f"It has less than half of what it replaces: {told}"]
