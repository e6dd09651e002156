"""What a restore has to know of a file that others made before it asks."""

from __future__ import annotations

from ...errors import BackupNotValid, OtherDatabaseRefused
from ...models.common import CodePage
from ...models.manifest import Manifest
from ...postgres.dump.brought_code import BroughtCode
from ...postgres.dump.contents import Contents
from ...progress import Progress
from ..catalog.records import BackupRecord
from ..context import BackupContext
from ..reading.foreign import DumpChoice
from ..sandbox import pg_restore
from ..verify import sql as verify_sql
from .size_guard import Size


def inspect(
    context: BackupContext,
    record: BackupRecord[Manifest],
    accept_other_database: bool,
    code_page: CodePage | None,
    progress: Progress,
) -> tuple[str, Size, list[str]]:
    """Return its SHA-256, size and warnings. Of an archive little is known before it is converted.

    Raises BackupNotValid for what is no database, and OtherDatabaseRefused for another one.
    """
    if pg_restore.is_archive(record):
        told = pg_restore.header(record)
        _check_database(context, record, told.database if told else None, accept_other_database)
        later = f"{record.name} is an archive: its content is only known after pg_restore has converted it."
        return pg_restore.digest(record.entry, progress), Size(None, None), [later]
    contents, code = Contents(), BroughtCode()
    reading = verify_sql.full(context, record, progress, contents, code, store=False, code_page=code_page)
    assert reading.examination is not None
    size = brought(context, reading, contents)
    if reading.choice is None:
        return reading.examination.sha256, size, code.warnings()
    _check_database(context, record, reading.choice.database, accept_other_database)
    check_choice(record, reading.choice)
    return reading.examination.sha256, size, [*(f"{note}." for note in reading.choice.notes), *code.warnings()]


def brought(context: BackupContext, reading: verify_sql.SqlReading, contents: Contents) -> Size:
    """Measure a script whose reading filled `contents`; the size of one that is not intact is unknown."""
    if not reading.whole or (reading.ambiguous is not None and reading.named is None):
        return Size(None, None)
    rows = contents.rows
    held = [of.rows for (_, name), of in rows.items() if name == context.settings.integrity_table]
    unknown = any(of.rows is None for of in rows.values())
    return Size(
        None if unknown else sum(of.rows or 0 for of in rows.values()),
        held[0] if len(held) == 1 else None if held else 0,
        reading.choice.tables if reading.choice else None,
    )


def check_choice(record: BackupRecord[Manifest], choice: DumpChoice | None) -> None:
    """Raise BackupNotValid for a script that can't be restored as a database, though nothing is wrong with it."""
    if choice is not None and choice.refused:
        raise BackupNotValid(f"{record.name} can't be restored as a database: {choice.refused}.")


def _check_database(
    context: BackupContext, record: BackupRecord[Manifest], database: str | None, accepted: bool
) -> None:
    if database not in (None, context.database) and not accepted:
        raise OtherDatabaseRefused(f"{record.name} is a dump of the database {database}, not of {context.database}.")
