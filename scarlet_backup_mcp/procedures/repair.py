"""`repair`: write a clean copy of an old backup that PowerShell re-encoded, and leave the original unchanged."""

from __future__ import annotations

import time
from collections.abc import Mapping

from ..errors import BackupNotValid, DumpFailed, NextCall
from ..models.common import CodePage
from ..models.manifest import Manifest
from ..models.results import Repaired
from ..postgres.dump.contents import Contents, Rows
from ..postgres.dump.digests import BlockDigests
from ..postgres.dump.events import ScriptDamaged
from ..postgres.dump.script import ScriptReader
from ..progress import Progress
from ..store import names
from ..store.lock import writer_lock
from ..store.powershell import Irreparable
from ..store.reading import CompressionDamaged, FileReader, decompress
from ..store.storing import Storing
from ..store.writing import PartialFile
from .backup.sql_dump import DumpWritten
from .call_notes import CallNotes
from .catalog import recorded
from .catalog.recorded import Order
from .catalog.records import BackupRecord
from .context import BackupContext
from .reading import checks, reencoded
from .reading.sql import Examination, table_data
from .restore import foreign_source
from .verify import sql as verify_sql


def repair(
    context: BackupContext,
    progress: Progress,
    name: str,
    *,
    code_page: CodePage | None = None,
    notes: CallNotes | None = None,
) -> Repaired:
    """Write the dump as it was before PowerShell re-encoded it, under a new name and with a manifest.

    The manifest proves the copy's content; about the database it says nothing, because the original does not either.
    Raises CodePageNeeded if only the caller can name the right page, BackupNotValid for a file that is not a complete
    PowerShell-made dump; then nothing is left behind.
    """
    began = time.monotonic()
    record = verify_sql.find(context, name)
    name = record.name
    container = checks.container_of(record.entry)
    if container == "plain":
        raise BackupNotValid(
            f"{name} was not re-encoded: there is nothing to repair.",
            "If verification finds it intact, it can be used as it is.",
        )
    context.directory.prepare()
    with writer_lock(context.directory.path, "repair"):
        (notes or CallNotes()).settled += context.directory.sweep().sentences
        reading = verify_sql.full(context, record, progress, store=False, code_page=code_page)
        if reading.ambiguous is not None and code_page is None:
            raise reencoded.code_page_needed(record, reading.ambiguous)
        found = reading.examination
        if not reading.whole or found is None or found.repair is None or found.summary is None:
            wrong = [check for check in reading.failed if check.check != checks.MANIFEST]
            raise BackupNotValid(
                f"{name} can't be recovered as a complete dump: {checks.describe(wrong)}.",
                verify_sql.remedy_for(record, reading),
            )
        foreign_source.check_choice(record, reading.choice)
        manifest = _write(context, record, found, reading.encoding, progress)
    return Repaired(
        name=manifest.name,
        path=str(context.directory.path / manifest.name),
        repaired_from=name,
        found=reading.encoding,
        code_page=found.repair.code_page,
        bytes=manifest.bytes,
        sha256=manifest.sha256,
        tables=len(manifest.tables),
        rows=found.rows,
        integrity_rows=manifest.integrity_rows,
        duration_seconds=round(time.monotonic() - began, 3),
        remedy="Prove it with a drill; the original may stay as it is.",
        next_call=NextCall(tool="verify_backup", arguments={"backup": manifest.name, "level": "drill"}),
    )


def _write(
    context: BackupContext, record: BackupRecord[Manifest], found: Examination, how: str, progress: Progress
) -> Manifest:
    assert found.repair is not None
    order = Order(None, "zstd" if record.entry.name.compression == "zstd" else "none")
    final = context.directory.path / names.repaired_name(record.entry.name, record.created_at.astimezone())
    if final.exists():
        raise BackupNotValid(
            f"{final.name} already exists.",
            "Verifying it shows how it was made. Use it, or move it and its manifest away first.",
        )
    progress.stage(f"writing {final.name}", record.entry.bytes)
    with PartialFile(final) as partial:
        raw = FileReader(record.entry.path, progress.report)
        digests, contents = BlockDigests(), Contents()
        reader = ScriptReader(digests, contents)
        changed = DumpFailed(f"{record.name} changed while it was being read.", "Try again when nothing writes to it.")
        try:
            assert found.through is not None
            with Storing(partial, order.compression, reader.feed) as storing:
                for chunk in found.through(decompress(iter(raw), record.entry.name.compression)):
                    storing.put(chunk)
                storing.finish()
            summary = reader.finish()
        except (ScriptDamaged, Irreparable, CompressionDamaged):
            raise changed from None
        if raw.sha256 != found.sha256:
            raise changed
        partial.finish()
        written = DumpWritten(
            tables=table_data(digests),
            rest_sha256=digests.rest_sha256,
            script_bytes=summary.bytes,
            pg_dump_version=summary.pg_dump_version or "unknown",
            warnings=[],
        )
        recorded.read_back(partial, progress)
        manifest = _manifest(context, record, partial, order, written, contents.rows, how)
        recorded.publish(context, progress, partial, manifest, order)
    return manifest


def _manifest(
    context: BackupContext,
    record: BackupRecord[Manifest],
    partial: PartialFile,
    order: Order,
    written: DumpWritten,
    rows: Mapping[tuple[str, str], Rows],
    how: str,
) -> Manifest:
    """Build the copy's manifest. `rows` includes tables filled by INSERT statements; `how` describes the repair."""
    table = context.settings.integrity_table
    found = [of.rows for (_, name), of in rows.items() if name == table]
    shrunk = [f"the table {table} is empty or not there"] if found in ([0], []) else []
    return Manifest(
        **recorded.file_fields(context, partial, order, "sql", record.created_at),
        **recorded.row_fields(sum(of.rows or 0 for of in rows.values()), found[0] if len(found) == 1 else None, shrunk),
        **written.fields,
        repaired_from=record.name,
        repaired_how=how,
        identity=None,
        schemas=None,
        properties=None,
        roles=[],
        database_bytes=None,
    )
