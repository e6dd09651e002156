"""Whether the live database has lost its memory, and which backup brings it back."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BackupToolError, DatabaseMissing, NextCall
from ..models.manifest import ManifestHead
from ..postgres.server.counting import Count, count_table
from .catalog import records
from .context import BackupContext


@dataclass(frozen=True)
class Loss:
    """What is gone, in a sentence, and the newest full backup."""

    what: str
    full: str

    @property
    def remedy(self) -> str:
        """The first thing to do."""
        return f"If that was not intended, {restore_it(self.full)}."

    @property
    def next_call(self) -> NextCall:
        """The call that does it, which asks the user first."""
        return NextCall(tool="restore", arguments={"backup": self.full})


def restore_it(full: str) -> str:
    """Say what brings lost rows back."""
    return f"restore {full}, the newest full backup"


def loss(context: BackupContext, counted: Count | None = None) -> Loss | None:
    """Look for a loss: the integrity table is empty or gone, or the database is, and a full backup has its rows. None
    if there is none, or the server can't be asked. `counted` are the integrity table's rows, if the caller knows."""
    table = context.settings.integrity_table
    try:
        full = records.last_full(context, readable=True) or records.last_full(context, ("volume",), readable=True)
        if full is None or not full.integrity_rows:
            return None
        manifest = records.manifest_of(context, context.directory.find(full.name))
        if manifest is None or manifest.integrity_table != table:
            return None
        count = counted or _count(context, table)
    except BackupToolError:
        return None
    if count is None:
        return Loss(f"There is no database {context.database}; {_rows(full)}", full.name)
    if count.rows or count.why:
        return None
    return Loss(f"The table {table} is {'missing' if count.rows is None else 'empty'}; {_rows(full)}", full.name)


def _count(context: BackupContext, table: str) -> Count | None:
    """Count the table; None if there is no database."""
    try:
        return count_table(context.server, context.database, table)
    except DatabaseMissing:
        return None


def _rows(full: ManifestHead) -> str:
    return f"{full.name} has {full.integrity_rows:,} of its rows."
